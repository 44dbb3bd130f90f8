// SPDX-License-Identifier: GPL-2.0

//! The disk's serial number.
//!
//! Asked for anew for each reader, as `virtio_blk` does, but by a command: a device that does not
//! answer holds up the reader, whom a signal frees, and nobody else.

use crate::disk::{Command, Purpose, VirtioBlk};
use kernel::{
    new_condvar,
    prelude::*,
    sync::CondVar, //
};
use kernel_ext::virtio::blk::{request, status, Header, ID_BYTES};

/// Where the one request for the serial number is that can be under way.
#[derive(Default)]
pub(crate) enum State {
    /// There is none.
    #[default]
    Free,
    /// Its reader waits.
    Asked,
    /// Its reader has left.
    Abandoned,
    /// The device has answered.
    Answered(KBox<Command>),
    /// There will be none any more.
    Closed,
}

/// Readers of the serial number.
#[pin_data]
pub(crate) struct Serial {
    /// Woken whenever the [`State`] has changed, which is in that of the first virtqueue.
    #[pin]
    changed: CondVar,
}

impl Serial {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            changed <- new_condvar!(),
        })
    }

    /// Asks the device for the serial number, and waits for it. Padded with zeroes.
    ///
    /// # Errors
    ///
    /// `EIO` if the device has none, `EINTR` if a signal came first, `ENODEV` if the device is
    /// gone, `ENOMEM`.
    pub(crate) fn read(&self, blk: &VirtioBlk) -> Result<[u8; ID_BYTES]> {
        let header = Header::new(blk.endian(), request::GET_ID, 0, 0);
        let command = Command::new(header, &[], ID_BYTES, Purpose::Serial)?;
        let queue = blk.queue(0).ok_or(ENODEV)?;

        let mut ring = queue.lock();
        while !matches!(ring.state.serial, State::Free) {
            if matches!(ring.state.serial, State::Closed) {
                return Err(ENODEV);
            }
            if self.changed.wait_interruptible_freezable(&mut ring) {
                return Err(EINTR);
            }
        }
        ring.state.serial = State::Asked;
        drop(ring);

        let sent = blk.send(command);

        let mut ring = queue.lock();
        if sent.is_err() && matches!(ring.state.serial, State::Asked) {
            ring.state.serial = State::Free;
            self.changed.notify_all();
            return Err(EIO);
        }
        loop {
            match &ring.state.serial {
                State::Answered(_) => break,
                State::Closed => return Err(ENODEV),
                _ => (),
            }
            if self.changed.wait_interruptible_freezable(&mut ring)
                && matches!(ring.state.serial, State::Asked)
            {
                ring.state.serial = State::Abandoned;
                return Err(EINTR);
            }
        }
        let answered = core::mem::take(&mut ring.state.serial);
        drop(ring);
        self.changed.notify_all();

        match answered {
            State::Answered(command) if command.device_status() == status::OK => {
                command.reply().try_into().map_err(|_| EIO)
            }
            _ => Err(EIO),
        }
    }

    /// Takes the device's answer. Called with the ring locked, whose state `state` is part of.
    pub(crate) fn answered(&self, state: &mut State, command: KBox<Command>) {
        match state {
            State::Asked => *state = State::Answered(command),
            State::Abandoned => *state = State::Free,
            _ => return,
        }
        self.changed.notify_all();
    }

    /// Ends all reading, now and in future.
    pub(crate) fn close(&self, blk: &VirtioBlk) {
        if let Some(queue) = blk.queue(0) {
            let before = core::mem::replace(&mut queue.lock().state.serial, State::Closed);
            self.changed.notify_all();
            drop(before);
        }
    }
}
