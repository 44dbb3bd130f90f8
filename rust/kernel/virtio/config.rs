// SPDX-License-Identifier: GPL-2.0

//! The device configuration space, section 2.5 of the virtio specification.
//!
//! ```
//! # use kernel::device;
//! # use kernel_ext::virtio::{config::Field, Device};
//! # fn read(dev: &Device<device::Bound>, capacity: Field<u64>, mq: u32, num_queues: Field<u16>) {
//! let sectors: u64 = dev.read(capacity);
//! // `None` unless the feature was negotiated.
//! let queues: Option<u16> = dev.read_if(mq, num_queues);
//! # let _ = (sectors, queues);
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
pub trait Value: sealed::Sealed + Copy {
    /// The value of a field whose bytes are that number in the guest's byte order.
    fn from_number(number: u64, endian: Endian) -> Self;
}

macro_rules! values {
    ($($ty:ty: $convert:expr),*) => {
        $(
            impl sealed::Sealed for $ty {}
            impl Value for $ty {
                fn from_number(number: u64, endian: Endian) -> Self {
                    // CAST: The field has no more bytes than the type.
                    $convert(endian, number as $ty)
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

    /// Reads a field of the configuration space: zero, if the transport
    /// [cannot](Self::has_config).
    ///
    /// The value is of one generation of the configuration space, section 2.5.1 of the virtio
    /// specification, unless the device goes on and on changing it. Such a value is replaced when
    /// the driver is told of the change. May not be called in atomic context: some transports
    /// sleep.
    pub fn read<T: Value>(&self, field: Field<T>) -> T {
        T::from_number(self.number(field.offset, size_of::<T>()), self.endian())
    }

    /// Reads a field that exists only if the feature bit was negotiated, else returns `None`.
    pub fn read_if<T: Value>(&self, feature: u32, field: Field<T>) -> Option<T> {
        self.has_feature(feature).then(|| self.read(field))
    }

    /// Writes a byte of the configuration space, if the transport can: what the device makes of it
    /// is seen by reading it.
    pub fn write(&self, field: Field<u8>, value: u8) {
        // SAFETY: A valid device always has its operations.
        let Some(set) = (unsafe { (*(*self.as_raw()).config).set }) else {
            return;
        };

        // SAFETY: `self` is a valid device, and `value` has the one byte that is read.
        unsafe { set(self.as_raw(), field.offset, (&raw const value).cast(), 1) };
    }

    /// The number that `len` bytes of the configuration space are in the guest's byte order.
    #[inline(never)]
    fn number(&self, offset: u32, len: usize) -> u64 {
        let mut bytes = [0_u8; size_of::<u64>()];

        // SAFETY: A valid device always has its operations.
        if let Some(get) = unsafe { (*(*self.as_raw()).config).get } {
            // Fields of up to four bytes are read at once by every transport.
            let generation = || if len > 4 { self.generation() } else { 0 };

            for _ in 0..100 {
                let before = generation();

                // SAFETY: `self` is a valid device, and `bytes` has room for the longest field.
                unsafe { get(self.as_raw(), offset, (&raw mut bytes).cast(), len as u32) };

                if generation() == before {
                    break;
                }
            }
        }

        let number = u64::from_ne_bytes(bytes);
        if cfg!(target_endian = "little") {
            number
        } else {
            number.wrapping_shr(64 - 8 * len as u32)
        }
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
