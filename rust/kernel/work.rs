// SPDX-License-Identifier: GPL-2.0

//! How work items are disabled, for good or for a while.
//!
//! ```
//! # use kernel::{sync::Arc, workqueue::{HasWork, WorkItem, WorkItemPointer}};
//! # use kernel_ext::work;
//! # fn pause<T>(data: &Arc<T>)
//! # where
//! #     T: WorkItem<0, Pointer = Arc<T>> + HasWork<T, 0>,
//! #     Arc<T>: WorkItemPointer<0>,
//! # {
//! work::disable_sync::<_, 0>(data);
//! // Nothing runs and nothing is queued here.
//! work::enable::<_, 0>(data);
//! # }
//! ```
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use kernel::{
    bindings,
    sync::Arc,
    workqueue::{HasWork, Work, WorkItem, WorkItemPointer}, //
};

/// Disables the work item of `item`, waiting for a run of it to end.
///
/// Afterwards it does not run, and can't be queued: [`kernel::workqueue::Queue::enqueue`] gives the
/// item back. That lasts until [`enable`] was called as often as this. A driver calls this before
/// its code, or anything that the work uses, goes away. Must be called from a context that may
/// sleep, and not from the work item.
pub fn disable_sync<T, const ID: u64>(item: &Arc<T>)
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasWork<T, ID>,
    Arc<T>: WorkItemPointer<ID>,
{
    let ptr = Arc::as_ptr(item).cast_mut();

    // SAFETY: `item` keeps the allocation that `ptr` points to valid; only the address of the
    // field is computed.
    let work: *mut Work<T, ID> = unsafe { T::raw_get_work(ptr) };

    // SAFETY: `work` points to a valid `Work`, whose initializer initialized the `work_struct`.
    let pending = unsafe { bindings::disable_work_sync(Work::raw_get(work)) };

    if pending {
        // SAFETY: A pending item owns the reference that `enqueue` turned into a raw pointer.
        // The item was taken off its queue before it ran, so that nobody else drops it.
        drop(unsafe { Arc::from_raw(ptr) });
    }
}

/// Undoes one call of [`disable_sync`].
pub fn enable<T, const ID: u64>(item: &Arc<T>)
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasWork<T, ID>,
    Arc<T>: WorkItemPointer<ID>,
{
    // SAFETY: `item` keeps the allocation valid; only the address of the field is computed.
    let work: *mut Work<T, ID> = unsafe { T::raw_get_work(Arc::as_ptr(item).cast_mut()) };

    // SAFETY: `work` points to a valid `Work`, whose initializer initialized the `work_struct`.
    unsafe { bindings::enable_work(Work::raw_get(work)) };
}
