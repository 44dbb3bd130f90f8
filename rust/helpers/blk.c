// SPDX-License-Identifier: GPL-2.0

#include <linux/blk-mq.h>
#include <linux/blkdev.h>

#include "helpers.h"

__rust_helper void rust_helper_rq_set_payload(struct request *rq, void *payload, unsigned int len)
{
	bvec_set_virt(&rq->special_vec, payload, len);
	rq->rq_flags |= RQF_SPECIAL_PAYLOAD;
}

__rust_helper void *rust_helper_rq_payload(struct request *rq)
{
	return bvec_virt(&rq->special_vec);
}

/* Every request comes through here, so both are one call from Rust, and the second a tail call. */
__rust_helper void rust_helper_complete_unless_faked(struct request *rq)
{
	if (likely(!blk_should_fake_timeout(rq->q)))
		blk_mq_complete_request(rq);
}

__rust_helper bool rust_helper_blk_mq_add_to_batch(struct request *rq, struct io_comp_batch *iob,
						   bool is_error,
						   void (*complete)(struct io_comp_batch *iob))
{
	return blk_mq_add_to_batch(rq, iob, is_error, complete);
}

/* Rust gets a structure of this size by a pointer, not as the value that C returns. */
__rust_helper void rust_helper_queue_limits_start_update(struct request_queue *q,
							 struct queue_limits *lim)
{
	*lim = queue_limits_start_update(q);
}

__rust_helper void rust_helper_queue_limits_cancel_update(struct request_queue *q)
{
	queue_limits_cancel_update(q);
}
