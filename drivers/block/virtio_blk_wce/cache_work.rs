// SPDX-License-Identifier: GPL-2.0

//! The work that changes the mode of a disk's write cache.
//!
//! It runs for each ticket, each answer of the device and each change of its configuration, and
//! takes the steps of the [`Machine`](crate::switch::Machine) until there is none left.

use crate::{
    cache::Ticket,
    control,
    disk::{complain, VirtioBlk},
    switch::{Failure, Mode, Outcome, Step}, //
};
use kernel::{
    prelude::*,
    sync::{Arc, ArcBorrow},
    workqueue::WorkItem, //
};
use kernel_ext::block::disk::Disk;

/// The name of the attribute that shows the mode.
pub(crate) const MODE_NAME: &CStr = c"cache_type";

/// The name of the attribute that shows the outcome of the latest request.
pub(crate) const STATUS_NAME: &CStr = c"cache_type_status";

impl WorkItem for VirtioBlk {
    type Pointer = Arc<Self>;

    /// Takes all steps that can be taken now.
    fn run(this: Arc<Self>) {
        let Some(disk) = this.disk().filter(|_| this.cache.is_open()) else {
            return;
        };

        if this.take_config_changed() {
            // A device that is gone has nothing to show, and needs no flushes.
            if let Some(shown) = this.with_device(control::mode) {
                this.cache.shows(shown);
            }
            this.update_capacity(&disk);
        }
        take_answer(&this);
        steps(&this, &disk);
    }
}

/// Requests a mode.
///
/// # Errors
///
/// Those of [`Cache::leave`](crate::cache::Cache::leave).
pub(crate) fn request(blk: ArcBorrow<'_, VirtioBlk>, mode: Mode) -> Result<Arc<Ticket>> {
    let ticket = blk.cache.leave(mode)?;

    if let Some(disk) = blk.disk() {
        announce(&blk, &disk);
    }
    VirtioBlk::queue_work(blk);
    Ok(ticket)
}

/// Prepares for a reset of the device. The work is disabled.
pub(crate) fn suspend(blk: &VirtioBlk) {
    take_answer(blk);
}

/// Takes note of what the device shows after a reset, before requests go on. The work is disabled.
/// It has to be queued after this, to restore the mode from before the reset.
pub(crate) fn resume(blk: &VirtioBlk) {
    // An answer from before the reset means nothing any more.
    let _ = blk.take_answer();

    blk.cache.returned(shown(blk));
}

fn take_answer(blk: &VirtioBlk) {
    if let Some(device_status) = blk.take_answer() {
        answered(blk, control::outcome(device_status));
    }
}

fn steps(blk: &VirtioBlk, disk: &Disk<VirtioBlk>) {
    loop {
        announce(blk, disk);

        match blk.cache.step() {
            Step::Ask(mode) => ask(blk, disk, mode),
            Step::Report(_, outcome) => blk.cache.report(outcome),
            Step::Restored(mode, Err(_)) => warn_not_restored(blk, disk, mode),
            Step::Restored(_, Ok(())) | Step::Consented(_) => (),
            Step::Rest => return,
        }
    }
}

fn ask(blk: &VirtioBlk, disk: &Disk<VirtioBlk>, mode: Mode) {
    // What a user writes into the attribute overrules an earlier "write through" in
    // `queue/write_cache`, which keeps flushes from reaching the driver.
    let enabled = if blk.cache.is_for_user() {
        disk.enable_write_cache().map_err(|_| Failure::Io)
    } else {
        Ok(())
    };
    let asked = enabled.and_then(|()| match control::of(blk.cache.way) {
        Some(control) => control.ask(blk, mode),
        None => Err(Failure::Unsupported),
    });

    match asked {
        Ok(true) => (),
        Ok(false) => answered(blk, Ok(())),
        Err(failure) => answered(blk, Err(failure)),
    }
}

/// Takes note of the device's answer, and of what it shows after that.
fn answered(blk: &VirtioBlk, outcome: Outcome) {
    let Some(before) = blk.cache.mode_if_asked() else {
        return;
    };
    if let (Err(_), Some(control)) = (outcome, control::of(blk.cache.way)) {
        control.failed(blk, before);
    }

    blk.cache.answered(shown(blk), outcome);
}

/// Wakes up those who poll the attributes, and sends a uevent, if anything has changed since the
/// last time.
fn announce(blk: &VirtioBlk, disk: &Disk<VirtioBlk>) {
    let Some(mode_changed) = blk.cache.take_news() else {
        return;
    };

    if mode_changed {
        disk.notify(MODE_NAME);
    }
    disk.notify(STATUS_NAME);
    let _ = disk.uevent();
}

/// Logs that the mode from before a reset could not be restored.
fn warn_not_restored(blk: &VirtioBlk, disk: &Disk<VirtioBlk>, wanted: Mode) {
    blk.with_device(|dev| {
        complain(
            dev,
            disk,
            "the mode of the write cache can't be brought back after a reset: ",
            wanted.into(),
        );
    });
}

/// The mode that the device shows. A device that can't be asked is taken for a volatile one.
fn shown(blk: &VirtioBlk) -> Mode {
    blk.with_device(control::mode).unwrap_or(Mode::WriteBack)
}
