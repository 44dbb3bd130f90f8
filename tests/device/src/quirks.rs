// SPDX-License-Identifier: GPL-2.0

//! What the device does wrong, by name.

use std::collections::HashMap;

/// Something that a device must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quirk {
    /// The used ring names a descriptor that the ring does not have.
    UsedIdRange,
    /// The used ring names a descriptor that heads no request.
    UsedIdFree,
    /// The used ring claims more bytes than the buffer has.
    UsedLength,
    /// The used ring names a request twice.
    UsedTwice,
    /// The used ring's index is a whole ring ahead of what was used.
    UsedIndex,
    /// The status byte is never written.
    StatusMissing,
    /// The status byte has a value that means nothing.
    StatusUnknown,
    /// Requests are not answered, until a `release`.
    NoAnswer,
    /// Writes are not answered, nor done, until a `release`.
    WriteKept,
    /// Flushes are not answered, nor done, until a `release`.
    FlushKept,
    /// Flushes fail.
    FlushFails,
    /// Flushes are said to be unknown.
    FlushUnknown,
    /// The serial number has no end.
    IdEndless,
    /// The request for the serial number is not known.
    IdUnsupported,
    /// The answer to SET_WCE means nothing.
    WceStatus,
    /// SET_WCE is answered with success, and nothing changes.
    WceIgnored,
    /// The capacity is another one each time that the configuration is read.
    CapacityWobbles,
    /// A zone report says that it has more zones than there can be.
    ZonesHuge,
    /// A zone report has no zones.
    ZonesNone,
    /// Zones of a report have a type that means nothing.
    ZoneType,
    /// Zones of a report are in a state that means nothing.
    ZoneState,
    /// Zones of a report start beyond the end of the disk.
    ZoneBeyond,
    /// Zones of a report all start where the disk starts: a report never ends.
    ZoneStuck,
    /// Zones of a report start so late that adding their size overflows.
    ZoneOverflow,
    /// Zones of a report have a write pointer beyond their end.
    ZonePointer,
    /// Zones of a report can take more than their size.
    ZoneCapacity,
    /// What was appended is said to be outside of the zone.
    AppendSector,
}

/// All of them, with the name and the explanation that users see.
pub const ALL: [(Quirk, &str, &str); 27] = [
    (
        Quirk::UsedIdRange,
        "used-id-range",
        "used ring: a descriptor beyond the ring",
    ),
    (
        Quirk::UsedIdFree,
        "used-id-free",
        "used ring: a descriptor that heads no request",
    ),
    (Quirk::UsedLength, "used-length", "used ring: 4 GiB written"),
    (
        Quirk::UsedTwice,
        "used-twice",
        "used ring: each request twice",
    ),
    (
        Quirk::UsedIndex,
        "used-index",
        "used ring: its index a whole ring ahead",
    ),
    (
        Quirk::StatusMissing,
        "status-missing",
        "the status byte is not written",
    ),
    (Quirk::StatusUnknown, "status-unknown", "the status is 77"),
    (
        Quirk::NoAnswer,
        "no-answer",
        "requests are kept until 'release'",
    ),
    (
        Quirk::WriteKept,
        "write-kept",
        "writes are kept until 'release'",
    ),
    (
        Quirk::FlushKept,
        "flush-kept",
        "flushes are kept until 'release'",
    ),
    (
        Quirk::FlushFails,
        "flush-fails",
        "FLUSH: the status is IOERR",
    ),
    (
        Quirk::FlushUnknown,
        "flush-unknown",
        "FLUSH: the status is UNSUPP",
    ),
    (
        Quirk::IdEndless,
        "id-endless",
        "GET_ID: 20 bytes without a NUL, in a larger buffer more",
    ),
    (
        Quirk::IdUnsupported,
        "id-unsupported",
        "GET_ID is not known",
    ),
    (
        Quirk::WceStatus,
        "wce-status",
        "SET_WCE: the status is 77, the mode changes",
    ),
    (
        Quirk::WceIgnored,
        "wce-ignored",
        "SET_WCE: the status is OK, the mode does not change",
    ),
    (
        Quirk::CapacityWobbles,
        "capacity-wobbles",
        "configuration: another capacity at each read",
    ),
    (
        Quirk::ZonesHuge,
        "zones-huge",
        "zone report: 2^64 - 1 zones",
    ),
    (Quirk::ZonesNone, "zones-none", "zone report: no zones"),
    (Quirk::ZoneType, "zone-type", "zone report: type 77"),
    (Quirk::ZoneState, "zone-state", "zone report: state 77"),
    (
        Quirk::ZoneBeyond,
        "zone-beyond",
        "zone report: starts beyond the capacity",
    ),
    (
        Quirk::ZoneStuck,
        "zone-stuck",
        "zone report: every zone starts at 0",
    ),
    (
        Quirk::ZoneOverflow,
        "zone-overflow",
        "zone report: starts at the end of 64 bits",
    ),
    (
        Quirk::ZonePointer,
        "zone-pointer",
        "zone report: write pointer beyond the zone",
    ),
    (
        Quirk::ZoneCapacity,
        "zone-capacity",
        "zone report: capacity larger than the zone",
    ),
    (
        Quirk::AppendSector,
        "append-sector",
        "zone append: a sector of another zone",
    ),
];

/// What is wrong at the moment, and how often it was done.
#[derive(Default)]
pub struct Quirks {
    /// With the number of times that are left, if that is limited.
    active: HashMap<Quirk, Option<u32>>,
    done: HashMap<Quirk, u32>,
}

impl Quirks {
    /// Finds a quirk by its name.
    pub fn find(name: &str) -> Result<Quirk, String> {
        ALL.iter()
            .find(|(_, known, _)| *known == name)
            .map(|(quirk, _, _)| *quirk)
            .ok_or_else(|| format!("no misbehaviour is named {name:?}"))
    }

    /// Takes `NAME` or `NAME:TIMES`.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (name, times) = match text.split_once(':') {
            Some((name, times)) => {
                let times = times
                    .parse()
                    .map_err(|_| format!("{times:?} is no number"))?;
                (name, Some(times))
            }
            None => (text, None),
        };

        self.active.insert(Self::find(name)?, times);
        Ok(())
    }

    /// Ends all of them. What was done remains known.
    pub fn clear(&mut self) {
        self.active.clear();
    }

    /// Whether to do this, without counting it.
    pub fn is_active(&self, quirk: Quirk) -> bool {
        self.active.contains_key(&quirk)
    }

    /// Whether to do this now; counts it.
    pub fn take(&mut self, quirk: Quirk) -> bool {
        match self.active.get_mut(&quirk) {
            None | Some(Some(0)) => return false,
            Some(Some(times)) => *times -= 1,
            Some(None) => (),
        }
        *self.done.entry(quirk).or_default() += 1;
        true
    }

    /// How often it was done.
    pub fn done(&self, quirk: Quirk) -> u32 {
        self.done.get(&quirk).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_listed_once() {
        for (index, (quirk, name, _)) in ALL.iter().enumerate() {
            assert_eq!(Quirks::find(name), Ok(*quirk));
            assert!(ALL[..index].iter().all(|(other, _, _)| other != quirk));
        }
    }

    #[test]
    fn times_are_counted_down() {
        let mut quirks = Quirks::default();
        assert!(!quirks.take(Quirk::NoAnswer));
        quirks.add("no-answer:2").unwrap();
        assert!(quirks.take(Quirk::NoAnswer) && quirks.take(Quirk::NoAnswer));
        assert!(!quirks.take(Quirk::NoAnswer));
        assert_eq!(quirks.done(Quirk::NoAnswer), 2);
        assert!(quirks.add("no-answer:x").is_err() && quirks.add("nonsense").is_err());
    }
}
