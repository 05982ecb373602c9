// SPDX-License-Identifier: GPL-2.0-only

//! Quick lists (Quick Fit, Weinstock and Wulf, 1988): recently freed blocks, not merged, newest first.
//!
//! The next allocation of the same size costs neither a split nor a merge. The lists are bounded in
//! number and bytes, and have no block above [`MAX_BYTES`]. The oldest block of a full list is merged
//! with its free neighbours. All blocks are merged when a request finds nothing else, and before every
//! request above [`MAX_BYTES`], as large blocks need the space that small ones keep apart. A list has
//! room for a batch, so that the next batch gets the blocks of the last one (magazines, Bonwick and
//! Adams, 2001).
//!
//! While there are waiters the lists are closed, so that all free pages are in runs. A freed block of
//! exactly the class of a waiter that takes no other class is *kept* for it, and not merged.
//!
//! In its page's record or tree a block here is neither free nor live, as a reserved block: no other
//! request can take it, and no caller can free it.

use super::class::{page_shift, Class, Shape, MIN_SHIFT};
use super::directory::MAX_PAGES;
use super::free::Loose;
use super::head::Head;
use super::request::{Admission, Policy, Request, Reservation};
use super::{Backend, Engine, Garbage, BATCH};
use core::ops::DerefMut;

/// The largest block on a quick list, in bytes.
const MAX_BYTES: u64 = 1 << 16;
/// The most bytes on one list of blocks of whole pages; one block is always allowed.
const LIST_BYTES: u64 = 1 << 18;
/// The most bytes on one list of subpage blocks with pages of 1 KiB, less in proportion with larger
/// pages: an unmerged block keeps its whole page from becoming free.
const SUBPAGE_BYTES: u64 = 1 << 19;
/// The most blocks on one list; a power of 2.
const LEN: u32 = BATCH;
/// Size classes with a list.
pub const QUICK_LISTS: usize = (MAX_BYTES.ilog2() - MIN_SHIFT + 1) as usize;
/// Waiters that a block may be kept for: the oldest, and the oldest for a subpage block.
const KEEPERS: usize = 2;

/// A block on a quick list.
///
/// For a subpage block: where it begins, in granules of 32 bytes. For whole pages: the first page
/// number, and in the low 8 bits the number of pages less one.
#[derive(Clone, Copy, Default)]
struct Entry(u32);

impl Entry {
    /// Returns `None` for a subpage block whose granule number exceeds 32 bits: with pages above 8 KiB
    /// an arena may be so large.
    #[inline]
    fn new<const PAGE_KIB: usize>(start: u64, class: Class) -> Option<Self> {
        if class.is_subpage() {
            return u32::try_from(start >> MIN_SHIFT).ok().map(Self);
        }
        let page = (start >> page_shift(PAGE_KIB)) as u32;
        Some(Self((page << 8) + class.pages() - 1))
    }

    /// Returns where a block of whole pages begins, in bytes, and how many pages it has.
    #[inline]
    fn pages<const PAGE_KIB: usize>(self) -> (u64, u32) {
        let start = u64::from(self.0 >> 8) << page_shift(PAGE_KIB);
        (start, (self.0 & 0xff) + 1)
    }

    /// Returns where a subpage block begins, in bytes.
    #[inline]
    fn subpage(self) -> u64 {
        u64::from(self.0) << MIN_SHIFT
    }

    /// Returns the block, which was on the list of the size class of `1 << shift` bytes.
    fn loose<const PAGE_KIB: usize>(self, shift: u32) -> Loose {
        let page_shift = page_shift(PAGE_KIB);
        if shift < page_shift {
            let class = Class::of_subpage(shift, page_shift);
            let start = self.subpage();
            return Loose { start, class };
        }
        let (start, pages) = self.pages::<PAGE_KIB>();
        let class = Class::of_pages(pages, page_shift);
        Loose { start, class }
    }
}

const _: () = assert!(MAX_PAGES <= 1 << 24 && MAX_BYTES >> 12 <= 1 << 8);

/// The quick list of one size class: a stack in a ring of [`LEN`] entries.
#[derive(Clone, Copy)]
pub struct Stack {
    /// The index after the newest entry, before the ring wraps.
    top: u32,
    len: u32,
    ring: [Entry; LEN as usize],
}

impl Default for Stack {
    fn default() -> Self {
        Self {
            top: 0,
            len: 0,
            ring: [Entry::default(); LEN as usize],
        }
    }
}

impl Stack {
    /// Returns the entry that was pushed `back` entries before the newest.
    #[inline]
    fn nth(&self, back: u32) -> Entry {
        self.ring[(self.top.wrapping_sub(back + 1) % LEN) as usize]
    }

    /// Returns the newest entry.
    #[inline]
    fn newest(&self) -> Option<Entry> {
        (self.len > 0).then(|| self.nth(0))
    }

    /// Removes and returns the newest entry.
    #[inline]
    fn pop(&mut self) -> Option<Entry> {
        let newest = self.newest()?;
        self.len -= 1;
        self.top = self.top.wrapping_sub(1);
        Some(newest)
    }

    /// Adds an entry. Removes and returns the oldest if there are `max_len` entries already.
    #[inline(always)]
    fn push(&mut self, entry: Entry, max_len: u32) -> Option<Entry> {
        let mut oldest = None;
        if self.len == max_len {
            oldest = Some(self.nth(max_len - 1));
        } else {
            self.len += 1;
        }
        self.ring[(self.top % LEN) as usize] = entry;
        self.top = self.top.wrapping_add(1);
        oldest
    }
}

/// The class of a waiter that takes no other class, and the block that is kept for it.
#[derive(Clone, Copy)]
struct Keeper {
    class: Class,
    kept: Option<(u64, Class)>,
}

impl Keeper {
    /// Returns whether a freed block is to be kept for the waiter.
    fn takes(&self, start: u64, class: Class) -> bool {
        self.kept.is_none() && serves(start, class, self.class)
    }
}

/// Returns whether a block of the class `has` serves a request for exactly `class`.
fn serves(start: u64, has: Class, class: Class) -> bool {
    has.index() == class.index() && has.pages() >= class.pages() && class.is_aligned(start)
}

/// How far a call has drained the quick lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// They were empty.
    Nothing,
    /// All their blocks were merged.
    All,
    /// A part of their blocks was merged: unlock, drop the garbage, call again.
    Part,
}

/// The quick lists of an arena, by size class.
pub(super) struct Quick<S> {
    stacks: S,
    /// A bit for each list that is not empty.
    occupied: u32,
    /// No block is put on the lists.
    closed: bool,
    keepers: [Option<Keeper>; KEEPERS],
}

impl<S: DerefMut<Target = [Stack]>> Quick<S> {
    /// Makes empty lists. `stacks` has [`QUICK_LISTS`] default stacks.
    pub(super) fn new(stacks: S) -> Self {
        Self {
            stacks,
            occupied: 0,
            closed: false,
            keepers: [None; KEEPERS],
        }
    }

    /// Returns the most blocks on the list of a class.
    #[inline(always)]
    fn max_len<const PAGE_KIB: usize>(class: Class) -> u32 {
        let blocks = if class.is_subpage() {
            (SUBPAGE_BYTES / PAGE_KIB as u64) >> class.shift()
        } else {
            LIST_BYTES >> class.shift()
        };
        blocks.clamp(1, LEN.into()) as u32
    }

    /// Returns whether the list of a class has room for one more block.
    #[inline(always)]
    pub(super) fn has_room<const PAGE_KIB: usize>(&self, class: Class) -> bool {
        let stack = self.stacks.get(class.index());
        !self.closed && stack.is_some_and(|stack| stack.len < Self::max_len::<PAGE_KIB>(class))
    }

    /// Puts a freed block on the list of its class, or keeps it for a waiter. Returns the block that is
    /// to be merged, if any: the oldest of a full list, or the freed block itself.
    #[inline(always)]
    pub(super) fn put<const PAGE_KIB: usize>(&mut self, start: u64, class: Class) -> Option<Loose> {
        let index = class.index();
        let stack = self.stacks.get_mut(index);
        match (stack, Entry::new::<PAGE_KIB>(start, class)) {
            (Some(stack), Some(entry)) if !self.closed => {
                self.occupied |= 1 << index;
                let oldest = stack.push(entry, Self::max_len::<PAGE_KIB>(class))?;
                Some(oldest.loose::<PAGE_KIB>(class.shift()))
            }
            _ => self.keep(start, class),
        }
    }

    /// Keeps a block for a waiter for exactly its class. Returns the block if there is no such waiter.
    fn keep(&mut self, start: u64, class: Class) -> Option<Loose> {
        let mut keepers = self.keepers.iter_mut().flatten();
        match keepers.find(|keeper| keeper.takes(start, class)) {
            Some(keeper) => {
                keeper.kept = Some((start, class));
                None
            }
            None => Some(Loose { start, class }),
        }
    }

    fn pop(&mut self, index: usize) -> Option<Entry> {
        let stack = self.stacks.get_mut(index)?;
        let entry = stack.pop();
        if stack.len == 0 {
            self.occupied &= !(1 << index);
        }
        entry
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Reserves a block of `size` bytes from its quick list, or a block too large for these as
    /// [`Engine::find_large`] does: the first step of [`Engine::reserve`], for a request of that policy
    /// that is admitted in full. Returns `None` where the other steps or an error follow.
    ///
    /// Inlined together with [`Engine::commit`], so that the compiler drops tests whose result it knows.
    #[inline(always)]
    pub fn reserve_fast(&mut self, size: u64, policy: Policy) -> Option<Reservation> {
        let request = Request {
            size,
            ..Request::default()
        };
        let class = Class::of(&request, Self::PAGE_SHIFT).ok()?;
        let start = match self.pop_quick(Admission::Full, class) {
            Some(start) => start,
            None => self.find_large(class, policy)?,
        };
        self.claimed += class.block_bytes();
        Some(Reservation::ready(start, class, size))
    }

    /// Reserves the pages of a block too large for the quick lists: the deferred block, or a part of a
    /// backed run if the quick lists are empty. Returns where they begin. Needs no metadata.
    #[inline(never)]
    fn find_large(&mut self, class: Class, policy: Policy) -> Option<u64> {
        if Self::has_quick_list(class) || policy.is_exact() {
            return None;
        }
        if let Some(page) = self.take_deferred(class, policy) {
            return Some(u64::from(page) << Self::PAGE_SHIFT);
        }
        if self.quick.occupied != 0 {
            return None;
        }
        self.merge_deferred();
        let fit = Self::fit_of(class, policy.may_split());
        let reserved = self.reserve_backed(fit).ok()?;
        self.note_large(reserved.page, class, policy);
        Some(u64::from(reserved.page) << Self::PAGE_SHIFT)
    }

    /// Returns whether there is a quick list for blocks of a class.
    pub(super) fn has_quick_list(class: Class) -> bool {
        class.index() < QUICK_LISTS
    }

    /// Returns whether the newest block on the quick list of a class serves a request.
    pub(super) fn has_quick(&self, admission: Admission, class: Class) -> bool {
        let newest = self.quick.stacks.get(class.index()).and_then(Stack::newest);
        newest.is_some_and(|entry| Self::quick_start(entry, admission, class).is_some())
    }

    /// Returns where a block on the quick list of a class begins, if it serves a request.
    #[inline(always)]
    fn quick_start(entry: Entry, admission: Admission, class: Class) -> Option<u64> {
        if class.is_subpage() {
            return Some(entry.subpage());
        }
        // The blocks of a class of whole pages differ in length.
        let (start, pages) = entry.pages::<PAGE_KIB>();
        let fits = pages == class.pages() && class.is_aligned(start);
        (admission == Admission::Full && fits).then_some(start)
    }

    /// Reserves the newest block on the quick list of a class, if it serves the request.
    #[inline(always)]
    pub(super) fn reserve_quick(
        &mut self,
        request: &Request,
        admission: Admission,
        class: Class,
    ) -> Option<Reservation> {
        let start = self.pop_quick(admission, class)?;
        self.claimed += class.block_bytes();
        Some(Reservation {
            headed: request.headed,
            ..Reservation::ready(start, class, request.size)
        })
    }

    /// Removes and returns the newest block on the quick list of a class, if it serves a request.
    #[inline(always)]
    pub(super) fn pop_quick(&mut self, admission: Admission, class: Class) -> Option<u64> {
        let index = class.index();
        let stack = self.quick.stacks.get_mut(index)?;
        let start = Self::quick_start(stack.newest()?, admission, class)?;
        stack.pop();
        if stack.len == 0 {
            self.quick.occupied &= !(1 << index);
        }
        Some(start)
    }

    /// Closes or opens the quick lists: freed blocks are merged at once while the lists are closed. The
    /// caller drains closed lists ([`Engine::drain`]).
    pub fn close_quick(&mut self, closed: bool) {
        self.quick.closed = closed;
    }

    /// Sets the waiters for which freed blocks are kept, one block each: those of `waiters` that take
    /// exactly one class. Merges kept blocks that none of them takes. For closed quick lists.
    pub fn keep_for(
        &mut self,
        waiters: [Option<&Request>; KEEPERS],
        garbage: &mut Garbage<B, PAGE_KIB>,
    ) {
        let new = waiters.map(|request| {
            let request = request.filter(|request| request.policy.is_exact())?;
            let class = Class::of(request, Self::PAGE_SHIFT).ok()?;
            Some(Keeper { class, kept: None })
        });
        let old = core::mem::replace(&mut self.quick.keepers, new);
        for (start, class) in old.into_iter().flatten().filter_map(|keeper| keeper.kept) {
            if let Some(loose) = self.quick.keep(start, class) {
                self.merge(loose, garbage);
            }
        }
    }

    /// Returns whether a kept block serves a request for exactly `class`.
    pub(super) fn has_kept(&self, class: Class) -> bool {
        let keepers = self.quick.keepers.iter().flatten();
        let mut kept = keepers.filter_map(|keeper| keeper.kept);
        kept.any(|(start, has)| serves(start, has, class))
    }

    /// Takes a kept block for a request for exactly `class`. Frees its pages beyond the class.
    pub(super) fn take_kept(&mut self, class: Class) -> Option<u64> {
        let mut keepers = self.quick.keepers.iter_mut().flatten();
        let (start, has) = keepers.find_map(|keeper| {
            keeper
                .kept
                .take_if(|(start, has)| serves(*start, *has, class))
        })?;
        let more = has.pages() - class.pages();
        if more > 0 {
            let page = (start >> Self::PAGE_SHIFT) as u32;
            if let Some(Head::Reserved { pages, backed, .. }) = self.directory.head_mut(page) {
                (*pages, *backed) = (class.pages(), class.pages());
            }
            self.release_block(page + class.pages(), more);
        }
        Some(start)
    }

    /// Merges the deferred block and the blocks on the quick lists with their free neighbours, a bounded
    /// number in one call.
    pub fn drain(&mut self, garbage: &mut Garbage<B, PAGE_KIB>) -> Drained {
        self.merge_deferred();
        if self.quick.occupied == 0 {
            return Drained::Nothing;
        }
        let mut left = 2 * BATCH;
        while self.quick.occupied != 0 {
            if left == 0 || !garbage.has_room_for_tree() {
                return Drained::Part;
            }
            left -= 1;
            let index = self.quick.occupied.trailing_zeros();
            let Some(entry) = self.quick.pop(index as usize) else {
                debug_assert!(false, "an occupied list has a block");
                self.quick.occupied &= !(1 << index);
                continue;
            };
            self.merge(entry.loose::<PAGE_KIB>(MIN_SHIFT + index), garbage);
        }
        Drained::All
    }

    /// Merges a freed block that is on no list with its free neighbours, or defers that.
    #[inline(never)]
    pub fn merge(&mut self, Loose { start, class }: Loose, garbage: &mut Garbage<B, PAGE_KIB>) {
        let page = (start >> Self::PAGE_SHIFT) as u32;
        match class.shape() {
            Shape::Subpage { shift } => self.free_node(page, Self::node(start, shift), garbage),
            Shape::Pages { .. } => self.merge_pages(start, class),
        }
    }

    /// Merges a block [of whole pages](Loose::is_pages) with its free neighbours, or defers that. Leaves
    /// no garbage.
    pub fn merge_whole(&mut self, Loose { start, class }: Loose) {
        self.merge_pages(start, class);
    }

    #[inline(never)]
    fn merge_pages(&mut self, start: u64, class: Class) {
        let page = (start >> Self::PAGE_SHIFT) as u32;
        if self.quick.closed || !self.defer(page, class) {
            self.merge_deferred();
            self.release_reserved(page, class.pages());
        }
    }

    /// Returns the blocks on the quick list of the size class `index`, newest first: where each begins,
    /// and its class.
    fn quick_blocks(&self, index: usize) -> impl Iterator<Item = (u64, Class)> + '_ {
        let stack = self.quick.stacks.get(index);
        let shift = MIN_SHIFT + index as u32;
        (0..stack.map_or(0, |stack| stack.len)).filter_map(move |back| {
            let Loose { start, class } = stack?.nth(back).loose::<PAGE_KIB>(shift);
            Some((start, class))
        })
    }

    /// Returns the blocks of the size class `index` that are free and in no run and no tree: those on its
    /// quick list, those kept for waiters, and the deferred block.
    pub(super) fn unmerged_blocks(&self, index: usize) -> impl Iterator<Item = (u64, Class)> + '_ {
        let keepers = self.quick.keepers.iter().flatten();
        let kept = keepers.filter_map(|keeper| keeper.kept);
        let others = kept.chain(self.deferred_block());
        self.quick_blocks(index)
            .chain(others.filter(move |(_, class)| class.index() == index))
    }

    /// Returns the bytes of the subpage blocks in a page that are on quick lists or kept.
    pub(super) fn quick_bytes_in(&self, page: u32) -> u64 {
        let mut bytes = 0;
        for index in 0..QUICK_LISTS.min((Self::PAGE_SHIFT - MIN_SHIFT) as usize) {
            for (start, class) in self.unmerged_blocks(index) {
                if (start >> Self::PAGE_SHIFT) as u32 == page {
                    bytes += class.block_bytes();
                }
            }
        }
        bytes
    }

    /// Returns whether the block of `pages` pages that begins at `page` is on a quick list, kept or
    /// deferred.
    pub(super) fn is_quick(&self, page: u32, pages: u32) -> bool {
        let index = Class::of_pages(pages, Self::PAGE_SHIFT).index();
        let start = u64::from(page) << Self::PAGE_SHIFT;
        let mut blocks = self.unmerged_blocks(index);
        blocks.any(|(other, _)| other == start)
    }

    /// Returns the pages of the newest block on the quick list of a class of whole pages.
    pub(super) fn newest_pages(&self, shift: u32) -> u32 {
        let newest = self.quick_blocks((shift - MIN_SHIFT) as usize).next();
        newest.map_or(0, |(_, class)| class.pages())
    }
}
