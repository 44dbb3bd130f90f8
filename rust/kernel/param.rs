// SPDX-License-Identifier: GPL-2.0

//! Module parameters that are files in sysfs as well.
//!
//! Parameters of `module!` are set when the module is loaded, and can't be seen after that.
//!
//! ```
//! # use kernel_ext::module_numbers;
//! module_numbers! {
//!     of "my_driver";
//!     static HOW_MANY = "how_many", 0o644, "How many";
//! }
//!
//! let how_many = HOW_MANY.get();
//! # let _ = how_many;
//! ```
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)

use crate::bindings;
use kernel::{
    module_param::KernelParam,
    prelude::*,
    sync::atomic::{Atomic, Relaxed}, //
};

/// A parameter that is a number, zero unless it is given: `module_param(…, uint, …)`.
#[repr(transparent)]
pub struct Number(Atomic<u32>);

impl Number {
    #[doc(hidden)]
    pub const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// The current number. Users who may write to the file can change it at any time.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// The entry by which the kernel finds the parameter.
    ///
    /// # Safety
    ///
    /// `module` must be the module that has the parameter, or null for one that is built in.
    #[doc(hidden)]
    pub const unsafe fn definition(
        &'static self,
        name: &'static CStr,
        mode: u16,
        module: *const bindings::module,
    ) -> KernelParam {
        KernelParam::new(bindings::kernel_param {
            name: kernel::str::as_char_ptr_in_const_context(name),
            mod_: module.cast_mut(),
            ops: &raw const bindings::param_ops_uint,
            perm: mode,
            level: -1,
            flags: 0,
            // The operations store an `unsigned int` there, whole, as others may read it.
            __bindgen_anon_1: bindings::kernel_param__bindgen_ty_1 {
                arg: core::ptr::from_ref(self).cast_mut().cast(),
            },
        })
    }
}

/// Turns text into an entry of the section with the module's information.
#[doc(hidden)]
pub const fn bytes<const LEN: usize>(text: &str) -> [u8; LEN] {
    match text.as_bytes().first_chunk() {
        Some(bytes) if text.len() == LEN => *bytes,
        _ => panic!("not the text's length"),
    }
}

/// Declares parameters of the module that is named first, each a [`Number`]: its name, the mode of
/// its file in sysfs, and its description.
#[macro_export]
macro_rules! module_numbers {
    (
        of $module:literal;
        $(
            $(#[$doc:meta])*
            $vis:vis static $number:ident = $name:literal, $mode:literal, $description:literal;
        )*
    ) => { $(
        $(#[$doc])*
        $vis static $number: $crate::param::Number = $crate::param::Number::new();

        const _: () = {
            // The spelling is what `modinfo` looks for. Of what is part of the kernel's image the
            // text and the name begin with the module's name.
            const TEXT: &str = if ::core::cfg!(MODULE) {
                ::core::concat!(
                    "parmtype=", $name, ":uint\0", "parm=", $name, ":", $description, "\0"
                )
            } else {
                ::core::concat!(
                    $module, ".parmtype=", $name, ":uint\0",
                    $module, ".parm=", $name, ":", $description, "\0"
                )
            };
            const NAME: &str = if ::core::cfg!(MODULE) {
                ::core::concat!($name, "\0")
            } else {
                ::core::concat!($module, ".", $name, "\0")
            };

            #[cfg(MODULE)]
            const OWNER: *const ::kernel::bindings::module =
                &raw const ::kernel::bindings::__this_module;
            #[cfg(not(MODULE))]
            const OWNER: *const ::kernel::bindings::module = ::core::ptr::null();

            #[link_section = ".modinfo"]
            #[used]
            static INFO: [u8; TEXT.len()] = $crate::param::bytes(TEXT);

            #[link_section = "__param"]
            #[used]
            static PARAM: ::kernel::module_param::KernelParam =
                // SAFETY: It is the module that this is compiled into.
                unsafe {
                    $number.definition(
                        match ::core::ffi::CStr::from_bytes_with_nul(NAME.as_bytes()) {
                            Ok(name) => name,
                            Err(_) => ::core::panic!("a name with a NUL in it"),
                        },
                        $mode,
                        OWNER,
                    )
                };
        };
    )* };
}
