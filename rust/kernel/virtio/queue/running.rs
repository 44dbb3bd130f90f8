// SPDX-License-Identifier: GPL-2.0

//! Virtqueues at work: found, connected, and let go again.

use super::{Connected, Handler};
use crate::{bindings, virtio::Device};
use core::ptr::{null_mut, NonNull};
use kernel::{
    device,
    error::to_result,
    prelude::*,
    str::CString,
    sync::{Arc, ArcBorrow}, //
};

/// Virtqueues connected with their device, until this is dropped.
///
/// Dropping resets the device first, and may sleep.
pub struct Running<'bound, T: Handler> {
    dev: &'bound Device<device::Bound>,
    handler: Arc<T>,
    /// The names of the virtqueues, which keep pointers to them.
    names: KVec<CString>,
}

impl<'bound, T: Handler> Running<'bound, T> {
    /// Finds the virtqueues of the device, with interrupts spread over the CPUs.
    ///
    /// # Errors
    ///
    /// Those of the transport, `ENOMEM` among them.
    pub fn start(dev: &'bound Device<device::Bound>, handler: &Arc<T>) -> Result<Self> {
        let count = handler.queues().queues.len();
        let mut names = KVec::with_capacity(count, GFP_KERNEL)?;

        for index in 0..count {
            let name = if index < handler.queues().with_interrupt {
                CString::try_from_fmt(fmt!("req.{index}"))?
            } else {
                CString::try_from_fmt(fmt!("req_poll.{index}"))?
            };
            names.push(name, GFP_KERNEL)?;
        }

        let this = Self {
            dev,
            handler: handler.clone(),
            names,
        };

        // An interrupt can come as soon as there is a virtqueue.
        //
        // SAFETY: `priv` is for the driver of a bound device. The pointer stays valid as long as
        // `this` holds the handler, which takes it away again when it is dropped.
        unsafe { (*dev.as_raw()).priv_ = Arc::as_ptr(handler).cast_mut().cast() };

        this.connect()?;
        Ok(this)
    }

    /// Resets the device. [`Handler::unused`] gets what it has not answered. Until
    /// [`Self::resume`] nothing can be added to any [`Ring`](super::Ring): the answer is `ENODEV`.
    pub fn suspend(&self) {
        self.disconnect();
    }

    /// Finds the virtqueues again, after [`Self::suspend`]. The device is to be made
    /// [`ready`](Self::ready) after that.
    ///
    /// # Errors
    ///
    /// Those of [`Self::start`].
    pub fn resume(&self) -> Result {
        self.connect()
    }

    fn connect(&self) -> Result {
        let queues = self.handler.queues();
        let count = self.names.len();
        let mut infos = KVec::<bindings::virtqueue_info>::with_capacity(count, GFP_KERNEL)?;
        let mut vqs = KVec::from_elem(null_mut::<bindings::virtqueue>(), count, GFP_KERNEL)?;
        let mut affinity = bindings::irq_affinity::default();

        for (index, name) in self.names.iter().enumerate() {
            let interrupt = index < queues.with_interrupt;
            let info = bindings::virtqueue_info {
                name: name.as_char_ptr(),
                // Without a callback the transport sets up no interrupt.
                callback: if interrupt {
                    Some(Self::callback)
                } else {
                    None
                },
                ctx: false,
            };

            infos.push(info, GFP_KERNEL)?;
        }

        let mut connected = queues.connected.lock();
        if connected.is_some() {
            return Err(EBUSY);
        }

        // SAFETY: `dev` is a valid device, whose operations always include `find_vqs`; the arrays
        // have as many elements as is said.
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
            queue.lock().vq = NonNull::new(*vq);
        }

        // INVARIANT: These are all virtqueues that the transport made. `self` holds a bound device.
        *connected = Some(Connected {
            dev: self.dev.into(),
            vqs,
        });

        Ok(())
    }

    /// Tells the device that the driver is ready: it may use buffers from now on.
    pub fn ready(&self) {
        // SAFETY: `dev` is valid and bound, and its virtqueues are set up.
        unsafe { bindings::virtio_device_ready(self.dev.as_raw()) };
    }

    fn disconnect(&self) {
        let handler = &self.handler;

        if !handler.queues().disconnect(|buffer| handler.unused(buffer)) {
            // It may be half set up.
            self.dev.reset();
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
        self.disconnect();

        // SAFETY: `dev` is a valid device, and without virtqueues there are no callbacks.
        unsafe { (*self.dev.as_raw()).priv_ = null_mut() };

        // The bus acknowledges a device when it finds one and when a driver has left it, which for
        // it is before this; the next driver finds it done.
        //
        // SAFETY: `dev` is a valid and bound device.
        unsafe {
            bindings::virtio_add_status(self.dev.as_raw(), bindings::VIRTIO_CONFIG_S_ACKNOWLEDGE)
        };
    }
}
