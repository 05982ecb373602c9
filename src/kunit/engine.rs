// SPDX-License-Identifier: GPL-2.0-only

//! The engine with the kernel's pages and metadata, in random order of calls.

use kernel::macros::kunit_tests;

#[kunit_tests(freelist_engine)]
mod tests {
    use crate::{
        arena::Arena,
        engine::{
            FreeError,
            Policy,
            ALIGN_SHIFT, //
        },
        kunit::{
            registry,
            request, //
        },
        mm::memcg::Memcg, //
    };
    use kernel::prelude::*;

    /// Pseudo-random numbers from a fixed seed (xorshift64, Marsaglia, 2003).
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % end
        }
    }

    /// Returns a size of up to 1 MiB, in bytes. Small sizes are frequent.
    fn size(random: &mut Random) -> u64 {
        let shift = random.below(21);
        1 + random.below(1 << shift)
    }

    fn alloc(arena: &Arena, size: u64) -> Result<(u64, u64)> {
        let mut block = (0, 0);
        arena.alloc(&request(size), |_, offset, bytes| {
            block = (offset, bytes);
            Ok(())
        })?;
        Ok(block)
    }

    #[test]
    fn random_blocks_never_overlap_and_all_is_conserved() -> Result {
        const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        let mut random = Random(SEED);
        let mut live: KVec<(u64, u64)> = KVec::new();
        for step in 0..1500 {
            if live.len() < 200 && random.below(5) < 3 {
                let size = size(&mut random);
                let (offset, bytes) = alloc(&arena, size)?;
                assert!(bytes >= size);
                let align = bytes.next_power_of_two().min(1 << ALIGN_SHIFT);
                assert_eq!(offset % align, 0);
                assert!(!live
                    .iter()
                    .any(|(at, len)| offset < at + len && *at < offset + bytes));
                live.push((offset, bytes), GFP_KERNEL)?;
            } else if !live.is_empty() {
                let index = random.below(live.len() as u64) as usize;
                let (offset, bytes) = live[index];
                let last = live.pop().unwrap_or_default();
                if let Some(place) = live.get_mut(index) {
                    *place = last;
                }
                assert_eq!(arena.free(offset + bytes - 1), Err(EINVAL));
                assert_eq!(arena.free(offset), Ok(()));
                assert_eq!(arena.free(offset), Err(FreeError::NotLive.into()));
            }
            if step % 10 == 0 {
                assert_eq!(arena.check(), Ok(()));
            }
        }
        for (offset, _) in &live {
            arena.free(*offset)?;
        }
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }

    #[test]
    fn pages_of_small_blocks_serve_a_large_one_when_all_is_free() -> Result {
        const FILL: u64 = 1 << 20;
        let registry = registry()?;
        let arena = registry.open(Memcg::of_caller())?;
        let mut blocks: KVVec<u64> = KVVec::new();
        for _ in 0..FILL / 64 {
            blocks.push(alloc(&arena, 64)?.0, GFP_KERNEL)?;
        }
        for offset in &blocks {
            arena.free(*offset)?;
        }
        let mut options = request(FILL);
        options.request.policy = Policy::Reuse {
            split: true,
            grow: false,
        };
        assert_eq!(arena.alloc(&options, |_, _, _| Ok(())), Ok(()));
        assert_eq!(arena.check(), Ok(()));
        registry.close(&arena);
        assert!(registry.limit().is_unused());
        Ok(())
    }
}
