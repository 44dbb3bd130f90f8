// SPDX-License-Identifier: GPL-2.0

//! I/O: requests of the block layer to the device and back.

use crate::{disk::VirtioBlk, limits};
use kernel::{prelude::*, sync::rcu};
use kernel_ext::{
    block::{
        mq::{Geometry, HwQueue, Operations, Rejected},
        request::{Op, Request, Status}, //
    },
    virtio::{
        blk::{request, status, Header, Segment},
        chain::Chain, //
    },
};

impl Operations for VirtioBlk {
    type Module = crate::LocalModule;
    type RequestData = Chain<Header>;
    type Data = Self;

    fn queue_rq(
        blk: &Self,
        hw: HwQueue<'_>,
        mut rq: Request<Self>,
        last: bool,
    ) -> Result<(), Rejected<Self>> {
        let op = rq.op();
        let (kind, sector) = match op {
            Op::Read => (request::IN, rq.sector()),
            Op::Write => (request::OUT, rq.sector()),
            Op::Flush => (request::FLUSH, 0),
            Op::Discard => (request::DISCARD, 0),
            Op::WriteZeroes => (request::WRITE_ZEROES, 0),
            Op::SecureErase => (request::SECURE_ERASE, 0),
            Op::Other => return Err((rq, Status::NOTSUPP)),
        };
        let Some(queue) = blk.queue(hw.index()) else {
            return Err((rq, Status::IOERR));
        };

        if matches!(op, Op::Discard | Op::WriteZeroes | Op::SecureErase) {
            if let Err(err) = set_segments(&mut rq, op) {
                return Err((rq, refusal(err)));
            }
        }
        if let Err(err) = rq.map(Header::new(blk.endian(), kind, rq.ioprio(), sector)) {
            rq.unmap();
            return Err((rq, refusal(err)));
        }
        rq.start();

        let rcu = rcu::read_lock();
        let mut ring = queue.lock();

        match ring.add_left(rq) {
            Ok(()) => {
                if last {
                    let kick = ring.prepare_kick(&rcu);
                    drop(ring);
                    kick.notify();
                }
                Ok(())
            }
            Err((mut rq, err)) => {
                // What is in the ring makes room when it is done, so the device should know of it.
                let kick = ring.prepare_kick(&rcu);

                // Nothing is stopped when a buffer could not be mapped: that says nothing of the
                // ring, and there may be nothing in it that would start the queue again.
                if err == ENOSPC {
                    ring.state.stopped = true;
                    hw.stop();
                }
                drop(ring);
                kick.notify();

                rq.unmap();
                Err((rq, refusal(err)))
            }
        }
    }

    fn commit_rqs(blk: &Self, hw: HwQueue<'_>) {
        let Some(queue) = blk.queue(hw.index()) else {
            return;
        };
        let rcu = rcu::read_lock();
        // The guard of the ring is gone at the end of the statement.
        let kick = queue.lock().prepare_kick(&rcu);

        kick.notify();
    }

    fn complete(mut rq: Request<Self>) {
        let status = match rq.device_status() {
            status::OK => Status::OK,
            status::UNSUPP => Status::NOTSUPP,
            _ => Status::IOERR,
        };

        rq.unmap();
        rq.end(status);
    }

    fn geometry(blk: &Self, sectors: u64) -> Result<Geometry> {
        blk.with_device(|dev| limits::geometry(dev, sectors))
            .ok_or(ENXIO)?
    }
}

/// Gives a request the ranges that it is for, which are all of its data.
fn set_segments(rq: &mut Request<VirtioBlk>, op: Op) -> Result {
    let unmap = op == Op::WriteZeroes && !rq.is_no_unmap();
    let segments = rq.map_ranges(|range| Segment::new(range, unmap))?;

    rq.set_payload(segments)
}

/// What the block layer is told of a request that could not be passed on.
fn refusal(err: Error) -> Status {
    if err == ENOSPC {
        Status::DEV_RESOURCE
    } else if err == ENOMEM {
        Status::RESOURCE
    } else {
        Status::IOERR
    }
}
