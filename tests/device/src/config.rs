// SPDX-License-Identifier: GPL-2.0

//! The configuration space: bytes, so that a test can make anything of them.

use crate::options::Options;
use std::mem::{offset_of, size_of};
use virtio_bindings::virtio_blk::{
    virtio_blk_config as Layout, virtio_blk_config_virtio_blk_zoned_characteristics as Zoned,
    VIRTIO_BLK_Z_HM,
};

/// Bytes of the configuration space.
pub const SIZE: usize = size_of::<Layout>();

/// Where the mode of the write cache is.
pub const WCE: usize = offset_of!(Layout, wce);

/// The most sectors of a discard, write zeroes or secure erase.
pub const MAX_RANGE: u32 = 1 << 16;

/// The most ranges of one of these.
pub const MAX_RANGES: u32 = 8;

/// The configuration space.
#[derive(Clone)]
pub struct Config {
    bytes: [u8; SIZE],
}

impl Config {
    /// What a sound device of this shape has.
    pub fn new(options: &Options) -> Self {
        let mut config = Self { bytes: [0; SIZE] };
        let zoned = offset_of!(Layout, zoned);

        config.put(0, &options.sectors.to_le_bytes());
        config.put32(offset_of!(Layout, size_max), 1 << 20);
        config.put32(offset_of!(Layout, seg_max), 126);
        config.put32(offset_of!(Layout, blk_size), 512);
        config.put(WCE, &[1]);
        config.put(
            offset_of!(Layout, num_queues),
            &options.queues.to_le_bytes(),
        );
        config.put32(offset_of!(Layout, max_discard_sectors), MAX_RANGE);
        config.put32(offset_of!(Layout, max_discard_seg), MAX_RANGES);
        config.put32(offset_of!(Layout, discard_sector_alignment), 8);
        config.put32(offset_of!(Layout, max_write_zeroes_sectors), MAX_RANGE);
        config.put32(offset_of!(Layout, max_write_zeroes_seg), 1);
        config.put(offset_of!(Layout, write_zeroes_may_unmap), &[1]);
        config.put32(offset_of!(Layout, max_secure_erase_sectors), MAX_RANGE);
        config.put32(offset_of!(Layout, max_secure_erase_seg), MAX_RANGES);
        config.put32(offset_of!(Layout, secure_erase_sector_alignment), 8);
        if let Some(shape) = &options.zoned {
            config.put32(zoned + offset_of!(Zoned, zone_sectors), shape.sectors);
            config.put32(zoned + offset_of!(Zoned, max_open_zones), shape.max_open);
            config.put32(
                zoned + offset_of!(Zoned, max_active_zones),
                shape.max_active,
            );
            config.put32(
                zoned + offset_of!(Zoned, max_append_sectors),
                shape.max_append,
            );
            config.put32(
                zoned + offset_of!(Zoned, write_granularity),
                shape.granularity,
            );
            config.put(zoned + offset_of!(Zoned, model), &[VIRTIO_BLK_Z_HM as u8]);
        }
        config
    }

    fn put32(&mut self, offset: usize, value: u32) {
        self.put(offset, &value.to_le_bytes());
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Takes `OFFSET=HEX`, any bytes anywhere.
    pub fn set_raw(&mut self, text: &str) -> Result<(), String> {
        let wrong = || format!("{text:?} is not OFFSET=HEX within {SIZE} bytes");
        let (offset, hex) = text.split_once('=').ok_or_else(wrong)?;
        let offset: usize = offset.parse().map_err(|_| wrong())?;
        if !hex.is_ascii() || hex.len() % 2 != 0 || hex.is_empty() {
            return Err(wrong());
        }
        let bytes = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| wrong())?;

        match offset.checked_add(bytes.len()) {
            Some(end) if end <= SIZE => self.put(offset, &bytes),
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// Changes one byte.
    pub fn put_byte(&mut self, offset: usize, value: u8) {
        if let Some(byte) = self.bytes.get_mut(offset) {
            *byte = value;
        }
    }

    /// What the driver reads.
    pub fn bytes(&self) -> &[u8; SIZE] {
        &self.bytes
    }

    /// Whether the write cache is volatile.
    pub fn write_back(&self) -> bool {
        self.bytes[WCE] != 0
    }

    /// Changes the mode of the write cache.
    pub fn set_write_back(&mut self, write_back: bool) {
        self.bytes[WCE] = write_back.into();
    }
}
