// SPDX-License-Identifier: GPL-2.0-only

//! Quick lists (Quick Fit, Weinstock and Wulf, 1988): blocks that were freed a moment ago, as they
//! were, newest first.
//!
//! The same size again costs neither a split nor a merge. They are bounded in number and bytes, and
//! no block on them is above [`MAX_BYTES`]; what overflows joins what is free around it, the oldest
//! first. All of them do so when a request finds nothing else, and for every request above
//! [`MAX_BYTES`]: what small blocks keep apart is what a large one needs. (Magazines: Bonwick and
//! Adams, 2001.) As many as go in one batch have room, so that a batch that was freed is the next
//! one.
//!
//! While somebody waits they are closed: free pages must be seen as such. Then a block of exactly
//! the class that a waiter will take no other of is *kept* for it, before it joins a neighbour.
//!
//! A block here is neither free nor live in its page's record or tree, like one that is reserved: no
//! other request can take it, no one can free it.

use super::class::{page_shift, Class, Shape, MIN_SHIFT};
use super::directory::MAX_PAGES;
use super::free::Loose;
use super::head::Head;
use super::request::{Admission, Policy, Request, Reservation};
use super::{Backend, Engine, Garbage, BATCH};
use core::ops::DerefMut;

/// The largest block on a quick list, in bytes.
const MAX_BYTES: u64 = 1 << 16;
/// The most bytes on one list of blocks of whole pages, but for one block.
const LIST_BYTES: u64 = 1 << 18;
/// The same of subpage blocks, at pages of 1 KiB: what is kept from joining keeps more of a larger
/// page.
const SUBPAGE_BYTES: u64 = 1 << 19;
/// The most blocks on one list; a power of 2.
const LEN: u32 = BATCH;
/// Size classes with a list.
pub const QUICK_LISTS: usize = (MAX_BYTES.ilog2() - MIN_SHIFT + 1) as usize;
/// Waiters that a block may be kept for: the oldest, and the oldest that wants less than a page.
const KEEPERS: usize = 2;

/// A block on a quick list.
///
/// Of a subpage block: where it begins, in granules of 32 bytes. Of whole pages: the first one and,
/// in the low 8 bits, how many there are, less one.
#[derive(Clone, Copy, Default)]
struct Entry(u32);

impl Entry {
    /// `None` where a subpage block begins too far away: with pages above 8 KiB an arena may be so
    /// large.
    #[inline]
    fn new<const PAGE_KIB: usize>(start: u64, class: Class) -> Option<Self> {
        if class.is_subpage() {
            return u32::try_from(start >> MIN_SHIFT).ok().map(Self);
        }
        let page = (start >> page_shift(PAGE_KIB)) as u32;
        Some(Self((page << 8) + class.pages() - 1))
    }

    /// Where the block of whole pages begins, and its pages.
    #[inline]
    fn pages<const PAGE_KIB: usize>(self) -> (u64, u32) {
        let start = u64::from(self.0 >> 8) << page_shift(PAGE_KIB);
        (start, (self.0 & 0xff) + 1)
    }

    /// Where the subpage block begins.
    #[inline]
    fn subpage(self) -> u64 {
        u64::from(self.0) << MIN_SHIFT
    }

    /// The block, which was on the list of the size class `1 << shift`.
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

/// The quick list of one size class: the last [`LEN`] that were put on it go round in a ring.
#[derive(Clone, Copy)]
pub struct Stack {
    /// One behind the newest.
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
    /// The one that was put there `back` before the newest.
    #[inline]
    fn nth(&self, back: u32) -> Entry {
        self.ring[(self.top.wrapping_sub(back + 1) % LEN) as usize]
    }

    /// The newest.
    #[inline]
    fn newest(&self) -> Option<Entry> {
        (self.len > 0).then(|| self.nth(0))
    }

    /// Takes the newest away.
    #[inline]
    fn pop(&mut self) -> Option<Entry> {
        let newest = self.newest()?;
        self.len -= 1;
        self.top = self.top.wrapping_sub(1);
        Some(newest)
    }

    /// Adds one. Returns the oldest, if there are `most` of them already.
    #[inline(always)]
    fn push(&mut self, entry: Entry, most: u32) -> Option<Entry> {
        let mut oldest = None;
        if self.len == most {
            oldest = Some(self.nth(most - 1));
        } else {
            self.len += 1;
        }
        self.ring[(self.top % LEN) as usize] = entry;
        self.top = self.top.wrapping_add(1);
        oldest
    }
}

/// What a waiter for exactly one class wants, and the block that is kept for it.
#[derive(Clone, Copy)]
struct Keeper {
    class: Class,
    kept: Option<(u64, Class)>,
}

impl Keeper {
    /// Whether a freed block is what the waiter wants.
    fn wants(&self, start: u64, class: Class) -> bool {
        self.kept.is_none() && serves(start, class, self.class)
    }
}

/// Whether a block that has the class `has` serves a request for exactly `class`.
fn serves(start: u64, has: Class, class: Class) -> bool {
    has.index() == class.index() && has.pages() >= class.pages() && class.is_aligned(start)
}

/// How far the quick lists were emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// There was nothing on them.
    Nothing,
    /// All that was on them has joined what is free around it.
    All,
    /// Some has. To go on, drop the garbage after an unlock and call again.
    Part,
}

/// The quick lists of an arena, by size class.
pub(super) struct Quick<S> {
    stacks: S,
    /// Lists with a block, by index.
    occupied: u32,
    /// Nothing is put on them.
    closed: bool,
    keepers: [Option<Keeper>; KEEPERS],
}

impl<S: DerefMut<Target = [Stack]>> Quick<S> {
    /// `stacks` are [`QUICK_LISTS`], all default.
    pub(super) fn new(stacks: S) -> Self {
        Self {
            stacks,
            occupied: 0,
            closed: false,
            keepers: [None; KEEPERS],
        }
    }

    /// The most blocks on the list of a class.
    #[inline(always)]
    fn most<const PAGE_KIB: usize>(class: Class) -> u32 {
        let most = if class.is_subpage() {
            (SUBPAGE_BYTES / PAGE_KIB as u64) >> class.shift()
        } else {
            LIST_BYTES >> class.shift()
        };
        most.clamp(1, LEN.into()) as u32
    }

    /// Whether a block of a class would have room that no other has to make.
    #[inline(always)]
    pub(super) fn has_room<const PAGE_KIB: usize>(&self, class: Class) -> bool {
        let stack = self.stacks.get(class.index());
        !self.closed && stack.is_some_and(|stack| stack.len < Self::most::<PAGE_KIB>(class))
    }

    /// Puts a block that was freed on the list of its class. Returns what has no room: the block
    /// itself, or the oldest.
    #[inline(always)]
    pub(super) fn put<const PAGE_KIB: usize>(&mut self, start: u64, class: Class) -> Option<Loose> {
        let index = class.index();
        let stack = self.stacks.get_mut(index);
        match (stack, Entry::new::<PAGE_KIB>(start, class)) {
            (Some(stack), Some(entry)) if !self.closed => {
                self.occupied |= 1 << index;
                let oldest = stack.push(entry, Self::most::<PAGE_KIB>(class))?;
                Some(oldest.loose::<PAGE_KIB>(class.shift()))
            }
            _ => self.keep(start, class),
        }
    }

    /// Keeps a block for a waiter that wants exactly its class. Returns it where there is none.
    fn keep(&mut self, start: u64, class: Class) -> Option<Loose> {
        let mut keepers = self.keepers.iter_mut().flatten();
        match keepers.find(|keeper| keeper.wants(start, class)) {
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
    /// Reserves a block of `size` bytes that is on a quick list: what [`Engine::reserve`] does first
    /// for a request that reuses memory, admitted in full. `None` where that says more.
    ///
    /// Inlined with [`Engine::commit`], so that nothing is asked of the block that is known of it.
    #[inline(always)]
    pub fn reserve_fast(&mut self, size: u64) -> Option<Reservation> {
        let request = Request {
            size,
            ..Request::default()
        };
        let class = Class::of(&request, Self::PAGE_SHIFT).ok()?;
        self.reserve_quick(&request, Admission::Full, class)
    }

    /// Reserves a block above those on quick lists, where these are empty, of a run with memory that
    /// fits: what [`Engine::reserve`] does first then for a request of that policy, admitted in full.
    /// `None` where that says more. Needs no metadata.
    #[inline(never)]
    pub fn reserve_large(&mut self, size: u64, policy: Policy) -> Option<Reservation> {
        let request = Request {
            size,
            ..Request::default()
        };
        let class = Class::of(&request, Self::PAGE_SHIFT).ok()?;
        if Self::has_quick_list(class) || self.quick.occupied != 0 || policy.is_exact() {
            return None;
        }
        let fit = Self::fit_of(class, policy.may_split());
        let reserved = self.reserve_backed(fit).ok()?;
        self.claimed += class.block_bytes();
        let start = u64::from(reserved.page) << Self::PAGE_SHIFT;
        Some(Reservation::ready(start, class, size))
    }

    /// Whether blocks of a class may be on a quick list.
    pub(super) fn has_quick_list(class: Class) -> bool {
        class.index() < QUICK_LISTS
    }

    /// Whether the block of a class that was freed last is there, and a request may have it.
    pub(super) fn has_quick(&self, admission: Admission, class: Class) -> bool {
        let newest = self.quick.stacks.get(class.index()).and_then(Stack::newest);
        newest.is_some_and(|entry| Self::quick_start(entry, admission, class).is_some())
    }

    /// Where a block on the quick list of a class begins, if a request may have it.
    #[inline(always)]
    fn quick_start(entry: Entry, admission: Admission, class: Class) -> Option<u64> {
        if class.is_subpage() {
            return Some(entry.subpage());
        }
        // The blocks of such a class differ in length.
        let (start, pages) = entry.pages::<PAGE_KIB>();
        let fits = pages == class.pages() && class.is_aligned(start);
        (admission == Admission::Full && fits).then_some(start)
    }

    /// Reserves the block of a class that was freed last, as it is.
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

    /// Takes the block of a class that was freed last off its quick list, where a request may have
    /// it.
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

    /// From now on freed blocks join what is free around them at once, or after a while. To close
    /// the lists, [`Engine::drain`] them too.
    pub fn close_quick(&mut self, closed: bool) {
        self.quick.closed = closed;
    }

    /// While the quick lists are closed: keeps freed blocks for waiters that take exactly one class,
    /// one block for each. What was kept before and is wanted no more joins what is free around it.
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

    /// Whether a block of a class is kept.
    pub(super) fn has_kept(&self, class: Class) -> bool {
        let keepers = self.quick.keepers.iter().flatten();
        let mut kept = keepers.filter_map(|keeper| keeper.kept);
        kept.any(|(start, has)| serves(start, has, class))
    }

    /// Takes a block that is kept for a waiter for exactly that class. What it has more is free.
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

    /// Empties the quick lists as far as one hold of the lock goes: their blocks join what is free
    /// around them.
    pub fn drain(&mut self, garbage: &mut Garbage<B, PAGE_KIB>) -> Drained {
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

    /// A block that was freed, and is on no list, joins what is free around it.
    #[inline(never)]
    pub fn merge(&mut self, Loose { start, class }: Loose, garbage: &mut Garbage<B, PAGE_KIB>) {
        let page = (start >> Self::PAGE_SHIFT) as u32;
        match class.shape() {
            Shape::Subpage { shift } => self.give_node(page, Self::node(start, shift), garbage),
            Shape::Pages { .. } => self.merge_pages(start, class),
        }
    }

    /// The same of a block that [is whole pages](Loose::is_pages): it leaves nothing behind.
    pub fn merge_whole(&mut self, Loose { start, class }: Loose) {
        self.merge_pages(start, class);
    }

    #[inline(never)]
    fn merge_pages(&mut self, start: u64, class: Class) {
        let page = (start >> Self::PAGE_SHIFT) as u32;
        self.release_reserved(page, class.pages());
    }

    /// The blocks on the quick list of the size class `index`, the newest first: where each begins,
    /// and its class.
    pub(super) fn quick_blocks(&self, index: usize) -> impl Iterator<Item = (u64, Class)> + '_ {
        let stack = self.quick.stacks.get(index);
        let shift = MIN_SHIFT + index as u32;
        (0..stack.map_or(0, |stack| stack.len)).filter_map(move |back| {
            let Loose { start, class } = stack?.nth(back).loose::<PAGE_KIB>(shift);
            Some((start, class))
        })
    }

    /// The blocks of the size class `index` that are kept for waiters.
    pub(super) fn kept_blocks(&self, index: usize) -> impl Iterator<Item = (u64, Class)> + '_ {
        let keepers = self.quick.keepers.iter().flatten();
        let kept = keepers.filter_map(|keeper| keeper.kept);
        kept.filter(move |(_, class)| class.index() == index)
    }

    /// Bytes of subpage blocks on quick lists, or kept, that lie in a page.
    pub(super) fn quick_bytes_in(&self, page: u32) -> u64 {
        let mut bytes = 0;
        for index in 0..QUICK_LISTS.min((Self::PAGE_SHIFT - MIN_SHIFT) as usize) {
            for (start, class) in self.quick_blocks(index).chain(self.kept_blocks(index)) {
                if (start >> Self::PAGE_SHIFT) as u32 == page {
                    bytes += class.block_bytes();
                }
            }
        }
        bytes
    }

    /// Whether the block of so many pages that begins at a page is on a quick list, or kept.
    pub(super) fn is_quick(&self, page: u32, pages: u32) -> bool {
        let index = Class::of_pages(pages, Self::PAGE_SHIFT).index();
        let start = u64::from(page) << Self::PAGE_SHIFT;
        let mut blocks = self.quick_blocks(index).chain(self.kept_blocks(index));
        blocks.any(|(other, _)| other == start)
    }

    /// Pages of the newest block on the quick list of a class of whole pages.
    pub(super) fn newest_pages(&self, shift: u32) -> u32 {
        let newest = self.quick_blocks((shift - MIN_SHIFT) as usize).next();
        newest.map_or(0, |(_, class)| class.pages())
    }
}
