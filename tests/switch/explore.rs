// SPDX-License-Identifier: GPL-2.0

//! Every interleaving of the driver's state machine with users, device and host, up to a bound.
//!
//! The machine is the driver's own source. Around it is a model of what else moves: users who want
//! a mode and wait for it until a signal comes, the work item, which can be interrupted by anything
//! between any two of its actions, a device that agrees, refuses or never answers, a host that
//! changes the mode behind the guest's back, resets (a bus reset, or suspending and resuming) from
//! which the device comes back in either mode, limits that cannot be changed, and the end of all:
//! the driver is unbound, or gives the device up.
//! All states that can be reached are visited, and the promises of the design are checked in each.
//!
//! Built and run as a test program of the host: `rustc --test explore.rs`.

#[path = "../../drivers/block/virtio_blk_wce/switch.rs"]
mod switch;

use std::collections::HashMap;
use switch::{Failure, Machine, Mode, Outcome, Step};

/// How much of everything may happen in one history.
#[derive(Clone, Copy)]
struct Bounds {
    requests: u8,
    host_changes: u8,
    failed_limits: u8,
    resets: u8,
    signals: u8,
}

/// A request of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ticket {
    mode: Mode,
    /// Who left it still waits for it.
    waited_for: bool,
}

/// Where the work item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Asleep,
    /// About to look whether the configuration changed.
    Start,
    /// Has read the mode after a change of the configuration.
    Refreshed(Mode),
    /// About to look whether there is an answer.
    Answer,
    /// Has taken the answer and read the mode after it.
    Answered(Mode, Outcome),
    /// About to ask the machine for a step.
    Steps,
    /// About to set flushes.
    Flushes(bool),
    /// About to tell who waits, as the work item or on behalf of who resets the device.
    Reporting(Mode, Outcome, bool),
    /// As the work item, but on behalf of who resets the device, while the work is disabled.
    Leaving,
    /// About to set flushes on behalf of who resets the device.
    LeavingFlushes(bool),
    /// The device was reset, and is not in use.
    Away,
    /// It is in use again, and its mode has been read.
    Returning(Mode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct World {
    machine: Machine,
    at: At,
    /// The work was queued, perhaps again while it runs.
    queued: bool,
    config_changed: bool,
    /// What the device is asked for and has not answered.
    asked: Option<Mode>,
    /// An answer that the work item has not taken.
    answer: Option<Outcome>,
    device: Mode,
    /// What the block layer does.
    flushes: bool,
    /// The host made the device volatile, and the guest could not know yet.
    host_window: bool,
    /// Limits could not be changed when it mattered.
    broken_limits: bool,
    waiting: [Option<Ticket>; 2],
    current: Option<Ticket>,
    /// Nobody is served any more.
    closed: bool,
    /// The work item is disabled, and what it uses is freed.
    freed: bool,
    /// The mode that a reset has to bring back, unless somebody wants another.
    before: Option<Mode>,
    /// It could not be brought back.
    given_up: bool,
    /// Nothing was under way when the reset began.
    was_idle: bool,
    requests: u8,
    host_changes: u8,
    failed_limits: u8,
    resets: u8,
    signals: u8,
}

const MODES: [Mode; 2] = [Mode::WriteThrough, Mode::WriteBack];

impl World {
    fn new(mode: Mode, bounds: Bounds) -> Self {
        Self {
            machine: Machine::new(mode, true),
            at: At::Asleep,
            queued: false,
            config_changed: false,
            asked: None,
            answer: None,
            device: mode,
            flushes: mode == Mode::WriteBack,
            host_window: false,
            broken_limits: false,
            waiting: [None; 2],
            current: None,
            closed: false,
            freed: false,
            before: None,
            given_up: false,
            was_idle: false,
            requests: bounds.requests,
            host_changes: bounds.host_changes,
            failed_limits: bounds.failed_limits,
            resets: bounds.resets,
            signals: bounds.signals,
        }
    }

    /// Has the work done, unless it is disabled.
    fn queue_work(&mut self) {
        self.queued = !self.freed;
    }

    fn tickets(&mut self) -> impl Iterator<Item = &mut Ticket> {
        let [first, second] = &mut self.waiting;

        [&mut self.current, first, second].into_iter().flatten()
    }

    /// All that can happen next, each with a name.
    fn successors(&self) -> Vec<(String, World)> {
        let mut next = Vec::new();
        let mut push = |name: String, world: World| next.push((name, world));

        for mode in MODES {
            if let (Some(slot), true) = (
                self.waiting.iter().position(Option::is_none),
                self.requests > 0 && !self.closed,
            ) {
                let mut world = *self;
                world.requests -= 1;
                world.waiting[slot] = Some(Ticket {
                    mode,
                    waited_for: true,
                });
                world.queue_work();
                push(format!("user wants {mode:?}"), world);
            }
            if self.host_changes > 0 && self.device != mode {
                let mut world = *self;
                world.host_changes -= 1;
                world.device = mode;
                world.host_window = mode == Mode::WriteBack;
                world.before = None;
                world.config_changed = true;
                world.queue_work();
                push(format!("host sets {mode:?}"), world);
            }
        }

        if let Some(mode) = self.asked {
            let mut world = *self;
            world.asked = None;
            world.answer = Some(Ok(()));
            world.device = mode;
            world.queue_work();
            // What the guest asked for is the guest's to prepare for.
            world.host_window = false;
            push("device agrees".into(), world);

            let mut world = *self;
            world.asked = None;
            world.before = None;
            world.answer = Some(Err(match mode {
                Mode::WriteThrough => Failure::Io,
                Mode::WriteBack => Failure::Unsupported,
            }));
            world.queue_work();
            push("device refuses".into(), world);
        }

        if self.at == At::Asleep && self.resets > 0 && !self.closed {
            let mut world = *self;
            world.resets -= 1;
            if let Some(outcome) = world.answer.take() {
                world.machine.answered(world.device, outcome);
            }
            world.was_idle = world.machine.is_idle();
            world.machine.leaves();
            world.at = At::Leaving;
            push("a reset begins".into(), world);
        }

        if self.signals > 0 {
            for index in 0..3 {
                let mut world = *self;
                world.signals -= 1;
                let found = world.tickets().filter(|t| t.waited_for).nth(index);
                let Some(ticket) = found else { break };
                ticket.waited_for = false;
                push("a signal frees a writer".into(), world);
            }
        }

        // Who resumes a device holds it, and has the work that gives it up disabled.
        if !self.closed && !matches!(self.at, At::Returning(_)) {
            let mut world = *self;
            world.closed = true;
            // Whoever waits is told that the device is gone.
            world.current = None;
            world.waiting = [None; 2];
            push("the end begins".into(), world);
        }
        // Which waits for the work item.
        if self.closed && !self.freed && matches!(self.at, At::Asleep | At::Away) {
            let mut world = *self;
            world.freed = true;
            world.queued = false;
            push("all is freed".into(), world);
        }

        for (name, world) in self.work() {
            push(name, world);
        }

        next
    }

    /// What the work item can do next.
    fn work(&self) -> Vec<(String, World)> {
        let mut world = *self;
        let mut name = format!("work: {:?}", self.at);

        match self.at {
            At::Asleep if !self.queued => return Vec::new(),
            At::Asleep => {
                world.queued = false;
                world.at = At::Start;
            }
            // No disk any more, or not for another step.
            At::Start | At::Steps if self.closed => world.at = At::Asleep,
            At::Start if self.config_changed => {
                world.config_changed = false;
                world.at = At::Refreshed(self.device);
            }
            At::Start => world.at = At::Answer,
            At::Refreshed(shown) => {
                world.machine.shows(shown);
                world.at = At::Answer;
            }
            At::Answer => match world.answer.take() {
                Some(outcome) => world.at = At::Answered(self.device, outcome),
                None => world.at = At::Steps,
            },
            At::Answered(shown, outcome) => {
                world.machine.answered(shown, outcome);
                world.at = At::Steps;
            }
            At::Steps => {
                if world.machine.is_idle() && world.current.is_none() {
                    if let Some(ticket) = world.waiting[0].take() {
                        world.waiting = [world.waiting[1], None];
                        world.machine.request(ticket.mode);
                        world.current = Some(ticket);
                    }
                }
                let step = world.machine.step();
                name = format!("work: {step:?}");
                match step {
                    Step::SetFlushes(on) => world.at = At::Flushes(on),
                    Step::Ask(mode) => return self.ask(world, mode),
                    Step::Report(mode, outcome) => world.at = At::Reporting(mode, outcome, false),
                    Step::Restored(mode, outcome) => world.restored(mode, outcome),
                    Step::Rest => world.at = At::Asleep,
                }
            }
            At::Reporting(mode, outcome, leaving) => {
                world.report(mode, outcome);
                world.at = if leaving { At::Leaving } else { At::Steps };
            }
            At::Leaving => {
                let step = if self.closed {
                    Step::Rest
                } else {
                    world.machine.step()
                };
                name = format!("reset: {step:?}");
                match step {
                    Step::SetFlushes(on) => world.at = At::LeavingFlushes(on),
                    Step::Report(mode, outcome) => world.at = At::Reporting(mode, outcome, true),
                    Step::Rest if world.machine.can_be_reset() => return world.reset(),
                    Step::Rest => {
                        assert!(
                            self.failed_limits < FULL.failed_limits || self.closed,
                            "reset refused in vain"
                        );
                        name = "the reset is refused".into();
                        world.machine.stays();
                        world.queue_work();
                        world.at = At::Asleep;
                    }
                    // The answer to the one came just before this.
                    Step::Restored(mode, outcome) => world.restored(mode, outcome),
                    Step::Ask(_) => panic!("{step:?} of a device that is about to be reset"),
                }
            }
            At::Away if self.freed => return Vec::new(),
            At::Away => {
                name = "the device returns".into();
                world.at = At::Returning(self.device);
            }
            At::Returning(shown) => {
                world.machine.returned(shown);
                world.queue_work();
                world.at = At::Asleep;
            }
            At::Flushes(on) | At::LeavingFlushes(on) => {
                let mut results = Vec::new();
                let then = match self.at {
                    At::Flushes(_) => At::Steps,
                    _ => At::Leaving,
                };

                if self.failed_limits > 0 {
                    let mut world = *self;
                    world.failed_limits -= 1;
                    // No excuse for making the device volatile afterwards.
                    world.broken_limits |= on && self.device == Mode::WriteBack;
                    world.machine.flushes_set(on, false);
                    world.at = then;
                    results.push((format!("flushes can't be set to {on}"), world));
                }
                world.flushes = on;
                world.broken_limits &= !on;
                // What the guest does from here on is its own affair.
                world.host_window &= !on;
                world.machine.flushes_set(on, true);
                world.at = then;
                results.push((format!("flushes set to {on}"), world));

                return results;
            }
        }

        vec![(name, world)]
    }

    /// The ways in which a device can be asked: by a request that it answers later, by a write that
    /// has its effect at once, or in vain.
    fn ask(&self, asking: World, mode: Mode) -> Vec<(String, World)> {
        assert!(self.asked.is_none(), "asked twice");
        assert!(
            asking.current.is_some() || !self.given_up || self.closed,
            "asked again in vain"
        );

        let mut sent = asking;
        sent.asked = Some(mode);

        let mut written = asking;
        written.device = mode;
        written.host_window = false;
        written.at = At::Answered(mode, Ok(()));

        let mut gone = asking;
        gone.before = None;
        gone.at = At::Answered(self.device, Err(Failure::Gone));

        vec![
            (format!("work: sends {mode:?}"), sent),
            (format!("work: writes {mode:?}"), written),
            ("work: can't ask".into(), gone),
        ]
    }

    /// The device is reset: it forgets what it was asked for, and comes back in either mode.
    fn reset(mut self) -> Vec<(String, World)> {
        assert!(self.flushes, "reset without flushes");
        self.given_up = false;
        // Otherwise something is still to be done, which decides.
        if self.was_idle {
            self.before = Some(self.machine.mode());
        }
        self.asked = None;
        self.answer = None;
        self.at = At::Away;

        MODES
            .map(|mode| {
                (
                    format!("reset to {mode:?}"),
                    World {
                        device: mode,
                        ..self
                    },
                )
            })
            .into()
    }

    fn restored(&mut self, mode: Mode, outcome: Outcome) {
        if outcome.is_ok() {
            assert_eq!(self.machine.mode(), mode, "restored another mode");
        } else {
            self.before = None;
            self.given_up = true;
        }
    }

    fn report(&mut self, mode: Mode, outcome: Outcome) {
        // What is wanted now is what this user got, or what there was.
        self.before = None;
        let mode_of_ticket = self.current.take().map(|ticket| ticket.mode);
        // Otherwise whoever waited has been told.
        if !self.closed {
            assert_eq!(mode_of_ticket, Some(mode), "reported another request");
        }
        if outcome.is_ok() {
            assert_eq!(self.machine.mode(), mode, "success without the mode");
        }
    }

    /// What holds in every state.
    fn check(&self) {
        // Nobody but the host makes the device volatile while the block layer sends no flushes.
        if self.device == Mode::WriteBack && !self.flushes {
            assert!(
                self.host_window || self.broken_limits,
                "volatile without flushes"
            );
        }

        self.check_end_of_work();

        // At the end nobody waits, and what is freed is not used.
        if self.closed {
            assert_eq!(self.current, None, "waits for ever");
            assert_eq!(self.waiting, [None; 2], "waits for ever");
            if self.freed {
                let unused = matches!(self.at, At::Asleep | At::Away) && !self.queued;
                assert!(unused, "used after it was freed");
            }
            return;
        }

        // Once all is quiet, and no answer is outstanding, guest and device agree, and every
        // request has been reported.
        let quiet = self.at == At::Asleep && !self.queued;
        if quiet && self.asked.is_none() {
            assert_eq!(self.machine.mode(), self.device, "wrong mode at rest");
            assert_eq!(self.current, None, "request without a report");
            assert_eq!(self.waiting, [None; 2], "request that is never served");
            if let Some(before) = self.before {
                assert_eq!(self.device, before, "mode is not brought back");
            }
            if self.device == Mode::WriteBack {
                assert!(self.flushes || self.broken_limits, "no flushes at rest");
            } else if self.failed_limits == FULL.failed_limits {
                assert!(!self.flushes, "needless flushes at rest");
            }
        }
        // A device that does not answer holds up its own request only.
        if quiet && self.asked.is_some() {
            assert!(!self.machine.is_idle(), "asked for nobody");
        }
    }

    /// The work comes to rest, also if from now on limits can never be changed and nothing answers.
    fn check_end_of_work(&self) {
        let mut machine = self.machine;

        for _ in 0..10 {
            match machine.step() {
                Step::SetFlushes(on) => machine.flushes_set(on, false),
                Step::Rest => return,
                Step::Ask(_) | Step::Report(..) | Step::Restored(..) => (),
            }
        }
        panic!("work without end");
    }
}

const FULL: Bounds = Bounds {
    requests: 3,
    host_changes: 2,
    failed_limits: 1,
    resets: 2,
    signals: 1,
};

/// Visits all states; returns how many there are, and how long the longest of the shortest ways to
/// one is.
fn explore(bounds: Bounds) -> (usize, usize) {
    let mut seen: HashMap<World, Option<(World, String)>> = HashMap::new();
    let mut layer: Vec<World> = MODES.map(|mode| World::new(mode, bounds)).into();
    let mut depth = 0;

    for world in &layer {
        seen.insert(*world, None);
    }
    while !layer.is_empty() {
        let mut following = Vec::new();

        for world in layer {
            if let Err(panic) = std::panic::catch_unwind(|| world.check()) {
                tell(&seen, world);
                std::panic::resume_unwind(panic);
            }
            let successors = std::panic::catch_unwind(|| world.successors());
            let successors = successors.unwrap_or_else(|panic| {
                tell(&seen, world);
                std::panic::resume_unwind(panic)
            });
            for (name, next) in successors {
                seen.entry(next).or_insert_with(|| {
                    following.push(next);
                    Some((world, name))
                });
            }
        }
        layer = following;
        depth += 1;
    }

    (seen.len(), depth)
}

/// Prints the history that led to a state.
fn tell(seen: &HashMap<World, Option<(World, String)>>, mut world: World) {
    let mut history = Vec::new();

    while let Some(Some((before, name))) = seen.get(&world) {
        history.push(name.clone());
        world = *before;
    }
    println!("from {:?}:", world.device);
    for name in history.iter().rev() {
        println!("  {name}");
    }
}

#[test]
fn all_interleavings() {
    let (states, depth) = explore(FULL);

    println!("{states} states, {depth} deep");
    assert!(states > 10_000, "the search did not get anywhere");
}
