// SPDX-License-Identifier: MIT OR Apache-2.0

//! A heap: a producer hands buffers of many sizes to a consumer in another thread.
//!
//! What a program gets from it is as owned as a `Vec<u8>`; what it holds is bounded, and visible.

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use freelist::Heap;

const BUFFERS: usize = 200;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With what to do, where the module is not loaded or the device may not be opened.
            eprintln!("heap: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), freelist::Error> {
    let heap = Heap::open()?;
    // More than that is an error of the request that asks for it.
    heap.set_limit(64 << 20)?;

    let (sender, receiver) = mpsc::sync_channel(8);
    let producer = {
        let heap = heap.clone();
        thread::spawn(move || -> Result<(), freelist::Error> {
            for number in 0..BUFFERS {
                let mut buffer = heap.buffer(1000 << (number % 12))?;
                buffer.fill(number as u8);
                if sender.send(buffer).is_err() {
                    break;
                }
            }
            Ok(())
        })
    };
    let (mut bytes, mut wrong) = (0, 0);
    for (number, buffer) in receiver.iter().enumerate() {
        wrong += buffer.iter().filter(|byte| **byte != number as u8).count();
        bytes += buffer.len();
        // Its memory is for the next one from here on.
    }
    producer.join().expect("the producer does not panic")?;
    println!("{BUFFERS} buffers of {bytes} bytes, {wrong} of them wrong");

    match heap.buffer(65 << 20) {
        Ok(_) => println!("65 MiB in a heap of 64 MiB"),
        Err(error) => println!("65 MiB: {error}"),
    }
    heap.trim(0)?;
    let stat = heap.stat()?;
    println!(
        "{} blocks and {} bytes are left after a trim",
        stat.live_blocks, stat.held_bytes
    );
    Ok(())
}
