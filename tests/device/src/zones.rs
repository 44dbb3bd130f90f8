// SPDX-License-Identifier: GPL-2.0

//! Host-managed zones, section 5.2.6 of the virtio specification.

use crate::{
    disk::SECTOR,
    quirks::{Quirk, Quirks},
};
use std::mem::size_of;
use virtio_bindings::virtio_blk as blk;

/// Bytes of the head of a report, and of each zone in it.
const REPORT_HEAD: usize = size_of::<blk::virtio_blk_zone_report>();
const DESCRIPTOR: usize = size_of::<blk::virtio_blk_zone_descriptor>();

/// A status byte that says what is wrong with a request.
pub type Refusal = u8;

const INVALID: Refusal = blk::VIRTIO_BLK_S_ZONE_INVALID_CMD as u8;
const UNALIGNED: Refusal = blk::VIRTIO_BLK_S_ZONE_UNALIGNED_WP as u8;
const NO_OPEN: Refusal = blk::VIRTIO_BLK_S_ZONE_OPEN_RESOURCE as u8;
const NO_ACTIVE: Refusal = blk::VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE as u8;

/// What all zones have in common; sizes in sectors, and the granularity in bytes.
#[derive(Clone)]
pub struct Shape {
    pub sectors: u32,
    pub conventional: usize,
    pub capacity: u32,
    pub max_open: u32,
    pub max_active: u32,
    pub max_append: u32,
    pub granularity: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            sectors: 0,
            conventional: 0,
            capacity: 0,
            max_open: 0,
            max_active: 0,
            max_append: 256,
            granularity: 4096,
        }
    }
}

impl Shape {
    /// This shape, with zones of that size.
    pub fn with_size(self, sectors: u32) -> Result<Self, String> {
        let capacity = if self.capacity == 0 {
            sectors
        } else {
            self.capacity
        };

        if sectors == 0 || capacity > sectors {
            return Err("zones of that size, or of that capacity, are impossible".into());
        }
        Ok(Self {
            sectors,
            capacity,
            ..self
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    NoPointer,
    Empty,
    ImplicitlyOpen,
    ExplicitlyOpen,
    Closed,
    Full,
}

impl State {
    fn is_open(self) -> bool {
        matches!(self, Self::ImplicitlyOpen | Self::ExplicitlyOpen)
    }

    fn is_active(self) -> bool {
        self.is_open() || self == Self::Closed
    }

    fn number(self) -> u8 {
        (match self {
            Self::NoPointer => blk::VIRTIO_BLK_ZS_NOT_WP,
            Self::Empty => blk::VIRTIO_BLK_ZS_EMPTY,
            Self::ImplicitlyOpen => blk::VIRTIO_BLK_ZS_IOPEN,
            Self::ExplicitlyOpen => blk::VIRTIO_BLK_ZS_EOPEN,
            Self::Closed => blk::VIRTIO_BLK_ZS_CLOSED,
            Self::Full => blk::VIRTIO_BLK_ZS_FULL,
        }) as u8
    }
}

struct Zone {
    start: u64,
    sectors: u64,
    capacity: u64,
    pointer: u64,
    state: State,
}

impl Zone {
    fn end(&self) -> u64 {
        self.start + self.capacity
    }
}

/// What a driver asks of one zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Open,
    Close,
    Finish,
    Reset,
}

/// The zones of a disk.
pub struct Zones {
    shape: Shape,
    zones: Vec<Zone>,
}

impl Zones {
    /// The zones of a disk of that many sectors; the last one may be smaller.
    pub fn new(shape: Shape, sectors: u64) -> Self {
        let size = u64::from(shape.sectors);
        let zones = (0..sectors.div_ceil(size))
            .map(|index| {
                let start = index * size;
                let length = size.min(sectors - start);
                let conventional = (index as usize) < shape.conventional;
                Zone {
                    start,
                    sectors: length,
                    capacity: if conventional {
                        length
                    } else {
                        length.min(shape.capacity.into())
                    },
                    pointer: start,
                    state: if conventional {
                        State::NoPointer
                    } else {
                        State::Empty
                    },
                }
            })
            .collect();

        Self { shape, zones }
    }

    fn index(&self, sector: u64) -> Result<usize, Refusal> {
        let index = (sector / u64::from(self.shape.sectors)) as usize;

        if index < self.zones.len() {
            Ok(index)
        } else {
            Err(INVALID)
        }
    }

    /// The zone that starts at this sector, and has a write pointer.
    fn starting_at(&self, sector: u64) -> Result<usize, Refusal> {
        let index = self.index(sector)?;
        let zone = &self.zones[index];

        if zone.start == sector && zone.state != State::NoPointer {
            Ok(index)
        } else {
            Err(INVALID)
        }
    }

    fn count(&self, of: fn(State) -> bool) -> usize {
        self.zones.iter().filter(|zone| of(zone.state)).count()
    }

    /// Opens a zone, at the cost of one that is open only because something was written to it.
    fn open(&mut self, index: usize, state: State) -> Result<(), Refusal> {
        let before = self.zones[index].state;
        let at_most = |limit: u32, used| limit != 0 && used >= limit as usize;

        if before == State::Full {
            return Err(INVALID);
        }
        if !before.is_active() && at_most(self.shape.max_active, self.count(State::is_active)) {
            return Err(NO_ACTIVE);
        }
        if !before.is_open() && at_most(self.shape.max_open, self.count(State::is_open)) {
            let other = self
                .zones
                .iter()
                .position(|zone| zone.state == State::ImplicitlyOpen);
            self.zones[other.ok_or(NO_OPEN)?].state = State::Closed;
        }
        self.zones[index].state = state;
        Ok(())
    }

    fn advance(&mut self, index: usize, sectors: u64) -> Result<(), Refusal> {
        if self.zones[index].state != State::ExplicitlyOpen {
            self.open(index, State::ImplicitlyOpen)?;
        }

        let zone = &mut self.zones[index];
        zone.pointer += sectors;
        if zone.pointer == zone.end() {
            zone.state = State::Full;
        }
        Ok(())
    }

    fn is_whole(&self, sectors: u64) -> bool {
        sectors * SECTOR % u64::from(self.shape.granularity) == 0
    }

    /// Admits a write, and moves the write pointer for it.
    pub fn write(&mut self, sector: u64, sectors: u64) -> Result<(), Refusal> {
        if sectors == 0 {
            return Ok(());
        }
        let index = self.index(sector)?;
        let last = self.index(sector.checked_add(sectors - 1).ok_or(INVALID)?)?;
        let zone = &self.zones[index];

        if self.zones[index..=last]
            .iter()
            .all(|zone| zone.state == State::NoPointer)
        {
            return Ok(());
        }
        if index != last || sector + sectors > zone.end() || zone.state == State::Full {
            return Err(INVALID);
        }
        if sector != zone.pointer || !self.is_whole(sectors) {
            return Err(UNALIGNED);
        }
        self.advance(index, sectors)
    }

    /// Admits an append to the zone that starts at `sector`, and tells where it goes.
    pub fn append(&mut self, sector: u64, sectors: u64) -> Result<u64, Refusal> {
        let index = self.starting_at(sector)?;
        let pointer = self.zones[index].pointer;

        if sectors == 0
            || sectors > self.shape.max_append.into()
            || pointer + sectors > self.zones[index].end()
        {
            return Err(INVALID);
        }
        if !self.is_whole(sectors) {
            return Err(UNALIGNED);
        }
        self.advance(index, sectors)?;
        Ok(pointer)
    }

    /// Does something with the zone that starts at `sector`. Returns the sectors whose content is
    /// gone by that.
    pub fn manage(&mut self, action: Action, sector: u64) -> Result<(u64, u64), Refusal> {
        let index = self.starting_at(sector)?;
        let state = self.zones[index].state;

        match (action, state) {
            (Action::Open, State::ExplicitlyOpen)
            | (Action::Close, State::Closed)
            | (Action::Finish, State::Full)
            | (Action::Reset, State::Empty) => (),
            (Action::Open, _) => self.open(index, State::ExplicitlyOpen)?,
            (Action::Close, State::Empty | State::Full) => return Err(INVALID),
            (Action::Close, _) => {
                let zone = &mut self.zones[index];
                let unused = zone.pointer == zone.start;
                zone.state = if unused { State::Empty } else { State::Closed };
            }
            (Action::Finish, _) => {
                // To finish an empty zone takes what to open it takes.
                if state == State::Empty {
                    self.open(index, State::ImplicitlyOpen)?;
                }
                let zone = &mut self.zones[index];
                zone.state = State::Full;
                zone.pointer = zone.end();
            }
            (Action::Reset, _) => {
                let zone = &mut self.zones[index];
                zone.state = State::Empty;
                zone.pointer = zone.start;
                return Ok((zone.start, zone.sectors));
            }
        }
        Ok((0, 0))
    }

    /// The first sectors of all zones that can be reset.
    pub fn resettable(&self) -> Vec<u64> {
        let sequential = self
            .zones
            .iter()
            .filter(|zone| zone.state != State::NoPointer);

        sequential.map(|zone| zone.start).collect()
    }

    /// A report from the zone that `sector` is in, as far as `room` bytes go.
    pub fn report(
        &self,
        sector: u64,
        room: usize,
        quirks: &mut Quirks,
    ) -> Result<Vec<u8>, Refusal> {
        let first = self.index(sector)?;
        let fit = room.checked_sub(REPORT_HEAD).ok_or(INVALID)? / DESCRIPTOR;
        let zones = &self.zones[first..];
        let zones = &zones[..fit.min(zones.len())];

        let mut number = zones.len() as u64;
        if quirks.take(Quirk::ZonesHuge) {
            number = u64::MAX;
        }
        if quirks.take(Quirk::ZonesNone) {
            number = 0;
        }

        let mut report = number.to_le_bytes().to_vec();
        report.resize(REPORT_HEAD, 0);
        let total = self
            .zones
            .last()
            .map_or(0, |last| last.start + last.sectors);
        for zone in zones {
            let mut descriptor = describe(zone);
            spoil(&mut descriptor, total, zone.sectors, quirks);
            report.extend(descriptor);
        }
        Ok(report)
    }
}

const START: usize = 8;
const POINTER: usize = 16;
const TYPE: usize = 24;
const STATE: usize = 25;

fn describe(zone: &Zone) -> [u8; DESCRIPTOR] {
    let mut bytes = [0; DESCRIPTOR];
    let conventional = zone.state == State::NoPointer;

    put(&mut bytes, 0, zone.capacity);
    put(&mut bytes, START, zone.start);
    // Nothing is said of it where there is none.
    put(
        &mut bytes,
        POINTER,
        if conventional { u64::MAX } else { zone.pointer },
    );
    bytes[TYPE] = if conventional {
        blk::VIRTIO_BLK_ZT_CONV as u8
    } else {
        blk::VIRTIO_BLK_ZT_SWR as u8
    };
    bytes[STATE] = zone.state.number();
    bytes
}

fn put(bytes: &mut [u8], offset: usize, value: u64) {
    bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
}

/// Makes a zone's description wrong.
fn spoil(bytes: &mut [u8; DESCRIPTOR], total: u64, sectors: u64, quirks: &mut Quirks) {
    if quirks.take(Quirk::ZoneType) {
        bytes[TYPE] = 77;
    }
    if quirks.take(Quirk::ZoneState) {
        bytes[STATE] = 77;
    }
    if quirks.take(Quirk::ZoneBeyond) {
        put(bytes, START, total + sectors);
    }
    if quirks.take(Quirk::ZoneStuck) {
        put(bytes, START, 0);
    }
    if quirks.take(Quirk::ZoneOverflow) {
        put(bytes, START, u64::MAX - sectors + 1);
    }
    if quirks.take(Quirk::ZonePointer) {
        put(bytes, POINTER, total + sectors);
        bytes[STATE] = blk::VIRTIO_BLK_ZS_CLOSED as u8;
    }
    if quirks.take(Quirk::ZoneCapacity) {
        put(bytes, 0, sectors + 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(max_open: u32, max_active: u32) -> Zones {
        let shape = Shape {
            conventional: 1,
            capacity: 96,
            max_open,
            max_active,
            ..Shape::default()
        };
        Zones::new(shape.with_size(128).unwrap(), 128 * 4 + 64)
    }

    #[test]
    fn writes_go_where_the_pointer_is() {
        let mut zones = zones(0, 0);
        assert_eq!(zones.write(100, 8), Ok(()), "conventional");
        assert_eq!(zones.write(120, 16), Err(INVALID), "into the next zone");
        assert_eq!(zones.write(136, 8), Err(UNALIGNED));
        assert_eq!(
            zones.write(128, 4),
            Err(UNALIGNED),
            "less than the granularity"
        );
        assert_eq!(zones.write(128, 8), Ok(()));
        assert_eq!(zones.write(128, 8), Err(UNALIGNED), "not again");
        assert_eq!(zones.write(136, 96), Err(INVALID), "beyond the capacity");
        assert_eq!(zones.write(136, 88), Ok(()));
        assert_eq!(zones.zones[1].state, State::Full);
        assert_eq!(zones.write(224, 8), Err(INVALID));
        assert_eq!(zones.write(u64::MAX, 8), Err(INVALID));
    }

    #[test]
    fn appends_tell_where_they_went() {
        let mut zones = zones(0, 0);
        assert_eq!(zones.append(128, 8), Ok(128));
        assert_eq!(zones.append(128, 80), Ok(136));
        assert_eq!(zones.append(128, 16), Err(INVALID), "no room");
        assert_eq!(zones.append(128, 8), Ok(216));
        assert_eq!(zones.append(128, 8), Err(INVALID), "full");
        assert_eq!(zones.append(0, 8), Err(INVALID), "conventional");
        assert_eq!(
            zones.append(260, 8),
            Err(INVALID),
            "not where a zone starts"
        );
    }

    #[test]
    fn open_zones_are_limited() {
        let mut zones = zones(1, 2);
        assert_eq!(zones.write(128, 8), Ok(()));
        assert_eq!(
            zones.manage(Action::Open, 256),
            Ok((0, 0)),
            "closes the first one"
        );
        assert_eq!(zones.zones[1].state, State::Closed);
        assert_eq!(zones.manage(Action::Open, 384), Err(NO_ACTIVE));
        assert_eq!(
            zones.write(136, 8),
            Err(NO_OPEN),
            "not one that was opened on purpose"
        );
        assert_eq!(zones.manage(Action::Close, 256), Ok((0, 0)));
        assert_eq!(
            zones.zones[2].state,
            State::Empty,
            "nothing was written to it"
        );
        assert_eq!(zones.write(136, 8), Ok(()));
    }

    #[test]
    fn zones_are_finished_and_reset() {
        let mut zones = zones(0, 0);
        assert_eq!(zones.manage(Action::Finish, 128), Ok((0, 0)));
        assert_eq!(zones.zones[1].pointer, 224);
        assert_eq!(zones.manage(Action::Close, 128), Err(INVALID));
        assert_eq!(zones.manage(Action::Reset, 128), Ok((128, 128)));
        assert_eq!(zones.write(128, 8), Ok(()));
        assert_eq!(zones.manage(Action::Reset, 0), Err(INVALID), "conventional");
        assert_eq!(zones.resettable(), [128, 256, 384, 512]);
    }

    #[test]
    fn a_report_has_what_fits() {
        let mut quirks = Quirks::default();
        let report = zones(0, 0).report(130, 64 * 3 + 63, &mut quirks).unwrap();
        assert_eq!(report.len(), 64 * 3);
        assert_eq!(report[0], 2);
        assert_eq!(report[64 + START..64 + START + 2], 128_u16.to_le_bytes());
        let last = zones(0, 0).report(512, 4096, &mut quirks).unwrap();
        assert_eq!((last[0], last[64]), (1, 64), "the last one is smaller");
    }
}
