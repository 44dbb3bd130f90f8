// SPDX-License-Identifier: GPL-2.0

//! RCU read-side critical sections.
//!
//! A [`Section`] stands for a section that the caller is in. It was begun by a [`Guard`] of the
//! caller's own, or by C code that calls Rust.

use core::marker::PhantomData;
use kernel::{sync::rcu::Guard, types::NotThreadSafe};

/// An RCU read-side critical section that lasts at least as long as `'a`.
///
/// # Invariants
///
/// A section that began before the value was made ends after `'a`, on the same CPU or in the same
/// thread.
#[derive(Clone, Copy)]
pub struct Section<'a>(PhantomData<&'a Guard>, NotThreadSafe);

impl Section<'_> {
    /// A section that the caller is in.
    ///
    /// # Safety
    ///
    /// The caller must be in a section that does not end before the lifetime of the value.
    #[inline]
    pub(crate) unsafe fn assume() -> Self {
        // INVARIANT: By the requirement of this function.
        Self(PhantomData, NotThreadSafe)
    }
}

impl<'a> From<&'a Guard> for Section<'a> {
    #[inline]
    fn from(_: &'a Guard) -> Self {
        // INVARIANT: The guard began a section, which ends when it is dropped; that can't be as
        // long as it is borrowed.
        Self(PhantomData, NotThreadSafe)
    }
}
