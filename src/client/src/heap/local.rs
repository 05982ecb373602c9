// SPDX-License-Identifier: GPL-2.0

//! Which caches a thread has: one for each heap that it used, in memory from the
//! system, which a forked child finds empty.
//!
//! The one that it used last is at hand, so that the usual way is a comparison.
//! Nothing here allocates from the program's allocator while a list is in use:
//! that may be a heap.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::{OnceLock, Weak};

use super::{Cache, Shared};
use crate::sys::{Anonymous, Fork, ThreadEnd};

/// Heaps that a thread has a cache for, at most. It uses others without.
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

/// The caches of a thread; `None` when it ends.
type Nodes = ManuallyDrop<RefCell<Option<[Option<Node>; MOST_HEAPS]>>>;

thread_local! {
    // Neither has a destructor.
    static HOT: Cell<Hot> = const { Cell::new(Hot::NONE) };
    static NODES: Nodes =
        const { ManuallyDrop::new(RefCell::new(Some([const { None }; MOST_HEAPS]))) };
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

/// Does `work` with this thread's cache of the heap, which is made if there is
/// none. `None` if it cannot have one: the thread ends, or has too many.
pub(super) fn attached<R>(heap: &Shared, work: impl FnOnce(&Cache) -> R) -> Option<R> {
    attach(heap)?;
    with(heap.id, work)
}

/// Has this thread's cache of the heap at hand.
fn attach(heap: &Shared) -> Option<()> {
    if HOT.get().heap == heap.id {
        return Some(());
    }
    // What is dropped is dropped behind the borrow: it may free memory.
    let mut ended = [const { None }; MOST_HEAPS];
    NODES.with(|nodes| {
        let mut nodes = nodes.try_borrow_mut().ok()?;
        let nodes = nodes.as_mut()?;
        let known = nodes.iter().flatten().find(|node| node.heap == heap.id);
        if let Some(node) = known {
            node.is_hot();
            return Some(());
        }
        HOT.set(Hot::NONE);
        for (node, ended) in nodes.iter_mut().zip(&mut ended) {
            *ended = node.take_if(|node| node.weak.strong_count() == 0);
        }
        let place = nodes.iter_mut().find(|place| place.is_none())?;
        let thread_end = THREAD_END.get_or_init(|| ThreadEnd::new(end).ok());
        thread_end.as_ref()?.watch().ok()?;
        let cache = Anonymous::<Cache>::new(1, Fork::Wipe).ok()?;
        cache[0].open();
        place
            .insert(Node {
                heap: heap.id,
                weak: heap.weak.clone(),
                cache,
            })
            .is_hot();
        Some(())
    })
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
}

/// The thread ends: what it keeps goes back, and what others of its destructors
/// free later is not kept.
extern "C" fn end(_: *mut c_void) {
    HOT.set(Hot::NONE);
    // Taken first: what is done with them may free memory.
    let nodes = NODES.with(|nodes| nodes.try_borrow_mut().ok()?.take());
    for node in nodes.into_iter().flatten().flatten() {
        if let Some(heap) = node.weak.upgrade() {
            heap.empty(&node.cache[0]);
        }
    }
}
