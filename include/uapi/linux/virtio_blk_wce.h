/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause) */
/*
 * Switching the write cache of a virtio block device by a request.
 *
 * An extension of the virtio block device (device ID 2): the names, numbers
 * and layouts here are those of Documentation/virtio-blk-set-wce.rst, for the
 * driver and for the device.
 */
#ifndef _UAPI_LINUX_VIRTIO_BLK_WCE_H
#define _UAPI_LINUX_VIRTIO_BLK_WCE_H

#include <linux/types.h>

/*
 * Feature bit: the device takes VIRTIO_BLK_T_SET_WCE requests, and the field
 * wce of struct virtio_blk_config can be read. Offered only together with
 * VIRTIO_BLK_F_FLUSH.
 */
#define VIRTIO_BLK_F_SET_WCE		23

/*
 * Request type: switch the write cache. The device reads one struct
 * virtio_blk_set_wce after the request header, and writes the status byte.
 */
#define VIRTIO_BLK_T_SET_WCE		33

/* Values of wce, in the request and in the configuration space */
#define VIRTIO_BLK_WCE_WRITETHROUGH	0
#define VIRTIO_BLK_WCE_WRITEBACK	1

/**
 * struct virtio_blk_set_wce - payload of a VIRTIO_BLK_T_SET_WCE request
 * @wce: the mode to switch to, VIRTIO_BLK_WCE_WRITETHROUGH or _WRITEBACK
 */
struct virtio_blk_set_wce {
	__u8 wce;
};

#endif /* _UAPI_LINUX_VIRTIO_BLK_WCE_H */
