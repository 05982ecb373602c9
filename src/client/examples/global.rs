// SPDX-License-Identifier: MIT OR Apache-2.0

//! The allocator of a whole program, set in one line.
//!
//! An arena has the blocks of 64 KiB and more, the system allocator the smaller ones. Without a device it has
//! all of them, and one line on standard error reports it.

use freelist::Global;

#[global_allocator]
static ALLOCATOR: Global = Global;

fn main() {
    let numbers: Vec<u64> = (0..1_000_000).collect();
    let sum: u64 = numbers.iter().sum();
    println!("the sum of {} numbers is {sum}", numbers.len());
    let usage = Global::usage();
    println!(
        "{} bytes in {} blocks of the arena",
        usage.live_bytes, usage.live_blocks
    );
    drop(numbers);
    println!(
        "{} bytes after they were dropped",
        Global::usage().live_bytes
    );
    // The kernel reclaims free memory when it is short of it; a program that idles may release it before.
    Global::trim(0);
    println!("{} bytes are kept", Global::usage().free_bytes);
}
