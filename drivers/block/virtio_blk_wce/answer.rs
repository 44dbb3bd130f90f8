// SPDX-License-Identifier: GPL-2.0

//! What comes back from the device, and what goes on when something has.

use crate::{
    call,
    command::{Command, Purpose},
    disk::{Buffer, QueueState, VirtioBlk},
    flush, //
};
use kernel::{
    prelude::*,
    sync::{rcu, ArcBorrow}, //
};
use kernel_ext::{
    block::{
        batch::RequestList,
        request::{Request, Status},
        virtio_blk::submission::Submission, //
    },
    virtio::queue::{Handler, RingGuard},
};

impl Handler for VirtioBlk {
    type Buffer = Buffer;
    type State = QueueState;

    #[inline]
    fn used(this: ArcBorrow<'_, Self>, index: usize) {
        let Some(queue) = this.queue(index) else {
            return;
        };
        let mut ring = queue.lock();
        let used = ring.take_used(|ring, buffer| match buffer {
            Submission::Request(rq) if rq.is_fua() => {
                let mut over = flush::answered(&this, ring, rq.into_inner());

                while let Some(rq) = over.pop() {
                    rq.complete();
                }
            }
            Submission::Request(rq) => rq.into_inner().complete(),
            Submission::Command(command) => answered(&this, ring, command),
        });

        Self::check(&ring);
        if used {
            go_on(&this, ring);
        }
    }

    fn unused(&self, buffer: Buffer) {
        match buffer {
            // The device broke the rules, or its disk was never added. In all other cases I/O has
            // ended before the device is reset.
            Submission::Request(rq) => {
                if rq.is_partly_done() {
                    if let Some(queue) = self.queue(rq.queue_index()) {
                        let waiting = flush::give_up(&mut queue.lock());
                        waiting.into_iter().for_each(end_all);
                    }
                }
                end_unused(rq.into_inner());
            }
            Submission::Command(command) => match (command.context, self.queue(0)) {
                // The caller waits until the device is back, unless calls were closed for good.
                (Purpose::Serial | Purpose::Zones, Some(queue)) => {
                    queue.lock().defer(command);
                }
                // The request went with the reset. The state machine knows, and begins anew.
                _ => drop(command),
            },
        }
    }
}

/// Goes on with whatever has waited for buffers to be used. Called after some were.
#[inline]
pub(crate) fn go_on(blk: &VirtioBlk, ring: RingGuard<'_, Buffer, QueueState>) {
    if ring.waits {
        use_room(blk, ring);
    }
}

/// Sends what has waited for buffers to be used, or for room in the ring.
#[cold]
fn use_room(blk: &VirtioBlk, mut ring: RingGuard<'_, Buffer, QueueState>) {
    // Whatever has to wait again, or waits for the answer to a flush, sets this again.
    ring.waits = false;
    let mut added = flush::begin(blk, &mut ring);

    if ring.stopped {
        ring.stopped = false;
        if let Some(disk) = &ring.disk {
            disk.restart_queues();
        }
    }
    while let Some(command) = ring.deferred() {
        match ring.add(command) {
            Ok(()) => added = true,
            // It waits for the next buffer to be used.
            Err((command, ENOSPC)) => {
                ring.defer(command);
                break;
            }
            // The ring may be empty, so there may be no used buffer to wait for.
            Err((command, _)) => answered(blk, &mut ring, command),
        }
    }
    if !added {
        return;
    }

    let rcu = rcu::read_lock();
    let kick = ring.prepare_kick(&rcu);

    drop(ring);
    kick.notify();
}

/// Takes a command that the device has answered, or that ends without an answer.
fn answered(blk: &VirtioBlk, state: &mut QueueState, command: KBox<Command>) {
    match command.context {
        Purpose::Cache => {
            state.answer = Some(command.device_status());
            if let Some(disk) = &state.disk {
                VirtioBlk::queue_work(disk.data());
            }
        }
        Purpose::Serial | Purpose::Zones => call::answered(blk, state, command),
    }
}

/// Sends the commands that waited for the device to be back from a reset.
pub(crate) fn send_held(blk: &VirtioBlk) {
    let Some(queue) = blk.queue(0) else {
        return;
    };
    let mut ring = queue.lock();

    ring.away = false;
    use_room(blk, ring);
}

/// Ends requests that the device will not answer.
fn end_all(mut requests: RequestList<Request<VirtioBlk>>) {
    while let Some(rq) = requests.pop() {
        end_unused(rq);
    }
}

/// Ends a request that the device will not answer.
fn end_unused(mut rq: Request<VirtioBlk>) {
    rq.unmap();
    rq.end(Status::IOERR);
}
