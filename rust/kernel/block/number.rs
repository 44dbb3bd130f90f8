// SPDX-License-Identifier: GPL-2.0

//! Numbers of block devices.
//!
//! ```
//! # use kernel_ext::block::number::{Major, Numbers};
//! # fn example(index: u32) -> Result<(Major, Numbers)> {
//! let major = Major::register(c"virtblk")?;
//! let numbers = Numbers {
//!     major: major.number(),
//!     first_minor: index * 16,
//!     minors: 16,
//! };
//! # Ok((major, numbers))
//! # }
//! ```
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use crate::bindings;
use kernel::{error::to_result, prelude::*};

/// The numbers of a disk and its partitions.
#[derive(Clone, Copy)]
pub struct Numbers {
    /// The driver's major number.
    pub major: u32,
    /// The disk's own minor number.
    pub first_minor: u32,
    /// How many minor numbers there are, for the disk and its partitions.
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
