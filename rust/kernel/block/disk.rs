// SPDX-License-Identifier: GPL-2.0

//! Disks.
//!
//! ```
//! # use kernel::{device, sync::Arc};
//! # use kernel_ext::block::{
//! #     attribute::Group,
//! #     disk::Disk,
//! #     limits::Limits,
//! #     mq::{Operations, TagSet},
//! #     number::Numbers,
//! # };
//! # fn example<T: Operations>(
//! #     tags: Arc<TagSet<T>>,
//! #     mut limits: Limits,
//! #     numbers: Numbers,
//! #     data: Arc<T::QueueData>,
//! #     sectors: u64,
//! #     parent: &device::Device<device::Bound>,
//! #     attributes: &'static Group<T::QueueData>,
//! # ) -> Result {
//! let disk = Arc::pin_init(Disk::new(tags, &mut limits, c"vda", numbers, data), GFP_KERNEL)?;
//!
//! disk.set_capacity(sectors);
//! disk.add(parent, attributes)?;
//! // It has users now, until:
//! disk.remove();
//! # Ok(())
//! # }
//! ```
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use super::{
    attribute::Group,
    limits::Limits,
    mq::{Operations, TagSet},
    number::Numbers,
    zoned::ZoneReport, //
};
use crate::bindings;
use core::{mem::MaybeUninit, ptr::NonNull};
use kernel::{
    device,
    devres,
    error::{from_err_ptr, from_result, to_result},
    module::this_module,
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{AtomicFlag, Full},
        new_mutex,
        Arc,
        ArcBorrow,
        Mutex, //
    }, //
};

/// Bit of `gendisk::state`: the disk was added at some time.
const ADDED: usize = 1 << bindings::GD_ADDED;

/// What users see of a disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visibility {
    /// It was not added.
    New,
    /// They see it.
    Live,
    /// It was removed, or could not be added.
    Over,
}

/// A disk.
///
/// It is made by [`Disk::new`], seen by users from [`Disk::add`] to [`Disk::remove`], and freed
/// when the last reference is dropped, which may sleep.
///
/// # Invariants
///
/// - `disk` is a valid disk made by `__blk_mq_alloc_disk()` with the tag set `tags`.
/// - `private_data` and `queuedata` are the pointer of an `Arc<T::QueueData>`, one reference of
///   which the disk owns.
/// - `visibility` is `Live` between a successful `device_add_disk()` and `del_gendisk()`, both of
///   which are called at most once, with the lock held.
/// - `quiesced` is set while the queue is quiesced once by this.
#[pin_data(PinnedDrop)]
pub struct Disk<T: Operations> {
    disk: NonNull<bindings::gendisk>,
    #[pin]
    visibility: Mutex<Visibility>,
    quiesced: AtomicFlag,
    tags: Arc<TagSet<T>>,
}

// SAFETY: All methods can be called by any thread; what they do is synchronized by the block layer.
unsafe impl<T: Operations> Send for Disk<T> {}

// SAFETY: As for `Send`.
unsafe impl<T: Operations> Sync for Disk<T> {}

impl<T: Operations> Disk<T> {
    const FOPS: bindings::block_device_operations = {
        let mut fops = bindings::block_device_operations {
            owner: this_module::<T::Module>().as_ptr(),
            free_disk: Some(Self::free_disk),
            ..pin_init::zeroed()
        };

        if T::HAS_GEOMETRY {
            fops.getgeo = Some(Self::getgeo);
        }
        if T::HAS_REPORT_ZONES {
            fops.report_zones = Some(Self::report_zones);
        }
        fops
    };

    /// Makes a disk that nobody sees yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if the limits contradict each other or the name is too long. What the
    /// limits leave open is filled in.
    pub fn new<'a>(
        tags: Arc<TagSet<T>>,
        limits: &'a mut Limits,
        name: &'a CStr,
        numbers: Numbers,
        data: Arc<T::QueueData>,
    ) -> impl PinInit<Self, Error> + use<'a, T> {
        // INVARIANT: By the calls and assignments of `alloc()`.
        try_pin_init!(Self {
            disk: Self::alloc(&tags, limits, name, numbers, data)?,
            tags,
            visibility <- new_mutex!(Visibility::New, "Disk"),
            quiesced: AtomicFlag::new(false),
        })
    }

    fn alloc(
        tags: &TagSet<T>,
        limits: &mut Limits,
        name: &CStr,
        numbers: Numbers,
        data: Arc<T::QueueData>,
    ) -> Result<NonNull<bindings::gendisk>> {
        let name = name.to_bytes_with_nul();
        if name.len() > bindings::DISK_NAME_LEN as usize {
            return Err(EINVAL);
        }
        let data = Arc::into_raw(data).cast_mut().cast::<c_void>();

        // SAFETY: The tag set is valid, and so are the limits.
        let disk = from_err_ptr(unsafe {
            bindings::__blk_mq_alloc_disk(
                tags.as_raw(),
                limits.as_mut(),
                data,
                static_lock_class!().as_ptr(),
            )
        })
        .inspect_err(|_| {
            // SAFETY: The pointer comes from `into_raw()` above, and nobody got it.
            drop(unsafe { Arc::from_raw(data.cast::<T::QueueData>()) })
        })?;

        // SAFETY: The disk is valid, and nobody else knows of it.
        let raw = unsafe { &mut *disk };
        raw.fops = &Self::FOPS;
        raw.private_data = data;
        raw.major = numbers.major as c_int;
        raw.first_minor = numbers.first_minor as c_int;
        raw.minors = numbers.minors as c_int;
        for (to, from) in raw.disk_name.iter_mut().zip(name) {
            *to = *from;
        }

        // SAFETY: A successful `__blk_mq_alloc_disk()` does not return null.
        Ok(unsafe { NonNull::new_unchecked(disk) })
    }

    fn queue(&self) -> *mut bindings::request_queue {
        // SAFETY: By the type invariant the disk is valid; it keeps its queue.
        unsafe { (*self.disk.as_ptr()).queue }
    }

    fn kobj(&self) -> *mut bindings::kobject {
        // SAFETY: By the type invariant the disk is valid, and `part0` lives as long as it does.
        unsafe { &raw mut (*(*self.disk.as_ptr()).part0).bd_device.kobj }
    }

    /// The disk's name.
    #[inline(never)]
    pub fn name(&self) -> &CStr {
        // SAFETY: By the type invariant the disk is valid. `new()` has set the name, which ends
        // with a NUL and never changes.
        unsafe { CStr::from_char_ptr((*self.disk.as_ptr()).disk_name.as_ptr()) }
    }

    /// The capacity in sectors of 512 bytes.
    pub fn capacity(&self) -> u64 {
        // SAFETY: By the type invariant the disk is valid, and `part0` lives as long as it does.
        unsafe { (*(*self.disk.as_ptr()).part0).bd_nr_sectors }
    }

    /// The logical block size in bytes.
    pub fn logical_block_size(&self) -> u32 {
        // SAFETY: By the type invariant the queue is valid.
        unsafe { (*self.queue()).limits.logical_block_size }
    }

    /// Makes the disk read-only.
    pub fn set_read_only(&self) {
        // SAFETY: By the type invariant the disk is valid.
        unsafe { bindings::set_disk_ro(self.disk.as_ptr(), true) };
    }

    /// Sets the capacity in sectors of 512 bytes. If the disk is visible and the capacity has
    /// changed, there is a uevent.
    pub fn set_capacity(&self, sectors: u64) {
        // SAFETY: By the type invariant the disk is valid.
        unsafe { bindings::set_capacity_and_notify(self.disk.as_ptr(), sectors) };
    }

    /// Lets the block layer learn the zones of a zoned disk, by [`Operations::report_zones`].
    /// Called before the disk is added.
    ///
    /// # Errors
    ///
    /// Those of the operation; `ENODEV` if the zones are not what a zoned disk has to have;
    /// `EOPNOTSUPP` if the kernel does not know such disks.
    pub fn revalidate_zones(&self) -> Result {
        #[cfg(CONFIG_BLK_DEV_ZONED)]
        // SAFETY: By the type invariant the disk is valid.
        return to_result(unsafe { bindings::blk_revalidate_disk_zones(self.disk.as_ptr()) });

        #[cfg(not(CONFIG_BLK_DEV_ZONED))]
        Err(EOPNOTSUPP)
    }

    /// What the disk's queues and attributes share.
    pub fn data(&self) -> ArcBorrow<'_, T::QueueData> {
        // SAFETY: By the type invariant the private data is the pointer of an `Arc`, of which the
        // disk has a reference as long as it exists.
        unsafe { ArcBorrow::from_raw((*self.disk.as_ptr()).private_data.cast::<T::QueueData>()) }
    }

    /// Adds the disk to the system, with the attributes of `group`: I/O begins.
    ///
    /// A disk that is still there when the driver of `parent` has been unbound is removed then.
    ///
    /// # Errors
    ///
    /// Those of the C function, `EEXIST` for a name in use among them; `ENOMEM`. A disk can be
    /// added once, and not after [`Self::remove`]: `EBUSY`.
    pub fn add(
        self: &Arc<Self>,
        parent: &device::Device<device::Bound>,
        group: &'static Group<T::QueueData>,
    ) -> Result {
        // The callbacks and attributes of a disk are those of the driver's module, which can be
        // unloaded when no device is bound to it any more, whether or not the disk was leaked.
        devres::register(parent, Registration(self.clone()), GFP_KERNEL)?;

        // Held until the disk is added, so that removing it waits for that.
        let mut visibility = self.visibility.lock();
        if *visibility != Visibility::New {
            return Err(EBUSY);
        }
        *visibility = Visibility::Over;

        // SAFETY: The disk is valid and was not added. `device::Device` is a transparent wrapper of
        // `struct device`. The attributes take the `T::QueueData` that is the disk's private data.
        to_result(unsafe {
            bindings::device_add_disk(
                core::ptr::from_ref(parent).cast_mut().cast(),
                self.disk.as_ptr(),
                group.as_raw(),
            )
        })?;
        *visibility = Visibility::Live;

        Ok(())
    }

    /// Takes the disk away from its users, and waits for all I/O and all access to attributes to
    /// end. Does nothing if users do not see it.
    pub fn remove(&self) {
        // Requests that are held back would never end.
        self.unquiesce();

        // Held until the disk is removed, so that every caller returns only when it is.
        let mut visibility = self.visibility.lock();
        if core::mem::replace(&mut *visibility, Visibility::Over) == Visibility::Live {
            // SAFETY: By the type invariant the disk was added and not removed since.
            unsafe { bindings::del_gendisk(self.disk.as_ptr()) };
        }
    }

    /// Makes flushes reach the driver again if a user has turned them off in `queue/write_cache`.
    /// If so, this waits until no request is in flight, and holds new ones back meanwhile.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the limits contradict each other; nothing changed then.
    pub fn enable_write_cache(&self) -> Result {
        let mut limits = MaybeUninit::<bindings::queue_limits>::uninit();

        // SAFETY: The queue is valid. Both calls below give the lock back that this one takes, by
        // which all the limits are written.
        let mut limits = unsafe {
            bindings::queue_limits_start_update(self.queue(), limits.as_mut_ptr());
            Limits::from_raw(limits.assume_init())
        };

        if !limits.enable_write_cache() {
            // SAFETY: The update was started just above.
            unsafe { bindings::queue_limits_cancel_update(self.queue()) };
            return Ok(());
        }

        // SAFETY: The limits come from the start of the update just above.
        to_result(unsafe {
            bindings::queue_limits_commit_update_frozen(self.queue(), limits.as_mut())
        })
    }

    /// Waits until every request that is in flight has ended, and holds back those that come after,
    /// whose submitters can go on. Until [`Self::unquiesce`] the driver gets none.
    pub fn quiesce(&self) {
        if self.quiesced.xchg(true, Full) {
            return;
        }

        // The queue is not frozen all the time. Submitters would have to wait then, and the driver
        // may need one of them for what it is about to do.
        //
        // SAFETY: The queue is valid; it is frozen and unfrozen in pairs, by one thread, which
        // allocates no memory in between.
        unsafe {
            bindings::blk_mq_freeze_queue_nomemsave(self.queue());
            bindings::blk_mq_quiesce_queue_nowait(self.queue());
            bindings::blk_mq_unfreeze_queue_nomemrestore(self.queue());
        }
    }

    /// The driver takes requests again, after [`Self::quiesce`]. Otherwise does nothing.
    pub fn unquiesce(&self) {
        if self.quiesced.xchg(false, Full) {
            // SAFETY: The queue is valid, and quiesced.
            unsafe { bindings::blk_mq_unquiesce_queue(self.queue()) };
        }
    }

    /// Runs the queues that [`HwQueue::stop`] has stopped. They run in a work item, so that this
    /// may be called in atomic context.
    ///
    /// [`HwQueue::stop`]: super::mq::HwQueue::stop
    pub fn restart_queues(&self) {
        // SAFETY: The queue is valid.
        unsafe { bindings::blk_mq_start_stopped_hw_queues(self.queue(), true) };
    }

    /// Wakes up those who poll the attribute of this name.
    pub fn notify(&self, attribute: &CStr) {
        // SAFETY: The kobject is valid, and the name a C string.
        unsafe {
            bindings::sysfs_notify(self.kobj(), core::ptr::null(), attribute.as_char_ptr());
        }
    }

    /// Sends a `change` uevent.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; none of the receivers' failures.
    pub fn uevent(&self) -> Result {
        // SAFETY: The kobject is valid.
        to_result(unsafe {
            bindings::kobject_uevent(self.kobj(), bindings::kobject_action_KOBJ_CHANGE)
        })
    }

    extern "C" fn getgeo(
        disk: *mut bindings::gendisk,
        geometry: *mut kernel::bindings::hd_geometry,
    ) -> c_int {
        // SAFETY: The block layer passes a disk that is open. By the type invariant it owns a
        // reference to its data until it is freed.
        let (data, sectors) = unsafe {
            (
                &*(*disk).private_data.cast::<T::QueueData>(),
                (*(*disk).part0).bd_nr_sectors,
            )
        };

        from_result(|| {
            let found = T::geometry(data, sectors)?;
            // CAST: The type is declared, but not defined, in the headers that the `kernel` crate
            // binds.
            let geometry = geometry.cast::<bindings::hd_geometry>();

            // SAFETY: The block layer passes a structure for us to fill.
            unsafe {
                (*geometry).cylinders = found.cylinders;
                (*geometry).heads = found.heads;
                (*geometry).sectors = found.sectors;
            }
            Ok(0)
        })
    }

    extern "C" fn report_zones(
        disk: *mut bindings::gendisk,
        sector: bindings::sector_t,
        wanted: c_uint,
        args: *mut bindings::blk_report_zones_args,
    ) -> c_int {
        // SAFETY: The block layer passes a valid disk, which owns a reference to its data until it
        // is freed, and what belongs to it.
        let (data, mut report) = unsafe {
            (
                &*(*disk).private_data.cast::<T::QueueData>(),
                ZoneReport::from_raw(disk, args, wanted),
            )
        };

        from_result(|| {
            T::report_zones(data, sector, &mut report)?;
            Ok(c_int::try_from(report.found())?)
        })
    }

    extern "C" fn free_disk(disk: *mut bindings::gendisk) {
        // SAFETY: By the type invariant the private data is a reference of the disk's own. The
        // block layer calls this once, for a disk that was added, when nobody uses it any more.
        drop(unsafe { Arc::from_raw((*disk).private_data.cast::<T::QueueData>()) });
    }
}

/// Removes a disk when it is dropped.
struct Registration<T: Operations>(Arc<Disk<T>>);

impl<T: Operations> Drop for Registration<T> {
    fn drop(&mut self) {
        self.0.remove();
    }
}

#[pinned_drop]
impl<T: Operations> PinnedDrop for Disk<T> {
    fn drop(self: Pin<&mut Self>) {
        self.remove();

        let disk = self.disk.as_ptr();

        // SAFETY: By the type invariant the disk is valid, and this is the reference that
        // `__blk_mq_alloc_disk()` gave. A disk that was never added has no other, and for it
        // `free_disk()` is not called. `tags`, which freeing it needs, is dropped later.
        unsafe {
            let added = (*disk).state & ADDED != 0;
            let data = (*disk).private_data.cast::<T::QueueData>();

            bindings::put_disk(disk);
            if !added {
                drop(Arc::from_raw(data));
            }
        }

        let _ = &self.tags;
    }
}
