// SPDX-License-Identifier: GPL-2.0

//! Block devices: what [`kernel::block`] does not offer yet.
//!
//! - [`mq`]: tag sets, the operations that a driver implements, hardware queues.
//! - [`request`]: requests, which carry data of the driver and are owned while the driver has them.
//! - [`batch`]: requests that are passed on, or ended, several at a time.
//! - [`disk`]: disks with all limits, that can change while the disk is in use.
//! - [`limits`]: the limits of a disk's queue.
//! - [`attribute`]: attributes of the disk in sysfs.
//! - [`number`]: major and minor numbers.
//! - [`size`]: sizes in units that people read.
//! - [`virtio_blk`]: what a virtio block device and its driver agree on, and exchange.
//! - [`zoned`]: what zoned disks have besides.

pub mod attribute;
pub mod batch;
pub mod disk;
pub mod limits;
pub mod mq;
pub mod number;
pub mod request;
pub mod size;
pub mod virtio_blk;
pub mod zoned;
