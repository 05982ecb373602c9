// SPDX-License-Identifier: MIT OR Apache-2.0

//! The calls of an arena: a block is an offset, and a mapping makes it memory.
//!
//! Allocates a buffer for eight frames of a camera, shrinks it, discards the memory of a part, and frees it.
//! Each step is one call of `/dev/freelist`.

use std::process::ExitCode;

use freelist::{Arena, Features, Flags};

const FRAME: u64 = 1920 * 1080 * 3;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The message has advice if the module is not loaded or the device cannot be opened.
            eprintln!("arena: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), freelist::Error> {
    let arena = Arena::open()?;
    let info = arena.info()?;
    println!(
        "pages of {} bytes, at most {} MiB",
        info.page_size,
        info.limit_bytes >> 20
    );
    // Takes address space only, until a block is touched.
    let memory = arena.map(info.arena_bytes)?;

    let block = arena.alloc(8 * FRAME, Flags::DEFAULT | Flags::ZERO)?;
    println!("{} bytes asked for, {} allocated", 8 * FRAME, block.bytes);
    memory.write(block.offset, b"the first frame")?;
    memory.write(block.offset + 7 * FRAME, b"the last frame")?;
    let mut first = [0; 15];
    memory.read(block.offset, &mut first)?;
    println!("at the start: {}", String::from_utf8_lossy(&first));

    // The tail of a block that shrinks is free at once.
    let left = arena.resize(block.offset, 2 * FRAME, Flags::empty())?;
    println!("{left} bytes after RESIZE to two frames");
    if Features::from_bits_retain(info.features).contains(Features::DISCARD) {
        // Whole pages in that range read as zero afterwards.
        arena.discard(block.offset, FRAME)?;
        println!("at the start after DISCARD: {}", memory.byte(block.offset)?);
    }

    arena.free(block.offset)?;
    let again = arena.free(block.offset);
    println!("a second free: {}", again.expect_err("it is free already"));
    let held = arena.stat()?.held_bytes;
    let freed = arena.trim(0)?;
    println!("TRIM released all that was held: {}", held == freed);
    Ok(())
}
