// SPDX-License-Identifier: GPL-2.0

//! Zoned disks: their limits, section 5.2.6 of the virtio specification.

use crate::limits::refuse;
use kernel::{device, prelude::*};
use kernel_ext::{
    block::{
        limits::Limits,
        virtio_blk::{config, feature, zone},
        zoned::ZonedLimits, //
    },
    ratelimit::Ratelimit,
    virtio::Device,
};

/// The length in bytes of the longest report that the device is asked for.
const MAX_REPORT: usize = 16384;

/// The most zones that may be open or active at a time. The block layer sets memory aside for
/// each of them, and stops the kernel (a `BUG()`) if the number does not fit an `int`.
const MAX_ZONES_AT_WORK: u32 = 1 << 16;

/// The most zones. The block layer keeps a byte for each of them, all in one piece of memory, and
/// the kernel warns of a piece that is longer than the page allocator can give.
const MAX_ZONES: u64 = 1 << 22;

/// Reads the limits of the zones, if the disk has any, which is of `capacity` sectors.
///
/// # Errors
///
/// `EINVAL` if the device shows an impossible value.
pub(crate) fn read_limits(
    dev: &Device<device::Bound>,
    capacity: u64,
    limits: &mut Limits,
) -> Result {
    match dev.read_if(feature::ZONED, config::ZONE_MODEL) {
        // The zones of a host-aware disk are managed by the host.
        None | Some(zone::MODEL_NONE | zone::MODEL_HOST_AWARE) => return Ok(()),
        Some(zone::MODEL_HOST_MANAGED) => (),
        Some(model) => return Err(refuse(dev, "model of zones", model.into())),
    }

    if !cfg!(CONFIG_BLK_DEV_ZONED) {
        dev_err!(dev, "this kernel knows no zones\n");
        return Err(EOPNOTSUPP);
    }

    let zoned = ZonedLimits {
        zone_sectors: dev.read(config::ZONE_SECTORS),
        max_open_zones: dev.read(config::MAX_OPEN_ZONES),
        max_active_zones: dev.read(config::MAX_ACTIVE_ZONES),
        write_granularity: dev.read(config::WRITE_GRANULARITY),
        max_append_sectors: dev.read(config::MAX_APPEND_SECTORS),
    };

    if let Some((what, value)) = impossible(&zoned, capacity) {
        return Err(refuse(dev, what, value));
    }
    if dev.has_feature(feature::DISCARD) {
        dev_warn!(dev, "a zoned disk has no discards\n");
    }
    limits.set_zoned(zoned);

    Ok(())
}

/// The name and the value of a limit that is impossible, if there is one. Only the block layer
/// demands that the length of zones is a power of two; the specification does not.
fn impossible(zoned: &ZonedLimits, capacity: u64) -> Option<(&'static str, u64)> {
    let append = u64::from(zoned.max_append_sectors) << kernel::block::SECTOR_SHIFT;
    let zones = |sectors: u32| capacity.div_ceil(sectors.into());

    if !zoned.zone_sectors.is_power_of_two() {
        Some(("sectors of a zone", zoned.zone_sectors.into()))
    } else if zones(zoned.zone_sectors) > MAX_ZONES {
        Some(("number of zones", zones(zoned.zone_sectors)))
    } else if !zoned.write_granularity.is_power_of_two() {
        Some(("write granularity of zones", zoned.write_granularity.into()))
    } else if append < u64::from(zoned.write_granularity) {
        Some(("sectors of a zone append", zoned.max_append_sectors.into()))
    } else if zoned.max_open_zones > MAX_ZONES_AT_WORK {
        Some(("number of open zones", zoned.max_open_zones.into()))
    } else if zoned.max_active_zones > MAX_ZONES_AT_WORK {
        Some(("number of active zones", zoned.max_active_zones.into()))
    } else {
        None
    }
}

/// The zones of a disk.
#[pin_data]
pub(crate) struct Zones {
    /// Sectors of a zone, a power of two; `None` if there are no zones.
    pub(crate) sectors: Option<u32>,
    /// The length of the longest report in bytes.
    pub(crate) report: usize,
    /// Limits the rate of messages about reports.
    #[pin]
    pub(crate) complaints: Ratelimit,
}

impl Zones {
    /// The zones of a disk with the given limits.
    pub(crate) fn new(limits: &Limits) -> impl PinInit<Self> {
        let sectors = limits.zone_sectors();
        let report = MAX_REPORT.min(limits.max_segment_size() as usize);

        pin_init!(Self {
            sectors,
            report,
            complaints <- Ratelimit::new(),
        })
    }

    /// Whether there are any.
    pub(crate) fn is_zoned(&self) -> bool {
        self.sectors.is_some()
    }

    /// Whether two sectors are in the same zone.
    pub(crate) fn is_same(&self, one: u64, other: u64) -> bool {
        self.sectors
            .is_some_and(|sectors| (one ^ other) < u64::from(sectors))
    }
}

#[kunit_tests(virtio_blk_wce_zones)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_what_the_block_layer_takes() {
        let good = ZonedLimits {
            zone_sectors: 256,
            max_open_zones: 0,
            max_active_zones: 0,
            write_granularity: 4096,
            max_append_sectors: 8,
        };
        let bad = |change: fn(&mut ZonedLimits)| {
            let mut zoned = good;
            change(&mut zoned);
            impossible(&zoned, 1 << 21).is_some()
        };

        assert!(impossible(&good, 256 << 22).is_none());
        assert!(impossible(&good, (256 << 22) + 1).is_some());
        assert!(impossible(&good, u64::MAX).is_some());
        assert!(bad(|zoned| zoned.zone_sectors = 0));
        assert!(bad(|zoned| zoned.zone_sectors = 255));
        assert!(bad(|zoned| zoned.write_granularity = 0));
        assert!(bad(|zoned| zoned.max_append_sectors = 7));
        assert!(bad(|zoned| zoned.max_append_sectors = 0));
        assert!(bad(|zoned| zoned.max_open_zones = 0x8000_0000));
        assert!(bad(|zoned| zoned.max_active_zones = u32::MAX));
    }
}
