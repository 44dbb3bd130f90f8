// SPDX-License-Identifier: GPL-2.0

//! A payload is memory that is freed with the request: what has no bytes has no memory.

#[path = "support/module.rs"]
mod module;
#[path = "support/null.rs"]
mod null;

use kernel::prelude::*;
use kernel_ext::block::request::IdleRequest;
use module::LocalModule;
use null::Null;

/// A word is something.
pub fn word(rq: &mut IdleRequest<Null>, words: KVec<u32>) -> Result {
    rq.set_payload(words)
}

/// However many of nothing there are, they are no bytes.
pub fn nothing(rq: &mut IdleRequest<Null>, nothing: KVec<[u32; 0]>) -> Result {
    #[cfg(unsound = "nothing")]
    rq.set_payload(nothing)?; //~ nothing E0080
    #[cfg(not(unsound = "nothing"))]
    let _ = (rq, nothing);
    Ok(())
}
