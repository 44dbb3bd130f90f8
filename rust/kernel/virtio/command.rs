// SPDX-License-Identifier: GPL-2.0

//! Requests to a device that are no I/O of its users.
//!
//! A [`Command`] goes to the virtqueue by itself, past the block layer. A device that never answers
//! one thus holds up nothing but those who wait for the answer: a block request that stays in
//! flight would stop whatever freezes the queue, removal of the disk included.

use super::{chain::NO_STATUS, queue::Buffer};
use crate::bindings;
use core::ptr::NonNull;
use kernel::{bindings::scatterlist, prelude::*, transmute::AsBytes};

/// The longest payload of a command in bytes.
const MAX_PAYLOAD: usize = 8;

/// A header and a short payload that the device reads, and the status byte that it writes.
pub struct Command<H> {
    header: H,
    payload: [u8; MAX_PAYLOAD],
    payload_len: u32,
    status: u8,
}

impl<H: AsBytes + Send> Command<H> {
    /// Allocates a command.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if the payload is longer than eight bytes.
    pub fn new(header: H, payload: &[u8]) -> Result<KBox<Self>> {
        let mut bytes = [0; MAX_PAYLOAD];
        bytes
            .get_mut(..payload.len())
            .ok_or(EINVAL)?
            .copy_from_slice(payload);

        Ok(KBox::new(
            Self {
                header,
                payload: bytes,
                payload_len: payload.len() as u32,
                status: NO_STATUS,
            },
            GFP_KERNEL,
        )?)
    }

    /// The status byte: what the device wrote, or none of the specification's values.
    pub fn device_status(&self) -> u8 {
        self.status
    }
}

// SAFETY: The pointer is that of the box, which `into_raw()` gives up, and whose type is aligned as
// its integers are; the lists describe what the box owns.
unsafe impl<H: AsBytes + Send> Buffer for KBox<Command<H>> {
    fn into_raw(self) -> NonNull<c_void> {
        NonNull::from(KBox::leak(self)).cast()
    }

    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        // SAFETY: By the requirement of this function `ptr` comes from `into_raw()`.
        unsafe { KBox::from_raw(ptr.as_ptr().cast()) }
    }

    unsafe fn with_sgs<R>(
        ptr: NonNull<c_void>,
        f: impl FnOnce(&mut [*mut scatterlist], u32, u32) -> R,
    ) -> R {
        let command = ptr.cast::<Command<H>>().as_ptr();
        let mut header = scatterlist::default();
        let mut payload = scatterlist::default();
        let mut status = scatterlist::default();

        // SAFETY: By the requirement of this function `ptr` is a valid command in memory of the
        // slab allocator, as lists need.
        let payload_len = unsafe {
            bindings::sg_init_one(
                &mut header,
                (&raw const (*command).header).cast(),
                size_of::<H>() as u32,
            );
            bindings::sg_init_one(
                &mut payload,
                (&raw const (*command).payload).cast(),
                (*command).payload_len,
            );
            bindings::sg_init_one(&mut status, (&raw const (*command).status).cast(), 1);

            (*command).payload_len
        };

        if payload_len == 0 {
            f(&mut [&mut header, &mut status], 1, 1)
        } else {
            f(&mut [&mut header, &mut payload, &mut status], 2, 1)
        }
    }
}
