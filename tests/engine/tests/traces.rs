// SPDX-License-Identifier: GPL-2.0

//! Recorded traces of real programs against the engine: what is held at the peak for what was
//! asked for, and how much of it had to be moved from block to block for that. The figures are
//! printed (`cargo test -- --nocapture`) and held against a bound.

use flate2::read::GzDecoder;
use freelist_engine::host::{request, Arena};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// What a program does: a block is asked for by a number of bytes, or given up.
enum Step {
    Alloc { id: u64, size: u64 },
    Free { id: u64 },
}

fn read(name: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../traces")
        .join(name);
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut steps = Vec::new();
    for line in BufReader::new(GzDecoder::new(file)).lines() {
        let line = line.unwrap();
        let mut words = line.split_ascii_whitespace();
        let kind = words.next();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        match kind {
            Some("a") => {
                let (id, size) = (number(), number());
                if size > 0 {
                    steps.push(Step::Alloc { id, size });
                }
            }
            Some("f") => steps.push(Step::Free { id: number() }),
            _ => {}
        }
    }
    steps
}

/// Replays what a program does, and frees what it left. Gives the peak of the bytes asked for, and
/// that of the bytes held.
fn replay<const KIB: usize>(arena: &mut Arena<KIB>, steps: &[Step]) -> (u64, u64) {
    let mut live: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let (mut requested, mut peak, mut held) = (0, 0, 0);
    for step in steps {
        match *step {
            Step::Alloc { id, size } => {
                let (offset, _) = arena.alloc(request(size)).unwrap();
                live.insert(id, (offset, size));
                requested += size;
                peak = peak.max(requested);
                held = held.max(arena.counters().held_bytes);
            }
            Step::Free { id } => {
                // What had no size was never allocated.
                if let Some((offset, size)) = live.remove(&id) {
                    arena.free(offset).unwrap();
                    requested -= size;
                }
            }
        }
    }
    arena.check();
    for (offset, _) in live.into_values() {
        arena.free(offset).unwrap();
    }
    arena.check();
    assert_eq!(arena.counters().live_blocks, 0);
    (peak, held)
}

/// Holds at most `most` times what it needs; when it runs again in what it left, it moves at most
/// `moves` times that.
fn holds_at_most<const KIB: usize>(name: &str, most: f64, moves: f64) {
    let steps = read(name);
    let mut arena = Arena::<KIB>::new(16 << 20);
    arena.checked = false;
    let (peak, held) = replay(&mut arena, &steps);
    let before = arena.moved;
    replay(&mut arena, &steps);
    let moved = (arena.moved - before) * Arena::<KIB>::PAGE;
    arena.end();
    let ratio = held as f64 / peak as f64;
    let moved_ratio = moved as f64 / peak as f64;
    let mib = |bytes: u64| bytes as f64 / 1048576.0;
    println!(
        "{name}: pages of {KIB} KiB: peak {:.2} MiB asked for, {:.2} MiB held: {ratio:.4}; \
         {:.2} MiB moved the second time: {moved_ratio:.4}",
        mib(peak),
        mib(held),
        mib(moved),
    );
    assert!(ratio <= most, "{name} holds {ratio:.4} times what it needs");
    assert!(
        moved_ratio <= moves,
        "{name} moves {moved_ratio:.4} times what it needs"
    );
}

macro_rules! traces {
    ($($name:ident: $at_4:expr, $at_64:expr, $moves:expr;)*) => {$(
        #[test]
        fn $name() {
            let file = concat!(stringify!($name), ".txt.gz");
            holds_at_most::<4>(file, $at_4, $moves);
            holds_at_most::<64>(file, $at_64, $moves);
        }
    )*};
}

// At most so much at pages of 4 and of 64 KiB. A pure power-of-2 allocator cannot do with less than
// 1.737, 1.028, 1.140, 1.851 and 1.207 (see ../traces/README.md), perfect packing with 1.0003 and
// 1.0098 on the training traces, which the last percent of a page is lost on. The last number is how
// much may be moved the second time; with the memory of the largest runs moved first, and every run
// divided that fits, it was 1.95, 0.13 and 0.43 on the training traces.
traces! {
    torch_resnet18: 1.02, 1.03, 1.4;
    torch_gpt: 1.02, 1.03, 0.03;
    torch_unet: 1.02, 1.03, 0.42;
    small_sqlite3: 1.83, 1.88, 0.4;
    small_git_log: 1.16, 1.22, 0.4;
}
