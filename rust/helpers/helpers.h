/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions for Rust in place of C inline functions and macros. bindgen binds
 * each of them under its name without the prefix.
 */
#ifndef _VIRTIO_BLK_WCE_HELPERS_H
#define _VIRTIO_BLK_WCE_HELPERS_H

#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/idr.h>
#include <linux/ratelimit.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>

/* The kernel's own helpers have attributes here, which a module's need not have. */
#define __rust_helper

bool rust_helper_virtio_test_bit(const struct virtio_device *vdev, unsigned int fbit);
void rust_helper_virtio_clear_bit(struct virtio_device *vdev, unsigned int fbit);
void rust_helper_virtio_device_ready(struct virtio_device *vdev);

void rust_helper_queue_limits_start_update(struct request_queue *q, struct queue_limits *lim);
void rust_helper_queue_limits_cancel_update(struct request_queue *q);
void rust_helper_rq_set_payload(struct request *rq, void *payload, unsigned int len);
void *rust_helper_rq_payload(struct request *rq);
void rust_helper_complete_unless_faked(struct request *rq);
bool rust_helper_blk_mq_add_to_batch(struct request *rq, struct io_comp_batch *iob, bool is_error,
				     void (*complete)(struct io_comp_batch *iob));
unsigned long rust_helper_spin_lock_irqsave(spinlock_t *lock);
void rust_helper_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags);

void rust_helper_ida_init(struct ida *ida);
void rust_helper_ratelimit_default_init(struct ratelimit_state *state);

#endif /* _VIRTIO_BLK_WCE_HELPERS_H */
