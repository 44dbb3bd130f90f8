// SPDX-License-Identifier: GPL-2.0

//! Block requests as buffers of a virtqueue.
//!
//! A [`Chain`] is what a request carries for the device: a header that the device reads, the
//! scatterlist of the data, and the status byte that the device writes last, section 5.2.6 of the
//! virtio specification. It lies in the private area of the request, so that nothing is allocated
//! for a request of few segments.
//!
//! ```
//! # use kernel_ext::{
//! #     block::{
//! #         mq::Operations,
//! #         request::{IdleRequest, Request, Status},
//! #         virtio_blk::{chain::{Chain, Mapped}, request, Header},
//! #     },
//! #     virtio::{queue::RingGuard, Endian},
//! # };
//! # fn example<T, S>(
//! #     rq: IdleRequest<T>,
//! #     ring: &mut RingGuard<'_, Mapped<Request<T>>, S>,
//! #     endian: Endian,
//! # ) -> Result<u8>
//! # where
//! #     T: Operations<RequestData = Chain<Header>>,
//! # {
//! let header = Header::new(endian, request::OUT, rq.ioprio(), rq.sector());
//! let rq = rq.map(header).map_err(|(_, err)| err)?.start();
//! ring.add(rq).map_err(|(_, err)| err)?;
//! // … later it comes back:
//! let mut rq = ring.pop().ok_or(EAGAIN)?.into_inner();
//! let status = rq.device_status();
//! rq.unmap();
//! rq.end(Status::OK);
//! # Ok(status)
//! # }
//! ```

use super::data_list::DataList;
use crate::{
    bindings,
    block::{
        batch::Completed,
        mq::Operations,
        request::{Direction, Held, IdleRequest, Op, Request, RequestInner}, //
    },
    virtio::queue::Buffer,
};
use core::{
    marker::PhantomPinned,
    mem::offset_of,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    bindings::scatterlist,
    prelude::*,
    transmute::AsBytes, //
};
use pin_init::pin_init_from_closure;

/// The length of what precedes the status in the answer to a zone append, in bytes.
const APPENDED: u32 = size_of::<u64>() as u32;

/// The value of the status byte before the device has written it, which stands for no status of the
/// specification.
pub(crate) const NO_STATUS: u8 = 0xff;

/// Header, data and status of a block request.
///
/// # Invariants
///
/// `header_list` is a list of `header`. `status_list` is one of `status`, with `appended` before it
/// if `appends` is set.
#[repr(C)]
pub struct Chain<H> {
    header: H,
    /// Where a zone append has written, in the device's byte order. The device writes it together
    /// with the status, which follows it.
    appended: u64,
    status: u8,
    appends: bool,
    direction: Direction,
    data: DataList,
    // A request of the block layer stays where it is, so that these are made only once.
    header_list: scatterlist,
    status_list: scatterlist,
    _pin: PhantomPinned,
}

// SAFETY: The pointers in it point into itself or to memory that it owns.
unsafe impl<H: Send> Send for Chain<H> {}

impl<H: AsBytes + Zeroable> Chain<H> {
    /// An empty chain.
    pub fn new() -> impl PinInit<Self> {
        const { assert!(offset_of!(Self, status) == offset_of!(Self, appended) + 8) };

        // SAFETY: The closure initializes all of `chain`, which is pinned when it is initialized,
        // so that the lists stay right.
        unsafe {
            pin_init_from_closure(|chain: *mut Self| {
                // INVARIANT: The lists follow.
                chain.write_bytes(0, 1);
                (&raw mut (*chain).status).write(NO_STATUS);
                (&raw mut (*chain).direction).write(Direction::None);
                bindings::sg_init_one(
                    &raw mut (*chain).header_list,
                    (&raw const (*chain).header).cast(),
                    size_of::<H>() as u32,
                );
                (*chain).list_status(false);

                Ok(())
            })
        }
    }

    /// Fills in everything but the list of the data.
    #[inline]
    fn describe(&mut self, header: H, direction: Direction, appends: bool) {
        self.header = header;
        self.status = NO_STATUS;
        self.direction = direction;
        if self.appends != appends {
            // SAFETY: Chains are parts of requests, which stay where they are.
            unsafe { self.list_status(appends) };
        }
    }

    /// Makes the list of what the device writes besides data.
    ///
    /// # Safety
    ///
    /// `self` must stay where it is.
    unsafe fn list_status(&mut self, appends: bool) {
        let (first, len) = if appends {
            ((&raw const self.appended).cast(), APPENDED + 1)
        } else {
            ((&raw const self.status).cast(), 1)
        };

        // SAFETY: The list is valid for writes. The memory, in which the status follows what
        // precedes it, is that of the page allocator, as lists need.
        unsafe { bindings::sg_init_one(&mut self.status_list, first, len) };
        // INVARIANT: The list is what it is said to be.
        self.appends = appends;
    }
}

/// A request whose chain describes it to the device: what [`IdleRequest::map`] and
/// [`Request::map_without_data`] make.
///
/// Only one that is started, too, can be added to a ring.
///
/// # Invariants
///
/// The chain has the lists of the request.
pub struct Mapped<R>(R);

impl<R> Mapped<R> {
    /// The request, whose type does not say any more that it is mapped.
    #[inline]
    pub fn into_inner(self) -> R {
        self.0
    }
}

impl<R> Deref for Mapped<R> {
    type Target = R;

    #[inline]
    fn deref(&self) -> &R {
        &self.0
    }
}

// SAFETY: The value is the request's own. Nothing is done to the chain meanwhile.
unsafe impl<R: Held> Held for Mapped<R> {
    type Driver = R::Driver;

    #[inline]
    fn into_raw(self) -> NonNull<bindings::request> {
        self.0.into_raw()
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<bindings::request>) -> Self {
        // SAFETY: By the requirement of this function.
        //
        // INVARIANT: The block layer gives nothing that is mapped, so that it is one that was.
        Self(unsafe { R::from_raw(ptr) })
    }
}

impl<T: Operations> Mapped<IdleRequest<T>> {
    /// As [`IdleRequest::start`].
    #[inline]
    pub fn start(self) -> Mapped<Request<T>> {
        // INVARIANT: The same request with the same chain.
        Mapped(self.0.start())
    }
}

impl<T, H> IdleRequest<T>
where
    T: Operations<RequestData = Chain<H>>,
    H: AsBytes + Send + Zeroable,
{
    /// Fills the chain of the request: the header, and the scatterlist of the request's data.
    ///
    /// # Errors
    ///
    /// Gives the request back, with `ENOMEM` if there is no memory for a long scatterlist; `EIO` if
    /// the data does not fit the scatterlist.
    #[inline]
    pub fn map(mut self, header: H) -> Result<Mapped<Self>, (Self, Error)> {
        match self.inner_mut().fill(header) {
            // INVARIANT: The chain is filled.
            Ok(()) => Ok(Mapped(self)),
            Err(err) => {
                self.inner_mut().free();
                Err((self, err))
            }
        }
    }
}

impl<T, H> Request<T>
where
    T: Operations<RequestData = Chain<H>>,
    H: AsBytes + Send + Zeroable,
{
    /// Fills the chain of a request whose data the device has had already: the chain describes a
    /// request without data.
    #[inline]
    pub fn map_without_data(mut self, header: H) -> Mapped<Self> {
        self.unmap();
        self.inner_mut()
            .data_mut()
            .describe(header, Direction::None, false);

        // INVARIANT: The chain describes a request without data.
        Mapped(self)
    }

    /// Frees the scatterlist of the request's data, and its payload if it has one.
    #[inline]
    pub fn unmap(&mut self) {
        self.inner_mut().free();
    }

    /// Replaces the status byte of a request that the device has answered.
    pub fn set_device_status(&mut self, status: u8) {
        self.inner_mut().data_mut().status = status;
    }
}

impl<T, H> RequestInner<T>
where
    T: Operations<RequestData = Chain<H>>,
    H: AsBytes + Send + Zeroable,
{
    #[inline]
    fn fill(&mut self, header: H) -> Result {
        let segments = self.segments();
        let direction = if segments == 0 {
            Direction::None
        } else {
            self.direction()
        };
        let appends = self.op() == Op::ZoneAppend;
        let rq = self.as_raw();
        let chain = self.data_mut();

        chain.describe(header, direction, appends);
        if segments == 0 {
            return Ok(());
        }

        // SAFETY: The request is valid and ours, and stays where it is.
        unsafe { chain.data.fill(rq, segments) }
    }

    #[inline]
    fn free(&mut self) {
        self.free_payload();
        self.data_mut().data.free();
    }

    /// Where the device says that a zone append has written, in its byte order; `None` for every
    /// other request.
    #[inline]
    pub fn appended(&self) -> Option<u64> {
        let chain = self.data();

        chain.appends.then_some(chain.appended)
    }

    /// The status byte: what the device wrote, or none of the specification's values.
    #[inline]
    pub fn device_status(&self) -> u8 {
        self.data().status
    }
}

impl<T, H> Completed<'_, T>
where
    T: Operations<RequestData = Chain<H>>,
    H: AsBytes + Send + Zeroable,
{
    /// As [`Request::unmap`].
    #[inline]
    pub fn unmap(mut self) {
        self.request().unmap();
    }
}

// SAFETY:
// - The pointer is that of the C request, which the value owns, and which is started.
// - The lists describe the chain in the request's private area and the request's data. Both stay
//   until the request is ended, which takes the value, and nobody accesses them without it. By the
//   type invariant the lists are there.
unsafe impl<T, H> Buffer for Mapped<Request<T>>
where
    T: Operations<RequestData = Chain<H>>,
    H: AsBytes + Send + Zeroable,
{
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        Held::into_raw(self).cast()
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        // SAFETY: The pointer was that of a value, which `into_raw()` gave up.
        unsafe { Held::from_raw(ptr.cast()) }
    }

    #[inline]
    unsafe fn with_sgs<R>(
        ptr: NonNull<c_void>,
        f: impl FnOnce(&mut [*mut scatterlist], u32, u32) -> R,
    ) -> R {
        let chain = RequestInner::<T>::data_ptr(ptr.cast());
        // SAFETY: By the requirement of this function the request is ours, and its private area is
        // an initialized chain, of which the lists are parts.
        let (header, table, status, direction) = unsafe {
            (
                &raw mut (*chain).header_list,
                (*chain).data.as_ptr(),
                &raw mut (*chain).status_list,
                (*chain).direction,
            )
        };

        let second = if direction == Direction::None {
            status
        } else {
            table
        };

        // Without data the last one is beyond the numbers, and not looked at.
        f(
            &mut [header, second, status],
            1 + u32::from(direction == Direction::ToDevice),
            1 + u32::from(direction == Direction::FromDevice),
        )
    }
}
