// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which caches a thread has: one for each heap that it used last, in memory from
//! the system, which a forked child finds empty.
//!
//! The one that it used last is at hand, so that the usual way is a comparison.
//! Nothing here allocates from the program's allocator while a list is in use:
//! that may be a heap.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::{OnceLock, Weak};

use super::cache::Owned;
use super::{Cache, Shared};
use crate::sys::{Anonymous, Fork, ThreadEnd};

/// Heaps that a thread has a cache for, at most. The next takes the place of another, which gets back what
/// was kept of it.
const MOST_HEAPS: usize = 16;

/// The cache at hand.
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

/// A cache of this thread.
struct Node {
    heap: u64,
    weak: Weak<Shared>,
    cache: Anonymous<Cache>,
}

/// The caches of a thread, and which of them is the next that gives up its place.
struct Nodes {
    places: [Option<Node>; MOST_HEAPS],
    next: usize,
}

/// `None` when the thread ends.
type OfThread = ManuallyDrop<RefCell<Option<Nodes>>>;

thread_local! {
    // Neither has a destructor.
    static HOT: Cell<Hot> = const { Cell::new(Hot::NONE) };
    static NODES: OfThread = const {
        ManuallyDrop::new(RefCell::new(Some(Nodes {
            places: [const { None }; MOST_HEAPS],
            next: 0,
        })))
    };
}

/// Calls [`end`] in every thread that has a cache; `None` if the system has no
/// more such keys. The destructors of `thread_local!` would not do: to register
/// one may take memory, of the allocator that registers it.
static THREAD_END: OnceLock<Option<ThreadEnd>> = OnceLock::new();

/// Does `work` with this thread's cache of the heap, if it is the one at hand.
/// `work` uses no other function of this module.
#[inline]
pub(super) fn with<R>(heap: u64, work: impl FnOnce(&Cache) -> R) -> Option<R> {
    let hot = HOT.get();
    if hot.heap != heap {
        return None;
    }
    // SAFETY: No heap has the number 0, so by the invariant this is the cache of
    // a node of this thread. Nodes leave the list in `attach()` and in `end()`, neither of which `work` comes to.
    Some(work(unsafe { &*hot.cache }))
}

/// Does `work` on the slow path of this thread's cache of the heap, which is made if there is
/// none. `None` if it cannot have one: the thread ends, memory is short, or it is on that path already.
pub(super) fn attached<R>(heap: &Shared, work: impl FnOnce(&Owned<'_>) -> R) -> Option<R> {
    attach(heap)?;
    with(heap.id, |cache| {
        heap.small.caches.enter(cache).map(|owned| work(&owned))
    })?
}

/// Has this thread's cache of the heap at hand.
fn attach(heap: &Shared) -> Option<()> {
    if HOT.get().heap == heap.id {
        return Some(());
    }
    // What is dropped or emptied is so behind the borrow: it may free memory.
    let mut ended = [const { None }; MOST_HEAPS];
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
                *next = (*next + 1) % MOST_HEAPS;
                *next
            }
        };
        evicted = places[place].take();
        let node = places[place].insert(Node {
            heap: heap.id,
            weak: heap.weak.clone(),
            cache,
        });
        // SAFETY: It is new. Its memory stays where it is until the node is dropped: by `give_back()`, which
        // removes it before, or when the heap is gone.
        unsafe { heap.small.caches.add(&node.cache[0]) };
        node.is_hot();
        Some(())
    });
    if let Some(node) = evicted {
        node.give_back();
    }
    attached
}

impl Node {
    fn is_hot(&self) {
        // INVARIANT: This is a node of the list, and whoever takes it out changes
        // `HOT` before.
        HOT.set(Hot {
            heap: self.heap,
            cache: self.cache.as_ptr(),
        });
    }

    /// Returns the blocks that it keeps to their heap.
    fn give_back(self) {
        // In a forked child it is empty, and the list's lock may be held for ever.
        let heap = self.weak.upgrade();
        if let Some(heap) = heap.filter(|heap| heap.must_be_here().is_ok()) {
            let cache = &self.cache[0];
            // No thread drains it afterwards.
            heap.small.caches.remove(cache);
            if let Some(owned) = heap.small.caches.enter(cache) {
                heap.unless_misused(heap.small.empty(&*heap, &owned));
            }
        }
    }
}

/// The thread ends: what it keeps goes back, and what others of its destructors
/// free later is not kept.
extern "C" fn end(_: *mut c_void) {
    HOT.set(Hot::NONE);
    // Taken first: what is done with them may free memory.
    let nodes = NODES.with(|nodes| nodes.try_borrow_mut().ok()?.take());
    for node in nodes.into_iter().flat_map(|nodes| nodes.places).flatten() {
        node.give_back();
    }
}
