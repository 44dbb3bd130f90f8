// SPDX-License-Identifier: GPL-2.0

//! A notification ends before the section does in which it was prepared, and in the same thread:
//! whoever deletes the virtqueue waits for that section.

use kernel::sync::rcu;
use kernel_ext::virtio::queue::{Buffer, Kick, Queue};

/// Within the section is right.
pub fn notify<B: Buffer, S>(queue: &Queue<B, S>) {
    let rcu = rcu::read_lock();
    let kick = queue.lock().prepare_kick(&rcu);

    #[cfg(unsound = "late")]
    drop(rcu); //~ late E0505
    kick.notify();
}

/// As a value of its own it could be kept.
pub fn prepare<'rcu, B: Buffer, S>(queue: &Queue<B, S>, rcu: &'rcu rcu::Guard) -> Kick<'rcu> {
    #[cfg(unsound = "return")]
    let rcu = &rcu::read_lock();
    queue.lock().prepare_kick(rcu) //~ return E0515
}

fn is_send<T: Send>(_: T) {}

/// Another thread may be in no section.
pub fn send(kick: Kick<'_>) {
    is_send(0);
    #[cfg(unsound = "send")]
    is_send(kick); //~ send E0277
    #[cfg(not(unsound = "send"))]
    kick.notify();
}
