// SPDX-License-Identifier: GPL-2.0

//! In which steps the mode of the write cache is changed.
//!
//! A state machine without any effect of its own: it says which [`Step`] is next, and whoever
//! takes the steps tells it what came of them. All order that keeps data safe is here:
//!
//! - As long as the device may have a volatile cache, the block layer sends flushes. To write
//!   back, flushes are arranged before the device is asked; to write through, they are stopped
//!   only after the device has agreed and shows the mode.
//! - Whatever fails, the block layer sends flushes if and only if the device shows write back,
//!   unless not even that can be arranged; then rather too many flushes than too few.
//! - Every request ends in a report.

/// Mode of a disk's write cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// Completed writes are on stable storage.
    WriteThrough,
    /// Completed writes may be lost until a flush.
    WriteBack,
}

/// Why a switch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Failure {
    /// The device, or the block layer, could not.
    Io,
    /// The device does not know how.
    Unsupported,
    /// The device is gone, or was reset.
    Gone,
}

/// What came of a switch.
pub(crate) type Outcome = Result<(), Failure>;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Make the block layer send flushes, or not; then [`Machine::flushes_set`].
    SetFlushes(bool),
    /// Ask the device for the mode. It answers later: [`Machine::answered`].
    Ask(Mode),
    /// The request for the mode is over.
    Report(Mode, Outcome),
    /// Wait for an answer, a change or a request.
    Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Nothing is wanted.
    Idle,
    /// The device is to be asked.
    Wanted(Mode),
    /// The device has been asked.
    Asked(Mode),
    /// The outcome is known.
    Over(Mode, Outcome),
}

/// The state of a disk's write cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Machine {
    /// The mode in force, as the device showed it last.
    mode: Mode,
    /// Whether the block layer sends flushes.
    flushes: bool,
    /// Whether flushes could not be set as they should be; not tried again before something
    /// happens.
    stuck: bool,
    phase: Phase,
}

impl Machine {
    /// A disk in the given mode, whose block layer sends flushes accordingly.
    pub(crate) const fn new(mode: Mode) -> Self {
        Self {
            mode,
            flushes: matches!(mode, Mode::WriteBack),
            stuck: false,
            phase: Phase::Idle,
        }
    }

    /// The mode in force.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether a request can be made.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// The mode that the device has been asked for, as long as its answer is awaited.
    pub(crate) fn asked(&self) -> Option<Mode> {
        match self.phase {
            Phase::Asked(mode) => Some(mode),
            _ => None,
        }
    }

    /// A user wants the mode, whichever is in force. Only when the machine [is
    /// idle](Self::is_idle); at other times nothing happens.
    pub(crate) fn request(&mut self, mode: Mode) {
        if self.is_idle() {
            self.stuck = false;
            self.phase = Phase::Wanted(mode);
        }
    }

    /// The device has answered, and shows the mode `shown` after that.
    ///
    /// Agreement counts only if the device shows it: for one that lies, or whose mode the host
    /// changed since, flushes must follow what is in force.
    pub(crate) fn answered(&mut self, shown: Mode, outcome: Outcome) {
        self.stuck = false;
        self.mode = shown;

        if let Phase::Asked(mode) = self.phase {
            let outcome = match outcome {
                Ok(()) if shown != mode => Err(Failure::Io),
                other => other,
            };
            self.phase = Phase::Over(mode, outcome);
        }
    }

    /// The device shows this mode. Returns whether that is news.
    ///
    /// It is none if the device has been asked for the mode: its answer is on the way, and until
    /// then flushes go on.
    pub(crate) fn shows(&mut self, mode: Mode) -> bool {
        if self.asked() == Some(mode) || self.mode == mode {
            return false;
        }

        self.stuck = false;
        self.mode = mode;
        true
    }

    /// Flushes were set, or could not be.
    pub(crate) fn flushes_set(&mut self, on: bool, done: bool) {
        if done {
            self.flushes = on;
            return;
        }

        self.stuck = true;
        match self.phase {
            // Without flushes the device must not be asked for a volatile cache.
            Phase::Wanted(mode) | Phase::Over(mode, Ok(())) => {
                self.phase = Phase::Over(mode, Err(Failure::Io));
            }
            _ => (),
        }
    }

    /// The next step. To be called again until it is [`Step::Rest`], and after each event.
    pub(crate) fn step(&mut self) -> Step {
        let volatile = self.mode == Mode::WriteBack;

        // Before all else, whoever made the device volatile.
        if volatile && !self.flushes && !self.stuck {
            return Step::SetFlushes(true);
        }

        match self.phase {
            Phase::Wanted(Mode::WriteBack) if !self.flushes => Step::SetFlushes(true),
            Phase::Wanted(mode) => {
                self.phase = Phase::Asked(mode);
                Step::Ask(mode)
            }
            // The answer decides of flushes that the request may need.
            Phase::Asked(_) => Step::Rest,
            Phase::Idle | Phase::Over(..) if !volatile && self.flushes && !self.stuck => {
                Step::SetFlushes(false)
            }
            Phase::Over(mode, outcome) => {
                self.phase = Phase::Idle;
                Step::Report(mode, outcome)
            }
            Phase::Idle => Step::Rest,
        }
    }
}
