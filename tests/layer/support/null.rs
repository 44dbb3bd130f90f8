// SPDX-License-Identifier: GPL-2.0

//! A driver of disks that take nothing, for examples that need one.

use crate::LocalModule;
use kernel::prelude::*;
use kernel_ext::{
    block::{
        batch::Completed,
        mq::{HwQueue, Operations, Rejected},
        request::{IdleRequest, Request, Status}, //
    },
    sync::rcu::Section, //
};

/// The driver.
pub struct Null;

#[vtable]
impl Operations for Null {
    type Module = LocalModule;
    type RequestData = ();
    type QueueData = ();

    fn new_request_data() -> impl PinInit<Self::RequestData> {
        // A value makes itself.
    }

    fn queue_rq(
        _: &(),
        _: HwQueue<'_>,
        rq: IdleRequest<Self>,
        _: bool,
        _: Section<'_>,
    ) -> Result<(), Rejected<Self>> {
        Err(Rejected::new(rq, Status::NOTSUPP))
    }

    fn complete(rq: Request<Self>) {
        rq.end(Status::OK);
    }

    fn release(_: Completed<'_, Self>) {}
}
