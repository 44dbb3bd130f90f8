// SPDX-License-Identifier: GPL-2.0

//! What requests do (5.2.6 of the specification, and "Device operation" of the extension).

use crate::{
    cache::{Medium, Mode},
    protocol::{feature, kind, Status, HEADER, ID, MAX_ZEROES, RANGE, SECTOR},
};
use std::io;

/// The answer to GET_ID.
const NAME: &[u8; ID] = b"specdev\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn status(done: io::Result<()>) -> Status {
    match done {
        Ok(()) => Status::Ok,
        Err(_) => Status::IoErr,
    }
}

/// A request as the driver has made it: everything but the place for the answer.
pub struct Request {
    kind: u32,
    sector: u64,
    /// What follows the header.
    data: Vec<u8>,
}

impl Request {
    /// Takes one apart. Too short for a header is not a request.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, data) = bytes.split_at_checked(HEADER)?;

        Some(Self {
            kind: u32::from_le_bytes(header[0..4].try_into().ok()?),
            sector: u64::from_le_bytes(header[8..16].try_into().ok()?),
            data: data.to_vec(),
        })
    }

    /// Does it. `complete` is called once, with the status and the data for the driver, of which
    /// there is no more than `room`, at a moment at which the device may complete the request.
    pub fn execute<T>(
        &self,
        medium: &Medium,
        negotiated: u64,
        room: usize,
        complete: impl FnOnce(Status, &[u8]) -> T,
    ) -> T {
        let has = |bit: u32| negotiated & (1 << bit) != 0;

        match self.kind {
            kind::IN => {
                let mut data = vec![0; room];
                match medium.read(self.sector, &mut data) {
                    Ok(()) => complete(Status::Ok, &data),
                    Err(_) => complete(Status::IoErr, &[]),
                }
            }
            kind::OUT | kind::WRITE_ZEROES if has(feature::RO) => complete(Status::IoErr, &[]),
            kind::OUT => medium.write(self.sector, &self.data, |done| complete(status(done), &[])),
            kind::WRITE_ZEROES if has(feature::WRITE_ZEROES) => match self.zeroes() {
                Ok((sector, bytes)) => {
                    medium.write(sector, &vec![0; bytes], |done| complete(status(done), &[]))
                }
                Err(answer) => complete(answer, &[]),
            },
            kind::FLUSH if has(feature::FLUSH) => complete(status(medium.flush()), &[]),
            kind::GET_ID if room == ID => complete(Status::Ok, NAME),
            kind::SET_WCE if has(feature::SET_WCE) => complete(self.switch(medium), &[]),
            _ => complete(Status::Unsupp, &[]),
        }
    }

    /// The sector and the bytes of the one range that WRITE_ZEROES has.
    fn zeroes(&self) -> Result<(u64, usize), Status> {
        let range: &[u8; RANGE] = self.data[..].try_into().map_err(|_| Status::Unsupp)?;
        let [s @ .., n0, n1, n2, n3, f0, f1, f2, f3] = *range;
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);

        // Unmapping is permitted, and not an obligation.
        if u32::from_le_bytes([f0, f1, f2, f3]) > 1 {
            return Err(Status::Unsupp);
        }
        if sectors > MAX_ZEROES {
            return Err(Status::IoErr);
        }
        Ok((u64::from_le_bytes(s), sectors as usize * SECTOR as usize))
    }

    fn switch(&self, medium: &Medium) -> Status {
        match self.data[..] {
            [0] => status(medium.switch(Mode::WriteThrough)),
            [1] => status(medium.switch(Mode::WriteBack)),
            [_] => Status::Unsupp,
            _ => Status::IoErr,
        }
    }
}
