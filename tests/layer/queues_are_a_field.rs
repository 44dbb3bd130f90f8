// SPDX-License-Identifier: GPL-2.0

//! A driver can't show other queues than those that were connected, for example because they lie
//! behind a pointer that it changes.

use kernel::{prelude::*, sync::Arc};
#[cfg(unsound = "hand")]
use kernel_ext::virtio::queue::HasQueues;
use kernel_ext::{
    impl_has_queues,
    virtio::queue::{Buffer, Queues},
};

/// A buffer of whatever kind.
pub struct Any;

/// Queues that are a field.
pub struct Good<B: Buffer> {
    queues: Queues<B, ()>,
}

/// Queues that are elsewhere.
pub struct Behind<B: Buffer> {
    queues: Arc<Queues<B, ()>>,
}

type Command = KBox<kernel_ext::block::virtio_blk::command::Command<u32, ()>>;

impl_has_queues! {
    impl HasQueues<Command, ()> for Good<Command> { self.queues }
}

#[cfg(unsound = "behind")]
impl_has_queues! { //~ behind E0308
    impl HasQueues<Command, ()> for Behind<Command> { self.queues }
}

/// Without the macro it takes an `unsafe`.
pub struct ByHand(Good<Command>);

#[cfg(unsound = "hand")]
impl HasQueues<Command, ()> for ByHand {
    //~^ hand E0200
    fn queues(&self) -> &Queues<Command, ()> {
        &self.0.queues
    }
}
