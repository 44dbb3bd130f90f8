// SPDX-License-Identifier: GPL-2.0

//! A virtio block device for tests, as a vhost-user back end: what QEMU's own device can't show a
//! driver, because it has no zones, erases nothing securely, and never lies.
//!
//! While it runs it takes commands on standard input, one on a line, and answers each with a line
//! on standard output that starts with `ok` or `error`; see [`control`]. The first such line says
//! that the socket is there.

#![forbid(unsafe_code)]

mod backend;
mod config;
mod control;
mod disk;
mod options;
mod quirks;
mod request;
mod script;
mod zones;

use crate::{backend::Backend, options::Options};
use std::{
    error::Error,
    process::ExitCode,
    sync::{Arc, RwLock},
};
use vhost::vhost_user::{Error as Lost, Listener};
use vhost_user_backend::{Error as Failure, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let listener = Listener::new(&options.socket, true).map_err(|err| err.to_string())?;
    let backend = Arc::new(RwLock::new(Backend::new(options)?));
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("vbw-testdev".into(), backend.clone(), memory)
        .map_err(|err| err.to_string())?;

    println!("ok ready");
    control::start(backend);
    daemon.start(listener).map_err(|err| err.to_string())?;
    match daemon.wait() {
        // That the front end ends is no failure.
        Ok(()) | Err(Failure::HandleRequest(Lost::Disconnected | Lost::PartialMessage)) => Ok(()),
        Err(err) => Err(err.to_string().into()),
    }
}

fn main() -> ExitCode {
    let outcome = match options::parse() {
        Ok(Some(options)) => serve(options),
        Ok(None) => Ok(()),
        Err(err) => Err(err.into()),
    };

    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("vbw-testdev: {err}");
            ExitCode::FAILURE
        }
    }
}
