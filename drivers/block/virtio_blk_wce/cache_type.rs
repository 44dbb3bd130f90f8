// SPDX-License-Identifier: GPL-2.0

//! The attributes of a disk in sysfs: `cache_type`, `cache_type_status` and `serial`.
//!
//! They are documented in `Documentation/ABI/testing/sysfs-block-virtio_blk_wce`.

use crate::{
    cache_work::{self, MODE_NAME, STATUS_NAME},
    disk::VirtioBlk,
    serial,
    switch::{Failure, Mode}, //
};
use kernel::{prelude::*, sync::ArcBorrow};
use kernel_ext::{
    block::attribute::{Attribute, Page},
    disk_attributes, //
};

disk_attributes!(pub(crate) static GROUP: VirtioBlk = [SerialNumber, CacheType, CacheTypeStatus]);

/// Writes words into a line.
fn line(out: &mut Page<'_>, words: &[&str]) -> Result {
    let mut separator = "";

    for word in words {
        out.write_bytes(separator.as_bytes())?;
        out.write_bytes(word.as_bytes())?;
        separator = " ";
    }
    out.write_bytes(b"\n")
}

/// The mode for a word, which may be followed by one newline.
fn mode(value: &[u8]) -> Result<Mode> {
    let value = value.strip_suffix(b"\n").unwrap_or(value);

    [Mode::WriteThrough, Mode::WriteBack]
        .into_iter()
        .find(|mode| <&str>::from(*mode).as_bytes() == value)
        .ok_or(EINVAL)
}

/// The serial number, as text without a newline; empty if the device fails to tell it. As with
/// `virtio_blk`, reading fails with `EOPNOTSUPP` if the device does not know the request.
struct SerialNumber;

#[vtable]
impl Attribute<VirtioBlk> for SerialNumber {
    const NAME: &'static CStr = c"serial";

    fn mode(_blk: &VirtioBlk) -> u16 {
        0o444
    }

    fn show(blk: &VirtioBlk, out: &mut Page<'_>) -> Result {
        match serial::read(blk) {
            Ok(command) => {
                let id = command.reply();
                let len = id.iter().position(|byte| *byte == 0).unwrap_or(id.len());

                out.write_bytes(id.get(..len).unwrap_or_default())
            }
            Err(EIO) => Ok(()),
            Err(err) => Err(err),
        }
    }
}

/// The mode in force. A write changes it.
struct CacheType;

#[vtable]
impl Attribute<VirtioBlk> for CacheType {
    const NAME: &'static CStr = MODE_NAME;

    fn mode(blk: &VirtioBlk) -> u16 {
        if blk.cache.can_switch() {
            0o644
        } else {
            0o444
        }
    }

    fn show(blk: &VirtioBlk, out: &mut Page<'_>) -> Result {
        line(out, &[blk.cache.mode().into()])
    }

    fn store(blk: ArcBorrow<'_, VirtioBlk>, value: &[u8]) -> Result {
        let ticket = cache_work::request(blk, mode(value)?)?;

        blk.cache.wait(&ticket)
    }
}

/// The outcome of the latest request to change the mode.
struct CacheTypeStatus;

#[vtable]
impl Attribute<VirtioBlk> for CacheTypeStatus {
    const NAME: &'static CStr = STATUS_NAME;

    fn mode(_blk: &VirtioBlk) -> u16 {
        0o444
    }

    fn show(blk: &VirtioBlk, out: &mut Page<'_>) -> Result {
        let Some(ticket) = blk.cache.latest() else {
            return line(out, &["none"]);
        };
        let mode = ticket.mode().into();

        match ticket.outcome() {
            None => line(out, &["pending", mode]),
            Some(Ok(())) => line(out, &["ok", mode]),
            Some(Err(failure)) => line(out, &["error", mode, error_name(failure)]),
        }
    }
}

/// The name of the error number that a writer gets.
fn error_name(failure: Failure) -> &'static str {
    match failure {
        Failure::Io => "EIO",
        Failure::Unsupported => "EOPNOTSUPP",
        Failure::Gone => "ENODEV",
    }
}

#[kunit_tests(virtio_blk_wce_cache_type)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for known in [Mode::WriteThrough, Mode::WriteBack] {
            assert!(mode(<&str>::from(known).as_bytes()) == Ok(known));
        }
    }

    #[test]
    fn one_newline_may_follow() {
        assert!(mode(b"write back\n") == Ok(Mode::WriteBack));
        assert!(mode(b"write through\n") == Ok(Mode::WriteThrough));
        assert!(mode(b"write back\n\n") == Err(EINVAL));
        assert!(mode(b"\nwrite back") == Err(EINVAL));
    }

    #[test]
    fn nothing_else_is_a_word() {
        let others: [&[u8]; 10] = [
            b"",
            b"\n",
            b"write",
            b"write bac",
            b"write backx",
            b"write back\0",
            b"Write back",
            b" write back",
            b"write back ",
            b"write back write through",
        ];

        for other in others {
            assert!(mode(other) == Err(EINVAL));
        }
    }
}
