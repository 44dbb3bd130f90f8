// SPDX-License-Identifier: GPL-2.0

//! What a virtio block device and its driver agree on, section 5.2 of the virtio specification.
//!
//! C headers: [`include/uapi/linux/virtio_blk.h`](srctree/include/uapi/linux/virtio_blk.h) and
//! `include/uapi/linux/virtio_blk_wce.h`.

pub mod chain;
pub mod command;
mod data_list;
pub mod submission;

use super::request::Range;
use crate::{
    bindings,
    virtio::{config::Field, Endian}, //
};
use core::mem::offset_of;
use kernel::{prelude::*, transmute::AsBytes};

/// Device type of a block device.
pub const DEVICE_ID: u32 = bindings::VIRTIO_ID_BLOCK;

/// Feature bits.
pub mod feature {
    pub use crate::bindings::{
        VIRTIO_BLK_F_BLK_SIZE as BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE as CONFIG_WCE,
        VIRTIO_BLK_F_DISCARD as DISCARD, VIRTIO_BLK_F_FLUSH as FLUSH,
        VIRTIO_BLK_F_GEOMETRY as GEOMETRY, VIRTIO_BLK_F_MQ as MQ, VIRTIO_BLK_F_RO as RO,
        VIRTIO_BLK_F_SECURE_ERASE as SECURE_ERASE, VIRTIO_BLK_F_SEG_MAX as SEG_MAX,
        VIRTIO_BLK_F_SET_WCE as SET_WCE, VIRTIO_BLK_F_SIZE_MAX as SIZE_MAX,
        VIRTIO_BLK_F_TOPOLOGY as TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES as WRITE_ZEROES,
        VIRTIO_BLK_F_ZONED as ZONED, VIRTIO_F_IN_ORDER as IN_ORDER,
        VIRTIO_RING_F_INDIRECT_DESC as RING_INDIRECT_DESC,
    };
}

/// Request types.
pub mod request {
    pub use crate::bindings::{
        VIRTIO_BLK_T_DISCARD as DISCARD, VIRTIO_BLK_T_FLUSH as FLUSH,
        VIRTIO_BLK_T_GET_ID as GET_ID, VIRTIO_BLK_T_IN as IN, VIRTIO_BLK_T_OUT as OUT,
        VIRTIO_BLK_T_SECURE_ERASE as SECURE_ERASE, VIRTIO_BLK_T_SET_WCE as SET_WCE,
        VIRTIO_BLK_T_WRITE_ZEROES as WRITE_ZEROES, VIRTIO_BLK_T_ZONE_APPEND as ZONE_APPEND,
        VIRTIO_BLK_T_ZONE_CLOSE as ZONE_CLOSE, VIRTIO_BLK_T_ZONE_FINISH as ZONE_FINISH,
        VIRTIO_BLK_T_ZONE_OPEN as ZONE_OPEN, VIRTIO_BLK_T_ZONE_REPORT as ZONE_REPORT,
        VIRTIO_BLK_T_ZONE_RESET as ZONE_RESET, VIRTIO_BLK_T_ZONE_RESET_ALL as ZONE_RESET_ALL,
    };
}

/// The length of the reply to a [`request::GET_ID`] in bytes.
pub const ID_BYTES: usize = bindings::VIRTIO_BLK_ID_BYTES as usize;

/// Values of a request's status byte.
pub mod status {
    use crate::bindings;

    /// The device has done what was asked.
    pub const OK: u8 = bindings::VIRTIO_BLK_S_OK as u8;
    /// The device failed.
    pub const IOERR: u8 = bindings::VIRTIO_BLK_S_IOERR as u8;
    /// The device does not know the request.
    pub const UNSUPP: u8 = bindings::VIRTIO_BLK_S_UNSUPP as u8;
    /// More zones would be open than can be.
    pub const ZONE_OPEN_RESOURCE: u8 = bindings::VIRTIO_BLK_S_ZONE_OPEN_RESOURCE as u8;
    /// More zones would be active than can be.
    pub const ZONE_ACTIVE_RESOURCE: u8 = bindings::VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE as u8;
}

/// Values of [`config::WCE`] and of the payload of a [`request::SET_WCE`].
pub mod wce {
    use crate::bindings;

    /// Completed writes are on stable storage.
    pub const WRITETHROUGH: u8 = bindings::VIRTIO_BLK_WCE_WRITETHROUGH as u8;
    /// Completed writes may be lost until a flush.
    pub const WRITEBACK: u8 = bindings::VIRTIO_BLK_WCE_WRITEBACK as u8;
}

/// Values of [`config::ZONE_MODEL`], and of the fields of a zone descriptor.
pub mod zone {
    use crate::bindings;

    /// A disk without zones.
    pub const MODEL_NONE: u8 = bindings::VIRTIO_BLK_Z_NONE as u8;
    /// A disk whose zones the host manages.
    pub const MODEL_HOST_MANAGED: u8 = bindings::VIRTIO_BLK_Z_HM as u8;
    /// A disk whose zones one may ignore.
    pub const MODEL_HOST_AWARE: u8 = bindings::VIRTIO_BLK_Z_HA as u8;

    /// Type of a zone that can be written anywhere.
    pub const CONVENTIONAL: u8 = bindings::VIRTIO_BLK_ZT_CONV as u8;
    /// Type of a zone that can be written only at its write pointer.
    pub const SEQUENTIAL_WRITE_REQUIRED: u8 = bindings::VIRTIO_BLK_ZT_SWR as u8;
    /// Type of a zone that is best written at its write pointer.
    pub const SEQUENTIAL_WRITE_PREFERRED: u8 = bindings::VIRTIO_BLK_ZT_SWP as u8;

    /// State of a zone without a write pointer.
    pub const NOT_WRITE_POINTER: u8 = bindings::VIRTIO_BLK_ZS_NOT_WP as u8;
    /// State of an empty zone.
    pub const EMPTY: u8 = bindings::VIRTIO_BLK_ZS_EMPTY as u8;
    /// State of a zone that a write has opened.
    pub const IMPLICITLY_OPEN: u8 = bindings::VIRTIO_BLK_ZS_IOPEN as u8;
    /// State of a zone that was opened.
    pub const EXPLICITLY_OPEN: u8 = bindings::VIRTIO_BLK_ZS_EOPEN as u8;
    /// State of a zone that is partly written and not open.
    pub const CLOSED: u8 = bindings::VIRTIO_BLK_ZS_CLOSED as u8;
    /// State of a zone that can't be written any more.
    pub const READ_ONLY: u8 = bindings::VIRTIO_BLK_ZS_RDONLY as u8;
    /// State of a full zone.
    pub const FULL: u8 = bindings::VIRTIO_BLK_ZS_FULL as u8;
    /// State of a zone that can be neither read nor written any more.
    pub const OFFLINE: u8 = bindings::VIRTIO_BLK_ZS_OFFLINE as u8;
}

/// The fields of `struct virtio_blk_config`.
pub mod config {
    use super::{bindings::virtio_blk_config, offset_of, Field};

    macro_rules! fields {
        ($($(#[$doc:meta])* $name:ident: $ty:ty = $($field:ident).+;)*) => {
            $(
                $(#[$doc])*
                pub const $name: Field<$ty> =
                    Field::new(offset_of!(virtio_blk_config, $($field).+));
            )*
        };
    }

    fields! {
        /// Capacity in sectors of 512 bytes.
        CAPACITY: u64 = capacity;
        /// Largest segment in bytes; with [`SIZE_MAX`](super::feature::SIZE_MAX).
        SIZE_MAX: u32 = size_max;
        /// Most segments of a request; with [`SEG_MAX`](super::feature::SEG_MAX).
        SEG_MAX: u32 = seg_max;
        /// Cylinders, with [`GEOMETRY`](super::feature::GEOMETRY), as the following ones.
        GEOMETRY_CYLINDERS: u16 = geometry.cylinders;
        /// Heads.
        GEOMETRY_HEADS: u8 = geometry.heads;
        /// Sectors of a track.
        GEOMETRY_SECTORS: u8 = geometry.sectors;
        /// Logical block size in bytes; with [`BLK_SIZE`](super::feature::BLK_SIZE).
        BLK_SIZE: u32 = blk_size;
        /// Logarithm of the logical blocks of a physical block; with
        /// [`TOPOLOGY`](super::feature::TOPOLOGY), as the following ones.
        PHYSICAL_BLOCK_EXP: u8 = physical_block_exp;
        /// Offset of the first aligned logical block, in logical blocks.
        ALIGNMENT_OFFSET: u8 = alignment_offset;
        /// Smallest I/O without a penalty, in logical blocks.
        MIN_IO_SIZE: u16 = min_io_size;
        /// Best size of sustained I/O, in logical blocks.
        OPT_IO_SIZE: u32 = opt_io_size;
        /// The cache mode, a value of [`wce`](super::wce); with
        /// [`CONFIG_WCE`](super::feature::CONFIG_WCE) or [`SET_WCE`](super::feature::SET_WCE).
        WCE: u8 = wce;
        /// Number of request virtqueues; with [`MQ`](super::feature::MQ).
        NUM_QUEUES: u16 = num_queues;
        /// Most sectors of 512 bytes of a discard; with [`DISCARD`](super::feature::DISCARD), as
        /// the following ones.
        MAX_DISCARD_SECTORS: u32 = max_discard_sectors;
        /// Most ranges of a discard.
        MAX_DISCARD_SEG: u32 = max_discard_seg;
        /// Alignment of discards in sectors of 512 bytes.
        DISCARD_SECTOR_ALIGNMENT: u32 = discard_sector_alignment;
        /// Most sectors of 512 bytes to write with zeroes; with
        /// [`WRITE_ZEROES`](super::feature::WRITE_ZEROES).
        MAX_WRITE_ZEROES_SECTORS: u32 = max_write_zeroes_sectors;
        /// Most sectors of 512 bytes to erase; with
        /// [`SECURE_ERASE`](super::feature::SECURE_ERASE), as the following ones.
        MAX_SECURE_ERASE_SECTORS: u32 = max_secure_erase_sectors;
        /// Most ranges to erase.
        MAX_SECURE_ERASE_SEG: u32 = max_secure_erase_seg;
        /// Alignment of what is erased in sectors of 512 bytes.
        SECURE_ERASE_SECTOR_ALIGNMENT: u32 = secure_erase_sector_alignment;
        /// Sectors of 512 bytes of a zone; with [`ZONED`](super::feature::ZONED), as the following
        /// ones.
        ZONE_SECTORS: u32 = zoned.zone_sectors;
        /// Most zones that can be open.
        MAX_OPEN_ZONES: u32 = zoned.max_open_zones;
        /// Most zones that can be active.
        MAX_ACTIVE_ZONES: u32 = zoned.max_active_zones;
        /// Most sectors of 512 bytes of a zone append.
        MAX_APPEND_SECTORS: u32 = zoned.max_append_sectors;
        /// Alignment of writes to zones in bytes.
        WRITE_GRANULARITY: u32 = zoned.write_granularity;
        /// The model, a value of [`zone`](super::zone).
        ZONE_MODEL: u8 = zoned.model;
    }
}

/// The header of a request, `struct virtio_blk_outhdr`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub struct Header {
    kind: u32,
    ioprio: u32,
    sector: u64,
}

impl Header {
    /// A header of the given [type](request), in the device's byte order.
    #[inline]
    pub fn new(endian: Endian, kind: u32, ioprio: u16, sector: u64) -> Self {
        Self {
            kind: endian.u32(kind),
            ioprio: endian.u32(ioprio.into()),
            sector: endian.u64(sector),
        }
    }
}

// SAFETY: `Header` consists of integers without padding.
unsafe impl AsBytes for Header {}

/// A range of a discard and its like, `struct virtio_blk_discard_write_zeroes`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub struct Segment {
    sector: u64,
    num_sectors: u32,
    flags: u32,
}

impl Segment {
    /// The given range of sectors of 512 bytes, which the device may deallocate if `unmap` is set.
    /// Little-endian with any device.
    pub fn new(range: Range, unmap: bool) -> Self {
        let flags = if unmap {
            bindings::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
        } else {
            0
        };

        Self {
            sector: range.sector.to_le(),
            num_sectors: range.sectors.to_le(),
            flags: flags.to_le(),
        }
    }
}

// SAFETY: `Segment` consists of integers without padding.
unsafe impl AsBytes for Segment {}
