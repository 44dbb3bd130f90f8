// SPDX-License-Identifier: GPL-2.0

//! What runs a device is the adapter's: a driver can leak its reference, and nothing else.

use core::mem;
use kernel_ext::virtio::queue::{Handler, Running};

/// Leaking a reference is harmless.
pub fn leak<T: Handler>(running: &Running<'_, T>) {
    mem::forget(running);
    #[cfg(unsound = "forget")]
    mem::forget(*running); //~ forget E0507
}

/// The reference does not outlive the driver's binding to the device.
pub fn keep<'bound, T: Handler>(
    running: &'bound Running<'bound, T>,
) -> impl Fn() -> &'bound Running<'bound, T> {
    #[cfg(unsound = "keep")]
    let running: &'static Running<'static, T> = running; //~ keep lifetime
    move || running
}
