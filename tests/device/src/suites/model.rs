// SPDX-License-Identifier: GPL-2.0

//! The model in the VM: threads of several processes work on one arena, and on arenas of their own.
//! Each has a model of its own blocks and their bytes. From time to time all stop, and their models are
//! compared with the module's counters. Meanwhile processes are killed, shrinkers forced, pages trimmed,
//! and a CPU is taken offline and back.
//!
//! `--scale 125` is a million operations. FREELIST_SEED repeats the choices, not their order among
//! threads.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::panic;
use std::path::Path;
use std::process;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use freelist::{debugfs, Arena, Flags};
use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};

use crate::harness::suite;
use crate::kit::process::{spawn_child, Child};
use crate::kit::{
    arena, check, largest_block, random, random_size, refused, scaled, shrinker, stat, thread,
    Ledger, View, DEFAULT, GROW, KIB, LARGER, MIB,
};
use crate::{figure, trust};

suite!("freelist_model":
    processes_and_threads_agree_with_the_module_whatever_happens,
);

const PROCESSES: usize = 2;
const THREADS: usize = 2;
/// Operations of a thread from one comparison to the next.
const ROUND: usize = 250;
/// Blocks that a thread has in an arena.
const MAX_BLOCKS: usize = 60;

/// The number and the bytes of the live blocks of the model.
type Known = [u64; 2];

/// Makes one operation of a thread on an arena in which it has the blocks of `ledger`.
fn operate(arena: &Arena, ledger: &mut Ledger<'_>, rng: &mut fastrand::Rng) {
    match rng.u8(0..20) {
        0..=8 if ledger.len() < MAX_BLOCKS => {
            let max = if rng.u8(..) == 0 { 2 * MIB } else { 96 * KIB };
            let size = random_size(rng, max);
            let flags = [
                DEFAULT,
                DEFAULT,
                LARGER,
                GROW,
                Flags::empty(),
                DEFAULT | Flags::ZERO,
                DEFAULT | Flags::POPULATE,
                // It may wait for `timeout_ns`, which is 0.
                DEFAULT | Flags::WAIT,
            ];
            let flags = flags[rng.usize(0..flags.len())];
            if let Err(error) = ledger.alloc(size, flags) {
                let errno = error.errno();
                let expected = if flags.contains(Flags::WAIT) {
                    [Errno::EAGAIN, Errno::EDQUOT]
                } else {
                    [Errno::ENOMEM, Errno::EDQUOT]
                };
                assert!(
                    errno.is_some_and(|errno| expected.contains(&errno)),
                    "{error}"
                );
            }
        }
        0..=14 if ledger.len() > 0 => ledger.free(ledger.nth(rng.usize(0..ledger.len()))),
        15 => refused(arena.alloc(largest_block() + 1, DEFAULT), Errno::E2BIG),
        16 => refused(arena.free(rng.u64(..1 << 40) | 1), Errno::EINVAL),
        17 => drop(arena.trim(rng.u64(..4 * MIB)).unwrap()),
        _ if ledger.len() > 0 => ledger.check(ledger.nth(rng.usize(0..ledger.len()))),
        _ => {}
    }
}

/// Runs a process: its threads work, meet, and report their model of the shared arena to `main`; they continue
/// when it asks them to.
fn work(shared: &Arena, mut main: UnixStream, number: u64, rounds: usize, rng: &mut fastrand::Rng) {
    // A failure ends all threads: the others would wait for this one.
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        say(what);
        process::exit(1);
    }));
    let barrier = Barrier::new(THREADS);
    let known = Mutex::new([0; 2]);
    let span = shared.info().unwrap().arena_bytes;
    let memory = shared.map(span).unwrap();
    let main = Mutex::new(&mut main);
    thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            let mut rng = rng.fork();
            let (barrier, known, main, memory) = (&barrier, &known, &main, &memory);
            scope.spawn(move || {
                let own = arena();
                let own_memory = own.map(span).unwrap();
                let key = 1 + number * THREADS as u64 + thread;
                let mut blocks = Ledger::new(shared, memory).with_key(key);
                let mut own_blocks = Ledger::new(&own, &own_memory);
                for _ in 0..rounds {
                    for _ in 0..ROUND {
                        if rng.bool() {
                            operate(shared, &mut blocks, &mut rng);
                        } else {
                            operate(&own, &mut own_blocks, &mut rng);
                        }
                    }
                    // Another thread may be trimming: not all held pages are live or free then.
                    let stat = own.stat().unwrap();
                    assert_eq!(
                        [stat.live_blocks, stat.live_bytes],
                        [own_blocks.len() as u64, own_blocks.bytes()]
                    );
                    let mut sum = known.lock().unwrap();
                    sum[0] += blocks.len() as u64;
                    sum[1] += blocks.bytes();
                    drop(sum);
                    if barrier.wait().is_leader() {
                        let sum = std::mem::take(&mut *known.lock().unwrap());
                        let mut main = main.lock().unwrap();
                        main.write_all(sum.map(u64::to_ne_bytes).as_flattened())
                            .unwrap();
                        main.read_exact(&mut [0]).unwrap();
                    }
                    barrier.wait();
                }
                blocks.free_all();
                own_blocks.free_all();
            });
        }
    });
}

/// Runs until it is killed: changes no block of the shared arena, but makes calls on it, and has it mapped.
fn be_a_victim(shared: &Arena, rng: &mut fastrand::Rng) -> ! {
    let own = arena();
    let view = View::shared(shared, 0, 16 * MIB as usize);
    loop {
        match rng.u8(0..4) {
            0 => drop(own.alloc(random_size(rng, MIB), DEFAULT)),
            1 => drop(shared.trim(0)),
            2 => drop(shared.free(rng.u64(..16 * MIB) | 8)),
            _ => drop(view.probe(rng.usize(..view.len()))),
        }
    }
}

/// Causes a disturbance that must change no result.
fn disturb(shared: &Arena, rng: &mut fastrand::Rng) {
    match rng.u8(0..12) {
        0..=3 => {
            let mut seed = rng.fork();
            let victim = spawn_child(|| be_a_victim(shared, &mut seed));
            thread::sleep(Duration::from_micros(rng.u64(..5000)));
            kill(victim.pid(), Signal::SIGKILL).unwrap();
            victim.wait();
        }
        4..=6 => shrinker::force(shrinker::of_module().as_deref()),
        7..=9 => {
            let arenas = Path::new(debugfs::DIR).join("arenas.d");
            for arena in fs::read_dir(arenas).unwrap().flatten() {
                // The arena may have been closed since.
                let _ = fs::write(arena.path().join("trim"), "0");
            }
        }
        10 => {
            // Absent where there is one CPU.
            for state in ["0", "1"] {
                let _ = fs::write("/sys/devices/system/cpu/cpu1/online", state);
            }
        }
        _ => thread::sleep(Duration::from_millis(2)),
    }
}

/// A worker, as the main process has it.
struct Worker {
    child: Child,
    socket: UnixStream,
}

impl Worker {
    /// Returns the model of its threads, if all of them have stopped.
    fn known(&mut self) -> Option<Known> {
        let mut bytes = [0; 16];
        match self.socket.read(&mut bytes) {
            Ok(16) => {
                Some([0, 8].map(|at| {
                    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
                }))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            end => panic!("a worker has ended: {end:?}"),
        }
    }
}

fn processes_and_threads_agree_with_the_module_whatever_happens() {
    let mut rng = random();
    let rounds = scaled(8);
    let shared = arena();
    shared.set_limit(24 * MIB).unwrap();
    let mut workers: Vec<Worker> = (0..PROCESSES as u64)
        .map(|number| {
            let (socket, theirs) = UnixStream::pair().unwrap();
            let mut seed = rng.fork();
            let child = spawn_child(|| work(&shared, theirs, number, rounds, &mut seed));
            socket.set_nonblocking(true).unwrap();
            Worker { child, socket }
        })
        .collect();
    let mut disturbances = 0;
    for _ in 0..rounds {
        let mut known = vec![None; PROCESSES];
        while known.iter().any(Option::is_none) {
            disturb(&shared, &mut rng);
            disturbances += 1;
            for (known, worker) in known.iter_mut().zip(&mut workers) {
                *known = known.or_else(|| worker.known());
            }
        }
        let all: Vec<Known> = known.into_iter().flatten().collect();
        let stat = shared.stat().unwrap();
        assert!(stat.held_bytes <= stat.limit_bytes, "{stat:?}");
        let sums = [0, 1].map(|at| all.iter().map(|known| known[at]).sum::<u64>());
        assert_eq!([stat.live_blocks, stat.live_bytes], sums, "{stat:?}");
        check();
        for worker in &mut workers {
            worker.socket.write_all(&[1]).unwrap();
        }
    }
    for worker in workers {
        worker.child.succeed();
    }
    assert_eq!(stat(&shared).live_blocks, 0);
    let operations = rounds * ROUND * PROCESSES * THREADS;
    figure!("{operations} operations agree with their models, {disturbances} times disturbed");
    if operations >= 1_000_000 {
        trust!("model_operations", operations, "operations", ">=1000000");
    }
}
