// SPDX-License-Identifier: GPL-2.0

//! What the parts of a disk share, and the answers of its device.

use crate::{
    cache::Cache,
    call::Calls,
    control,
    flush,
    limits,
    name::{self, Name},
    queue::{Buffer, Command, Purpose, QueueState},
    switch::{Failure, Mode},
    watch::Watch,
    zones::Zones, //
};
use kernel::{
    device,
    impl_has_work,
    new_work,
    prelude::*,
    sync::{
        atomic::{Acquire, AtomicFlag, Full},
        rcu,
        Arc,
        ArcBorrow, //
    },
    workqueue::{self, Work, WorkItem}, //
};
use kernel_ext::{
    block::{
        batch::RequestList,
        disk::Disk,
        limits::Limits,
        mq::{QueueCounts, TagSet},
        number::{Index, Numbers},
        request::{Request, Status},
        virtio_blk::{feature, submission::Submission}, //
    },
    virtio::{
        queue::{self, Handler, Queue, Queues, RingGuard},
        Device,
        Endian, //
    },
};

/// A virtio block device that is bound to the driver.
#[pin_data]
pub(crate) struct VirtioBlk {
    endian: Endian,
    index: Index,
    #[pin]
    queues: Queues<Buffer, QueueState>,
    #[pin]
    pub(crate) cache: Cache,
    /// Readers of the serial number.
    #[pin]
    pub(crate) serial: Calls,
    #[pin]
    pub(crate) zones: Zones,
    /// The device said that its configuration space changed.
    config_changed: AtomicFlag,
    #[pin]
    work: Work<Self>,
    /// The device answers nothing any more, and is not used.
    lost: AtomicFlag,
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

impl WorkItem<LOST> for VirtioBlk {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if this.watch.run(&this) {
            this.give_up();
        }
    }
}

impl WorkItem for VirtioBlk {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.cache.run(&this);
    }
}

impl VirtioBlk {
    /// Prepares for a device with the given numbers of virtqueues and limits.
    pub(crate) fn new(
        dev: &Device<device::Bound>,
        counts: QueueCounts,
        limits: &Limits,
    ) -> Result<Arc<Self>> {
        let mode = control::mode(dev);
        let way = control::way(dev);
        let index = free_index(dev)?;

        Arc::pin_init(
            try_pin_init!(Self {
                endian: dev.endian(),
                index,
                queues <- Queues::new(counts.interrupt, counts.poll),
                cache <- Cache::new(mode, way),
                serial <- Calls::new(Purpose::Serial),
                zones <- Zones::new(limits),
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

    /// Makes the disk, which nobody sees yet.
    pub(crate) fn make_disk(
        self: &Arc<Self>,
        tags: Arc<TagSet<Self>>,
        limits: &mut Limits,
        major: u32,
    ) -> Result<Arc<Disk<Self>>> {
        // Flushes get here for the whole life of a disk that can be volatile at any time of it.
        if self.cache.can_switch() {
            limits.set_write_cache();
            limits.set_fua();
        } else if self.cache.mode() == Mode::WriteBack {
            limits.set_write_cache();
        }

        let name = Name::of(self.index.get());
        let numbers = Numbers {
            major,
            first_minor: self.index.get() << name::PART_BITS,
            minors: name::MINORS,
        };
        let name = name.as_cstr()?;

        Arc::pin_init(
            Disk::new(tags, limits, name, numbers, self.clone()),
            GFP_KERNEL,
        )
    }

    /// The disk is about to have users.
    pub(crate) fn attach_disk(&self, disk: &Arc<Disk<Self>>) {
        for queue in self.queues.iter() {
            queue.lock().disk = Some(disk.clone());
        }
        self.cache.open(disk.clone());
    }

    /// The disk has no users any more; the cache [is closed](Cache::close).
    pub(crate) fn detach_disk(&self) {
        for queue in self.queues.iter() {
            let disk = queue.lock().disk.take();

            // May sleep, so not under the lock.
            drop(disk);
        }
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

    /// Sends a command.
    ///
    /// A full ring is no failure: something in it makes room when it is done.
    pub(crate) fn send(&self, command: KBox<Command>) -> Result<(), Failure> {
        let queue = self.queues.get(0).ok_or(Failure::Gone)?;
        let rcu = rcu::read_lock();
        let mut ring = queue.lock();

        if ring.away {
            ring.defer(command);
            return Ok(());
        }
        match ring.add(command) {
            Ok(()) => (),
            Err((command, ENOSPC)) => ring.defer(command),
            Err((_, ENODEV)) => return Err(Failure::Gone),
            Err(_) => {
                Self::check(&ring);
                return Err(Failure::Io);
            }
        }
        let kick = ring.prepare_kick(&rcu);
        drop(ring);
        kick.notify();

        Ok(())
    }

    /// Takes the status byte of the command to switch the cache that the device has answered.
    pub(crate) fn take_answer(&self) -> Option<u8> {
        self.queues.get(0)?.lock().answer.take()
    }

    /// Has commands wait until [`Self::send_held`], because the device is about to be reset.
    pub(crate) fn hold_commands(&self) {
        if let Some(queue) = self.queues.get(0) {
            queue.lock().away = true;
        }
    }

    /// Sends the commands that waited for the device to be back from a reset.
    pub(crate) fn send_held(&self) {
        let Some(queue) = self.queues.get(0) else {
            return;
        };
        let mut ring = queue.lock();

        ring.away = false;
        self.use_room(ring);
    }

    /// Begins to watch the device, because something waits for all that it owes.
    pub(crate) fn begin_watch(this: &Arc<Self>) {
        this.watch.begin();
        let _ = workqueue::system_long().enqueue::<Arc<Self>, LOST>(this.clone());
    }

    /// Whether nothing will come from the device any more, before it is reset.
    pub(crate) fn is_dead(&self) -> bool {
        self.with_device(|dev| !dev.is_working()).unwrap_or(false)
            || self.queues.iter().any(|queue| queue.lock().is_broken())
    }

    /// A number that changes with each answer of the device; `None` if it owes none.
    pub(crate) fn debts(&self) -> Option<u32> {
        self.queues.iter().fold(None, |sum, queue| {
            let position = queue.lock().position();

            position.map_or(sum, |position| {
                Some(position.wrapping_add(sum.unwrap_or(0)))
            })
        })
    }

    /// Whether the device has broken the rules, and is not used any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Acquire)
    }

    /// Uses the device no more: all that it owes, and all that comes later, ends with an error.
    fn give_up(&self) {
        if self.lost.xchg(true, Full) {
            return;
        }

        let disk = self
            .queues
            .get(0)
            .and_then(|queue| queue.lock().disk.clone());
        if let Some(disk) = &disk {
            self.with_device(|dev| complain(dev, disk, "is given up: unbind and bind it", ""));
        }

        self.cache.close();
        self.serial.close(self);
        self.zones.calls().close(self);
        queue::disconnect(self);

        // What waited for room finds that there is no device.
        if let Some(disk) = disk {
            disk.restart_queues();
        }
    }

    /// Says that a reset has changed the mode of the write cache.
    pub(crate) fn warn_not_restored(&self, disk: &Disk<Self>, wanted: Mode) {
        self.with_device(|dev| {
            complain(
                dev,
                disk,
                "the mode of the write cache can't be brought back after a reset: ",
                wanted.into(),
            );
        });
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
}

impl VirtioBlk {
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

    /// Goes on with what waits after buffers were used, if anything does.
    #[inline]
    pub(crate) fn go_on(&self, ring: RingGuard<'_, Buffer, QueueState>) {
        if ring.waits {
            self.use_room(ring);
        }
    }

    /// Goes on with what waited for buffers to be used, or for room in the ring.
    #[cold]
    fn use_room(&self, mut ring: RingGuard<'_, Buffer, QueueState>) {
        // What waits on, or for the answer to a flush, sets it again.
        ring.waits = false;
        let mut added = flush::begin(self, &mut ring);

        if ring.stopped {
            ring.stopped = false;
            if let Some(disk) = &ring.disk {
                disk.restart_queues();
            }
        }
        while let Some(command) = ring.deferred() {
            match ring.add(command) {
                Ok(()) => added = true,
                // It waits on for the next buffer to be used.
                Err((command, ENOSPC)) => {
                    ring.defer(command);
                    break;
                }
                // Nothing may ever come that it could wait for.
                Err((command, _)) => self.answered(&mut ring, command),
            }
        }
        if !added {
            return;
        }

        let rcu = rcu::read_lock();
        let kick = ring.prepare_kick(&rcu);

        drop(ring);
        kick.notify();
    }

    /// Takes a command that the device has answered, or that ends without an answer.
    fn answered(&self, state: &mut QueueState, command: KBox<Command>) {
        match command.context {
            Purpose::Cache => {
                state.answer = Some(command.device_status());
                if let Some(disk) = &state.disk {
                    Self::queue_work(disk.data());
                }
            }
            Purpose::Serial => self.serial.answered(state, command),
            Purpose::Zones => self.zones.calls().answered(state, command),
        }
    }
}

impl Handler for VirtioBlk {
    type Buffer = Buffer;
    type State = QueueState;

    #[inline]
    fn used(this: ArcBorrow<'_, Self>, index: usize) {
        let Some(queue) = this.queue(index) else {
            return;
        };
        let mut ring = queue.lock();
        let used = ring.take_used(|ring, buffer| match buffer {
            Submission::Request(rq) if rq.is_fua() => {
                let mut over = ring.fua_answered(&this, rq.into_inner());

                while let Some(rq) = over.pop() {
                    rq.complete();
                }
            }
            Submission::Request(rq) => rq.into_inner().complete(),
            Submission::Command(command) => this.answered(ring, command),
        });

        Self::check(&ring);
        if used {
            this.go_on(ring);
        }
    }

    fn unused(&self, buffer: Buffer) {
        match buffer {
            // Of a device that broke the rules, or whose disk nobody got: otherwise all I/O has
            // ended before the device is reset.
            Submission::Request(rq) => {
                if rq.is_partly_done() {
                    if let Some(queue) = self.queue(rq.queue_index()) {
                        let waiting = queue.lock().flushes.give_up();
                        waiting.into_iter().for_each(end_all);
                    }
                }
                end_unused(rq.into_inner());
            }
            Submission::Command(command) => match (command.context, self.queue(0)) {
                // Its caller waits for the device to be back, or knows that it never will be.
                (Purpose::Serial | Purpose::Zones, Some(queue)) => {
                    queue.lock().defer(command);
                }
                // Lost with the reset, and not to be repeated: the machine knows.
                _ => drop(command),
            },
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

fn end_all(mut requests: RequestList<Request<VirtioBlk>>) {
    while let Some(rq) = requests.pop() {
        end_unused(rq);
    }
}

/// Ends a request that the device will not answer.
fn end_unused(mut rq: Request<VirtioBlk>) {
    rq.unmap();
    rq.end(Status::IOERR);
}

/// Takes an index whose name no disk has.
///
/// Indices of this module are its own, but `virtio_blk` names its disks the same way.
fn free_index(dev: &Device<device::Bound>) -> Result<Index> {
    let mut first = 0;

    loop {
        let index = Index::alloc(first..=name::LAST_INDEX)?;
        if !dev.bus_has_child(Name::of(index.get()).as_cstr()?) {
            return Ok(index);
        }
        first = index.get() + 1;
    }
}
