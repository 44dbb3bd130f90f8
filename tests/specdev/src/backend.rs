// SPDX-License-Identifier: GPL-2.0

//! The device's end of vhost-user: features, configuration, and a thread for each virtqueue.

use crate::{
    cache::{Medium, Mode},
    protocol::{feature, field, Status, MAX_ZEROES, SEG_MAX},
    request::Request,
};
use std::{
    io::{self, Read, Write},
    sync::{
        atomic::{AtomicU64, Ordering},
        PoisonError, RwLock,
    },
};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VringRwLock, VringT};
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// The device.
pub struct Backend {
    medium: Medium,
    queues: u16,
    offered: u64,
    negotiated: AtomicU64,
    memory: RwLock<Option<Memory>>,
}

impl Backend {
    /// A device for one front end.
    pub fn new(medium: Medium, queues: u16, read_only: bool) -> Self {
        let bits = [
            feature::SEG_MAX,
            feature::BLK_SIZE,
            feature::FLUSH,
            feature::CONFIG_WCE,
            feature::WRITE_ZEROES,
            feature::SET_WCE,
            feature::VERSION_1,
        ];
        let mut offered = bits.iter().fold(0, |all, bit| all | (1 << bit));

        if queues > 1 {
            offered |= 1 << feature::MQ;
        }
        if read_only {
            offered |= 1 << feature::RO;
        }
        Self {
            medium,
            queues,
            offered,
            negotiated: AtomicU64::new(0),
            memory: RwLock::new(None),
        }
    }

    fn has(&self, bit: u32) -> bool {
        self.negotiated.load(Ordering::SeqCst) & (1 << bit) != 0
    }

    fn config(&self) -> [u8; field::END] {
        let mut config = [0; field::END];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);

        put(field::CAPACITY, &self.medium.sectors().to_le_bytes());
        put(field::SEG_MAX, &SEG_MAX.to_le_bytes());
        put(field::BLK_SIZE, &512_u32.to_le_bytes());
        put(field::WCE, &[self.medium.shows_write_back().into()]);
        put(field::NUM_QUEUES, &self.queues.to_le_bytes());
        put(field::MAX_WRITE_ZEROES_SECTORS, &MAX_ZEROES.to_le_bytes());
        put(field::MAX_WRITE_ZEROES_SEG, &1_u32.to_le_bytes());
        config
    }

    /// Serves one request. One that leaves no room for the status, or is too short for its header,
    /// is given back as it is.
    fn serve(&self, vring: &VringRwLock, chain: Chain) -> io::Result<()> {
        let memory = chain.memory();
        let head = chain.head_index();
        let mut reader = chain.clone().reader(memory).map_err(io::Error::other)?;
        let mut writer = chain.clone().writer(memory).map_err(io::Error::other)?;
        let mut bytes = Vec::new();

        reader.read_to_end(&mut bytes)?;
        let room = writer.available_bytes().checked_sub(1);
        let (Some(request), Some(room)) = (Request::parse(&bytes), room) else {
            return vring.add_used(head, 0).map_err(io::Error::other);
        };
        let mut last = writer.split_at(room).map_err(io::Error::other)?;
        let negotiated = self.negotiated.load(Ordering::SeqCst);

        request.execute(&self.medium, negotiated, room, |status: Status, data| {
            writer.write_all(data)?;
            last.write_all(&[status as u8])?;
            vring
                .add_used(head, data.len() as u32 + 1)
                .map_err(io::Error::other)
        })
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        self.queues.into()
    }

    fn max_queue_size(&self) -> usize {
        // The most that virtio-pci of QEMU has: its queues are that before a driver says so.
        1024
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.queues).map(|queue| 1 << queue).collect()
    }

    fn features(&self) -> u64 {
        self.offered | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&self, features: u64) {
        self.negotiated.store(features, Ordering::SeqCst);
    }

    fn reset_device(&self) {
        // A front end that does not tell of a reset leaves the mode as it is, and that is what the
        // next driver reads. To change it when the driver starts the device would be too late.
        self.medium.reset();
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let (offset, size) = (offset as usize, size as usize);
        let mut bytes = self.config().get(offset..).unwrap_or(&[]).to_vec();

        bytes.resize(size, 0);
        bytes
    }

    fn set_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let at = field::WCE.checked_sub(offset as usize);
        let wce = at.and_then(|at| bytes.get(at));

        match wce {
            // "The device MUST ignore writes to wce."
            Some(&wce) if self.has(feature::CONFIG_WCE) && !self.has(feature::SET_WCE) => {
                let mode = if wce == 0 {
                    Mode::WriteThrough
                } else {
                    Mode::WriteBack
                };
                self.medium.switch(mode)
            }
            _ => Ok(()),
        }
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        let mut place = self.memory.write().unwrap_or_else(PoisonError::into_inner);

        *place = Some(memory);
        Ok(())
    }

    fn handle_event(
        &self,
        event: u16,
        _events: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        let memory = self
            .memory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (Some(memory), Some(vring)) = (memory, vrings.get(usize::from(event))) else {
            return Ok(());
        };

        loop {
            let next = vring
                .get_mut()
                .get_queue_mut()
                .pop_descriptor_chain(memory.memory());
            let Some(chain) = next else {
                break;
            };
            self.serve(vring, chain)?;
            vring.signal_used_queue()?;
        }
        Ok(())
    }
}
