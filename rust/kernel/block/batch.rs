// SPDX-License-Identifier: GPL-2.0

//! Requests that are passed on, or ended, several at a time.
//!
//! ```
//! # use kernel_ext::block::{batch::RequestList, mq::Operations, request::IdleRequest};
//! # type List<T> = RequestList<IdleRequest<T>>;
//! # fn sort<T: Operations>(
//! #     mut requests: List<T>,
//! #     fits: impl Fn(&IdleRequest<T>) -> bool,
//! # ) -> (List<T>, List<T>) {
//! let (mut ready, mut refused) = (RequestList::default(), RequestList::default());
//!
//! while let Some(rq) = requests.pop() {
//!     if fits(&rq) {
//!         ready.push_tail(rq);
//!     } else {
//!         refused.push_tail(rq);
//!     }
//! }
//! # (ready, refused)
//! # }
//! ```
//!
//! C header: [`include/linux/blk-mq.h`](srctree/include/linux/blk-mq.h)

use super::{
    mq::Operations,
    request::{Held, Request}, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::{null_mut, NonNull}, //
};

/// A list of requests: `struct rq_list`.
///
/// # Invariants
///
/// Each request in the list is one that the list owns, as an `R` would.
#[must_use = "requests that are dropped never end"]
pub struct RequestList<R: Held>(bindings::rq_list, PhantomData<R>);

// SAFETY: A list is what it consists of, and requests may be used by any thread.
unsafe impl<R: Held> Send for RequestList<R> {}

impl<R: Held> Default for RequestList<R> {
    /// An empty list.
    #[inline]
    fn default() -> Self {
        // INVARIANT: There is no request in it.
        let (head, tail) = (null_mut(), null_mut());

        Self(bindings::rq_list { head, tail }, PhantomData)
    }
}

impl<R: Held> RequestList<R> {
    /// Takes a list from the block layer.
    ///
    /// # Safety
    ///
    /// Each request in `raw` must be one that may be turned [into an `R`](Held::from_raw).
    #[inline]
    pub(crate) unsafe fn from_raw(raw: bindings::rq_list) -> Self {
        // INVARIANT: By the requirement of this function.
        Self(raw, PhantomData)
    }

    /// Gives the list to the block layer.
    #[inline]
    pub(crate) fn into_raw(self) -> bindings::rq_list {
        self.0
    }

    /// Whether there is no request in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.head.is_null()
    }

    /// Takes the first request.
    #[inline]
    pub fn pop(&mut self) -> Option<R> {
        let rq = NonNull::new(self.0.head)?;

        // SAFETY: By the type invariant the request is valid and in this list, whose link it has.
        self.0.head = unsafe { (*rq.as_ptr()).__bindgen_anon_1.rq_next };
        if self.0.head.is_null() {
            self.0.tail = self.0.head;
        }

        // SAFETY: By the type invariant the list owned the request, and it does not any more.
        Some(unsafe { R::from_raw(rq) })
    }

    /// Adds a request as the last one.
    #[inline]
    pub fn push_tail(&mut self, rq: R) {
        let rq = rq.into_raw().as_ptr();

        // SAFETY: The request is valid and in no list. So is the last one, in this one.
        unsafe {
            (*rq).__bindgen_anon_1.rq_next = null_mut();
            match self.0.tail.as_mut() {
                Some(tail) => tail.__bindgen_anon_1.rq_next = rq,
                None => self.0.head = rq,
            }
        }
        // INVARIANT: The request was an `R`.
        self.0.tail = rq;
    }
}

/// A request that a batch is about to end.
///
/// The batch still owns it. So a driver gets no mutable reference to the [`Request`], which it
/// could exchange for another one, and no reference that outlives the call.
pub struct Completed<'a, T: Operations>(&'a mut Request<T>);

impl<T: Operations> Completed<'_, T> {
    /// The request, for the layer.
    #[inline]
    pub(crate) fn request(&mut self) -> &mut Request<T> {
        self.0
    }
}

/// Where a poll puts requests that can be ended together: `struct io_comp_batch`, or nothing.
///
/// # Invariants
///
/// The pointer is null, or valid and not used by anybody else for `'a`.
pub struct IoCompletionBatch<'a, T: Operations>(
    *mut bindings::io_comp_batch,
    PhantomData<(&'a mut bindings::io_comp_batch, T)>,
);

impl<T: Operations> IoCompletionBatch<'_, T> {
    /// Takes the pointer that the block layer gave to a poll.
    ///
    /// # Safety
    ///
    /// `raw` must be null, or valid and not used by anybody else as long as the value exists.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: *mut bindings::io_comp_batch) -> Self {
        // INVARIANT: By the requirement of this function.
        Self(raw, PhantomData)
    }

    /// Ends a request that a poll has found, together with the others of the batch. `error` is set
    /// if it has failed.
    ///
    /// # Errors
    ///
    /// Gives the request back if it can't be ended with others, because it has failed or because
    /// there is no batch: it is to be ended by itself.
    #[inline]
    pub fn add_request(&mut self, rq: Request<T>, error: bool) -> Result<(), Request<T>> {
        let rq = rq.into_raw();

        // SAFETY: The request is valid and was ours. Each of the functions returns false if it left
        // it to us. By the type invariant there is no batch or it is valid; all requests in one
        // that has `end` are of `T`, because the C function compares.
        unsafe {
            if bindings::blk_mq_complete_request_remote(rq.as_ptr())
                || bindings::blk_mq_add_to_batch(rq.as_ptr(), self.0, error, Some(Self::end))
            {
                Ok(())
            } else {
                Err(Request::from_raw(rq))
            }
        }
    }

    /// Ends all requests of a batch.
    extern "C" fn end(batch: *mut bindings::io_comp_batch) {
        // SAFETY: The block layer passes the batch that requests were added to.
        let mut next = unsafe { (*batch).req_list.head };

        while let Some(ptr) = NonNull::new(next) {
            // SAFETY: Each request in the batch was a `Request` that `add_request()` took, and is
            // in no other list.
            let mut rq = ManuallyDrop::new(unsafe {
                next = (*ptr.as_ptr()).__bindgen_anon_1.rq_next;
                Request::from_raw(ptr)
            });

            T::release(Completed(&mut rq));
        }

        // SAFETY: The batch is valid; its requests are ready to be ended.
        unsafe { bindings::blk_mq_end_request_batch(batch) };
    }
}
