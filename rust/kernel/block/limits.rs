// SPDX-License-Identifier: GPL-2.0

//! Limits of a disk's queue.
//!
//! ```
//! # use kernel_ext::block::limits::Limits;
//! let mut limits = Limits::default();
//!
//! limits.set_logical_block_size(4096);
//! limits.set_segments(126, u32::MAX);
//! ```
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use super::zoned::ZonedLimits;
use crate::bindings;
use kernel::block::SECTOR_SIZE;

/// The limits of a queue, and the features of the disk: `struct queue_limits`.
///
/// Limits that contradict each other are refused when they are applied.
#[repr(transparent)]
pub struct Limits(bindings::queue_limits);

impl Default for Limits {
    /// A rotational disk of blocks of 512 bytes; every other limit is the block layer's default.
    fn default() -> Self {
        Self(bindings::queue_limits {
            features: bindings::BLK_FEAT_ROTATIONAL,
            logical_block_size: SECTOR_SIZE,
            ..pin_init::zeroed()
        })
    }
}

impl Limits {
    pub(crate) fn from_raw(limits: bindings::queue_limits) -> Self {
        Self(limits)
    }

    pub(crate) fn as_mut(&mut self) -> &mut bindings::queue_limits {
        &mut self.0
    }

    /// Makes flushes reach the driver, because the disk has a volatile cache.
    pub fn set_write_cache(&mut self) {
        self.0.features |= bindings::BLK_FEAT_WRITE_CACHE;
    }

    /// Makes writes that have to be on stable storage when they end reach the driver with
    /// [a mark](super::request::RequestInner::is_fua), instead of being followed by a flush. Has no
    /// effect without [`Self::set_write_cache`].
    pub fn set_fua(&mut self) {
        self.0.features |= bindings::BLK_FEAT_FUA;
    }

    /// Overrules a user who has turned flushes off in `queue/write_cache`. Returns whether that was
    /// so.
    pub(crate) fn enable_write_cache(&mut self) -> bool {
        let disabled = self.0.flags & bindings::BLK_FLAG_WRITE_CACHE_DISABLED != 0;

        self.0.flags &= !bindings::BLK_FLAG_WRITE_CACHE_DISABLED;
        disabled
    }

    /// The longest segment of a request in bytes.
    pub fn max_segment_size(&self) -> u32 {
        self.0.max_segment_size
    }

    /// Makes the disk a zoned one. Its blocks are as large as the granularity of writes to zones,
    /// and nothing can be discarded.
    pub fn set_zoned(&mut self, zoned: ZonedLimits) {
        self.0.features |= bindings::BLK_FEAT_ZONED;
        self.0.chunk_sectors = zoned.zone_sectors;
        self.0.max_open_zones = zoned.max_open_zones;
        self.0.max_active_zones = zoned.max_active_zones;
        self.0.zone_write_granularity = zoned.write_granularity;
        self.0.physical_block_size = zoned.write_granularity;
        self.0.io_min = zoned.write_granularity;
        self.0.max_hw_zone_append_sectors = zoned.max_append_sectors;
        self.0.max_hw_discard_sectors = 0;
    }

    /// The length of a zone in sectors of 512 bytes, if the disk is zoned.
    pub fn zone_sectors(&self) -> Option<u32> {
        let zoned = self.0.features & bindings::BLK_FEAT_ZONED != 0;

        zoned.then_some(self.0.chunk_sectors)
    }

    /// Sets the largest number of segments of a request, and the length of the longest in bytes.
    pub fn set_segments(&mut self, most: u16, longest: u32) {
        self.0.max_segments = most;
        self.0.max_segment_size = longest;
        self.0.max_hw_sectors = u32::MAX;
    }

    /// The largest number of segments of a request.
    pub fn max_segments(&self) -> u16 {
        self.0.max_segments
    }

    /// Sets the largest number of segments of a request.
    pub fn set_max_segments(&mut self, most: u16) {
        self.0.max_segments = most;
    }

    /// Makes the disk take discards of up to `sectors` sectors of 512 bytes, in up to `ranges`
    /// ranges, each aligned to `granularity` bytes.
    pub fn set_discard(&mut self, sectors: u32, ranges: u16, granularity: u32) {
        self.0.max_hw_discard_sectors = sectors;
        self.0.max_discard_segments = ranges;
        self.0.discard_granularity = granularity;
    }

    /// Sets how many sectors of 512 bytes can be erased at once. Ranges and alignment are those of
    /// [`Self::set_discard`].
    pub fn set_secure_erase(&mut self, sectors: u32) {
        self.0.max_secure_erase_sectors = sectors;
    }

    /// Sets how many sectors of 512 bytes can be written with zeroes at once.
    pub fn set_write_zeroes(&mut self, sectors: u32) {
        self.0.max_write_zeroes_sectors = sectors;
    }

    /// Sets the logical block size in bytes.
    pub fn set_logical_block_size(&mut self, bytes: u32) {
        self.0.logical_block_size = bytes;
    }

    /// The logical block size in bytes.
    pub fn logical_block_size(&self) -> u32 {
        self.0.logical_block_size
    }

    /// Sets the physical block size in bytes.
    pub fn set_physical_block_size(&mut self, bytes: u32) {
        self.0.physical_block_size = bytes;
    }

    /// Sets the offset of the first aligned block in bytes.
    pub fn set_alignment_offset(&mut self, bytes: u32) {
        self.0.alignment_offset = bytes;
    }

    /// Sets the smallest I/O without a penalty in bytes.
    pub fn set_io_min(&mut self, bytes: u32) {
        self.0.io_min = bytes;
    }

    /// Sets the best size of sustained I/O in bytes.
    pub fn set_io_opt(&mut self, bytes: u32) {
        self.0.io_opt = bytes;
    }
}
