// SPDX-License-Identifier: GPL-2.0

//! The costs of calls and page faults in instructions: in a VM whose clock counts them (`scripts/vm --icount`),
//! so that the figure is the same every time. Without that clock the tests are skipped.
//!
//! Each figure is the least of several rounds: the rest is the kernel's own work. Instructions do not count
//! cache misses.

#![expect(unsafe_code, reason = "a heap's blocks are freed by their addresses")]

use std::alloc::Layout;
use std::env;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use freelist::{Arena, Flags, Heap};
use nix::errno::Errno;
use nix::sys::memfd::{memfd_create, MFdFlags};

use crate::harness::{skip, suite};
use crate::kit::process::fork_child;
use crate::kit::{
    alloc, arena, free, page, refused, shrinker, stat, touch_all, View, DEFAULT, KIB, LARGER, MIB,
};
use crate::{figure, trust};

suite!("freelist_cost":
    an_allocation_costs_the_same_with_a_thousand_blocks_and_a_million,
    an_allocation_costs_the_same_with_one_arena_and_a_thousand,
    costs_of_a_pair_of_calls_at_each_size,
    a_batch_costs_less_than_single_calls,
    a_refusal_makes_no_later_call_dearer,
    costs_of_mapping_and_releasing_pages,
    costs_of_touching_and_discarding_lazy_memory,
    a_fork_costs_the_same_with_mapped_memory,
    the_shrinker_takes_memory_at_these_costs,
    memory_is_moved_at_these_costs,
    a_copy_costs_little_more_than_its_memory_and_its_bytes,
    costs_of_a_small_block_of_a_heap,
);

/// Set where the clock counts instructions, one a nanosecond.
const ICOUNT: &str = "FREELIST_ICOUNT";
/// Rounds of a measurement, of which the least counts.
const ROUNDS: usize = 7;
/// The ratio up to which two costs that should be the same may differ.
const SAME: f64 = 1.10;

/// Returns how long `work` takes.
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Returns the instructions of one of `count` operations, for each of the parts that `round` times.
fn costs_of_parts<const N: usize>(
    count: u64,
    mut round: impl FnMut() -> [Duration; N],
) -> [f64; N] {
    if env::var_os(ICOUNT).is_none() {
        skip("the clock counts no instructions here; needs scripts/vm --icount");
    }
    let mut least = [Duration::MAX; N];
    for _ in 0..ROUNDS {
        for (least, part) in least.iter_mut().zip(round()) {
            *least = part.min(*least);
        }
    }
    least.map(|part| part.as_nanos() as f64 / count as f64)
}

/// Returns the instructions of one of `count` operations that `round` does.
fn cost(count: u64, mut round: impl FnMut()) -> f64 {
    let [cost] = costs_of_parts(count, || [timed(&mut round)]);
    cost
}

/// The number of blocks that one round allocates.
const COUNT: u64 = 400;

/// Returns the cost of a block that is allocated and freed at once, in instructions.
fn cost_of_pair(arena: &Arena, size: u64) -> f64 {
    cost(COUNT, || {
        for _ in 0..COUNT {
            free(arena, alloc(arena, size));
        }
    })
}

/// Returns the costs of a block that is allocated and freed at once, and of one of many that are allocated, then all
/// freed in another order, for which no short list suffices.
fn costs(arena: &Arena, size: u64) -> [f64; 2] {
    let pair = cost_of_pair(arena, size);
    let many = cost(COUNT, || {
        let blocks: Vec<_> = (0..COUNT).map(|_| alloc(arena, size)).collect();
        // Every seventh, so that no two neighbours are freed in sequence.
        for index in 0..COUNT as usize {
            free(arena, blocks[index * 7 % COUNT as usize]);
        }
    });
    [pair, many]
}

fn compare(name: &str, what: &str, few: [f64; 2], many: [f64; 2]) {
    for (how, few, many) in [("at_once", few[0], many[0]), ("later", few[1], many[1])] {
        let ratio = many / few;
        figure!(
            "{what}, freed {}: {few:.0} and {many:.0} instructions: {ratio:.3}",
            how.replace('_', " ")
        );
        trust!(
            format!("cost_{name}_{how}"),
            ratio,
            "ratio",
            format_args!("<={SAME}")
        );
        assert!(ratio <= SAME, "{ratio} times as much");
    }
}

/// Allocates live blocks of 32 bytes, each beside a free one.
fn litter(arena: &Arena, count: usize) {
    let mut offsets = vec![0; 1000];
    for _ in 0..2 * count / offsets.len() {
        assert_eq!(arena.alloc_bulk(32, DEFAULT, &mut offsets).unwrap(), 1000);
        let every_other: Vec<u64> = offsets.iter().copied().step_by(2).collect();
        assert_eq!(arena.free_bulk(&every_other).unwrap(), 500);
    }
    assert!(stat(arena).live_blocks >= count as u64);
}

/// Prior art: gpu_buddy gpu_test_buddy_fragmentation_performance.
fn an_allocation_costs_the_same_with_a_thousand_blocks_and_a_million() {
    for size in [64, 2 * page(), 100 * KIB] {
        let (few, many) = (arena(), arena());
        let _ = cost(1, || {});
        litter(&few, 1000);
        litter(&many, 1_000_000);
        compare(
            &format!("blocks_{size}"),
            &format!("{size} bytes with 10^3 and 10^6 live blocks"),
            costs(&few, size),
            costs(&many, size),
        );
    }
}

fn an_allocation_costs_the_same_with_one_arena_and_a_thousand() {
    let one = arena();
    let few = costs(&one, 64);
    let others: Vec<Arena> = (0..1000).map(|_| arena()).collect();
    for other in &others {
        alloc(other, 64);
    }
    compare(
        "arenas",
        "64 bytes with 1 and 1,000 arenas",
        few,
        costs(&one, 64),
    );
}

/// Two ioctls that do nothing are 1,240 of it. With 256 pages and more each call changes the kernel's count of
/// reclaimable memory, too.
fn costs_of_a_pair_of_calls_at_each_size() {
    for (kib, aim, max) in [
        (8, 2150.0, 2120.0),
        (64, 2150.0, 2120.0),
        (100, 2400.0, 2280.0),
        (1 << 10, 2400.0, 2400.0),
        (4 << 10, 2400.0, 2400.0),
    ] {
        let arena = arena();
        let pair = cost_of_pair(&arena, kib * KIB);
        figure!("{kib} KiB allocated and freed: {pair:.0} instructions");
        trust!(
            format!("cost_pair_{kib}_kib"),
            pair,
            "instructions",
            format_args!("<={aim}")
        );
        assert!(pair <= max, "{kib} KiB: {pair}");
    }
}

fn a_batch_costs_less_than_single_calls() {
    const BATCH: usize = 64;
    let arena = arena();
    let mut offsets = [0; BATCH];
    let batch = cost(BATCH as u64, || {
        assert_eq!(arena.alloc_bulk(64, DEFAULT, &mut offsets).unwrap(), BATCH);
        assert_eq!(arena.free_bulk(&offsets).unwrap(), BATCH);
    });
    let [single, _] = costs(&arena, 64);
    figure!("64 bytes, allocated and freed: {single:.0} instructions by itself, {batch:.0} in a batch of 64");
    trust!("cost_pair", single, "instructions", "<=2085");
    trust!("cost_in_a_batch_of_64", batch, "instructions", "-");
    assert!(batch < single);
    // The cost with two holds of the lock, and 2 %: with more holds threads would wait for each other.
    assert!(single <= 2085.0, "{single}");
}

/// The module notes a refused request for pollers; here there are none.
fn a_refusal_makes_no_later_call_dearer() {
    let arena = arena();
    let [before, _] = costs(&arena, 64);
    refused(arena.alloc(1 << 34, DEFAULT), Errno::EDQUOT);
    refused(arena.alloc(MIB, LARGER), Errno::ENOMEM);
    let [after, _] = costs(&arena, 64);
    figure!("64 bytes before and after a refusal: {before:.0} and {after:.0} instructions");
    assert!(after <= before * 1.01);
}

fn costs_of_mapping_and_releasing_pages() {
    let bytes = 4 * MIB;
    let pages = bytes / page();
    let arena = arena();
    let view = View::shared(&arena, 0, 16 * MIB as usize);
    let touch = |offset: u64| {
        for index in 0..pages {
            view.store((offset + index * page()) as usize, 1);
        }
    };
    let ways = [
        ("by faults", Flags::empty()),
        ("with POPULATE", Flags::POPULATE),
    ];
    for (way, flags) in ways {
        if !Flags::from_bits_retain(arena.info().unwrap().features as u32).contains(flags) {
            continue;
        }
        let [used, trimmed] = costs_of_parts(pages, || {
            let mut block = None;
            let used = timed(|| {
                let new = arena.alloc(bytes, DEFAULT | flags).unwrap();
                touch(new.offset);
                block = Some(new);
            });
            free(&arena, block.expect("just allocated"));
            // All of it: the next round's memory is new again.
            let trimmed = timed(|| assert_eq!(arena.trim(0).unwrap(), bytes));
            [used, trimmed]
        });
        figure!(
            "new memory touched {way}: {used:.0} instructions a page, and {trimmed:.0} to trim it"
        );
    }
    let reused = cost(pages, || {
        let block = alloc(&arena, bytes);
        touch(block.offset);
        free(&arena, block);
    });
    figure!("memory used again, and touched: {reused:.0} instructions a page");
    let [anonymous, unmapped] = costs_of_parts(pages, || {
        let mut view = None;
        let used = timed(|| {
            let new = View::anonymous(bytes as usize);
            for index in 0..pages {
                new.store((index * page()) as usize, 1);
            }
            view = Some(new);
        });
        [used, timed(|| drop(view))]
    });
    figure!("anonymous memory touched: {anonymous:.0} instructions a page, and {unmapped:.0} to unmap it");
    assert!(reused < anonymous / 10.0);
}

fn costs_of_touching_and_discarding_lazy_memory() {
    let arena = arena();
    let view = View::shared(&arena, 0, 64 * MIB as usize);
    for bytes in [2 * MIB, 16 * MIB] {
        let [touched, discarded] = costs_of_parts(bytes / MIB, || {
            let block = arena.alloc(bytes, DEFAULT | Flags::LAZY).unwrap();
            let touched = timed(|| touch_all(&view, block.offset, bytes));
            let discarded = timed(|| arena.discard(block.offset, bytes).unwrap());
            free(&arena, block);
            [touched, discarded]
        });
        let mib = bytes / MIB;
        figure!(
            "lazy memory of {mib} MiB touched in order: {touched:.0} instructions an MiB, {discarded:.0} to discard it"
        );
        trust!(
            format!("lazy_{mib}_mib"),
            touched,
            "instructions",
            "<=215000"
        );
        assert!(touched <= 400_000.0, "{touched}");
    }
}

/// Prior art: reports jemalloc#1641.
fn a_fork_costs_the_same_with_mapped_memory() {
    let fork = || cost(1, || _ = fork_child(|| {}));
    let without = fork();
    let arena = arena();
    let bytes = 256 * MIB;
    let view = View::shared(&arena, 0, bytes as usize);
    let block = alloc(&arena, bytes);
    touch_all(&view, block.offset, bytes);
    let with = fork();
    let more = with - without;
    figure!("a fork: {without:.0} instructions, with 256 MiB mapped {more:.0} more");
    trust!("fork_with_256_mib", more, "instructions", "<=5000");
    assert!(more <= 20_000.0, "{more}");
}

fn the_shrinker_takes_memory_at_these_costs() {
    let bytes = 32 * MIB;
    let force = || shrinker::force(shrinker::of_module().as_deref());
    let nothing = cost(1, force);
    for piece in [2 * MIB, 64 * KIB] {
        let [all] = costs_of_parts(1, || {
            // A new arena each time: memory that was needed before would come as huge pages.
            let arena = arena();
            arena.set_slack_permille(Some(1)).unwrap();
            let view = View::shared(&arena, 0, 2 * bytes as usize);
            let blocks: Vec<_> = (0..bytes / piece).map(|_| alloc(&arena, piece)).collect();
            for block in blocks {
                touch_all(&view, block.offset, piece);
                free(&arena, block);
            }
            let time = timed(force);
            assert_eq!(stat(&arena).held_bytes, 0);
            [time]
        });
        let each = (all - nothing) / (bytes / MIB) as f64;
        let kib = piece / KIB;
        figure!("reclaimed in pieces of {kib} KiB: {each:.0} instructions an MiB");
        trust!(format!("reclaimed_{kib}_kib"), each, "instructions", "-");
    }
}

fn memory_is_moved_at_these_costs() {
    for (piece, count, wanted) in [(2 * MIB, 16, 8 * MIB), (64 * KIB, 128, 2 * MIB)] {
        let [all] = costs_of_parts(1, || {
            let arena = arena();
            let view = View::shared(&arena, 0, 64 * MIB as usize);
            arena.set_limit(piece * count).unwrap();
            let blocks: Vec<_> = (0..count).map(|_| alloc(&arena, piece)).collect();
            for block in &blocks {
                touch_all(&view, block.offset, piece);
            }
            for block in blocks.iter().step_by(2) {
                free(&arena, *block);
            }
            let time = timed(|| _ = alloc(&arena, wanted));
            assert_eq!(stat(&arena).moved_bytes, wanted);
            [time]
        });
        let each = all / (wanted / page()) as f64;
        let kib = piece / KIB;
        figure!("moved from pieces of {kib} KiB: {each:.0} instructions a page");
        trust!(format!("moved_{kib}_kib"), each, "instructions", "-");
    }
}

/// Compares CLONE with the costs of its parts: new memory of the same bytes, and copying them as the kernel and as
/// a program does. (The kernel has only general registers: a program copies four times as many bytes by an
/// instruction.)
fn a_copy_costs_little_more_than_its_memory_and_its_bytes() {
    let bytes = 32 * MIB;
    let mib = bytes / MIB;
    let empty = arena();
    let nothing = cost(1, || drop(empty.copy().unwrap()));
    figure!("a copy of an empty arena, and its end: {nothing:.0} instructions");
    let (mut from, mut to) = (vec![1_u8; bytes as usize], vec![2_u8; bytes as usize]);
    let program = cost(mib, || to.copy_from_slice(std::hint::black_box(&from)));
    assert_eq!(std::hint::black_box(&to)[0], 1);
    let file = memfd_create(c"cost", MFdFlags::empty()).unwrap();
    let file = File::from(file);
    file.write_all_at(&from, 0).unwrap();
    let kernel = cost(mib, || file.read_exact_at(&mut from, 0).unwrap());
    let mut worst = 0.0_f64;
    for piece in [bytes, 2 * MIB, MIB + page(), 64 * KIB, 2 * KIB] {
        let count = bytes / piece;
        let source = arena();
        let view = View::shared(&source, 0, 4 * bytes as usize);
        let [new] = costs_of_parts(mib, || {
            let arena = arena();
            [timed(|| (0..count).for_each(|_| _ = alloc(&arena, piece)))]
        });
        for _ in 0..count {
            let block = alloc(&source, piece);
            touch_all(&view, block.offset, piece.min(page()));
        }
        let [all] = costs_of_parts(mib, || {
            let mut copy = None;
            let time = timed(|| copy = Some(source.copy().unwrap()));
            assert_eq!(stat(&copy.unwrap()).live_bytes, stat(&source).live_bytes);
            [time]
        });
        let ratio = all / (new + kernel);
        let kib = piece / KIB;
        figure!(
            "copied in blocks of {kib} KiB: {all:.0} instructions an MiB: {ratio:.2} of new memory \
             ({new:.0}) and the kernel's copying ({kernel:.0}), {:.2} with a program's ({program:.0})",
            all / (new + program)
        );
        trust!(format!("copied_{kib}_kib"), ratio, "ratio", "<=1.3");
        worst = worst.max(ratio);
    }
    assert!(worst <= 1.3, "{worst}");
}

/// Allocates a block as a library does: by a call, with the alignment of malloc().
#[inline(never)]
fn heap_alloc(heap: &Heap, size: usize) -> *mut u8 {
    let layout = Layout::from_size_align(size, 16).expect("a small block");
    heap.alloc_or(layout, |_| ptr::null_mut())
}

#[inline(never)]
fn heap_free(heap: &Heap, block: *mut u8) {
    let block = NonNull::new(block).expect("it was allocated");
    // SAFETY: The callers allocated it from this heap, and use it no more.
    unsafe { heap.free(block) };
}

/// A block that its thread keeps, and 1,000 blocks of many sizes, which no cache keeps.
fn costs_of_a_small_block_of_a_heap() {
    const COUNT: u64 = 1000;
    let heap = Heap::open().expect("the module is loaded");
    for size in [16, 64, 1000, 4096] {
        let pair = cost(COUNT, || {
            for _ in 0..COUNT {
                let block = heap_alloc(&heap, std::hint::black_box(size));
                heap_free(&heap, std::hint::black_box(block));
            }
        });
        figure!("a heap's block of {size} bytes, freed at once: {pair:.2} instructions");
        if size == 64 {
            trust!("heap_pair", pair, "instructions", "<=98");
        }
        // The cost before the heap had eight classes in each doubling, plus 2 %.
        assert!(pair <= 98.0, "{pair}");
    }
    let mut blocks = vec![ptr::null_mut(); COUNT as usize];
    let many = cost(COUNT, || {
        for (index, block) in blocks.iter_mut().enumerate() {
            *block = heap_alloc(&heap, 16 + index * 7 % 1000);
        }
        for index in 0..COUNT as usize {
            heap_free(&heap, blocks[index * 7 % COUNT as usize]);
        }
    });
    figure!("1,000 blocks of a heap up to 1,016 bytes, freed in another order: {many:.1} instructions each");
    trust!("heap_many", many, "instructions", "<=250");
    // Half of what it was when blocks went by way of arrays. All but one in twelve come from a slab and go to it.
    assert!(many <= 460.0, "{many}");
}
