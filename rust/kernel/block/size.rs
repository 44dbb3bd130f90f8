// SPDX-License-Identifier: GPL-2.0

//! Sizes in units that people read.
//!
//! ```
//! # use kernel_ext::block::size::Size;
//! let size = Size { blocks: 2_097_152, block_size: 512 };
//! pr_info!("{size}\n"); // 1.07 GB/1.00 GiB
//! ```
//!
//! C header: [`include/linux/string_helpers.h`](srctree/include/linux/string_helpers.h)

use crate::bindings;
use core::fmt::Write;
use kernel::{fmt, prelude::*};

/// A size, shown in units of both kinds, such as `1.07 GB/1.00 GiB`.
pub struct Size {
    /// How many blocks.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_size: u32,
}

impl Size {
    /// Appends the size in units of one kind.
    fn write(&self, f: &mut fmt::Formatter<'_>, units: bindings::string_size_units) -> fmt::Result {
        let mut text = [0_u8; 16];

        // SAFETY: The function writes a C string of no more than the length that is said.
        unsafe {
            bindings::string_get_size(
                self.blocks,
                self.block_size.into(),
                units,
                text.as_mut_ptr().cast(),
                text.len() as c_int,
            )
        };

        let text = CStr::from_bytes_until_nul(&text).map_err(|_| fmt::Error)?;
        f.write_str(text.to_str().map_err(|_| fmt::Error)?)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, bindings::string_size_units_STRING_UNITS_10)?;
        f.write_char('/')?;
        self.write(f, bindings::string_size_units_STRING_UNITS_2)
    }
}
