// SPDX-License-Identifier: GPL-2.0

//! Who wants which mode of the write cache, and the work that brings it about.
//!
//! A user who wants a mode leaves a [`Ticket`] and waits for it, or does not: tickets are served
//! one after the other by a work item, which takes the steps of the [`Machine`]. The work also runs
//! for each answer of the device and each change of its configuration. The lock of the state is
//! never held across a step, so that the mode can be read at any time.

use crate::{
    control::{self, Control},
    disk::VirtioBlk,
    switch::{Failure, Machine, Mode, Outcome, Step}, //
};
use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Release},
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
}

/// The write cache of a disk.
#[pin_data]
pub(crate) struct Cache {
    #[pin]
    state: Mutex<State>,
    /// Woken for each ticket that is over.
    #[pin]
    over: CondVar,
    control: Option<&'static dyn Control>,
}

impl Cache {
    /// The cache of a device that is in the given mode, takes flushes or not, and can be told
    /// another mode by `control`.
    pub(crate) fn new(
        mode: Mode,
        flushable: bool,
        control: Option<&'static dyn Control>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            state <- new_mutex!(State {
                machine: Machine::new(mode, flushable),
                disk: None,
                waiting: KVec::new(),
                current: None,
                latest: None,
            }),
            over <- new_condvar!(),
            control,
        })
    }

    /// Whether the mode can be changed.
    pub(crate) fn can_switch(&self) -> bool {
        self.control.is_some()
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

        announce(&disk, false);
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
            self.refresh(blk, &disk);
            blk.update_capacity(&disk);
        }
        self.take_answer(blk);
        self.steps(blk, &disk);
    }

    /// Prepares for a reset of the device. The work is disabled.
    ///
    /// # Errors
    ///
    /// `EIO` if data would be in danger: the device must not be reset.
    pub(crate) fn suspend(&self, blk: &VirtioBlk) -> Result {
        let Some(disk) = self.state.lock().disk.clone() else {
            return Ok(());
        };

        self.take_answer(blk);
        self.state.lock().machine.leaves();
        self.steps(blk, &disk);

        let machine = &mut self.state.lock().machine;
        if !machine.can_be_reset() {
            machine.stays();
            return Err(EIO);
        }
        Ok(())
    }

    /// Takes note of what the device shows after a reset. The work is disabled, and has to run
    /// after this, to bring back the mode from before.
    pub(crate) fn resume(&self, blk: &VirtioBlk) {
        let disk = self.state.lock().disk.clone();

        // What has come since is for naught: the mode went with the reset.
        let _ = blk.take_answer();

        let news = self.state.lock().machine.returned(shown(blk));
        if let (Some(disk), true) = (disk, news) {
            announce(&disk, true);
        }
    }

    fn take_answer(&self, blk: &VirtioBlk) {
        if let Some(device_status) = blk.take_answer() {
            self.answered(blk, control::outcome(device_status));
        }
    }

    fn steps(&self, blk: &VirtioBlk, disk: &Disk<VirtioBlk>) {
        loop {
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
                state.machine.step()
            };

            match step {
                Step::SetFlushes(on) => {
                    let done = disk.update_limits(|limits| limits.set_write_cache(on));
                    // Without flushes the block layer takes FUA from a write before the write
                    // enters the queue. It has to reach a device that still writes through.
                    if on && done.is_ok() {
                        disk.drain_submitted();
                    }
                    self.state.lock().machine.flushes_set(on, done.is_ok());
                }
                Step::Ask(mode) => self.ask(blk, disk, mode),
                Step::Report(_, outcome) => {
                    let mut state = self.state.lock();
                    if let Some(ticket) = state.current.take() {
                        ticket.end(outcome);
                    }
                    self.over.notify_all();
                    drop(state);

                    announce(disk, outcome.is_ok());
                }
                Step::Restored(mode, outcome) => {
                    if outcome.is_err() {
                        blk.warn_not_restored(disk, mode);
                    }
                    announce(disk, true);
                }
                Step::Rest => return,
            }
        }
    }

    /// Takes note of what the device shows.
    fn refresh(&self, blk: &VirtioBlk, disk: &Disk<VirtioBlk>) {
        // A device that is gone needs no flushes; one that can't be read keeps those it has.
        let Some(Ok(shown)) = blk.with_device(control::mode) else {
            return;
        };

        if self.state.lock().machine.shows(shown) {
            announce(disk, true);
        }
    }

    fn ask(&self, blk: &VirtioBlk, disk: &Disk<VirtioBlk>, mode: Mode) {
        let asked = match self.control {
            Some(control) => control.ask(blk, disk, mode),
            None => Err(Failure::Unsupported),
        };

        match asked {
            Ok(true) => (),
            Ok(false) => self.answered(blk, Ok(())),
            Err(failure) => self.answered(blk, Err(failure)),
        }
    }

    /// Takes note of the device's answer, and of what it shows after that.
    fn answered(&self, blk: &VirtioBlk, outcome: Outcome) {
        let Some(mode) = self.state.lock().machine.asked() else {
            return;
        };
        let outcome = match self.control {
            Some(control) => control.answered(blk, mode, outcome),
            None => outcome,
        };

        let shown = shown(blk);
        self.state.lock().machine.answered(shown, outcome);
    }
}

/// The mode that the device shows. What can't be read may be volatile.
fn shown(blk: &VirtioBlk) -> Mode {
    match blk.with_device(control::mode) {
        Some(Ok(shown)) => shown,
        _ => Mode::WriteBack,
    }
}

/// Tells who polls the attributes, and those who get uevents.
fn announce(disk: &Disk<VirtioBlk>, mode: bool) {
    if mode {
        disk.notify(MODE_NAME);
    }
    disk.notify(STATUS_NAME);
    let _ = disk.uevent();
}

/// The error number of a failure.
pub(crate) fn errno(failure: Failure) -> Error {
    match failure {
        Failure::Io => EIO,
        Failure::Unsupported => EOPNOTSUPP,
        Failure::Gone => ENODEV,
    }
}
