// SPDX-License-Identifier: GPL-2.0

//! A tag set gets its queues from what runs the device: the bus is asked for the interrupts of
//! each.

use kernel::{device, prelude::*, sync::Arc};
use kernel_ext::{
    block::mq::{HwQueues, Operations, QueueCounts, TagSet},
    virtio::{
        queue::{Handler, Running},
        Device, //
    },
};

/// What runs the device is right.
pub fn make<T: Operations, H: Handler>(running: &Running<'_, H>) -> Result<Arc<TagSet<T>>> {
    Arc::pin_init(TagSet::new(running, 128), GFP_KERNEL)
}

/// The device alone says nothing of queues.
pub fn of_a_device<T: Operations>(dev: &Device<device::Bound>) -> Result {
    #[cfg(unsound = "device")]
    let _ = Arc::pin_init(TagSet::<T>::new(dev, 128), GFP_KERNEL)?; //~ device E0277
    let _ = dev;
    Ok(())
}

/// Nor can a driver just say that there are some.
pub struct Promise(pub QueueCounts);

#[cfg(unsound = "promise")]
impl HwQueues for Promise {
    //~^ promise E0200
    fn with_queues<R>(
        &self,
        _f: impl FnOnce(&device::Device<device::Bound>, QueueCounts) -> R,
    ) -> Result<R> {
        Err(ENODEV)
    }
}

/// Whoever has queues tells how many there are.
pub fn any(queues: &impl HwQueues) -> Result<u32> {
    queues.with_queues(|_, counts| counts.total())
}
