// SPDX-License-Identifier: GPL-2.0-only

//! An arena without its open file.

use kernel::macros::kunit_tests;

#[kunit_tests(freelist_arena)]
mod tests {
    use crate::{
        arena::{
            bounds::Change,
            counters::Snapshot,
            Arena, //
        },
        engine::Content,
        ffi::errno::edquot,
        kunit::{
            registry,
            registry_with,
            request,
            PAGE, //
        },
        mm::memcg::Memcg,
    };
    use kernel::prelude::*;

    #[test]
    fn a_failed_answer_cancels_the_block() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        for size in [32, PAGE / 2, PAGE, 3 * PAGE, 200 * PAGE] {
            assert_eq!(
                arena.alloc(&request(size), |_, _, _| Err(EFAULT)),
                Err(EFAULT)
            );
            let mut now = Snapshot::default();
            arena.snapshot(&mut now);
            let stat = now.stat();
            assert_eq!(stat.live_blocks, 0);
            assert_eq!(stat.allocs, 0);
            // At most the page that was divided for a subpage block is still held.
            assert!(stat.held_bytes <= PAGE);
            assert_eq!(arena.check(), Ok(()));
        }
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    /// Allocates `pages` blocks of one page each, and frees every second one.
    fn comb(arena: &Arena, pages: u64) -> Result {
        let mut blocks: KVec<u64> = KVec::new();
        for _ in 0..pages {
            arena.alloc(&request(PAGE), |_, offset, _| {
                Ok(blocks.push(offset, GFP_KERNEL)?)
            })?;
        }
        for offset in blocks.iter().skip(1).step_by(2) {
            arena.free(*offset)?;
        }
        Ok(())
    }

    #[test]
    fn scattered_free_pages_serve_a_full_arena() -> Result {
        let registry = registry_with(400 * PAGE, 300 * PAGE)?;
        let arena = registry.open(Memcg::of_caller())?;
        let done = |_, _, _| Ok(());
        comb(&arena, 300)?;
        assert_eq!(arena.alloc(&request(151 * PAGE), done), Err(edquot()));
        assert_eq!(arena.check(), Ok(()));
        assert_eq!(arena.alloc(&request(150 * PAGE), done), Ok(()));
        assert_eq!(arena.check(), Ok(()));
        // A failed answer also returns memory that was dropped elsewhere for the block.
        let other = registry.open(Memcg::of_caller())?;
        comb(&other, 100)?;
        let failed = other.alloc(&request(50 * PAGE), |_, _, _| Err(EFAULT));
        assert_eq!(failed, Err(EFAULT));
        assert_eq!(other.check(), Ok(()));
        for arena in [&arena, &other] {
            registry.close(arena);
        }
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn free_memory_does_not_use_up_the_address_space() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        let change = Change {
            span: Some(8 * PAGE),
            ..Change::default()
        };
        arena.set_bounds(change, |_| Ok(()))?;
        let mut blocks = [0; 2];
        for (block, pages) in blocks.iter_mut().zip([3, 2]) {
            arena.alloc(&request(pages * PAGE), |_, offset, _| {
                *block = offset;
                Ok(())
            })?;
        }
        for block in blocks {
            arena.free(block)?;
        }
        // A gap follows the three pages, so they cannot merge with the two.
        assert_eq!(arena.alloc(&request(8 * PAGE), |_, _, _| Ok(())), Ok(()));
        assert_eq!(arena.check(), Ok(()));
        assert_eq!(arena.alloc(&request(1), |_, _, _| Ok(())), Err(ENOSPC));
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn trimmed_pages_can_be_allocated_by_another_arena() -> Result {
        let registry = registry_with(300 * PAGE, 300 * PAGE)?;
        let (one, two) = (
            registry.open(Memcg::of_caller())?,
            registry.open(Memcg::of_caller())?,
        );
        let done = |_, _, _| Ok(());
        comb(&one, 300)?;
        assert_eq!(two.alloc(&request(PAGE), done), Err(edquot()));
        assert_eq!(one.trim(100 * PAGE), 50 * PAGE);
        assert_eq!(one.trim(100 * PAGE), 0);
        assert_eq!(two.alloc(&request(50 * PAGE), done), Ok(()));
        assert_eq!(one.trim(0), 100 * PAGE);
        assert_eq!(one.trim(0), 0);
        assert_eq!(two.alloc(&request(100 * PAGE), done), Ok(()));
        assert_eq!(two.alloc(&request(PAGE), done), Err(edquot()));
        let mut now = Snapshot::default();
        one.snapshot(&mut now);
        assert_eq!(now.stat().trims, 150);
        for arena in [&one, &two] {
            assert_eq!(arena.check(), Ok(()));
            registry.close(arena);
        }
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn the_map_shows_all_extents_of_a_large_arena() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        assert!(arena.map()?.is_empty());
        // Enough extents for many steps: a page of address space follows each block but the last.
        assert_eq!(
            arena.alloc_bulk(&request(3 * PAGE), 1000, |batch| batch.len()),
            Ok(1000)
        );
        let map = arena.map()?;
        let of = |content| map.iter().filter(move |extent| extent.content == content);
        assert_eq!(of(Content::Live).count(), 1000);
        assert_eq!(
            of(Content::Unbacked)
                .filter(|extent| extent.pages == 1)
                .count(),
            999
        );
        assert_eq!(
            map.iter().map(|extent| extent.live_bytes).sum::<u64>(),
            3000 * PAGE
        );
        registry.close(&arena);
        Ok(())
    }

    #[test]
    fn only_pages_with_a_live_block_can_be_mapped() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        let mut offset = u64::MAX;
        assert!(arena.live_page(0).is_none());
        arena.alloc(&request(3 * PAGE), |_, at, _| {
            offset = at;
            // The block is not live before its caller has the answer.
            assert!(arena.live_page(at / PAGE).is_none());
            assert_eq!(arena.free(at), Err(ENOENT));
            Ok(())
        })?;
        for index in 0..4 {
            let page = arena.live_page(offset / PAGE + index);
            assert_eq!(page.is_some(), index < 3);
        }
        assert!(arena.live_page(u64::MAX).is_none());
        arena.free(offset)?;
        assert!(arena.live_page(offset / PAGE).is_none());
        registry.close(&arena);
        Ok(())
    }

    #[test]
    fn totals_of_a_closed_arena_are_kept() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        arena.alloc(&request(PAGE), |_, _, _| Ok(()))?;
        registry.close(&arena);
        let (arenas, sum) = registry.snapshot();
        let stat = sum.stat();
        assert_eq!(arenas, 0);
        assert_eq!((stat.allocs, stat.grows), (1, 1));
        assert_eq!((stat.live_blocks, stat.held_bytes), (0, 0));
        assert_eq!(stat.metadata_bytes, 0);
        Ok(())
    }

    #[test]
    fn totals_wrap_and_never_panic() -> Result {
        let registry = registry()?;
        let arenas = [
            registry.open(Memcg::of_caller())?,
            registry.open(Memcg::of_caller())?,
        ];
        let mut sum = Snapshot::default();
        for arena in &arenas {
            arena.seed_totals(u64::MAX - 2);
            for size in [64, 100, PAGE, 9 * PAGE] {
                for _ in 0..8 {
                    let mut at = 0;
                    arena.alloc(&request(size), |_, offset, _| {
                        at = offset;
                        Ok(())
                    })?;
                    arena.free(at)?;
                    assert_eq!(arena.free(at), Err(ENOENT));
                    arena.count_failure(ENOENT);
                }
            }
            arena.trim(0);
            arena.snapshot(&mut sum);
            sum.keep_totals(&sum.clone());
            assert_eq!(arena.check(), Ok(()));
        }
        assert_eq!(sum.stat().live_blocks, 0);
        for arena in &arenas {
            registry.close(arena);
        }
        Ok(())
    }
}
