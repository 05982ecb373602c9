// SPDX-License-Identifier: GPL-2.0

//! The calls: decodes a request, checks it, lets the arena do it, copies the answer out.
//!
//! Checks come in this order, and the first that fails is the answer: the call is known (`ENOTTY`);
//! the file is open for writing (`EBADF`); the structure can be read (`EFAULT`) and has nothing
//! unknown at its end (`E2BIG`); its fields make sense (`EINVAL`); the module has what they ask for
//! (`EOPNOTSUPP`); then what the arena says.

use crate::{
    arena::Arena,
    counts::Snapshot,
    engine::{
        Request,
        MAX_SHIFT,
        MIN_SHIFT, //
    },
    ffi::{
        raw::*,
        Argument, //
    },
};
use kernel::{
    ioctl::{
        _IOC_NR,
        _IOC_SIZE,
        _IOC_TYPE, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

/// The request flags that this version serves.
const FEATURES: u32 = FREELIST_LARGER | FREELIST_GROW;
/// The request flags that the contract knows.
const KNOWN: u32 = FREELIST_LARGER
    | FREELIST_GROW
    | FREELIST_WAIT
    | FREELIST_ZERO
    | FREELIST_CONTIG
    | FREELIST_HEADER
    | FREELIST_POPULATE;

/// Serves one call on an arena. `writable`: the file is open for writing.
pub(crate) fn call(arena: &Arena, writable: bool, command: u32, address: usize) -> Result {
    if _IOC_TYPE(command) != FREELIST_IOC_MAGIC {
        return Err(ENOTTY);
    }
    let argument = Argument {
        address,
        size: _IOC_SIZE(command),
    };
    let changes = |call: fn(&Arena, Argument) -> Result| {
        let result = if writable {
            call(arena, argument)
        } else {
            Err(EBADF)
        };
        result.inspect_err(|error| arena.count_failure(*error))
    };
    match _IOC_NR(command) {
        FREELIST_NR_INFO => info(arena, argument),
        FREELIST_NR_ALLOC => changes(alloc),
        FREELIST_NR_FREE => changes(free),
        FREELIST_NR_LIMIT => changes(limit),
        FREELIST_NR_STAT => stat(arena, argument),
        _ => Err(ENOTTY),
    }
}

fn info(arena: &Arena, argument: Argument) -> Result {
    let bounds = arena.bounds();
    argument.write(&freelist_info {
        abi: FREELIST_ABI,
        page_size: PAGE_SIZE as u32,
        min_shift: MIN_SHIFT,
        max_shift: MAX_SHIFT,
        arena_bytes: bounds.span,
        limit_bytes: bounds.limit,
        features: u64::from(FEATURES),
    })
}

fn alloc(arena: &Arena, argument: Argument) -> Result {
    let asked: freelist_alloc = argument.read()?;
    let flags = asked.flags;
    if flags & !KNOWN != 0 || asked.reserved != 0 || asked.size == 0 {
        return Err(EINVAL);
    }
    if asked.timeout_ns != 0 && flags & FREELIST_WAIT == 0 {
        return Err(EINVAL);
    }
    if flags & !FEATURES != 0 {
        return Err(EOPNOTSUPP);
    }
    let request = Request {
        size: asked.size,
        larger: flags & FREELIST_LARGER != 0,
        grow: flags & FREELIST_GROW != 0,
        ..Request::default()
    };
    arena.alloc(&request, |offset, block_bytes| {
        argument.write(&freelist_alloc {
            offset,
            block_bytes,
            ..asked
        })
    })
}

fn free(arena: &Arena, argument: Argument) -> Result {
    let asked: freelist_free = argument.read()?;
    arena.free(asked.offset)
}

fn limit(arena: &Arena, argument: Argument) -> Result {
    let asked: freelist_limit = argument.read()?;
    let some = |value| (value != 0).then_some(value);
    arena.set_bounds(some(asked.bytes), some(asked.span), |now| {
        argument.write(&freelist_limit {
            bytes: now.limit,
            span: now.span,
        })
    })
}

fn stat(arena: &Arena, argument: Argument) -> Result {
    let mut snapshot = Snapshot::default();
    arena.snapshot(&mut snapshot);
    argument.write(&snapshot.stat())
}
