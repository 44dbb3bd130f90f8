// SPDX-License-Identifier: GPL-2.0

//! What the configuration space says of the size and the limits of a disk.
//!
//! The device is not trusted: what does not fit into the block layer's numbers is refused here.

use kernel::{device, prelude::*};
use kernel_ext::{
    block::{
        disk::Disk,
        limits::Limits,
        mq::{self, Geometry, Operations, QueueCounts},
        size::Size,
        virtio_blk::{config, feature}, //
    },
    virtio::Device,
};

/// The most segments of a request. Of the descriptors of the largest ring two are for header and
/// status.
const MAX_SEGMENTS: u32 = 32768 - 2;

/// The most ranges of a discard: their descriptions fill a page.
const MAX_RANGES: u32 = 256;

/// The block layer takes no limit of a segment's length that is shorter than this, in bytes.
const MIN_SEGMENT_SIZE: u32 = 4096;

/// The longest segment in bytes if the device offers a limit and says zero, as the vhost-user
/// export of QEMU's storage daemon does. This is the block layer's default, `BLK_MAX_SEGMENT_SIZE`.
const DEFAULT_SEGMENT_SIZE: u32 = 65536;

/// The numbers of request queues to use. There are at most `most` of both kinds together, unless
/// that is zero. Of these `poll` are polled, but at least one has interrupts.
///
/// # Errors
///
/// `EINVAL` if the device has none.
pub(crate) fn queues(dev: &Device<device::Bound>, most: u32, poll: u32) -> Result<QueueCounts> {
    let queues = match dev.read_if(feature::MQ, config::NUM_QUEUES) {
        Some(0) => return Err(refuse(dev, "number of queues", 0)),
        Some(queues) => u32::from(queues),
        None => 1,
    };
    let queues = mq::possible_queues(queues.min(or(most, u32::MAX)));
    let counts = split(u16::try_from(queues)?, poll);

    dev_info!(
        dev,
        "{}/0/{} default/read/poll queues\n",
        u32::from(counts.interrupt),
        u32::from(counts.poll)
    );
    Ok(counts)
}

/// Takes `poll` of the queues to poll, but leaves one.
fn split(queues: u16, poll: u32) -> QueueCounts {
    let poll = u16::try_from(poll)
        .unwrap_or(u16::MAX)
        .min(queues.saturating_sub(1));

    QueueCounts {
        interrupt: queues - poll,
        poll,
    }
}

/// The capacity in sectors of 512 bytes.
///
/// # Errors
///
/// `EINVAL` if its bytes can't be counted in a file offset.
pub(crate) fn capacity(dev: &Device<device::Bound>) -> Result<u64> {
    let sectors = dev.read(config::CAPACITY);

    if sectors > i64::MAX as u64 >> kernel::block::SECTOR_SHIFT {
        return Err(refuse(dev, "capacity in sectors", sectors));
    }

    Ok(sectors)
}

/// The geometry for `HDIO_GETGEO`: the device's, or the usual one for that many sectors.
pub(crate) fn geometry(dev: &Device<device::Bound>, sectors: u64) -> Geometry {
    if dev.has_feature(feature::GEOMETRY) {
        Geometry {
            cylinders: dev.read(config::GEOMETRY_CYLINDERS),
            heads: dev.read(config::GEOMETRY_HEADS),
            sectors: dev.read(config::GEOMETRY_SECTORS),
        }
    } else {
        // A cylinder is one MiB. The number is truncated, as in other drivers.
        Geometry {
            cylinders: (sectors >> 11) as u16,
            heads: 64,
            sectors: 32,
        }
    }
}

/// Reads the limits of the disk into `limits`, which has none yet.
///
/// # Errors
///
/// `EINVAL` if the device shows an impossible value. Limits that contradict each other are found
/// when they are applied.
pub(crate) fn read(dev: &Device<device::Bound>, limits: &mut Limits) -> Result {
    let segments = dev
        .read_if(feature::SEG_MAX, config::SEG_MAX)
        .unwrap_or(1)
        .clamp(1, MAX_SEGMENTS);
    let longest = dev
        .read_if(feature::SIZE_MAX, config::SIZE_MAX)
        .map_or(u32::MAX, |bytes| or(bytes, DEFAULT_SEGMENT_SIZE))
        .min(u32::try_from(dev.max_dma_size()).unwrap_or(u32::MAX));
    if longest < MIN_SEGMENT_SIZE {
        return Err(refuse(dev, "length of segments", longest.into()));
    }
    limits.set_segments(segments as u16, longest);

    if let Some(bytes) = dev.read_if(feature::BLK_SIZE, config::BLK_SIZE) {
        limits.set_logical_block_size(bytes);
    }

    if dev.has_feature(feature::TOPOLOGY) {
        read_topology(dev, limits)?;
    }
    read_discard(dev, limits, segments)?;
    if let Some(sectors) = dev.read_if(feature::WRITE_ZEROES, config::MAX_WRITE_ZEROES_SECTORS) {
        limits.set_write_zeroes(or(sectors, u32::MAX));
    }

    Ok(())
}

/// Makes requests short enough for a ring of that many descriptors, whatever the device says of
/// segments. Two of the descriptors are for header and status.
///
/// # Errors
///
/// `EINVAL` if no request fits.
pub(crate) fn fit_ring(
    dev: &Device<device::Bound>,
    limits: &mut Limits,
    descriptors: u32,
) -> Result {
    let segments = match descriptors.saturating_sub(2) {
        0 => return Err(refuse(dev, "length of the ring", descriptors.into())),
        segments => u16::try_from(segments).unwrap_or(u16::MAX),
    };

    limits.set_max_segments(limits.max_segments().min(segments));
    Ok(())
}

/// Logs that a device shows an impossible value, and returns `EINVAL`.
#[cold]
#[inline(never)]
pub(crate) fn refuse(dev: &Device<device::Bound>, what: &str, value: u64) -> Error {
    dev_err!(dev, "impossible {}: {}\n", what, value);
    EINVAL
}

/// `value`, or `default` if `value` is zero, which stands for "not given".
fn or(value: u32, default: u32) -> u32 {
    if value == 0 {
        default
    } else {
        value
    }
}

/// Reads the limits of discards and of erasures. The block layer has one number of ranges and one
/// alignment for both.
fn read_discard(dev: &Device<device::Bound>, limits: &mut Limits, segments: u32) -> Result {
    let mut sectors = 0;
    let mut ranges = 0;
    let mut alignment = 0;

    if dev.has_feature(feature::DISCARD) {
        sectors = or(dev.read(config::MAX_DISCARD_SECTORS), u32::MAX);
        ranges = dev.read(config::MAX_DISCARD_SEG);
        alignment = dev.read(config::DISCARD_SECTOR_ALIGNMENT);
    }

    if dev.has_feature(feature::SECURE_ERASE) {
        let erase_sectors = dev.read(config::MAX_SECURE_ERASE_SECTORS);
        let erase_ranges = dev.read(config::MAX_SECURE_ERASE_SEG);
        let erase_alignment = dev.read(config::SECURE_ERASE_SECTOR_ALIGNMENT);

        if erase_sectors == 0 || erase_ranges == 0 || erase_alignment == 0 {
            return Err(refuse(dev, "sectors, ranges or alignment of erasures", 0));
        }
        limits.set_secure_erase(erase_sectors);
        ranges = or(ranges, u32::MAX).min(erase_ranges);
        alignment = or(alignment, u32::MAX).min(erase_alignment);
    } else if !dev.has_feature(feature::DISCARD) {
        return Ok(());
    }

    let granularity = match alignment {
        0 => limits.logical_block_size(),
        sectors => sectors
            .checked_mul(kernel::block::SECTOR_SIZE)
            .ok_or_else(|| refuse(dev, "alignment of discards in sectors", sectors.into()))?,
    };
    let ranges = or(ranges, segments).min(MAX_RANGES);
    limits.set_discard(sectors, ranges as u16, granularity);

    Ok(())
}

/// Reads the fields that are in units of logical blocks. Zero means that the device does not know.
fn read_topology(dev: &Device<device::Bound>, limits: &mut Limits) -> Result {
    let block = limits.logical_block_size();
    let bytes = |blocks: u32| {
        block
            .checked_mul(blocks)
            .ok_or_else(|| refuse(dev, "topology in blocks", blocks.into()))
    };

    match u32::from(dev.read(config::PHYSICAL_BLOCK_EXP)) {
        0 => (),
        exp => limits.set_physical_block_size(bytes(1_u32.checked_shl(exp).unwrap_or(u32::MAX))?),
    }
    match u32::from(dev.read(config::ALIGNMENT_OFFSET)) {
        0 => (),
        offset => limits.set_alignment_offset(bytes(offset)?),
    }
    match u32::from(dev.read(config::MIN_IO_SIZE)) {
        0 => (),
        size => limits.set_io_min(bytes(size)?),
    }
    match dev.read(config::OPT_IO_SIZE) {
        0 => (),
        size => limits.set_io_opt(bytes(size)?),
    }

    Ok(())
}

/// Logs how large the disk is.
pub(crate) fn announce_capacity<T: Operations>(
    dev: &Device<device::Bound>,
    disk: &Disk<T>,
    sectors: u64,
    what: &str,
) {
    let block_size = disk.logical_block_size();
    let size = Size {
        blocks: sectors.div_ceil(u64::from(block_size >> kernel::block::SECTOR_SHIFT)),
        block_size,
    };

    dev_notice!(
        dev,
        "[{}] {}{} {}-byte logical blocks ({})\n",
        disk.name(),
        what,
        size.blocks,
        size.block_size,
        size
    );
}

#[kunit_tests(virtio_blk_wce_limits)]
mod tests {
    use super::*;

    #[test]
    fn zero_says_nothing() {
        assert!(or(0, 7) == 7);
        assert!(or(1, 7) == 1);
        assert!(or(u32::MAX, 7) == u32::MAX);
    }

    #[test]
    fn a_queue_with_interrupts_is_left() {
        for (queues, poll, interrupt) in
            [(1, 0, 1), (1, 1, 1), (4, 3, 1), (4, u32::MAX, 1), (4, 1, 3)]
        {
            let counts = split(queues, poll);

            assert!(counts.interrupt == interrupt);
            assert!(counts.total() == u32::from(queues));
        }
    }

    #[test]
    fn most_segments_fit_the_block_layer_s_number() {
        assert!(u16::try_from(MAX_SEGMENTS).is_ok());
        assert!(u16::try_from(MAX_RANGES).is_ok());
    }
}
