// SPDX-License-Identifier: GPL-2.0

//! Only a request that is mapped and started can be added to a ring: the device would be shown
//! lists of anything, or answer what the block layer does not know to be under way.

use kernel::prelude::*;
use kernel_ext::{
    block::{
        mq::{Operations, Rejected},
        request::{IdleRequest, Request, Status},
        virtio_blk::{
            chain::{Chain, Mapped},
            Header, //
        },
    },
    virtio::queue::RingGuard, //
};

/// First it is mapped, which can fail, and then started.
pub fn add<T: Operations<RequestData = Chain<Header>>, S>(
    ring: &mut RingGuard<'_, Mapped<Request<T>>, S>,
    rq: IdleRequest<T>,
    header: Header,
) -> Result<(), Rejected<T>> {
    #[cfg(unsound = "idle")]
    let _ = ring.add(rq); //~ idle E0277
    #[cfg(not(unsound = "idle"))]
    {
        let rq = rq
            .map(header)
            .map_err(|(rq, _)| Rejected::new(rq, Status::RESOURCE))?;

        #[cfg(not(unsound = "unstarted"))]
        let rq = rq.start();
        ring.add(rq) //~ unstarted E0277
            .map_err(|(rq, _)| Rejected::new(rq, Status::IOERR))?;
    }

    Ok(())
}

/// What was started without being mapped can be mapped, as a request without data.
pub fn flush<T: Operations<RequestData = Chain<Header>>, S>(
    ring: &mut RingGuard<'_, Mapped<Request<T>>, S>,
    rq: IdleRequest<T>,
    header: Header,
) {
    let rq = rq.start();

    #[cfg(not(unsound = "unmapped"))]
    let rq = rq.map_without_data(header);
    let _ = ring.add(rq); //~ unmapped E0277
    #[cfg(unsound = "unmapped")]
    let _ = header;
}

/// What the device has answered may be unmapped, and then is no better than that.
pub fn again<T: Operations<RequestData = Chain<Header>>, S>(
    ring: &mut RingGuard<'_, Mapped<Request<T>>, S>,
) {
    if let Some(rq) = ring.pop() {
        #[cfg(unsound = "unmap")]
        rq.unmap(); //~ unmap E0596
        #[cfg(unsound = "answered")]
        let rq = rq.into_inner();
        let _ = ring.add(rq); //~ answered E0277
    }
}

/// A started request is not started twice, nor is one that was given up ended.
pub fn end<T: Operations>(rq: IdleRequest<T>) {
    let rq = rq.start();

    #[cfg(unsound = "twice")]
    let rq = rq.start(); //~ twice E0599
    rq.end(Status::OK);
}
