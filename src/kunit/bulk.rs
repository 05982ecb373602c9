// SPDX-License-Identifier: GPL-2.0-only

//! Bulk calls.

use kernel::macros::kunit_tests;

#[kunit_tests(freelist_bulk)]
mod tests {
    use crate::{
        ffi::errno::edquot,
        kunit::{
            held_bytes,
            live_blocks,
            registry,
            registry_with,
            request,
            PAGE, //
        },
        mm::memcg::Memcg,
    };
    use kernel::{
        page::PAGE_SIZE,
        prelude::*, //
    };

    #[test]
    fn a_bulk_allocates_and_frees_in_batches() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        for size in [32, PAGE, 3 * PAGE] {
            let mut offsets: KVec<u64> = KVec::with_capacity(150, GFP_KERNEL)?;
            let done = arena.alloc_bulk(&request(size), 150, |batch| {
                assert!(batch.len() <= 64);
                // The blocks are not live before the caller has their offsets.
                assert_eq!(live_blocks(&arena), offsets.len() as u64);
                for offset in batch {
                    assert!(!offsets.contains(offset));
                    assert_eq!(arena.free(*offset), Err(ENOENT));
                    let _ = offsets.push(*offset, GFP_KERNEL);
                }
                batch.len()
            });
            assert_eq!(done, Ok(150));
            assert_eq!(offsets.len(), 150);
            assert_eq!(live_blocks(&arena), 150);
            assert_eq!(arena.check(), Ok(()));
            let mut rest = offsets.iter();
            let done = arena.free_bulk(150, |batch| {
                batch
                    .iter_mut()
                    .zip(&mut rest)
                    .map(|(to, from)| *to = *from)
                    .count()
            });
            assert_eq!(done, Ok(150));
            assert_eq!(live_blocks(&arena), 0);
            assert_eq!(arena.check(), Ok(()));
        }
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn blocks_whose_offsets_cannot_be_stored_are_cancelled() -> Result {
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        for size in [32, PAGE, 3 * PAGE] {
            let none = arena.alloc_bulk(&request(size), 100, |_| 0);
            assert_eq!(none, Err(EFAULT));
            assert_eq!(live_blocks(&arena), 0);
            let mut left = 70;
            let some = arena.alloc_bulk(&request(size), 200, |batch| {
                let stored = batch.len().min(left);
                left -= stored;
                stored
            });
            assert_eq!(some, Ok(70));
            assert_eq!(live_blocks(&arena), 70);
            assert_eq!(arena.check(), Ok(()));
            // Frees all blocks, at any offset.
            for granule in 0..100 * PAGE / 16 {
                let _ = arena.free(granule * 16);
            }
            let _ = (0..1000 * PAGE)
                .step_by(PAGE_SIZE)
                .map(|at| arena.free(at))
                .count();
            assert_eq!(live_blocks(&arena), 0);
        }
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn a_refused_bulk_returns_how_many_blocks_were_done() -> Result {
        let registry = registry_with(100 * PAGE, 100 * PAGE)?;
        let arena = registry.open(Memcg::of_caller())?;
        let all = |batch: &[u64]| batch.len();
        assert_eq!(arena.alloc_bulk(&request(PAGE), 150, all), Ok(100));
        assert_eq!(arena.alloc_bulk(&request(PAGE), 50, all), Err(edquot()));
        assert_eq!(live_blocks(&arena), 100);
        // Page 50 comes twice: the second free is refused.
        let mut pages = Iterator::chain(0..=50, 50..99);
        let mut load = |batch: &mut [u64]| {
            let pages = batch.iter_mut().zip(&mut pages);
            pages.map(|(to, page)| *to = page * PAGE).count()
        };
        assert_eq!(arena.free_bulk(100, &mut load), Ok(51));
        assert_eq!(live_blocks(&arena), 49);
        assert_eq!(
            arena.free_bulk(1, |batch| {
                batch.fill(50 * PAGE);
                1
            }),
            Err(ENOENT)
        );
        assert_eq!(arena.free_bulk(1, |_| 0), Err(EFAULT));
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn a_bulk_reuses_scattered_free_pages_up_to_the_limit() -> Result {
        let registry = registry_with(100 * PAGE, 100 * PAGE)?;
        let arena = registry.open(Memcg::of_caller())?;
        let mut offsets: KVec<u64> = KVec::with_capacity(50, GFP_KERNEL)?;
        let pairs = arena.alloc_bulk(&request(2 * PAGE), 60, |batch| {
            let _ = offsets.extend_from_slice(batch, GFP_KERNEL);
            batch.len()
        });
        assert_eq!(pairs, Ok(50));
        // Frees every second block: no run is longer than two pages, and the next blocks have three.
        let mut some = offsets.iter().step_by(2);
        let freed = arena.free_bulk(25, |batch| {
            let places = batch.iter_mut().zip(&mut some);
            places.map(|(to, from)| *to = *from).count()
        });
        assert_eq!(freed, Ok(25));
        let all = |batch: &[u64]| batch.len();
        assert_eq!(arena.alloc_bulk(&request(3 * PAGE), 20, all), Ok(16));
        assert_eq!(held_bytes(&arena), 100 * PAGE);
        assert_eq!(live_blocks(&arena), 25 + 16);
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }
}
