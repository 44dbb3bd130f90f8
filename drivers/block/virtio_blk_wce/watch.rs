// SPDX-License-Identifier: GPL-2.0

//! How long a device is waited for when its disk is removed, and before it is reset.
//!
//! Both wait, without a timeout, for everything that the device owes, so the device is watched
//! meanwhile. One that was pulled out, that somebody else has reset, or that has broken the rules
//! of the ring answers nothing any more, and is given up. One that is merely slow can't be told
//! from one that will never answer, so it is given time: as long as it answers anything, it may
//! take as long as it needs for everything.

use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{CondVar, CondVarTimeoutResult, Mutex},
    time::msecs_to_jiffies, //
};

/// How often the device is looked at, in milliseconds.
const INTERVAL: u32 = 1000;

/// How long a device that owes something may answer nothing, in intervals. The block layer gives a
/// request the same time, unless the driver says otherwise.
const PATIENCE: u32 = 30;

/// Whether somebody waits for the device.
#[pin_data]
pub(crate) struct Watch {
    #[pin]
    on: Mutex<bool>,
    /// Notified when nobody waits any more.
    #[pin]
    over: CondVar,
}

impl Watch {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            on <- new_mutex!(false, "Watch"),
            over <- new_condvar!("Watch"),
        })
    }

    pub(crate) fn begin(&self) {
        *self.on.lock() = true;
    }

    pub(crate) fn end(&self) {
        *self.on.lock() = false;
        self.over.notify_all();
    }

    /// Looks at the device until nobody waits for it, or once if nobody does. Returns whether it is
    /// to be given up.
    ///
    /// `debts` is a number that changes with each answer of the device, or `None` if it owes none.
    pub(crate) fn run(&self, is_dead: impl Fn() -> bool, debts: impl Fn() -> Option<u32>) -> bool {
        let mut patience = Patience::default();

        loop {
            if is_dead() || patience.is_over(debts()) {
                return true;
            }

            let mut on = self.on.lock();
            if *on {
                // This runs in a work item, which gets no signals.
                match self
                    .over
                    .wait_interruptible_timeout(&mut on, msecs_to_jiffies(INTERVAL))
                {
                    CondVarTimeoutResult::Timeout => continue,
                    CondVarTimeoutResult::Woken { .. } | CondVarTimeoutResult::Signal { .. } => (),
                }
            }
            if !*on {
                return false;
            }
        }
    }
}

/// Counts how long a device that owes something has answered nothing.
#[derive(Default)]
struct Patience {
    debts: Option<u32>,
    intervals: u32,
}

impl Patience {
    /// Whether the device has had enough time. Called once in each interval.
    fn is_over(&mut self, debts: Option<u32>) -> bool {
        if debts.is_none() || debts != self.debts {
            self.debts = debts;
            self.intervals = 0;
            return false;
        }
        self.intervals += 1;

        self.intervals >= PATIENCE
    }
}

#[kunit_tests(virtio_blk_wce_watch)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_answers_has_all_the_time() {
        let mut patience = Patience::default();

        for answer in 0..10 * PATIENCE {
            assert!(!patience.is_over(Some(answer / (PATIENCE - 1))));
        }
    }

    #[test]
    fn one_that_owes_nothing_too() {
        let mut patience = Patience::default();

        for _ in 0..10 * PATIENCE {
            assert!(!patience.is_over(None));
        }
    }

    #[test]
    fn one_that_does_not_answer_is_given_up() {
        let mut patience = Patience::default();

        assert!((0..PATIENCE).all(|_| !patience.is_over(Some(7))));
        assert!(patience.is_over(Some(7)));
        // An answer in time starts the count anew.
        let mut patience = Patience::default();
        assert!((0..PATIENCE).all(|_| !patience.is_over(Some(7))));
        assert!((0..PATIENCE).all(|_| !patience.is_over(Some(8))));
        assert!(patience.is_over(Some(8)));
    }
}
