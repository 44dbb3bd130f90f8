// SPDX-License-Identifier: GPL-2.0

//! Abstractions for the virtio bus.
//!
//! A driver implements [`Driver`] and registers it through [`Adapter`]. It talks to its device by
//! the [configuration space](config) and by [virtqueues](queue).
//!
//! ```
//! use kernel::{device, sync::{Arc, ArcBorrow}};
//! use kernel_ext::{
//!     impl_has_queues,
//!     virtio::{self, queue::{Buffer, Handler, Queues, Running, Start}, Device},
//!     virtio_device_table,
//! };
//! # use core::ptr::NonNull;
//! # use kernel::bindings::scatterlist;
//!
//! /// What is handed to the device.
//! struct MyBuffer(KBox<u64>);
//! #
//! # // SAFETY: The pointer is that of the box, and there are no lists.
//! # unsafe impl Buffer for MyBuffer {
//! #     fn into_raw(self) -> NonNull<c_void> {
//! #         NonNull::from(KBox::leak(self.0)).cast()
//! #     }
//! #
//! #     unsafe fn from_raw(ptr: NonNull<c_void>) -> Self {
//! #         // SAFETY: By the requirement of this function `ptr` comes from `into_raw()`.
//! #         Self(unsafe { KBox::from_raw(ptr.as_ptr().cast()) })
//! #     }
//! #
//! #     unsafe fn with_sgs<R>(
//! #         _ptr: NonNull<c_void>,
//! #         f: impl FnOnce(&mut [*mut scatterlist], u32, u32) -> R,
//! #     ) -> R {
//! #         f(&mut [], 0, 0)
//! #     }
//! # }
//!
//! /// What interrupts need.
//! #[pin_data]
//! struct Shared {
//!     #[pin]
//!     queues: Queues<MyBuffer, ()>,
//! }
//!
//! impl_has_queues! {
//!     impl HasQueues<MyBuffer, ()> for Shared { self.queues }
//! }
//!
//! impl Handler for Shared {
//!     type Buffer = MyBuffer;
//!     type State = ();
//!
//!     fn used(this: ArcBorrow<'_, Self>, index: usize) {
//!         if let Some(queue) = this.queues.get(index) {
//!             let mut ring = queue.lock();
//!
//!             while let Some(MyBuffer(number)) = ring.pop() {
//!                 pr_info!("{} is back\n", *number);
//!             }
//!         }
//!     }
//!
//!     fn unused(&self, buffer: MyBuffer) {
//!         drop(buffer);
//!     }
//! }
//!
//! /// What a bound device has.
//! struct MyData<'bound> {
//!     running: &'bound Running<'bound, Shared>,
//! }
//!
//! impl<'bound> MyData<'bound> {
//!     fn new(start: Start<'bound, Shared>) -> Result<Self> {
//!         let shared = Arc::pin_init(
//!             try_pin_init!(Shared { queues <- Queues::new(1, 0) }),
//!             GFP_KERNEL,
//!         )?;
//!         let running = start.start(&shared)?;
//!
//!         running.ready();
//!         Ok(Self { running })
//!     }
//! }
//!
//! struct MyDriver;
//!
//! virtio_device_table!(IDS, [virtio::DeviceId::from_type(2)]);
//!
//! #[vtable]
//! impl virtio::Driver for MyDriver {
//!     type Data<'bound> = MyData<'bound>;
//!     type Handler = Shared;
//!
//!     const ID_TABLE: virtio::IdTable = &IDS;
//!     const FEATURES: &'static [u32] = &[];
//!     const FEATURES_LEGACY: &'static [u32] = Self::FEATURES;
//!
//!     fn probe<'bound>(
//!         _dev: &'bound Device<device::Core<'_>>,
//!         start: Start<'bound, Shared>,
//!     ) -> impl PinInit<MyData<'bound>, Error> + 'bound {
//!         MyData::new(start)
//!     }
//!
//!     fn unbind<'bound>(_: &'bound Device<device::Core<'_>>, _: Pin<&MyData<'bound>>) {}
//!
//!     fn config_changed<'bound>(_: &'bound Device<device::Bound>, _: Pin<&MyData<'bound>>) {}
//!
//!     fn suspend<'bound>(
//!         _: &'bound Device<device::Core<'_>>,
//!         _: Pin<&MyData<'bound>>,
//!     ) -> Result {
//!         Ok(())
//!     }
//!
//!     fn resume<'bound>(
//!         _: &'bound Device<device::Core<'_>>,
//!         data: Pin<&MyData<'bound>>,
//!     ) -> Result {
//!         data.running.resume()?;
//!         data.running.ready();
//!         Ok(())
//!     }
//! }
//! ```
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

pub mod config;
mod dev;
pub mod queue;

pub use dev::{Device, Endian, Features};

use crate::bindings;
use kernel::{
    device,
    device_id::{IdTable as DeviceIdTable, RawDeviceId},
    driver,
    error::{from_result, to_result, VTABLE_DEFAULT_ERROR},
    prelude::*,
    sync::Arc,
    types::Opaque,
    ThisModule, //
};
use queue::{Handler, Slot, Start};

/// Identifies the devices that a driver serves.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct DeviceId(bindings::virtio_device_id);

impl DeviceId {
    /// Every device of the given virtio device type, by any vendor.
    ///
    /// The types are listed in section 5 of the virtio specification; see
    /// [`DEVICE_ID`](crate::block::virtio_blk::DEVICE_ID).
    pub const fn from_type(device: u32) -> Self {
        Self(bindings::virtio_device_id {
            device,
            vendor: bindings::VIRTIO_DEV_ANY_ID,
        })
    }
}

// SAFETY: `DeviceId` is a transparent wrapper of `virtio_device_id` without further invariants.
unsafe impl RawDeviceId for DeviceId {
    type RawType = bindings::virtio_device_id;
}

/// Table of device ids of a virtio driver.
pub type IdTable = &'static dyn DeviceIdTable<DeviceId, ()>;

/// Creates an [`IdTable`] together with the aliases by which the module is found.
#[macro_export]
macro_rules! virtio_device_table {
    ($table:ident, [$($id:expr),* $(,)?]) => {
        ::kernel::module_device_table!(
            "virtio", $crate::virtio::DeviceId, $table, @none, [$($id),*]
        );
    };
}

/// A virtio driver.
#[vtable]
pub trait Driver: 'static {
    /// The driver's private data of a bound device.
    type Data<'bound>: Send + Sync + 'bound;

    /// The type that has the virtqueues of a device.
    type Handler: Handler;

    /// The devices that the driver serves.
    const ID_TABLE: IdTable;

    /// The feature bits that the driver understands.
    const FEATURES: &'static [u32];

    /// Those that it understands from a legacy device, section 6.3 of the virtio specification.
    const FEATURES_LEGACY: &'static [u32];

    /// Drops features that the device offers and that make no sense without others that it does not
    /// offer. The device has not been told yet what is accepted.
    fn validate(_features: &mut Features<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Binds a device.
    ///
    /// Features have been negotiated, no virtqueue exists, and the device is not ready yet:
    /// [`Start::start`] finds the virtqueues, and [`queue::Running::ready`] makes the device ready.
    fn probe<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        start: Start<'bound, Self::Handler>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// Unbinds a device.
    ///
    /// The driver ends all use of the device here. When it returns the device is reset and its
    /// virtqueues are deleted; then the driver's data is dropped.
    fn unbind<'bound>(dev: &'bound Device<device::Core<'_>>, data: Pin<&Self::Data<'bound>>);

    /// The device may have changed its configuration space.
    ///
    /// Called in interrupt context, and only between the end of `probe` and `unbind`. It is also
    /// called once after each `probe` and each [`Self::resume`] that has succeeded, when the core
    /// has done with setting the device up. Before that the core marks a device as ready that is
    /// not, so one that is reset in between may not stay reset, and whoever waits for that waits
    /// for ever: see [`queue::disconnect`].
    fn config_changed<'bound>(dev: &'bound Device<device::Bound>, data: Pin<&Self::Data<'bound>>);

    /// The device is about to lose its state: the system is suspended, or the bus resets it.
    ///
    /// The driver ends all use of the device. When it returns the device is reset and its
    /// virtqueues are deleted.
    ///
    /// # Errors
    ///
    /// The system is not suspended. The bus resets the device nevertheless.
    fn suspend<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result;

    /// The device is there again, after [`Self::suspend`], and the features have been negotiated:
    /// [`queue::Running::resume`] finds its virtqueues.
    ///
    /// # Errors
    ///
    /// The caller logs them. The device stays bound.
    fn resume<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result;
}

/// Connects a [`Driver`] with the bus.
pub struct Adapter<T: Driver>(T);

/// What the adapter has for a bound device. The fields are dropped in this order.
#[doc(hidden)]
#[pin_data]
pub struct Bound<'bound, T: Driver> {
    #[pin]
    data: T::Data<'bound>,
    /// What runs the device, to which the data may have a reference.
    slot: Arc<Slot<'bound, T::Handler>>,
}

// SAFETY:
// - `bindings::virtio_driver` is a C type declared as `repr(C)`.
// - `Bound` is the type of the driver's device private data.
// - `struct virtio_driver` embeds a `struct device_driver` at `DEVICE_DRIVER_OFFSET`.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = Bound<'bound, T>;
    const DEVICE_DRIVER_OFFSET: usize = core::mem::offset_of!(Self::DriverType, driver);
}

// SAFETY: `unregister_virtio_driver()` is valid for what `__register_virtio_driver()` registered.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        vdrv: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: The driver structure is not registered yet, nobody else has access to it.
        let drv = unsafe { &mut *vdrv.get() };

        drv.driver.name = name.as_char_ptr();
        drv.id_table = T::ID_TABLE.as_ptr();
        drv.feature_table = T::FEATURES.as_ptr();
        drv.feature_table_size = u32::try_from(T::FEATURES.len())?;
        drv.feature_table_legacy = T::FEATURES_LEGACY.as_ptr();
        drv.feature_table_size_legacy = u32::try_from(T::FEATURES_LEGACY.len())?;
        if T::HAS_VALIDATE {
            drv.validate = Some(Self::validate_callback);
        }
        drv.probe = Some(Self::probe_callback);
        drv.remove = Some(Self::remove_callback);
        drv.config_changed = Some(Self::config_changed_callback);
        drv.freeze = Some(Self::suspend_callback);
        drv.restore = Some(Self::resume_callback);
        drv.reset_prepare = Some(Self::reset_prepare_callback);
        drv.reset_done = Some(Self::resume_callback);

        // SAFETY: `vdrv` is a valid driver structure which stays pinned until `unregister()`.
        to_result(unsafe { bindings::__register_virtio_driver(vdrv.get(), module.as_ptr()) })
    }

    unsafe fn unregister(vdrv: &Opaque<Self::DriverType>) {
        // SAFETY: The driver was registered by `register()`.
        unsafe { bindings::unregister_virtio_driver(vdrv.get()) }
    }
}

impl<T: Driver> Adapter<T> {
    /// What was stored for a device that is bound to the driver.
    ///
    /// # Safety
    ///
    /// `dev` must be bound to this driver, and stay so as long as `'a`.
    unsafe fn bound<'a>(dev: &'a Device<device::CoreInternal<'_>>) -> Pin<&'a Bound<'a, T>> {
        // SAFETY: By the requirement of this function: a successful `probe` has stored it.
        unsafe { dev.as_ref().drvdata_borrow::<Bound<'a, T>>() }
    }

    fn data<'a, 'bound>(bound: Pin<&'a Bound<'bound, T>>) -> Pin<&'a T::Data<'bound>> {
        // SAFETY: The field is pinned as its structure is.
        unsafe { bound.map_unchecked(|bound| &bound.data) }
    }

    fn bind<'bound, 'core>(
        dev: &'bound Device<device::Core<'core>>,
    ) -> impl PinInit<Bound<'bound, T>, Error> + use<'bound, 'core, T> {
        try_pin_init!(Bound {
            slot: {
                dev.take_over()?;
                Arc::new(Slot::new(dev), GFP_KERNEL)?
            },
            // SAFETY: This is the only call. The slot stays where it is until `Bound` is dropped,
            // the data of which, where `'bound` ends, is dropped before.
            data <- T::probe(dev, unsafe { slot.permission() }),
        })
    }

    extern "C" fn validate_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The bus calls `validate` with a valid device whose features are not final yet.
        T::validate(&mut unsafe { Features::from_raw(vdev) });
        0
    }

    extern "C" fn probe_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The bus calls `probe` with a valid device that is being bound to this driver.
        let dev = unsafe { Device::<device::CoreInternal<'_>>::from_raw(vdev) };

        from_result(|| {
            dev.as_ref().set_drvdata(Self::bind(dev)).inspect_err(|_| {
                // The next driver, which may be one that resets no device, is to find it as new.
                dev.reset();
                dev.add_status(bindings::VIRTIO_CONFIG_S_ACKNOWLEDGE);
            })?;
            dev.report_change();
            Ok(0)
        })
    }

    extern "C" fn remove_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The bus calls `remove` with a valid device that is bound to this driver.
        let dev = unsafe { Device::<device::CoreInternal<'_>>::from_raw(vdev) };

        // SAFETY: As above.
        let bound = unsafe { Self::bound(dev) };

        T::unbind(dev, Self::data(bound));

        // The bus wants to see the device reset when `remove` returns.
        bound.slot.end();
    }

    extern "C" fn suspend_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The bus calls `freeze` with a valid device that is bound to this driver.
        let dev = unsafe { Device::<device::CoreInternal<'_>>::from_raw(vdev) };

        // SAFETY: As above.
        let bound = unsafe { Self::bound(dev) };

        from_result(|| {
            T::suspend(dev, Self::data(bound))?;
            bound.slot.suspend();
            Ok(0)
        })
    }

    extern "C" fn reset_prepare_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The bus calls `reset_prepare` with a valid device that is bound to this driver.
        let dev = unsafe { Device::<device::CoreInternal<'_>>::from_raw(vdev) };

        // SAFETY: As above.
        let bound = unsafe { Self::bound(dev) };

        // If this fails, the bus only logs that and resets the device, whose virtqueues can't stay
        // connected, and it does not call `reset_done`. So it succeeds.
        if let Err(err) = T::suspend(dev, Self::data(bound)) {
            dev_err!(dev, "is reset while it is used: {err:?}\n");
        }
        bound.slot.suspend();
        0
    }

    extern "C" fn resume_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The bus calls `restore` and `reset_done` with a valid device that is bound to
        // this driver.
        let dev = unsafe { Device::<device::CoreInternal<'_>>::from_raw(vdev) };

        // SAFETY: As above.
        let bound = unsafe { Self::bound(dev) };

        from_result(|| {
            T::resume(dev, Self::data(bound))?;
            dev.report_change();
            Ok(0)
        })
    }

    extern "C" fn config_changed_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The bus calls `config_changed` with a valid device that is bound to this driver,
        // and not before `probe` or after `remove`: see virtio_config_core_enable().
        let dev = unsafe { Device::<device::CoreInternal<'_>>::from_raw(vdev) };

        // SAFETY: As above.
        let bound = unsafe { Self::bound(dev) };

        T::config_changed(dev, Self::data(bound));
    }
}
