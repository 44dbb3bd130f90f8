// SPDX-License-Identifier: GPL-2.0

//! What a request does, and what is answered.

use crate::{
    config::{Config, MAX_RANGE, MAX_RANGES},
    disk::{Disk, SECTOR},
    options::{Options, VIRTIO_BLK_F_SET_WCE},
    quirks::{Quirk, Quirks},
    zones::{Action, Zones},
};
use std::{collections::HashMap, io, mem::size_of};
use virtio_bindings::virtio_blk as blk;

/// Switching the write cache by a request: include/uapi/linux/virtio_blk_wce.h.
const VIRTIO_BLK_T_SET_WCE: u32 = 33;

const OK: u8 = blk::VIRTIO_BLK_S_OK as u8;
const IOERR: u8 = blk::VIRTIO_BLK_S_IOERR as u8;
const UNSUPP: u8 = blk::VIRTIO_BLK_S_UNSUPP as u8;

/// The status of quirks, which means nothing.
const NONSENSE: u8 = 77;

/// Bytes of a range of a discard.
const RANGE: usize = size_of::<blk::virtio_blk_discard_write_zeroes>();

/// The head of a request.
#[derive(Clone, Copy)]
pub struct Header {
    pub kind: u32,
    pub priority: u32,
    pub sector: u64,
}

impl Header {
    /// Bytes of it.
    pub const SIZE: usize = size_of::<blk::virtio_blk_outhdr>();

    /// Reads what the driver has written.
    pub fn parse(bytes: &[u8; Self::SIZE]) -> Self {
        let [k0, k1, k2, k3, p0, p1, p2, p3, sector @ ..] = *bytes;

        Self {
            kind: u32::from_le_bytes([k0, k1, k2, k3]),
            priority: u32::from_le_bytes([p0, p1, p2, p3]),
            sector: u64::from_le_bytes(sector),
        }
    }
}

/// What the device writes.
pub struct Answer {
    /// Data, from the start. For an append it is the sector; the kernel's own driver leaves room
    /// between that and the status.
    pub data: Vec<u8>,
    /// The last byte.
    pub status: u8,
}

impl From<Result<Vec<u8>, u8>> for Answer {
    fn from(outcome: Result<Vec<u8>, u8>) -> Self {
        let (data, status) = match outcome {
            Ok(data) => (data, OK),
            Err(status) => (Vec::new(), status),
        };
        Self { data, status }
    }
}

/// All of the device but its connection with the driver.
pub struct Device {
    pub disk: Disk,
    pub config: Config,
    pub quirks: Quirks,
    pub features: u64,
    /// The priority that the last write had.
    pub priority: u32,
    /// How many requests of each type were executed.
    pub requests: HashMap<u32, u64>,
    zones: Option<Zones>,
    serial: String,
    starts_write_back: bool,
}

impl Device {
    /// A device that was not started by a driver yet.
    pub fn new(options: &Options) -> Result<Self, String> {
        let mut config = Config::new(options);
        let mut quirks = Quirks::default();

        for text in &options.config_raw {
            config.set_raw(text)?;
        }
        for text in &options.misbehave {
            quirks.add(text)?;
        }
        Ok(Self {
            disk: Disk::open(options).map_err(|err| err.to_string())?,
            quirks,
            features: 0,
            priority: 0,
            requests: HashMap::new(),
            zones: options
                .zoned
                .clone()
                .map(|shape| Zones::new(shape, options.sectors)),
            serial: options.serial.clone(),
            starts_write_back: config.write_back(),
            config,
        })
    }

    /// A driver starts it, with these features.
    pub fn start(&mut self, features: u64) {
        self.features = features;
        if self.config.write_back() != self.starts_write_back {
            self.config.set_write_back(self.starts_write_back);
        }
        self.disk.write_through = !self.config.write_back();
    }

    /// Whether the driver has accepted a feature.
    pub fn has(&self, feature: u32) -> bool {
        (self.features >> feature) & 1 != 0
    }

    /// Changes the mode of the write cache.
    pub fn set_write_back(&mut self, write_back: bool) -> io::Result<()> {
        self.disk.flush()?;
        self.config.set_write_back(write_back);
        self.disk.write_through = !write_back;
        Ok(())
    }

    /// Does what a request asks for, with `room` bytes for data of the answer.
    pub fn execute(&mut self, header: Header, payload: &[u8], room: usize) -> Answer {
        *self.requests.entry(header.kind).or_default() += 1;

        let mut answer: Answer = self.answer_data(header, payload, room).into();
        if self.quirks.take(Quirk::StatusUnknown) {
            answer.status = NONSENSE;
        }
        answer
    }

    fn answer_data(&mut self, header: Header, payload: &[u8], room: usize) -> Result<Vec<u8>, u8> {
        let done = |outcome: io::Result<()>| outcome.map(|()| Vec::new()).map_err(|_| IOERR);

        match header.kind {
            blk::VIRTIO_BLK_T_IN => self.disk.read(header.sector, room).map_err(|_| IOERR),
            blk::VIRTIO_BLK_T_OUT => {
                self.priority = header.priority;
                if let Some(zones) = &mut self.zones {
                    zones.write(header.sector, payload.len() as u64 / SECTOR)?;
                }
                done(self.disk.write(header.sector, payload))
            }
            blk::VIRTIO_BLK_T_ZONE_APPEND => self.append(header.sector, payload),
            blk::VIRTIO_BLK_T_FLUSH if self.quirks.take(Quirk::FlushFails) => Err(IOERR),
            blk::VIRTIO_BLK_T_FLUSH if self.quirks.take(Quirk::FlushUnknown) => Err(UNSUPP),
            blk::VIRTIO_BLK_T_FLUSH => done(self.disk.flush()),
            blk::VIRTIO_BLK_T_GET_ID if self.quirks.take(Quirk::IdUnsupported) => Err(UNSUPP),
            blk::VIRTIO_BLK_T_GET_ID => Ok(self.id(room)),
            blk::VIRTIO_BLK_T_DISCARD if self.has(blk::VIRTIO_BLK_F_DISCARD) => {
                self.clear(payload, 0)
            }
            blk::VIRTIO_BLK_T_WRITE_ZEROES if self.has(blk::VIRTIO_BLK_F_WRITE_ZEROES) => {
                self.clear(payload, blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)
            }
            blk::VIRTIO_BLK_T_SECURE_ERASE if self.has(blk::VIRTIO_BLK_F_SECURE_ERASE) => {
                self.clear(payload, 0)
            }
            VIRTIO_BLK_T_SET_WCE => self.set_wce(payload),
            blk::VIRTIO_BLK_T_ZONE_REPORT => {
                let zones = self.zones.as_ref().ok_or(UNSUPP)?;
                zones.report(header.sector, room, &mut self.quirks)
            }
            blk::VIRTIO_BLK_T_ZONE_OPEN => self.manage(Action::Open, header.sector),
            blk::VIRTIO_BLK_T_ZONE_CLOSE => self.manage(Action::Close, header.sector),
            blk::VIRTIO_BLK_T_ZONE_FINISH => self.manage(Action::Finish, header.sector),
            blk::VIRTIO_BLK_T_ZONE_RESET => self.manage(Action::Reset, header.sector),
            blk::VIRTIO_BLK_T_ZONE_RESET_ALL => {
                for sector in self.zones.as_ref().ok_or(UNSUPP)?.resettable() {
                    self.manage(Action::Reset, sector)?;
                }
                Ok(Vec::new())
            }
            _ => Err(UNSUPP),
        }
    }

    fn id(&mut self, room: usize) -> Vec<u8> {
        if self.quirks.take(Quirk::IdEndless) {
            return vec![b'x'; room];
        }

        let mut id = self.serial.clone().into_bytes();
        id.resize(blk::VIRTIO_BLK_ID_BYTES as usize, 0);
        id
    }

    fn set_wce(&mut self, payload: &[u8]) -> Result<Vec<u8>, u8> {
        if !self.has(VIRTIO_BLK_F_SET_WCE) {
            return Err(UNSUPP);
        }
        let [wce] = *payload else {
            return Err(IOERR);
        };
        if wce > 1 {
            return Err(UNSUPP);
        }
        if !self.quirks.take(Quirk::WceIgnored) {
            self.set_write_back(wce != 0).map_err(|_| IOERR)?;
        }
        if self.quirks.take(Quirk::WceStatus) {
            return Err(NONSENSE);
        }
        Ok(Vec::new())
    }

    /// Clears the ranges of a discard or what is like it.
    fn clear(&mut self, payload: &[u8], known_flags: u32) -> Result<Vec<u8>, u8> {
        let ranges = payload.chunks_exact(RANGE);

        if payload.is_empty()
            || !ranges.remainder().is_empty()
            || ranges.len() > MAX_RANGES as usize
        {
            return Err(IOERR);
        }
        for range in ranges {
            let word = |at: usize| [range[at], range[at + 1], range[at + 2], range[at + 3]];
            let low = u32::from_le_bytes(word(0));
            let high = u32::from_le_bytes(word(4));
            let sectors = u32::from_le_bytes(word(8));

            if u32::from_le_bytes(word(12)) & !known_flags != 0 {
                return Err(UNSUPP);
            }
            if sectors > MAX_RANGE {
                return Err(IOERR);
            }
            let sector = (u64::from(high) << 32) | u64::from(low);
            if let Some(zones) = &mut self.zones {
                zones.write(sector, sectors.into())?;
            }
            self.disk.clear(sector, sectors.into()).map_err(|_| IOERR)?;
        }
        Ok(Vec::new())
    }

    fn manage(&mut self, action: Action, sector: u64) -> Result<Vec<u8>, u8> {
        let zones = self.zones.as_mut().ok_or(UNSUPP)?;
        let (start, sectors) = zones.manage(action, sector)?;

        self.disk.clear(start, sectors).map_err(|_| IOERR)?;
        Ok(Vec::new())
    }

    fn append(&mut self, sector: u64, payload: &[u8]) -> Result<Vec<u8>, u8> {
        let zones = self.zones.as_mut().ok_or(UNSUPP)?;
        let at = zones.append(sector, payload.len() as u64 / SECTOR)?;

        self.disk.write(at, payload).map_err(|_| IOERR)?;
        let elsewhere = self.quirks.take(Quirk::AppendSector);
        let told = if elsewhere { 1 << 40 } else { at };
        Ok(told.to_le_bytes().to_vec())
    }
}
