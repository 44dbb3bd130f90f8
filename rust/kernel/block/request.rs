// SPDX-License-Identifier: GPL-2.0

//! Requests of the block layer.
//!
//! ```
//! # use kernel_ext::block::{mq::Operations, request::{Op, Request, Status}};
//! # fn handle<T: Operations>(rq: Request<T>, read: impl Fn(u64, u32)) {
//! match rq.op() {
//!     Op::Read => {
//!         read(rq.sector(), rq.len());
//!         rq.end(Status::OK);
//!     }
//!     _ => rq.end(Status::NOTSUPP),
//! }
//! # }
//! ```
//!
//! C header: [`include/linux/blk-mq.h`](srctree/include/linux/blk-mq.h)

use super::mq::Operations;
use crate::bindings;
use core::{marker::PhantomData, ops::Deref, ptr::NonNull};
use kernel::{
    block::SECTOR_SHIFT,
    prelude::*,
    transmute::AsBytes, //
};

/// What the block layer is told of a request: `blk_status_t`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(bindings::blk_status_t);

impl Status {
    /// Done.
    pub const OK: Self = Self(bindings::BLK_STS_OK as bindings::blk_status_t);
    /// The operation is not supported.
    pub const NOTSUPP: Self = Self(bindings::BLK_STS_NOTSUPP);
    /// Failed.
    pub const IOERR: Self = Self(bindings::BLK_STS_IOERR);
    /// More zones would be open than can be.
    pub const ZONE_OPEN_RESOURCE: Self = Self(bindings::BLK_STS_ZONE_OPEN_RESOURCE);
    /// More zones would be active than can be.
    pub const ZONE_ACTIVE_RESOURCE: Self = Self(bindings::BLK_STS_ZONE_ACTIVE_RESOURCE);
    /// The guest is short of something: try again after a while.
    pub const RESOURCE: Self = Self(bindings::BLK_STS_RESOURCE);
    /// The device is busy: the driver runs the queue again when it is not.
    pub const DEV_RESOURCE: Self = Self(bindings::BLK_STS_DEV_RESOURCE);

    pub(crate) fn into_raw(self) -> bindings::blk_status_t {
        self.0
    }
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Bring completed writes to stable storage.
    Flush,
    /// Tell the device that data is not needed any more.
    Discard,
    /// Write zeroes.
    WriteZeroes,
    /// Discard, such that the data can't be read back.
    SecureErase,
    /// Open a zone.
    ZoneOpen,
    /// Close a zone.
    ZoneClose,
    /// Make a zone full.
    ZoneFinish,
    /// Write wherever the write pointer of a zone is, and tell where that was.
    ZoneAppend,
    /// Make a zone empty.
    ZoneReset,
    /// Make all zones empty.
    ZoneResetAll,
    /// An operation without a name here.
    Other,
}

/// A range of sectors of 512 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first sector.
    pub sector: u64,
    /// How many there are.
    pub sectors: u32,
}

/// Where the data of a request goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// There is none.
    None,
    /// From memory to the device.
    ToDevice,
    /// From the device to memory.
    FromDevice,
}

/// What can be asked of a request, whatever becomes of it.
///
/// # Invariants
///
/// The pointer is a valid `struct request` that the block layer gave to the driver, and whose
/// private area is an initialized `T::RequestData`.
pub struct RequestInner<T: Operations>(NonNull<bindings::request>, PhantomData<T>);

// SAFETY: A request may be used and ended by any thread; its data is `Send`.
unsafe impl<T: Operations> Send for RequestInner<T> {}

/// A request that the driver has got, and has not [started](Self::start).
///
/// There is only one value for a request at a time. The driver gives this one up by returning it to
/// the block layer, or by starting it.
#[must_use = "a request that is dropped never ends"]
pub struct IdleRequest<T: Operations>(RequestInner<T>);

/// A request that the driver has started.
///
/// There is only one value for a request at a time. The driver gives this one up by [`Self::end`],
/// or to a virtqueue for as long as the device has it. One that is merely dropped never ends.
#[must_use = "a request that is dropped never ends"]
pub struct Request<T: Operations>(RequestInner<T>);

impl<T: Operations> Deref for IdleRequest<T> {
    type Target = RequestInner<T>;

    #[inline]
    fn deref(&self) -> &RequestInner<T> {
        &self.0
    }
}

impl<T: Operations> Deref for Request<T> {
    type Target = RequestInner<T>;

    #[inline]
    fn deref(&self) -> &RequestInner<T> {
        &self.0
    }
}

/// A value by which the driver has a request.
///
/// # Safety
///
/// What [`from_raw`](Self::from_raw) makes of a pointer from [`into_raw`](Self::into_raw) is the
/// value that there was before. There is nothing to drop.
pub unsafe trait Held: Sized + Send {
    /// The driver whose request it is.
    type Driver: Operations;

    /// Turns the value into a pointer.
    fn into_raw(self) -> NonNull<bindings::request>;

    /// Turns the pointer back into the value.
    ///
    /// # Safety
    ///
    /// `ptr` must come from [`Self::into_raw`], or from the block layer, which has just given the
    /// request to the driver in the state that this type stands for; it may be taken only once.
    unsafe fn from_raw(ptr: NonNull<bindings::request>) -> Self;
}

// SAFETY: The value is the pointer.
unsafe impl<T: Operations> Held for IdleRequest<T> {
    type Driver = T;

    #[inline]
    fn into_raw(self) -> NonNull<bindings::request> {
        self.0 .0
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<bindings::request>) -> Self {
        // INVARIANT: By the requirement of this function; `init_request` of `T`'s operations has
        // initialized the private area of every request.
        Self(RequestInner(ptr, PhantomData))
    }
}

// SAFETY: The value is the pointer.
unsafe impl<T: Operations> Held for Request<T> {
    type Driver = T;

    #[inline]
    fn into_raw(self) -> NonNull<bindings::request> {
        self.0 .0
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<bindings::request>) -> Self {
        // INVARIANT: As for an `IdleRequest`.
        Self(RequestInner(ptr, PhantomData))
    }
}

impl<T: Operations> RequestInner<T> {
    pub(crate) fn as_raw(&self) -> *mut bindings::request {
        self.0.as_ptr()
    }

    /// The private area of a request, which follows it in memory: `blk_mq_rq_to_pdu()`.
    #[inline]
    pub(crate) fn data_ptr(ptr: NonNull<bindings::request>) -> *mut T::RequestData {
        ptr.as_ptr().wrapping_add(1).cast()
    }

    /// The driver's data of the request.
    #[inline]
    pub fn data(&self) -> &T::RequestData {
        // SAFETY: By the type invariant the data is initialized, and only this value reaches it.
        unsafe { &*Self::data_ptr(self.0) }
    }

    #[inline]
    pub(crate) fn data_mut(&mut self) -> &mut T::RequestData {
        // SAFETY: As in `data()`.
        unsafe { &mut *Self::data_ptr(self.0) }
    }

    #[inline]
    fn raw_op(&self) -> u32 {
        // SAFETY: By the type invariant the request is valid. The operation is in the low byte.
        unsafe { (*self.as_raw()).cmd_flags & 0xff }
    }

    /// What is asked for.
    #[inline]
    pub fn op(&self) -> Op {
        match self.raw_op() {
            bindings::req_op_REQ_OP_READ => Op::Read,
            bindings::req_op_REQ_OP_WRITE => Op::Write,
            bindings::req_op_REQ_OP_FLUSH => Op::Flush,
            bindings::req_op_REQ_OP_DISCARD => Op::Discard,
            bindings::req_op_REQ_OP_WRITE_ZEROES => Op::WriteZeroes,
            bindings::req_op_REQ_OP_SECURE_ERASE => Op::SecureErase,
            bindings::req_op_REQ_OP_ZONE_OPEN => Op::ZoneOpen,
            bindings::req_op_REQ_OP_ZONE_CLOSE => Op::ZoneClose,
            bindings::req_op_REQ_OP_ZONE_FINISH => Op::ZoneFinish,
            bindings::req_op_REQ_OP_ZONE_APPEND => Op::ZoneAppend,
            bindings::req_op_REQ_OP_ZONE_RESET => Op::ZoneReset,
            bindings::req_op_REQ_OP_ZONE_RESET_ALL => Op::ZoneResetAll,
            _ => Op::Other,
        }
    }

    /// Where the data goes: an odd operation writes, as the C header has it.
    #[inline]
    pub fn direction(&self) -> Direction {
        if self.raw_op() & 1 != 0 {
            Direction::ToDevice
        } else {
            Direction::FromDevice
        }
    }

    /// The first sector, in units of 512 bytes.
    #[inline]
    pub fn sector(&self) -> u64 {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).__sector }
    }

    /// What the disk's queues and attributes share.
    #[inline]
    pub fn queue_data(&self) -> &T::QueueData {
        // SAFETY: By the type invariant the request is valid and so is its queue, which is one of
        // a disk of `T`; its data is dropped after all requests have ended.
        unsafe { &*(*(*self.as_raw()).q).queuedata.cast::<T::QueueData>() }
    }

    /// The length of the data in bytes.
    #[inline]
    pub fn len(&self) -> u32 {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).__data_len }
    }

    /// Whether the request has no data.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() >> SECTOR_SHIFT == 0
    }

    /// The I/O priority, `ioprio` of the request's first bio.
    #[inline]
    pub fn ioprio(&self) -> u16 {
        // SAFETY: By the type invariant the request is valid, and so are its bios while it is not
        // ended.
        unsafe { (*self.as_raw()).bio.as_ref() }.map_or(0, |bio| bio.bi_ioprio)
    }

    /// The number of segments of the data, or of what [`IdleRequest::set_payload`] put in its
    /// place.
    #[inline]
    pub fn segments(&self) -> u16 {
        if self.has_payload() {
            return 1;
        }

        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).nr_phys_segments }
    }

    /// Whether sectors that are written with zeroes must stay allocated.
    #[inline]
    pub fn is_no_unmap(&self) -> bool {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).cmd_flags & bindings::REQ_NOUNMAP != 0 }
    }

    /// The ranges of a request for several, such as a discard, each as what `f` makes of it.
    ///
    /// There is one for each bio, unless the queue takes only one at a time; then bios are merged
    /// only if their ranges are one together.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, as the memory is taken without waiting; `EIO` if there are more ranges than the
    /// block layer has counted.
    pub fn map_ranges<P: Zeroable>(&self, f: impl Fn(Range) -> P) -> Result<KVec<P>> {
        let most = usize::from(self.segments().max(1));
        let mut ranges = KVec::zeroed(most, GFP_ATOMIC)?;
        let mut found = 0;

        // SAFETY: By the type invariant the request is valid, and so is its queue.
        let as_one = unsafe { (*(*self.as_raw()).q).limits.max_discard_segments } == 1;
        // SAFETY: By the type invariant the request is valid, and so are its bios, each of which
        // points to the next, while it is not ended.
        let mut next = unsafe { (*self.as_raw()).bio.as_ref() };

        for to in ranges.iter_mut() {
            let Some(bio) = next else {
                break;
            };
            let (sector, bytes) = if as_one {
                next = None;
                (self.sector(), self.len())
            } else {
                // SAFETY: As above.
                next = unsafe { bio.bi_next.as_ref() };
                (bio.bi_iter.bi_sector, bio.bi_iter.bi_size)
            };

            *to = f(Range {
                sector,
                sectors: bytes >> SECTOR_SHIFT,
            });
            found += 1;
        }
        if next.is_some() {
            return Err(EIO);
        }
        ranges.truncate(found);

        Ok(ranges)
    }

    /// Whether the data has to be on stable storage when the request ends: `REQ_FUA`.
    #[inline]
    pub fn is_fua(&self) -> bool {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).cmd_flags & bindings::REQ_FUA != 0 }
    }

    /// Whether [`Request::set_partly_done`] was called.
    #[inline]
    pub fn is_partly_done(&self) -> bool {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).rq_flags & bindings::RQF_DONTPREP != 0 }
    }

    #[inline]
    fn has_payload(&self) -> bool {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.as_raw()).rq_flags & bindings::RQF_SPECIAL_PAYLOAD != 0 }
    }

    /// Frees what [`IdleRequest::set_payload`] gave.
    #[inline]
    pub(crate) fn free_payload(&mut self) {
        if self.has_payload() {
            self.free_own_payload();
        }
    }

    #[cold]
    #[inline(never)]
    fn free_own_payload(&mut self) {
        // SAFETY: The request is valid and ours; `set_payload()` alone sets the flag for requests
        // that the driver has, with memory of the slab allocator.
        unsafe {
            bindings::kfree(bindings::rq_payload(self.as_raw()));
            (*self.as_raw()).rq_flags &= !bindings::RQF_SPECIAL_PAYLOAD;
        }
    }

    /// The index of the hardware queue that the request is for.
    #[inline]
    pub fn queue_index(&self) -> usize {
        // SAFETY: By the type invariant the request is valid; one that the driver has, has a
        // hardware queue.
        unsafe { (*(*self.as_raw()).mq_hctx).queue_num as usize }
    }
}

impl<T: Operations> IdleRequest<T> {
    #[inline]
    pub(crate) fn inner_mut(&mut self) -> &mut RequestInner<T> {
        &mut self.0
    }

    /// Gives the request data of its own, which the device reads.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it has no bytes, or if there is one already.
    pub fn set_payload<P: AsBytes>(&mut self, payload: KVec<P>) -> Result {
        const { assert!(size_of::<P>() != 0, "a payload without bytes has no memory") };

        let len = u32::try_from(size_of_val(payload.as_slice()))?;

        if len == 0 || self.has_payload() {
            return Err(EINVAL);
        }
        let (ptr, _, _) = payload.into_raw_parts();

        // SAFETY: The request is valid and ours. `ptr` is memory of the slab allocator with `len`
        // bytes, for a vector with some has allocated it; the request owns it from now on.
        unsafe { bindings::rq_set_payload(self.as_raw(), ptr.cast(), len) };

        Ok(())
    }

    /// Ends the request, which the device does not get.
    #[inline]
    pub fn end(self, status: Status) {
        // SAFETY: The request is valid and ours; it is given back to the block layer. That ends
        // requests that were not started as well, such as those that a driver rejects.
        unsafe { bindings::blk_mq_end_request(self.0.as_raw(), status.into_raw()) };
    }

    /// Tells the block layer that the device is about to get the request.
    #[inline]
    pub fn start(self) -> Request<T> {
        // SAFETY: By the type invariant the request is valid and ours.
        unsafe { bindings::blk_mq_start_request(self.as_raw()) };

        Request(self.0)
    }
}

impl<T: Operations> Request<T> {
    #[inline]
    pub(crate) fn inner_mut(&mut self) -> &mut RequestInner<T> {
        &mut self.0
    }

    /// Says where a [`Op::ZoneAppend`] has written.
    pub fn set_sector(&mut self, sector: u64) {
        // SAFETY: By the type invariant the request is valid and ours.
        unsafe { (*self.as_raw()).__sector = sector };
    }

    /// Marks a request of which a part is done, which must not be done twice: `RQF_DONTPREP`.
    ///
    /// The mark stays when the request is [requeued](Self::requeue), which then merges nothing into
    /// it, and goes when the request is ended.
    #[inline]
    pub fn set_partly_done(&mut self) {
        // SAFETY: By the type invariant the request is valid and ours.
        unsafe { (*self.as_raw()).rq_flags |= bindings::RQF_DONTPREP };
    }

    /// Gives the request back, to get it once more later.
    pub fn requeue(self) {
        // SAFETY: The request is valid and ours; it is given back to the block layer.
        unsafe { bindings::blk_mq_requeue_request(self.into_raw().as_ptr(), true) };
    }

    /// Completes a request that the device has answered: [`Operations::complete`] is called, on the
    /// CPU that submitted the request if the queue is set so. The fault injection `fail_io_timeout`
    /// can keep that from happening, as if the device had not answered.
    #[inline]
    pub fn complete(self) {
        // SAFETY: The request is valid and ours; it is given to the block layer, which gives it
        // to `complete`, or leaves it as it is for good.
        unsafe { bindings::complete_unless_faked(self.into_raw().as_ptr()) };
    }

    /// Ends the request.
    #[inline]
    pub fn end(self, status: Status) {
        // SAFETY: The request is valid and ours; it is given back to the block layer.
        unsafe { bindings::blk_mq_end_request(self.into_raw().as_ptr(), status.into_raw()) };
    }
}
