// SPDX-License-Identifier: GPL-2.0

//! The device of the search, as section 2 of the protocol describes one, and what becomes of writes
//! in it.

use crate::switch::{Failure, Mode, Outcome, Way};

/// Where a write is. A `bool` says whether it is on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    None,
    /// The device has it.
    Sent,
    /// The device has completed it; the driver has not decided about a flush.
    Completed(bool),
    /// A flush for it is in the device.
    Flushing(bool),
    /// Its user was told that it is on stable storage.
    Ended(bool),
}

impl Write {
    /// The device brings what it has completed to stable storage.
    pub fn harden(&mut self) {
        match self {
            Self::Completed(stable) | Self::Flushing(stable) => *stable = true,
            _ => (),
        }
    }

    pub fn is_in_device(self) -> bool {
        matches!(self, Self::Sent | Self::Flushing(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// The mode in force.
    mode: Mode,
    /// The mode in the configuration space.
    shows: Mode,
    /// A device whose mode is configured may skip flushes that writing through needs.
    skips_flushes: bool,
    /// What it is asked for and has not answered.
    asked: Option<Mode>,
    /// An answer that the driver has not taken.
    answer: Option<Outcome>,
}

impl Device {
    pub fn new(mode: Mode, way: Way) -> Self {
        Self {
            mode,
            shows: mode,
            skips_flushes: way != Way::Request,
            asked: None,
            answer: None,
        }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn shows(&self) -> Mode {
        self.shows
    }

    pub fn asked(&self) -> Option<Mode> {
        self.asked
    }

    pub fn take_answer(&mut self) -> Option<Outcome> {
        self.answer.take()
    }

    pub fn waits_for_consent(&self) -> bool {
        self.shows != self.mode
    }

    /// What becomes of a write that the device completes now.
    pub fn complete(&self) -> Write {
        Write::Completed(self.mode == Mode::WriteThrough && !self.skips_flushes)
    }

    pub fn ask(&mut self, mode: Mode) {
        assert!(self.asked.replace(mode).is_none(), "asked twice");
    }

    /// Answers with success. What was completed before is to be hardened for write through.
    pub fn agree(&mut self, mode: Mode) {
        self.mode = mode;
        self.shows = mode;
        self.asked = None;
        self.answer = Some(Ok(()));
    }

    /// Answers with a failure; everything is as it was.
    pub fn refuse(&mut self, failure: Failure) {
        self.asked = None;
        self.answer = Some(Err(failure));
    }

    /// The host makes the device write through. What was completed before is to be hardened.
    pub fn write_through(&mut self) {
        self.mode = Mode::WriteThrough;
        self.shows = Mode::WriteThrough;
    }

    /// The host wants write back, which is shown, but not done before the driver agrees. Returns
    /// whether that is news.
    pub fn ask_for_consent(&mut self) -> bool {
        let news = self.shows == Mode::WriteThrough;

        self.shows = Mode::WriteBack;
        news
    }

    /// The driver writes the mode into the configuration space.
    pub fn configure(&mut self, mode: Mode) {
        self.mode = mode;
        self.shows = mode;
    }

    /// Forgets what it was asked for. What is in its cache stays there.
    pub fn reset(&mut self, mode: Mode) {
        self.mode = mode;
        self.shows = mode;
        self.asked = None;
        self.answer = None;
    }
}
