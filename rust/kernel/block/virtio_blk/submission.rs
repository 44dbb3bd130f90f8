// SPDX-License-Identifier: GPL-2.0

//! What a block driver hands to its device: requests of the block layer, and commands of its own.
//!
//! A [`Submission`] is what comes out of a ring. What goes into it is one or the other, by itself.

use super::{
    chain::{Chain, Mapped},
    command::Command, //
};
use crate::{
    block::{mq::Operations, request::Request},
    virtio::queue::{Buffer, Kind}, //
};
use core::ptr::NonNull;
use kernel::{bindings::scatterlist, prelude::*, transmute::AsBytes};

/// A request of the block layer, or a command of the driver's own. Both have headers `H`; commands
/// have data of the driver's besides.
pub enum Submission<T: Operations, H, C> {
    /// I/O of the disk's users.
    Request(Mapped<Request<T>>),
    /// A command, which the block layer does not know.
    Command(KBox<Command<H, C>>),
}

/// The bit of a raw pointer that tells a [`Submission::Command`]: clear in a pointer to either
/// kind, by their alignment.
const COMMAND: usize = 1;

impl<T, H, C> Submission<T, H, C>
where
    T: Operations<RequestData = Chain<H>>,
    H: AsBytes + Send + Zeroable,
    C: Send,
{
    #[inline]
    fn is_command(ptr: NonNull<c_void>) -> bool {
        const {
            assert!(align_of::<crate::bindings::request>() > COMMAND);
            assert!(align_of::<Command<H, C>>() > COMMAND);
        }

        ptr.addr().get() & COMMAND != 0
    }

    /// Takes the mark off the pointer of a command.
    ///
    /// # Safety
    ///
    /// `ptr` must come from [`Buffer::into_raw`] of a [`Submission::Command`].
    #[inline]
    unsafe fn command(ptr: NonNull<c_void>) -> NonNull<c_void> {
        // SAFETY: Without the mark it is the pointer of a box, which is not null.
        unsafe { NonNull::new_unchecked(ptr.as_ptr().map_addr(|addr| addr & !COMMAND)) }
    }
}

// SAFETY: Pointers and lists are those of the two kinds. The mark uses a bit that is clear in both,
// so that each pointer goes back to the kind that it came from.
unsafe impl<T, H, C> Buffer for Submission<T, H, C>
where
    T: Operations<RequestData = Chain<H>>,
    H: AsBytes + Send + Zeroable,
    C: Send,
{
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        match self {
            Self::Request(rq) => <Mapped<Request<T>> as Kind<Self>>::tag(Buffer::into_raw(rq)),
            Self::Command(command) => <KBox<Command<H, C>> as Kind<Self>>::tag(command.into_raw()),
        }
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        if Self::is_command(ptr) {
            // SAFETY: The mark shows that the pointer is one of a command.
            Self::Command(unsafe { Buffer::from_raw(Self::command(ptr)) })
        } else {
            // SAFETY: Without the mark the pointer is one of a request.
            Self::Request(unsafe { Buffer::from_raw(ptr) })
        }
    }

    #[inline]
    unsafe fn with_sgs<R>(
        ptr: NonNull<c_void>,
        f: impl FnOnce(&mut [*mut scatterlist], u32, u32) -> R,
    ) -> R {
        if Self::is_command(ptr) {
            // SAFETY: The mark shows that the pointer is one of a command.
            unsafe { <KBox<Command<H, C>>>::with_sgs(Self::command(ptr), f) }
        } else {
            // SAFETY: Without the mark the pointer is one of a request.
            unsafe { <Mapped<Request<T>>>::with_sgs(ptr, f) }
        }
    }
}

// SAFETY: `Submission::into_raw()` gives the pointers of requests as they are.
unsafe impl<T, H, C> Kind<Submission<T, H, C>> for Mapped<Request<T>>
where
    T: Operations<RequestData = Chain<H>>,
    H: AsBytes + Send + Zeroable,
    C: Send,
{
    #[inline]
    fn tag(ptr: NonNull<c_void>) -> NonNull<c_void> {
        ptr
    }
}

// SAFETY: `Submission::into_raw()` marks the pointers of commands by this.
unsafe impl<T, H, C> Kind<Submission<T, H, C>> for KBox<Command<H, C>>
where
    T: Operations<RequestData = Chain<H>>,
    H: AsBytes + Send + Zeroable,
    C: Send,
{
    #[inline]
    fn tag(ptr: NonNull<c_void>) -> NonNull<c_void> {
        ptr.map_addr(|addr| addr | COMMAND)
    }
}
