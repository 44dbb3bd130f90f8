// SPDX-License-Identifier: GPL-2.0

//! The device's end of vhost-user: features, configuration, virtqueues.

use crate::{
    config::{self, Config},
    options::{Options, VIRTIO_BLK_F_SET_WCE},
    quirks::Quirk,
    request::{Device, Header},
    script::{Deed, Script},
};
use std::{
    collections::HashSet,
    io::{self, Read, Write},
    sync::atomic::{AtomicU64, Ordering},
};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackendMut, VringRwLock, VringState, VringT};
use virtio_bindings::virtio_blk as blk;
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard,
    GuestMemoryMmap,
};
use vmm_sys_util::epoll::EventSet;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// Where a split used ring has its index and its first element.
const USED_INDEX: u64 = 2;
const USED_RING: u64 = 4;
const USED_ELEMENT: u64 = 8;

/// The heads of requests of which the driver may believe that they are done.
///
/// Their memory is the driver's again, and may be anything by then. No driver can do anything about
/// a device that writes there, so this one does not: it lies about what it has done, and that is
/// all.
#[derive(Default)]
struct Disowned {
    all: bool,
    heads: HashSet<u16>,
}

impl Disowned {
    fn has(&self, head: u16) -> bool {
        self.all || self.heads.contains(&head)
    }
}

/// A device that a front end is connected with.
pub struct Backend {
    pub device: Device,
    offered: u64,
    queues: u16,
    queue_size: u16,
    memory: Option<Memory>,
    /// What the driver has made the ring of the first queue.
    ring_size: u16,
    /// Requests that are not answered.
    held: Vec<(VringRwLock, Chain)>,
    disowned: Disowned,
    /// How often the configuration was read.
    reads: AtomicU64,
    /// What says what it does wrong, and the configuration space without that.
    script: Option<(Script, Config)>,
}

impl Backend {
    /// A device as the options say.
    pub fn new(options: Options) -> Result<Self, String> {
        Ok(Self {
            device: Device::new(&options)?,
            offered: options.features,
            queues: options.queues,
            queue_size: options.queue_size,
            memory: None,
            ring_size: 0,
            held: Vec::new(),
            disowned: Disowned::default(),
            reads: AtomicU64::new(0),
            script: None,
        })
    }

    /// From now on it does what a script says. What the last one has kept is forgotten.
    pub fn follow(&mut self, mut script: Script) {
        let sound = match self.script.take() {
            Some((_, sound)) => sound,
            None => self.device.config.clone(),
        };

        self.held.clear();
        self.disowned = Disowned::default();
        self.device.config = sound.clone();
        script.patch(&mut self.device.config);
        self.script = Some((script, sound));
    }

    /// Answers what a script has kept. A driver that sends malformed requests gets no answer.
    pub fn catch_up(&mut self) {
        if self.script.is_some() && !self.held.is_empty() {
            if let Err(err) = self.release() {
                eprintln!("vbw-testdev: what was kept: {err}");
            }
        }
    }

    /// Answers all requests that were held back, also when one of them can't be.
    pub fn release(&mut self) -> io::Result<usize> {
        let held = std::mem::take(&mut self.held);
        let mut outcome = Ok(held.len());

        for (vring, chain) in &held {
            let answered = self.answer(vring, chain.clone(), Deed::Proper);

            if let Err(err) = answered.and_then(|()| vring.signal_used_queue()) {
                outcome = Err(err);
            }
        }
        outcome
    }

    /// The descriptors of the ring of the first queue, and how many of them are those of requests
    /// that are held back.
    pub fn ring(&self) -> (u16, usize) {
        let held = self.held.iter().map(|(_, chain)| chain.clone().count());

        (self.ring_size, held.sum())
    }

    /// Serves one request; whether that has used the ring.
    fn serve(&mut self, vring: &VringRwLock, chain: Chain) -> io::Result<bool> {
        if self.device.quirks.take(Quirk::NoAnswer) || self.is_kept(&chain)? {
            self.held.push((vring.clone(), chain));
            return Ok(false);
        }
        let deed = match &mut self.script {
            Some((script, _)) => script.next(),
            None => Deed::Proper,
        };
        match deed {
            Deed::Later(others) if self.held.len() < others.into() => {
                self.held.push((vring.clone(), chain));
                return Ok(false);
            }
            Deed::Config(at, value) => {
                let at = usize::from(at) % config::SIZE;
                self.device.config.put_byte(at, value);
            }
            _ => (),
        }
        // A request that is never answered would be all that is seen of an input.
        if matches!(deed, Deed::Id(_) | Deed::Times(0)) {
            self.held.push((vring.clone(), chain.clone()));
        }
        self.answer(vring, chain, deed)?;
        Ok(true)
    }

    /// Whether requests of this type are held back.
    fn is_kept(&mut self, chain: &Chain) -> io::Result<bool> {
        let mut header = [0; Header::SIZE];
        let mut reader = chain
            .clone()
            .reader(chain.memory())
            .map_err(io::Error::other)?;
        reader.read_exact(&mut header)?;

        Ok(match Header::parse(&header).kind {
            blk::VIRTIO_BLK_T_OUT => self.device.quirks.take(Quirk::WriteKept),
            blk::VIRTIO_BLK_T_FLUSH => self.device.quirks.take(Quirk::FlushKept),
            _ => false,
        })
    }

    /// Executes a request, and tells the driver, or tells it something else. Requests from before
    /// a reset are forgotten: a front end stops the ring, which waits for the lock.
    fn answer(&mut self, vring: &VringRwLock, chain: Chain, deed: Deed) -> io::Result<()> {
        let mut state = vring.get_mut();
        if !state.get_queue().ready() {
            return Ok(());
        }

        let head = chain.head_index();
        let memory = chain.memory();
        let mut reader = chain.clone().reader(memory).map_err(io::Error::other)?;
        let mut writer = chain.clone().writer(memory).map_err(io::Error::other)?;

        let mut header = [0; Header::SIZE];
        reader.read_exact(&mut header)?;
        let header = Header::parse(&header);
        let mut payload = Vec::new();
        reader.read_to_end(&mut payload)?;

        let room = writer.available_bytes().checked_sub(1);
        let room = room.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut tail = writer.split_at(room).map_err(io::Error::other)?;
        let mut answer = self.device.execute(header, &payload, room);
        match deed {
            Deed::Status(status) => answer.status = status,
            Deed::Data(byte) => answer.data.fill(byte),
            _ => (),
        }

        let no_status = deed == Deed::NoStatus || self.device.quirks.take(Quirk::StatusMissing);
        if !self.disowned.has(head) {
            writer.write_all(&answer.data[..room.min(answer.data.len())])?;
            if !no_status {
                tail.write_all(&[answer.status])?;
            }
        }

        let written = (answer.data.len() + 1) as u32;
        self.put_used(&mut state, memory, head, written, deed)
    }

    /// Puts a request into the used ring, or something else.
    fn put_used(
        &mut self,
        state: &mut VringState<Memory>,
        memory: &GuestMemoryMmap,
        head: u16,
        written: u32,
        deed: Deed,
    ) -> io::Result<()> {
        let quirks = &mut self.device.quirks;
        let size = state.get_queue().size();
        let deed = match deed {
            Deed::Length(_) | Deed::Id(_) | Deed::Times(_) | Deed::Ahead(_) => deed,
            _ if quirks.take(Quirk::UsedIdRange) => Deed::Id(u32::from(size) + 7),
            // Heads are taken from a list of free descriptors: the one before this is not at its
            // front, unless the ring is full.
            _ if quirks.take(Quirk::UsedIdFree) => Deed::Id(u32::from(head.wrapping_sub(1) % size)),
            _ if quirks.take(Quirk::UsedLength) => Deed::Length(u32::MAX),
            _ if quirks.take(Quirk::UsedTwice) => Deed::Times(2),
            _ if quirks.take(Quirk::UsedIndex) => Deed::Ahead(size),
            _ => Deed::Proper,
        };
        let mut add = |length| state.add_used(head, length).map_err(io::Error::other);

        match deed {
            Deed::Length(length) => add(length),
            Deed::Id(id) => {
                self.disowned.heads.extend(u16::try_from(id));
                put_raw(state, memory, id)
            }
            Deed::Times(times) => {
                if times > 1 {
                    self.disowned.heads.insert(head);
                }
                (0..times).try_for_each(|_| add(written))
            }
            Deed::Ahead(by) => {
                self.disowned.all = true;
                add(written)?;
                go_ahead(memory, state.get_queue().used_ring(), by)
            }
            _ => add(written),
        }
    }
}

/// Has the index of a used ring point beyond what was used.
fn go_ahead(memory: &GuestMemoryMmap, ring: u64, by: u16) -> io::Result<()> {
    let index = GuestAddress(ring + USED_INDEX);
    let used: u16 = memory.read_obj(index).map_err(io::Error::other)?;

    memory
        .write_obj(used.wrapping_add(by), index)
        .map_err(io::Error::other)
}

/// Puts any identifier into the used ring.
fn put_raw(state: &mut VringState<Memory>, memory: &GuestMemoryMmap, id: u32) -> io::Result<()> {
    let queue = state.get_queue_mut();
    let used = queue.next_used();
    let slot = u64::from(used % queue.size()) * USED_ELEMENT;
    let next = used.wrapping_add(1);
    let store = |value: u32, at: u64| {
        memory
            .write_obj(value.to_le(), GuestAddress(queue.used_ring() + at))
            .map_err(io::Error::other)
    };

    store(id, USED_RING + slot)?;
    store(1, USED_RING + slot + 4)?;
    memory
        .store(
            next.to_le(),
            GuestAddress(queue.used_ring() + USED_INDEX),
            Ordering::Release,
        )
        .map_err(io::Error::other)?;
    queue.set_next_used(next);
    Ok(())
}

impl VhostUserBackendMut for Backend {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        self.queues.into()
    }

    fn max_queue_size(&self) -> usize {
        self.queue_size.into()
    }

    fn features(&self) -> u64 {
        self.offered | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&mut self, features: u64) {
        // A front end sends them when a driver starts the device, and what was before is over.
        self.held.clear();
        self.disowned = Disowned::default();
        self.device.start(features);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut bytes = self.device.config.bytes().to_vec();

        if self.device.quirks.is_active(Quirk::CapacityWobbles) {
            let reads = self.reads.fetch_add(1, Ordering::Relaxed);
            bytes[2] ^= reads as u8;
        }
        bytes.resize(bytes.len().max((offset + size) as usize), 0);
        bytes[offset as usize..(offset + size) as usize].to_vec()
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        // The front end writes all that there is; only one byte can be changed.
        let wce = (config::WCE as u32)
            .checked_sub(offset)
            .and_then(|at| bytes.get(at as usize));
        let asked =
            self.device.has(blk::VIRTIO_BLK_F_CONFIG_WCE) && !self.device.has(VIRTIO_BLK_F_SET_WCE);

        match wce {
            Some(&wce) if asked => self.device.set_write_back(wce != 0),
            _ => Ok(()),
        }
    }

    fn update_memory(&mut self, memory: Memory) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn handle_event(
        &mut self,
        event: u16,
        _events: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        let (Some(memory), Some(vring)) = (&self.memory, vrings.get(usize::from(event))) else {
            return Ok(());
        };
        let memory = memory.memory();
        let mut used = false;

        if event == 0 {
            self.ring_size = vring.get_ref().get_queue().size();
        }

        loop {
            let next = vring
                .get_mut()
                .get_queue_mut()
                .pop_descriptor_chain(memory.clone());
            let Some(chain) = next else {
                break;
            };
            match self.serve(vring, chain) {
                Ok(answered) => used |= answered,
                // A driver that sends such things gets no answer.
                Err(err) => eprintln!("vbw-testdev: a malformed request: {err}"),
            }
        }
        if used {
            vring.signal_used_queue()?;
        }
        Ok(())
    }
}
