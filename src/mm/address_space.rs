// SPDX-License-Identifier: GPL-2.0-only

//! The memory of an arena: the page cache of an inode of its own, in a file system that nobody sees.
//!
//! The core of the kernel maps it, into whatever process, in pieces as large as it can; it pins,
//! moves, accounts and splits what is there. Folios come by [`AddressSpace::add`], dirty, so that the
//! core never drops one by itself, and leave in one of two ways:
//!
//! - [`AddressSpace::remove`] takes exactly a range away. It waits for folios that are locked, and
//!   splits those that reach beyond the range.
//! - [`AddressSpace::reclaim`] takes whole folios of a range away, as far as that is done without
//!   waiting: the thread that holds a folio's lock may itself be waiting for memory.
//!
//! Both unmap first. What stays is said by [`AddressSpace::first_in`]; nothing comes to a range meanwhile,
//! as only the owner of a range adds folios to it.

use crate::{
    engine::MAX_PAGES,
    ffi::{
        operations::Table,
        race_point::RacePoint,
        raw,
        task, //
    },
    mm::{
        folio::{
            Folio,
            LockedFolio, //
        },
        statistics::Node, //
    },
};
use core::{
    marker::PhantomData,
    ops::Range,
    ptr::{
        null_mut,
        NonNull, //
    }, //
};
use kernel::{
    bindings,
    error::to_result,
    ffi::c_int,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// The order of what one entry of a page middle directory maps: a huge page.
pub(crate) fn huge_page_order() -> u32 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_huge_page_order() }
}

/// What may be done for a single page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urge {
    /// Other memory is reclaimed, but nobody is killed.
    Reclaim,
    /// The OOM killer may run, as for anonymous memory.
    Kill,
}

/// How often a range is taken away again of which something stayed: a split may have failed for want
/// of memory, or because another thread looked at the folio.
const TRIES: u32 = 3;

/// The file system that the inodes of arenas are in, mounted where nobody sees it until this is
/// dropped.
pub(crate) struct FileSystem(());

impl FileSystem {
    /// Mounts it. `ENOMEM` when memory is short.
    ///
    /// # Safety
    ///
    /// It is not mounted. Every [`AddressSpace`] is made after this and dropped before what it returns.
    pub(crate) unsafe fn mount() -> Result<Self> {
        // SAFETY: By the caller's promise. May be called where sleeping is allowed.
        to_result(unsafe { raw::freelist_fs_mount() })?;
        Ok(Self(()))
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // SAFETY: It is mounted; by the promise that was given no inode of it is left.
        unsafe { raw::freelist_fs_unmount() };
    }
}

/// The memory of one arena, by page numbers.
///
/// # Invariants
///
/// `inode` is one that was made for this object and is put when it is dropped.
pub(crate) struct AddressSpace {
    inode: NonNull<raw::inode>,
    /// Folios of the size of a huge page.
    huge: Atomic<u64>,
    /// Pages on each node, about: the kernel moves some. Empty where there is one node alone.
    on_node: KVec<Atomic<i64>>,
}

// SAFETY: An inode belongs to no thread.
unsafe impl Send for AddressSpace {}
// SAFETY: What is done through a shared `AddressSpace` is done under the locks of the page cache.
unsafe impl Sync for AddressSpace {}

/// What has its memory in an address space.
pub(crate) trait Owner: Sync {
    /// A folio that has these pages has turned out to be bad, and leaves. Called with its lock held.
    fn lose(&self, pages: Range<u32>);
}

/// The functions of the address space of a `T`.
struct Operations<T>(PhantomData<fn(&T)>);

impl<T: Owner> Operations<T> {
    const TABLE: &'static Table<bindings::address_space_operations> =
        &Table(bindings::address_space_operations {
            dirty_folio: Some(bindings::noop_dirty_folio),
            migrate_folio: Some(bindings::filemap_migrate_folio),
            error_remove_folio: Some(error_remove_folio::<T>),
            ..pin_init::zeroed()
        });
}

/// A folio is bad (memory failure): its owner hears of it, and it leaves.
///
/// # Safety
///
/// Called by the kernel, for a locked folio of an address space that [`AddressSpace::new`] has made for
/// a `T`.
unsafe extern "C" fn error_remove_folio<T: Owner>(
    mapping: *mut bindings::address_space,
    folio: *mut bindings::folio,
) -> c_int {
    // SAFETY: The folio is in the address space as long as it is locked, so its inode is there.
    let owner = unsafe { (*(*mapping).host).i_private }.cast::<T>();
    // SAFETY: Null, or as `AddressSpace::set_owner` has it: there until `AddressSpace::remove_all` has
    // waited for the folio's lock.
    if let Some(owner) = unsafe { owner.as_ref() } {
        // SAFETY: The folio is there.
        let (first, order) = unsafe {
            (
                raw::freelist_folio_index(folio.cast()) as u32,
                raw::freelist_folio_order(folio.cast()),
            )
        };
        owner.lose(first..first.saturating_add(1 << order));
        // What stands for it in page tables would be found there when the page has memory again.
        // SAFETY: The address space is there.
        unsafe { bindings::unmap_mapping_pages(mapping, first as usize, 1 << order, true) };
    }
    // SAFETY: The arguments are those of the caller.
    unsafe { bindings::generic_error_remove_folio(mapping, folio) }
}

impl AddressSpace {
    /// An empty one, which is mapped nowhere, for a `T`. `ENOMEM` when memory is short.
    pub(crate) fn new<T: Owner>() -> Result<Self> {
        let operations = &raw const Operations::<T>::TABLE.0;
        // SAFETY: May be called where sleeping is allowed. The table is there as long as the module,
        // which the file system keeps.
        let inode = unsafe { raw::freelist_address_space_new(operations.cast(), MAX_PAGES.into()) };
        // INVARIANT: It was just made.
        let mut this = Self {
            inode: NonNull::new(inode).ok_or(ENOMEM)?,
            huge: Atomic::new(0),
            on_node: KVec::new(),
        };
        let nodes = Node::count();
        for _ in (0..nodes).filter(|_| nodes > 1) {
            this.on_node.push(Atomic::new(0), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(this)
    }

    /// From now on `owner` hears of what happens to its memory.
    ///
    /// # Safety
    ///
    /// It is of the type that the address space was made for, and is there until
    /// [`AddressSpace::remove_all`] has returned. Nothing is in the address space yet.
    pub(crate) unsafe fn set_owner<T: Owner>(&self, owner: *const T) {
        let inode = self.as_ptr().cast::<bindings::inode>();
        // SAFETY: By the invariant the inode is there. It is read with a folio of it locked, and there
        // is none yet.
        unsafe { (*inode).i_private = owner.cast_mut().cast() };
    }

    /// Makes all mappings of a file mappings of this address space.
    ///
    /// # Safety
    ///
    /// `file` is being opened: nobody else sees it. The address space outlives it.
    pub(crate) unsafe fn attach(&self, file: *mut bindings::file) {
        // SAFETY: By the invariant and by the caller's promise both are there.
        unsafe { raw::freelist_address_space_attach(self.as_ptr(), file.cast()) };
    }

    pub(crate) fn as_ptr(&self) -> *mut raw::inode {
        self.inode.as_ptr()
    }

    /// The largest order of a folio: that of a huge page as a rule, 0 on a kernel without large folios.
    pub(crate) fn max_order(&self) -> u32 {
        // SAFETY: By the invariant the inode is there.
        unsafe { raw::freelist_folio_max_order(self.as_ptr()) }
    }

    /// Bytes in folios of the size of a huge page.
    pub(crate) fn huge_bytes(&self) -> u64 {
        self.huge.load(Relaxed) << (huge_page_order() + PAGE_SHIFT as u32)
    }

    /// Adds a folio of zeros, charged to the caller's memory cgroup, at page number `page`, which is a
    /// multiple of `1 << order`. May sleep.
    ///
    /// `ENOMEM` when there is none, or it cannot be charged: beyond a single page little is reclaimed
    /// for it, and no OOM killer is called for any. `EEXIST` when something is there.
    pub(crate) fn add(&self, page: u32, order: u32) -> Result {
        self.add_locked(page, order, Urge::Reclaim).map(drop)
    }

    /// Adds a folio as [`AddressSpace::add`] does, and returns it locked: nobody maps it before it is
    /// unlocked. With [`Urge::Kill`] a single page is worth the OOM killer. May sleep.
    pub(crate) fn add_locked(&self, page: u32, order: u32, urge: Urge) -> Result<LockedFolio> {
        let mut added = null_mut();
        let urge = match urge {
            Urge::Reclaim => raw::freelist_urge_FREELIST_URGE_RECLAIM,
            Urge::Kill => raw::freelist_urge_FREELIST_URGE_KILL,
        };
        // SAFETY: By the invariant the inode is there; called where sleeping is allowed.
        let errno =
            unsafe { raw::freelist_folio_add(self.as_ptr(), page.into(), order, urge, &mut added) };
        to_result(errno)?;
        // SAFETY: It was just added: its reference and its lock are the new object's.
        let folio = unsafe { LockedFolio::from_raw(added) }.ok_or(ENOMEM)?;
        self.count_added(folio.node(), order);
        Ok(folio)
    }

    /// Counts a folio that came.
    pub(super) fn count_added(&self, node: Node, order: u32) {
        self.count_on(node, 1 << order);
        if order >= huge_page_order() {
            self.huge.fetch_add(1, Relaxed);
        }
    }

    /// The folio that has page number `page`.
    pub(crate) fn folio(&self, page: u32) -> Option<Folio> {
        // SAFETY: By the invariant the inode is there. The reference is the new object's.
        unsafe { Folio::from_raw(raw::freelist_folio_get(self.as_ptr(), page.into())) }
    }

    /// The same, locked. May sleep.
    pub(crate) fn lock_folio(&self, page: u64) -> Option<LockedFolio> {
        // SAFETY: By the invariant the inode is there. Reference and lock are the new object's.
        unsafe { LockedFolio::from_raw(raw::freelist_folio_lock(self.as_ptr(), page)) }
    }

    /// The first folio that has some of the range.
    pub(crate) fn first_in(&self, range: Range<u32>) -> Option<Folio> {
        let Range { start, end } = range;
        // SAFETY: By the invariant the inode is there. The reference is the new object's.
        unsafe {
            Folio::from_raw(raw::freelist_folio_get_first(
                self.as_ptr(),
                start.into(),
                end.into(),
            ))
        }
    }

    /// Whether some of the range, which is not empty, has memory.
    fn has_any(&self, range: &Range<u32>) -> bool {
        let (first, pages) = (range.start.into(), range.len() as u64);
        // SAFETY: By the invariant the inode is there.
        unsafe { raw::freelist_pages_any(self.as_ptr(), first, pages) }
    }

    /// Removes the mappings of a range. May sleep.
    fn unmap(&self, range: &Range<u32>) {
        // SAFETY: By the invariant the inode is there.
        unsafe { raw::freelist_pages_unmap(self.as_ptr(), range.start.into(), range.len() as u64) };
    }

    /// Takes folios away, of which both ends lie in the range or can be split off there. May sleep.
    fn truncate(&self, range: &Range<u32>) {
        if !range.is_empty() {
            // SAFETY: By the invariant the inode is there.
            unsafe {
                raw::freelist_pages_truncate(self.as_ptr(), range.start.into(), range.len() as u64)
            };
        }
    }

    /// Takes the memory of a range away, and nothing beyond it. Returns whether some stayed: a folio
    /// that reaches beyond the range and cannot be split, because it is pinned or memory is short. A
    /// pinned folio that lies in the range goes: it lives on for the pin alone. May sleep.
    pub(crate) fn remove(&self, range: Range<u32>) -> bool {
        if range.is_empty() || self.remove_one(&range) {
            return false;
        }
        let huge = self.count_huge(&range);
        self.count_nodes(&range, -1);
        // All at once: truncation unmaps what is still mapped folio by folio.
        self.unmap(&range);
        RacePoint::Leave.reach();
        let mut stays = true;
        for _ in 0..TRIES {
            let inner = self.remove_edges(&range);
            self.truncate(&inner);
            stays = self.has_any(&range);
            if !stays {
                break;
            }
        }
        if stays {
            self.count_nodes(&range, 1);
        }
        self.huge
            .fetch_sub(huge - self.count_huge(&range).min(huge), Relaxed);
        stays
    }

    /// Takes the folio away that has exactly the pages of a range. Returns whether there is one. May
    /// sleep.
    fn remove_one(&self, range: &Range<u32>) -> bool {
        let folio = self.folio(range.start);
        if folio.is_none_or(|folio| folio.range() != *range) {
            return false;
        }
        let Some(folio) = self.lock_folio(range.start.into()) else {
            return false;
        };
        // It may have been split meanwhile.
        if folio.range() != *range {
            return false;
        }
        RacePoint::Leave.reach();
        self.remove_locked(&folio)
    }

    /// Takes all memory away. May sleep.
    pub(crate) fn remove_all(&self) {
        self.truncate(&(0..MAX_PAGES));
        self.huge.store(0, Relaxed);
    }

    /// Takes the first and the last page of a range away, each alone, where their folios reach beyond
    /// it: then they are split there. Returns what of the range is left of folios that reach beyond it
    /// still. (To truncate the range at once would drop pages beyond it where a split fails.)
    fn remove_edges(&self, range: &Range<u32>) -> Range<u32> {
        let mut inner = range.clone();
        if let Some(stuck) = self.remove_edge(range.start, range) {
            inner.start = stuck.end.min(range.end);
        }
        if let Some(stuck) = self.remove_edge(range.end - 1, &inner) {
            inner.end = stuck.start.max(inner.start);
        }
        inner
    }

    /// Takes page number `page` away if its folio reaches beyond the range. Returns the pages of the
    /// folio if that failed.
    fn remove_edge(&self, page: u32, range: &Range<u32>) -> Option<Range<u32>> {
        let of = self.folio(page)?.range();
        if !range.is_empty() && range.start <= of.start && of.end <= range.end {
            return None;
        }
        if range.contains(&page) {
            self.truncate(&(page..page + 1));
        }
        Some(self.folio(page)?.range())
    }

    /// Takes whole folios of a range away that lie on a node and are neither locked nor pinned, without
    /// waiting for any. Returns whether some stayed. May sleep, but under reclaim too.
    pub(crate) fn reclaim(&self, range: Range<u32>, node: Node) -> bool {
        // All at once is cheaper; a fault may map one again until it is locked.
        self.unmap(&range);
        let mut stays = false;
        let mut next = range.start;
        while let Some(folio) = self.first_in(next..range.end) {
            let of = folio.range();
            next = of.end.max(next + 1);
            let inside = range.start <= of.start && of.end <= range.end;
            let here = self.on_node.is_empty() || folio.node() == node;
            let gone = inside
                && here
                && folio
                    .try_lock()
                    .is_some_and(|folio| self.try_remove(&folio));
            stays |= !gone;
        }
        stays
    }

    /// Takes the memory of a range of a live block away, which nobody else adds to or takes from. What
    /// is pinned for I/O, or part of a folio that reaches beyond the range and could not be split,
    /// stays and is zeroed. Returns whether some stayed. May sleep.
    pub(crate) fn discard(&self, range: Range<u32>) -> bool {
        self.unmap(&range);
        let mut next = range.start;
        let mut stays = false;
        while let Some(folio) = self.first_in(next..range.end) {
            let of = folio.range();
            let part = of.start.max(next)..of.end.min(range.end);
            drop(folio);
            let Some(gone) = self.discard_part(&of, &part) else {
                // It was split meanwhile: another look at its parts.
                continue;
            };
            next = part.end.max(next + 1);
            if !gone {
                self.zero(&part, 0..PAGE_SIZE, || true);
                stays = true;
            }
        }
        stays
    }

    /// Takes the pages `part` away, of a folio that had the pages `of`. Returns whether they are gone;
    /// `None` where the folio has other pages by now.
    fn discard_part(&self, of: &Range<u32>, part: &Range<u32>) -> Option<bool> {
        let folio = self.lock_folio(part.start.into())?;
        if folio.range() != *of {
            return None;
        }
        if folio.is_mapped() {
            self.unmap(of);
        }
        if folio.is_dma_pinned() {
            return Some(false);
        }
        if of == part {
            return Some(self.remove_locked(&folio));
        }
        // It is split, which takes its lock.
        drop(folio);
        Some(!self.remove(part.clone()))
    }

    /// Zeroes the bytes `within` of each page of a range that has memory, as long as it may `go_on`.
    /// Returns whether it came to the end. May sleep.
    pub(crate) fn zero(
        &self,
        range: &Range<u32>,
        within: Range<usize>,
        go_on: impl Fn() -> bool,
    ) -> bool {
        let mut next = range.start;
        while let Some(folio) = self.first_in(next..range.end) {
            let of = folio.range();
            for page in of.start.max(next)..of.end.min(range.end) {
                if !go_on() {
                    return false;
                }
                folio.zero(page, within.clone());
                task::resched();
            }
            next = of.end.max(next + 1);
        }
        true
    }

    /// Takes a locked folio away that is not pinned.
    fn try_remove(&self, folio: &LockedFolio) -> bool {
        // SAFETY: The folio is locked, and both are there.
        if !unsafe { raw::freelist_folio_is_of(folio.as_ptr(), self.as_ptr()) } {
            // It has left meanwhile.
            return true;
        }
        if folio.is_mapped() {
            self.unmap(&folio.range());
        }
        if folio.is_pinned() {
            return false;
        }
        self.remove_locked(folio)
    }

    /// Takes a locked folio away, which is unmapped where it is mapped.
    pub(crate) fn remove_locked(&self, folio: &LockedFolio) -> bool {
        let order = folio.order();
        // SAFETY: The folio is locked, and both are there.
        let gone = unsafe { raw::freelist_folio_remove(self.as_ptr(), folio.as_ptr()) } == 0;
        if gone {
            self.count_on(folio.node(), -1 << order);
            if order >= huge_page_order() {
                self.huge.fetch_sub(1, Relaxed);
            }
        }
        gone
    }

    /// So many more pages are on a node.
    fn count_on(&self, node: Node, pages: i64) {
        if let Some(count) = self.on_node.get(node.index()) {
            count.fetch_add(pages, Relaxed);
        }
    }

    /// Counts the pages of a range on their nodes, `sign` times.
    fn count_nodes(&self, range: &Range<u32>, sign: i64) {
        if self.on_node.is_empty() {
            return;
        }
        let mut next = range.start;
        while let Some(folio) = self.first_in(next..range.end) {
            let of = folio.range();
            let end = of.end.min(range.end);
            let pages = end.saturating_sub(of.start.max(next));
            self.count_on(folio.node(), sign * i64::from(pages));
            next = end.max(next + 1);
        }
    }

    /// Of so many pages, how many lie on a node as a rule.
    pub(crate) fn share_of(&self, node: Node, pages: u64) -> u64 {
        let on = |count: &Atomic<i64>| count.load(Relaxed).max(0) as u64;
        let Some(here) = self.on_node.get(node.index()).map(on) else {
            return pages;
        };
        let all: u64 = self.on_node.iter().map(on).sum();
        pages * here / all.max(1)
    }

    /// Folios of the size of a huge page that have some of the range.
    fn count_huge(&self, range: &Range<u32>) -> u64 {
        if self.huge.load(Relaxed) == 0 {
            return 0;
        }
        let order = huge_page_order();
        let each = (range.start >> order)..=((range.end - 1) >> order);
        let first = |index: u32| (index << order).max(range.start);
        let huge = each.filter(|index| {
            let folio = self.folio(first(*index));
            folio.is_some_and(|folio| folio.order() >= order)
        });
        huge.count() as u64
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        // SAFETY: By the invariant the inode is ours, and nobody has it after this.
        unsafe { raw::freelist_address_space_free(self.as_ptr()) };
    }
}
