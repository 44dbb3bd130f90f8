// SPDX-License-Identifier: GPL-2.0

//! The multi-queue interface to drivers.
//!
//! A driver implements [`Operations`] for whatever its disks share, makes a [`TagSet`], and with
//! that its [disks](super::disk):
//!
//! ```
//! # use kernel::sync::Arc;
//! # use kernel_ext::block::mq::{HwQueues, Operations, TagSet};
//! # fn example<MyDisk: Operations, Q: HwQueues>(queues: &Q) -> Result {
//! let tags = Arc::pin_init(TagSet::<MyDisk>::new(queues, 128), GFP_KERNEL)?;
//! # let _ = tags;
//! # Ok(())
//! # }
//! ```
//!
//! C header: [`include/linux/blk-mq.h`](srctree/include/linux/blk-mq.h)

use super::{
    batch::{Completed, IoCompletionBatch, RequestList},
    request::{Held, IdleRequest, Request, RequestInner, Status},
    zoned::ZoneReport, //
};
use crate::{bindings, sync::rcu::Section};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    device,
    error::{to_result, VTABLE_DEFAULT_ERROR},
    prelude::*,
    types::Opaque,
    ModuleMetadata, //
};

/// The number of hardware queues that are worth having: at most `most`, and at most one for each
/// CPU.
pub fn possible_queues(most: u32) -> u32 {
    // SAFETY: The function has no requirements.
    unsafe { bindings::blk_mq_num_possible_queues(most) }
}

/// The index of the map of queues to poll; one of default queues and one for reads precede it.
const POLL_MAP: u32 = bindings::hctx_type_HCTX_TYPE_POLL;

/// A request that the driver could not pass on, and what to tell the block layer.
#[must_use = "a request that is dropped never ends"]
pub struct Rejected<T: Operations>(NonNull<bindings::request>, Status, PhantomData<T>);

impl<T: Operations> Rejected<T> {
    /// Whether the request was started does not matter: the block layer has it again.
    #[inline]
    pub fn new(rq: impl Held<Driver = T>, status: Status) -> Self {
        Self(rq.into_raw(), status, PhantomData)
    }
}

/// What a block driver does for the block layer.
#[vtable]
pub trait Operations: Sized + Send + Sync + 'static {
    /// The driver's module, which stays as long as its disks are open.
    type Module: ModuleMetadata;

    /// What each request carries for the driver.
    type RequestData: Send;

    /// What the disk's queues and attributes share.
    type QueueData: Send + Sync;

    /// Makes what a request carries. That is done once for each request, not for each use of it,
    /// and what is made stays in its place.
    fn new_request_data() -> impl PinInit<Self::RequestData>;

    /// Passes a request on to the device.
    ///
    /// Unless `last` is set more requests follow at once, so that the device may be told of all
    /// together: by the last one, or by [`Self::commit_rqs`] if that does not come. The block layer
    /// calls within an RCU read-side critical section, which is `section`.
    ///
    /// # Errors
    ///
    /// Gives the request back with the reason. The block layer tries again later if that is
    /// [`Status::RESOURCE`] or [`Status::DEV_RESOURCE`], and ends the request otherwise.
    fn queue_rq(
        data: &Self::QueueData,
        hw: HwQueue<'_>,
        rq: IdleRequest<Self>,
        last: bool,
        section: Section<'_>,
    ) -> Result<(), Rejected<Self>>;

    /// Passes requests, for any hardware queues of a disk, on to the device together.
    ///
    /// Returns those that it could not pass on, and did not [start](IdleRequest::start).
    /// [`Self::queue_rq`] gets them one by one, and gives the reason.
    fn queue_rqs(
        _data: &Self::QueueData,
        _requests: RequestList<IdleRequest<Self>>,
        _section: Section<'_>,
    ) -> RequestList<IdleRequest<Self>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Tells the device of requests that were queued without `last`.
    fn commit_rqs(_data: &Self::QueueData, _hw: HwQueue<'_>, _section: Section<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Looks for requests of a polled queue that the device has answered, and gives them to
    /// `batch`. Returns how many there were.
    fn poll(
        _data: &Self::QueueData,
        _hw: HwQueue<'_>,
        _batch: &mut IoCompletionBatch<'_, Self>,
    ) -> usize {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Ends a request that the device has answered.
    fn complete(rq: Request<Self>);

    /// Frees what a request has for the device, which has done it, before it is ended with others.
    fn release(rq: Completed<'_, Self>);

    /// What `HDIO_GETGEO` tells of a disk with so many sectors of 512 bytes.
    ///
    /// # Errors
    ///
    /// The caller gets the error.
    fn geometry(_data: &Self::QueueData, _sectors: u64) -> Result<Geometry> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reports zones of a zoned disk, from the one that has the given sector on.
    ///
    /// # Errors
    ///
    /// The caller gets the error.
    fn report_zones(_data: &Self::QueueData, _sector: u64, _report: &mut ZoneReport<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The geometry that a disk pretends to have.
#[derive(Clone, Copy)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u16,
    /// Heads, that is, tracks of a cylinder.
    pub heads: u8,
    /// Sectors of a track.
    pub sectors: u8,
}

/// A hardware queue, as an operation of the driver sees it.
///
/// # Invariants
///
/// The pointer is valid for `'a`.
#[derive(Clone, Copy)]
pub struct HwQueue<'a>(
    NonNull<bindings::blk_mq_hw_ctx>,
    PhantomData<&'a bindings::blk_mq_hw_ctx>,
);

impl HwQueue<'_> {
    /// The index of the queue.
    #[inline]
    pub fn index(&self) -> usize {
        // SAFETY: By the type invariant the queue is valid.
        unsafe { (*self.0.as_ptr()).queue_num as usize }
    }

    /// Stops the queue: the driver gets no requests of it until
    /// [`restart_queues`](super::disk::Disk::restart_queues).
    pub fn stop(&self) {
        // SAFETY: By the type invariant the queue is valid.
        unsafe { bindings::blk_mq_stop_hw_queue(self.0.as_ptr()) };
    }
}

/// How many hardware queues there are of each kind. Those with interrupts come first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct QueueCounts {
    /// Queues whose requests end by interrupts; at least one.
    pub interrupt: u16,
    /// Queues whose requests end when their submitter [polls](Operations::poll).
    pub poll: u16,
}

impl QueueCounts {
    /// All of them.
    pub fn total(self) -> u32 {
        u32::from(self.interrupt) + u32::from(self.poll)
    }
}

/// What runs the hardware queues of disks.
///
/// # Safety
///
/// While [`with_queues`](Self::with_queues) calls the function, the bus of the device that is
/// passed can be asked for the affinity of its interrupts, by the indices of as many queues as are
/// said to have one.
pub unsafe trait HwQueues {
    /// Calls `f` with the device whose interrupts the queues have, and with how many queues there
    /// are.
    ///
    /// # Errors
    ///
    /// If there are none at the moment.
    fn with_queues<R>(
        &self,
        f: impl FnOnce(&device::Device<device::Bound>, QueueCounts) -> R,
    ) -> Result<R>;
}

/// What the mapping of CPUs to queues is made from.
struct Mapping<'a> {
    /// Whose interrupts the queues have.
    dev: &'a device::Device<device::Bound>,
    counts: QueueCounts,
}

/// A tag set: the requests that disks of `T` have.
///
/// # Invariants
///
/// `inner` is a tag set that `blk_mq_alloc_tag_set()` has set up, with the callbacks of `T`.
#[pin_data(PinnedDrop)]
pub struct TagSet<T: Operations> {
    #[pin]
    inner: Opaque<bindings::blk_mq_tag_set>,
    _ops: PhantomData<T>,
}

// SAFETY: A tag set may be used and freed by any thread.
unsafe impl<T: Operations> Send for TagSet<T> {}

// SAFETY: Nothing of a tag set can be changed through a shared reference.
unsafe impl<T: Operations> Sync for TagSet<T> {}

impl<T: Operations> TagSet<T> {
    /// Makes requests for as many hardware queues as `queues` has, of `depth` requests each. CPUs
    /// use the queues by the affinity of their interrupts.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if the depth is zero or too large; those of `queues`.
    pub fn new<'a, Q: HwQueues>(
        queues: &'a Q,
        depth: u32,
    ) -> impl PinInit<Self, Error> + use<'a, T, Q> {
        try_pin_init!(Self {
            inner <- Opaque::try_ffi_init(move |set: *mut bindings::blk_mq_tag_set| {
                queues.with_queues(|dev, counts| {
                    let mapping = Mapping { dev, counts };

                    // SAFETY: `set` is valid for writes, and may be all zeroes.
                    let fields = unsafe {
                        set.write_bytes(0, 1);
                        &mut *set
                    };
                    fields.ops = &Vtable::<T>::VALUE;
                    fields.nr_hw_queues = counts.total();
                    fields.nr_maps = if counts.poll == 0 { 1 } else { POLL_MAP + 1 };
                    fields.queue_depth = depth;
                    fields.numa_node = bindings::NUMA_NO_NODE;
                    fields.cmd_size = u32::try_from(size_of::<T::RequestData>())?;
                    fields.driver_data = (&raw const mapping).cast_mut().cast();

                    // SAFETY: `set` has just been initialized; it stays where it is. The mapping is
                    // there while the function maps CPUs to queues, which is done once: nobody
                    // changes the number of the queues.
                    let ret = unsafe { bindings::blk_mq_alloc_tag_set(set) };
                    // SAFETY: As above.
                    unsafe { (*set).driver_data = core::ptr::null_mut() };

                    to_result(ret)
                })?
            }),
            _ops: PhantomData,
        })
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::blk_mq_tag_set {
        self.inner.get()
    }
}

#[pinned_drop]
impl<T: Operations> PinnedDrop for TagSet<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the tag set was set up. Disks hold references to `self`,
        // so that none uses it any more.
        unsafe { bindings::blk_mq_free_tag_set(self.inner.get()) };
    }
}

/// The callbacks of `T` for C.
struct Vtable<T>(PhantomData<T>);

impl<T: Operations> Vtable<T> {
    const VALUE: bindings::blk_mq_ops = {
        let mut ops = bindings::blk_mq_ops {
            queue_rq: Some(Self::queue_rq),
            complete: Some(Self::complete),
            init_request: Some(Self::init_request),
            exit_request: Some(Self::exit_request),
            map_queues: Some(Self::map_queues),
            ..pin_init::zeroed()
        };

        if T::HAS_QUEUE_RQS {
            ops.queue_rqs = Some(Self::queue_rqs);
        }
        if T::HAS_COMMIT_RQS {
            ops.commit_rqs = Some(Self::commit_rqs);
        }
        if T::HAS_POLL {
            ops.poll = Some(Self::poll);
        }
        ops
    };

    /// What the callbacks get for a hardware queue.
    ///
    /// # Safety
    ///
    /// `hctx` must be a valid hardware queue of a disk of `T` for `'a`.
    #[inline]
    unsafe fn borrow<'a>(hctx: *mut bindings::blk_mq_hw_ctx) -> (&'a T::QueueData, HwQueue<'a>) {
        // SAFETY: By the requirement of this function. A disk of `T` has a `T::QueueData` for the
        // data of its queue, which is dropped only after its queues are dead.
        unsafe {
            (
                &*(*(*hctx).queue).queuedata.cast::<T::QueueData>(),
                // INVARIANT: By the requirement of this function.
                HwQueue(NonNull::new_unchecked(hctx), PhantomData),
            )
        }
    }

    /// The section within which the block layer passes requests on: `blk_mq_run_dispatch_ops()`
    /// begins one of RCU for a tag set that is not `BLK_MQ_F_BLOCKING`, and [`TagSet::new`] makes
    /// no other.
    ///
    /// # Safety
    ///
    /// The caller must be called as `queue_rq`, `queue_rqs` or `commit_rqs`, and the value must not
    /// outlive the call.
    #[inline]
    unsafe fn section<'a>() -> Section<'a> {
        // SAFETY: By the requirement of this function, and as said above.
        unsafe { Section::assume() }
    }

    extern "C" fn queue_rq(
        hctx: *mut bindings::blk_mq_hw_ctx,
        bd: *const bindings::blk_mq_queue_data,
    ) -> bindings::blk_status_t {
        // SAFETY: The block layer passes a valid hardware queue, and a request that is ours now.
        let ((data, hw), rq, last) = unsafe {
            (
                Self::borrow(hctx),
                IdleRequest::from_raw(NonNull::new_unchecked((*bd).rq)),
                (*bd).last,
            )
        };

        // SAFETY: The section of our caller lasts until this returns.
        let section = unsafe { Self::section() };
        let given = rq.as_raw();

        match T::queue_rq(data, hw, rq, last, section) {
            Ok(()) => Status::OK.into_raw(),
            // The status gives the request back: the one that was passed, whichever that is.
            Err(Rejected(rq, status, _)) if rq.as_ptr() == given => status.into_raw(),
            Err(Rejected(other, ..)) => Self::mistaken(other),
        }
    }

    /// A driver has returned another request than it was passed, which may be anywhere by now, with
    /// the device for example: as far as the block layer is concerned it was queued.
    #[cold]
    fn mistaken(other: NonNull<bindings::request>) -> bindings::blk_status_t {
        kernel::warn_on!(true);
        // SAFETY: The driver had the request, and gave it up.
        unsafe { Request::<T>::from_raw(other) }.end(Status::IOERR);

        Status::OK.into_raw()
    }

    extern "C" fn queue_rqs(list: *mut bindings::rq_list) {
        // SAFETY: The block layer passes a list of requests, of one queue, that are ours now. The
        // first one, like any, is valid and has a valid hardware queue.
        let Some(first) = (unsafe { (*list).head.as_ref() }) else {
            return;
        };
        // SAFETY: As above.
        let ((data, _), requests) =
            unsafe { (Self::borrow(first.mq_hctx), RequestList::from_raw(*list)) };
        // SAFETY: The section of our caller lasts until this returns.
        let section = unsafe { Self::section() };

        // SAFETY: The list is the block layer's to use from now on.
        unsafe { *list = T::queue_rqs(data, requests, section).into_raw() };
    }

    extern "C" fn poll(
        hctx: *mut bindings::blk_mq_hw_ctx,
        iob: *mut bindings::io_comp_batch,
    ) -> c_int {
        // SAFETY: The block layer passes a valid hardware queue, and a batch of its caller's or
        // none.
        let ((data, hw), mut batch) =
            unsafe { (Self::borrow(hctx), IoCompletionBatch::from_raw(iob)) };

        c_int::try_from(T::poll(data, hw, &mut batch)).unwrap_or(c_int::MAX)
    }

    extern "C" fn commit_rqs(hctx: *mut bindings::blk_mq_hw_ctx) {
        // SAFETY: The block layer passes a valid hardware queue. The section of our caller lasts
        // until this returns.
        let ((data, hw), section) = unsafe { (Self::borrow(hctx), Self::section()) };

        T::commit_rqs(data, hw, section);
    }

    extern "C" fn complete(rq: *mut bindings::request) {
        // SAFETY: The block layer passes a request that `Request::complete()` gave to it.
        T::complete(unsafe { Request::from_raw(NonNull::new_unchecked(rq)) });
    }

    extern "C" fn init_request(
        _set: *mut bindings::blk_mq_tag_set,
        rq: *mut bindings::request,
        _hctx_idx: c_uint,
        _numa_node: c_int,
    ) -> c_int {
        const { assert!(align_of::<T::RequestData>() <= align_of::<bindings::request>()) };

        // SAFETY: The block layer passes a valid request with a private area of the size that the
        // tag set asked for; it is aligned for pointers, and stays where it is until
        // `exit_request`.
        let Ok(()) = unsafe {
            T::new_request_data().__init(RequestInner::<T>::data_ptr(NonNull::new_unchecked(rq)))
        };
        0
    }

    extern "C" fn exit_request(
        _set: *mut bindings::blk_mq_tag_set,
        rq: *mut bindings::request,
        _hctx_idx: c_uint,
    ) {
        // SAFETY: The block layer passes a request that `init_request` has initialized, for the
        // last time.
        unsafe { RequestInner::<T>::data_ptr(NonNull::new_unchecked(rq)).drop_in_place() };
    }

    extern "C" fn map_queues(set: *mut bindings::blk_mq_tag_set) {
        // SAFETY: The block layer passes a tag set that `TagSet::new()` is setting up.
        let set = unsafe { &mut *set };
        // SAFETY: The driver data is null or the mapping of the call to `TagSet::new()` that this
        // is part of.
        let Some(Mapping { dev, counts }) =
            (unsafe { set.driver_data.cast::<Mapping<'_>>().as_ref() })
        else {
            return;
        };
        let dev: *const device::Device<device::Bound> = *dev;

        // All in the first map, the last ones in the map for polling, none in the one for reads.
        let [interrupt, read, poll] = &mut set.map;
        interrupt.nr_queues = counts.interrupt.into();
        interrupt.queue_offset = 0;
        // SAFETY: The map is valid. `device::Device` is a transparent wrapper of `struct device`;
        // the function only reads it. By the requirement of `HwQueues` its bus can be asked for the
        // affinity of these queues.
        unsafe { bindings::blk_mq_map_hw_queues(interrupt, dev.cast_mut().cast(), 0) };

        if counts.poll != 0 {
            read.nr_queues = 0;
            poll.nr_queues = counts.poll.into();
            poll.queue_offset = counts.interrupt.into();
            // SAFETY: The map is valid; it is one of the tag set, which has three.
            unsafe { bindings::blk_mq_map_queues(poll) };
        }
    }
}
