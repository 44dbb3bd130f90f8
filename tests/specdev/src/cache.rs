// SPDX-License-Identifier: GPL-2.0

//! The image, whose page cache is the disk's volatile cache, and the mode by which writes complete.

use crate::protocol::SECTOR;
use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    sync::{
        atomic::{AtomicBool, Ordering},
        Mutex, PoisonError, RwLock,
    },
};

/// How writes complete: what the extension calls the mode in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It may be in a volatile cache then.
    WriteBack,
    /// It is in persistent storage then.
    WriteThrough,
}

/// What is on the disk.
pub struct Medium {
    image: File,
    /// Bytes.
    length: u64,
    /// A write holds it shared while it completes, and a change of the mode alone: so no write that
    /// is completed was in doubt of the mode.
    mode: RwLock<Mode>,
    /// The mode of a device that was reset.
    first: Mode,
    /// A switch at a time, each of which sees the end of the one before.
    switching: Mutex<()>,
    /// Whether an attempt to make the page cache persistent has failed. Linux tells of such a
    /// failure once, to somebody, and forgets what could not be written: nothing can be promised
    /// after that.
    failed: Mutex<bool>,
    /// What "wce" shows.
    shown: AtomicBool,
}

impl Medium {
    /// A disk of a file.
    pub fn new(image: File, write_through: bool) -> io::Result<Self> {
        let length = image.metadata()?.len() / SECTOR * SECTOR;
        let first = if write_through {
            Mode::WriteThrough
        } else {
            Mode::WriteBack
        };

        Ok(Self {
            image,
            length,
            mode: RwLock::new(first),
            first,
            switching: Mutex::new(()),
            failed: Mutex::new(false),
            shown: AtomicBool::new(!write_through),
        })
    }

    /// Sectors of the disk.
    pub fn sectors(&self) -> u64 {
        self.length / SECTOR
    }

    /// What "wce" shows: whether the device writes back.
    pub fn shows_write_back(&self) -> bool {
        self.shown.load(Ordering::SeqCst)
    }

    /// "Upon reset the mode MUST be the one that the device started with." No request is under way.
    pub fn reset(&self) {
        let _one = self
            .switching
            .lock()
            .unwrap_or_else(PoisonError::into_inner);

        self.become_mode(self.first);
    }

    fn become_mode(&self, mode: Mode) {
        // The device MUST NOT write back before it shows that, nor show the other before it is so.
        if mode == Mode::WriteBack {
            self.shown.store(true, Ordering::SeqCst);
        }
        *self.mode.write().unwrap_or_else(PoisonError::into_inner) = mode;
        if mode == Mode::WriteThrough {
            self.shown.store(false, Ordering::SeqCst);
        }
    }

    fn offset(&self, sector: u64, bytes: u64) -> io::Result<u64> {
        let offset = sector.checked_mul(SECTOR);
        let end = offset.and_then(|offset| offset.checked_add(bytes));

        match (offset, end) {
            (Some(offset), Some(end)) if end <= self.length && bytes % SECTOR == 0 => Ok(offset),
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }

    /// Reads sectors.
    pub fn read(&self, sector: u64, data: &mut [u8]) -> io::Result<()> {
        let offset = self.offset(sector, data.len() as u64)?;

        self.image.read_exact_at(data, offset)
    }

    /// Writes sectors, and completes the write by `complete`, when the mode allows that.
    pub fn write<T>(
        &self,
        sector: u64,
        data: &[u8],
        complete: impl FnOnce(io::Result<()>) -> T,
    ) -> T {
        let mut done = self
            .offset(sector, data.len() as u64)
            .and_then(|offset| self.image.write_all_at(data, offset));
        let mode = self.mode.read().unwrap_or_else(PoisonError::into_inner);

        if done.is_ok() && *mode == Mode::WriteThrough {
            done = self.flush();
        }
        complete(done)
    }

    /// Makes persistent what has been written.
    pub fn flush(&self) -> io::Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);

        if *failed {
            return Err(ErrorKind::Other.into());
        }
        self.image.sync_data().inspect_err(|_| *failed = true)
    }

    /// Switches the cache. If that fails the mode is what it was.
    pub fn switch(&self, mode: Mode) -> io::Result<()> {
        let _one = self
            .switching
            .lock()
            .unwrap_or_else(PoisonError::into_inner);

        if mode == Mode::WriteBack {
            self.become_mode(mode);
            return Ok(());
        }
        if *self.mode.read().unwrap_or_else(PoisonError::into_inner) == mode {
            return Ok(());
        }
        // Others go on during the first of these; what has ended since then is little.
        self.flush()?;
        let mut now = self.mode.write().unwrap_or_else(PoisonError::into_inner);
        self.flush()?;
        *now = mode;
        self.shown.store(false, Ordering::SeqCst);
        Ok(())
    }
}
