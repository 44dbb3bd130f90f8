// SPDX-License-Identifier: GPL-2.0

//! The status that the block layer gets for a request.

use crate::disk::VirtioBlk;
use kernel::prelude::*;
use kernel_ext::block::{
    request::{Request, Status},
    virtio_blk::status, //
};

/// The status of a request that the device has answered. For a zone append this also takes over the
/// sector that was written, or fails if that is in another zone.
#[inline]
pub(crate) fn outcome(rq: &mut Request<VirtioBlk>) -> Status {
    match rq.device_status() {
        status::OK => (),
        status::UNSUPP => return Status::NOTSUPP,
        status::ZONE_OPEN_RESOURCE => return Status::ZONE_OPEN_RESOURCE,
        status::ZONE_ACTIVE_RESOURCE => return Status::ZONE_ACTIVE_RESOURCE,
        _ => return Status::IOERR,
    }

    if let Some(sector) = rq.appended() {
        let blk = rq.queue_data();
        let sector = blk.endian().u64(sector);

        if !blk.zones.is_same(sector, rq.sector()) {
            return Status::IOERR;
        }
        rq.set_sector(sector);
    }

    Status::OK
}

/// The status of a request that could not be passed to the device.
pub(crate) fn refusal(err: Error) -> Status {
    if err == ENOSPC {
        Status::DEV_RESOURCE
    } else if err == ENOMEM {
        Status::RESOURCE
    } else if err == EOPNOTSUPP {
        Status::NOTSUPP
    } else {
        Status::IOERR
    }
}

#[kunit_tests(virtio_blk_wce_status)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_again() {
        assert!(refusal(ENOSPC) == Status::DEV_RESOURCE);
        assert!(refusal(ENOMEM) == Status::RESOURCE);
    }

    #[test]
    fn what_does_not_pass_is_an_error() {
        for err in [EIO, ENODEV, EINVAL] {
            assert!(refusal(err) == Status::IOERR);
        }
    }
}
