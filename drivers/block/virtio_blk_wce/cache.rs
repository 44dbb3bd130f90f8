// SPDX-License-Identifier: GPL-2.0

//! The mode of a disk's write cache, and who wants which.
//!
//! A user who wants a mode leaves a [`Ticket`] and waits for it, or does not. The work that
//! [brings the mode about](crate::cache_work) serves tickets one after the other. The lock of the
//! state is never held across one of its steps, so that the mode can be read at any time.

use crate::switch::{Failure, Machine, Mode, Outcome, Step, Way};
use core::mem;
use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, AtomicFlag, Release},
        Arc,
        CondVar,
        Mutex, //
    },
};

/// A user's wish for a mode, and what came of it.
pub(crate) struct Ticket {
    mode: Mode,
    /// One of the values that [`Ticket::outcome`] knows.
    outcome: Atomic<u32>,
}

impl Ticket {
    const PENDING: u32 = 0;
    const OK: u32 = 1;
    const IO: u32 = 2;
    const UNSUPPORTED: u32 = 3;
    const GONE: u32 = 4;

    /// The mode that is wanted.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// What came of it; `None` as long as it is pending.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match self.outcome.load(Acquire) {
            Self::PENDING => None,
            Self::OK => Some(Ok(())),
            Self::UNSUPPORTED => Some(Err(Failure::Unsupported)),
            Self::GONE => Some(Err(Failure::Gone)),
            _ => Some(Err(Failure::Io)),
        }
    }

    fn end(&self, outcome: Outcome) {
        let value = match outcome {
            Ok(()) => Self::OK,
            Err(Failure::Io) => Self::IO,
            Err(Failure::Unsupported) => Self::UNSUPPORTED,
            Err(Failure::Gone) => Self::GONE,
        };

        self.outcome.store(value, Release);
    }
}

/// What users can see of the cache.
#[derive(Clone, Copy, PartialEq, Eq)]
struct View {
    mode: Mode,
    /// The mode of the latest ticket, and what came of it.
    status: Option<(Mode, Option<Outcome>)>,
}

impl View {
    /// Whether somebody who was told of `self` has to be told of `now`.
    ///
    /// Not that a request for the same mode as the latest one is pending: if nothing comes of it
    /// but what there was, a rule of udev that makes one for each event would never rest.
    fn is_outdated_by(self, now: Self) -> bool {
        let pending_again = matches!(
            (self.status, now.status),
            (Some((before, _)), Some((mode, None))) if before == mode
        );

        self.mode != now.mode || self.status != now.status && !pending_again
    }
}

struct State {
    machine: Machine,
    /// The disk has users.
    open: bool,
    /// Tickets that wait for their turn.
    waiting: KVec<Arc<Ticket>>,
    /// The ticket that the machine works on.
    current: Option<Arc<Ticket>>,
    /// The ticket that was left last.
    latest: Option<Arc<Ticket>>,
    /// What users were told last.
    told: View,
}

impl State {
    fn view(&self) -> View {
        View {
            mode: self.machine.mode(),
            status: self
                .latest
                .as_ref()
                .map(|ticket| (ticket.mode, ticket.outcome())),
        }
    }
}

/// The write cache of a disk.
#[pin_data]
pub(crate) struct Cache {
    #[pin]
    state: Mutex<State>,
    /// What [`Machine::needs_flushes`] says, for those who handle requests.
    flushes: AtomicFlag,
    /// Woken for each ticket that is over.
    #[pin]
    over: CondVar,
    /// How the mode is changed.
    pub(crate) way: Way,
}

impl Cache {
    /// The cache of a device that is in the given mode, which can be changed in the given way.
    pub(crate) fn new(mode: Mode, way: Way) -> impl PinInit<Self> {
        let machine = Machine::new(mode, way);

        pin_init!(Self {
            flushes: AtomicFlag::new(machine.needs_flushes()),
            state <- new_mutex!(State {
                machine,
                open: false,
                waiting: KVec::new(),
                current: None,
                latest: None,
                told: View { mode, status: None },
            }),
            over <- new_condvar!(),
            way,
        })
    }

    /// Whether the mode can be changed.
    pub(crate) fn can_switch(&self) -> bool {
        self.way != Way::Fixed
    }

    /// Whether the device has to be sent the flushes that users ask for. If it has not, it has
    /// everything on stable storage that it completed before.
    ///
    /// For a write that the device has completed this is to be called after its buffer was taken
    /// from the used ring. A device that was volatile then had been asked for that before, and
    /// "flushes are needed" was stored before it was asked: the barriers of the two rings, between
    /// the store and the request for write back, and between the used buffer and this load, see to
    /// it that what is loaded is not older.
    #[inline]
    pub(crate) fn needs_flushes(&self) -> bool {
        self.flushes.load(Acquire)
    }

    /// Changes the machine, and tells those who handle requests what that means for them, before
    /// anything else is done about it.
    fn change<R>(&self, state: &mut State, change: impl FnOnce(&mut Machine) -> R) -> R {
        let result = change(&mut state.machine);

        self.flushes.store(state.machine.needs_flushes(), Release);
        result
    }

    /// The mode in force.
    pub(crate) fn mode(&self) -> Mode {
        self.state.lock().machine.mode()
    }

    /// The latest ticket.
    pub(crate) fn latest(&self) -> Option<Arc<Ticket>> {
        self.state.lock().latest.clone()
    }

    /// Requests can be made, and changes of the device take effect, from now on.
    pub(crate) fn open(&self) {
        self.state.lock().open = true;
    }

    /// Whether requests can be made.
    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().open
    }

    /// Ends all requests, and those to come, with [`Failure::Gone`].
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();

        state.open = false;
        for ticket in state.waiting.drain_all() {
            ticket.end(Err(Failure::Gone));
        }
        if let Some(ticket) = state.current.take() {
            ticket.end(Err(Failure::Gone));
        }
        self.over.notify_all();
    }

    /// Leaves a ticket for the mode. The caller sees to it that the work runs.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is gone, `ENOMEM`.
    pub(crate) fn leave(&self, mode: Mode) -> Result<Arc<Ticket>> {
        let ticket = Arc::new(
            Ticket {
                mode,
                outcome: Atomic::new(Ticket::PENDING),
            },
            GFP_KERNEL,
        )?;
        let mut state = self.state.lock();

        if !state.open {
            return Err(ENODEV);
        }
        state.waiting.push(ticket.clone(), GFP_KERNEL)?;
        state.latest = Some(ticket.clone());

        Ok(ticket)
    }

    /// Waits until the ticket is over.
    ///
    /// # Errors
    ///
    /// `EINTR` if a signal came first, or the system is suspended: the ticket is still served.
    /// Otherwise what came of it.
    pub(crate) fn wait(&self, ticket: &Ticket) -> Result {
        let mut state = self.state.lock();

        loop {
            if let Some(outcome) = ticket.outcome() {
                return outcome.map_err(errno);
            }
            // Not freezable: sysfs holds locks for the writer, which must not sleep on with them
            // while the system is suspended. Freezing tasks counts as a signal instead.
            if self.over.wait_interruptible(&mut state) && ticket.outcome().is_none() {
                return Err(EINTR);
            }
        }
    }

    /// The next step, for the next ticket if the machine has nothing else to do.
    pub(crate) fn step(&self) -> Step {
        let state = &mut *self.state.lock();

        // Closed since: nobody is interested any more.
        if !state.open {
            return Step::Rest;
        }
        if state.machine.is_idle() && state.current.is_none() {
            if let Ok(ticket) = state.waiting.remove(0) {
                state.machine.request(ticket.mode);
                state.current = Some(ticket);
            }
        }
        self.change(state, Machine::step)
    }

    /// The ticket that the machine works on is over.
    pub(crate) fn report(&self, outcome: Outcome) {
        if let Some(ticket) = self.state.lock().current.take() {
            ticket.end(outcome);
        }
        self.over.notify_all();
    }

    /// Whether the device is asked for a user: see [`Machine::is_for_user`].
    pub(crate) fn is_for_user(&self) -> bool {
        self.state.lock().machine.is_for_user()
    }

    /// The mode in force if the device has been asked for one, and its answer is awaited.
    pub(crate) fn mode_if_asked(&self) -> Option<Mode> {
        let machine = &self.state.lock().machine;

        machine.is_asked().then(|| machine.mode())
    }

    /// The device has answered: see [`Machine::answered`].
    pub(crate) fn answered(&self, shown: Mode, outcome: Outcome) {
        self.change(&mut self.state.lock(), |machine| {
            machine.answered(shown, outcome)
        });
    }

    /// The configuration space has changed: see [`Machine::shows`].
    pub(crate) fn shows(&self, mode: Mode) {
        self.change(&mut self.state.lock(), |machine| machine.shows(mode));
    }

    /// The device was reset: see [`Machine::returned`].
    pub(crate) fn returned(&self, shown: Mode) {
        self.change(&mut self.state.lock(), |machine| machine.returned(shown));
    }

    /// Takes note that users are told what they can see, if that has changed since the last time.
    /// Returns whether the mode has.
    pub(crate) fn take_news(&self) -> Option<bool> {
        let state = &mut *self.state.lock();
        let now = state.view();

        if !state.told.is_outdated_by(now) {
            return None;
        }
        let before = mem::replace(&mut state.told, now);

        Some(before.mode != now.mode)
    }
}

/// The error number of a failure.
pub(crate) fn errno(failure: Failure) -> Error {
    match failure {
        Failure::Io => EIO,
        Failure::Unsupported => EOPNOTSUPP,
        Failure::Gone => ENODEV,
    }
}
