// SPDX-License-Identifier: GPL-2.0

//! Names of disks: `vda` to `vdz`, `vdaa` to `vdzz`, and so on.

use kernel::{device, prelude::*};
use kernel_ext::{
    ida::{Id, Ida},
    virtio::Device, //
};

/// The indices of all disks, which the module initializes.
pub(crate) static INDICES: Ida = Ida::new();

/// Bits of the minor number that tell the partitions of a disk apart.
pub(crate) const PART_BITS: u32 = 4;

/// The minor numbers of a disk.
pub(crate) const MINORS: u32 = 1 << PART_BITS;

/// The largest index of a disk that has minor numbers.
const LAST_INDEX: u32 = (1 << (kernel::bindings::MINORBITS - PART_BITS)) - 1;

/// The longest name in bytes.
const MAX: usize = 16;

/// The name of a disk.
pub(crate) struct Name {
    bytes: [u8; MAX],
    start: usize,
}

impl Name {
    /// The name of the disk of this index.
    pub(crate) fn of(mut index: u32) -> Self {
        let mut name = Self {
            bytes: [0; MAX],
            // Before the NUL at the end.
            start: MAX - 1,
        };

        // A number of base 26 without a digit for zero: `z` is followed by `aa`.
        loop {
            name.prepend(b'a' + (index % 26) as u8);
            index /= 26;
            if index == 0 {
                break;
            }
            index -= 1;
        }
        name.prepend(b'd');
        name.prepend(b'v');

        name
    }

    /// Puts a byte in front. There is room for all: the largest index has seven letters.
    fn prepend(&mut self, byte: u8) {
        self.start = self.start.saturating_sub(1);
        if let Some(first) = self.bytes.get_mut(self.start) {
            *first = byte;
        }
    }

    /// The name as a string.
    ///
    /// # Errors
    ///
    /// None occur: there is always a NUL at the end.
    pub(crate) fn as_cstr(&self) -> Result<&CStr> {
        CStr::from_bytes_with_nul(self.bytes.get(self.start..).ok_or(EINVAL)?).map_err(|_| EINVAL)
    }
}

/// Takes an index whose name no disk has.
///
/// The module's indices are its own, but disks of `virtio_blk` are named in the same way.
pub(crate) fn free_index(dev: &Device<device::Bound>) -> Result<Id> {
    let mut first = 0;

    loop {
        let index = INDICES.alloc(first..=LAST_INDEX)?;
        if !dev.bus_has_child(Name::of(index.get()).as_cstr()?) {
            return Ok(index);
        }
        first = index.get() + 1;
    }
}

#[kunit_tests(virtio_blk_wce_name)]
mod tests {
    use super::*;

    /// Whether the disk of this index has this name.
    fn is(index: u32, name: &CStr) -> bool {
        Name::of(index).as_cstr() == Ok(name)
    }

    #[test]
    fn letters_count_without_a_zero() {
        assert!(is(0, c"vda"));
        assert!(is(25, c"vdz"));
        assert!(is(26, c"vdaa"));
        assert!(is(26 + 26 * 26 - 1, c"vdzz"));
        assert!(is(26 + 26 * 26, c"vdaaa"));
    }

    #[test]
    fn every_index_has_a_name() {
        assert!(is(LAST_INDEX, c"vdcrxp"));
        assert!(is(u32::MAX, c"vdmwlqkwv"));
    }
}
