// SPDX-License-Identifier: GPL-2.0

//! When flushes are needed, and in which steps the mode of the write cache is changed.
//!
//! This is a state machine without side effects. It says which [`Step`] is next; the caller takes
//! the step, and tells the machine the outcome. The order that keeps data safe is all here:
//!
//! - [`Machine::needs_flushes`] holds from before the device is asked for write back until the
//!   device has agreed to write through and shows that mode. A device that agrees to write
//!   through has everything on stable storage that it completed before, so that a flush has
//!   nothing left to do from then on.
//! - Flushes end only when the device has agreed to write through, or when its host has made it
//!   write through. A failure, a reset or a mode that can't be read does not end them.
//! - A host that wants write back shows that mode and waits: the device writes back only after the
//!   driver's consent, which is a request for write back like that of a user.
//! - A device that is reset may come back in either mode. Flushes go on if it was volatile before
//!   or is now, and the mode is restored. A request that it had not answered is lost, and has
//!   failed.
//! - Every request of a user ends in a report.

/// Mode of a disk's write cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// Completed writes are on stable storage.
    WriteThrough,
    /// Completed writes may be lost until a flush.
    WriteBack,
}

impl From<Mode> for &str {
    /// The word for a mode, as `queue/write_cache` and `cache_type` of other disks have it.
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::WriteThrough => "write through",
            Mode::WriteBack => "write back",
        }
    }
}

/// Why a switch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Failure {
    /// The device or the block layer has failed.
    Io,
    /// The device does not know the request.
    Unsupported,
    /// The device is gone, or was reset.
    Gone,
}

/// The outcome of a switch.
pub(crate) type Outcome = Result<(), Failure>;

/// How the mode of a device is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// By a request, which the device answers when the mode is in force.
    Request,
    /// By a write to the configuration space, which says nothing of the device's own writes: a
    /// device that claims to write through may have skipped a flush.
    Configuration,
    /// Not at all.
    Fixed,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Ask the device for the mode. It answers later: [`Machine::answered`].
    Ask(Mode),
    /// The user's request for the mode is over.
    Report(Mode, Outcome),
    /// The mode from before a reset was restored, or could not be.
    Restored(Mode, Outcome),
    /// The device was given consent to what its host wants, or giving it has failed.
    Consented(Outcome),
    /// Wait for an answer, a change or a request.
    Rest,
}

/// Why the device is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    /// A user has requested the mode.
    User,
    /// The mode from before a reset is restored.
    Reset,
    /// The host wants write back, and waits for the driver's consent.
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Nothing is wanted.
    Idle,
    /// The device is to be asked.
    Wanted(Mode, Origin),
    /// The device has been asked.
    Asked(Mode, Origin),
    /// The outcome is known.
    Over(Mode, Origin, Outcome),
}

/// The state of a disk's write cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Machine {
    way: Way,
    /// The mode in force.
    mode: Mode,
    /// Whether completed writes may be volatile.
    volatile: bool,
    /// The device shows write back without having been asked, and has had no consent.
    to_consent: bool,
    /// The mode from before a reset, until it is restored or that has failed.
    before: Option<Mode>,
    phase: Phase,
}

impl Machine {
    /// A disk in the given mode, which can be changed in the given way.
    pub(crate) const fn new(mode: Mode, way: Way) -> Self {
        Self {
            way,
            mode,
            volatile: matches!(mode, Mode::WriteBack),
            to_consent: false,
            before: None,
            phase: Phase::Idle,
        }
    }

    /// The mode in force.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the device has to be sent the flushes that users ask for.
    pub(crate) fn needs_flushes(&self) -> bool {
        self.way != Way::Request
            || self.volatile
            || self.to_consent
            || matches!(
                self.phase,
                Phase::Wanted(Mode::WriteBack, _) | Phase::Asked(Mode::WriteBack, _)
            )
    }

    /// Whether a request can be made.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && !self.to_consent && !self.is_to_restore()
    }

    /// Whether a reset has left the device in another mode than it was in before.
    fn is_to_restore(&self) -> bool {
        self.before.is_some_and(|before| before != self.mode)
    }

    /// Whether the device has been asked for a mode, and its answer is awaited.
    pub(crate) fn is_asked(&self) -> bool {
        matches!(self.phase, Phase::Asked(..))
    }

    /// Whether the device is asked for a user.
    pub(crate) fn is_for_user(&self) -> bool {
        matches!(self.phase, Phase::Asked(_, Origin::User))
    }

    /// A user wants the mode, whichever is in force. Does nothing unless the machine
    /// [is idle](Self::is_idle).
    pub(crate) fn request(&mut self, mode: Mode) {
        if self.is_idle() {
            self.before = None;
            self.phase = Phase::Wanted(mode, Origin::User);
        }
    }

    /// The device has answered, and shows the mode `shown` after that.
    ///
    /// Agreement counts only if the device also shows the mode. If it does not, because it lies or
    /// because its host wants something else by now, flushes go on.
    pub(crate) fn answered(&mut self, shown: Mode, outcome: Outcome) {
        let Phase::Asked(mode, origin) = self.phase else {
            return;
        };

        self.volatile = match (outcome, shown) {
            // The device has agreed to write through, or its host has made it write through after
            // it had agreed to write back.
            (Ok(()), Mode::WriteThrough) => false,
            (Err(_), Mode::WriteThrough) => self.volatile,
            (_, Mode::WriteBack) => true,
        };
        let outcome = match outcome {
            Ok(()) if shown != mode => Err(Failure::Io),
            other => other,
        };
        if shown == Mode::WriteThrough {
            // A host that wanted write back was refused.
            self.to_consent = false;
        }
        self.mode = shown;
        self.phase = Phase::Over(mode, origin, outcome);
    }

    /// The configuration space has changed, and the device shows this mode.
    pub(crate) fn shows(&mut self, mode: Mode) {
        match mode {
            Mode::WriteThrough => {
                // If the machine knew of write through already, that may be because of a reset,
                // which need not flush.
                if self.mode == Mode::WriteBack {
                    self.volatile = false;
                }
                self.mode = mode;
                self.to_consent = false;
            }
            // Consent is given even if it was given before: a host that has asked for write through
            // and for write back since the last look waits for it, and the device looks the same.
            Mode::WriteBack if self.way == Way::Request => self.to_consent = true,
            Mode::WriteBack => {
                self.mode = mode;
                self.volatile = true;
            }
        }
    }

    /// The device was reset, is about to be in use again, and shows this mode.
    pub(crate) fn returned(&mut self, shown: Mode) {
        if let Phase::Over(mode, Origin::User, Ok(())) = self.phase {
            // The user was not told yet, and the reset may have changed the mode, so the device is
            // asked once more.
            self.phase = Phase::Wanted(mode, Origin::User);
        }
        self.before = match self.phase {
            Phase::Wanted(_, Origin::User) => None,
            // If the mode from before an earlier reset was not restored yet, it still counts.
            _ => self.before.or(Some(self.mode)),
        };
        self.mode = shown;
        // What was volatile before the reset may still be.
        self.volatile |= shown == Mode::WriteBack;
        self.to_consent = false;
        self.phase = match self.phase {
            Phase::Asked(mode, Origin::User) => Phase::Over(mode, Origin::User, Err(Failure::Gone)),
            // These begin anew if they are still needed.
            Phase::Wanted(_, Origin::Reset | Origin::Host)
            | Phase::Asked(_, Origin::Reset | Origin::Host)
            | Phase::Over(_, Origin::Reset | Origin::Host, _) => Phase::Idle,
            other => other,
        };
    }

    /// The next step. Called after each event, and then until the step is [`Step::Rest`].
    ///
    /// Before the caller takes a step, it has to publish whether flushes
    /// [are needed](Self::needs_flushes).
    pub(crate) fn step(&mut self) -> Step {
        if let Phase::Over(mode, origin, outcome) = self.phase {
            self.phase = Phase::Idle;
            match origin {
                Origin::User => return Step::Report(mode, outcome),
                Origin::Reset => {
                    self.before = None;
                    return Step::Restored(mode, outcome);
                }
                Origin::Host => return Step::Consented(outcome),
            }
        }

        if self.phase == Phase::Idle {
            if let Some(before) = self.before.filter(|_| self.is_to_restore()) {
                self.phase = Phase::Wanted(before, Origin::Reset);
            } else {
                self.before = None;
                if core::mem::take(&mut self.to_consent) {
                    self.phase = Phase::Wanted(Mode::WriteBack, Origin::Host);
                }
            }
        }

        match self.phase {
            Phase::Wanted(mode, origin) => {
                self.phase = Phase::Asked(mode, origin);
                Step::Ask(mode)
            }
            _ => Step::Rest,
        }
    }
}

// These are examples. tests/switch/explore.rs goes through all orders of events.
#[cfg(CONFIG_KUNIT = "y")]
#[kernel::macros::kunit_tests(virtio_blk_wce_switch)]
mod tests {
    use super::*;
    use Mode::{WriteBack, WriteThrough};

    #[test]
    fn flushes_end_after_the_device_has_agreed() {
        let mut machine = Machine::new(WriteBack, Way::Request);

        machine.request(WriteThrough);
        assert!(machine.step() == Step::Ask(WriteThrough));
        assert!(machine.step() == Step::Rest);
        assert!(machine.mode() == WriteBack && machine.needs_flushes());
        machine.answered(WriteThrough, Ok(()));
        assert!(!machine.needs_flushes());
        assert!(machine.step() == Step::Report(WriteThrough, Ok(())));
        assert!(machine.step() == Step::Rest && machine.is_idle());
    }

    #[test]
    fn flushes_begin_before_the_device_is_asked() {
        let mut machine = Machine::new(WriteThrough, Way::Request);

        machine.request(WriteBack);
        assert!(machine.step() == Step::Ask(WriteBack));
        assert!(machine.needs_flushes());
        machine.answered(WriteBack, Ok(()));
        assert!(machine.needs_flushes());
        assert!(machine.step() == Step::Report(WriteBack, Ok(())));
    }

    #[test]
    fn a_refusal_ends_flushes_that_began_for_it() {
        let mut machine = Machine::new(WriteThrough, Way::Request);

        machine.request(WriteBack);
        assert!(machine.step() == Step::Ask(WriteBack));
        machine.answered(WriteThrough, Err(Failure::Unsupported));
        assert!(!machine.needs_flushes());
        assert!(machine.step() == Step::Report(WriteBack, Err(Failure::Unsupported)));
        assert!(machine.mode() == WriteThrough);
    }

    #[test]
    fn agreement_that_is_not_shown_is_none() {
        let mut machine = Machine::new(WriteBack, Way::Request);

        machine.request(WriteThrough);
        assert!(machine.step() == Step::Ask(WriteThrough));
        machine.answered(WriteBack, Ok(()));
        assert!(machine.needs_flushes());
        assert!(machine.step() == Step::Report(WriteThrough, Err(Failure::Io)));
        assert!(machine.mode() == WriteBack);
    }

    #[test]
    fn the_host_gets_consent_after_flushes_have_begun() {
        let mut machine = Machine::new(WriteThrough, Way::Request);

        machine.shows(WriteBack);
        assert!(machine.needs_flushes() && machine.mode() == WriteThrough);
        assert!(machine.step() == Step::Ask(WriteBack));
        machine.answered(WriteBack, Ok(()));
        assert!(machine.mode() == WriteBack);
        assert!(machine.step() == Step::Consented(Ok(())));
        assert!(machine.step() == Step::Rest && machine.is_idle());
    }

    #[test]
    fn a_mode_that_a_reset_changed_is_brought_back() {
        let mut machine = Machine::new(WriteThrough, Way::Request);

        machine.returned(WriteBack);
        assert!(machine.needs_flushes());
        assert!(machine.step() == Step::Ask(WriteThrough));
        machine.answered(WriteThrough, Ok(()));
        assert!(machine.step() == Step::Restored(WriteThrough, Ok(())));
        assert!(!machine.needs_flushes() && machine.step() == Step::Rest);
    }

    #[test]
    fn a_reset_leaves_volatile_what_was() {
        let mut machine = Machine::new(WriteBack, Way::Request);

        machine.returned(WriteThrough);
        assert!(machine.needs_flushes());
    }

    #[test]
    fn a_write_to_the_configuration_space_ends_no_flushes() {
        let mut machine = Machine::new(WriteBack, Way::Configuration);

        machine.request(WriteThrough);
        assert!(machine.step() == Step::Ask(WriteThrough));
        machine.answered(WriteThrough, Ok(()));
        assert!(machine.mode() == WriteThrough && machine.needs_flushes());
    }
}
