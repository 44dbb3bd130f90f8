// SPDX-License-Identifier: GPL-2.0

//! Rate limits for messages that others can provoke, which must not flood the kernel's log.
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

/// Allows ten messages in five seconds.
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
    /// A limit of which nothing is used up yet.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|state| {
                // SAFETY: `state` is valid for writes, and stays where it is.
                unsafe { bindings::ratelimit_default_init(state) }
            }),
        })
    }

    /// Whether one more message may be logged. May be called in any context. The kernel logs how
    /// many were suppressed, under `name`.
    pub fn allows(&self, name: &CStr) -> bool {
        // SAFETY: By the type invariant the state is initialized. The name is not kept.
        unsafe { bindings::___ratelimit(self.inner.get(), name.as_char_ptr()) != 0 }
    }
}
