// SPDX-License-Identifier: GPL-2.0

//! RCU: what [`kernel::sync::rcu`] does not offer yet.

mod section;

pub use section::Section;
