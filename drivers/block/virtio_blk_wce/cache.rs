// SPDX-License-Identifier: GPL-2.0

//! The mode of a disk's write cache, and the users who want to change it.
//!
//! A user who wants a mode leaves a [`Ticket`], and may wait until it is over. A [work
//! item](crate::cache_work) serves the tickets, one after the other. It does not hold the lock of
//! the state while it takes a step, so that the mode can be read at any time.

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

/// A user's request for a mode, and its outcome.
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

    /// The outcome; `None` as long as the request is pending.
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
    /// The mode of the latest ticket, and its outcome.
    status: Option<(Mode, Option<Outcome>)>,
}

impl View {
    /// Whether users who have seen `self` are to be told that there is `now` to be seen.
    ///
    /// A request for the same mode as the latest one is no news while it is pending. If it changes
    /// nothing, there is no event at all; otherwise a udev rule that makes such a request for each
    /// event would never come to rest.
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
    /// Tickets that the machine has not begun with.
    waiting: KVec<Arc<Ticket>>,
    /// The ticket that the machine works on.
    current: Option<Arc<Ticket>>,
    /// The ticket that was left last.
    latest: Option<Arc<Ticket>>,
    /// What users have been told of.
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
    /// What [`Machine::needs_flushes`] says, for the code that handles requests.
    flushes: AtomicFlag,
    /// Notified whenever a ticket is over.
    #[pin]
    over: CondVar,
    /// How the mode is changed.
    pub(crate) way: Way,
}

impl Cache {
    /// The cache of a device that is in `mode`, which is changed by `way`.
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

    /// Whether flushes that users ask for have to be sent to the device. If not, everything that
    /// the device has completed is on stable storage.
    ///
    /// For a write that the device has completed, this must be called after its buffer was taken
    /// from the used ring. If the device was volatile when it completed the write, it had been
    /// asked for write back before, and "flushes are needed" had been stored before that. Two
    /// barriers keep the load below from being older: that between the store and the request in the
    /// available ring, and that between the used buffer and the load.
    #[inline]
    pub(crate) fn needs_flushes(&self) -> bool {
        self.flushes.load(Acquire)
    }

    /// Changes the machine, and publishes whether flushes are needed before any step is taken.
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

    /// From now on requests can be made, and changes of the device take effect.
    pub(crate) fn open(&self) {
        self.state.lock().open = true;
    }

    /// Whether requests can be made.
    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().open
    }

    /// Ends all requests with [`Failure::Gone`]. None can be made any more.
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

    /// Leaves a ticket for the mode. The caller has to queue the work that serves it.
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
    /// `EINTR` if a signal came first or the system is suspended, in which case the ticket is still
    /// served; otherwise the error number of the outcome.
    pub(crate) fn wait(&self, ticket: &Ticket) -> Result {
        let mut state = self.state.lock();

        loop {
            if let Some(outcome) = ticket.outcome() {
                return outcome.map_err(errno);
            }
            // The wait is not freezable: sysfs holds locks for the writer, and they must not be
            // held while the system is suspended. The freezer interrupts the wait like a signal.
            if self.over.wait_interruptible(&mut state) && ticket.outcome().is_none() {
                return Err(EINTR);
            }
        }
    }

    /// The next step. If the machine is idle, it begins with the next ticket.
    pub(crate) fn step(&self) -> Step {
        let state = &mut *self.state.lock();

        // All tickets have ended.
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

    /// Whether the device is asked on behalf of a user: see [`Machine::is_for_user`].
    pub(crate) fn is_for_user(&self) -> bool {
        self.state.lock().machine.is_for_user()
    }

    /// The mode in force while the device has been asked for one and has not answered.
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

    /// Returns whether there is news for users, and if so, whether the mode itself has changed. The
    /// caller tells them.
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
