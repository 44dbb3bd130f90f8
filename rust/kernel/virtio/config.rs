// SPDX-License-Identifier: GPL-2.0

//! The device configuration space, section 2.5 of the virtio specification.
//!
//! ```
//! # use kernel::device;
//! # use kernel_ext::{block::virtio_blk::{config, feature}, virtio::Device};
//! # fn read(dev: &Device<device::Bound>) -> Result {
//! let sectors: u64 = dev.read(config::CAPACITY)?;
//! // `None` unless the feature was negotiated.
//! let queues: Option<u16> = dev.read_if(feature::MQ, config::NUM_QUEUES)?;
//! # let _ = (sectors, queues);
//! # Ok(())
//! # }
//! ```
//!
//! C header: [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)

use super::{Device, Endian};
use core::marker::PhantomData;
use kernel::{device, prelude::*};

mod sealed {
    pub trait Sealed {}
}

/// A type that a field of the configuration space can have.
pub trait Value: sealed::Sealed + Copy + Default {
    /// Converts from the device's byte order.
    fn to_guest(self, endian: Endian) -> Self;
}

macro_rules! values {
    ($($ty:ty: $convert:expr),*) => {
        $(
            impl sealed::Sealed for $ty {}
            impl Value for $ty {
                fn to_guest(self, endian: Endian) -> Self {
                    $convert(endian, self)
                }
            }
        )*
    };
}

values!(u8: |_, value| value, u16: Endian::u16, u32: Endian::u32, u64: Endian::u64);

/// A field of the configuration space: its offset and its type.
#[derive(Clone, Copy)]
pub struct Field<T> {
    offset: u32,
    _type: PhantomData<T>,
}

impl<T: Value> Field<T> {
    /// A field `offset` bytes into the configuration space.
    pub(crate) const fn new(offset: usize) -> Self {
        assert!(offset <= 4096);

        Self {
            offset: offset as u32,
            _type: PhantomData,
        }
    }
}

impl Device<device::Bound> {
    /// Whether the transport can read the configuration space.
    pub fn has_config(&self) -> bool {
        // SAFETY: A valid device always has its operations.
        unsafe { (*(*self.as_raw()).config).get.is_some() }
    }

    /// Reads a field of the configuration space.
    ///
    /// The value is of one generation of the configuration space, section 2.5.1 of the virtio
    /// specification. May not be called in atomic context: some transports sleep.
    ///
    /// # Errors
    ///
    /// `ENXIO` if the transport cannot read the configuration space, `EAGAIN` if the device keeps
    /// changing it.
    pub fn read<T: Value>(&self, field: Field<T>) -> Result<T> {
        // Fields of up to four bytes are read at once by every transport.
        if size_of::<T>() <= 4 {
            return Ok(self.get(field)?.to_guest(self.endian()));
        }

        for _ in 0..100 {
            let before = self.generation();
            let value = self.get(field)?;
            if self.generation() == before {
                return Ok(value.to_guest(self.endian()));
            }
        }

        Err(EAGAIN)
    }

    /// Reads a field that exists only if the feature bit was negotiated, else returns `None`.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn read_if<T: Value>(&self, feature: u32, field: Field<T>) -> Result<Option<T>> {
        if !self.has_feature(feature) {
            return Ok(None);
        }

        self.read(field).map(Some)
    }

    /// Writes a byte of the configuration space.
    ///
    /// # Errors
    ///
    /// `ENXIO` if the transport cannot write the configuration space.
    pub fn write(&self, field: Field<u8>, value: u8) -> Result {
        // SAFETY: A valid device always has its operations.
        let set = unsafe { (*(*self.as_raw()).config).set }.ok_or(ENXIO)?;

        // SAFETY: `self` is a valid device, and `value` has the one byte that is read.
        unsafe { set(self.as_raw(), field.offset, (&raw const value).cast(), 1) };

        Ok(())
    }

    fn get<T: Value>(&self, field: Field<T>) -> Result<T> {
        let mut value = T::default();

        // SAFETY: A valid device always has its operations.
        let get = unsafe { (*(*self.as_raw()).config).get }.ok_or(ENXIO)?;

        // SAFETY: `self` is a valid device; as many bytes are written as a `T` has, and each
        // pattern of them is a valid integer, as all implementations of `Value` are.
        unsafe {
            get(
                self.as_raw(),
                field.offset,
                (&raw mut value).cast(),
                size_of::<T>() as u32,
            )
        };

        Ok(value)
    }

    fn generation(&self) -> u32 {
        // SAFETY: A valid device always has its operations.
        match unsafe { (*(*self.as_raw()).config).generation } {
            // SAFETY: `self` is a valid device.
            Some(generation) => unsafe { generation(self.as_raw()) },
            None => 0,
        }
    }
}
