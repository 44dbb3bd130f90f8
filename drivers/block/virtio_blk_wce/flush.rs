// SPDX-License-Identifier: GPL-2.0

//! Flushes, and writes that end only when they are on stable storage.
//!
//! Whether the device is sent a flush is decided here, when a request is handled, and not when it
//! was submitted. In between the block layer may split a write, hold it back or let it wait for a
//! tag, for any length of time, and the mode of the cache may change meanwhile.
//!
//! For a flush that a user asks for, this is decided when the driver gets it, since it is about
//! writes that are complete by then. For a write with FUA it is decided when the device has
//! completed the write, because the mode may have changed while the device had it. If the write
//! needs a flush, the same request is sent to the device once more, as a flush. That takes no
//! memory and no tag.
//!
//! Writes share flushes. Those that the device completes while a flush is under way wait for the
//! next one, because the device may have begun with the first one before they were complete.

use crate::{
    disk::{Buffer, QueueState, VirtioBlk},
    status::outcome, //
};
use core::mem;
use kernel::prelude::*;
use kernel_ext::{
    block::{
        batch::RequestList,
        request::{Op, Request, RequestInner, Status},
        virtio_blk::{
            chain::Mapped,
            request,
            status,
            Header, //
        },
    },
    virtio::queue::RingGuard,
};

/// Takes a write with FUA that the device has answered, and returns those that are over.
///
/// The caller calls [`begin`] when it has taken all that the device has answered.
#[cold]
pub(crate) fn answered(
    blk: &VirtioBlk,
    state: &mut QueueState,
    mut rq: Request<VirtioBlk>,
) -> RequestList<Request<VirtioBlk>> {
    let flushes = &mut state.flushes;
    let mut over = RequestList::default();

    state.waits = true;
    if rq.is_partly_done() {
        // The write itself is supported, whatever the device says of the flush.
        let outcome = match rq.device_status() {
            status::OK => status::OK,
            _ => status::IOERR,
        };
        flushes.under_way = false;

        let mut covered = mem::take(&mut flushes.covered);
        covered.push_tail(rq);
        while let Some(mut rq) = covered.pop() {
            // A write that was covered has no status of this flush.
            rq.set_device_status(outcome);
            over.push_tail(rq);
        }
    } else if blk.cache.needs_flushes() && outcome(&mut rq) == Status::OK {
        rq.unmap();
        rq.set_partly_done();
        flushes.waiting.push_tail(rq);
    } else {
        over.push_tail(rq);
    }

    over
}

/// Takes all writes that wait for a flush, or for the answer to one. Called when the write that was
/// sent as a flush has come back from the ring without an answer.
pub(crate) fn give_up(state: &mut QueueState) -> [RequestList<Request<VirtioBlk>>; 2] {
    let flushes = &mut state.flushes;

    flushes.under_way = false;
    [
        mem::take(&mut flushes.covered),
        mem::take(&mut flushes.waiting),
    ]
}

/// Whether a request is a flush, or a write that is complete but for its flush.
#[inline]
pub(crate) fn is_one(rq: &RequestInner<VirtioBlk>) -> bool {
    rq.op() == Op::Flush || rq.is_partly_done()
}

/// Sends a flush if writes wait for one and none is under way. Returns whether the device has to be
/// told.
pub(crate) fn begin(blk: &VirtioBlk, ring: &mut RingGuard<'_, Buffer, QueueState>) -> bool {
    let flushes = &ring.flushes;

    !flushes.under_way && !flushes.waiting.is_empty() && begin_next(blk, ring)
}

fn begin_next(blk: &VirtioBlk, ring: &mut RingGuard<'_, Buffer, QueueState>) -> bool {
    let mut covered = mem::take(&mut ring.flushes.waiting);
    let Some(rq) = covered.pop() else {
        return false;
    };

    match send(blk, ring, rq) {
        Ok(()) => {
            ring.flushes.covered = covered;
            true
        }
        Err((rq, err)) => {
            put_back(rq.into_inner(), err);
            while let Some(rq) = covered.pop() {
                put_back(rq, err);
            }
            false
        }
    }
}

/// Sends a write to the device once more, as a flush.
fn send(
    blk: &VirtioBlk,
    ring: &mut RingGuard<'_, Buffer, QueueState>,
    rq: Request<VirtioBlk>,
) -> Result<(), (Mapped<Request<VirtioBlk>>, Error)> {
    let rq = rq.map_without_data(Header::new(blk.endian(), request::FLUSH, 0, 0));

    ring.add(rq)?;
    ring.flushes.under_way = true;
    Ok(())
}

/// Gives a write whose flush could not be sent back to the block layer, which passes it to the
/// driver again later. Then [`again`] sends the flush alone: a write that is done twice could undo
/// a later one, and a zone would refuse it.
fn put_back(mut rq: Request<VirtioBlk>, err: Error) {
    if err == ENOSPC || err == ENOMEM {
        rq.requeue();
    } else {
        rq.set_device_status(status::IOERR);
        rq.complete();
    }
}

/// Goes on with a write that [was put back](put_back) and is started again. The caller has to
/// notify the device.
///
/// # Errors
///
/// Those of [`RingGuard::add`].
#[cold]
pub(crate) fn again(
    blk: &VirtioBlk,
    ring: &mut RingGuard<'_, Buffer, QueueState>,
    rq: Request<VirtioBlk>,
) -> Result<(), (Mapped<Request<VirtioBlk>>, Error)> {
    if ring.flushes.under_way {
        ring.flushes.waiting.push_tail(rq);
        return Ok(());
    }
    send(blk, ring, rq)
}
