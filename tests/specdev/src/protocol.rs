// SPDX-License-Identifier: GPL-2.0

//! The numbers of the specification's section 5.2, and those of the extension.

/// Bits of features, by their numbers (5.2.3).
pub mod feature {
    pub const SEG_MAX: u32 = 2;
    pub const RO: u32 = 5;
    pub const BLK_SIZE: u32 = 6;
    pub const FLUSH: u32 = 9;
    pub const CONFIG_WCE: u32 = 11;
    pub const MQ: u32 = 12;
    pub const WRITE_ZEROES: u32 = 14;
    /// "Numbers" of the extension.
    pub const SET_WCE: u32 = 23;
    pub const VERSION_1: u32 = 32;
}

/// Types of requests (5.2.6).
pub mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const WRITE_ZEROES: u32 = 13;
    /// "Numbers" of the extension.
    pub const SET_WCE: u32 = 33;
}

/// What a request is answered with (5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok = 0,
    IoErr = 1,
    Unsupp = 2,
}

/// Bytes of a sector, whatever the size of a block is.
pub const SECTOR: u64 = 512;
/// Bytes of the header of a request: type, reserved, sector.
pub const HEADER: usize = 16;
/// Bytes of the answer to GET_ID.
pub const ID: usize = 20;
/// Bytes of a range of WRITE_ZEROES: sector, number of sectors, flags.
pub const RANGE: usize = 16;
/// The most segments of a request.
pub const SEG_MAX: u32 = 126;
/// The most sectors of a range of WRITE_ZEROES.
pub const MAX_ZEROES: u32 = 1 << 15;

/// Where fields of the configuration space are (5.2.4).
pub mod field {
    pub const CAPACITY: usize = 0;
    pub const SEG_MAX: usize = 12;
    pub const BLK_SIZE: usize = 20;
    /// What the specification calls writeback.
    pub const WCE: usize = 32;
    pub const NUM_QUEUES: usize = 34;
    pub const MAX_WRITE_ZEROES_SECTORS: usize = 48;
    pub const MAX_WRITE_ZEROES_SEG: usize = 52;
    /// Bytes of all of them, those of zoned devices included.
    pub const END: usize = 96;
}
