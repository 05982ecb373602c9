// SPDX-License-Identifier: GPL-2.0

//! Recorded traces of real programs on the engine: the peak of held bytes over the peak of requested bytes, and
//! how much memory was moved between blocks for that. The figures are printed (`cargo test -- --nocapture`) and
//! compared with bounds.

use freelist_engine::engine::SLACK_PERMILLE;
use freelist_engine::host::{request, Arena};
use freelist_engine::trace::{path, read, Step};
use std::collections::BTreeMap;

/// Replays a trace, and frees the blocks that it leaves. Returns the peak of the requested bytes, and that of the
/// held bytes.
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
                // A block of 0 bytes was never allocated.
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

/// The result of a trace that ran several times in one arena, relative to the peak of requested bytes.
struct Outcome {
    held: f64,
    moved: Vec<f64>,
}

/// Replays the blocks of a trace that have at least `min_size` bytes.
fn measure<const KIB: usize>(
    name: &str,
    min_size: u64,
    slack_permille: u32,
    rounds: u32,
) -> Outcome {
    let steps = read(&path(name), min_size);
    let mut arena = Arena::<KIB>::new(16 << 20);
    arena.engine.set_slack_permille(Some(slack_permille));
    arena.checked = false;
    let (mut peak, mut held) = (0, 0);
    let moved = (0..rounds).map(|_| {
        let before = arena.moved;
        let (peak_now, held_now) = replay(&mut arena, &steps);
        (peak, held) = (peak.max(peak_now), held.max(held_now));
        (arena.moved - before) * Arena::<KIB>::PAGE
    });
    let moved: Vec<u64> = moved.collect();
    arena.end();
    let of_peak = |bytes: u64| bytes as f64 / peak as f64;
    let outcome = Outcome {
        held: of_peak(held),
        moved: moved.into_iter().map(of_peak).collect(),
    };
    println!(
        "{name}.txt.gz, blocks from {min_size} bytes: pages of {KIB} KiB, slack {slack_permille} permille: \
         {:.2} MiB asked for; held {:.4}; moved {:.3?}",
        peak as f64 / 1048576.0,
        outcome.held,
        outcome.moved,
    );
    outcome
}

/// Checks that the arena holds at most `max` times the peak of a trace, and that each further run in the same
/// arena moves at most `moves` times that.
fn holds_at_most<const KIB: usize>(name: &str, slack: u32, rounds: u32, max: f64, moves: f64) {
    let Outcome { held, moved } = measure::<KIB>(name, 0, slack, rounds);
    assert!(held <= max, "{name} holds {held:.4} times what it needs");
    for moved in &moved[1..] {
        assert!(
            *moved <= moves,
            "{name} moves {moved:.4} times what it needs"
        );
    }
}

macro_rules! traces {
    ($($name:ident: $at_4:expr, $at_64:expr, $moves:expr $(, at 1 percent $at_1:expr, $moves_at_1:expr)?;)*) => {$(
        #[test]
        fn $name() {
            let name = stringify!($name);
            holds_at_most::<4>(name, SLACK_PERMILLE, 3, $at_4, $moves);
            holds_at_most::<64>(name, SLACK_PERMILLE, 1, $at_64, 0.0);
            $(holds_at_most::<4>(name, 10, 2, $at_1, $moves_at_1);)?
        }
    )*};
}

// The bounds at pages of 4 and of 64 KiB, and the bounds of moved memory in the second and third run at pages of
// 4 KiB; then both at a slack of 1 %. A pure power-of-2 allocator needs at least 1.737, 1.028, 1.140, 1.851 and
// 1.207 (see ../traces/README.md), perfect packing 1.0003 and 1.0098 on the training traces, because of the unused
// ends of pages.
traces! {
    torch_resnet18: 1.05, 1.03, 0.0, at 1 percent 1.02, 0.5;
    torch_gpt: 1.02, 1.03, 0.0, at 1 percent 1.02, 0.1;
    torch_unet: 1.05, 1.03, 0.0, at 1 percent 1.02, 0.1;
    small_sqlite3: 1.83, 1.88, 0.0;
    small_git_log: 1.18, 1.23, 0.0;
}

/// Ten runs without the blocks of 32 KiB or less, so that nothing small is there for the gaps, as under the drop-in.
/// All later runs together move at most `moves` times the peak.
fn large_blocks_move_at_most(name: &str, moves: f64) {
    let Outcome { held, moved } = measure::<4>(name, (32 << 10) + 1, SLACK_PERMILLE, 10);
    assert!(held <= 1.051, "{name} holds {held:.4} times what it needs");
    let all = moved[1..].iter().sum::<f64>();
    assert!(all <= moves, "{name} moves {all:.4} times what it needs");
}

#[test]
fn training_runs_of_large_blocks_move_little() {
    large_blocks_move_at_most("torch_resnet18", 0.1);
    large_blocks_move_at_most("torch_gpt", 0.0);
    large_blocks_move_at_most("torch_unet", 0.0);
}
