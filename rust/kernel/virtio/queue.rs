// SPDX-License-Identifier: GPL-2.0

//! Virtqueues, section 2.6 of the virtio specification.
//!
//! What is handed to the device is a [`Buffer`]: an owned value that moves into the queue with
//! [`Ring::add`] and out of it with [`Ring::pop`]. In between nobody else can reach it, so that
//! the memory that the device reads and writes can neither go away nor be seen half-written.
//!
//! A driver has its [`Queues`] in an object that it shares with its other parts and that
//! implements [`Handler`]. [`Running::start`] connects it with the device.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use super::Device;
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::{null_mut, NonNull}, //
};
use kernel::{
    bindings::scatterlist,
    device,
    error::to_result,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        lock::{spinlock::SpinLockIrqBackend, Guard},
        new_mutex,
        new_spinlock_irq,
        rcu,
        Arc,
        ArcBorrow,
        Mutex,
        SpinLockIrq, //
    },
};

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
    /// that it writes, and the number of each.
    ///
    /// # Safety
    ///
    /// `ptr` must come from [`Self::into_raw`] and not have been taken back.
    unsafe fn with_sgs<R>(
        ptr: NonNull<c_void>,
        f: impl FnOnce(&mut [*mut scatterlist], u32, u32) -> R,
    ) -> R;
}

/// A buffer of one of two kinds.
pub enum Either<A, B> {
    /// The first kind.
    Left(A),
    /// The second kind.
    Right(B),
}

/// The bit of a raw pointer that tells an [`Either::Right`].
const RIGHT: usize = 1;

impl<A, B> Either<A, B> {
    fn is_right(ptr: NonNull<c_void>) -> bool {
        ptr.addr().get() & RIGHT != 0
    }

    /// Marks a pointer as one of the second kind.
    fn mark(ptr: NonNull<c_void>) -> NonNull<c_void> {
        ptr.map_addr(|addr| addr | RIGHT)
    }

    /// Takes the mark off a pointer that has it.
    ///
    /// # Safety
    ///
    /// `ptr` must come from [`Buffer::into_raw`] of an [`Either::Right`].
    unsafe fn unmark(ptr: NonNull<c_void>) -> NonNull<c_void> {
        // SAFETY: Without the mark it is the pointer of a `B`, which is not null.
        unsafe { NonNull::new_unchecked(ptr.as_ptr().map_addr(|addr| addr & !RIGHT)) }
    }
}

// SAFETY: Pointers and lists are those of `A` and `B`. The mark uses a bit that is clear in both,
// by their alignment, so that each pointer goes back to the kind that it came from.
unsafe impl<A: Buffer, B: Buffer> Buffer for Either<A, B> {
    #[inline]
    fn into_raw(self) -> NonNull<c_void> {
        match self {
            Self::Left(a) => a.into_raw(),
            Self::Right(b) => Self::mark(b.into_raw()),
        }
    }

    #[inline]
    unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
        if Self::is_right(ptr) {
            // SAFETY: The mark shows that the pointer is one of `B`.
            Self::Right(unsafe { B::from_raw(Self::unmark(ptr)) })
        } else {
            // SAFETY: Without the mark the pointer is one of `A`.
            Self::Left(unsafe { A::from_raw(ptr) })
        }
    }

    #[inline]
    unsafe fn with_sgs<R>(
        ptr: NonNull<c_void>,
        f: impl FnOnce(&mut [*mut scatterlist], u32, u32) -> R,
    ) -> R {
        if Self::is_right(ptr) {
            // SAFETY: The mark shows that the pointer is one of `B`.
            unsafe { B::with_sgs(Self::unmark(ptr), f) }
        } else {
            // SAFETY: Without the mark the pointer is one of `A`.
            unsafe { A::with_sgs(ptr, f) }
        }
    }
}

/// What the lock of a [`Queue`] protects: the virtqueue, and what the driver keeps with it.
///
/// # Invariants
///
/// `vq` is a valid virtqueue, or `None` while the device is not set up. Each buffer in it was added
/// by [`Ring::add`].
pub struct Ring<B: Buffer, S> {
    vq: Option<NonNull<bindings::virtqueue>>,
    /// The driver's own.
    pub state: S,
    _buffers: PhantomData<B>,
}

// What the lock protects is never pinned: its guard gives plain mutable references.
impl<B: Buffer, S> Unpin for Ring<B, S> {}

// SAFETY: Any thread may use a virtqueue, one at a time; the buffers in it are `Send`.
unsafe impl<B: Buffer, S: Send> Send for Ring<B, S> {}

impl<B: Buffer, S> Ring<B, S> {
    /// Exposes a buffer to the device, which need not look until [`Self::prepare_kick`].
    ///
    /// # Errors
    ///
    /// Gives the buffer back with `ENOSPC` if the ring is full, `ENOMEM` if the buffer can't be
    /// mapped at the moment, `EIO` if the device is broken, `ENODEV` if it is not set up.
    #[inline]
    pub fn add(&mut self, buffer: B) -> Result<(), (B, Error)> {
        let ptr = buffer.into_raw();

        // SAFETY: `ptr` comes from `into_raw()` just above.
        unsafe { self.add_raw(ptr) }
            // SAFETY: A buffer that was not added was not passed on, so that it is taken back once.
            .map_err(|err| (unsafe { B::from_raw(ptr) }, err))
    }

    /// Exposes a buffer in its raw form.
    ///
    /// # Safety
    ///
    /// `ptr` must come from `B::into_raw()`. If it was added it may not be taken back before
    /// [`Self::pop`] returns it.
    #[inline]
    unsafe fn add_raw(&mut self, ptr: NonNull<c_void>) -> Result {
        let vq = self.vq.ok_or(ENODEV)?;

        // SAFETY: By the type invariant `vq` is valid, and the lock serializes its use. By the
        // requirements of `Buffer` the lists describe valid memory until the device is done with
        // the buffer.
        let ret = unsafe {
            B::with_sgs(ptr, |sgs, outs, ins| {
                bindings::virtqueue_add_sgs(
                    vq.as_ptr(),
                    sgs.as_mut_ptr(),
                    outs,
                    ins,
                    ptr.as_ptr(),
                    bindings::GFP_ATOMIC,
                )
            })
        };

        to_result(ret)
    }

    /// Takes a buffer that the device is done with.
    ///
    /// The virtqueue verifies that the device answers only what it was given, and gives nothing
    /// more once the device did otherwise.
    #[inline]
    pub fn pop(&mut self) -> Option<B> {
        let vq = self.vq?;
        let mut len = 0;

        // SAFETY: By the type invariant `vq` is valid, and the lock serializes its use.
        let ptr = unsafe { bindings::virtqueue_get_buf(vq.as_ptr(), &mut len) };

        // SAFETY: The pointer is one that `add()` stored; the virtqueue gives it only once.
        NonNull::new(ptr).map(|ptr| unsafe { B::from_raw(ptr) })
    }

    /// Asks the device not to interrupt for more buffers; a hint.
    #[inline]
    pub fn disable_callbacks(&mut self) {
        if let Some(vq) = self.vq {
            // SAFETY: By the type invariant `vq` is valid, and the lock serializes its use.
            unsafe { bindings::virtqueue_disable_cb(vq.as_ptr()) };
        }
    }

    /// Asks the device to interrupt for more buffers. Returns `false` if there are some already.
    #[inline]
    pub fn enable_callbacks(&mut self) -> bool {
        match self.vq {
            // SAFETY: By the type invariant `vq` is valid, and the lock serializes its use.
            Some(vq) => unsafe { bindings::virtqueue_enable_cb(vq.as_ptr()) },
            None => true,
        }
    }

    /// Prepares to tell the device of the buffers that were added.
    ///
    /// The telling itself can take long and needs no lock: drop the guard of the ring, then
    /// [`Kick::notify`].
    #[inline]
    pub fn prepare_kick<'rcu>(&mut self, _rcu: &'rcu rcu::Guard) -> Kick<'rcu> {
        let vq = self
            .vq
            // SAFETY: By the type invariant `vq` is valid, and the lock serializes its use.
            .filter(|vq| unsafe { bindings::virtqueue_kick_prepare(vq.as_ptr()) });

        // INVARIANT: `vq` was found set within the read-side critical section of `_rcu`.
        Kick(vq, PhantomData)
    }

    /// The buffers that still fit into the ring.
    ///
    /// With indirect descriptors a buffer takes one of them, else one for each of its segments.
    pub fn free(&self) -> u32 {
        // SAFETY: By the type invariant `vq` is valid.
        self.vq.map_or(0, |vq| unsafe { (*vq.as_ptr()).num_free })
    }
}

impl<A: Buffer, B: Buffer, S> Ring<Either<A, B>, S> {
    /// As [`Self::add`], for a buffer of the first kind.
    ///
    /// # Errors
    ///
    /// Those of [`Self::add`].
    #[inline]
    pub fn add_left(&mut self, buffer: A) -> Result<(), (A, Error)> {
        let ptr = buffer.into_raw();

        // SAFETY: A pointer of `A` without a mark is one of `Either<A, B>`.
        unsafe { self.add_raw(ptr) }
            // SAFETY: A buffer that was not added was not passed on, so that it is taken back once.
            .map_err(|err| (unsafe { A::from_raw(ptr) }, err))
    }

    /// As [`Self::add`], for a buffer of the second kind.
    ///
    /// # Errors
    ///
    /// Those of [`Self::add`].
    #[inline]
    pub fn add_right(&mut self, buffer: B) -> Result<(), (B, Error)> {
        let ptr = buffer.into_raw();

        // SAFETY: A pointer of `B` with a mark is one of `Either<A, B>`.
        unsafe { self.add_raw(Either::<A, B>::mark(ptr)) }
            // SAFETY: A buffer that was not added was not passed on, so that it is taken back once.
            .map_err(|err| (unsafe { B::from_raw(ptr) }, err))
    }
}

/// A notification of the device that may be due.
///
/// # Invariants
///
/// The virtqueue was found in a [`Ring`] within an RCU read-side critical section that lasts as
/// long as `'rcu`. [`Running`] waits for such sections before it frees the virtqueues.
#[must_use = "the device may not look for the buffers until it is told"]
pub struct Kick<'rcu>(
    Option<NonNull<bindings::virtqueue>>,
    PhantomData<&'rcu rcu::Guard>,
);

impl Kick<'_> {
    /// Tells the device, if it asked to be told.
    #[inline]
    pub fn notify(self) {
        if let Some(vq) = self.0 {
            // SAFETY: By the type invariant the virtqueue has not been freed.
            unsafe { bindings::virtqueue_notify(vq.as_ptr()) };
        }
    }
}

/// The guard of a locked [`Ring`].
pub type RingGuard<'a, B, S> = Guard<'a, Ring<B, S>, SpinLockIrqBackend>;

/// A virtqueue with its lock.
// The alignment keeps the locks of different queues in cache lines of their own.
#[repr(align(64))]
#[pin_data]
pub struct Queue<B: Buffer, S> {
    #[pin]
    ring: SpinLockIrq<Ring<B, S>>,
}

impl<B: Buffer, S> Queue<B, S> {
    /// Locks the ring.
    #[inline]
    pub fn lock(&self) -> RingGuard<'_, B, S> {
        self.ring.lock()
    }
}

/// Queues, each at an address of its own.
type QueueVec<B, S> = KVec<Pin<KBox<Queue<B, S>>>>;

/// All virtqueues of a device, and the device itself for as long as they work.
#[pin_data]
pub struct Queues<B: Buffer, S> {
    queues: QueueVec<B, S>,
    /// The device, while it is bound.
    #[pin]
    dev: Mutex<Option<ARef<Device>>>,
}

impl<B: Buffer, S: Default> Queues<B, S> {
    /// Prepares `count` queues, which hold no virtqueue before [`Running::start`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(count: u16) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            queues: Self::empty(count)?,
            dev <- new_mutex!(None, "virtqueues"),
        })
    }

    fn empty(count: u16) -> Result<QueueVec<B, S>> {
        let mut queues = KVec::with_capacity(usize::from(count), GFP_KERNEL)?;

        for _ in 0..count {
            // INVARIANT: There is no virtqueue yet.
            let ring = Ring {
                vq: None,
                state: S::default(),
                _buffers: PhantomData,
            };
            let queue = KBox::pin_init(
                pin_init!(Queue { ring <- new_spinlock_irq!(ring, "virtqueue") }),
                GFP_KERNEL,
            )?;
            queues.push(queue, GFP_KERNEL)?;
        }

        Ok(queues)
    }
}

impl<B: Buffer, S> Queues<B, S> {
    /// The queue of this index.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&Queue<B, S>> {
        self.queues.get(index).map(|queue| &**queue)
    }

    /// All queues.
    pub fn iter(&self) -> impl Iterator<Item = &Queue<B, S>> {
        self.queues.iter().map(|queue| &**queue)
    }

    /// Calls `f` with the device, unless that is not bound any more. May sleep: the device stays
    /// bound meanwhile.
    pub fn with_device<R>(&self, f: impl FnOnce(&Device<device::Bound>) -> R) -> Option<R> {
        let dev = self.dev.lock();
        let dev = dev.as_ref()?;

        // SAFETY: The device is there from `Running::start()`, which has a bound one, until the
        // `Running` is dropped, which waits for the lock.
        Some(f(unsafe { Device::from_raw(dev.as_raw()) }))
    }
}

/// Who owns the virtqueues of a device and answers for them.
pub trait Handler: Sized + Send + Sync + 'static {
    /// What is handed to the device.
    type Buffer: Buffer;
    /// What the driver keeps under the lock of each queue.
    type State: Send;

    /// The virtqueues.
    fn queues(&self) -> &Queues<Self::Buffer, Self::State>;

    /// The device has used buffers of the queue of this index. Called in interrupt context.
    fn used(this: ArcBorrow<'_, Self>, index: usize);

    /// A buffer that the device will not use any more, because it was reset.
    fn unused(&self, buffer: Self::Buffer);
}

/// Virtqueues connected with their device, until this is dropped.
///
/// Dropping resets the device first, and may sleep.
///
/// # Invariants
///
/// `vqs` are the virtqueues of `dev`; each is valid.
pub struct Running<'bound, T: Handler> {
    dev: &'bound Device<device::Bound>,
    handler: Arc<T>,
    vqs: KVec<*mut bindings::virtqueue>,
    /// The names of the virtqueues, which keep pointers to them.
    names: KVec<CString>,
}

// SAFETY: The virtqueues are used here only when nobody else does, from any thread.
unsafe impl<T: Handler> Send for Running<'_, T> {}

// SAFETY: Nothing that a shared reference offers uses the virtqueues.
unsafe impl<T: Handler> Sync for Running<'_, T> {}

impl<'bound, T: Handler> Running<'bound, T> {
    /// Finds the virtqueues of the device, with interrupts spread over the CPUs.
    ///
    /// # Errors
    ///
    /// Those of the transport, `ENOMEM` among them.
    pub fn start(dev: &'bound Device<device::Bound>, handler: &Arc<T>) -> Result<Self> {
        let queues = handler.queues();
        let count = queues.queues.len();
        let mut infos = KVec::<bindings::virtqueue_info>::with_capacity(count, GFP_KERNEL)?;
        let mut vqs = KVec::from_elem(null_mut::<bindings::virtqueue>(), count, GFP_KERNEL)?;
        let mut affinity = bindings::irq_affinity::default();

        // INVARIANT: There is no virtqueue yet.
        let mut this = Self {
            dev,
            handler: handler.clone(),
            vqs: KVec::new(),
            names: KVec::with_capacity(count, GFP_KERNEL)?,
        };

        for index in 0..count {
            let name = CString::try_from_fmt(fmt!("req.{index}"))?;
            let info = bindings::virtqueue_info {
                name: name.as_char_ptr(),
                callback: Some(Self::callback),
                ctx: false,
            };

            infos.push(info, GFP_KERNEL)?;
            this.names.push(name, GFP_KERNEL)?;
        }

        // An interrupt can come as soon as there is a virtqueue.
        //
        // SAFETY: `priv` is for the driver of a bound device. The pointer stays valid as long as
        // `this` holds the handler, which takes it away again when it is dropped.
        unsafe { (*dev.as_raw()).priv_ = Arc::as_ptr(handler).cast_mut().cast() };

        // SAFETY: `dev` is a valid device, whose operations always include `find_vqs`; the arrays
        // have as many elements as is said.
        let ret = unsafe {
            let find_vqs = (*(*dev.as_raw()).config).find_vqs.ok_or(ENXIO)?;
            find_vqs(
                dev.as_raw(),
                count as u32,
                vqs.as_mut_ptr(),
                infos.as_mut_ptr(),
                &mut affinity,
            )
        };
        to_result(ret)?;

        *queues.dev.lock() = Some(dev.into());
        for (queue, vq) in queues.iter().zip(vqs.iter()) {
            // INVARIANT: The transport found a valid virtqueue, in which there is no buffer.
            queue.lock().vq = NonNull::new(*vq);
        }

        // INVARIANT: These are all virtqueues that the transport made.
        this.vqs = vqs;

        Ok(this)
    }

    /// Tells the device that the driver is ready: it may use buffers from now on.
    pub fn ready(&self) {
        // SAFETY: `dev` is valid and bound, and its virtqueues are set up.
        unsafe { bindings::virtio_device_ready(self.dev.as_raw()) };
    }

    /// Takes back what is left in the virtqueues.
    ///
    /// Neither the device nor any [`Ring`] may use them any more.
    fn detach_all(&self) {
        for &vq in self.vqs.iter() {
            // SAFETY: By the type invariant `vq` is valid, and nobody else uses it.
            while let Some(ptr) = NonNull::new(unsafe { bindings::virtqueue_detach_unused_buf(vq) })
            {
                // SAFETY: The pointer is one that `Ring::add()` stored; it is given only once.
                self.handler.unused(unsafe { T::Buffer::from_raw(ptr) });
            }
        }
    }

    extern "C" fn callback(vq: *mut bindings::virtqueue) {
        // SAFETY: The transport calls with a valid virtqueue. `priv` was set before there was any,
        // and the handler outlives them all: see `drop()`.
        let (handler, index) = unsafe {
            (
                ArcBorrow::from_raw((*(*vq).vdev).priv_.cast::<T>().cast_const()),
                (*vq).index,
            )
        };

        T::used(handler, index as usize);
    }
}

impl<T: Handler> Drop for Running<'_, T> {
    fn drop(&mut self) {
        *self.handler.queues().dev.lock() = None;

        for queue in self.handler.queues().iter() {
            queue.lock().vq = None;
        }

        // Who found a virtqueue in its ring before may still be about to notify through it.
        rcu::synchronize_rcu();

        // After this no callback runs, and the device leaves all buffers alone.
        self.dev.reset();

        self.detach_all();

        // SAFETY: `dev` is a valid device. No ring has a virtqueue any more, every `Kick` is gone,
        // and no callback runs.
        unsafe {
            match (*(*self.dev.as_raw()).config).del_vqs {
                Some(del_vqs) if !self.vqs.is_empty() => del_vqs(self.dev.as_raw()),
                _ => (),
            }
            (*self.dev.as_raw()).priv_ = null_mut();
        }
    }
}
