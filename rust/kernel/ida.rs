// SPDX-License-Identifier: GPL-2.0

//! Numbers of which nobody else has the same.
//!
//! ```
//! # use kernel_ext::ida::{Id, Ida};
//! static INDICES: Ida = Ida::new();
//!
//! fn init() -> Result {
//!     INDICES.init()
//! }
//!
//! fn probe() -> Result<Id> {
//!     // It is free again when it is dropped.
//!     INDICES.alloc(0..=25)
//! }
//! ```
//!
//! C header: [`include/linux/idr.h`](srctree/include/linux/idr.h)

use crate::bindings;
use core::ops::RangeInclusive;
use kernel::{
    error::to_result,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Relaxed, Release},
    types::Opaque, //
};

/// Nobody has initialized it.
const NEW: u32 = 0;

/// Somebody is about to initialize it.
const BEGUN: u32 = 1;

/// It is initialized.
const READY: u32 = 2;

/// An allocator of numbers, for a `static`.
///
/// # Invariants
///
/// Once `state` is `READY`, `inner` is an initialized `struct ida` that stays where it is. Before
/// that only the caller that has changed `state` from `NEW` to `BEGUN` uses it.
pub struct Ida {
    inner: Opaque<bindings::ida>,
    state: Atomic<u32>,
}

// SAFETY: The C functions take the allocator's own lock, and by the type invariant none is called
// before that is initialized.
unsafe impl Sync for Ida {}

impl Ida {
    /// An allocator that has to be [initialized](Self::init).
    #[expect(clippy::new_without_default)]
    pub const fn new() -> Self {
        // INVARIANT: The state is `NEW`.
        Self {
            inner: Opaque::uninit(),
            state: Atomic::new(NEW),
        }
    }

    /// Initializes the allocator: all numbers are free.
    ///
    /// # Errors
    ///
    /// `EBUSY` if this was called before.
    pub fn init(&'static self) -> Result {
        self.state.cmpxchg(NEW, BEGUN, Relaxed).map_err(|_| EBUSY)?;

        // SAFETY: By the type invariant nobody else uses `inner` now. It can't be moved any more,
        // since `self` is borrowed for good.
        unsafe { bindings::ida_init(self.inner.get()) };
        // INVARIANT: It is initialized.
        self.state.store(READY, Release);

        Ok(())
    }

    /// Takes the lowest free number of `range`.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there is none, `ENOMEM`; `EINVAL` if the allocator is not initialized.
    pub fn alloc(&'static self, range: RangeInclusive<u32>) -> Result<Id> {
        if self.state.load(Acquire) != READY {
            return Err(EINVAL);
        }

        // SAFETY: By the type invariant `inner` is initialized.
        let number = unsafe {
            bindings::ida_alloc_range(
                self.inner.get(),
                *range.start(),
                *range.end(),
                bindings::GFP_KERNEL,
            )
        };
        to_result(number)?;

        // INVARIANT: It was allocated just now, from what is initialized.
        Ok(Id {
            ida: self,
            number: number as u32,
        })
    }
}

/// A number that nobody else has, until it is dropped.
///
/// # Invariants
///
/// `number` was allocated from `ida`, which is initialized.
pub struct Id {
    ida: &'static Ida,
    number: u32,
}

impl Id {
    /// The number.
    pub fn get(&self) -> u32 {
        self.number
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the number was allocated from there. It is given back once.
        unsafe { bindings::ida_free(self.ida.inner.get(), self.number) };
    }
}
