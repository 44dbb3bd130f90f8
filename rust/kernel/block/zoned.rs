// SPDX-License-Identifier: GPL-2.0

//! Zoned disks.
//!
//! ```
//! # use kernel_ext::block::zoned::{Zone, ZoneReport};
//! # fn report(
//! #     report: &mut ZoneReport<'_>,
//! #     mut sector: u64,
//! #     ask_the_device: impl Fn(u64) -> Result<Zone>,
//! # ) -> Result {
//! while !report.is_full() && sector < report.capacity() {
//!     let zone = ask_the_device(sector)?;
//!
//!     report.add(zone)?;
//!     sector += zone.len;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! C headers: [`include/uapi/linux/blkzoned.h`](srctree/include/uapi/linux/blkzoned.h) and
//! [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use crate::bindings;
use core::marker::PhantomData;
#[cfg(CONFIG_BLK_DEV_ZONED)]
use kernel::error::to_result;
use kernel::prelude::*;

/// What the zones of a disk have in common.
#[derive(Clone, Copy)]
pub struct ZonedLimits {
    /// Length of each zone, but maybe the last, in sectors of 512 bytes; a power of two.
    pub zone_sectors: u32,
    /// Most zones that can be open, or zero for no limit.
    pub max_open_zones: u32,
    /// Most zones that can be neither empty nor full, or zero for no limit.
    pub max_active_zones: u32,
    /// What writes to zones with a write pointer have to be aligned to, in bytes.
    pub write_granularity: u32,
    /// Most sectors of 512 bytes of a zone append.
    pub max_append_sectors: u32,
}

/// How a zone can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ZoneType {
    /// Anywhere.
    Conventional = bindings::blk_zone_type_BLK_ZONE_TYPE_CONVENTIONAL as u8,
    /// Only at the write pointer.
    SequentialWriteRequired = bindings::blk_zone_type_BLK_ZONE_TYPE_SEQWRITE_REQ as u8,
    /// Best at the write pointer.
    SequentialWritePreferred = bindings::blk_zone_type_BLK_ZONE_TYPE_SEQWRITE_PREF as u8,
}

/// The condition of a zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ZoneCondition {
    /// It has no write pointer.
    NotWritePointer = bindings::blk_zone_cond_BLK_ZONE_COND_NOT_WP as u8,
    /// Nothing is written.
    Empty = bindings::blk_zone_cond_BLK_ZONE_COND_EMPTY as u8,
    /// Open because of a write.
    ImplicitlyOpen = bindings::blk_zone_cond_BLK_ZONE_COND_IMP_OPEN as u8,
    /// Open because that was asked for.
    ExplicitlyOpen = bindings::blk_zone_cond_BLK_ZONE_COND_EXP_OPEN as u8,
    /// Partly written and not open.
    Closed = bindings::blk_zone_cond_BLK_ZONE_COND_CLOSED as u8,
    /// It can't be written any more.
    ReadOnly = bindings::blk_zone_cond_BLK_ZONE_COND_READONLY as u8,
    /// No more can be written.
    Full = bindings::blk_zone_cond_BLK_ZONE_COND_FULL as u8,
    /// It can be neither read nor written any more.
    Offline = bindings::blk_zone_cond_BLK_ZONE_COND_OFFLINE as u8,
}

/// A zone. All numbers are in sectors of 512 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Zone {
    /// The first sector.
    pub start: u64,
    /// The length.
    pub len: u64,
    /// How much of it is usable.
    pub capacity: u64,
    /// The sector to write next, or [`u64::MAX`] if there is none.
    pub write_pointer: u64,
    /// How it can be written.
    pub kind: ZoneType,
    /// Its condition.
    pub condition: ZoneCondition,
}

impl Zone {
    fn to_raw(self) -> bindings::blk_zone {
        bindings::blk_zone {
            start: self.start,
            len: self.len,
            wp: self.write_pointer,
            type_: self.kind as u8,
            cond: self.condition as u8,
            capacity: self.capacity,
            ..pin_init::zeroed()
        }
    }
}

/// A report of the zones of a disk, beginning with some sector, to a caller of the block layer.
///
/// # Invariants
///
/// `disk` is valid, and `args` is what came with it from the block layer, for `'a`.
pub struct ZoneReport<'a> {
    disk: *mut bindings::gendisk,
    args: *mut bindings::blk_report_zones_args,
    wanted: c_uint,
    found: c_uint,
    _caller: PhantomData<&'a ()>,
}

impl ZoneReport<'_> {
    /// Takes what the block layer passed to the operation of a disk.
    ///
    /// # Safety
    ///
    /// `disk` must be valid, and `args` be what came with it, as long as the value exists.
    pub(crate) unsafe fn from_raw(
        disk: *mut bindings::gendisk,
        args: *mut bindings::blk_report_zones_args,
        wanted: c_uint,
    ) -> Self {
        // INVARIANT: By the requirement of this function.
        Self {
            disk,
            args,
            wanted,
            found: 0,
            _caller: PhantomData,
        }
    }

    /// How many zones have been reported.
    pub(crate) fn found(&self) -> c_uint {
        self.found
    }

    /// Whether no more zones are wanted.
    pub fn is_full(&self) -> bool {
        self.found >= self.wanted
    }

    /// The capacity of the disk in sectors of 512 bytes.
    pub fn capacity(&self) -> u64 {
        // SAFETY: By the type invariant the disk is valid, and `part0` lives as long as it does.
        unsafe { (*(*self.disk).part0).bd_nr_sectors }
    }

    /// Reports the next zone.
    ///
    /// # Errors
    ///
    /// Those of the caller, who may refuse a zone; `EOPNOTSUPP` if the kernel does not know zones.
    pub fn add(&mut self, zone: Zone) -> Result {
        self.pass_on(&mut zone.to_raw())?;
        self.found += 1;

        Ok(())
    }

    #[cfg(CONFIG_BLK_DEV_ZONED)]
    fn pass_on(&self, zone: &mut bindings::blk_zone) -> Result {
        // SAFETY: By the type invariant disk and `args` are valid.
        to_result(unsafe { bindings::disk_report_zone(self.disk, zone, self.found, self.args) })
    }

    #[cfg(not(CONFIG_BLK_DEV_ZONED))]
    fn pass_on(&self, _zone: &mut bindings::blk_zone) -> Result {
        let _ = self.args;
        Err(EOPNOTSUPP)
    }
}
