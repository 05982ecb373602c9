// SPDX-License-Identifier: GPL-2.0

//! The map of an arena: it has each page once, and adds up with the counters.

use freelist_engine::engine::{Content, Extent};
use freelist_engine::host::{request, Arena};
use proptest::prelude::*;

/// Returns the map, which has no gaps and no overlaps and adds up.
fn map<const KIB: usize>(arena: &Arena<KIB>) -> Vec<Extent> {
    let map = arena.map();
    let mut end = 0;
    for extent in &map {
        assert_eq!(extent.page, end, "{extent:?}");
        assert_ne!(extent.pages, 0, "{extent:?}");
        end += extent.pages;
        let with_memory = arena.backed.range(extent.page..end);
        let expected = match extent.content {
            Content::Live | Content::Free | Content::Subpage => extent.pages as usize,
            Content::Unbacked => 0,
            Content::Pending => continue,
        };
        assert_eq!(with_memory.count(), expected, "{extent:?}");
    }
    let last = arena
        .backed
        .last_key_value()
        .map_or(0, |(page, _)| page + 1);
    assert!(
        last <= end,
        "memory at page {last} is on the map up to {end}"
    );
    let counters = arena.counters();
    let sum = |bytes: fn(&Extent) -> u64| map.iter().map(bytes).sum::<u64>();
    assert_eq!(sum(|extent| extent.live_bytes), counters.live_bytes);
    assert_eq!(sum(|extent| extent.free_bytes), counters.free_bytes);
    map
}

/// The content of each extent, and the page at which it begins.
fn contents<const KIB: usize>(arena: &Arena<KIB>) -> Vec<(Content, u32, u8)> {
    let extents = map(arena).into_iter();
    extents
        .map(|extent| (extent.content, extent.pages, extent.shift))
        .collect()
}

#[test]
fn the_bytes_of_a_live_block_are_returned_for_its_first_byte() {
    let mut arena = Arena::<4>::new(64);
    // A block before them, so that not all begin at a page.
    arena.alloc(request(2048)).unwrap();
    for size in [1, 33, 100, 1000, 2048, 4096, 3 * 4096] {
        let (offset, bytes) = arena.alloc(request(size)).unwrap();
        assert_eq!(arena.engine.live_bytes(offset), bytes, "{size} bytes");
        assert_eq!(arena.engine.live_bytes(offset + 16), 0, "{size} bytes");
        assert_eq!(arena.engine.live_bytes(offset + bytes / 2), 0);
        arena.free(offset).unwrap();
        assert_eq!(arena.engine.live_bytes(offset), 0, "{size} bytes");
    }
}

#[test]
fn each_content_differs_from_the_others() {
    let mut arena = Arena::<4>::new(16);
    assert_eq!(contents(&arena), []);
    let (odd, _) = arena.alloc(request(3 * 4096)).unwrap();
    let (small, _) = arena.alloc(request(64)).unwrap();
    let pending = arena.reserve(request(4096)).unwrap();
    assert_eq!(
        contents(&arena),
        [
            (Content::Live, 3, 14),
            (Content::Subpage, 1, 11),
            (Content::Pending, 1, 12)
        ]
    );
    arena.cancel(pending);
    let (last, _) = arena.alloc(request(4096)).unwrap();
    // On its quick list it is free.
    arena.free(odd).unwrap();
    assert_eq!(contents(&arena)[0], (Content::Free, 3, 14));
    arena.free(small).unwrap();
    let divided = map(&arena)[1];
    assert_eq!(
        (divided.content, divided.free_bytes),
        (Content::Subpage, 4096)
    );
    arena.drain();
    let live = (Content::Live, 1, 12);
    assert_eq!(contents(&arena), [(Content::Free, 4, 14), live]);
    arena.trim(0);
    assert_eq!(contents(&arena), [(Content::Unbacked, 4, 14), live]);
    // The unused end of the arena is not in the map.
    arena.free(last).unwrap();
    arena.trim(0);
    assert_eq!(contents(&arena), []);
}

fn random<const KIB: usize>(steps: &[(bool, u16, u16)]) {
    let mut arena = Arena::<KIB>::new(4096);
    // `map()` checks the arena instead.
    arena.checked = false;
    let mut live = Vec::new();
    for (alloc, size, which) in steps {
        // Every magnitude up to 64 KiB has the same probability.
        let size = 1 + u64::from(*size >> (which % 16));
        if *alloc || live.is_empty() {
            if let Ok((offset, _)) = arena.alloc(request(size)) {
                live.push(offset);
            }
        } else {
            let offset = live.swap_remove(usize::from(*which) % live.len());
            arena.free(offset).unwrap();
        }
        map(&arena);
    }
}

proptest! {
    #[test]
    fn the_map_adds_up_at_every_step(
        steps in prop::collection::vec(any::<(bool, u16, u16)>(), 1..300),
    ) {
        random::<4>(&steps);
        random::<16>(&steps);
        random::<64>(&steps);
    }
}
