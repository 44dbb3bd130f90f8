// SPDX-License-Identifier: GPL-2.0

//! What the parts of a disk share.
//!
//! What is done with it is in the files that use this one.

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
    /// The device is being reset: commands wait until it is back.
    pub(crate) away: bool,
    /// Something waits for buffers to be used: one of those that follow may.
    pub(crate) waits: bool,
    /// The ring was full: the block layer's queue waits to be started again.
    pub(crate) stopped: bool,
    /// Commands for which the ring had no room, one for each [`Purpose`].
    backlog: [Option<KBox<Command>>; 3],
    /// The status byte of the command to switch the cache that the device has answered.
    pub(crate) answer: Option<u8>,
    /// Writes that wait for a flush.
    pub(crate) flushes: Flushes,
    /// The caller who waits for the serial number.
    serial: Call,
    /// The caller who waits for a report of zones.
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

    /// The block layer's queue is stopped until the ring has room.
    pub(crate) fn set_stopped(&mut self) {
        self.waits = true;
        self.stopped = true;
    }

    /// Takes a command that was kept.
    pub(crate) fn deferred(&mut self) -> Option<KBox<Command>> {
        self.backlog.iter_mut().find_map(Option::take)
    }

    /// The caller who waits for a command of that purpose. Nobody waits for those that switch the
    /// write cache.
    pub(crate) fn call(&mut self, purpose: Purpose) -> &mut Call {
        match purpose {
            Purpose::Zones => &mut self.zones,
            _ => &mut self.serial,
        }
    }
}

/// The writes of a virtqueue that wait for a flush.
///
/// While some wait, or are covered, there is a flush in the ring, so that its answer comes or the
/// ring is taken down.
#[derive(Default)]
pub(crate) struct Flushes {
    /// A write is in the ring as a flush.
    pub(crate) under_way: bool,
    /// The writes that it covers besides itself.
    pub(crate) covered: RequestList<Request<VirtioBlk>>,
    /// The writes that were completed since it was sent.
    pub(crate) waiting: RequestList<Request<VirtioBlk>>,
}

/// A virtio block device that is bound to the driver.
#[pin_data]
pub(crate) struct VirtioBlk {
    endian: Endian,
    /// The disk's own, by which it has its name and its numbers.
    pub(crate) index: Id,
    #[pin]
    pub(crate) queues: Queues<Buffer, QueueState>,
    #[pin]
    pub(crate) cache: Cache,
    /// Woken whenever a [`Call`] has changed.
    #[pin]
    pub(crate) calls_changed: CondVar,
    #[pin]
    pub(crate) zones: Zones,
    /// The device said that its configuration space changed.
    config_changed: AtomicFlag,
    #[pin]
    work: Work<Self>,
    /// The device answers nothing any more, and is not used.
    pub(crate) lost: AtomicFlag,
    #[pin]
    pub(crate) watch: Watch,
    #[pin]
    lost_work: Work<Self, LOST>,
}

/// The work that looks at a device, and gives it up if it is of no use. One of its own: the other
/// one may wait for requests that only this ends.
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
                watch <- Watch::new(),
                lost_work <- new_work!("VirtioBlk::lost_work"),
            }),
            GFP_KERNEL,
        )
    }

    /// How many requests a queue can have in flight: `wanted`, or what fills the ring.
    pub(crate) fn queue_depth(&self, dev: &Device<device::Bound>, wanted: u32) -> u32 {
        if wanted != 0 {
            return wanted;
        }

        let free = self.queues.get(0).map_or(0, |queue| queue.lock().free());
        if dev.has_feature(feature::RING_INDIRECT_DESC) {
            free
        } else {
            // At least header and status of each.
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

            // May sleep, so not under the lock.
            drop(disk);
        }
    }

    /// The disk, while it has users.
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

    /// Calls `f` with the device, unless that is not bound any more.
    pub(crate) fn with_device<R>(&self, f: impl FnOnce(&Device<device::Bound>) -> R) -> Option<R> {
        self.queues.with_device(f)
    }

    /// Has the work done.
    pub(crate) fn queue_work(this: ArcBorrow<'_, Self>) {
        // It may be on the queue already, or disabled because the device goes away. Steps wait
        // for I/O, hence the queue for long work.
        let _ = workqueue::system_long().enqueue::<Arc<Self>, 0>(Arc::from(this));
    }

    /// The configuration space has changed. Called in interrupt context.
    pub(crate) fn config_changed(this: ArcBorrow<'_, Self>) {
        this.config_changed.xchg(true, Full);
        Self::queue_work(this);
    }

    /// Whether the configuration space has changed since the last call.
    pub(crate) fn take_config_changed(&self) -> bool {
        self.config_changed.xchg(false, Full)
    }

    /// Takes the status byte of the command to switch the cache that the device has answered.
    pub(crate) fn take_answer(&self) -> Option<u8> {
        self.queues.get(0)?.lock().answer.take()
    }

    /// Follows a change of the capacity.
    pub(crate) fn update_capacity(&self, disk: &Disk<Self>) {
        self.with_device(|dev| {
            // What is impossible has been complained of; the disk stays as it is.
            if let Ok(sectors) = limits::capacity(dev) {
                if disk.capacity() == sectors {
                    return;
                }
                if self.zones.is_zoned() {
                    // The block layer knows the zones that there were when the disk was added.
                    complain(dev, disk, "a zoned disk keeps its size", "");
                } else {
                    limits::announce_capacity(dev, disk, sectors, "new size: ");
                    disk.set_capacity(sectors);
                }
            }
        });
    }
    /// Has the device given up if it has broken the rules of the ring. In any context.
    #[inline]
    pub(crate) fn check(ring: &RingGuard<'_, Buffer, QueueState>) {
        if ring.is_broken() {
            Self::queue_lost_work(ring);
        }
    }

    #[cold]
    fn queue_lost_work(ring: &RingGuard<'_, Buffer, QueueState>) {
        if let Some(disk) = &ring.disk {
            // It may be on the queue already.
            let _ = workqueue::system_long().enqueue::<Arc<Self>, LOST>(Arc::from(disk.data()));
        }
    }
}

/// Says of a disk what its users should know.
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
