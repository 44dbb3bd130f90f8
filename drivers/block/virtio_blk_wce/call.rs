// SPDX-License-Identifier: GPL-2.0

//! Commands for whose answer a caller waits.
//!
//! They are no block requests: a device that does not answer holds up the caller, whom a signal
//! frees, and nobody else.

use crate::{
    disk::VirtioBlk,
    queue::{Command, Purpose, QueueState}, //
};
use kernel::{
    new_condvar,
    prelude::*,
    sync::CondVar, //
};

/// Where the one command of a purpose is that can be under way.
#[derive(Default)]
pub(crate) enum State {
    /// There is none.
    #[default]
    Free,
    /// Its caller waits.
    Asked,
    /// Its caller has left.
    Abandoned,
    /// The device has answered.
    Answered(KBox<Command>),
    /// There will be none any more.
    Closed,
}

/// Callers with commands of one purpose.
#[pin_data]
pub(crate) struct Calls {
    purpose: Purpose,
    /// Woken whenever the [`State`] has changed, which is in that of the first virtqueue.
    #[pin]
    changed: CondVar,
}

impl Calls {
    pub(crate) fn new(purpose: Purpose) -> impl PinInit<Self> {
        pin_init!(Self {
            purpose,
            changed <- new_condvar!(),
        })
    }

    /// Sends a command, after those of other callers, and waits for its answer.
    ///
    /// # Errors
    ///
    /// `EIO` if it can't be sent, `EINTR` if a signal came first or the system is suspended,
    /// `ENODEV` if the device is gone.
    pub(crate) fn call(&self, blk: &VirtioBlk, command: KBox<Command>) -> Result<KBox<Command>> {
        let queue = blk.queue(0).ok_or(ENODEV)?;

        let mut ring = queue.lock();
        while !matches!(self.state(&mut ring), State::Free) {
            if matches!(self.state(&mut ring), State::Closed) {
                return Err(ENODEV);
            }
            // Not freezable: see `Cache::wait()`.
            if ring.wait_interruptible(&self.changed) {
                return Err(EINTR);
            }
        }
        *self.state(&mut ring) = State::Asked;
        drop(ring);

        let sent = blk.send(command);

        let mut ring = queue.lock();
        if sent.is_err() && matches!(self.state(&mut ring), State::Asked) {
            *self.state(&mut ring) = State::Free;
            self.changed.notify_all();
            return Err(EIO);
        }
        loop {
            match self.state(&mut ring) {
                State::Answered(_) => break,
                State::Closed => return Err(ENODEV),
                _ => (),
            }
            if ring.wait_interruptible(&self.changed)
                && matches!(self.state(&mut ring), State::Asked)
            {
                *self.state(&mut ring) = State::Abandoned;
                return Err(EINTR);
            }
        }
        let answered = core::mem::take(self.state(&mut ring));
        drop(ring);
        self.changed.notify_all();

        match answered {
            State::Answered(command) => Ok(command),
            _ => Err(EIO),
        }
    }

    /// Takes the device's answer. Called with the ring locked, whose state `state` is.
    pub(crate) fn answered(&self, state: &mut QueueState, command: KBox<Command>) {
        let state = self.state(state);

        match state {
            State::Asked => *state = State::Answered(command),
            State::Abandoned => *state = State::Free,
            _ => return,
        }
        self.changed.notify_all();
    }

    /// Ends all calls, now and in future.
    pub(crate) fn close(&self, blk: &VirtioBlk) {
        if let Some(queue) = blk.queue(0) {
            let before = core::mem::replace(self.state(&mut queue.lock()), State::Closed);
            self.changed.notify_all();
            drop(before);
        }
    }

    fn state<'a>(&self, state: &'a mut QueueState) -> &'a mut State {
        match self.purpose {
            Purpose::Zones => &mut state.zones,
            _ => &mut state.serial,
        }
    }
}
