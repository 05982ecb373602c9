// SPDX-License-Identifier: GPL-2.0-only

//! The ioctls of `uapi/freelist.h`: decodes and checks a request, calls the arena, copies the answer out.
//!
//! The first of these checks that fails is the error: the call is known (`ENOTTY`); the file is open for
//! writing (`EBADF`); the structure can be read (`EFAULT`) and ends in zeros beyond the known fields
//! (`E2BIG`); its fields are valid (`EINVAL`); then the arena's own checks.
//!
//! The places of a new ioctl:
//!
//! | file | what is added |
//! | --- | --- |
//! | `uapi/freelist.h` | structure, number, feature bit, errors; then run `scripts/bindings` |
//! | `c/helpers.h` | `FREELIST_NR_*` and `FREELIST_OFFERS_*`: macros that bindgen cannot evaluate |
//! | `ffi/uaccess.rs` | the structure in `contract!` |
//! | this file | `FEATURES`, `call`, a function that decodes the call; `change_more`, if it may change the arena |
//! | `arena/` | a file with the function of `Arena` |
//! | `client/src/` | `sys.rs`, `arena.rs`, `Call` in `error.rs`, `Features` in `flags.rs` |
//! | `man/freelist.4` | its description, which `tests/manual` checks |
//! | `tests/` | `device/src/`: `plain!` in `kit/calls.rs`, `suites/info.rs`, `calls` in `suites/hostile.rs`, a suite; `header/`: `header.c`, `calls.c` |

use crate::{
    arena::{
        bounds::Change,
        counters::Snapshot,
        deadline::Deadline,
        request::{
            AllocOptions,
            MayFault, //
        },
        Arena, //
    },
    device::clone::NewFile,
    engine::{
        Policy,
        Request,
        MAX_ALIGN_SHIFT,
        MIN_SHIFT, //
    },
    ffi::{
        raw::*,
        uaccess::{
            Argument,
            Array, //
        },
    },
    mm::backend::KernelEngine, //
};
use kernel::{
    fs::{
        file::flags,
        File, //
    },
    ioctl::{
        _IOC_NR,
        _IOC_SIZE,
        _IOC_TYPE, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

/// The features of this version beside the flags.
const FEATURES: u64 = FREELIST_OFFERS_ALIGN
    | FREELIST_OFFERS_RESIZE
    | FREELIST_OFFERS_SLACK
    | FREELIST_OFFERS_MOVED
    | FREELIST_OFFERS_HUGE
    | FREELIST_OFFERS_DISCARD
    | FREELIST_OFFERS_CLONE;

/// The request flags that this version serves.
const FLAGS: u32 = FREELIST_LARGER
    | FREELIST_GROW
    | FREELIST_WAIT
    | FREELIST_ZERO
    | FREELIST_CONTIG
    | FREELIST_HEADER
    | FREELIST_POPULATE
    | FREELIST_LAZY;

/// Returns whether a file is open for writing.
#[inline]
fn is_writable(file: &File) -> bool {
    matches!(
        file.flags() & flags::O_ACCMODE,
        flags::O_WRONLY | flags::O_RDWR
    )
}

/// Returns whether a file is nonblocking: its calls fail instead of waiting.
#[inline]
fn is_nonblocking(file: &File) -> bool {
    file.flags() & flags::O_NONBLOCK != 0
}

/// Serves one call on an arena.
pub(crate) fn call(arena: &Arena, file: &File, command: u32, address: usize) -> Result {
    if _IOC_TYPE(command) != FREELIST_IOC_MAGIC {
        return Err(ENOTTY);
    }
    let argument = Argument {
        address,
        size: _IOC_SIZE(command),
    };
    match _IOC_NR(command) {
        FREELIST_NR_INFO => info(arena, argument),
        FREELIST_NR_STAT => stat(arena, argument),
        FREELIST_NR_ALLOC..=FREELIST_NR_TRIM
        | FREELIST_NR_RESIZE
        | FREELIST_NR_DISCARD
        | FREELIST_NR_CLONE => {
            let result = change(arena, file, _IOC_NR(command), argument);
            result.inspect_err(|error| arena.count_failure(*error))
        }
        _ => Err(ENOTTY),
    }
}

/// Serves a call that may change the arena.
#[inline]
fn change(arena: &Arena, file: &File, number: u32, argument: Argument) -> Result {
    if !is_writable(file) {
        return Err(EBADF);
    }
    match number {
        FREELIST_NR_ALLOC => alloc(arena, file, argument),
        FREELIST_NR_FREE => free(arena, argument),
        _ => change_more(arena, file, number, argument),
    }
}

/// Serves the calls that may change the arena but ALLOC and FREE. Out of line, so that these need less stack.
#[inline(never)]
fn change_more(arena: &Arena, file: &File, number: u32, argument: Argument) -> Result {
    match number {
        FREELIST_NR_ALLOC_BULK => alloc_bulk(arena, file, argument),
        FREELIST_NR_FREE_BULK => free_bulk(arena, argument),
        FREELIST_NR_LIMIT => limit(arena, argument),
        FREELIST_NR_TRIM => trim(arena, argument),
        FREELIST_NR_RESIZE => resize(arena, argument),
        FREELIST_NR_DISCARD => discard(arena, argument),
        FREELIST_NR_CLONE => clone(arena, file, argument),
        _ => Err(ENOTTY),
    }
}

fn info(arena: &Arena, argument: Argument) -> Result {
    let bounds = arena.bounds();
    argument.write(&freelist_info {
        abi: FREELIST_ABI,
        page_size: PAGE_SIZE as u32,
        min_shift: MIN_SHIFT,
        max_shift: KernelEngine::MAX_SHIFT,
        arena_bytes: bounds.span,
        limit_bytes: bounds.limit,
        features: u64::from(FLAGS) | FEATURES,
    })
}

#[inline]
fn alloc(arena: &Arena, file: &File, argument: Argument) -> Result {
    let asked: freelist_alloc = argument.read()?;
    let options = options(file, &asked)?;
    let rest = |least| rest(&options, asked.timeout_ns).max(least);
    let result = arena.alloc(&options, |may_fault, offset, block_bytes| {
        let answer = freelist_alloc {
            offset,
            block_bytes,
            timeout_ns: rest(i64::MIN),
            ..asked
        };
        match may_fault {
            MayFault::No => argument.write_nofault(&answer),
            MayFault::Yes => argument.write(&answer),
        }
    });
    if result == Err(ERESTARTSYS) {
        // A restarted call waits for the rest of the time. At least 1 ns, since 0 would not wait.
        argument.write(&freelist_alloc {
            timeout_ns: rest(if asked.timeout_ns < 0 { i64::MIN } else { 1 }),
            ..asked
        })?;
    }
    result
}

/// Returns the rest of a timeout, in nanoseconds; 0 without WAIT.
fn rest(options: &AllocOptions, timeout_ns: i64) -> i64 {
    options.wait.map_or(0, |deadline| deadline.rest(timeout_ns))
}

/// Decodes the options of a request. `EINVAL` when a field is invalid, or flags exclude each other.
#[inline]
fn options(file: &File, asked: &freelist_alloc) -> Result<AllocOptions> {
    let freelist_alloc {
        size,
        flags,
        align_shift,
        timeout_ns,
        ..
    } = *asked;
    let has = |flag| flags & flag != 0;
    if size == 0
        || align_shift > MAX_ALIGN_SHIFT
        || has(!FLAGS)
        || (timeout_ns != 0 && !has(FREELIST_WAIT))
    {
        return Err(EINVAL);
    }
    // A lazy block gets its memory later, page by page, as new memory.
    if has(FREELIST_LAZY) && (!has(FREELIST_GROW) || has(FREELIST_CONTIG) || has(FREELIST_HEADER)) {
        return Err(EINVAL);
    }
    // A contiguous block is always new memory: no free block serves it, so that waiting cannot help.
    if has(FREELIST_CONTIG) && (!has(FREELIST_GROW) || has(FREELIST_WAIT)) {
        return Err(EINVAL);
    }
    Ok(AllocOptions {
        request: Request {
            size,
            align_shift,
            policy: if has(FREELIST_CONTIG) {
                Policy::Contiguous
            } else {
                Policy::Reuse {
                    split: has(FREELIST_LARGER),
                    grow: has(FREELIST_GROW),
                }
            },
            headed: has(FREELIST_HEADER),
            lazy: has(FREELIST_LAZY) && !has(FREELIST_POPULATE),
        },
        zero: has(FREELIST_ZERO),
        wait: has(FREELIST_WAIT).then(|| match is_nonblocking(file) {
            true => Deadline::Passed,
            false => Deadline::after(timeout_ns),
        }),
        populate: has(FREELIST_POPULATE),
    })
}

#[inline]
fn free(arena: &Arena, argument: Argument) -> Result {
    let asked: freelist_free = argument.read()?;
    arena.free(asked.offset)
}

fn alloc_bulk(arena: &Arena, file: &File, argument: Argument) -> Result {
    let asked: freelist_bulk = argument.read()?;
    if asked.count == 0 {
        return Err(EINVAL);
    }
    let options = options(
        file,
        &freelist_alloc {
            size: asked.size,
            flags: asked.flags,
            align_shift: asked.align_shift,
            timeout_ns: asked.timeout_ns,
            ..freelist_alloc::default()
        },
    )?;
    let answer = |done, timeout_ns| {
        argument.write(&freelist_bulk {
            done,
            timeout_ns,
            ..asked
        })
    };
    let rest = |least| rest(&options, asked.timeout_ns).max(least);
    let array = Array(asked.offsets);
    let mut reported = 0;
    let result = arena.alloc_bulk(&options, asked.count, |offsets| {
        let stored = array.store(reported, offsets);
        // The count is written before the blocks are live: a live block cannot be taken back.
        if stored == 0 || answer(reported + stored as u32, rest(i64::MIN)).is_err() {
            return 0;
        }
        reported += stored as u32;
        stored
    });
    match result {
        // A restarted call waits for the rest of the time. At least 1 ns, since 0 would not wait.
        Err(ERESTARTSYS) => answer(0, rest(if asked.timeout_ns < 0 { i64::MIN } else { 1 }))?,
        // The call has waited after its last report: the rest of the timeout is updated if it can be.
        Ok(done) if done < asked.count && options.wait.is_some() => {
            let _ = answer(done, rest(i64::MIN));
        }
        _ => {}
    }
    result.map(|_| ())
}

fn free_bulk(arena: &Arena, argument: Argument) -> Result {
    let asked: freelist_bulk = argument.read()?;
    if asked.count == 0 || asked.align_shift != 0 {
        return Err(EINVAL);
    }
    if (asked.size, asked.flags, asked.timeout_ns) != (0, 0, 0) {
        return Err(EINVAL);
    }
    let answer = |done| argument.write(&freelist_bulk { done, ..asked });
    // Checked before anything is freed, which cannot be taken back.
    answer(0)?;
    let array = Array(asked.offsets);
    let mut loaded = 0;
    let done = arena.free_bulk(asked.count, |offsets| {
        let count = array.load(loaded, offsets);
        loaded += count as u32;
        count
    })?;
    answer(done)
}

fn limit(arena: &Arena, argument: Argument) -> Result {
    let asked: freelist_limit = argument.read()?;
    let some = |value| (value != 0).then_some(value);
    if asked.reserved != 0 {
        return Err(EINVAL);
    }
    let change = Change {
        limit: some(asked.bytes),
        span: some(asked.span),
        slack_permille: match asked.slack_permille {
            0 => None,
            slack => Some(slack),
        },
    };
    arena.set_bounds(change, |now| {
        argument.write(&freelist_limit {
            bytes: now.limit,
            span: now.span,
            slack_permille: now.slack_permille.unwrap_or(FREELIST_SLACK_NONE),
            reserved: 0,
        })
    })
}

fn trim(arena: &Arena, argument: Argument) -> Result {
    let asked: freelist_trim = argument.read()?;
    let answer = |freed_bytes| {
        argument.write(&freelist_trim {
            freed_bytes,
            ..asked
        })
    };
    // Checked before memory is released, which cannot be undone.
    answer(0)?;
    answer(arena.trim(asked.keep_bytes))
}

/// The flags that a resize takes, for the pages that are added to the block.
const RESIZE_FLAGS: u32 =
    FREELIST_LARGER | FREELIST_GROW | FREELIST_ZERO | FREELIST_POPULATE | FREELIST_LAZY;

fn resize(arena: &Arena, argument: Argument) -> Result {
    let asked: freelist_resize = argument.read()?;
    let has = |flag| asked.flags & flag != 0;
    if asked.size == 0 || asked.reserved != 0 || has(!RESIZE_FLAGS) {
        return Err(EINVAL);
    }
    if has(FREELIST_LAZY) && !has(FREELIST_GROW) {
        return Err(EINVAL);
    }
    let options = AllocOptions {
        request: Request {
            size: asked.size,
            lazy: has(FREELIST_LAZY) && !has(FREELIST_POPULATE),
            policy: Policy::Reuse {
                split: has(FREELIST_LARGER),
                grow: has(FREELIST_GROW),
            },
            ..Request::default()
        },
        zero: has(FREELIST_ZERO),
        populate: has(FREELIST_POPULATE),
        ..AllocOptions::default()
    };
    // The answer is copied out before the block changes, which cannot be undone.
    arena.resize(asked.offset, &options, |block_bytes| {
        argument.write(&freelist_resize {
            block_bytes,
            ..asked
        })
    })
}

fn discard(arena: &Arena, argument: Argument) -> Result {
    let asked: freelist_discard = argument.read()?;
    arena.discard(asked.offset, asked.bytes)
}

fn clone(arena: &Arena, file: &File, argument: Argument) -> Result {
    let asked: freelist_clone = argument.read()?;
    if (asked.flags, asked.reserved, asked.reserved2) != (0, 0, 0) {
        return Err(EINVAL);
    }
    let new = NewFile::like(file)?;
    new.arena().copy_from(arena)?;
    argument.write(&freelist_clone {
        fd: new.number(),
        ..asked
    })?;
    new.install();
    Ok(())
}

fn stat(arena: &Arena, argument: Argument) -> Result {
    let mut snapshot = Snapshot::default();
    arena.snapshot(&mut snapshot);
    argument.write(&snapshot.stat())
}
