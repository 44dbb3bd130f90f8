// SPDX-License-Identifier: GPL-2.0

//! A request that a batch is about to end can be released, but neither be exchanged for another one
//! nor kept.

use core::mem;
use kernel::{prelude::*, sync::Mutex};
use kernel_ext::block::{
    batch::Completed,
    mq::Operations,
    request::Request,
    virtio_blk::{chain::Chain, Header}, //
};

/// What an operation does that is right.
pub fn release<T: Operations<RequestData = Chain<Header>>>(
    rq: Completed<'_, T>,
    other: &mut Request<T>,
) {
    #[cfg(unsound = "swap")]
    mem::swap(rq.0, other); //~ swap E0616
    let _ = mem::size_of_val(other);
    rq.unmap();
}

/// A place for requests.
pub struct Place<T: Operations + 'static>(Option<Completed<'static, T>>);

/// As long as the call lasts it can be passed on.
pub fn keep<T: Operations>(place: &mut Place<T>, rq: Completed<'_, T>) {
    #[cfg(unsound = "keep")]
    {
        place.0 = Some(rq); //~ keep lifetime
    }
    #[cfg(not(unsound = "keep"))]
    let _ = (place, rq);
}

/// A mutex is no way around that.
pub fn share<T: Operations>(place: &Mutex<Option<Request<T>>>, rq: Completed<'_, T>) {
    #[cfg(unsound = "share")]
    {
        *place.lock() = Some(*rq); //~ share E0614
    }
    #[cfg(not(unsound = "share"))]
    let _ = (place, rq);
}
