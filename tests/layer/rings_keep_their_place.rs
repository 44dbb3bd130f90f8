// SPDX-License-Identifier: GPL-2.0

//! The rings of two locked queues can't change places: whoever deletes a virtqueue would not find
//! it.

use core::mem;
#[cfg(unsound = "name")]
use kernel_ext::virtio::queue::Ring; //~ name E0603
use kernel_ext::virtio::queue::{Buffer, Queue};

/// What the driver keeps under the locks is its own to exchange.
pub fn swap<B: Buffer, S>(one: &Queue<B, S>, other: &Queue<B, S>) {
    let (mut one, mut other) = (one.lock(), other.lock());

    mem::swap(&mut *one, &mut *other);
    #[cfg(unsound = "swap")]
    mem::swap(&mut *one.0, &mut *other.0); //~ swap E0616
}

/// Guards can change places, each of which knows its lock.
pub fn swap_guards<B: Buffer, S>(one: &Queue<B, S>, other: &Queue<B, S>) {
    let (mut one, mut other) = (one.lock(), other.lock());

    mem::swap(&mut one, &mut other);
}
