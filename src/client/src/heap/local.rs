// SPDX-License-Identifier: MIT OR Apache-2.0

//! A thread's caches, one for each of the heaps that it used last. They lie in memory from the system, which is
//! wiped in a forked child.
//!
//! The cache of the heap that the thread used last is the hot one, so that the fast path is one comparison.
//! Nothing here allocates from the program's allocator while a list is borrowed: that may be a heap.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::{OnceLock, Weak};

use super::cache::Owned;
use super::{Cache, Shared};
use crate::sys::{Anonymous, Fork, ThreadEnd};

/// The most heaps that a thread has a cache for. One for a further heap replaces another, whose blocks return to
/// their heap.
const MAX_HEAPS: usize = 16;

/// The cache of the heap that the thread used last.
///
/// # Invariants
///
/// If `heap` is not 0, `cache` is that of a [`Node`] in this thread's list.
#[derive(Clone, Copy)]
struct Hot {
    heap: u64,
    cache: *const Cache,
}

impl Hot {
    const NONE: Self = Self {
        heap: 0,
        cache: ptr::null(),
    };
}

/// A cache of this thread, with its heap.
struct Node {
    heap: u64,
    weak: Weak<Shared>,
    cache: Anonymous<Cache>,
}

/// The caches of a thread, and the next of them to be replaced.
struct Nodes {
    places: [Option<Node>; MAX_HEAPS],
    next: usize,
}

/// A thread's caches; `None` once the thread ends.
type OfThread = ManuallyDrop<RefCell<Option<Nodes>>>;

thread_local! {
    // Neither has a destructor.
    static HOT: Cell<Hot> = const { Cell::new(Hot::NONE) };
    static NODES: OfThread = const {
        ManuallyDrop::new(RefCell::new(Some(Nodes {
            places: [const { None }; MAX_HEAPS],
            next: 0,
        })))
    };
}

/// Calls [`end`] in every thread that has a cache; `None` if the system has no key left. The destructors of
/// `thread_local!` will not do: registering one may allocate from the allocator that registers it.
static THREAD_END: OnceLock<Option<ThreadEnd>> = OnceLock::new();

/// Calls `work` with this thread's cache of the heap, if it is the hot one. `work` calls no other function of
/// this module.
#[inline]
pub(super) fn with<R>(heap: u64, work: impl FnOnce(&Cache) -> R) -> Option<R> {
    let hot = HOT.get();
    if hot.heap != heap {
        return None;
    }
    // SAFETY: No heap has the number 0, so by the invariant this is the cache of
    // a node of this thread. Nodes leave the list in `attach()` and `end()`, which `work` does not call.
    Some(work(unsafe { &*hot.cache }))
}

/// Calls `work` on the slow path of this thread's cache of the heap, which is made if there is none. Returns
/// `None` if the thread ends, memory is short, or the thread is on that path already.
pub(super) fn attached<R>(heap: &Shared, work: impl FnOnce(&Owned<'_>) -> R) -> Option<R> {
    if HOT.get().heap != heap.id {
        attach(heap)?;
    }
    with(heap.id, |cache| {
        heap.small.caches.enter(cache).map(|owned| work(&owned))
    })?
}

/// Makes the heap's cache the one that this thread reaches by the fast path, in place of another heap's.
#[cold]
#[inline(never)]
fn attach(heap: &Shared) -> Option<()> {
    // Dropped after the borrow of the list ends, as a drop may free memory.
    let mut ended = [const { None }; MAX_HEAPS];
    let mut evicted = None;
    let attached = NODES.with(|nodes| {
        let mut nodes = nodes.try_borrow_mut().ok()?;
        let Nodes { places, next } = nodes.as_mut()?;
        let known = places.iter().flatten().find(|node| node.heap == heap.id);
        if let Some(node) = known {
            node.is_hot();
            return Some(());
        }
        HOT.set(Hot::NONE);
        let thread_end = THREAD_END.get_or_init(|| ThreadEnd::new(end).ok());
        thread_end.as_ref()?.watch().ok()?;
        let cache = Anonymous::<Cache>::new(1, Fork::Wipe).ok()?;
        if heap.quarantine.is_none() {
            cache[0].open();
        }
        for (place, ended) in places.iter_mut().zip(&mut ended) {
            *ended = place.take_if(|node| node.weak.strong_count() == 0);
        }
        let place = match places.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                *next = (*next + 1) % MAX_HEAPS;
                *next
            }
        };
        evicted = places[place].take();
        let node = places[place].insert(Node {
            heap: heap.id,
            weak: heap.weak.clone(),
            cache,
        });
        // SAFETY: It is new. Its memory stays in place until the node is dropped: by `return_blocks()`, which
        // removes it from the registry before, or when the heap is gone.
        unsafe { heap.small.caches.add(&node.cache[0]) };
        node.is_hot();
        Some(())
    });
    if let Some(node) = evicted {
        node.return_blocks();
    }
    attached
}

impl Node {
    fn is_hot(&self) {
        // INVARIANT: This is a node of the list. A node is removed from `HOT` before it is removed from the list.
        HOT.set(Hot {
            heap: self.heap,
            cache: self.cache.as_ptr(),
        });
    }

    /// Returns the blocks in the cache to their heap.
    fn return_blocks(self) {
        // A forked child's cache is empty, and the list's lock may be held for ever.
        let heap = self.weak.upgrade();
        if let Some(heap) = heap.filter(|heap| heap.must_be_here().is_ok()) {
            let cache = &self.cache[0];
            // From here on no other thread drains it.
            heap.small.caches.remove(cache);
            if let Some(owned) = heap.small.caches.enter(cache) {
                heap.unless_misused(heap.small.empty(&*heap, &owned));
            }
        }
    }
}

/// Returns the blocks of a thread that ends to their heaps. Blocks that its other destructors free later are
/// not cached.
extern "C" fn end(_: *mut c_void) {
    HOT.set(Hot::NONE);
    // Taken out before: what follows may free memory.
    let nodes = NODES.with(|nodes| nodes.try_borrow_mut().ok()?.take());
    for node in nodes.into_iter().flat_map(|nodes| nodes.places).flatten() {
        node.return_blocks();
    }
}
