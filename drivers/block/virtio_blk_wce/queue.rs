// SPDX-License-Identifier: GPL-2.0

//! What is handed to the device, and what is kept with each virtqueue.

use crate::{
    call,
    disk::VirtioBlk,
    flush::Flushes, //
};
use kernel::{prelude::*, sync::Arc};
use kernel_ext::block::{
    batch::RequestList,
    disk::Disk,
    request::Request,
    virtio_blk::{command, submission::Submission, Header}, //
};

/// What a command is for. No more than one for each purpose is under way at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To switch the write cache: [`crate::cache`].
    Cache,
    /// To learn the serial number: [`crate::serial`].
    Serial,
    /// To learn the zones: [`crate::zones`].
    Zones,
}

/// A command to the device.
pub(crate) type Command = command::Command<Header, Purpose>;

/// What is handed to the device: I/O of the block layer, or a command of the driver's own.
pub(crate) type Buffer = Submission<VirtioBlk, Header, Purpose>;

/// What is kept under the lock of each virtqueue.
#[derive(Default)]
pub(crate) struct QueueState {
    /// The disk whose queue this is.
    pub(crate) disk: Option<Arc<Disk<VirtioBlk>>>,
    /// The device is being reset: commands wait until it is back.
    pub(crate) away: bool,
    /// Something waits for buffers to be used: one of those that follow may.
    pub(crate) waits: bool,
    /// The ring was full: the block layer's queue waits to be started again.
    pub(crate) stopped: bool,
    /// Commands for which the ring had no room, one for each [`Purpose`].
    backlog: [Option<KBox<Command>>; 3],
    /// The status byte of the command to switch the cache that the device has answered.
    pub(crate) answer: Option<u8>,
    /// Writes that wait for a flush.
    pub(crate) flushes: Flushes,
    /// The command for the serial number.
    pub(crate) serial: call::State,
    /// The command for a report of zones.
    pub(crate) zones: call::State,
}

impl QueueState {
    /// Keeps a command until the ring has room.
    pub(crate) fn defer(&mut self, command: KBox<Command>) {
        self.waits = true;
        let [cache, serial, zones] = &mut self.backlog;

        match command.context {
            Purpose::Cache => *cache = Some(command),
            Purpose::Serial => *serial = Some(command),
            Purpose::Zones => *zones = Some(command),
        }
    }

    /// The block layer's queue is stopped until the ring has room.
    pub(crate) fn set_stopped(&mut self) {
        self.waits = true;
        self.stopped = true;
    }

    /// Takes a write with FUA that the device has answered: see [`Flushes::answered`].
    #[cold]
    pub(crate) fn fua_answered(
        &mut self,
        blk: &VirtioBlk,
        rq: Request<VirtioBlk>,
    ) -> RequestList<Request<VirtioBlk>> {
        self.waits = true;
        self.flushes.answered(blk, rq)
    }

    /// Takes a command that was kept.
    pub(crate) fn deferred(&mut self) -> Option<KBox<Command>> {
        self.backlog.iter_mut().find_map(Option::take)
    }
}
