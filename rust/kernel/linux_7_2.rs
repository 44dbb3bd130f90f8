// SPDX-License-Identifier: GPL-2.0

//! The `kernel` crate of Linux 7.2, with what the layer and the driver use of that of 7.3.
//!
//! It takes the place of the `kernel` crate for a kernel of that release, so that nothing else has
//! to know of it. The names and meanings are those of 7.3. Only where a field has another name the
//! sources depend on `cfg(linux_7_2)`, which `Kbuild` sets.

pub use kernel::*;

/// As [`kernel::prelude`].
pub mod prelude {
    // This replaces the trait that every value implements, whose method has the same name.
    pub use crate::init::InitPinned as Init;
    pub use crate::{alloc::ZeroedVec, error::code::EOPNOTSUPP};
    pub use kernel::prelude::*;
}

/// As [`kernel::alloc`].
pub mod alloc {
    use kernel::alloc::flags::__GFP_ZERO;
    pub use kernel::alloc::*;
    use pin_init::Zeroable;

    /// A way to make a [`Vec`].
    pub trait ZeroedVec: Sized {
        /// Makes one of `n` elements that are zero.
        fn zeroed(n: usize, flags: Flags) -> Result<Self, AllocError>;
    }

    impl<T: Zeroable, A: Allocator> ZeroedVec for Vec<T, A> {
        fn zeroed(n: usize, flags: Flags) -> Result<Self, AllocError> {
            let mut v = Self::with_capacity(n, flags | __GFP_ZERO)?;

            // SAFETY: There is room for `n` elements, and none is used. All bytes were set to zero
            // when they were allocated, which is an element by `Zeroable`.
            unsafe { v.inc_len(n) };
            Ok(v)
        }
    }
}

/// As [`kernel::error`].
pub mod error {
    pub use kernel::error::*;

    /// As [`kernel::error::code`].
    pub mod code {
        use core::num::NonZeroI32;
        pub use kernel::error::code::*;
        use kernel::{bindings, error::Error};

        /// Operation not supported on transport endpoint.
        pub const EOPNOTSUPP: Error = {
            let Some(errno) = NonZeroI32::new(-(bindings::EOPNOTSUPP as i32)) else {
                ::core::panic!("no error is zero");
            };

            // SAFETY: The one field of an `Error` is such a number, and its only invariant is that
            // the number is that of an error. The sizes are compared by the compiler.
            unsafe { ::core::mem::transmute::<NonZeroI32, Error>(errno) }
        };
    }
}

/// As [`kernel::init`].
pub mod init {
    pub use kernel::init::*;
    use kernel::prelude::PinInit;

    /// The method that initializes in place has another name here.
    pub trait InitPinned<T, E>: PinInit<T, E> + Sized {
        /// Initializes `slot`.
        ///
        /// # Safety
        ///
        /// The requirements are those of [`PinInit::__pinned_init`].
        #[inline(always)]
        unsafe fn __init(self, slot: *mut T) -> Result<(), E> {
            // SAFETY: By the requirements of this function.
            unsafe { self.__pinned_init(slot) }
        }
    }

    impl<T, E, I: PinInit<T, E>> InitPinned<T, E> for I {}
}

/// The module that all this is compiled into.
pub mod module {
    use kernel::bindings;
    pub use kernel::{InPlaceModule, Module, ModuleMetadata, ThisModule};

    /// The module that has `M`.
    pub const fn this_module<M: ModuleMetadata>() -> &'static ThisModule {
        // SAFETY: Nothing of this is exported, so that every caller is in the same module.
        static THIS: ThisModule =
            unsafe { ThisModule::from_ptr((&raw const bindings::__this_module).cast_mut()) };

        &THIS
    }
}

/// As [`kernel::sync`].
pub mod sync {
    pub use kernel::sync::*;

    /// As [`kernel::sync::rcu`].
    pub mod rcu {
        pub use kernel::sync::rcu::*;

        /// Waits until all read-side critical sections that there are have ended. May sleep.
        pub fn synchronize_rcu() {
            // SAFETY: The function may be called in any context that may sleep.
            unsafe { kernel::bindings::synchronize_rcu() };
        }
    }
}

/// Creates the table of a driver's device ids, and the aliases for its module.
#[macro_export]
macro_rules! module_device_table {
    ($bus:literal, $type:ty, $table:ident, @none, [$($id:expr),* $(,)?]) => {
        const $table: $crate::device_id::IdArray<$type, (), { <[$type]>::len(&[$($id),*]) }> =
            $crate::device_id::IdArray::new_without_index([$(($id, ())),*]);

        const _: () = {
            $crate::module_device_aliases!($bus, MODULE_TABLE, $table);
        };
    };
}

#[doc(hidden)]
pub use kernel::module_device_table as module_device_aliases;
