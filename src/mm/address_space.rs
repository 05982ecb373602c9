// SPDX-License-Identifier: GPL-2.0-only

//! The memory of an arena: the page cache of an inode of its own, in a file system that is mounted
//! nowhere in user space.
//!
//! The core of the kernel maps the folios, pins, migrates, accounts and splits them. Folios are added by
//! [`AddressSpace::add`], dirty, so that the core never drops one by itself. `removal.rs` removes them.

use crate::{
    engine::MAX_PAGES,
    ffi::{
        operations::Table,
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
    page::PAGE_SHIFT,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// Returns the order of a huge page: what one entry of a page middle directory (PMD) maps.
pub(crate) fn huge_page_order() -> u32 {
    // SAFETY: May be called at any time.
    unsafe { raw::freelist_huge_page_order() }
}

/// How hard the allocation of a single page tries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urge {
    /// Reclaims other memory, but never calls the OOM killer.
    Reclaim,
    /// Calls the OOM killer if need be, as for anonymous memory.
    Kill,
}

/// The mounted file system of the inodes of all arenas, unmounted on drop.
pub(crate) struct FileSystem(());

impl FileSystem {
    /// Mounts the file system. Fails with `ENOMEM` when memory is short. May sleep.
    ///
    /// # Safety
    ///
    /// The file system is not mounted. Every [`AddressSpace`] is made after this call and dropped before
    /// the returned object.
    pub(crate) unsafe fn mount() -> Result<Self> {
        // SAFETY: By the caller's promise. May be called where sleeping is allowed.
        to_result(unsafe { raw::freelist_fs_mount() })?;
        Ok(Self(()))
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // SAFETY: It is mounted. By the promise of `mount`'s caller no inode of it is left.
        unsafe { raw::freelist_fs_unmount() };
    }
}

/// The memory of one arena, by page numbers.
///
/// # Invariants
///
/// `inode` was made for this object and is put when the object is dropped.
pub(crate) struct AddressSpace {
    inode: NonNull<raw::inode>,
    /// Folios of the size of a huge page.
    pub(super) huge: Atomic<u64>,
    /// Pages on each NUMA node. Empty with a single node.
    pub(super) on_node: KVec<Atomic<i64>>,
}

// SAFETY: An inode belongs to no thread.
unsafe impl Send for AddressSpace {}
// SAFETY: All methods of a shared `AddressSpace` rely on the locks of the page cache.
unsafe impl Sync for AddressSpace {}

/// The owner of the memory of an address space.
pub(crate) trait Owner: Sync {
    /// Notes that the memory of these pages is lost: their folio is bad and is about to be removed.
    /// Called with the folio locked.
    fn lose(&self, pages: Range<u32>);

    /// Notes that the kernel has moved `pages` pages of a folio to another node. Called with both folios
    /// locked.
    fn migrated(&self, from: Node, to: Node, pages: i64);

    /// Returns whether the folio that begins at a page must not be divided. Called with the folio locked.
    fn is_indivisible(&self, page: u32) -> bool;
}

/// The address space operations for an owner `T`.
struct Operations<T>(PhantomData<fn(&T)>);

impl<T: Owner> Operations<T> {
    const TABLE: &'static Table<bindings::address_space_operations> =
        &Table(bindings::address_space_operations {
            dirty_folio: Some(bindings::noop_dirty_folio),
            migrate_folio: Some(migrate_folio::<T>),
            error_remove_folio: Some(error_remove_folio::<T>),
            release_folio: Some(release_folio::<T>),
            ..pin_init::zeroed()
        });
}

/// Calls `work` with the owner of an address space, if it is set.
///
/// # Safety
///
/// [`AddressSpace::new`] has made the address space for a `T`, and a folio in it is locked.
unsafe fn with_owner<T: Owner>(mapping: *mut bindings::address_space, work: impl FnOnce(&T)) {
    // SAFETY: The folio is in the address space as long as it is locked, so the inode exists.
    let owner = unsafe { (*(*mapping).host).i_private }.cast::<T>();
    // SAFETY: Null, or by `AddressSpace::set_owner` valid until `AddressSpace::remove_all` has waited
    // for the folio's lock.
    if let Some(owner) = unsafe { owner.as_ref() } {
        work(owner);
    }
}

/// Moves a folio's contents to another one, and notes where its pages lie now. May sleep, if `mode` allows
/// it.
///
/// # Safety
///
/// Called by the kernel, for a locked folio of an address space that [`AddressSpace::new`] has made for
/// a `T`, and a locked folio of the same size that is in no address space.
unsafe extern "C" fn migrate_folio<T: Owner>(
    mapping: *mut bindings::address_space,
    target: *mut bindings::folio,
    source: *mut bindings::folio,
    mode: bindings::migrate_mode,
) -> c_int {
    let node = |folio: *mut bindings::folio| {
        // SAFETY: The kernel holds a reference to the folio, which lies on a node.
        unsafe { Node::from_raw(raw::freelist_folio_node(folio.cast())) }
    };
    let (from, to) = (node(source), node(target));
    // SAFETY: The arguments are those of the kernel's call.
    let result = unsafe { bindings::filemap_migrate_folio(mapping, target, source, mode) };
    if result == 0 && from != to {
        // SAFETY: The kernel holds a reference to the folio.
        let order = unsafe { raw::freelist_folio_order(target.cast()) };
        // SAFETY: The target is in the address space now, and locked.
        unsafe { with_owner(mapping, |owner: &T| owner.migrated(from, to, 1 << order)) };
    }
    result
}

/// Removes a bad folio (memory failure), after its owner was notified.
///
/// # Safety
///
/// Called by the kernel, for a locked folio of an address space that [`AddressSpace::new`] has made for
/// a `T`.
unsafe extern "C" fn error_remove_folio<T: Owner>(
    mapping: *mut bindings::address_space,
    folio: *mut bindings::folio,
) -> c_int {
    // SAFETY: The kernel holds a reference to the folio.
    let (first, order) = unsafe {
        (
            raw::freelist_folio_index(folio.cast()) as u32,
            raw::freelist_folio_order(folio.cast()),
        )
    };
    let lose = |owner: &T| {
        owner.lose(first..first.saturating_add(1 << order));
        // Poison entries in page tables would outlive the loss, and be found when the page has memory
        // again.
        // SAFETY: The folio is locked in the address space, so that this exists.
        unsafe { bindings::unmap_mapping_pages(mapping, first as usize, 1 << order, true) };
    };
    // SAFETY: The folio is in the address space, and locked.
    unsafe { with_owner(mapping, lose) };
    // SAFETY: The arguments are those of the kernel's call.
    unsafe { bindings::generic_error_remove_folio(mapping, folio) }
}

/// Returns whether a folio may be divided: the kernel asks this of file systems that keep data beside the
/// folio, and of those that set `AS_RELEASE_ALWAYS`. A folio with a bad page may, as it loses that page.
///
/// # Safety
///
/// Called by the kernel, for a locked folio of an address space that [`AddressSpace::new`] has made for
/// a `T`.
unsafe extern "C" fn release_folio<T: Owner>(
    folio: *mut bindings::folio,
    _gfp: bindings::gfp_t,
) -> bool {
    // SAFETY: The kernel holds a reference to the folio, which stays in its address space while it is
    // locked.
    let (mapping, first, is_bad) = unsafe {
        (
            raw::freelist_folio_mapping(folio.cast()),
            raw::freelist_folio_index(folio.cast()) as u32,
            raw::freelist_folio_has_bad_page(folio.cast()),
        )
    };
    let mut is_divisible = true;
    let ask = |owner: &T| is_divisible = is_bad || !owner.is_indivisible(first);
    // SAFETY: The folio is in the address space, and locked.
    unsafe { with_owner(mapping.cast(), ask) };
    is_divisible
}

impl AddressSpace {
    /// Makes an empty address space for an owner `T`. Fails with `ENOMEM` when memory is short. May
    /// sleep.
    pub(crate) fn new<T: Owner>() -> Result<Self> {
        let operations = &raw const Operations::<T>::TABLE.0;
        // SAFETY: May be called where sleeping is allowed. The table is static.
        let inode = unsafe { raw::freelist_address_space_new(operations.cast(), MAX_PAGES.into()) };
        // INVARIANT: The inode was just made.
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

    /// Sets the owner, which is notified of lost memory from now on.
    ///
    /// # Safety
    ///
    /// `owner` has the type that the address space was made for, and is valid until
    /// [`AddressSpace::remove_all`] has returned. The address space has no folio yet.
    pub(crate) unsafe fn set_owner<T: Owner>(&self, owner: *const T) {
        let inode = self.as_ptr().cast::<bindings::inode>();
        // SAFETY: By the invariant the inode exists. `i_private` is read with a folio locked, and there
        // is no folio yet.
        unsafe { (*inode).i_private = owner.cast_mut().cast() };
    }

    /// Makes this address space the one that mappings of `file` map.
    ///
    /// # Safety
    ///
    /// `file` is being opened, so that no other thread uses it. The address space outlives it.
    pub(crate) unsafe fn attach(&self, file: *mut bindings::file) {
        // SAFETY: By the invariant and by the caller's promise both exist.
        unsafe { raw::freelist_address_space_attach(self.as_ptr(), file.cast()) };
    }

    pub(crate) fn as_ptr(&self) -> *mut raw::inode {
        self.inode.as_ptr()
    }

    /// Returns the largest order of a folio: that of a huge page as a rule, 0 on a kernel without large
    /// folios.
    pub(crate) fn max_order(&self) -> u32 {
        // SAFETY: By the invariant the inode exists.
        unsafe { raw::freelist_folio_max_order(self.as_ptr()) }
    }

    /// Returns the bytes in folios of the size of a huge page.
    pub(crate) fn huge_bytes(&self) -> u64 {
        self.huge.load(Relaxed) << (huge_page_order() + PAGE_SHIFT as u32)
    }

    /// Adds a zeroed folio, charged to the caller's memory cgroup, at page number `page`, a multiple of
    /// `1 << order`. May sleep.
    ///
    /// Fails with `ENOMEM` if there is no memory or it cannot be charged: a folio of more than one page
    /// reclaims little, and none calls the OOM killer. Fails with `EEXIST` if a folio is there.
    pub(crate) fn add(&self, page: u32, order: u32) -> Result {
        self.add_locked(page, order, Urge::Reclaim).map(drop)
    }

    /// Adds a folio as [`AddressSpace::add`] does, and returns it locked, so that no fault maps it before
    /// the unlock. With [`Urge::Kill`] a single page may call the OOM killer. May sleep.
    pub(crate) fn add_locked(&self, page: u32, order: u32, urge: Urge) -> Result<LockedFolio> {
        let mut added = null_mut();
        let urge = match urge {
            Urge::Reclaim => raw::freelist_urge_FREELIST_URGE_RECLAIM,
            Urge::Kill => raw::freelist_urge_FREELIST_URGE_KILL,
        };
        // SAFETY: By the invariant the inode exists; called where sleeping is allowed.
        let errno =
            unsafe { raw::freelist_folio_add(self.as_ptr(), page.into(), order, urge, &mut added) };
        to_result(errno)?;
        // SAFETY: It was just added. The new object owns its reference and its lock.
        let folio = unsafe { LockedFolio::from_raw(added) }.ok_or(ENOMEM)?;
        self.count_added(folio.node(), order);
        Ok(folio)
    }

    /// Counts a folio that was added.
    pub(super) fn count_added(&self, node: Node, order: u32) {
        self.count_on(node, 1 << order);
        if order >= huge_page_order() {
            self.huge.fetch_add(1, Relaxed);
        }
    }

    /// Looks up the folio that has page number `page`.
    pub(crate) fn folio(&self, page: u32) -> Option<Folio> {
        // SAFETY: By the invariant the inode exists. The new object owns the reference.
        unsafe { Folio::from_raw(raw::freelist_folio_get(self.as_ptr(), page.into())) }
    }

    /// Looks up and locks the folio that has page number `page`. May sleep.
    pub(crate) fn lock_folio(&self, page: u64) -> Option<LockedFolio> {
        // SAFETY: By the invariant the inode exists. The new object owns reference and lock.
        unsafe { LockedFolio::from_raw(raw::freelist_folio_lock(self.as_ptr(), page)) }
    }

    /// Looks up the first folio that has a page of the range. Does not sleep.
    pub(crate) fn first_in(&self, range: Range<u32>) -> Option<Folio> {
        let Range { start, end } = range;
        // SAFETY: By the invariant the inode exists. The new object owns the reference.
        unsafe {
            Folio::from_raw(raw::freelist_folio_get_first(
                self.as_ptr(),
                start.into(),
                end.into(),
            ))
        }
    }

    /// Returns whether a page of the range, which is not empty, has memory.
    pub(super) fn has_any(&self, range: &Range<u32>) -> bool {
        let (first, pages) = (range.start.into(), range.len() as u64);
        // SAFETY: By the invariant the inode exists.
        unsafe { raw::freelist_pages_any(self.as_ptr(), first, pages) }
    }

    /// Zeroes the bytes `within` of each page of a range that has memory, until `go_on` returns false.
    /// Returns whether it zeroed all. May sleep.
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

    /// Counts `pages` pages on another node than before.
    pub(crate) fn count_migrated(&self, from: Node, to: Node, pages: i64) {
        self.count_on(from, -pages);
        self.count_on(to, pages);
    }

    /// Adds `pages` to the count of a node.
    pub(super) fn count_on(&self, node: Node, pages: i64) {
        if let Some(count) = self.on_node.get(node.index()) {
            count.fetch_add(pages, Relaxed);
        }
    }

    /// Adds `sign` for each page of a range to the count of its node.
    pub(super) fn count_nodes(&self, range: &Range<u32>, sign: i64) {
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

    /// Returns how many of `pages` pages lie on a node, estimated by the node's share of all pages.
    pub(crate) fn share_of(&self, node: Node, pages: u64) -> u64 {
        let on = |count: &Atomic<i64>| count.load(Relaxed).max(0) as u64;
        let Some(here) = self.on_node.get(node.index()).map(on) else {
            return pages;
        };
        let all: u64 = self.on_node.iter().map(on).sum();
        pages * here / all.max(1)
    }

    /// Returns how many folios of the size of a huge page have a page of the range.
    pub(super) fn count_huge(&self, range: &Range<u32>) -> u64 {
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
        // SAFETY: By the invariant this object owns the inode, which is not used after this.
        unsafe { raw::freelist_address_space_free(self.as_ptr()) };
    }
}
