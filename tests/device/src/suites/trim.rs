// SPDX-License-Identifier: GPL-2.0

//! Releases of free pages to the system: by TRIM, and by a lower limit.

use std::fs;

use freelist::uapi::{freelist_trim, FREELIST_IOC_TRIM};
use freelist::{Arena, Block};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::mman::ProtFlags;
use nix::sys::signal::Signal;

use crate::harness::suite;
use crate::kit::calls::{ioctl_at, splice_from, Plain};
use crate::kit::process::signal_of;
use crate::kit::{
    alloc, arena, counters, free, free_memory, page, random, random_size, raw, refused, scaled,
    stat, system_page, thread, Ledger, View, DEFAULT, KIB, LARGER, MIB,
};
use crate::{figure, trust};

suite!("freelist_trim":
    trim_releases_every_page_that_is_wholly_free,
    a_trim_leaves_the_pages_to_be_kept,
    pages_with_a_live_block_stay,
    removed_pages_are_returned_to_the_system,
    an_offset_that_was_trimmed_is_sigbus_until_it_is_allocated_again,
    a_new_block_at_a_trimmed_offset_shows_no_others_bytes,
    a_pinned_page_is_kept_for_its_holder_only,
    a_pinned_page_is_not_moved_to_another_block,
    metadata_of_removed_pages_is_freed,
    after_a_phase_of_small_blocks_trim_releases_all_pages,
    a_lower_limit_trims,
    live_blocks_keep_their_bytes_under_random_trims,
    trims_beside_faults_and_allocations_lose_nothing,
    an_answer_that_cannot_be_written_is_efault,
    a_read_only_arena_is_not_trimmed,
);

/// Returns a new arena that holds `bytes`, all of them free, in one run.
fn holding(bytes: u64) -> Arena {
    let arena = arena();
    let block = alloc(&arena, bytes);
    free(&arena, block);
    assert_eq!(stat(&arena).free_bytes, bytes);
    arena
}

/// Prior art: scudo combined.CacheDrain, combined.ForceCacheDrain.
fn trim_releases_every_page_that_is_wholly_free() {
    let arena = arena();
    let sizes = [32, 700, page(), 3 * page(), 64 * KIB, 3 * MIB + 1];
    let blocks: Vec<Block> = sizes.iter().map(|size| alloc(&arena, *size)).collect();
    let held = stat(&arena).held_bytes;
    assert_eq!(arena.trim(0).unwrap(), 0, "nothing is free");
    for block in blocks {
        free(&arena, block);
    }
    assert_eq!(arena.trim(0).unwrap(), held);
    let after = stat(&arena);
    assert_eq!((after.held_bytes, after.free_bytes), (0, 0));
    assert_eq!(after.trims, held / page());
    refused(arena.alloc(32, LARGER), Errno::ENOMEM);
    alloc(&arena, MIB);
}

fn a_trim_leaves_the_pages_to_be_kept() {
    let arena = holding(4 * MIB);
    for (keep, freed) in [
        (u64::MAX, 0),
        (4 * MIB, 0),
        (4 * MIB - page(), page()),
        (3 * MIB, MIB - page()),
        // A page is released as a whole.
        (MIB + 1, 2 * MIB),
        (1, MIB),
        (0, 0),
    ] {
        let before = stat(&arena).held_bytes;
        let gone = arena.trim(keep).unwrap();
        let held = stat(&arena).held_bytes;
        assert_eq!(before - held, gone);
        assert!(held <= keep, "{held} bytes of {keep}");
        assert!(
            gone >= freed && gone < freed + 2 * page(),
            "{gone} for {keep}"
        );
    }
    assert_eq!(stat(&arena).held_bytes, 0);
}

/// Prior art: kfence test_shrink_memcache; scudo release.FreePagesRangeTracker,
/// release.ReleaseFreeMemoryToOSDefault, release.ReleaseFreeMemoryToOSAndroid,
/// release.ReleaseFreeMemoryToOSSvelte, release.PageMapMarkRange.
fn pages_with_a_live_block_stay() {
    let arena = arena();
    let small: Vec<Block> = (0..64 * 16).map(|_| alloc(&arena, page() / 16)).collect();
    let view = View::shared(&arena, 0, MIB as usize);
    for block in &small {
        view.store(block.offset as usize, 7);
    }
    // In every second page one block stays.
    let stays = |block: &Block| {
        let number = block.offset / page();
        number % 2 == 0 && block.offset % page() == number % 16 * (page() / 16)
    };
    for block in small.iter().filter(|block| !stays(block)) {
        free(&arena, *block);
    }
    assert_eq!(arena.trim(0).unwrap(), 32 * page());
    let after = stat(&arena);
    assert_eq!((after.live_blocks, after.held_bytes), (32, 32 * page()));
    for block in small.iter().filter(|block| stays(block)) {
        assert_eq!(view.load(block.offset as usize), 7);
        free(&arena, *block);
    }
}

/// Prior art: ttm_pool ttm_pool_free_no_dma_alloc; scudo primary.ReleaseToOS.
fn removed_pages_are_returned_to_the_system() {
    let max = MIB * 64;
    let arena = holding(max);
    let held = free_memory();
    assert_eq!(arena.trim(0).unwrap(), max);
    let free = free_memory();
    assert!(free > held + max / 2, "{held} bytes free, then {free}");
}

/// Prior art: kfence test_use_after_free_read, test_use_after_free_read_nofault; vulnerabilities
/// CVE-2024-0582; hardened_malloc read_after_free_large, write_after_free_large; scudo
/// combined.UseAfterFree.
fn an_offset_that_was_trimmed_is_sigbus_until_it_is_allocated_again() {
    let arena = arena();
    let views = [0, 1].map(|_| View::shared(&arena, 0, MIB as usize));
    for size in [64, page(), 64 * KIB] {
        let block = alloc(&arena, size);
        let at = (block.offset + block.bytes - 1) as usize;
        for view in &views {
            view.store(at, 0x5a);
        }
        free(&arena, block);
        assert_eq!(views[0].load(at), 0x5a, "mapped until it is trimmed");
        assert!(arena.trim(0).unwrap() >= size);
        for view in &views {
            assert_eq!(view.probe(at), Err(Errno::EFAULT), "of {size} bytes");
            assert_eq!(signal_of(|| view.touch(at)), Some(Signal::SIGBUS));
            assert_eq!(signal_of(|| view.store(at, 1)), Some(Signal::SIGBUS));
        }
        // Any offset will do for it, so more than one may be needed.
        let mut others = Vec::new();
        while others.last() != Some(&block) {
            assert!(others.len() < 16, "{block:x?} is none of {others:x?}");
            others.push(alloc(&arena, size));
        }
        for view in &views {
            assert_eq!(view.load(at), 0, "a new page of the system");
        }
        for other in others {
            free(&arena, other);
        }
    }
}

/// Prior art: kasan kmalloc_uaf2; vulnerabilities CVE-2024-0582.
fn a_new_block_at_a_trimmed_offset_shows_no_others_bytes() {
    let len = MIB as usize;
    let (one, two) = (arena(), arena());
    let views = [&one, &two].map(|arena| View::shared(arena, 0, len));
    for round in 0..scaled(4) {
        // Memory that one releases can be allocated by the other.
        for (arena, view) in [(&one, &views[0]), (&two, &views[1])] {
            let block = alloc(arena, MIB);
            assert_eq!(block.offset, 0);
            for at in (0..len).step_by(128) {
                assert_eq!(view.load(at), 0, "byte {at:#x}, round {round}");
                view.store(at, 0xa5);
            }
            free(arena, block);
            assert_eq!(arena.trim(0).unwrap(), MIB);
        }
    }
}

/// A pipe refers to the page as any long-term pin does.
///
/// Prior art: vulnerabilities CVE-2024-0582.
fn a_pinned_page_is_kept_for_its_holder_only() {
    let arena = arena();
    let block = alloc(&arena, 8 * page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    let at = 3 * system_page();
    view.set_bytes(at, b"pinned");
    let (read, write) = nix::unistd::pipe().unwrap();
    assert_eq!(splice_from(&write, view.address(at), 6), Ok(6));
    free(&arena, block);
    assert_eq!(arena.trim(0).unwrap(), 8 * page(), "the pinned one too");
    assert_eq!(stat(&arena).held_bytes, 0);
    assert_eq!(view.probe(at), Err(Errno::EFAULT));
    // A new block there has another page.
    let again = alloc(&arena, 8 * page());
    assert_eq!(again, block, "low offsets are used first");
    view.set_bytes(at, b"others");
    let mut bytes = [0; 6];
    nix::unistd::read(&read, &mut bytes).unwrap();
    assert_eq!(&bytes, b"pinned");
    free(&arena, again);
}

/// At the limit a request gets pages of free blocks in other places, but no page that another process can still
/// read or write.
fn a_pinned_page_is_not_moved_to_another_block() {
    let arena = arena();
    arena.set_limit(32 * page()).unwrap();
    let blocks: Vec<Block> = (0..32).map(|_| alloc(&arena, page())).collect();
    let view = View::shared(&arena, 0, 256 * system_page());
    for block in &blocks {
        view.set_bytes(block.offset as usize, b"mine");
    }
    let (read, write) = nix::unistd::pipe().unwrap();
    let pinned = view.address(blocks[4].offset as usize);
    assert_eq!(splice_from(&write, pinned, 4), Ok(4));
    for block in blocks.iter().step_by(2) {
        free(&arena, *block);
    }
    // All of the 16 pages, of which one is dropped and another one taken.
    let large = arena.alloc(16 * page(), DEFAULT).unwrap();
    for at in (0..16).map(|i| large.offset as usize + i * system_page()) {
        view.set_bytes(at, b"his!");
    }
    let mut bytes = [0; 4];
    nix::unistd::read(&read, &mut bytes).unwrap();
    assert_eq!(&bytes, b"mine");
    assert_eq!(stat(&arena).held_bytes, 32 * page());
}

fn metadata_of_removed_pages_is_freed() {
    let arena = arena();
    let empty = stat(&arena).metadata_bytes;
    // Chunks of metadata for many times 4 MiB.
    let blocks: Vec<Block> = (0..24 * 64).map(|_| alloc(&arena, 16 * KIB)).collect();
    let full = stat(&arena).metadata_bytes;
    blocks.iter().for_each(|block| free(&arena, *block));
    let idle = stat(&arena).metadata_bytes;
    arena.trim(0).unwrap();
    let after = stat(&arena).metadata_bytes;
    figure!("metadata: empty {empty}, full {full}, free {idle}, trimmed {after} bytes");
    assert!(empty <= 16 * KIB, "an empty arena costs {empty} bytes");
    assert!(full > empty + 64 * KIB, "the metadata did not grow");
    assert!(after < empty + 64 * KIB, "{after} bytes stay");
}

/// The phase change: the limit full of blocks of 64 bytes, then nothing.
fn after_a_phase_of_small_blocks_trim_releases_all_pages() {
    let arena = arena();
    let limit = 8 * MIB;
    arena.set_limit(limit).unwrap();
    let mut offsets = vec![0; (limit / 64) as usize];
    for batch in offsets.chunks_mut(1024) {
        assert_eq!(arena.alloc_bulk(64, DEFAULT, batch).unwrap(), batch.len());
    }
    random().shuffle(&mut offsets);
    for batch in offsets.chunks(1024) {
        assert_eq!(arena.free_bulk(batch).unwrap(), batch.len());
    }
    let freed = arena.trim(0).unwrap();
    figure!(
        "phase change: trim releases {:.1} %",
        freed as f64 * 100.0 / limit as f64
    );
    trust!(
        "phase_change_trimmed",
        freed * 100 / limit,
        "percent",
        ">=100"
    );
    assert_eq!(freed, limit);
}

fn a_lower_limit_trims() {
    let arena = holding(4 * MIB);
    let live = alloc(&arena, MIB);
    arena.set_limit(2 * MIB).unwrap();
    assert_eq!(stat(&arena).held_bytes, 2 * MIB);
    arena.set_limit(MIB / 2).unwrap();
    let now = counters(&arena);
    assert_eq!((now.held_bytes, now.live_bytes), (MIB, MIB));
    refused(arena.alloc(page(), DEFAULT), Errno::EDQUOT);
    free(&arena, live);
    alloc(&arena, MIB / 2);
}

fn live_blocks_keep_their_bytes_under_random_trims() {
    let mut rng = random();
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let mut ledger = Ledger::new(&arena, &memory);
    for _ in 0..scaled(400) {
        match rng.u8(0..5) {
            0..=2 => {
                let size = random_size(&mut rng, 64 * KIB);
                ledger.alloc(size, DEFAULT).unwrap();
            }
            3 if ledger.len() > 0 => ledger.free(ledger.nth(rng.usize(0..ledger.len()))),
            _ => {
                let keep = rng.u64(0..256 * KIB);
                arena.trim(keep).unwrap();
                let seen = ledger.len();
                if seen > 0 {
                    ledger.check(ledger.nth(rng.usize(0..seen)));
                }
            }
        }
        assert_eq!(stat(&arena).live_bytes, ledger.bytes());
    }
    ledger.free_all();
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
}

/// Prior art: scudo combined.ThreadedCombined, secondary.AllocatorWithReleaseThreadsRace.
fn trims_beside_faults_and_allocations_lose_nothing() {
    let seed = random().u64(..);
    let arena = arena();
    let memory = arena.map(arena.info().unwrap().arena_bytes).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let trimmer = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                arena.trim(0).unwrap();
            }
        });
        let workers: Vec<_> = (0..3)
            .map(|i| {
                let (arena, memory) = (&arena, &memory);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed ^ i);
                    let mut ledger = Ledger::new(arena, memory).with_key(i);
                    for _ in 0..scaled(200) {
                        let size = random_size(&mut rng, 32 * KIB);
                        let block = ledger.alloc(size, DEFAULT).unwrap();
                        if rng.bool() {
                            ledger.free(block.offset);
                        }
                    }
                    ledger.free_all();
                })
            })
            .collect();
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        trimmer.join().unwrap();
        assert!(results.iter().all(Result::is_ok), "a worker failed");
    });
    arena.trim(0).unwrap();
    assert_eq!(stat(&arena).held_bytes, 0);
}

fn an_answer_that_cannot_be_written_is_efault() {
    let arena = holding(MIB);
    let view = View::anonymous(size_of::<freelist_trim>());
    view.set_bytes(0, &freelist_trim::default().to_bytes());
    view.protect(0..view.len(), ProtFlags::PROT_READ).unwrap();
    let result = ioctl_at(&arena, FREELIST_IOC_TRIM, view.address(0));
    assert_eq!(result, Err(Errno::EFAULT));
    let stat = stat(&arena);
    assert_eq!(stat.held_bytes + stat.trims * page(), MIB);
}

fn a_read_only_arena_is_not_trimmed() {
    let fd = raw::open_as(OFlag::O_RDONLY);
    assert_eq!(raw::trim(&fd, 0), Err(Errno::EBADF));
    drop(fd);
    let arena = holding(MIB);
    // debugfs: for the administrator, of any arena.
    let rows = fs::read_to_string("/sys/kernel/debug/freelist/arenas").unwrap();
    let own = std::process::id().to_string();
    let row = rows
        .lines()
        .find(|row| row.split_whitespace().nth(1) == Some(&own));
    let id = row.and_then(|row| row.split_whitespace().next()).unwrap();
    let file = format!("/sys/kernel/debug/freelist/arenas.d/{id}/trim");
    fs::write(file, (64 * KIB).to_string()).unwrap();
    assert_eq!(stat(&arena).held_bytes, 64 * KIB);
}
