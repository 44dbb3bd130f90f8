// SPDX-License-Identifier: GPL-2.0

//! Attributes that take the data of one kind of disk can't be put into a group for another one.

#[path = "support/module.rs"]
mod module;

use kernel::{device, prelude::*, sync::Arc};
use kernel_ext::{
    block::{
        attribute::{Attribute, Attributes, Definition, Group, Page, RawGroup},
        disk::Disk,
        mq::Operations, //
    },
    disk_attributes,
};
use module::LocalModule;

/// The data of a disk.
pub struct Mine(u64);

/// That of another one.
pub struct Yours(KVec<u64>);

/// An attribute of the first one.
pub struct Size;

#[vtable]
impl Attribute<Mine> for Size {
    const NAME: &'static CStr = c"size";

    fn mode(data: &Mine) -> u16 {
        data.0 as u16
    }

    fn show(_data: &Mine, _out: &mut Page<'_>) -> Result {
        Ok(())
    }
}

disk_attributes!(static MINE: Mine = [Size]);

#[cfg(unsound = "macro")]
disk_attributes!(static YOURS: Yours = [Size]); //~ macro E0277

// What the macro does, by hand.
static DEFINITIONS: [Definition<Mine>; 1] = [Definition::<Mine>::new::<Size>()];
static ATTRIBUTES: Attributes<Mine, 2> = Attributes::new(&DEFINITIONS);
static RAW: RawGroup<Mine> = RawGroup::new(&ATTRIBUTES);
/// A good group.
pub static GROUP: Group<Mine> = Group::new(&RAW);

#[cfg(unsound = "definitions")]
static OTHER_ATTRIBUTES: Attributes<Yours, 2> = Attributes::new(&DEFINITIONS); //~ definitions E0308
#[cfg(unsound = "attributes")]
static OTHER_RAW: RawGroup<Yours> = RawGroup::new(&ATTRIBUTES); //~ attributes E0308
#[cfg(unsound = "group")]
static OTHER_GROUP: Group<Yours> = Group::new(&RAW); //~ group E0308

/// A group goes with disks of its data.
pub fn add<T: Operations<QueueData = Mine>, U: Operations<QueueData = Yours>>(
    mine: &Arc<Disk<T>>,
    yours: &Arc<Disk<U>>,
    parent: &device::Device<device::Bound>,
) -> Result {
    let _ = yours;
    #[cfg(unsound = "disk")]
    yours.add(parent, &GROUP)?; //~ disk E0308
    mine.add(parent, &MINE)
}
