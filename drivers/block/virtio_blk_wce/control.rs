// SPDX-License-Identifier: GPL-2.0

//! How a device is told the mode of its write cache.

use crate::{
    disk::{Command, Purpose, VirtioBlk},
    switch::{Failure, Mode, Outcome}, //
};
use kernel::{device, prelude::*};
use kernel_ext::{
    block::{
        disk::Disk,
        virtio_blk::{config, feature, request, status, wce, Header}, //
    },
    virtio::Device,
};

/// A way to change the mode.
pub(crate) trait Control: Send + Sync {
    /// Asks the device for the mode. May wait for I/O, but not for the answer.
    ///
    /// `Ok(true)` says that a command was sent whose answer decides, `Ok(false)` that the device
    /// has the mode already.
    fn ask(&self, blk: &VirtioBlk, disk: &Disk<VirtioBlk>, mode: Mode) -> Result<bool, Failure>;

    /// What the answer to the command means; whether the mode stays as it was if that is a failure.
    fn answered(&self, blk: &VirtioBlk, mode: Mode, outcome: Outcome) -> Outcome;
}

/// The way that the device offers, the better one if it offers both.
pub(crate) fn of(dev: &Device<device::Bound>) -> Option<&'static dyn Control> {
    if dev.has_feature(feature::SET_WCE) {
        Some(&SetWce)
    } else if dev.has_feature(feature::CONFIG_WCE) && dev.has_feature(feature::FLUSH) {
        Some(&ConfigWce)
    } else {
        None
    }
}

/// The mode that the device shows.
///
/// One that shows none has a volatile cache if it takes flushes, section 5.2.5.2 of the virtio
/// specification.
///
/// # Errors
///
/// Those of the transport.
pub(crate) fn mode(dev: &Device<device::Bound>) -> Result<Mode> {
    let shown = dev.has_feature(feature::SET_WCE) || dev.has_feature(feature::CONFIG_WCE);
    let volatile = if shown {
        dev.read(config::WCE)? != wce::WRITETHROUGH
    } else {
        dev.has_feature(feature::FLUSH)
    };

    Ok(if volatile {
        Mode::WriteBack
    } else {
        Mode::WriteThrough
    })
}

fn value(mode: Mode) -> u8 {
    match mode {
        Mode::WriteThrough => wce::WRITETHROUGH,
        Mode::WriteBack => wce::WRITEBACK,
    }
}

/// By a request, which the device does whole or not at all.
struct SetWce;

impl Control for SetWce {
    fn ask(&self, blk: &VirtioBlk, _disk: &Disk<VirtioBlk>, mode: Mode) -> Result<bool, Failure> {
        let header = Header::new(blk.endian(), request::SET_WCE, 0, 0);
        let command =
            Command::new(header, &[value(mode)], 0, Purpose::Cache).map_err(|_| Failure::Io)?;

        blk.send(command)?;
        Ok(true)
    }

    fn answered(&self, _blk: &VirtioBlk, _mode: Mode, outcome: Outcome) -> Outcome {
        outcome
    }
}

/// By a write to the configuration space, after which nothing is known of earlier writes.
struct ConfigWce;

impl ConfigWce {
    fn write(blk: &VirtioBlk, mode: Mode) -> Result<(), Failure> {
        let shown = blk
            .with_device(|dev| {
                dev.write(config::WCE, value(mode))?;
                crate::control::mode(dev)
            })
            .ok_or(Failure::Gone)?;

        match shown {
            Ok(shown) if shown == mode => Ok(()),
            _ => Err(Failure::Io),
        }
    }
}

impl Control for ConfigWce {
    fn ask(&self, blk: &VirtioBlk, disk: &Disk<VirtioBlk>, mode: Mode) -> Result<bool, Failure> {
        Self::write(blk, mode)?;

        if mode == Mode::WriteBack {
            return Ok(false);
        }

        // From here on the device writes through. A write that it took up before may still end up
        // in the cache, and nobody may count on it before a flush that follows its completion:
        //
        // 1. the device takes up a write as volatile
        // 2. the mode changes
        // 3. the write completes
        // 4. the block layer stops sending flushes
        // 5. a user's fsync does nothing: the write is lost when the host fails
        //
        // So all requests end first, and a flush follows, while the block layer's own go on.
        disk.drain();

        let header = Header::new(blk.endian(), request::FLUSH, 0, 0);
        let sent = Command::new(header, &[], 0, Purpose::Cache)
            .map_err(|_| Failure::Io)
            .and_then(|command| blk.send(command));
        if let Err(failure) = sent {
            return self.answered(blk, mode, Err(failure)).map(|()| false);
        }

        Ok(true)
    }

    fn answered(&self, blk: &VirtioBlk, mode: Mode, outcome: Outcome) -> Outcome {
        // Without the flush there may be data in the cache: the device had better have one.
        if outcome.is_err() && mode == Mode::WriteThrough {
            let _ = Self::write(blk, Mode::WriteBack);
        }

        outcome
    }
}

/// What a status byte says of a command.
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
        // What the byte is before the device writes it, and values that mean nothing.
        assert!(outcome(0xff) == Err(Failure::Io));
        assert!(outcome(3) == Err(Failure::Io));
    }

    #[test]
    fn values_are_the_protocol_s() {
        assert!(value(Mode::WriteThrough) == 0);
        assert!(value(Mode::WriteBack) == 1);
    }
}
