// SPDX-License-Identifier: GPL-2.0

//! Reports of the zones of a disk, section 5.2.6 of the virtio specification.
//!
//! The device is not trusted. The block layer keeps arrays with an element for each zone, so a
//! report has to have all zones, one after the other.

use crate::{
    call,
    command::{Command, Purpose},
    disk::VirtioBlk,
    limits::refuse, //
};
use kernel::prelude::*;
use kernel_ext::{
    block::{
        virtio_blk::{request, status, zone, Header},
        zoned::{Zone, ZoneCondition, ZoneReport, ZoneType}, //
    },
    virtio::Endian,
};

/// The length of a report's header in bytes: `struct virtio_blk_zone_report`.
const REPORT_HEADER: usize = 64;

/// The length of a zone in a report in bytes: `struct virtio_blk_zone_descriptor`.
const DESCRIPTOR: usize = 64;

/// Reports the zones, beginning with the one that has the given sector.
///
/// # Errors
///
/// `EIO` if the device fails, or describes an impossible zone; those of [`call::wait`]; `ENOMEM`.
pub(crate) fn report(blk: &VirtioBlk, sector: u64, report: &mut ZoneReport<'_>) -> Result {
    let len = u64::from(blk.zones.sectors.ok_or(EOPNOTSUPP)?);
    let capacity = report.capacity();
    let mut next = sector & !(len - 1);

    while !report.is_full() && next < capacity {
        let header = Header::new(blk.endian(), request::ZONE_REPORT, 0, next);
        let command = Command::new(header, &[], blk.zones.report, Purpose::Zones)?;
        let command = call::wait(blk, command)?;
        if command.device_status() != status::OK {
            return Err(EIO);
        }

        let start = next;
        for descriptor in descriptors(command.reply(), blk.endian()) {
            if report.is_full() || next >= capacity {
                break;
            }
            let zone = parse(descriptor, blk.endian(), next, len.min(capacity - next))
                .ok_or_else(|| complain(blk, next))?;

            report.add(zone)?;
            next += len;
        }
        if next == start {
            return Err(complain(blk, next));
        }
    }

    Ok(())
}

/// Logs that the device has described an impossible zone.
fn complain(blk: &VirtioBlk, sector: u64) -> Error {
    blk.with_device(|dev| {
        if blk.zones.complaints.allows(c"virtio_blk_wce: zones") {
            refuse(dev, "report of the zone at sector", sector);
        }
    });
    EIO
}

/// The descriptors in a report: as many as its header says, but no more than it has room for.
fn descriptors(reply: &[u8], endian: Endian) -> impl Iterator<Item = &[u8]> {
    let count = number(reply, 0, endian).unwrap_or(0);

    reply
        .get(REPORT_HEADER..)
        .unwrap_or_default()
        .chunks_exact(DESCRIPTOR)
        .take(usize::try_from(count).unwrap_or(usize::MAX))
}

/// The eight bytes at an offset, as a number.
fn number(bytes: &[u8], offset: usize, endian: Endian) -> Option<u64> {
    let bytes = bytes.get(offset..)?.first_chunk()?;

    Some(endian.u64(u64::from_ne_bytes(*bytes)))
}

/// The zone that a descriptor describes, if that is possible for a zone of `len` sectors that
/// starts at `start`.
fn parse(descriptor: &[u8], endian: Endian, start: u64, len: u64) -> Option<Zone> {
    let capacity = number(descriptor, 0, endian)?;
    let write_pointer = number(descriptor, 16, endian)?;

    if number(descriptor, 8, endian)? != start || capacity > len {
        return None;
    }

    let kind = match *descriptor.get(24)? {
        zone::CONVENTIONAL => ZoneType::Conventional,
        zone::SEQUENTIAL_WRITE_REQUIRED => ZoneType::SequentialWriteRequired,
        zone::SEQUENTIAL_WRITE_PREFERRED => ZoneType::SequentialWritePreferred,
        _ => return None,
    };
    let condition = match *descriptor.get(25)? {
        zone::NOT_WRITE_POINTER => ZoneCondition::NotWritePointer,
        zone::EMPTY => ZoneCondition::Empty,
        zone::IMPLICITLY_OPEN => ZoneCondition::ImplicitlyOpen,
        zone::EXPLICITLY_OPEN => ZoneCondition::ExplicitlyOpen,
        zone::CLOSED => ZoneCondition::Closed,
        zone::READ_ONLY => ZoneCondition::ReadOnly,
        zone::FULL => ZoneCondition::Full,
        zone::OFFLINE => ZoneCondition::Offline,
        _ => return None,
    };
    let possible = match condition {
        ZoneCondition::ReadOnly | ZoneCondition::Offline => true,
        ZoneCondition::NotWritePointer => kind == ZoneType::Conventional,
        _ => kind != ZoneType::Conventional,
    };
    if !possible {
        return None;
    }

    let write_pointer = match condition {
        ZoneCondition::NotWritePointer | ZoneCondition::ReadOnly | ZoneCondition::Offline => {
            u64::MAX
        }
        ZoneCondition::Empty => start,
        ZoneCondition::Full => start + len,
        _ if (start..start + len).contains(&write_pointer) => write_pointer,
        _ => return None,
    };

    Some(Zone {
        start,
        len,
        capacity,
        write_pointer,
        kind,
        condition,
    })
}

#[kunit_tests(virtio_blk_wce_zone_report)]
mod tests {
    use super::*;

    const ENDIAN: Endian = Endian::LITTLE;
    const LEN: u64 = 256;

    /// A descriptor of a zone at 512.
    fn descriptor(
        capacity: u64,
        start: u64,
        write_pointer: u64,
        kind: u8,
        state: u8,
    ) -> [u8; DESCRIPTOR] {
        let mut bytes = [0; DESCRIPTOR];
        let numbers = [capacity, start, write_pointer];

        for (to, from) in bytes.chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        bytes[24] = kind;
        bytes[25] = state;
        bytes
    }

    fn parsed(bytes: &[u8]) -> Option<Zone> {
        parse(bytes, ENDIAN, 512, LEN)
    }

    #[test]
    fn write_pointers_are_in_their_zone() {
        for (pointer, good) in [(511, false), (512, true), (767, true), (768, false)] {
            let bytes = descriptor(
                LEN,
                512,
                pointer,
                zone::SEQUENTIAL_WRITE_REQUIRED,
                zone::CLOSED,
            );

            assert!(parsed(&bytes).is_some() == good);
        }
    }

    #[test]
    fn zones_follow_one_another() {
        for (start, good) in [(0, false), (256, false), (512, true), (768, false)] {
            let bytes = descriptor(
                LEN,
                start,
                512,
                zone::SEQUENTIAL_WRITE_REQUIRED,
                zone::EMPTY,
            );

            assert!(parsed(&bytes).is_some() == good);
        }
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for kind in 0..=u8::MAX {
            let bytes = descriptor(LEN, 512, 512, kind, zone::EMPTY);
            assert!(parsed(&bytes).is_some() == (kind == 2 || kind == 3));
        }
        for state in 0..=u8::MAX {
            let bytes = descriptor(LEN, 512, 512, zone::SEQUENTIAL_WRITE_REQUIRED, state);
            let known = matches!(state, 1..=4 | 13..=15);
            assert!(parsed(&bytes).is_some() == known);
        }
        let conventional = descriptor(LEN, 512, 0, zone::CONVENTIONAL, zone::NOT_WRITE_POINTER);
        assert!(parsed(&conventional).is_some());
        assert!(parsed(&descriptor(LEN + 1, 512, 512, 2, 1)).is_none());
        assert!(parsed(&conventional[..40]).is_some());
        assert!(parsed(&conventional[..25]).is_none());
    }

    #[test]
    fn reports_are_as_long_as_they_are() {
        let mut reply = [0; REPORT_HEADER + 2 * DESCRIPTOR + 1];

        for (count, found) in [(0, 0), (1, 1), (2, 2), (3, 2), (u64::MAX, 2)] {
            reply[..8].copy_from_slice(&count.to_le_bytes());
            assert!(descriptors(&reply, ENDIAN).count() == found);
        }
        assert!(descriptors(&reply[..REPORT_HEADER], ENDIAN).count() == 0);
        assert!(descriptors(&reply[..7], ENDIAN).count() == 0);
    }
}
