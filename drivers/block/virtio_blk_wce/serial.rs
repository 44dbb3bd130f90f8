// SPDX-License-Identifier: GPL-2.0

//! The disk's serial number. As in `virtio_blk`, the device is asked anew for each reader.

use crate::{
    call,
    command::{Command, Purpose},
    disk::VirtioBlk, //
};
use kernel::prelude::*;
use kernel_ext::block::virtio_blk::{request, status, Header, ID_BYTES};

/// Asks the device for the serial number, and waits for the answer. The reply is padded with
/// zeroes.
///
/// # Errors
///
/// `EOPNOTSUPP` if the device does not know the request, `EIO` if it fails; those of
/// [`call::wait`]; `ENOMEM`.
pub(crate) fn read(blk: &VirtioBlk) -> Result<KBox<Command>> {
    let header = Header::new(blk.endian(), request::GET_ID, 0, 0);
    let command = Command::new(header, &[], ID_BYTES, Purpose::Serial)?;
    let command = call::wait(blk, command)?;

    match command.device_status() {
        status::OK => Ok(command),
        status::UNSUPP => Err(EOPNOTSUPP),
        _ => Err(EIO),
    }
}
