// SPDX-License-Identifier: GPL-2.0

//! Commands that change what the device does while it runs, so that a test can let a driver start
//! in peace.

use crate::{backend::Backend, quirks::Quirks, script::Script};
use std::{
    io,
    sync::{Arc, RwLock},
    thread,
    time::Duration,
};

fn run(backend: &RwLock<Backend>, line: &str) -> Result<String, String> {
    let mut backend = backend.write().map_err(|err| err.to_string())?;
    let (command, argument) = line.split_once(' ').unwrap_or((line, ""));

    match command {
        "misbehave" => backend.device.quirks.add(argument)?,
        "behave" => backend.device.quirks.clear(),
        "script" => backend.follow(Script::parse(argument)?),
        "config" => backend.device.config.set_raw(argument)?,
        "show" => {
            let bytes = backend.device.config.bytes();
            let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(digits.concat());
        }
        "priority" => return Ok(backend.device.priority.to_string()),
        "requests" => {
            let kind = argument.parse::<u32>().map_err(|err| err.to_string())?;
            let number = backend.device.requests.get(&kind).copied();
            return Ok(number.unwrap_or_default().to_string());
        }
        "ring" => {
            let (size, held) = backend.ring();
            return Ok(format!("{size} {held}"));
        }
        "release" => {
            let number = backend.release().map_err(|err| err.to_string())?;
            return Ok(number.to_string());
        }
        "count" => {
            let quirk = Quirks::find(argument)?;
            return Ok(backend.device.quirks.done(quirk).to_string());
        }
        _ => return Err(format!("no command is named {command:?}")),
    }
    Ok(String::new())
}

/// How long a script's device keeps what it answers later.
const MOMENT: Duration = Duration::from_millis(10);

/// Takes commands from standard input until its end.
pub fn start(backend: Arc<RwLock<Backend>>) {
    let scripted = backend.clone();

    thread::spawn(move || loop {
        thread::sleep(MOMENT);
        if let Ok(mut backend) = scripted.write() {
            backend.catch_up();
        }
    });
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            match run(&backend, line.trim()) {
                Ok(answer) => println!("ok {answer}"),
                Err(err) => println!("error {err}"),
            }
        }
    });
}
