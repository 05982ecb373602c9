// SPDX-License-Identifier: MIT OR Apache-2.0

//! A heap: a producer hands buffers of many sizes to a consumer in another thread.
//!
//! A buffer is owned like a `Vec<u8>`. The memory that the heap holds is limited, and can be read.

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use freelist::Heap;

const BUFFERS: usize = 200;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The message has advice if the module is not loaded or the device cannot be opened.
            eprintln!("heap: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), freelist::Error> {
    let heap = Heap::open()?;
    // A request beyond that fails.
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
        // From here on its memory serves the next buffer.
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
        "{} blocks and {} bytes remain after a trim",
        stat.live_blocks, stat.held_bytes
    );
    Ok(())
}
