// SPDX-License-Identifier: GPL-2.0

//! Commands, which the driver sends besides I/O, and the state of those for which a caller waits.

use kernel::prelude::*;
use kernel_ext::block::virtio_blk::{self, Header};

/// What a command is for. At most one command for each purpose is under way at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To switch the write cache: [`crate::control`].
    Cache,
    /// To learn the serial number: [`crate::serial`].
    Serial,
    /// To learn the zones: [`crate::zone_report`].
    Zones,
}

/// A command to the device.
pub(crate) type Command = virtio_blk::command::Command<Header, Purpose>;

/// The state of the one command of a purpose that can be under way.
#[derive(Default)]
pub(crate) enum Call {
    /// There is no command.
    #[default]
    Free,
    /// Its caller waits.
    Asked,
    /// Its caller has left.
    Abandoned,
    /// The device has answered.
    Answered(KBox<Command>),
    /// No command is accepted any more.
    Closed,
}
