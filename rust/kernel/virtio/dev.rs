// SPDX-License-Identifier: GPL-2.0

//! Virtio devices.

use crate::bindings;
use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::{addr_of_mut, NonNull}, //
};
use kernel::{
    device,
    error::to_result,
    prelude::*,
    sync::{aref::AlwaysRefCounted, rcu},
    types::Opaque, //
};

/// The value of the status field if the device is not there.
const ABSENT: u32 = 0xff;

/// Bits of the device status field.
const READY: u32 = bindings::VIRTIO_CONFIG_S_DRIVER_OK;
const NEEDS_RESET: u32 = bindings::VIRTIO_CONFIG_S_NEEDS_RESET;

/// A virtio device.
///
/// # Invariants
///
/// A `Device` is a valid `struct virtio_device` created by the C portion of the kernel.
#[repr(transparent)]
pub struct Device<Ctx: device::DeviceContext = device::Normal>(
    Opaque<bindings::virtio_device>,
    PhantomData<Ctx>,
);

impl<Ctx: device::DeviceContext> Device<Ctx> {
    pub(crate) fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }

    /// Makes a reference of a pointer from C.
    ///
    /// # Safety
    ///
    /// `ptr` must be a valid device, in the context that `Ctx` names, for as long as `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::virtio_device) -> &'a Self {
        // SAFETY: By the requirement of this function; `Device` is a transparent wrapper.
        unsafe { &*ptr.cast() }
    }

    /// Whether the feature bit was negotiated.
    ///
    /// Settled before [`super::Driver::probe`] is called. A bit that the driver does not list is
    /// never negotiated.
    pub fn has_feature(&self, bit: u32) -> bool {
        // SAFETY: `self` is a valid device, whose features do not change while it is bound.
        unsafe { bindings::virtio_test_bit(self.as_raw(), bit) }
    }

    /// The byte order of fields that the specification calls native or little-endian.
    pub fn endian(&self) -> Endian {
        Endian {
            little: self.has_feature(bindings::VIRTIO_F_VERSION_1),
        }
    }

    /// The largest buffer in bytes that can be mapped for the device.
    pub fn max_dma_size(&self) -> usize {
        // SAFETY: `self` is a valid device.
        unsafe { bindings::virtio_max_dma_size(self.as_raw()) }
    }
}

impl Device<device::Bound> {
    /// Resets the device: it forgets what was negotiated, and stops using its virtqueues.
    ///
    /// Callbacks of virtqueues are not running any more when it returns. Section 2.4 of the virtio
    /// specification.
    ///
    /// A device that is not there any more does nothing, and is not reset, since its transport
    /// would wait for ever until it says that it is. Its virtqueues are marked as broken instead.
    /// If the device goes away between the look and the reset the transport still waits, as it does
    /// with every driver.
    pub(crate) fn reset(&self) {
        if self.is_absent() {
            // SAFETY: `self` is a valid and bound device, which always has its operations.
            unsafe {
                bindings::virtio_break_device(self.as_raw());
                match (*(*self.as_raw()).config).synchronize_cbs {
                    Some(synchronize_cbs) => synchronize_cbs(self.as_raw()),
                    None => rcu::synchronize_rcu(),
                }
            }
            return;
        }

        // SAFETY: `self` is a valid and bound device.
        unsafe { bindings::virtio_reset_device(self.as_raw()) };
    }

    /// The device status field, section 2.1 of the virtio specification. May sleep.
    fn status(&self) -> u32 {
        // SAFETY: `self` is a valid device, whose operations always include `get_status`.
        unsafe {
            let get_status = (*(*self.as_raw()).config).get_status;

            get_status.map_or(ABSENT, |get_status| get_status(self.as_raw()).into())
        }
    }

    /// Adds a bit to the device status field. May sleep.
    pub(crate) fn add_status(&self, status: u32) {
        // SAFETY: `self` is a valid and bound device.
        unsafe { bindings::virtio_add_status(self.as_raw(), status) };
    }

    /// Has the core report a change of the configuration space as soon as it reports any: it does
    /// so when it has done with setting the device up.
    pub(crate) fn report_change(&self) {
        // SAFETY: `self` is a valid and bound device.
        unsafe { bindings::virtio_config_changed(self.as_raw()) };
    }

    /// Whether the device was pulled out: every bit that is read of it is one then.
    fn is_absent(&self) -> bool {
        self.status() == ABSENT
    }

    /// Whether the device, which was told that its driver is ready, still is of use: it is there,
    /// it was not reset by anybody else, and does not ask to be reset. May sleep.
    ///
    /// One that just does not answer can't be told from one that is slow.
    pub fn is_working(&self) -> bool {
        let status = self.status();

        status & (READY | NEEDS_RESET) == READY
    }

    /// Whether somebody has used the device and left it as it was, which a driver does whose probe
    /// fails: such a device keeps the features that were negotiated then, and its virtqueues.
    fn is_left_over(&self) -> bool {
        self.status() & (READY | bindings::VIRTIO_CONFIG_S_FAILED) != 0
    }

    /// Resets a device that another driver has left running, and negotiates the features that the
    /// bus has found. Does nothing to any other device.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it is not there, or refuses the features; those of the transport.
    pub(crate) fn take_over(&self) -> Result {
        if !self.is_left_over() {
            return Ok(());
        }
        if self.is_absent() {
            return Err(ENODEV);
        }
        self.reset();
        self.add_status(bindings::VIRTIO_CONFIG_S_ACKNOWLEDGE | bindings::VIRTIO_CONFIG_S_DRIVER);

        // SAFETY: `self` is a valid device, whose operations always include `finalize_features`; it
        // is reset, and has not been told that features are final.
        to_result(unsafe {
            let finalize = (*(*self.as_raw()).config).finalize_features.ok_or(ENXIO)?;

            finalize(self.as_raw())
        })?;

        // Legacy devices are not told.
        if self.has_feature(bindings::VIRTIO_F_VERSION_1) {
            self.add_status(bindings::VIRTIO_CONFIG_S_FEATURES_OK);
            if self.status() & bindings::VIRTIO_CONFIG_S_FEATURES_OK == 0 {
                return Err(ENODEV);
            }
        }

        Ok(())
    }

    /// Whether a child of any device on the bus has this name.
    pub fn bus_has_child(&self, name: &CStr) -> bool {
        // SAFETY: `self` is a valid device on a bus; the callback uses `name` only during the
        // call.
        unsafe {
            bindings::bus_for_each_dev(
                (*self.as_raw()).dev.bus,
                core::ptr::null_mut(),
                name.as_char_ptr().cast_mut().cast(),
                Some(has_child),
            ) != 0
        }
    }
}

/// Whether a device has a child of this name; for `bus_for_each_dev()`.
extern "C" fn has_child(parent: *mut bindings::device, name: *mut c_void) -> c_int {
    // SAFETY: `bus_for_each_dev()` passes valid devices, and `is_named` takes what `name` is.
    let child = unsafe { bindings::device_find_child(parent, name, Some(is_named)) };
    if child.is_null() {
        return 0;
    }

    // SAFETY: `device_find_child()` took a reference for us.
    unsafe { bindings::put_device(child) };
    1
}

/// Whether a device has this name; for `device_find_child()`.
extern "C" fn is_named(dev: *mut bindings::device, name: *const c_void) -> c_int {
    // SAFETY: `device_find_child()` passes valid devices, and `name` is the C string that
    // `bus_has_child()` passed down.
    let (dev, name) = unsafe {
        (
            device::Device::<device::Normal>::from_raw(dev),
            CStr::from_char_ptr(name.cast()),
        )
    };

    c_int::from(dev.name() == name)
}

/// The features that a device and its driver have in common, before the device is told.
///
/// # Invariants
///
/// The pointer is that of a valid device whose features are not final yet, and which nobody else
/// uses.
pub struct Features<'a>(
    NonNull<bindings::virtio_device>,
    PhantomData<&'a mut bindings::virtio_device>,
);

impl Features<'_> {
    /// Takes the device that the bus passed.
    ///
    /// # Safety
    ///
    /// `vdev` must be a valid device whose features are not final, and which nobody else uses, as
    /// long as the value exists.
    pub(crate) unsafe fn from_raw(vdev: *mut bindings::virtio_device) -> Self {
        // SAFETY: A valid device is not null.
        // INVARIANT: By the requirement of this function.
        Self(unsafe { NonNull::new_unchecked(vdev) }, PhantomData)
    }

    /// Whether a feature bit is among them.
    pub fn has(&self, bit: u32) -> bool {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::virtio_test_bit(self.0.as_ptr(), bit) }
    }

    /// Takes a feature bit out.
    pub fn clear(&mut self, bit: u32) {
        // SAFETY: By the type invariant the device is valid, and its features are ours to change.
        unsafe { bindings::virtio_clear_bit(self.0.as_ptr(), bit) };
    }
}

/// Byte order of a device's fields.
///
/// Little-endian, but for legacy devices on a big-endian guest: section 2.4.3 of the virtio
/// specification, `__virtio16` and its like in C.
#[derive(Clone, Copy)]
pub struct Endian {
    little: bool,
}

macro_rules! endian_conversions {
    ($($name:ident: $ty:ty),*) => {
        $(
            /// Converts between the device's and the guest's byte order; its own inverse.
            #[inline]
            pub fn $name(self, value: $ty) -> $ty {
                // Legacy devices have the guest's order, which makes no difference on most guests:
                // known there when this is compiled.
                if cfg!(target_endian = "little") || self.little {
                    value.to_le()
                } else {
                    value.to_be()
                }
            }
        )*
    };
}

impl Endian {
    /// That of modern devices.
    pub const LITTLE: Self = Self { little: true };

    endian_conversions!(u16: u16, u32: u32, u64: u64);
}

// SAFETY: `Device` is a transparent wrapper of `struct virtio_device`, which embeds its
// `struct device` at this offset.
unsafe impl<Ctx: device::DeviceContext> device::AsBusDevice<Ctx> for Device<Ctx> {
    const OFFSET: usize = offset_of!(bindings::virtio_device, dev);
}

// SAFETY: `Device` is a transparent wrapper of a type that does not depend on the context.
kernel::impl_device_context_deref!(unsafe { Device });
kernel::impl_device_context_into_aref!(Device);

// SAFETY: Instances of `Device` are always reference-counted, by their `struct device`.
unsafe impl AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: A shared reference shows that the count is not zero.
        unsafe { bindings::get_device(addr_of_mut!((*self.as_raw()).dev)) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        let vdev: *mut bindings::virtio_device = obj.cast().as_ptr();

        // SAFETY: By the requirements of `dec_ref` the count is not zero, so that the device is
        // valid.
        unsafe { bindings::put_device(addr_of_mut!((*vdev).dev)) }
    }
}

impl<Ctx: device::DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        // SAFETY: By the type invariant `self` is a valid device, and so is what it embeds.
        unsafe { device::Device::from_raw(addr_of_mut!((*self.as_raw()).dev)) }
    }
}

// SAFETY: A `Device` is reference-counted and can be released from any thread.
unsafe impl Send for Device {}

// SAFETY: All methods of `Device<Normal>` can be called from any thread at once.
unsafe impl Sync for Device {}

// SAFETY: As `Device<Normal>`: the context is a marker, and the methods that it adds are
// synchronized by the transport.
unsafe impl Sync for Device<device::Bound> {}
