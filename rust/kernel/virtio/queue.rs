// SPDX-License-Identifier: GPL-2.0

//! Virtqueues, section 2.6 of the virtio specification.
//!
//! What is handed to the device is a [`Buffer`]: an owned value that moves into the queue with
//! [`RingGuard::add`] and out of it with [`RingGuard::pop`]. In between nobody else can reach it,
//! so that the memory that the device reads and writes can neither go away nor be seen
//! half-written.
//!
//! A driver has its [`Queues`] in an object that it shares with its other parts and that implements
//! [`Handler`]. The adapter of the bus owns what connects them with the device: the driver gets a
//! [`Start`], which it can use once, and from that a reference to a [`Running`].
//!
//! ```
//! # use kernel::sync::rcu;
//! # use kernel_ext::virtio::queue::{Buffer, Queue};
//! # fn send<B: Buffer, S>(queue: &Queue<B, S>, buffer: B) -> Result<(), (B, Error)> {
//! let rcu = rcu::read_lock();
//! let mut ring = queue.lock();
//!
//! ring.add(buffer)?;
//! let kick = ring.prepare_kick(&rcu);
//! drop(ring);
//! kick.notify();
//! # Ok(())
//! # }
//! ```
//!
//! and in [`Handler::used`], which an interrupt calls:
//!
//! ```
//! # use kernel_ext::virtio::queue::{Buffer, Queue};
//! # fn used<B: Buffer, S>(queue: &Queue<B, S>, answered: impl Fn(B)) {
//! let mut ring = queue.lock();
//!
//! while let Some(buffer) = ring.pop() {
//!     answered(buffer);
//! }
//! # }
//! ```
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

mod buffer;
mod running;

pub use buffer::{Buffer, Kind};
pub use running::{Running, Slot, Start};

use super::Device;
use crate::{
    bindings,
    sync::{
        irq_save::{SpinLockIrqSave, SpinLockIrqSaveGuard},
        rcu::Section, //
    },
};
use core::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
    ptr::NonNull, //
};
use kernel::{
    device,
    prelude::*,
    static_lock_class,
    sync::{
        aref::ARef,
        new_mutex,
        rcu,
        ArcBorrow,
        CondVar,
        Mutex, //
    },
};

/// What the lock of a [`Queue`] protects: the virtqueue, and what the driver keeps with it.
///
/// # Invariants
///
/// `vq` is a valid virtqueue, or `None` while the device is not set up. Each buffer in it was added
/// by [`RingGuard::add`] of this ring, and not taken back.
struct Ring<B: Buffer, S> {
    vq: Option<NonNull<bindings::virtqueue>>,
    state: S,
    _buffers: PhantomData<B>,
}

// What the lock protects is never pinned: its guard gives plain mutable references.
impl<B: Buffer, S> Unpin for Ring<B, S> {}

// SAFETY: Any thread may use a virtqueue, one at a time; the buffers in it are `Send`.
unsafe impl<B: Buffer, S: Send> Send for Ring<B, S> {}

/// A locked ring, until this is dropped. Dereferences to what the driver keeps under the lock.
///
/// It gives no mutable reference to the ring itself, by which two rings could be exchanged.
/// Deleting a virtqueue relies on its being in the ring that it was put into.
pub struct RingGuard<'a, B: Buffer, S>(SpinLockIrqSaveGuard<'a, Ring<B, S>>);

impl<B: Buffer, S> Deref for RingGuard<'_, B, S> {
    type Target = S;

    #[inline]
    fn deref(&self) -> &S {
        // The guard has a field of that name, too, which the `kernel` crate can see.
        let ring: &Ring<B, S> = &self.0;

        &ring.state
    }
}

impl<B: Buffer, S> DerefMut for RingGuard<'_, B, S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut S {
        let ring: &mut Ring<B, S> = &mut self.0;

        &mut ring.state
    }
}

impl<B: Buffer, S> RingGuard<'_, B, S> {
    /// Exposes a buffer to the device, which need not look until [`Self::prepare_kick`].
    ///
    /// # Errors
    ///
    /// Gives the buffer back with
    ///
    /// - `ENOSPC` if the ring has no room for it now: something in it makes room when it is done,
    /// - `ENOMEM` if there is no memory for it at the moment, neither to map it nor for a table of
    ///   its descriptors, without which it may not fit even an empty ring,
    /// - `EMSGSIZE` if it has more segments than the whole ring, so that it never fits,
    /// - `EIO` if the device is broken,
    /// - `ENODEV` if it is not set up.
    #[inline]
    pub fn add<K: Kind<B>>(&mut self, buffer: K) -> Result<(), (K, Error)> {
        let Some(vq) = self.0.vq else {
            return Err((buffer, ENODEV));
        };
        let ptr = buffer.into_raw();

        // SAFETY: By the invariant of `Ring` `vq` is valid, and the lock serializes its use. By the
        // requirements of `Buffer` the lists describe valid memory until the device is done with
        // the buffer. By the requirement of `Kind` what the virtqueue keeps is a pointer of `B`.
        let ret = unsafe {
            K::with_sgs(ptr, |sgs, outs, ins| {
                bindings::virtqueue_add_sgs(
                    vq.as_ptr(),
                    sgs.as_mut_ptr(),
                    outs,
                    ins,
                    K::tag(ptr).as_ptr(),
                    bindings::GFP_ATOMIC,
                )
            })
        };
        if ret == 0 {
            return Ok(());
        }

        // SAFETY: A buffer that was not added was not passed on, so that it is taken back once.
        let buffer = unsafe { K::from_raw(ptr) };
        Err((buffer, self.refusal(Error::from_errno(ret))))
    }

    /// Why a buffer was not added: no room in a ring with nothing in it is no matter of waiting.
    #[cold]
    #[inline(never)]
    fn refusal(&self, err: Error) -> Error {
        match self.0.vq {
            Some(vq) if err == ENOSPC && self.free() == ring_size(vq) => {
                // SAFETY: By the invariant of `Ring` `vq` is valid, and so is its device.
                let indirect = unsafe {
                    bindings::virtio_test_bit(
                        (*vq.as_ptr()).vdev,
                        bindings::VIRTIO_RING_F_INDIRECT_DESC,
                    )
                };

                if indirect {
                    ENOMEM
                } else {
                    EMSGSIZE
                }
            }
            _ => err,
        }
    }

    /// Takes a buffer that the device is done with.
    ///
    /// The virtqueue verifies that the device answers only what it was given, and gives nothing
    /// more once the device did otherwise.
    #[inline]
    pub fn pop(&mut self) -> Option<B> {
        let vq = self.0.vq?;

        // SAFETY: By the invariant of `Ring` `vq` is valid.
        unsafe { self.pop_from(vq) }
    }

    /// As [`Self::pop`].
    ///
    /// # Safety
    ///
    /// `vq` must be the virtqueue that this ring has now.
    #[inline]
    unsafe fn pop_from(&mut self, vq: NonNull<bindings::virtqueue>) -> Option<B> {
        let mut len = 0;

        // SAFETY: By the invariant of `Ring` `vq` is valid, and the lock serializes its use.
        let ptr = unsafe { bindings::virtqueue_get_buf(vq.as_ptr(), &mut len) };

        // SAFETY: By the invariant of `Ring` the pointer is one of `B`; the virtqueue gives it only
        // once, and this ring is the only one that has the virtqueue.
        NonNull::new(ptr).map(|ptr| unsafe { B::from_raw(ptr) })
    }

    /// Takes all buffers that the device is done with, and gives each to `f`, as [`Handler::used`]
    /// has to. Returns whether there were any.
    ///
    /// Meanwhile the device is asked not to interrupt for more, which is a hint. When this returns
    /// it has been asked to, and there are none.
    #[inline]
    pub fn take_used(&mut self, mut f: impl FnMut(&mut Self, B)) -> bool {
        let mut any = false;

        // The virtqueue is looked up again after each call of `f`, which can exchange the guard for
        // another one, or wait with the ring unlocked.
        while let Some(vq) = self.0.vq {
            // SAFETY: By the invariant of `Ring` `vq` is valid, and the lock serializes its use.
            unsafe { bindings::virtqueue_disable_cb(vq.as_ptr()) };

            while let Some(vq) = self.0.vq {
                // SAFETY: By the invariant of `Ring` `vq` is valid.
                if let Some(buffer) = unsafe { self.pop_from(vq) } {
                    any = true;
                    f(self, buffer);
                // SAFETY: By the invariant of `Ring` `vq` is valid, and the lock serializes its
                // use.
                } else if unsafe { bindings::virtqueue_enable_cb(vq.as_ptr()) } {
                    return any;
                } else {
                    break;
                }
            }
        }

        any
    }

    /// Prepares to tell the device of the buffers that were added.
    ///
    /// The telling itself can take long and needs no lock: drop this guard, then
    /// [`Kick::notify`].
    #[inline]
    pub fn prepare_kick<'rcu>(&mut self, section: impl Into<Section<'rcu>>) -> Kick<'rcu> {
        let vq = self
            .0
            .vq
            // SAFETY: By the invariant of `Ring` `vq` is valid, and the lock serializes its use.
            .filter(|vq| unsafe { bindings::virtqueue_kick_prepare(vq.as_ptr()) });

        // INVARIANT: `vq` was found in its ring within `section`.
        Kick(vq, section.into())
    }

    /// Whether the device has broken the rules, so that nothing comes out of the ring any more
    /// before the device is reset.
    #[inline]
    pub fn is_broken(&self) -> bool {
        match self.0.vq {
            // SAFETY: By the invariant of `Ring` `vq` is valid.
            Some(vq) => unsafe { bindings::virtqueue_is_broken(vq.as_ptr()) },
            None => false,
        }
    }

    /// The buffers that still fit into the ring.
    ///
    /// With indirect descriptors a buffer takes one of them, else one for each of its segments.
    pub fn free(&self) -> u32 {
        // SAFETY: By the invariant of `Ring` `vq` is valid.
        self.0.vq.map_or(0, |vq| unsafe { (*vq.as_ptr()).num_free })
    }

    /// A number that changes when a buffer is taken out of the ring; `None` if there is none in it.
    pub fn position(&mut self) -> Option<u32> {
        let vq = self.0.vq.filter(|vq| self.free() != ring_size(*vq))?;

        // That it asks for interrupts as well is what the device was asked for already, but for the
        // time that a driver takes buffers out, with the ring locked.
        //
        // SAFETY: By the invariant of `Ring` `vq` is valid, and the lock serializes its use.
        Some(unsafe { bindings::virtqueue_enable_cb_prepare(vq.as_ptr()) })
    }

    /// Waits until `condvar` is notified, with the ring unlocked meanwhile. Returns whether a
    /// signal is pending.
    #[must_use = "the wait may have ended because of a signal"]
    pub fn wait_interruptible(&mut self, condvar: &CondVar) -> bool {
        condvar.wait_interruptible(&mut self.0)
    }
}

/// The number of descriptors that a virtqueue has.
fn ring_size(vq: NonNull<bindings::virtqueue>) -> u32 {
    // SAFETY: Callers have a virtqueue that is valid; the function only reads what never changes.
    unsafe { bindings::virtqueue_get_vring_size(vq.as_ptr()) }
}

/// A notification of the device that may be due.
///
/// # Invariants
///
/// The virtqueue was found in its ring within an RCU read-side critical section that lasts as long
/// as `'rcu`. A virtqueue is deleted only after it was taken out of its ring, under the ring's
/// lock, and after a wait for all such sections: see [`disconnect`].
#[must_use = "the device may not look for the buffers until it is told"]
pub struct Kick<'rcu>(Option<NonNull<bindings::virtqueue>>, Section<'rcu>);

impl Kick<'_> {
    /// Tells the device, if it asked to be told.
    #[inline]
    pub fn notify(self) {
        if let Some(vq) = self.0 {
            // SAFETY: By the type invariant the virtqueue is not deleted before the end of the
            // section in which this runs: `'rcu` has not ended, for `self` exists, and the section
            // can't end while it is borrowed.
            unsafe { bindings::virtqueue_notify(vq.as_ptr()) };
        }
    }
}

/// A virtqueue with its lock.
// The alignment keeps the locks of different queues in cache lines of their own.
#[repr(align(64))]
#[pin_data]
pub struct Queue<B: Buffer, S> {
    #[pin]
    ring: SpinLockIrqSave<Ring<B, S>>,
}

impl<B: Buffer, S> Queue<B, S> {
    /// Locks the ring.
    #[inline]
    pub fn lock(&self) -> RingGuard<'_, B, S> {
        RingGuard(self.ring.lock())
    }
}

/// A device and its virtqueues, while they are set up.
///
/// # Invariants
///
/// - `dev` is bound. The adapter takes this away by [`disconnect_from`] before it is not.
/// - `vqs` are all virtqueues of `dev`; each is valid, and found in one ring of the same
///   [`Queues`].
struct Connected {
    dev: ARef<Device>,
    vqs: KVec<*mut bindings::virtqueue>,
    /// The device was told to use buffers.
    ready: bool,
}

// SAFETY: The virtqueues are used here only when nobody else does, from any thread.
unsafe impl Send for Connected {}

impl Connected {
    fn dev(&self) -> &Device<device::Bound> {
        // SAFETY: By the type invariant the device is bound as long as `self` exists.
        unsafe { Device::from_raw(self.dev.as_raw()) }
    }
}

/// All virtqueues of a device, and the device itself for as long as they work.
#[pin_data]
pub struct Queues<B: Buffer, S> {
    /// In place for good: nothing is ever added to them or taken out.
    queues: KVec<Queue<B, S>>,
    /// How many, from the first one on, have interrupts.
    with_interrupt: u16,
    #[pin]
    connected: Mutex<Option<Connected>>,
}

impl<B: Buffer, S: Default> Queues<B, S> {
    /// Prepares queues, which hold no virtqueue before [`Start::start`]: first some with
    /// interrupts, then some that the driver polls.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(with_interrupt: u16, polled: u16) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            queues: Self::empty(usize::from(with_interrupt) + usize::from(polled))?,
            with_interrupt,
            connected <- new_mutex!(None, "virtqueues"),
        })
    }

    fn empty(count: usize) -> Result<KVec<Queue<B, S>>> {
        let queues = KVec::<Queue<B, S>>::with_capacity(count, GFP_KERNEL)?;
        let (first, _, capacity) = queues.into_raw_parts();

        for index in 0..count {
            // INVARIANT: There is no virtqueue yet.
            let ring = Ring {
                vq: None,
                state: S::default(),
                _buffers: PhantomData,
            };
            let queue = pin_init!(Queue {
                ring <- SpinLockIrqSave::new(ring, c"virtqueue", static_lock_class!()),
            });

            // SAFETY: There is room for `count` of them. A queue stays in place until it is
            // dropped: nothing is added to the vector, and nobody gets a mutable reference to it.
            let Ok(()) = unsafe { queue.__init(first.add(index)) };
        }

        // SAFETY: The parts are those of the vector that was made above, and `count` elements are
        // initialized.
        Ok(unsafe { KVec::from_raw_parts(first, count, capacity) })
    }
}

impl<B: Buffer, S> Queues<B, S> {
    /// The queue of this index.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&Queue<B, S>> {
        self.queues.get(index)
    }

    /// All queues.
    pub fn iter(&self) -> impl Iterator<Item = &Queue<B, S>> {
        self.queues.iter()
    }

    /// Calls `f` with the device, unless that is not set up. May sleep: the device stays set up
    /// meanwhile.
    pub fn with_device<R>(&self, f: impl FnOnce(&Device<device::Bound>) -> R) -> Option<R> {
        // Locked while `f` runs: before the device is unbound it is disconnected under this lock.
        let connected = self.connected.lock();

        Some(f(connected.as_ref()?.dev()))
    }
}

/// Resets the device and deletes its virtqueues: [`Handler::unused`] gets what the device has not
/// answered. Until [`Running::resume`] nothing can be added to any ring, the answer is `ENODEV`,
/// and there is no device. Returns `false` if that was so before. May sleep.
///
/// Not to be called between the end of `probe` or `resume` and the call of
/// [`config_changed`](super::Driver::config_changed) that follows.
pub fn disconnect<T: Handler>(handler: &T) -> bool {
    disconnect_from(handler, None)
}

/// As [`disconnect`], but from no other device than `dev`, if one is given.
fn disconnect_from<T: Handler>(handler: &T, dev: Option<&Device<device::Bound>>) -> bool {
    let queues = handler.queues();

    // Locked to the end: the driver may be unbound as soon as nothing is connected.
    let mut slot = queues.connected.lock();
    let Some(connected) =
        slot.take_if(|connected| dev.is_none_or(|dev| dev.as_raw() == connected.dev().as_raw()))
    else {
        return false;
    };
    let dev = connected.dev();

    // From here on nobody finds a virtqueue: what adds to one and takes from one does so under
    // the lock of its ring.
    for queue in queues.iter() {
        queue.lock().0.vq = None;
    }

    // A caller that found one in its ring before may still be about to notify through it.
    rcu::synchronize_rcu();

    // After this no callback runs, and the device leaves all buffers alone.
    dev.reset();

    for &vq in connected.vqs.iter() {
        // SAFETY: By the type invariant of `Connected` `vq` is valid; no ring has it any more, so
        // that nobody else uses it.
        while let Some(ptr) = NonNull::new(unsafe { bindings::virtqueue_detach_unused_buf(vq) }) {
            // SAFETY: The pointer is one that `add()` stored; it is given only once.
            handler.unused(unsafe { T::Buffer::from_raw(ptr) });
        }
    }

    // SAFETY: `dev` is a valid device. No ring has a virtqueue any more, every `Kick` is gone, and
    // no callback runs.
    unsafe {
        if let Some(del_vqs) = (*(*dev.as_raw()).config).del_vqs {
            del_vqs(dev.as_raw());
        }
    }

    true
}

/// Declares that a type has the [`Queues`] of a device. Implemented by [`impl_has_queues!`].
///
/// [`impl_has_queues!`]: crate::impl_has_queues
///
/// # Safety
///
/// [`queues`](Self::queues) returns a field of `self`, always the same one.
pub unsafe trait HasQueues<B: Buffer, S> {
    /// The virtqueues.
    fn queues(&self) -> &Queues<B, S>;
}

/// Implements [`HasQueues`] by naming the field.
///
/// The virtqueues of a device stay connected with the very [`Queues`] that they were connected
/// with, so these may not be others the next time that they are asked for.
#[macro_export]
macro_rules! impl_has_queues {
    (impl HasQueues<$buffer:ty, $state:ty> for $self:ty { self.$field:ident }) => {
        // SAFETY: It is a field of `self`. A reference to what a field dereferences to is no
        // pointer of this type without being asked for, so that this does not compile with such a
        // field.
        unsafe impl $crate::virtio::queue::HasQueues<$buffer, $state> for $self {
            #[inline]
            fn queues(&self) -> &$crate::virtio::queue::Queues<$buffer, $state> {
                let Self { $field: queues, .. } = self;
                let queues: *const $crate::virtio::queue::Queues<$buffer, $state> = queues;

                // SAFETY: It is the pointer of a reference that lives as long as `self`.
                unsafe { &*queues }
            }
        }
    };
}

/// The type that has the virtqueues of a device, and handles what the device answers.
pub trait Handler: HasQueues<Self::Buffer, Self::State> + Sized + Send + Sync + 'static {
    /// What is handed to the device.
    type Buffer: Buffer;
    /// What the driver keeps under the lock of each queue.
    type State: Send;

    /// The device has used buffers of the queue of this index, which has interrupts. Called in
    /// interrupt context.
    fn used(this: ArcBorrow<'_, Self>, index: usize);

    /// A buffer that the device will not use any more, because it was reset.
    fn unused(&self, buffer: Self::Buffer);
}
