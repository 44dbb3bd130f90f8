// SPDX-License-Identifier: GPL-2.0

//! The permission to start a device is used up by that, and can't be copied or made.

use kernel::{prelude::*, sync::Arc};
use kernel_ext::virtio::queue::{Handler, Running, Start};

/// Once is right.
pub fn start<'bound, T: Handler>(
    start: Start<'bound, T>,
    handler: &Arc<T>,
) -> Result<&'bound Running<'bound, T>> {
    let running = start.start(handler)?;

    #[cfg(unsound = "twice")]
    start.start(handler)?; //~ twice E0382
    Ok(running)
}

/// Nor does it help to copy it before.
pub fn copy<'bound, T: Handler>(start: Start<'bound, T>, handler: &Arc<T>) -> Result {
    #[cfg(unsound = "copy")]
    let copy = start.clone(); //~ copy E0599
    start.start(handler)?;
    #[cfg(unsound = "copy")]
    copy.start(handler)?;
    Ok(())
}
