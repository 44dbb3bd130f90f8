// SPDX-License-Identifier: GPL-2.0

//! Who wants which mode of the write cache, and the work that brings it about.
//!
//! A user who wants a mode leaves a [`Ticket`] and waits for it, or does not: tickets are served
//! one after the other by a work item, which takes the steps of the [`Machine`]. The work also runs
//! for each answer of the device and each change of its configuration. The lock of the state is
//! never held across a step, so that the mode can be read at any time.

use crate::{
    control,
    disk::VirtioBlk,
    switch::{Failure, Machine, Mode, Outcome, Step, Way}, //
};
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
use kernel_ext::block::disk::Disk;

/// The attribute that has the mode.
pub(crate) const MODE_NAME: &CStr = c"cache_type";

/// The attribute that tells of the latest request.
pub(crate) const STATUS_NAME: &CStr = c"cache_type_status";

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
    /// The disk whose cache this is, while it has users.
    disk: Option<Arc<Disk<VirtioBlk>>>,
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
    way: Way,
}

impl Cache {
    /// The cache of a device that is in the given mode, which can be changed in the given way.
    pub(crate) fn new(mode: Mode, way: Way) -> impl PinInit<Self> {
        let machine = Machine::new(mode, way);

        pin_init!(Self {
            flushes: AtomicFlag::new(machine.needs_flushes()),
            state <- new_mutex!(State {
                machine,
                disk: None,
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
    pub(crate) fn open(&self, disk: Arc<Disk<VirtioBlk>>) {
        self.state.lock().disk = Some(disk);
    }

    /// Ends all requests, and those to come, with [`Failure::Gone`].
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        let disk = state.disk.take();

        for ticket in state.waiting.drain_all() {
            ticket.end(Err(Failure::Gone));
        }
        if let Some(ticket) = state.current.take() {
            ticket.end(Err(Failure::Gone));
        }
        self.over.notify_all();

        // The disk may go away with this reference, for which the lock must be free.
        drop(state);
        drop(disk);
    }

    /// Leaves a ticket for the mode. The caller sees to it that the work runs.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is gone, `ENOMEM`.
    pub(crate) fn request(&self, mode: Mode) -> Result<Arc<Ticket>> {
        let ticket = Arc::new(
            Ticket {
                mode,
                outcome: Atomic::new(Ticket::PENDING),
            },
            GFP_KERNEL,
        )?;

        let mut state = self.state.lock();
        let disk = state.disk.clone().ok_or(ENODEV)?;
        state.waiting.push(ticket.clone(), GFP_KERNEL)?;
        state.latest = Some(ticket.clone());
        drop(state);

        self.announce(&disk);
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

    /// Takes all steps that can be taken now: the work item.
    pub(crate) fn run(&self, blk: &VirtioBlk) {
        let Some(disk) = self.state.lock().disk.clone() else {
            return;
        };

        if blk.take_config_changed() {
            self.refresh(blk);
            blk.update_capacity(&disk);
        }
        self.take_answer(blk);
        self.steps(blk, &disk);
    }

    /// Prepares for a reset of the device. The work is disabled.
    pub(crate) fn suspend(&self, blk: &VirtioBlk) {
        self.take_answer(blk);
    }

    /// Takes note of what the device shows after a reset, before requests go on. The work is
    /// disabled, and has to run after this, to bring back the mode from before.
    pub(crate) fn resume(&self, blk: &VirtioBlk) {
        // What has come since is for naught: the mode went with the reset.
        let _ = blk.take_answer();

        let shown = shown(blk);
        self.change(&mut self.state.lock(), |machine| machine.returned(shown));
    }

    fn take_answer(&self, blk: &VirtioBlk) {
        if let Some(device_status) = blk.take_answer() {
            self.answered(blk, control::outcome(device_status));
        }
    }

    fn steps(&self, blk: &VirtioBlk, disk: &Disk<VirtioBlk>) {
        loop {
            self.announce(disk);

            let step = {
                let state = &mut *self.state.lock();

                // Closed since: nobody is interested any more.
                if state.disk.is_none() {
                    return;
                }
                if state.machine.is_idle() && state.current.is_none() {
                    if let Ok(ticket) = state.waiting.remove(0) {
                        state.machine.request(ticket.mode);
                        state.current = Some(ticket);
                    }
                }
                self.change(state, Machine::step)
            };

            match step {
                Step::Ask(mode) => self.ask(blk, disk, mode),
                Step::Report(_, outcome) => {
                    if let Some(ticket) = self.state.lock().current.take() {
                        ticket.end(outcome);
                    }
                    self.over.notify_all();
                }
                Step::Restored(mode, Err(_)) => blk.warn_not_restored(disk, mode),
                Step::Restored(_, Ok(())) | Step::Consented(_) => (),
                Step::Rest => return,
            }
        }
    }

    /// Takes note of what the device shows after its configuration has changed.
    fn refresh(&self, blk: &VirtioBlk) {
        // A device that is gone needs no flushes.
        let Some(shown) = blk.with_device(control::mode) else {
            return;
        };

        self.change(&mut self.state.lock(), |machine| machine.shows(shown));
    }

    fn ask(&self, blk: &VirtioBlk, disk: &Disk<VirtioBlk>, mode: Mode) {
        let for_user = self.state.lock().machine.is_for_user();
        // What a user writes into the attribute decides, also over an earlier "write through" in
        // `queue/write_cache`, by which flushes would not get here.
        let enabled = if for_user {
            disk.enable_write_cache().map_err(|_| Failure::Io)
        } else {
            Ok(())
        };
        let asked = enabled.and_then(|()| match control::of(self.way) {
            Some(control) => control.ask(blk, mode),
            None => Err(Failure::Unsupported),
        });

        match asked {
            Ok(true) => (),
            Ok(false) => self.answered(blk, Ok(())),
            Err(failure) => self.answered(blk, Err(failure)),
        }
    }

    /// Takes note of the device's answer, and of what it shows after that.
    fn answered(&self, blk: &VirtioBlk, outcome: Outcome) {
        let (asked, before) = {
            let machine = &self.state.lock().machine;

            (machine.is_asked(), machine.mode())
        };
        if !asked {
            return;
        }
        if let (Err(_), Some(control)) = (outcome, control::of(self.way)) {
            control.failed(blk, before);
        }

        let shown = shown(blk);
        self.change(&mut self.state.lock(), |machine| {
            machine.answered(shown, outcome)
        });
    }

    /// Tells who polls the attributes, and those who get uevents, what has changed since the last
    /// time.
    fn announce(&self, disk: &Disk<VirtioBlk>) {
        let (before, now) = {
            let state = &mut *self.state.lock();
            let now = state.view();

            if !state.told.is_outdated_by(now) {
                return;
            }
            (core::mem::replace(&mut state.told, now), now)
        };

        if before.mode != now.mode {
            disk.notify(MODE_NAME);
        }
        disk.notify(STATUS_NAME);
        let _ = disk.uevent();
    }
}

/// The mode that the device shows. One that can't be asked may be volatile.
fn shown(blk: &VirtioBlk) -> Mode {
    blk.with_device(control::mode).unwrap_or(Mode::WriteBack)
}

/// The error number of a failure.
pub(crate) fn errno(failure: Failure) -> Error {
    match failure {
        Failure::Io => EIO,
        Failure::Unsupported => EOPNOTSUPP,
        Failure::Gone => ENODEV,
    }
}
