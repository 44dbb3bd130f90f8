// SPDX-License-Identifier: GPL-2.0

//! Requests to a device that are no I/O of its users.
//!
//! A [`Command`] goes to the virtqueue by itself, past the block layer. A device that never answers
//! one thus holds up nothing but those who wait for the answer: a block request that stays in
//! flight would stop whatever freezes the queue, removal of the disk included.
//!
//! ```
//! # use kernel_ext::{
//! #     block::virtio_blk::{command::Command, request, status, Header},
//! #     virtio::{queue::Queue, Endian},
//! # };
//! # fn example(queue: &Queue<KBox<Command<Header, u32>>, ()>) -> Result<bool> {
//! # let mut ring = queue.lock();
//! let header = Header::new(Endian::LITTLE, request::SET_WCE, 0, 0);
//! let command = Command::new(header, &[1], 0, 42)?;
//! ring.add(command).map_err(|(_, err)| err)?;
//! // … later it comes back:
//! let command = ring.pop().ok_or(EAGAIN)?;
//! # Ok(
//! command.context == 42 && command.device_status() == status::OK
//! # )
//! # }
//! ```

use super::chain::NO_STATUS;
use crate::{bindings, virtio::queue::Buffer};
use core::ptr::NonNull;
use kernel::{bindings::scatterlist, prelude::*, transmute::AsBytes};

/// The longest payload of a command in bytes.
const MAX_PAYLOAD: usize = 8;

/// A header and a short payload that the device reads, and a reply and the status byte that it
/// writes.
///
/// `C` is data of the driver's own, by which it knows the command when that is answered.
pub struct Command<H, C> {
    header: H,
    payload: [u8; MAX_PAYLOAD],
    payload_len: u32,
    /// Where the device writes what it replies, besides the status.
    reply: KVec<u8>,
    status: u8,
    /// What the driver knows the command by.
    pub context: C,
}

impl<H: AsBytes + Send, C: Send> Command<H, C> {
    /// Allocates a command with room for a reply of `reply_len` bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if the payload is longer than eight bytes.
    pub fn new(header: H, payload: &[u8], reply_len: usize, context: C) -> Result<KBox<Self>> {
        let mut bytes = [0; MAX_PAYLOAD];
        bytes
            .get_mut(..payload.len())
            .ok_or(EINVAL)?
            .copy_from_slice(payload);
        let reply = KVec::zeroed(reply_len, GFP_KERNEL)?;

        Ok(KBox::new(
            Self {
                header,
                payload: bytes,
                payload_len: payload.len() as u32,
                reply,
                status: NO_STATUS,
                context,
            },
            GFP_KERNEL,
        )?)
    }

    /// The status byte: what the device wrote, or none of the specification's values.
    pub fn device_status(&self) -> u8 {
        self.status
    }

    /// The reply; zeroes where the device did not write it.
    pub fn reply(&self) -> &[u8] {
        &self.reply
    }
}

// SAFETY: The pointer is that of the box, which `into_raw()` gives up, and whose type is aligned as
// its integers are; the lists describe what the box owns.
unsafe impl<H: AsBytes + Send, C: Send> Buffer for KBox<Command<H, C>> {
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
        let command = ptr.cast::<Command<H, C>>().as_ptr();
        let mut header = scatterlist::default();
        let mut payload = scatterlist::default();
        let mut reply = scatterlist::default();
        let mut status = scatterlist::default();

        // SAFETY: By the requirement of this function `ptr` is a valid command in memory of the
        // slab allocator, as lists need.
        let (payload_len, reply_len) = unsafe {
            let payload_len = (*command).payload_len;
            let bytes: &[u8] = &(*command).reply;
            let reply_len = bytes.len() as u32;

            bindings::sg_init_one(
                &mut header,
                (&raw const (*command).header).cast(),
                size_of::<H>() as u32,
            );
            bindings::sg_init_one(
                &mut payload,
                (&raw const (*command).payload).cast(),
                payload_len,
            );
            // A vector without bytes points to nothing that a list could describe.
            if reply_len != 0 {
                bindings::sg_init_one(&mut reply, bytes.as_ptr().cast(), reply_len);
            }
            bindings::sg_init_one(&mut status, (&raw const (*command).status).cast(), 1);

            (payload_len, reply_len)
        };

        let (outs, ins) = (
            1 + u32::from(payload_len != 0),
            1 + u32::from(reply_len != 0),
        );
        let (header, payload) = (&raw mut header, &raw mut payload);
        let (reply, status) = (&raw mut reply, &raw mut status);
        let last = if reply_len != 0 { reply } else { status };

        // Those beyond the numbers are not looked at.
        f(
            &mut match payload_len {
                0 => [header, last, status, status],
                _ => [header, payload, last, status],
            },
            outs,
            ins,
        )
    }
}
