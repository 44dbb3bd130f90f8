// SPDX-License-Identifier: GPL-2.0

//! A virtio block device that was made from the text of the specification, and from that of the
//! extension in `Documentation/virtio-blk-set-wce.rst`, and from nothing else: what the driver gets
//! along with in QEMU it gets along with here, or one of the three is wrong.
//!
//! It is a vhost-user back end with a thread for each queue, so that requests, and switches, really
//! are under way at the same time.

#![forbid(unsafe_code)]

mod backend;
mod cache;
mod protocol;
mod request;

use crate::{backend::Backend, cache::Medium};
use lexopt::{Arg, Parser, ValueExt};
use std::{error::Error, fs::OpenOptions, path::PathBuf, process::ExitCode, sync::Arc};
use vhost::vhost_user::{Error as Lost, Listener};
use vhost_user_backend::{Error as Failure, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

struct Options {
    socket: PathBuf,
    image: PathBuf,
    queues: u16,
    write_through: bool,
    read_only: bool,
}

fn help() {
    println!(
        "Usage: vbw-specdev --socket PATH --image FILE [OPTION]...\n\
         A virtio block device, by the specification and VIRTIO_BLK_F_SET_WCE, for vhost-user.\n\
         \n\
         \x20     --socket PATH    where a front end connects\n\
         \x20     --image FILE     what is on the disk; its length is that of the disk\n\
         \x20     --queues N       1 to 16; default: 1\n\
         \x20     --write-through  start in write through mode\n\
         \x20     --read-only      the disk cannot be written"
    );
}

/// Reads the command line; nothing if that asked for help, which has been given.
fn parse() -> Result<Option<Options>, lexopt::Error> {
    let (mut socket, mut image) = (None, None);
    let (mut queues, mut write_through, mut read_only) = (1, false, false);
    let mut parser = Parser::from_env();

    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("help") => {
                help();
                return Ok(None);
            }
            Arg::Long("socket") => socket = Some(parser.value()?.into()),
            Arg::Long("image") => image = Some(parser.value()?.into()),
            Arg::Long("queues") => queues = parser.value()?.parse()?,
            Arg::Long("write-through") => write_through = true,
            Arg::Long("read-only") => read_only = true,
            _ => return Err(arg.unexpected()),
        }
    }
    if !(1..=16).contains(&queues) {
        return Err("a number of queues from 1 to 16 is possible".into());
    }
    Ok(Some(Options {
        socket: socket.ok_or("which --socket? See --help.")?,
        image: image.ok_or("which --image? See --help.")?,
        queues,
        write_through,
        read_only,
    }))
}

fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let image = OpenOptions::new()
        .read(true)
        .write(!options.read_only)
        .open(&options.image)
        .map_err(|err| format!("{}: {err}", options.image.display()))?;
    let medium = Medium::new(image, options.write_through)?;
    let listener = Listener::new(&options.socket, true).map_err(|err| err.to_string())?;
    let backend = Arc::new(Backend::new(medium, options.queues, options.read_only));
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("vbw-specdev".into(), backend, memory)
        .map_err(|err| err.to_string())?;

    daemon.start(listener).map_err(|err| err.to_string())?;
    match daemon.wait() {
        // That the front end ends is no failure.
        Ok(()) | Err(Failure::HandleRequest(Lost::Disconnected | Lost::PartialMessage)) => Ok(()),
        Err(err) => Err(err.to_string().into()),
    }
}

fn main() -> ExitCode {
    let outcome = match parse() {
        Ok(Some(options)) => serve(options),
        Ok(None) => Ok(()),
        Err(err) => Err(err.into()),
    };

    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("vbw-specdev: {err}");
            ExitCode::FAILURE
        }
    }
}
