// SPDX-License-Identifier: GPL-2.0

//! A spinlock that saves and restores whether interrupts are enabled: `spin_lock_irqsave()`.
//!
//! [`SpinLockIrq`](kernel::sync::SpinLockIrq) counts how often interrupts were disabled, for guards
//! that are dropped in any order. A guard of this one has to be dropped before those that were
//! there before it, as in C, and costs less.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use crate::bindings;
use kernel::{
    prelude::*,
    sync::lock::{Backend, Guard, Lock}, //
};

/// A spinlock that disables interrupts while it is held.
pub type SpinLockIrqSave<T> = Lock<T, SpinLockIrqSaveBackend>;

/// What [`SpinLockIrqSave::lock`](Lock::lock) returns.
pub type SpinLockIrqSaveGuard<'a, T> = Guard<'a, T, SpinLockIrqSaveBackend>;

/// The backend of a [`SpinLockIrqSave`].
pub struct SpinLockIrqSaveBackend;

// SAFETY: The C functions let one context at a time have the lock. Relocking locks in the same way.
unsafe impl Backend for SpinLockIrqSaveBackend {
    type State = bindings::spinlock_t;
    /// Whether interrupts were enabled: the flags of the C functions.
    type GuardState = c_ulong;

    #[inline]
    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: By the requirements of this function.
        unsafe { bindings::__spin_lock_init(ptr, name, key) }
    }

    #[inline]
    unsafe fn lock(ptr: *mut Self::State) -> c_ulong {
        // SAFETY: By the requirement of this function the lock is initialized.
        unsafe { bindings::spin_lock_irqsave(ptr) }
    }

    #[inline]
    unsafe fn unlock(ptr: *mut Self::State, flags: &c_ulong) {
        // SAFETY: By the requirement of this function the caller has the lock, whose flags it has
        // kept.
        unsafe { bindings::spin_unlock_irqrestore(ptr, *flags) }
    }

    #[inline]
    unsafe fn try_lock(ptr: *mut Self::State) -> Option<c_ulong> {
        let _ = ptr;

        build_error!("this lock is always waited for")
    }

    #[inline]
    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // A call that does nothing is still one.
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: By the requirement of this function the lock is initialized.
            unsafe { bindings::spin_assert_is_held(ptr) }
        }
    }
}
