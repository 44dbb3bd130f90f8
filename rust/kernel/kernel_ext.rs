// SPDX-License-Identifier: GPL-2.0

//! What the `kernel` crate lacks for a virtio block driver.
//!
//! A crate between the `kernel` crate and the driver that holds all that is unsafe. It is laid out
//! so that it could become part of the `kernel` crate: [`virtio`] is the virtio bus, with devices,
//! drivers, the configuration space and virtqueues; [`block`] is what [`kernel::block`] does not
//! offer yet, among it limits, per-request data and disk attributes; [`work`] adds the end of a
//! work item's life to [`kernel::workqueue`]; [`param`] has module parameters that can be seen;
//! [`ida`] gives out numbers; [`ratelimit`] keeps messages few; [`sync`] has a lock, and sections
//! of RCU.

pub mod block;
pub mod ida;
pub mod param;
pub mod ratelimit;
pub mod sync;
pub mod virtio;
pub mod work;

/// C interfaces that the `bindings` of the `kernel` crate lack, made by bindgen at build time.
///
/// Types that both would have are those of the `kernel` crate.
#[allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_op_in_unsafe_fn,
    unreachable_pub
)]
mod bindings {
    pub(crate) use kernel::bindings::*;
    use kernel::ffi;
    use pin_init::MaybeZeroable;

    include!(env!("VIRTIO_BLK_WCE_BINDINGS"));
}
