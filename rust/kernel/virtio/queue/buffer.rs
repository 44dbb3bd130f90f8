// SPDX-License-Identifier: GPL-2.0

//! What rings take.

use core::ptr::NonNull;
use kernel::{bindings::scatterlist, prelude::*};

/// What can be handed to the device.
///
/// # Safety
///
/// - A pointer from [`into_raw`](Self::into_raw) is aligned to at least two bytes and stays
///   unique until [`from_raw`](Self::from_raw) takes it back.
/// - [`with_sgs`](Self::with_sgs) passes lists of memory that remains valid, and that nobody but
///   the device accesses, for as long as the value is in its raw form.
pub unsafe trait Buffer: Sized + Send {
    /// Turns the value into a pointer.
    fn into_raw(self) -> NonNull<c_void>;

    /// Turns the pointer back into the value.
    ///
    /// # Safety
    ///
    /// `ptr` must come from [`Self::into_raw`]; it may be taken back only once.
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self;

    /// Calls `f` with the scatterlists of the value, first those that the device reads, then those
    /// that it writes, and the number of each. More may follow, which mean nothing.
    ///
    /// # Safety
    ///
    /// `ptr` must come from [`Self::into_raw`] and not have been taken back.
    unsafe fn with_sgs<R>(
        ptr: NonNull<c_void>,
        f: impl FnOnce(&mut [*mut scatterlist], u32, u32) -> R,
    ) -> R;
}

/// A kind of the buffers that rings of `B` take; `B` itself is one.
///
/// A driver that hands different things to its device has an enumeration of them as `B`, and adds
/// each without making the enumeration first: what does not fit comes back as what it was.
///
/// # Safety
///
/// For a pointer from [`into_raw`](Buffer::into_raw) of `Self`, [`tag`](Self::tag) returns what
/// `into_raw` of `B` returns for the same value. Until that is taken back by `B`, it can still be
/// taken back by `Self` without the tag.
pub unsafe trait Kind<B: Buffer>: Buffer {
    /// Turns the pointer of this kind into one of `B`.
    fn tag(ptr: NonNull<c_void>) -> NonNull<c_void>;
}

// SAFETY: The pointer is that of `B` already.
unsafe impl<B: Buffer> Kind<B> for B {
    #[inline]
    fn tag(ptr: NonNull<c_void>) -> NonNull<c_void> {
        ptr
    }
}
