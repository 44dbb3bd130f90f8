// SPDX-License-Identifier: GPL-2.0

//! The work that changes the mode of a disk's write cache.
//!
//! It takes the steps of the [`Machine`](crate::switch::Machine), one after the other, and runs for
//! each ticket, each answer of the device and each change of its configuration.

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

/// The attribute that has the mode.
pub(crate) const MODE_NAME: &CStr = c"cache_type";

/// The attribute that tells of the latest request.
pub(crate) const STATUS_NAME: &CStr = c"cache_type_status";

impl WorkItem for VirtioBlk {
    type Pointer = Arc<Self>;

    /// Takes all steps that can be taken now.
    fn run(this: Arc<Self>) {
        let Some(disk) = this.disk().filter(|_| this.cache.is_open()) else {
            return;
        };

        if this.take_config_changed() {
            // A device that is gone needs no flushes.
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

/// Takes note of what the device shows after a reset, before requests go on. The work is disabled,
/// and has to run after this, to bring back the mode from before.
pub(crate) fn resume(blk: &VirtioBlk) {
    // What has come since is for naught: the mode went with the reset.
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
    // What a user writes into the attribute decides, also over an earlier "write through" in
    // `queue/write_cache`, by which flushes would not get here.
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

/// Tells who polls the attributes, and those who get uevents, what has changed since the last time.
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

/// Says that a reset has changed the mode.
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

/// The mode that the device shows. One that can't be asked may be volatile.
fn shown(blk: &VirtioBlk) -> Mode {
    blk.with_device(control::mode).unwrap_or(Mode::WriteBack)
}
