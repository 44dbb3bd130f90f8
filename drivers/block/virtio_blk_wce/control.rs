// SPDX-License-Identifier: GPL-2.0

//! How a device is told the mode of its write cache.

use crate::{
    call,
    command::{Command, Purpose},
    disk::VirtioBlk,
    switch::{Failure, Mode, Outcome, Way}, //
};
use kernel::{device, prelude::*};
use kernel_ext::{
    block::virtio_blk::{config, feature, request, status, wce, Header},
    virtio::Device, //
};

/// A way to change the mode.
pub(crate) trait Control: Send + Sync {
    /// Asks the device for the mode, without waiting for its answer.
    ///
    /// Returns `Ok(true)` if a command was sent whose answer decides, and `Ok(false)` if the device
    /// is in the mode already.
    fn ask(&self, blk: &VirtioBlk, mode: Mode) -> Result<bool, Failure>;

    /// Makes sure that the mode is `before`, as it was when the command was sent. Called when the
    /// device has answered with a failure.
    fn failed(&self, blk: &VirtioBlk, before: Mode);
}

/// The way that the device offers; [`Way::Request`] if it offers both.
pub(crate) fn way(dev: &Device<device::Bound>) -> Way {
    if !dev.has_feature(feature::FLUSH) {
        Way::Fixed
    } else if dev.has_feature(feature::SET_WCE) {
        Way::Request
    } else if dev.has_feature(feature::CONFIG_WCE) {
        Way::Configuration
    } else {
        Way::Fixed
    }
}

/// What changes the mode in the given way.
pub(crate) fn of(way: Way) -> Option<&'static dyn Control> {
    match way {
        Way::Request => Some(&SetWce),
        Way::Configuration => Some(&ConfigWce),
        Way::Fixed => None,
    }
}

/// The mode that the device shows.
///
/// A device that shows none has a volatile cache if it takes flushes: section 5.2.5.2 of the virtio
/// specification.
pub(crate) fn mode(dev: &Device<device::Bound>) -> Mode {
    let shown = dev.has_feature(feature::SET_WCE) || dev.has_feature(feature::CONFIG_WCE);
    let volatile = if shown {
        dev.read(config::WCE) != wce::WRITETHROUGH
    } else {
        dev.has_feature(feature::FLUSH)
    };

    if volatile {
        Mode::WriteBack
    } else {
        Mode::WriteThrough
    }
}

fn value(mode: Mode) -> u8 {
    match mode {
        Mode::WriteThrough => wce::WRITETHROUGH,
        Mode::WriteBack => wce::WRITEBACK,
    }
}

/// The mode is changed by a request, which the device carries out completely or not at all.
struct SetWce;

impl Control for SetWce {
    fn ask(&self, blk: &VirtioBlk, mode: Mode) -> Result<bool, Failure> {
        let header = Header::new(blk.endian(), request::SET_WCE, 0, 0);
        let command =
            Command::new(header, &[value(mode)], 0, Purpose::Cache).map_err(|_| Failure::Io)?;

        call::send(blk, command)?;
        Ok(true)
    }

    fn failed(&self, _blk: &VirtioBlk, _before: Mode) {}
}

/// The mode is changed by a write to the configuration space, which tells nothing about data that
/// was written before.
struct ConfigWce;

impl ConfigWce {
    fn write(blk: &VirtioBlk, mode: Mode) -> Result<(), Failure> {
        let shown = blk
            .with_device(|dev| {
                dev.write(config::WCE, value(mode));
                self::mode(dev)
            })
            .ok_or(Failure::Gone)?;

        if shown == mode {
            Ok(())
        } else {
            Err(Failure::Io)
        }
    }
}

impl Control for ConfigWce {
    fn ask(&self, blk: &VirtioBlk, mode: Mode) -> Result<bool, Failure> {
        Self::write(blk, mode)?;

        if mode == Mode::WriteBack {
            return Ok(false);
        }

        // The device may still have data in its cache. A flush brings that to stable storage.
        // Flushes that users ask for are sent meanwhile, and afterwards.
        let header = Header::new(blk.endian(), request::FLUSH, 0, 0);

        Command::new(header, &[], 0, Purpose::Cache)
            .map_err(|_| Failure::Io)
            .and_then(|command| call::send(blk, command))?;
        Ok(true)
    }

    fn failed(&self, blk: &VirtioBlk, before: Mode) {
        let _ = Self::write(blk, before);
    }
}

/// The outcome that a command's status byte stands for.
pub(crate) fn outcome(device_status: u8) -> Outcome {
    match device_status {
        status::OK => Ok(()),
        status::UNSUPP => Err(Failure::Unsupported),
        _ => Err(Failure::Io),
    }
}

#[kunit_tests(virtio_blk_wce_control)]
mod tests {
    use super::*;

    #[test]
    fn only_ok_is_success() {
        for value in 0..=u8::MAX {
            assert!(outcome(value).is_ok() == (value == status::OK));
        }
    }

    #[test]
    fn what_the_device_does_not_know_is_told_apart() {
        assert!(outcome(status::UNSUPP) == Err(Failure::Unsupported));
        assert!(outcome(status::IOERR) == Err(Failure::Io));
        // The value before the device writes the byte, and one that has no meaning.
        assert!(outcome(0xff) == Err(Failure::Io));
        assert!(outcome(3) == Err(Failure::Io));
    }

    #[test]
    fn values_are_the_protocol_s() {
        assert!(value(Mode::WriteThrough) == 0);
        assert!(value(Mode::WriteBack) == 1);
    }
}
