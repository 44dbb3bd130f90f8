// SPDX-License-Identifier: GPL-2.0

//! The command line.

use crate::{quirks, zones::Shape};
use lexopt::{Arg, Parser, ValueExt};
use std::path::PathBuf;
use virtio_bindings::{virtio_blk as blk, virtio_config, virtio_ring};

/// Switching the write cache by a request: include/uapi/linux/virtio_blk_wce.h.
pub const VIRTIO_BLK_F_SET_WCE: u32 = 23;

/// Features by name, and whether they are offered unless something else is said.
const FEATURES: [(&str, u32, bool); 14] = [
    ("size-max", blk::VIRTIO_BLK_F_SIZE_MAX, false),
    ("seg-max", blk::VIRTIO_BLK_F_SEG_MAX, true),
    ("geometry", blk::VIRTIO_BLK_F_GEOMETRY, false),
    ("ro", blk::VIRTIO_BLK_F_RO, false),
    ("blk-size", blk::VIRTIO_BLK_F_BLK_SIZE, true),
    ("flush", blk::VIRTIO_BLK_F_FLUSH, true),
    ("topology", blk::VIRTIO_BLK_F_TOPOLOGY, true),
    ("config-wce", blk::VIRTIO_BLK_F_CONFIG_WCE, true),
    ("mq", blk::VIRTIO_BLK_F_MQ, true),
    ("discard", blk::VIRTIO_BLK_F_DISCARD, true),
    ("write-zeroes", blk::VIRTIO_BLK_F_WRITE_ZEROES, true),
    ("secure-erase", blk::VIRTIO_BLK_F_SECURE_ERASE, false),
    ("set-wce", VIRTIO_BLK_F_SET_WCE, true),
    ("indirect", virtio_ring::VIRTIO_RING_F_INDIRECT_DESC, true),
];

/// What the device is to be.
pub struct Options {
    pub socket: PathBuf,
    pub file: Option<PathBuf>,
    pub sectors: u64,
    pub queues: u16,
    pub queue_size: u16,
    pub features: u64,
    pub serial: String,
    pub config_raw: Vec<String>,
    pub misbehave: Vec<String>,
    pub zoned: Option<Shape>,
}

fn help() {
    println!(
        "Usage: vbw-testdev --socket PATH [OPTION]...\n\
         A virtio block device as a vhost-user back end, for one connection.\n\
         \n\
         \x20 --file PATH          what is read and written; default: memory\n\
         \x20 --size MIB           its size; default: 64\n\
         \x20 --queues N           default: 1\n\
         \x20 --queue-size N       the most that the front end may ask for; default: 1024\n\
         \x20 --serial TEXT        default: vbw-testdev\n\
         \x20 --with FEATURE       offer a feature; --without FEATURE: do not\n\
         \x20 --config-raw OFFSET=HEX  bytes of the configuration space, whatever they mean\n\
         \x20 --misbehave NAME[:TIMES]  do something wrong, always or that often\n\
         \x20 --zones SECTORS      host-managed zones of that size, of this shape:\n\
         \x20     --conventional N     the first N of them conventional; default: 0\n\
         \x20     --zone-capacity N    the sectors of a zone that can be written; default: all\n\
         \x20     --max-open N, --max-active N  default: 0, no limit\n\
         \x20     --max-append N       sectors; default: 256\n\
         \x20     --granularity N      bytes; default: 4096\n\
         \n\
         Commands on standard input: misbehave NAME[:TIMES]; behave; release; count NAME;\n\
         ring (descriptors of the first queue, and of these held back);\n\
         requests TYPE (executed so far); priority (of the last write); config OFFSET=HEX;\n\
         show (the configuration space); script HEX (what is wrong from now on: see script.rs).\n\
         \n\
         Features (+ is offered by default):"
    );
    for (name, _, default) in FEATURES {
        println!("  {}{name}", if default { "+" } else { " " });
    }
    println!("\nMisbehaviours:");
    for (_, name, what) in quirks::ALL {
        println!("  {name:17} {what}");
    }
}

fn feature(name: &str) -> Result<u64, lexopt::Error> {
    FEATURES
        .iter()
        .find(|(known, _, _)| *known == name)
        .map(|(_, bit, _)| 1 << bit)
        .ok_or_else(|| format!("no feature is named {name:?}").into())
}

/// Reads the command line; nothing if that asked for help, which has been given.
pub fn parse() -> Result<Option<Options>, lexopt::Error> {
    let mut socket = None;
    let mut zoned = None;
    let mut shape = Shape::default();
    let mut options = Options {
        socket: PathBuf::new(),
        file: None,
        sectors: 64 << 11,
        queues: 1,
        queue_size: 1024,
        features: 1 << virtio_config::VIRTIO_F_VERSION_1,
        serial: "vbw-testdev".into(),
        config_raw: Vec::new(),
        misbehave: Vec::new(),
        zoned: None,
    };
    for (_, bit, default) in FEATURES {
        options.features |= u64::from(default) << bit;
    }

    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        let Arg::Long(name) = arg else {
            return Err(arg.unexpected());
        };
        let name = name.to_owned();
        if name == "help" {
            help();
            return Ok(None);
        }
        let value = parser.value()?;

        match name.as_str() {
            "socket" => socket = Some(value.into()),
            "file" => options.file = Some(value.into()),
            "size" => options.sectors = value.parse_with(|mib| mib.parse::<u32>())? as u64 * 2048,
            "queues" => options.queues = value.parse()?,
            "queue-size" => options.queue_size = value.parse()?,
            "serial" => options.serial = value.string()?,
            "with" => options.features |= feature(&value.string()?)?,
            "without" => options.features &= !feature(&value.string()?)?,
            "config-raw" => options.config_raw.push(value.string()?),
            "misbehave" => options.misbehave.push(value.string()?),
            "zones" => zoned = Some(value.parse()?),
            "conventional" => shape.conventional = value.parse()?,
            "zone-capacity" => shape.capacity = value.parse()?,
            "max-open" => shape.max_open = value.parse()?,
            "max-active" => shape.max_active = value.parse()?,
            "max-append" => shape.max_append = value.parse()?,
            "granularity" => shape.granularity = value.parse()?,
            _ => return Err(format!("no option is named --{name}; see --help").into()),
        }
    }

    options.socket = socket.ok_or("which --socket? See --help.")?;
    if let Some(sectors) = zoned {
        options.features |= 1 << blk::VIRTIO_BLK_F_ZONED;
        options.zoned = Some(shape.with_size(sectors)?);
    }
    if !options.queue_size.is_power_of_two() || !(1..=32).contains(&options.queues) {
        return Err("the number of queues, or their size, is impossible".into());
    }
    Ok(Some(options))
}
