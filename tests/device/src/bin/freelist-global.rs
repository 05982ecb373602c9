// SPDX-License-Identifier: GPL-2.0

//! A program with its large blocks in an arena, which uses memory as ordinary code does: in threads, in a forked
//! child, and at the end of threads. Its status is 0 if all results are right; the suite `freelist_global` runs
//! it with and without a device.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use freelist::Global;

#[global_allocator]
static ALLOCATOR: Global = Global;

/// Returns the bytes of this program's large blocks.
fn large() -> usize {
    Global::usage().live_bytes
}

/// Returns whether large blocks are in the arena: a variable of the environment is set if they are not.
fn has_arena() -> bool {
    std::env::args().nth(1).is_none_or(|word| word != "without")
}

fn words(count: u32) -> BTreeMap<String, Vec<u32>> {
    let mut words: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for number in 0..count {
        let word = format!("word {}", number % 997);
        words.entry(word).or_default().push(number);
    }
    words
}

fn collections() {
    let words = words(50_000);
    assert_eq!(words.len(), 997);
    let sum: u64 = words
        .values()
        .flatten()
        .map(|number| u64::from(*number))
        .sum();
    assert_eq!(sum, 49_999 * 50_000 / 2);
    let lengths: HashMap<&str, usize> = words
        .iter()
        .map(|(word, numbers)| (word.as_str(), numbers.len()))
        .collect();
    assert_eq!(lengths["word 3"], 51);
    // A block grows from the smallest class to whole pages, and is zero if that was asked for.
    let before = large();
    let mut grown = Vec::new();
    for number in 0..1_000_000_u32 {
        grown.push(number);
    }
    assert!(grown
        .iter()
        .enumerate()
        .all(|(at, number)| at == *number as usize));
    assert_eq!(large() >= before + 4_000_000, has_arena());
    grown.truncate(10);
    grown.shrink_to_fit();
    assert!(
        large() <= before + 64 * 1024,
        "it shrank, and its block did not"
    );
    assert_eq!(grown, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(vec![0_u8; 3 << 20].iter().all(|byte| *byte == 0));
}

/// Uses memory after its thread has ended.
struct Late(RefCell<Vec<String>>);

impl Drop for Late {
    fn drop(&mut self) {
        self.0.get_mut().push("late".repeat(100));
        assert_eq!(
            self.0.get_mut().concat(),
            "early".to_owned() + &"late".repeat(100)
        );
    }
}

thread_local! {
    static LATE: Late = const { Late(RefCell::new(Vec::new())) };
}

fn threads() {
    let (send, receive) = mpsc::channel::<Vec<String>>();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let send = send.clone();
            thread::spawn(move || {
                // The destructor runs before that of the heap, or after it: both orders occur.
                if thread % 2 == 0 {
                    LATE.with(|late| late.0.borrow_mut().push("early".to_owned()));
                }
                for round in 0..200 {
                    let strings = (0..50).map(|at| format!("{thread} {round} {at}"));
                    send.send(strings.collect())
                        .expect("the main thread listens");
                }
                if thread % 2 == 1 {
                    LATE.with(|late| late.0.borrow_mut().push("early".to_owned()));
                }
            })
        })
        .collect();
    drop(send);
    let strings = receive
        .iter()
        .flatten()
        .filter(|string| string.ends_with(" 49"));
    assert_eq!(strings.count(), 4 * 200);
    for thread in threads {
        thread.join().expect("the thread does not panic");
    }
}

/// Runs another program, by fork and exec and by spawning.
fn programs() {
    let this = std::env::current_exe().expect("/proc is mounted");
    let mut command = Command::new(this);
    let status = command.arg("child").env("FREELIST_CHILD", "x".repeat(1000));
    assert_eq!(status.status().expect("it runs").code(), Some(42));
}

fn main() {
    if std::env::args().nth(1).is_some_and(|word| word == "child") {
        let length = std::env::var("FREELIST_CHILD").map(|value| value.len());
        std::process::exit(if length == Ok(1000) { 42 } else { 1 });
    }
    collections();
    let before = large();
    for _ in 0..3 {
        threads();
        collections();
    }
    programs();
    assert_eq!(large(), before, "bytes of large blocks that stay");
    Global::trim(0);
    let usage = Global::usage();
    assert_eq!(usage.free_bytes, 0, "{usage:?}");
    println!("at most {} bytes were in an arena", usage.peak_live);
}
