// SPDX-License-Identifier: GPL-2.0

//! Devices of which nothing is expected any more.

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
use kernel_ext::virtio::queue;

impl WorkItem<LOST> for VirtioBlk {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if this.watch.run(|| is_dead(&this), || debts(&this)) {
            give_up(&this);
        }
    }
}

/// Begins to watch the device, because something waits for all that it owes.
pub(crate) fn begin_watch(blk: &Arc<VirtioBlk>) {
    blk.watch.begin();
    let _ = workqueue::system_long().enqueue::<Arc<VirtioBlk>, LOST>(blk.clone());
}

/// Whether nothing will come from the device any more, before it is reset.
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

/// Whether the device has broken the rules, and is not used any more.
pub(crate) fn is_lost(blk: &VirtioBlk) -> bool {
    blk.lost.load(Acquire)
}

/// Uses the device no more: all that it owes, and all that comes later, ends with an error.
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

    // What waited for room finds that there is no device.
    if let Some(disk) = disk {
        disk.restart_queues();
    }
}
