// SPDX-License-Identifier: GPL-2.0

//! How commands are sent, and how callers wait for the answers.
//!
//! Commands are no requests of the block layer. If the device does not answer, only the caller
//! waits, and a signal interrupts that.

use crate::{
    command::{Call, Command, Purpose},
    disk::{QueueState, VirtioBlk},
    switch::Failure, //
};
use core::mem;
use kernel::{prelude::*, sync::rcu};

/// Sends a command.
///
/// A full ring is no failure: the command is sent when a buffer in the ring has been used.
pub(crate) fn send(blk: &VirtioBlk, command: KBox<Command>) -> Result<(), Failure> {
    let queue = blk.queue(0).ok_or(Failure::Gone)?;
    let rcu = rcu::read_lock();
    let mut ring = queue.lock();

    if ring.away {
        ring.defer(command);
        return Ok(());
    }
    match ring.add(command) {
        Ok(()) => (),
        Err((command, ENOSPC)) => ring.defer(command),
        Err((_, ENODEV)) => return Err(Failure::Gone),
        Err(_) => {
            VirtioBlk::check(&ring);
            return Err(Failure::Io);
        }
    }
    let kick = ring.prepare_kick(&rcu);
    drop(ring);
    kick.notify();

    Ok(())
}

/// Keeps commands back until [`answer::send_held`](crate::answer::send_held), because the device is
/// about to be reset.
pub(crate) fn hold(blk: &VirtioBlk) {
    if let Some(queue) = blk.queue(0) {
        queue.lock().away = true;
    }
}

/// Sends a command, after those of other callers with the same purpose, and waits for its answer.
///
/// # Errors
///
/// `EIO` if it can't be sent, `EINTR` if a signal came first or the system is suspended, `ENODEV`
/// if the device is gone.
pub(crate) fn wait(blk: &VirtioBlk, command: KBox<Command>) -> Result<KBox<Command>> {
    let purpose = command.context;
    let queue = blk.queue(0).ok_or(ENODEV)?;

    let mut ring = queue.lock();
    while !matches!(ring.call(purpose), Call::Free) {
        if matches!(ring.call(purpose), Call::Closed) {
            return Err(ENODEV);
        }
        // The wait is not freezable: see `Cache::wait()`.
        if ring.wait_interruptible(&blk.calls_changed) {
            return Err(EINTR);
        }
    }
    *ring.call(purpose) = Call::Asked;
    drop(ring);

    let sent = send(blk, command);

    let mut ring = queue.lock();
    if sent.is_err() && matches!(ring.call(purpose), Call::Asked) {
        *ring.call(purpose) = Call::Free;
        blk.calls_changed.notify_all();
        return Err(EIO);
    }
    loop {
        match ring.call(purpose) {
            Call::Answered(_) => break,
            Call::Closed => return Err(ENODEV),
            _ => (),
        }
        if ring.wait_interruptible(&blk.calls_changed) && matches!(ring.call(purpose), Call::Asked)
        {
            *ring.call(purpose) = Call::Abandoned;
            return Err(EINTR);
        }
    }
    let answered = mem::take(ring.call(purpose));
    drop(ring);
    blk.calls_changed.notify_all();

    match answered {
        Call::Answered(command) => Ok(command),
        _ => Err(EIO),
    }
}

/// Takes the device's answer. The caller has locked the first ring; `state` is its state.
pub(crate) fn answered(blk: &VirtioBlk, state: &mut QueueState, command: KBox<Command>) {
    let call = state.call(command.context);

    match call {
        Call::Asked => *call = Call::Answered(command),
        Call::Abandoned => *call = Call::Free,
        _ => return,
    }
    blk.calls_changed.notify_all();
}

/// Ends all calls, now and in the future.
pub(crate) fn close(blk: &VirtioBlk) {
    let Some(queue) = blk.queue(0) else {
        return;
    };

    for purpose in [Purpose::Serial, Purpose::Zones] {
        let before = mem::replace(queue.lock().call(purpose), Call::Closed);

        // An answer is freed here, without the lock.
        drop(before);
    }
    blk.calls_changed.notify_all();
}
