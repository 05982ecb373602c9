// SPDX-License-Identifier: GPL-2.0-only

//! KUnit suites: the arena and the layers below it, in the kernel, with real memory. The engine alone is
//! tested on the host, with a model (`tests/engine`), the contract from user space (`tests/device`).

#![deny(unsafe_code)]

mod arena;
mod bounds;
mod bulk;
mod contents;
mod engine;
mod nospec;
mod shared_limit;

use crate::{
    arena::{
        counters::Snapshot,
        registry::Registry,
        request::AllocOptions,
        shared_limit::Limits,
        Arena, //
    },
    engine::{
        Policy,
        Request,
        SLACK_PERMILLE, //
    }, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};

/// Bytes of a page.
const PAGE: u64 = PAGE_SIZE as u64;

/// Makes a registry as the module does when no parameter is given.
fn registry() -> Result<Arc<Registry>> {
    Registry::new(Limits::from_parameters(0, 0, 0, SLACK_PERMILLE)?)
}

/// Makes a registry whose arenas together may hold `all` bytes of pages, and each `arena`.
fn registry_with(all: u64, arena: u64) -> Result<Arc<Registry>> {
    Registry::new(Limits {
        all,
        arena,
        lazy: arena,
        slack_permille: Some(SLACK_PERMILLE),
    })
}

/// Returns a request for `size` bytes with `FREELIST_DEFAULT`.
fn request(size: u64) -> AllocOptions {
    AllocOptions {
        request: Request {
            size,
            policy: Policy::Reuse {
                split: true,
                grow: true,
            },
            ..Request::default()
        },
        ..AllocOptions::default()
    }
}

/// Returns the bytes of all pages that an arena holds.
fn held_bytes(arena: &Arena) -> u64 {
    let mut now = Snapshot::default();
    arena.snapshot(&mut now);
    now.stat().held_bytes
}

/// Returns how many blocks are live in an arena.
fn live_blocks(arena: &Arena) -> u64 {
    let mut now = Snapshot::default();
    arena.snapshot(&mut now);
    now.stat().live_blocks
}
