// SPDX-License-Identifier: GPL-2.0

//! Synchronisation: what [`kernel::sync`] does not offer yet.
//!
//! - [`irq_save`]: locks that interrupts take, too, for code that can be called with interrupts off.
//! - [`rcu`]: read-side critical sections, whoever has begun them.

pub mod irq_save;
pub mod rcu;
