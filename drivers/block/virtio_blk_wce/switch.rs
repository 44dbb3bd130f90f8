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
//! - A device that is reset may come back in either mode: flushes are arranged before, and the
//!   mode is brought back after. A request that it had not answered is lost, which is a failure.
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
    /// The mode from before a reset is there again, or could not be brought back.
    Restored(Mode, Outcome),
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
    /// Whether the device takes flushes. One that does not never has a volatile cache.
    flushable: bool,
    /// The device is about to be reset, or was and is not in use again.
    away: bool,
    /// The mode from before a reset, until it is there again or could not be brought back.
    before: Option<Mode>,
    /// The phase is that of bringing it back, and not of a user's request.
    restoring: bool,
    phase: Phase,
}

impl Machine {
    /// A disk in the given mode, whose block layer sends flushes accordingly, and whose device
    /// takes them or not.
    pub(crate) const fn new(mode: Mode, flushable: bool) -> Self {
        Self {
            mode,
            flushes: matches!(mode, Mode::WriteBack),
            stuck: false,
            flushable,
            away: false,
            before: None,
            restoring: false,
            phase: Phase::Idle,
        }
    }

    /// The mode in force.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether a request can be made.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && !self.away && !self.is_to_restore()
    }

    /// Whether a reset has left the device in another mode than it was in before.
    fn is_to_restore(&self) -> bool {
        self.before.is_some_and(|before| before != self.mode)
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
            self.before = None;
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
        if self.away || self.asked() == Some(mode) || self.mode == mode {
            return false;
        }

        self.stuck = false;
        self.mode = mode;
        true
    }

    /// The device is about to be reset. Steps are taken until there are none; then
    /// [`Self::can_be_reset`] tells whether it may be.
    pub(crate) fn leaves(&mut self) {
        self.away = true;
        self.stuck = false;
    }

    /// Whether no data is in danger if the device comes back with a volatile cache.
    pub(crate) fn can_be_reset(&self) -> bool {
        self.flushes || !self.flushable
    }

    /// The device is not reset after all.
    pub(crate) fn stays(&mut self) {
        self.away = false;
    }

    /// The device was reset and is in use again, and shows this mode. Returns whether that is news.
    pub(crate) fn returned(&mut self, shown: Mode) -> bool {
        let news = self.mode != shown;

        // The mode from before an earlier reset, if it is not there again yet.
        self.before = self.before.or(Some(self.mode));
        self.away = false;
        self.stuck = false;
        self.mode = shown;
        self.phase = match self.phase {
            // It begins anew.
            _ if self.restoring => Phase::Idle,
            Phase::Asked(mode) => Phase::Over(mode, Err(Failure::Gone)),
            other => other,
        };
        self.restoring = false;

        news
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
        let volatile = self.mode == Mode::WriteBack || self.away && self.flushable;

        // Before all else, whoever made the device volatile.
        if volatile && !self.flushes && !self.stuck {
            return Step::SetFlushes(true);
        }

        if self.phase == Phase::Idle && !self.away {
            if let Some(before) = self.before.filter(|_| self.is_to_restore()) {
                self.restoring = true;
                self.phase = Phase::Wanted(before);
            } else {
                self.before = None;
            }
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
                if core::mem::take(&mut self.restoring) {
                    self.before = None;
                    Step::Restored(mode, outcome)
                } else {
                    Step::Report(mode, outcome)
                }
            }
            Phase::Idle => Step::Rest,
        }
    }
}

// Orders of events that say what is meant; tests/switch/explore.rs goes through all of them.
#[cfg(CONFIG_KUNIT = "y")]
#[kernel::macros::kunit_tests(virtio_blk_wce_switch)]
mod tests {
    use super::*;
    use Mode::{WriteBack, WriteThrough};

    #[test]
    fn flushes_end_after_the_device_has_agreed() {
        let mut machine = Machine::new(WriteBack, true);

        machine.request(WriteThrough);
        assert!(machine.step() == Step::Ask(WriteThrough));
        assert!(machine.step() == Step::Rest);
        assert!(machine.mode() == WriteBack);
        machine.answered(WriteThrough, Ok(()));
        assert!(machine.step() == Step::SetFlushes(false));
        machine.flushes_set(false, true);
        assert!(machine.step() == Step::Report(WriteThrough, Ok(())));
        assert!(machine.step() == Step::Rest && machine.is_idle());
    }

    #[test]
    fn flushes_begin_before_the_device_is_asked() {
        let mut machine = Machine::new(WriteThrough, true);

        machine.request(WriteBack);
        assert!(machine.step() == Step::SetFlushes(true));
        machine.flushes_set(true, true);
        assert!(machine.step() == Step::Ask(WriteBack));
        machine.answered(WriteBack, Ok(()));
        assert!(machine.step() == Step::Report(WriteBack, Ok(())));
    }

    #[test]
    fn a_refusal_takes_flushes_back() {
        let mut machine = Machine::new(WriteThrough, true);

        machine.request(WriteBack);
        machine.flushes_set(true, true);
        assert!(machine.step() == Step::Ask(WriteBack));
        machine.answered(WriteThrough, Err(Failure::Unsupported));
        assert!(machine.step() == Step::SetFlushes(false));
        machine.flushes_set(false, true);
        assert!(machine.step() == Step::Report(WriteBack, Err(Failure::Unsupported)));
        assert!(machine.mode() == WriteThrough);
    }

    #[test]
    fn agreement_that_is_not_shown_is_none() {
        let mut machine = Machine::new(WriteBack, true);

        machine.request(WriteThrough);
        assert!(machine.step() == Step::Ask(WriteThrough));
        machine.answered(WriteBack, Ok(()));
        assert!(machine.step() == Step::Report(WriteThrough, Err(Failure::Io)));
        assert!(machine.mode() == WriteBack);
    }

    #[test]
    fn a_device_that_turns_volatile_is_flushed() {
        let mut machine = Machine::new(WriteThrough, true);

        assert!(machine.shows(WriteBack));
        assert!(!machine.shows(WriteBack));
        assert!(machine.step() == Step::SetFlushes(true));
        machine.flushes_set(true, false);
        // Not tried again before something happens.
        assert!(machine.step() == Step::Rest);
        machine.request(WriteThrough);
        assert!(machine.step() == Step::SetFlushes(true));
    }
}
