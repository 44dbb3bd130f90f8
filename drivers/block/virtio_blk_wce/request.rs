// SPDX-License-Identifier: GPL-2.0

//! I/O: requests of the block layer on their way to the device.

use crate::{
    answer,
    disk::{Buffer, QueueState, VirtioBlk},
    flush,
    limits,
    status::{outcome, refusal},
    zone_report, //
};
use core::mem;
use kernel::prelude::*;
use kernel_ext::{
    block::{
        batch::{Completed, IoCompletionBatch, RequestList},
        mq::{Geometry, HwQueue, Operations, Rejected},
        request::{IdleRequest, Op, Request, Status},
        virtio_blk::{
            chain::{Chain, Mapped},
            request,
            submission::Submission,
            Header,
            Segment, //
        },
        zoned::ZoneReport, //
    },
    sync::rcu::Section,
    virtio::queue::{Queue, RingGuard},
};

#[vtable]
impl Operations for VirtioBlk {
    type Module = crate::LocalModule;
    type RequestData = Chain<Header>;
    type QueueData = Self;

    fn new_request_data() -> impl PinInit<Self::RequestData> {
        Chain::new()
    }

    #[inline]
    fn queue_rq(
        blk: &Self,
        hw: HwQueue<'_>,
        rq: IdleRequest<Self>,
        last: bool,
        section: Section<'_>,
    ) -> Result<(), Rejected<Self>> {
        let Some(queue) = blk.queue(hw.index()) else {
            return Err(Rejected::new(rq, Status::IOERR));
        };
        if flush::is_one(&rq) {
            if !blk.cache.needs_flushes() {
                // All writes that it is about are on stable storage.
                rq.end(Status::OK);
                return Ok(());
            }
            if rq.is_partly_done() {
                return finish(blk, queue, hw, rq, section);
            }
        }
        let rq = prepare(blk, rq)
            .map_err(|(rq, err)| Rejected::new(rq, refusal(err)))?
            .start();
        let mut ring = queue.lock();

        match ring.add(rq) {
            Ok(()) => {
                if last {
                    kick(ring, section);
                }
                Ok(())
            }
            Err((rq, err)) => Err(refuse(hw, ring, rq, err, section)),
        }
    }

    #[inline]
    fn queue_rqs(
        blk: &Self,
        mut requests: RequestList<IdleRequest<Self>>,
        section: Section<'_>,
    ) -> RequestList<IdleRequest<Self>> {
        let mut refused = RequestList::default();
        let mut ready = RequestList::default();
        let mut index = 0;

        while let Some(rq) = requests.pop() {
            if rq.queue_index() != index {
                add_all(blk, index, mem::take(&mut ready), section);
                index = rq.queue_index();
            }
            if flush::is_one(&rq) {
                refused.push_tail(rq);
                continue;
            }
            match prepare(blk, rq) {
                Ok(rq) => ready.push_tail(rq.start()),
                Err((rq, _)) => refused.push_tail(rq),
            }
        }
        add_all(blk, index, ready, section);

        refused
    }

    #[inline]
    fn commit_rqs(blk: &Self, hw: HwQueue<'_>, section: Section<'_>) {
        let Some(queue) = blk.queue(hw.index()) else {
            return;
        };

        kick(queue.lock(), section);
    }

    #[inline]
    fn poll(blk: &Self, hw: HwQueue<'_>, batch: &mut IoCompletionBatch<'_, Self>) -> usize {
        let Some(queue) = blk.queue(hw.index()) else {
            return 0;
        };
        let mut ring = queue.lock();
        let mut used = false;
        let mut found = 0;
        let mut end = |mut rq: Request<Self>| {
            let error = outcome(&mut rq) != Status::OK;

            if let Err(rq) = batch.add_request(rq, error) {
                Self::complete(rq);
            }
            found += 1;
        };

        while let Some(buffer) = ring.pop() {
            used = true;
            match buffer {
                Submission::Request(rq) if rq.is_fua() => {
                    let mut over = flush::answered(blk, &mut ring, rq.into_inner());

                    while let Some(rq) = over.pop() {
                        end(rq);
                    }
                }
                Submission::Request(rq) => end(rq.into_inner()),
                // Commands go to the first queue, which is not polled.
                Submission::Command(_) => (),
            }
        }
        // No interrupt would tell of a broken ring, and the caller would poll for ever.
        Self::check(&ring);
        if used {
            answer::go_on(blk, ring);
        }

        found
    }

    #[inline]
    fn complete(mut rq: Request<Self>) {
        let status = outcome(&mut rq);

        rq.unmap();
        rq.end(status);
    }

    fn release(rq: Completed<'_, Self>) {
        rq.unmap();
    }

    fn report_zones(blk: &Self, sector: u64, report: &mut ZoneReport<'_>) -> Result {
        zone_report::report(blk, sector, report)
    }

    fn geometry(blk: &Self, sectors: u64) -> Result<Geometry> {
        blk.with_device(|dev| limits::geometry(dev, sectors))
            .ok_or(ENXIO)
    }
}

/// Makes a request ready for the device.
#[inline(always)]
fn prepare(
    blk: &VirtioBlk,
    mut rq: IdleRequest<VirtioBlk>,
) -> Result<Mapped<IdleRequest<VirtioBlk>>, (IdleRequest<VirtioBlk>, Error)> {
    let (kind, sector) = match rq.op() {
        Op::Read => (request::IN, rq.sector()),
        Op::Write => (request::OUT, rq.sector()),
        Op::Flush => (request::FLUSH, 0),
        _ => match prepare_other(&mut rq) {
            Ok(kind_and_sector) => kind_and_sector,
            Err(err) => return Err((rq, err)),
        },
    };
    let header = Header::new(blk.endian(), kind, rq.ioprio(), sector);

    rq.map(header)
}

/// Makes a less frequent request ready. Returns the type and the sector for its header.
#[cold]
fn prepare_other(rq: &mut IdleRequest<VirtioBlk>) -> Result<(u32, u64)> {
    let op = rq.op();
    let kind = match op {
        Op::Discard => request::DISCARD,
        Op::WriteZeroes => request::WRITE_ZEROES,
        Op::SecureErase => request::SECURE_ERASE,
        Op::ZoneOpen => request::ZONE_OPEN,
        Op::ZoneClose => request::ZONE_CLOSE,
        Op::ZoneFinish => request::ZONE_FINISH,
        Op::ZoneAppend => request::ZONE_APPEND,
        Op::ZoneReset => request::ZONE_RESET,
        Op::ZoneResetAll => request::ZONE_RESET_ALL,
        // The device has no type for any other.
        _ => return Err(EOPNOTSUPP),
    };

    match op {
        Op::Discard | Op::WriteZeroes | Op::SecureErase => {
            set_segments(rq, op)?;
            Ok((kind, 0))
        }
        Op::ZoneResetAll => Ok((kind, 0)),
        _ => Ok((kind, rq.sector())),
    }
}

/// Notifies the device of what was added to a ring. The ring is unlocked before that.
#[inline]
fn kick(mut ring: RingGuard<'_, Buffer, QueueState>, section: Section<'_>) {
    let kick = ring.prepare_kick(section);

    drop(ring);
    kick.notify();
}

/// Gives a request that was not added to a ring back to the block layer, with the reason.
#[cold]
fn refuse(
    hw: HwQueue<'_>,
    mut ring: RingGuard<'_, Buffer, QueueState>,
    rq: Mapped<Request<VirtioBlk>>,
    err: Error,
    section: Section<'_>,
) -> Rejected<VirtioBlk> {
    // The queue is not stopped if the buffer could not be mapped. The ring may be empty then, and
    // nothing would start the queue again.
    if err == ENOSPC {
        ring.set_stopped();
        hw.stop();
    }
    VirtioBlk::check(&ring);
    // Buffers in the ring make room when they are used, so the device has to know of them.
    kick(ring, section);

    let mut rq = rq.into_inner();
    rq.unmap();
    Rejected::new(rq, refusal(err))
}

/// Goes on with a write that the device has completed, but whose flush could not be sent then.
#[cold]
fn finish(
    blk: &VirtioBlk,
    queue: &Queue<Buffer, QueueState>,
    hw: HwQueue<'_>,
    rq: IdleRequest<VirtioBlk>,
    section: Section<'_>,
) -> Result<(), Rejected<VirtioBlk>> {
    let rq = rq.start();
    let mut ring = queue.lock();

    match flush::again(blk, &mut ring, rq) {
        Ok(()) => {
            kick(ring, section);
            Ok(())
        }
        Err((rq, err)) => Err(refuse(hw, ring, rq, err, section)),
    }
}

/// Adds requests to the ring of one queue, and notifies the device once.
fn add_all(
    blk: &VirtioBlk,
    index: usize,
    mut requests: RequestList<Mapped<Request<VirtioBlk>>>,
    section: Section<'_>,
) {
    if requests.is_empty() {
        return;
    }
    let Some(queue) = blk.queue(index) else {
        while let Some(rq) = requests.pop() {
            let mut rq = rq.into_inner();
            rq.unmap();
            rq.end(Status::IOERR);
        }
        return;
    };
    let mut ring = queue.lock();

    while let Some(rq) = requests.pop() {
        if let Err((rq, _)) = ring.add(rq) {
            // It comes back through `queue_rq`, which stops the queue if the ring is full, and
            // fails the request if that is not the reason.
            let mut rq = rq.into_inner();
            rq.unmap();
            rq.requeue();
        }
    }
    VirtioBlk::check(&ring);
    kick(ring, section);
}

/// Makes the ranges that a request is for its data.
fn set_segments(rq: &mut IdleRequest<VirtioBlk>, op: Op) -> Result {
    let unmap = op == Op::WriteZeroes && !rq.is_no_unmap();
    let segments = rq.map_ranges(|range| Segment::new(range, unmap))?;

    rq.set_payload(segments)
}
