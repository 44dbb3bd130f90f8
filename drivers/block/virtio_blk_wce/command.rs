// SPDX-License-Identifier: GPL-2.0

//! Commands of the driver's own, and where the one is for which a caller waits.

use kernel::prelude::*;
use kernel_ext::block::virtio_blk::{self, Header};

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
pub(crate) type Command = virtio_blk::command::Command<Header, Purpose>;

/// Where the one command of a purpose is that can be under way.
#[derive(Default)]
pub(crate) enum Call {
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
