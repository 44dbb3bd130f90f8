// SPDX-License-Identifier: GPL-2.0

//! Every interleaving of the driver's state machine with users, their writes, device and host, up
//! to a bound.
//!
//! The machine is the driver's own source. Around it is a model of what else moves: users who want
//! a mode and wait for it until a signal comes, a write with FUA and a write that is followed by a
//! flush, each with its way through the device, the work item, which can be interrupted by anything
//! between any two of its actions, a device that agrees, refuses or never answers, a host that
//! changes the mode or asks for consent to that, resets from which the device comes back in either
//! mode, and the end of all: the driver is unbound, or gives the device up.
//! All states that can be reached are visited, and the promises of the design are checked in each.
//!
//! Built and run as a test program of the host: `rustc --test explore.rs`.

#[path = "../../drivers/block/virtio_blk_wce/switch.rs"]
mod switch;

mod device;

use device::{Device, Write};
use std::collections::HashMap;
use switch::{Failure, Machine, Mode, Outcome, Step, Way};

const MODES: [Mode; 2] = [Mode::WriteThrough, Mode::WriteBack];

/// How much of everything may happen in one history.
#[derive(Clone, Copy)]
struct Bounds {
    requests: u8,
    host_changes: u8,
    resets: u8,
    signals: u8,
}

const FULL: Bounds = Bounds {
    requests: 2,
    host_changes: 2,
    resets: 1,
    signals: 1,
};

/// A request of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ticket {
    mode: Mode,
    /// Who left it still waits for it.
    waited_for: bool,
}

/// Where the work item is, or who resets the device while the work is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Asleep,
    /// About to look whether the configuration changed.
    Start,
    /// Has read the mode after a change of the configuration.
    Refreshed(Mode),
    /// About to look whether there is an answer.
    Answer,
    /// Has taken the answer, and read the mode after it.
    Answered(Mode, Outcome),
    /// About to ask the machine for a step.
    Steps,
    /// About to ask the device, after users of flushes know of it.
    Asking(Mode),
    /// About to tell who waits.
    Reporting(Mode, Outcome),
    /// The device was reset, and is not in use.
    Away,
    /// It is in use again, and its mode has been read.
    Returning(Mode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct World {
    machine: Machine,
    way: Way,
    at: At,
    /// The work was queued, perhaps again while it runs.
    queued: bool,
    config_changed: bool,
    device: Device,
    /// A write that is to be on stable storage when it ends.
    fua: Write,
    /// A write after which a user asks for a flush.
    plain: Write,
    waiting: [Option<Ticket>; 2],
    current: Option<Ticket>,
    /// Nobody is served any more.
    closed: bool,
    /// The work item is disabled, and what it uses is freed.
    freed: bool,
    /// The mode that a reset has to bring back, unless somebody wants another.
    before: Option<Mode>,
    /// Something went wrong, after which there may be more flushes than needed.
    excused: bool,
    requests: u8,
    host_changes: u8,
    resets: u8,
    signals: u8,
}

impl World {
    fn new(mode: Mode, way: Way, bounds: Bounds) -> Self {
        Self {
            machine: Machine::new(mode, way),
            way,
            at: At::Asleep,
            queued: false,
            config_changed: false,
            device: Device::new(mode, way),
            fua: Write::None,
            plain: Write::None,
            waiting: [None; 2],
            current: None,
            closed: false,
            freed: false,
            before: None,
            excused: false,
            requests: bounds.requests,
            host_changes: bounds.host_changes,
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

        self.users(&mut next);
        self.writes(&mut next);
        self.host(&mut next);
        self.answers(&mut next);
        self.end(&mut next);
        next.extend(self.work());

        next
    }

    fn users(&self, next: &mut Vec<(String, World)>) {
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
                next.push((format!("user wants {mode:?}"), world));
            }
        }

        if self.signals > 0 {
            for index in 0..3 {
                let mut world = *self;
                world.signals -= 1;
                let found = world.tickets().filter(|t| t.waited_for).nth(index);
                let Some(ticket) = found else { break };
                ticket.waited_for = false;
                next.push(("a signal frees a writer".into(), world));
            }
        }
    }

    /// The ways of the two writes. A reset waits until neither is in the device.
    fn writes(&self, next: &mut Vec<(String, World)>) {
        let in_use = !matches!(self.at, At::Away | At::Returning(_));
        let mut push = |name: &str, change: &dyn Fn(&mut World)| {
            let mut world = *self;
            change(&mut world);
            next.push((name.into(), world));
        };

        match self.fua {
            Write::None if in_use => push("FUA write: sent", &|w| w.fua = Write::Sent),
            Write::Sent => push("FUA write: completed by the device", &|w| {
                w.fua = w.device.complete();
            }),
            // As `flush.rs` decides, after the buffer was taken from the ring.
            Write::Completed(stable) if self.machine.needs_flushes() => {
                push("FUA write: flush sent", &|w| {
                    w.fua = Write::Flushing(stable)
                });
            }
            Write::Completed(stable) => {
                push("FUA write: ends", &|w| w.fua = Write::Ended(stable));
            }
            Write::Flushing(_) => push("FUA write: flushed", &|w| w.flush()),
            Write::None | Write::Ended(_) => (),
        }

        match self.plain {
            Write::None if in_use => push("write: sent", &|w| w.plain = Write::Sent),
            Write::Sent => push("write: completed by the device", &|w| {
                w.plain = w.device.complete();
            }),
            // As `request.rs` decides, when a flush is handed over.
            Write::Completed(stable) if in_use && self.machine.needs_flushes() => {
                push("fsync: flush sent", &|w| w.plain = Write::Flushing(stable));
            }
            Write::Completed(stable) if in_use => {
                push("fsync: ends", &|w| w.plain = Write::Ended(stable));
            }
            Write::Flushing(_) => push("fsync: flushed", &|w| w.flush()),
            Write::None | Write::Completed(_) | Write::Ended(_) => (),
        }
    }

    /// The device flushes: what it has completed is on stable storage, and whoever waits for that
    /// goes on.
    fn flush(&mut self) {
        for write in [&mut self.fua, &mut self.plain] {
            write.harden();
            if let Write::Flushing(stable) = *write {
                *write = Write::Ended(stable);
            }
        }
    }

    fn harden(&mut self) {
        self.fua.harden();
        self.plain.harden();
    }

    fn host(&self, next: &mut Vec<(String, World)>) {
        // Without the request no driver can consent, and the command fails.
        if self.host_changes == 0 || self.way != Way::Request {
            return;
        }
        let mut world = *self;
        world.host_changes -= 1;
        world.config_changed = true;
        world.queue_work();

        let mut through = world;
        through.device.write_through();
        through.harden();
        through.before = None;
        next.push(("host sets write through".into(), through));

        if world.device.ask_for_consent() {
            world.before = None;
            next.push(("host wants write back".into(), world));
        }
    }

    fn answers(&self, next: &mut Vec<(String, World)>) {
        let Some(mode) = self.device.asked() else {
            return;
        };
        let mut agrees = *self;
        agrees.device.agree(mode);
        if mode == Mode::WriteThrough {
            agrees.harden();
        }
        agrees.queue_work();
        next.push(("device agrees".into(), agrees));

        let mut refuses = *self;
        refuses.device.refuse(match mode {
            Mode::WriteThrough => Failure::Io,
            Mode::WriteBack => Failure::Unsupported,
        });
        refuses.before = None;
        refuses.excused = true;
        refuses.queue_work();
        next.push(("device refuses".into(), refuses));
    }

    fn end(&self, next: &mut Vec<(String, World)>) {
        // Requests end before a device is reset; one with FUA ends when it was decided about.
        let idle = !self.fua.is_in_device()
            && !matches!(self.fua, Write::Completed(_))
            && !self.plain.is_in_device();

        if self.at == At::Asleep && self.resets > 0 && !self.closed && idle {
            let mut world = *self;
            world.resets -= 1;
            if let Some(outcome) = world.device.take_answer() {
                world.machine.answered(world.device.shows(), outcome);
            }
            // Otherwise something is still to be done, which decides.
            if world.machine.is_idle() {
                world.before = Some(world.machine.mode());
            }
            world.excused = true;
            world.at = At::Away;
            for mode in MODES {
                world.device.reset(mode);
                next.push((format!("reset to {mode:?}"), world));
            }
        }

        // Who resumes a device holds it, and has the work that gives it up disabled.
        if !self.closed && !matches!(self.at, At::Returning(_)) {
            let mut world = *self;
            world.closed = true;
            // Whoever waits is told that the device is gone.
            world.current = None;
            world.waiting = [None; 2];
            next.push(("the end begins".into(), world));
        }
        // Which waits for the work item.
        if self.closed && !self.freed && matches!(self.at, At::Asleep | At::Away) {
            let mut world = *self;
            world.freed = true;
            world.queued = false;
            next.push(("all is freed".into(), world));
        }
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
                world.at = At::Refreshed(self.device.shows());
            }
            At::Start => world.at = At::Answer,
            At::Refreshed(shown) => {
                world.machine.shows(shown);
                world.at = At::Answer;
            }
            At::Answer => match world.device.take_answer() {
                Some(outcome) => world.at = At::Answered(self.device.shows(), outcome),
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
                    Step::Ask(mode) => world.at = At::Asking(mode),
                    Step::Report(mode, outcome) => world.at = At::Reporting(mode, outcome),
                    Step::Restored(mode, outcome) => world.restored(mode, outcome),
                    Step::Consented(_) => (),
                    Step::Rest => world.at = At::Asleep,
                }
            }
            At::Asking(mode) => return self.ask(mode),
            At::Reporting(mode, outcome) => {
                world.report(mode, outcome);
                world.at = At::Steps;
            }
            At::Away if self.freed => return Vec::new(),
            At::Away => {
                name = "the device returns".into();
                world.at = At::Returning(self.device.shows());
            }
            At::Returning(shown) => {
                world.machine.returned(shown);
                world.queue_work();
                world.at = At::Asleep;
            }
        }

        vec![(name, world)]
    }

    /// The ways in which a device can be asked: by a request that it answers later, by a write that
    /// has its effect at once, or in vain.
    fn ask(&self, mode: Mode) -> Vec<(String, World)> {
        // Only a user overrules what is written by hand into queue/write_cache.
        if !self.closed {
            assert_eq!(self.current.is_some(), self.machine.is_for_user());
        }

        let mut gone = *self;
        gone.before = None;
        gone.excused = true;
        gone.at = At::Answered(self.device.shows(), Err(Failure::Gone));
        if self.way == Way::Fixed {
            gone.at = At::Answered(self.device.shows(), Err(Failure::Unsupported));
            return vec![("work: can't ask".into(), gone)];
        }

        let mut sent = *self;
        sent.at = At::Steps;
        match self.way {
            Way::Request => sent.device.ask(mode),
            _ => {
                sent.device.configure(mode);
                if mode == Mode::WriteBack {
                    sent.at = At::Answered(mode, Ok(()));
                } else {
                    sent.device.ask(mode);
                }
            }
        }

        vec![
            (format!("work: asks for {mode:?}"), sent),
            ("work: can't ask".into(), gone),
        ]
    }

    fn restored(&mut self, mode: Mode, outcome: Outcome) {
        if outcome.is_ok() {
            assert_eq!(self.machine.mode(), mode, "restored another mode");
        } else {
            self.before = None;
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
        for write in [self.fua, self.plain] {
            assert_ne!(write, Write::Ended(false), "acknowledged and lost");
        }
        self.check_end_of_work();
        if self.device.asked().is_some() {
            assert!(self.machine.is_asked(), "an answer will not be waited for");
        }

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

        let quiet = self.at == At::Asleep && !self.queued;
        if quiet && self.device.asked().is_none() {
            self.check_rest();
        }
        // A device that does not answer holds up its own request only.
        if quiet && self.device.asked().is_some() {
            assert!(!self.machine.is_idle(), "asked for nobody");
        }
    }

    /// What holds once all is quiet, and no answer is outstanding.
    fn check_rest(&self) {
        assert_eq!(self.current, None, "request without a report");
        assert_eq!(self.waiting, [None; 2], "request that is never served");
        if let Some(before) = self.before {
            assert_eq!(self.device.mode(), before, "mode is not brought back");
        }
        // After a failure the host's wish may stand: consent was given in vain.
        if !self.excused {
            assert_eq!(
                self.machine.mode(),
                self.device.mode(),
                "wrong mode at rest"
            );
            assert!(!self.device.waits_for_consent(), "the host waits for ever");
            let through = self.way == Way::Request && self.device.mode() == Mode::WriteThrough;
            assert!(
                !(through && self.machine.needs_flushes()),
                "needless flushes"
            );
        }
    }

    /// The work comes to rest, also if nothing answers.
    fn check_end_of_work(&self) {
        let mut machine = self.machine;

        for _ in 0..10 {
            if machine.step() == Step::Rest {
                return;
            }
        }
        panic!("work without end");
    }
}

/// Visits all states; returns how many there are, and how long the longest of the shortest ways to
/// one is.
fn explore(way: Way, bounds: Bounds) -> (usize, usize) {
    let mut seen: HashMap<World, Option<(World, String)>> = HashMap::new();
    let mut layer: Vec<World> = MODES.map(|mode| World::new(mode, way, bounds)).into();
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

fn all_interleavings(way: Way) {
    let (states, depth) = explore(way, FULL);

    println!("{way:?}: {states} states, {depth} deep");
    assert!(states > 10_000, "the search did not get anywhere");
}

#[test]
fn all_interleavings_with_requests() {
    all_interleavings(Way::Request);
}

#[test]
fn all_interleavings_with_configuration_writes() {
    all_interleavings(Way::Configuration);
}

#[test]
fn all_interleavings_with_a_fixed_mode() {
    all_interleavings(Way::Fixed);
}
