// SPDX-License-Identifier: GPL-2.0

//! The held and moved memory of a linear heap, a model of the engine's lists, for recorded traces. The engine's
//! parameters were chosen by the figures that the ignored test prints (`cargo test --release --test linear -- --ignored
//! --nocapture`); the other tests check a few of them.

mod heap;

use std::collections::HashMap;
use std::path::PathBuf;

use freelist_engine::trace::{path, read, Step};

use heap::{Heap, Settings, PAGE};

/// The result of a trace that ran three times in one heap.
#[derive(Debug)]
struct Outcome {
    held: f64,
    moved: [f64; 3],
    longest: u32,
    mean: f64,
    space: f64,
    metadata: f64,
}

fn replay(steps: &[Step], settings: Settings) -> Outcome {
    let mut heap = Heap::new(settings);
    let mut live: HashMap<u64, (u64, u64)> = HashMap::new();
    let (mut requested, mut peak) = (0, 0);
    let mut moved = [0; 3];
    for round in &mut moved {
        let before = heap.counts.moved_pages;
        for step in steps {
            match *step {
                Step::Alloc { id, size } => {
                    live.insert(id, (heap.alloc(size), size));
                    requested += size;
                    peak = peak.max(requested);
                }
                Step::Free { id } => {
                    if let Some((offset, size)) = live.remove(&id) {
                        heap.free(offset, size);
                        requested -= size;
                    }
                }
            }
        }
        *round = heap.counts.moved_pages - before;
        heap.check();
        let mut left: Vec<_> = live.drain().collect();
        left.sort_unstable();
        for (_, (offset, size)) in left {
            heap.free(offset, size);
            requested -= size;
        }
    }
    heap.check();
    let of_peak = |pages: u64| (pages * PAGE) as f64 / peak as f64;
    let counts = heap.counts;
    let records = (u64::from(counts.space).next_multiple_of(1024) * 24) + counts.peak_trees * 96;
    Outcome {
        held: of_peak(counts.peak_held_pages),
        moved: moved.map(of_peak),
        longest: counts.longest_search,
        mean: counts.examined as f64 / counts.searches as f64,
        space: of_peak(counts.space.into()),
        metadata: 100.0 * records as f64 / (counts.peak_held_pages * PAGE) as f64,
    }
}

fn print(name: &str, what: &str, outcome: &Outcome) {
    let Outcome {
        held,
        moved: [a, b, c],
        longest,
        mean,
        space,
        metadata,
    } = outcome;
    println!(
        "{name:18} {what:34} held {held:.4}; moved {a:.3}, {b:.3}, {c:.3}; search {longest:4} \
         (mean {mean:.2}); space {space:.2}; metadata {metadata:.2} %"
    );
}

/// Returns the settings that are compared, one changed at a time.
fn settings() -> Vec<(String, Settings)> {
    let usual = Settings::default();
    let mut all = vec![("as settled".into(), usual)];
    let mut add = |what: String, change: &dyn Fn(&mut Settings)| {
        let mut settings = usual;
        change(&mut settings);
        all.push((what, settings));
    };
    for sub_bits in [2, 3, 5] {
        add(format!("{} sub-lists", 1 << sub_bits), &|s| {
            s.sub_bits = sub_bits
        });
    }
    for slack in [10, 20] {
        add(format!("slack {slack}"), &|s| s.slack_permille = slack);
        add(format!("slack {slack}, largest moved first"), &|s| {
            s.slack_permille = slack;
            s.move_largest = true;
        });
    }
    for candidates in [1, 2, 4, 16] {
        add(format!("{candidates} examined"), &|s| {
            s.candidates = candidates
        });
    }
    add("no quick lists".into(), &|s| s.quick_largest = 0);
    add("quick lists to 1 MiB".into(), &|s| {
        s.quick_largest = 1 << 20
    });
    for kib in [64, 128, 512, 1024] {
        add(format!("quick lists of {kib} KiB"), &|s| {
            s.quick_bytes = kib << 10
        });
    }
    for kib in [2, 4, 16, 32] {
        add(format!("quick lists to {kib} KiB"), &|s| {
            s.quick_largest = kib << 10
        });
    }
    for kib in [16, 32, 256, 1024, 1 << 20] {
        add(format!("drained by requests above {kib} KiB"), &|s| {
            s.drain_above = kib << 10
        });
    }
    for kib in [0, 64, 128, 512, 1024] {
        add(format!("to {kib} KiB from the end"), &|s| {
            s.from_end = kib << 10
        });
    }
    add("newest of those examined".into(), &|s| s.lowest = false);
    add("first in, first out".into(), &|s| s.newest_first = false);
    add("largest moved first".into(), &|s| s.move_largest = true);
    all
}

#[test]
fn training_traces_move_nothing_from_the_second_time_on() {
    for name in ["torch_resnet18", "torch_gpt", "torch_unet"] {
        let outcome = replay(&read(&path(name), 0), Settings::default());
        print(name, "as settled", &outcome);
        let [_, second, third] = outcome.moved;
        assert!(second == 0.0 && third == 0.0, "{name}: {outcome:?}");
        assert!(outcome.held <= 1.05, "{name}: {outcome:?}");
    }
}

#[test]
#[ignore = "prints a table, checks nothing"]
fn every_setting_against_every_trace() {
    let mut traces: Vec<(String, Vec<Step>)> = Vec::new();
    for name in [
        "torch_resnet18",
        "torch_gpt",
        "torch_unet",
        "small_sqlite3",
        "small_git_log",
    ] {
        traces.push((name.into(), read(&path(name), 0)));
    }
    // The trace of a whole process, which is too long for the repository.
    if let Some(path) = std::env::var_os("FREELIST_TRACE") {
        let path = PathBuf::from(path);
        traces.push(("process, >= 64 KiB".into(), read(&path, 64 << 10)));
        traces.push(("process, all".into(), read(&path, 0)));
    }
    for (name, steps) in &traces {
        for (what, settings) in settings() {
            print(name, &what, &replay(steps, settings));
        }
    }
}
