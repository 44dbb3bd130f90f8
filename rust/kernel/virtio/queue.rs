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
//! ```ignore
//! let rcu = rcu::read_lock();
//! let mut ring = queue.lock();
//! ring.add_left(request).map_err(|(request, err)| refuse(request, err))?;
//! let kick = ring.prepare_kick(&rcu);
//! drop(ring);
//! kick.notify();
//! ```
//!
//! and in [`Handler::used`], which an interrupt calls:
//!
//! ```ignore
//! let mut ring = queue.lock();
//! while let Some(Either::Left(request)) = ring.pop() {
//!     request.complete();
//! }
//! ```
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

mod running;

pub use running::Running;

use super::Device;
use crate::bindings;
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    bindings::scatterlist,
    device,
    error::to_result,
    prelude::*,
    sync::{
        aref::ARef,
        lock::{spinlock::SpinLockIrqBackend, Guard},
        new_mutex,
        new_spinlock_irq,
        rcu,
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

    /// Whether the device has broken the rules, so that nothing comes out of the ring any more
    /// before the device is reset.
    #[inline]
    pub fn is_broken(&self) -> bool {
        match self.vq {
            // SAFETY: By the type invariant `vq` is valid.
            Some(vq) => unsafe { bindings::virtqueue_is_broken(vq.as_ptr()) },
            None => false,
        }
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

/// A device and its virtqueues, while they are set up.
///
/// # Invariants
///
/// `vqs` are all virtqueues of `dev`, which is bound; each is valid.
struct Connected {
    dev: ARef<Device>,
    vqs: KVec<*mut bindings::virtqueue>,
}

// SAFETY: The virtqueues are used here only when nobody else does, from any thread.
unsafe impl Send for Connected {}

/// All virtqueues of a device, and the device itself for as long as they work.
#[pin_data]
pub struct Queues<B: Buffer, S> {
    queues: QueueVec<B, S>,
    /// How many, from the first one on, have interrupts.
    with_interrupt: usize,
    #[pin]
    connected: Mutex<Option<Connected>>,
}

impl<B: Buffer, S: Default> Queues<B, S> {
    /// Prepares queues, which hold no virtqueue before [`Running::start`]: first some with
    /// interrupts, then some that the driver polls.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(with_interrupt: u16, polled: u16) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            queues: Self::empty(usize::from(with_interrupt) + usize::from(polled))?,
            with_interrupt: with_interrupt.into(),
            connected <- new_mutex!(None, "virtqueues"),
        })
    }

    fn empty(count: usize) -> Result<QueueVec<B, S>> {
        let mut queues = KVec::with_capacity(count, GFP_KERNEL)?;

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

    /// Calls `f` with the device, unless that is not set up. May sleep: the device stays set up
    /// meanwhile.
    pub fn with_device<R>(&self, f: impl FnOnce(&Device<device::Bound>) -> R) -> Option<R> {
        let connected = self.connected.lock();
        let dev = &connected.as_ref()?.dev;

        // SAFETY: By the type invariant of `Connected` the device is bound, and it stays so until
        // the lock is free: `Running` takes it to disconnect.
        Some(f(unsafe { Device::from_raw(dev.as_raw()) }))
    }

    /// Resets the device and frees its virtqueues: `unused` gets what the device has not answered.
    /// Until [`Running::resume`] nothing can be added to any [`Ring`], the answer is `ENODEV`, and
    /// there is no device. Returns `false` if that was so before. May sleep.
    pub fn disconnect(&self, unused: impl Fn(B)) -> bool {
        // Locked to the end: the driver may be unbound as soon as nothing is connected.
        let mut slot = self.connected.lock();
        let Some(connected) = slot.take() else {
            return false;
        };
        // SAFETY: By the type invariant of `Connected` the device is bound.
        let dev = unsafe { Device::<device::Bound>::from_raw(connected.dev.as_raw()) };

        for queue in self.iter() {
            queue.lock().vq = None;
        }

        // Who found a virtqueue in its ring before may still be about to notify through it.
        rcu::synchronize_rcu();

        // After this no callback runs, and the device leaves all buffers alone.
        dev.reset();

        for &vq in connected.vqs.iter() {
            // SAFETY: By the type invariant of `Connected` `vq` is valid, and nobody else uses it.
            while let Some(ptr) = NonNull::new(unsafe { bindings::virtqueue_detach_unused_buf(vq) })
            {
                // SAFETY: The pointer is one that `Ring::add()` stored; it is given only once.
                unused(unsafe { B::from_raw(ptr) });
            }
        }

        // SAFETY: `dev` is a valid device. No ring has a virtqueue any more, every `Kick` is gone,
        // and no callback runs.
        unsafe {
            if let Some(del_vqs) = (*(*dev.as_raw()).config).del_vqs {
                del_vqs(dev.as_raw());
            }
        }

        true
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

    /// The device has used buffers of the queue of this index, which has interrupts. Called in
    /// interrupt context.
    fn used(this: ArcBorrow<'_, Self>, index: usize);

    /// A buffer that the device will not use any more, because it was reset.
    fn unused(&self, buffer: Self::Buffer);
}
