// SPDX-License-Identifier: GPL-2.0

//! Devices that are given up, because nothing is expected of them any more.

use crate::{
    call,
    disk::{complain, VirtioBlk, LOST}, //
};
use kernel::{
    sync::{
        atomic::{Acquire, Full},
        Arc, //
    },
    workqueue::{self, WorkItem}, //
};
use kernel_ext::{
    virtio::queue,
    work, //
};

impl WorkItem<LOST> for VirtioBlk {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if this.watch.run(|| is_dead(&this), || debts(&this)) {
            give_up(&this);
        }
    }
}

/// Begins to watch the device. Called before something waits for all that the device owes.
pub(crate) fn begin_watch(blk: &Arc<VirtioBlk>) {
    blk.watch.begin();
    let _ = workqueue::system_long().enqueue::<Arc<VirtioBlk>, LOST>(blk.clone());
}

/// Whether nothing comes from the device any more, unless it is reset.
fn is_dead(blk: &VirtioBlk) -> bool {
    blk.with_device(|dev| !dev.is_working()).unwrap_or(false)
        || blk.queues.iter().any(|queue| queue.lock().is_broken())
}

/// A number that changes with each answer of the device; `None` if it owes none.
fn debts(blk: &VirtioBlk) -> Option<u32> {
    blk.queues.iter().fold(None, |sum, queue| {
        let position = queue.lock().position();

        position.map_or(sum, |position| {
            Some(position.wrapping_add(sum.unwrap_or(0)))
        })
    })
}

/// Whether the device was given up.
pub(crate) fn is_lost(blk: &VirtioBlk) -> bool {
    blk.lost.load(Acquire)
}

/// Keeps the device from being given up until [`allow`] is called, and waits for whoever is about
/// to give it up. May sleep.
///
/// Called at the end of the callbacks in which the core sets the device up. Afterwards it looks
/// whether the device is ready, and makes it so if not; a reset would wait for ever if this came in
/// between. Before the end, what is read for partitions may wait for a device that is dead.
pub(crate) fn forbid(blk: &Arc<VirtioBlk>) {
    work::disable_sync::<_, LOST>(blk);
    blk.is_kept.xchg(true, Full);
}

/// Undoes [`forbid`], and looks at the device. May be called in any context.
pub(crate) fn allow(blk: &Arc<VirtioBlk>) {
    if blk.is_kept.xchg(false, Full) {
        work::enable::<_, LOST>(blk);
        let _ = workqueue::system_long().enqueue::<Arc<VirtioBlk>, LOST>(blk.clone());
    }
}

/// Gives the device up: what it owes ends with an error, and so does all that follows.
fn give_up(blk: &VirtioBlk) {
    if blk.lost.xchg(true, Full) {
        return;
    }

    let disk = blk.disk();
    if let Some(disk) = &disk {
        blk.with_device(|dev| complain(dev, disk, "is given up: unbind and bind it", ""));
    }

    blk.cache.close();
    call::close(blk);
    queue::disconnect(blk);

    // Requests that waited for room are handed over again, and fail.
    if let Some(disk) = disk {
        disk.restart_queues();
    }
}
