// SPDX-License-Identifier: GPL-2.0

//! The module of a driver, which `module!` makes elsewhere.

use kernel::{prelude::*, ThisModule};

/// A module that is built into the kernel.
pub struct LocalModule;

impl kernel::ModuleMetadata for LocalModule {
    const NAME: &'static CStr = c"example";

    // SAFETY: This is what a driver has that is built into the kernel.
    const THIS_MODULE: ThisModule = unsafe { ThisModule::from_ptr(core::ptr::null_mut()) };
}
