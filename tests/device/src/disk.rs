// SPDX-License-Identifier: GPL-2.0

//! The medium: a file, or memory if none is named.

use crate::options::Options;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
};
use vmm_sys_util::tempfile::TempFile;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// What is read and written.
pub struct Disk {
    file: File,
    sectors: u64,
    /// Whether a write is on stable storage when it has ended.
    pub write_through: bool,
}

impl Disk {
    /// Opens the file, and makes it as long as the disk is to be.
    pub fn open(options: &Options) -> io::Result<Self> {
        let file = match &options.file {
            Some(path) => OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?,
            None => TempFile::new()?.into_file(),
        };

        file.set_len(options.sectors * SECTOR)?;
        Ok(Self {
            file,
            sectors: options.sectors,
            write_through: false,
        })
    }

    fn offset(&self, sector: u64, bytes: u64) -> io::Result<u64> {
        let sectors = bytes.div_ceil(SECTOR);

        match sector.checked_add(sectors) {
            Some(end) if end <= self.sectors && bytes % SECTOR == 0 => Ok(sector * SECTOR),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Reads `bytes` bytes.
    pub fn read(&self, sector: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let offset = self.offset(sector, bytes as u64)?;
        let mut data = vec![0; bytes];

        self.file.read_exact_at(&mut data, offset)?;
        Ok(data)
    }

    /// Writes whole sectors.
    pub fn write(&self, sector: u64, data: &[u8]) -> io::Result<()> {
        self.file
            .write_all_at(data, self.offset(sector, data.len() as u64)?)?;
        if self.write_through {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Replaces sectors by zeroes.
    pub fn clear(&self, sector: u64, sectors: u64) -> io::Result<()> {
        const STEP: u64 = 2048;
        let zeroes = [0; (STEP * SECTOR) as usize];
        let end = sector
            .checked_add(sectors)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut next = sector;

        while next < end {
            let now = STEP.min(end - next);
            self.write(next, &zeroes[..(now * SECTOR) as usize])?;
            next += now;
        }
        Ok(())
    }

    /// Puts all that was written on stable storage.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
