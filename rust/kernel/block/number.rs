// SPDX-License-Identifier: GPL-2.0

//! Numbers of block devices.
//!
//! ```
//! # use kernel_ext::block::number::{Index, Major, Numbers};
//! # fn example() -> Result<(Major, Index, Numbers)> {
//! let major = Major::register(c"virtblk")?;
//! // Each is free again when it is dropped.
//! let index = Index::alloc(0..=25)?;
//! let numbers = Numbers {
//!     major: major.number(),
//!     first_minor: index.get() * 16,
//!     minors: 16,
//! };
//! # Ok((major, index, numbers))
//! # }
//! ```
//!
//! C headers: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h),
//! [`include/linux/idr.h`](srctree/include/linux/idr.h)

use crate::bindings;
use kernel::{error::to_result, prelude::*};

/// The numbers of a disk and its partitions.
#[derive(Clone, Copy)]
pub struct Numbers {
    /// The driver's major number.
    pub major: u32,
    /// The disk's own minor number.
    pub first_minor: u32,
    /// The number of minor numbers, for the disk and for partitions.
    pub minors: u32,
}

/// A registered major number, until it is dropped.
pub struct Major {
    number: u32,
    name: &'static CStr,
}

impl Major {
    /// Registers a free major number under the name that `/proc/devices` shows.
    ///
    /// # Errors
    ///
    /// `EBUSY` if all are taken, `ENOMEM`.
    pub fn register(name: &'static CStr) -> Result<Self> {
        // SAFETY: The name is a C string; zero asks for any number.
        let number = unsafe { bindings::__register_blkdev(0, name.as_char_ptr(), None) };
        to_result(number)?;

        Ok(Self {
            number: number as u32,
            name,
        })
    }

    /// The number.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Major {
    fn drop(&mut self) {
        // SAFETY: The number was registered under this name.
        unsafe { bindings::unregister_blkdev(self.number, self.name.as_char_ptr()) };
    }
}

/// The index of a disk among those of this module, until it is dropped.
pub struct Index(u32);

impl Index {
    /// Takes the lowest free index of `range`.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there is none, `ENOMEM`.
    #[inline(never)]
    pub fn alloc(range: core::ops::RangeInclusive<u32>) -> Result<Self> {
        // SAFETY: The helper returns a valid IDA.
        let index = unsafe {
            bindings::ida_alloc_range(
                crate::bindings::index_ida(),
                *range.start(),
                *range.end(),
                bindings::GFP_KERNEL,
            )
        };
        to_result(index)?;

        Ok(Self(index as u32))
    }

    /// The index.
    pub fn get(&self) -> u32 {
        self.0
    }
}

impl Drop for Index {
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: The index was allocated from this IDA, and is given back once.
        unsafe { bindings::ida_free(crate::bindings::index_ida(), self.0) };
    }
}
