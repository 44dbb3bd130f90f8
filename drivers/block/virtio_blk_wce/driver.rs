// SPDX-License-Identifier: GPL-2.0

//! Virtio block driver whose users switch the write cache of their disk while it is in use.
//!
//! A replacement for `virtio_blk`. What happens where:
//!
//! - `cache_type`: the attributes in sysfs.
//! - `cache_work`: the work that changes the mode of the write cache, step by step.
//! - `control`: how a device is told the mode, by request or by configuration write.
//! - `request`: I/O on its way to the device.
//! - `answer`: what comes back from the device.
//! - `flush`: flushes, and writes that end only when they are on stable storage.
//! - `status`: what the block layer is told of a request.
//! - `call`: commands, and callers that wait for their answers.
//! - `serial`, `zone_report`: callers that learn the serial number, and the zones.
//! - `lost`: devices that are given up.
//! - `disk`: what all of these share.
//! - `cache`: the mode in force, and the users who want to change it.
//! - `switch`: the state machine of a switch, and the order of steps that keeps data safe.
//! - `watch`: how long a device is waited for.
//! - `command`: commands, which are sent to the device besides I/O.
//! - `limits`, `zones`, `name`: what a disk looks like.
//!
//! A file uses only files that do not use it. Those above use `disk`, which uses those below.

#![forbid(unsafe_code)]

mod answer;
mod cache;
mod cache_type;
mod cache_work;
mod call;
mod command;
mod control;
mod disk;
mod flush;
mod limits;
mod lost;
mod name;
mod request;
mod serial;
mod status;
mod switch;
mod watch;
mod zone_report;
mod zones;

use crate::{
    cache::Cache,
    disk::{VirtioBlk, LOST},
    name::Name,
    switch::Mode,
    zones::Zones, //
};
use kernel::{
    device,
    driver,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    },
    ThisModule, //
};
use kernel_ext::{
    block::{
        disk::Disk,
        limits::Limits,
        mq::TagSet,
        number::{Major, Numbers},
        virtio_blk::{self, feature}, //
    },
    virtio::{
        self,
        queue::{Running, Start},
        Device,
        Features, //
    },
    work, //
};

/// The major number of all disks, which the module registers.
static MAJOR: Atomic<u32> = Atomic::new(0);

kernel_ext::virtio_device_table!(
    ID_TABLE,
    [virtio::DeviceId::from_type(virtio_blk::DEVICE_ID)]
);

/// The feature bits that the driver understands.
const FEATURES: &[u32] = &[
    feature::SEG_MAX,
    feature::SIZE_MAX,
    feature::GEOMETRY,
    feature::RO,
    feature::BLK_SIZE,
    feature::FLUSH,
    feature::TOPOLOGY,
    feature::CONFIG_WCE,
    feature::MQ,
    feature::DISCARD,
    feature::WRITE_ZEROES,
    feature::SECURE_ERASE,
    feature::SET_WCE,
    feature::ZONED,
];

/// The feature bits that it understands from legacy devices: all but the last one, zones.
const FEATURES_LEGACY: &[u32] = match FEATURES.split_last() {
    Some((_, legacy)) => legacy,
    None => FEATURES,
};

kernel_ext::module_numbers! {
    of "virtio_blk_wce";
    static NUM_REQUEST_QUEUES = "num_request_queues", 0o644,
        "Most request queues of a disk; 0 for as many as device and CPUs have";
    static POLL_QUEUES = "poll_queues", 0o644,
        "How many of a disk's request queues are for polled I/O; one is not";
    static QUEUE_DEPTH = "queue_depth", 0o444,
        "Requests that a queue can have in flight; 0 for what fills its ring";
}

struct VirtioBlkDriver;

/// What the driver has for a bound device. The fields are dropped in this order.
struct Bound<'bound> {
    disk: Arc<Disk<VirtioBlk>>,
    running: &'bound Running<'bound, VirtioBlk>,
    shared: Arc<VirtioBlk>,
}

#[vtable]
impl virtio::Driver for VirtioBlkDriver {
    type Data<'bound> = Bound<'bound>;
    type Handler = VirtioBlk;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;
    const FEATURES: &'static [u32] = FEATURES;
    const FEATURES_LEGACY: &'static [u32] = FEATURES_LEGACY;

    fn validate(features: &mut Features<'_>) {
        // A switch says whether flushes are needed, so it means nothing without them.
        if !features.has(feature::FLUSH) {
            features.clear(feature::SET_WCE);
        }
        // A device that uses buffers in order could complete no I/O that follows a switch before
        // the switch itself, for which nobody but its writer should wait.
        if features.has(feature::SET_WCE) {
            features.clear(feature::IN_ORDER);
        }
    }

    fn probe<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        start: Start<'bound, VirtioBlk>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        Self::bind(dev, start)
    }

    fn unbind<'bound>(_dev: &'bound Device<device::Core<'_>>, data: Pin<&Self::Data<'bound>>) {
        Self::take_down(&data.shared, &data.disk);
    }

    fn suspend<'bound>(
        _dev: &'bound Device<device::Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        let shared = &data.shared;

        lost::begin_watch(shared);
        work::disable_sync::<_, 0>(shared);
        data.disk.quiesce();
        shared.watch.end();
        lost::forbid(shared);
        call::hold(shared);
        cache_work::suspend(shared);
        Ok(())
    }

    fn resume<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        data: Pin<&Self::Data<'bound>>,
    ) -> Result {
        let shared = &data.shared;

        if lost::is_lost(shared) {
            work::enable::<_, 0>(shared);
            data.disk.unquiesce();
            return Ok(());
        }

        // If there are no virtqueues, all I/O fails. That is better than I/O that never ends.
        let resumed = data
            .running
            .resume()
            .inspect(|()| data.running.ready())
            .inspect_err(|_| {
                disk::complain(dev, &data.disk, "is lost: it can't be set up again", "");
            });

        cache_work::resume(shared);
        work::enable::<_, 0>(shared);
        data.disk.unquiesce();
        answer::send_held(shared);
        // The mode from before may have to be restored, and the capacity may have changed. Both are
        // looked at when `config_changed` is called, which does not happen after an error.
        if resumed.is_err() {
            VirtioBlk::queue_work(shared.as_arc_borrow());
        }
        resumed
    }

    fn config_changed<'bound>(_dev: &'bound Device<device::Bound>, data: Pin<&Self::Data<'bound>>) {
        lost::allow(&data.shared);
        VirtioBlk::config_changed(data.shared.as_arc_borrow());
    }
}

impl VirtioBlkDriver {
    /// Ends all use of a disk, whether it has users or not.
    fn take_down(shared: &Arc<VirtioBlk>, disk: &Disk<VirtioBlk>) {
        lost::begin_watch(shared);

        // The users of attributes come first, as removing the disk waits for them. The work comes
        // next: it uses the disk, and may wait for I/O, which needs the device.
        shared.cache.close();
        call::close(shared);
        work::disable_sync::<_, 0>(shared);
        disk.remove();
        shared.watch.end();
        // Up to here the device may owe I/O, so it was watched.
        work::disable_sync::<_, LOST>(shared);

        // The disk and its data refer to each other. This ends that.
        shared.detach_disk();
    }

    /// Adds the disk, so that it has users.
    fn show(
        dev: &Device<device::Bound>,
        shared: &VirtioBlk,
        disk: &Arc<Disk<VirtioBlk>>,
    ) -> Result {
        if shared.zones.is_zoned() {
            disk.revalidate_zones()?;
        }
        disk.add(dev.as_ref(), &cache_type::GROUP)
    }

    /// Keeps a device from being given up before the core has set it up.
    ///
    /// # Errors
    ///
    /// `EIO` if it has been given up already.
    fn keep(shared: &Arc<VirtioBlk>) -> Result {
        lost::forbid(shared);

        if lost::is_lost(shared) {
            return Err(EIO);
        }
        Ok(())
    }

    /// Makes the disk. It is not added yet.
    fn make_disk(
        shared: &Arc<VirtioBlk>,
        tags: Arc<TagSet<VirtioBlk>>,
        limits: &mut Limits,
    ) -> Result<Arc<Disk<VirtioBlk>>> {
        // A disk whose mode can be changed may become volatile at any time, so it takes flushes for
        // life.
        if shared.cache.can_switch() {
            limits.set_write_cache();
            limits.set_fua();
        } else if shared.cache.mode() == Mode::WriteBack {
            limits.set_write_cache();
        }

        let name = Name::of(shared.index.get());
        let numbers = Numbers {
            major: MAJOR.load(Relaxed),
            first_minor: shared.index.get() << name::PART_BITS,
            minors: name::MINORS,
        };
        let name = name.as_cstr()?;

        Arc::pin_init(
            Disk::new(tags, limits, name, numbers, shared.clone()),
            GFP_KERNEL,
        )
    }

    fn bind<'bound>(
        dev: &'bound Device<device::Bound>,
        start: Start<'bound, VirtioBlk>,
    ) -> Result<Bound<'bound>> {
        if !dev.has_config() {
            return Err(limits::refuse(dev, "size of the configuration space", 0));
        }

        let counts = limits::queues(dev, NUM_REQUEST_QUEUES.get(), POLL_QUEUES.get())?;
        let mut limits = Limits::default();
        limits::read(dev, &mut limits)?;
        let capacity = limits::capacity(dev)?;
        zones::read_limits(dev, capacity, &mut limits)?;

        let cache = Cache::new(control::mode(dev), control::way(dev));
        let index = name::free_index(dev)?;
        let shared = VirtioBlk::new(dev.endian(), index, counts, cache, Zones::new(&limits))?;
        let running = start.start(&shared)?;
        limits::fit_ring(dev, &mut limits, running.max_descriptors()?)?;

        let depth = shared.queue_depth(dev, QUEUE_DEPTH.get());
        let tags = Arc::pin_init(TagSet::new(running, depth), GFP_KERNEL)?;
        let disk = Self::make_disk(&shared, tags, &mut limits)?;

        if dev.has_feature(feature::RO) {
            disk.set_read_only();
        }
        limits::announce_capacity(dev, &disk, capacity, "");
        disk.set_capacity(capacity);

        // Attributes can be used as soon as the disk is added, and I/O begins while it is.
        shared.attach_disk(&disk);
        running.ready();
        Self::show(dev, &shared, &disk)
            .and_then(|()| Self::keep(&shared))
            .inspect_err(|_| Self::take_down(&shared, &disk))?;

        Ok(Bound {
            disk,
            running,
            shared,
        })
    }
}

#[pin_data]
struct VirtioBlkModule {
    #[pin]
    _driver: driver::Registration<virtio::Adapter<VirtioBlkDriver>>,
    _major: Major,
}

impl kernel::InPlaceModule for VirtioBlkModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _major: {
                name::INDICES.init()?;
                let major = Major::register(c"virtblk")?;

                // Devices are bound as soon as the driver is registered, which is after this.
                MAJOR.store(major.number(), Relaxed);
                major
            },
            _driver <- driver::Registration::new(
                <Self as kernel::ModuleMetadata>::NAME,
                module,
            ),
        })
    }
}

module! {
    type: VirtioBlkModule,
    name: "virtio_blk_wce",
    authors: ["virtio-blk-wce developers"],
    description: "Virtio block driver with a write cache that is switched at run time",
    license: "GPL",
}
