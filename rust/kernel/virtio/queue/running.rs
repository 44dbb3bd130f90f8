// SPDX-License-Identifier: GPL-2.0

//! Virtqueues at work: found, connected, and let go again.
//!
//! All of this belongs to the adapter of the bus, which has a [`Slot`] for each device that is
//! bound to the driver. A driver that leaks what it was given leaks a reference.

use super::{disconnect_from, ring_size, Connected, Handler};
use crate::{
    bindings,
    block::mq::{HwQueues, QueueCounts},
    virtio::Device, //
};
use core::ptr::{null_mut, NonNull};
use kernel::{
    device,
    error::to_result,
    prelude::*,
    sync::{
        atomic::{AtomicFlag, Full},
        Arc,
        ArcBorrow,
        SetOnce, //
    },
};

/// The most bytes of a virtqueue's name, with the NUL at the end of the longest one.
const NAME: usize = "req_poll.65535\0".len();

/// The name of a virtqueue, a C string.
type Name = [u8; NAME];

/// Where the adapter keeps what runs a device.
pub struct Slot<'bound, T: Handler> {
    dev: &'bound Device<device::Bound>,
    running: SetOnce<Running<'bound, T>>,
}

impl<'bound, T: Handler> Slot<'bound, T> {
    /// An empty slot.
    pub(crate) fn new(dev: &'bound Device<device::Bound>) -> Self {
        Self {
            dev,
            running: SetOnce::new(),
        }
    }

    /// The permission to start the device.
    ///
    /// # Safety
    ///
    /// To be called once for each slot. The slot must stay where it is as long as `'bound`.
    pub(crate) unsafe fn permission(&self) -> Start<'bound, T> {
        // SAFETY: By the requirement of this function.
        Start(unsafe { &*core::ptr::from_ref(self) })
    }

    /// Ends all use of the device, and resets it.
    pub(crate) fn suspend(&self) {
        match self.running.as_ref() {
            Some(running) => running.disconnect(),
            None => self.dev.reset(),
        }
    }

    /// As [`Self::suspend`], for good.
    pub(crate) fn end(&self) {
        match self.running.as_ref() {
            Some(running) => running.end(),
            None => self.dev.reset(),
        }
    }
}

/// The permission to start a device, which can be used once.
pub struct Start<'bound, T: Handler>(&'bound Slot<'bound, T>);

impl<'bound, T: Handler> Start<'bound, T> {
    /// Finds the virtqueues of the device, with interrupts spread over the CPUs, and connects them
    /// with those of `handler`.
    ///
    /// What is returned lasts until the driver is unbound. Then the adapter resets the device, and
    /// [`Handler::unused`] gets what the device has not answered.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the handler is that of another device already; `ENOMEM`; those of the transport.
    pub fn start(self, handler: &Arc<T>) -> Result<&'bound Running<'bound, T>> {
        let Slot { dev, running } = self.0;
        let queues = handler.queues();
        let count = queues.queues.len();
        let mut names = KVec::<Name>::zeroed(count, GFP_KERNEL)?;

        for (index, name) in names.iter_mut().enumerate() {
            let format = if index < usize::from(queues.with_interrupt) {
                c"req.%zu"
            } else {
                c"req_poll.%zu"
            };

            // SAFETY: The function writes a C string of no more than the length that is said. What
            // the format asks for is passed.
            unsafe {
                bindings::snprintf(
                    name.as_mut_ptr().cast(),
                    name.len(),
                    format.as_char_ptr(),
                    index,
                )
            };
        }

        // An interrupt can come as soon as there is a virtqueue.
        //
        // SAFETY: `priv` is for the driver of a bound device. The pointer stays valid as long as
        // the slot has the `Running`, which holds the handler, and which takes the pointer away
        // when it ends. No other type than `T` is ever stored there: a device has one adapter.
        unsafe { (*dev.as_raw()).priv_ = Arc::as_ptr(handler).cast_mut().cast() };

        // There is one permission for a slot, so that it is empty.
        running.populate(Running {
            dev,
            handler: handler.clone(),
            names,
            ended: AtomicFlag::new(false),
        });

        let running = running.as_ref().ok_or(EBUSY)?;
        running.connect()?;

        Ok(running)
    }
}

/// A device and the virtqueues that it shares with its driver.
pub struct Running<'bound, T: Handler> {
    dev: &'bound Device<device::Bound>,
    handler: Arc<T>,
    /// The names of the virtqueues, which keep pointers to them.
    names: KVec<Name>,
    /// The driver is being unbound.
    ended: AtomicFlag,
}

impl<T: Handler> Running<'_, T> {
    /// Finds the virtqueues again, after the device was reset. It is to be made
    /// [`ready`](Self::ready) after that.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it was not reset; those of [`Start::start`].
    pub fn resume(&self) -> Result {
        self.connect()
    }

    /// Tells the device that the driver is ready: it may use buffers from now on. Does nothing if
    /// it was told already, or if it is not set up.
    pub fn ready(&self) {
        let mut connected = self.handler.queues().connected.lock();

        match &mut *connected {
            Some(connected) if !connected.ready => {
                // SAFETY: The device is valid and bound, its virtqueues are set up, and it was not
                // told yet.
                unsafe { bindings::virtio_device_ready(connected.dev().as_raw()) };
                connected.ready = true;
            }
            _ => (),
        }
    }

    /// The most descriptors of a buffer: as many as the smallest ring has.
    ///
    /// One that is longer never fits a ring without indirect descriptors, and with them a driver
    /// must not make it, by section 2.7.5.3.1 of the virtio specification.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is not set up.
    pub fn max_descriptors(&self) -> Result<u32> {
        let connected = self.handler.queues().connected.lock();
        let vqs = connected.as_ref().ok_or(ENODEV)?.vqs.iter();

        vqs.filter_map(|vq| NonNull::new(*vq))
            .map(ring_size)
            .min()
            .ok_or(ENODEV)
    }

    fn connect(&self) -> Result {
        let queues = self.handler.queues();
        let count = self.names.len();
        let mut infos = KVec::<bindings::virtqueue_info>::zeroed(count, GFP_KERNEL)?;
        let mut vqs = KVec::<*mut bindings::virtqueue>::zeroed(count, GFP_KERNEL)?;
        let mut affinity: bindings::irq_affinity = pin_init::zeroed();

        for (index, (info, name)) in infos.iter_mut().zip(self.names.iter()).enumerate() {
            info.name = name.as_ptr().cast();
            // Without a callback the transport sets up no interrupt.
            if index < usize::from(queues.with_interrupt) {
                info.callback = Some(Self::callback);
            }
        }

        let mut connected = queues.connected.lock();
        if connected.is_some() {
            return Err(EBUSY);
        }
        // Set before the lock was taken to disconnect.
        if self.ended.load(kernel::sync::atomic::Acquire) {
            return Err(ENODEV);
        }

        // SAFETY: `dev` is a valid device, whose operations always include `find_vqs`; the arrays
        // have as many elements as is said. The device has no virtqueues: those that it had were
        // those of `queues`, with which nothing is connected.
        let ret = unsafe {
            let find_vqs = (*(*self.dev.as_raw()).config).find_vqs.ok_or(ENXIO)?;
            find_vqs(
                self.dev.as_raw(),
                count as u32,
                vqs.as_mut_ptr(),
                infos.as_mut_ptr(),
                &mut affinity,
            )
        };
        to_result(ret)?;

        for (queue, vq) in queues.iter().zip(vqs.iter()) {
            // INVARIANT: The transport found a valid virtqueue, in which there is no buffer.
            queue.lock().0.vq = NonNull::new(*vq);
        }

        // INVARIANT: These are all virtqueues that the transport made. `dev` is bound until `end()`
        // has returned, which takes this away.
        *connected = Some(Connected {
            dev: self.dev.into(),
            vqs,
            ready: false,
        });

        Ok(())
    }

    /// Resets the device. [`Handler::unused`] gets what it has not answered.
    fn disconnect(&self) {
        if !disconnect_from(&*self.handler, Some(self.dev)) {
            // It may be half set up.
            self.dev.reset();
        }
    }

    /// As [`Self::disconnect`], and for good.
    fn end(&self) {
        if self.ended.xchg(true, Full) {
            return;
        }
        self.disconnect();

        // SAFETY: `dev` is a valid device, and without virtqueues there are no callbacks.
        unsafe { (*self.dev.as_raw()).priv_ = null_mut() };
    }

    extern "C" fn callback(vq: *mut bindings::virtqueue) {
        // SAFETY: The transport calls with a valid virtqueue, which was found by `connect()`.
        // `priv` was set before that, to a handler of this type, and the handler is there until
        // `end()` has deleted the virtqueue.
        let (handler, index) = unsafe {
            (
                ArcBorrow::from_raw((*(*vq).vdev).priv_.cast::<T>().cast_const()),
                (*vq).index,
            )
        };

        T::used(handler, index as usize);
    }
}

// SAFETY: The bus is asked for affinities of the interrupts of virtqueues with these indices. They
// are there as long as the device is connected, which the lock keeps it.
unsafe impl<T: Handler> HwQueues for Running<'_, T> {
    fn with_queues<R>(
        &self,
        f: impl FnOnce(&device::Device<device::Bound>, QueueCounts) -> R,
    ) -> Result<R> {
        let queues = self.handler.queues();
        let connected = queues.connected.lock();
        let dev = connected.as_ref().ok_or(ENODEV)?.dev();
        let interrupt = queues.with_interrupt;
        let counts = QueueCounts {
            interrupt,
            poll: u16::try_from(queues.queues.len())?.saturating_sub(interrupt),
        };

        Ok(f(dev.as_ref(), counts))
    }
}

impl<T: Handler> Drop for Running<'_, T> {
    fn drop(&mut self) {
        self.end();
    }
}
