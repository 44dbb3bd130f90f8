// SPDX-License-Identifier: GPL-2.0

//! What the parts of a disk share.
//!
//! What is done with this state is in the files that use this one.

use crate::{
    cache::Cache,
    command::{Call, Command, Purpose},
    limits,
    watch::Watch,
    zones::Zones, //
};
use kernel::{
    device,
    impl_has_work,
    new_condvar,
    new_work,
    prelude::*,
    sync::{
        atomic::{AtomicFlag, Full},
        Arc,
        ArcBorrow,
        CondVar, //
    },
    workqueue::{self, Work}, //
};
use kernel_ext::{
    block::{
        batch::RequestList,
        disk::Disk,
        mq::QueueCounts,
        request::Request,
        virtio_blk::{feature, submission::Submission, Header}, //
    },
    ida::Id,
    virtio::{
        queue::{Queue, Queues, RingGuard},
        Device,
        Endian, //
    },
};

/// What is handed to the device: I/O of the block layer, or a command of the driver's own.
pub(crate) type Buffer = Submission<VirtioBlk, Header, Purpose>;

/// What is kept under the lock of each virtqueue.
#[derive(Default)]
pub(crate) struct QueueState {
    /// The disk whose queue this is.
    pub(crate) disk: Option<Arc<Disk<VirtioBlk>>>,
    /// The device is being reset. Commands wait until it is back.
    pub(crate) away: bool,
    /// Something may wait for buffers to be used: one of those that follow.
    pub(crate) waits: bool,
    /// The ring was full, and the block layer's queue was stopped.
    pub(crate) stopped: bool,
    /// Commands for which the ring had no room, one for each [`Purpose`].
    backlog: [Option<KBox<Command>>; 3],
    /// The status byte of an answer to a command that switches the cache.
    pub(crate) answer: Option<u8>,
    /// Writes that wait for a flush.
    pub(crate) flushes: Flushes,
    /// The call for the serial number.
    serial: Call,
    /// The call for a report of zones.
    zones: Call,
}

impl QueueState {
    /// Keeps a command until the ring has room.
    pub(crate) fn defer(&mut self, command: KBox<Command>) {
        self.waits = true;
        let [cache, serial, zones] = &mut self.backlog;

        match command.context {
            Purpose::Cache => *cache = Some(command),
            Purpose::Serial => *serial = Some(command),
            Purpose::Zones => *zones = Some(command),
        }
    }

    /// Notes that the block layer's queue is stopped until the ring has room.
    pub(crate) fn set_stopped(&mut self) {
        self.waits = true;
        self.stopped = true;
    }

    /// Takes a command that was kept, if there is one.
    pub(crate) fn deferred(&mut self) -> Option<KBox<Command>> {
        self.backlog.iter_mut().find_map(Option::take)
    }

    /// The call of that purpose. Commands that switch the write cache are no calls.
    pub(crate) fn call(&mut self, purpose: Purpose) -> &mut Call {
        match purpose {
            Purpose::Zones => &mut self.zones,
            _ => &mut self.serial,
        }
    }
}

/// The writes of a virtqueue that wait for a flush.
///
/// While writes wait or are covered, there is a flush in the ring. So either its answer comes, or
/// the ring is taken down.
#[derive(Default)]
pub(crate) struct Flushes {
    /// A write is in the ring as a flush.
    pub(crate) under_way: bool,
    /// The writes that this flush covers besides itself.
    pub(crate) covered: RequestList<Request<VirtioBlk>>,
    /// The writes that were completed after it was sent.
    pub(crate) waiting: RequestList<Request<VirtioBlk>>,
}

/// A virtio block device that is bound to the driver.
#[pin_data]
pub(crate) struct VirtioBlk {
    endian: Endian,
    /// The disk's index, which its name and its minor numbers are made of.
    pub(crate) index: Id,
    #[pin]
    pub(crate) queues: Queues<Buffer, QueueState>,
    #[pin]
    pub(crate) cache: Cache,
    /// Notified whenever a [`Call`] has changed.
    #[pin]
    pub(crate) calls_changed: CondVar,
    #[pin]
    pub(crate) zones: Zones,
    /// The device said that its configuration space changed.
    config_changed: AtomicFlag,
    #[pin]
    work: Work<Self>,
    /// The device was given up.
    pub(crate) lost: AtomicFlag,
    /// The device may not be given up, as the core is setting it up.
    pub(crate) is_kept: AtomicFlag,
    #[pin]
    pub(crate) watch: Watch,
    #[pin]
    lost_work: Work<Self, LOST>,
}

/// The id of the work that watches a device, and gives it up. It is not part of the other work,
/// which may wait for requests that only this one ends.
pub(crate) const LOST: u64 = 1;

impl_has_work! {
    impl HasWork<Self> for VirtioBlk { self.work }
    impl HasWork<Self, 1> for VirtioBlk { self.lost_work }
}

kernel_ext::impl_has_queues! {
    impl HasQueues<Buffer, QueueState> for VirtioBlk { self.queues }
}

impl VirtioBlk {
    /// Prepares for a device with the given numbers of virtqueues.
    pub(crate) fn new(
        endian: Endian,
        index: Id,
        counts: QueueCounts,
        cache: impl PinInit<Cache>,
        zones: impl PinInit<Zones>,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                endian,
                index,
                queues <- Queues::new(counts.interrupt, counts.poll),
                cache <- cache,
                calls_changed <- new_condvar!(),
                zones <- zones,
                config_changed: AtomicFlag::new(false),
                work <- new_work!("VirtioBlk::work"),
                lost: AtomicFlag::new(false),
                is_kept: AtomicFlag::new(false),
                watch <- Watch::new(),
                lost_work <- new_work!("VirtioBlk::lost_work"),
            }),
            GFP_KERNEL,
        )
    }

    /// How many requests a queue can have in flight: `wanted`, or as many as fill the ring if that
    /// is zero.
    pub(crate) fn queue_depth(&self, dev: &Device<device::Bound>, wanted: u32) -> u32 {
        if wanted != 0 {
            return wanted;
        }

        let free = self.queues.get(0).map_or(0, |queue| queue.lock().free());
        if dev.has_feature(feature::RING_INDIRECT_DESC) {
            free
        } else {
            // Each takes at least two descriptors, for header and status.
            free / 2
        }
    }

    /// The disk is about to have users.
    pub(crate) fn attach_disk(&self, disk: &Arc<Disk<Self>>) {
        for queue in self.queues.iter() {
            queue.lock().disk = Some(disk.clone());
        }
        self.cache.open();
    }

    /// The disk has no users any more; the cache [is closed](Cache::close).
    pub(crate) fn detach_disk(&self) {
        for queue in self.queues.iter() {
            let disk = queue.lock().disk.take();

            // This may sleep, so the lock is not held.
            drop(disk);
        }
    }

    /// The disk, as long as it has users.
    pub(crate) fn disk(&self) -> Option<Arc<Disk<Self>>> {
        self.queue(0)?.lock().disk.clone()
    }

    /// The byte order of the device's fields.
    #[inline]
    pub(crate) fn endian(&self) -> Endian {
        self.endian
    }

    /// The virtqueue of this index.
    #[inline]
    pub(crate) fn queue(&self, index: usize) -> Option<&Queue<Buffer, QueueState>> {
        self.queues.get(index)
    }

    /// Calls `f` with the device, if that is still bound.
    pub(crate) fn with_device<R>(&self, f: impl FnOnce(&Device<device::Bound>) -> R) -> Option<R> {
        self.queues.with_device(f)
    }

    /// Queues the work that changes the mode of the write cache.
    pub(crate) fn queue_work(this: ArcBorrow<'_, Self>) {
        // It may be queued already, or disabled because the device goes away. Its steps wait for
        // I/O, hence the workqueue for long work.
        let _ = workqueue::system_long().enqueue::<Arc<Self>, 0>(Arc::from(this));
    }

    /// Takes note that the configuration space has changed. Called in interrupt context.
    pub(crate) fn config_changed(this: ArcBorrow<'_, Self>) {
        this.config_changed.xchg(true, Full);
        Self::queue_work(this);
    }

    /// Whether the configuration space has changed since the last call.
    pub(crate) fn take_config_changed(&self) -> bool {
        self.config_changed.xchg(false, Full)
    }

    /// Takes the status byte of an answer to a command that switches the cache.
    pub(crate) fn take_answer(&self) -> Option<u8> {
        self.queues.get(0)?.lock().answer.take()
    }

    /// Makes the disk as large as the device says.
    pub(crate) fn update_capacity(&self, disk: &Disk<Self>) {
        self.with_device(|dev| {
            // An impossible capacity is logged where it is read, and the disk stays as it is.
            if let Ok(sectors) = limits::capacity(dev) {
                if disk.capacity() == sectors {
                    return;
                }
                if self.zones.is_zoned() {
                    // The block layer knows only the zones that the disk was added with.
                    complain(dev, disk, "a zoned disk keeps its size", "");
                } else {
                    limits::announce_capacity(dev, disk, sectors, "new size: ");
                    disk.set_capacity(sectors);
                }
            }
        });
    }

    /// Queues the work that gives the device up, if the device has broken the rules of the ring.
    /// May be called in any context.
    #[inline]
    pub(crate) fn check(ring: &RingGuard<'_, Buffer, QueueState>) {
        if ring.is_broken() {
            Self::queue_lost_work(ring);
        }
    }

    #[cold]
    fn queue_lost_work(ring: &RingGuard<'_, Buffer, QueueState>) {
        if let Some(disk) = &ring.disk {
            // It may be queued already.
            let _ = workqueue::system_long().enqueue::<Arc<Self>, LOST>(Arc::from(disk.data()));
        }
    }
}

/// Logs what users of a disk should know.
#[cold]
#[inline(never)]
pub(crate) fn complain(
    dev: &Device<device::Bound>,
    disk: &Disk<VirtioBlk>,
    what: &str,
    detail: &str,
) {
    dev_warn!(dev, "[{}] {}{}\n", disk.name(), what, detail);
}
