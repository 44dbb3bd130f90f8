// SPDX-License-Identifier: GPL-2.0

//! Messages that somebody else can provoke, and that so must not flood the kernel's log.
//!
//! ```
//! # use kernel_ext::ratelimit::Ratelimit;
//! # fn complain(complaints: &Ratelimit, sector: u64) {
//! if complaints.allows(c"zones") {
//!     pr_err!("the zone at sector {} is none\n", sector);
//! }
//! # }
//! ```
//!
//! C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)

use crate::bindings;
use kernel::{prelude::*, types::Opaque};

/// Says when there have been too many messages: more than ten in five seconds.
///
/// # Invariants
///
/// `inner` is an initialized `struct ratelimit_state`.
#[pin_data]
pub struct Ratelimit {
    #[pin]
    inner: Opaque<bindings::ratelimit_state>,
}

// SAFETY: The C functions take the state's own lock.
unsafe impl Send for Ratelimit {}

// SAFETY: As for `Send`.
unsafe impl Sync for Ratelimit {}

impl Ratelimit {
    /// Nothing has been said yet.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|state| {
                // SAFETY: `state` is valid for writes, and stays where it is.
                unsafe { bindings::ratelimit_default_init(state) }
            }),
        })
    }

    /// Whether one more message may be given. In any context. The kernel says how many were not,
    /// and calls them `name`.
    pub fn allows(&self, name: &CStr) -> bool {
        // SAFETY: By the type invariant the state is initialized. The name is not kept.
        unsafe { bindings::___ratelimit(self.inner.get(), name.as_char_ptr()) != 0 }
    }
}
