// SPDX-License-Identifier: GPL-2.0

//! Synchronisation: what [`kernel::sync`] does not offer yet.
//!
//! - [`irq_save`]: locks that interrupts take, too, and that can be nested.
//! - [`rcu`]: read-side critical sections, begun here or by C code.

pub mod irq_save;
pub mod rcu;
