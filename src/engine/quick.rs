// SPDX-License-Identifier: GPL-2.0

//! Quick lists: blocks that were freed a moment ago, as they were, newest first.
//!
//! The same size again costs neither a split nor a merge. They are bounded in number and bytes, and
//! no block on them is above [`MAX_BYTES`]; what overflows goes to its buddies, the oldest first.
//! All of them do so when a request finds nothing else. (Magazines: Bonwick and Adams, 2001.) As
//! many as go in one batch have room, so that a batch that was freed is the next one.
//!
//! A block on a quick list is neither free nor live in its page's record or tree, like one that is
//! pending: nobody else can take it, nobody can free it.

use super::backend::{Backend, Kit};
use super::class::{page_shift, Class, Shape, MIN_SHIFT};
use super::directory::{Head, MAX_PAGES};
use super::free::Loose;
use super::{Engine, Pending, Request, BATCH};
use core::ops::DerefMut;

/// The largest block on a quick list, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// The most bytes on one list of blocks of whole pages, but for one block.
const LIST_BYTES: u64 = 1 << 18;
/// The same of parts of pages, of 1 KiB: what is kept from joining keeps more of a larger page.
const SUBPAGE_BYTES: u64 = 1 << 19;
/// The most blocks on one list; a power of 2.
const LEN: u32 = BATCH;
/// Size classes with a list.
pub const QUICK_LISTS: usize = (MAX_BYTES.ilog2() - MIN_SHIFT + 1) as usize;

/// A block on a quick list.
///
/// Of a part of a page: where it begins, in granules of 32 bytes. Of whole pages: the first one and,
/// in the low 8 bits, how many there are, less one.
#[derive(Clone, Copy, Default)]
struct Entry(u32);

impl Entry {
    /// `None` where a part begins too far away: with pages above 8 KiB an arena may be so large.
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

    /// Where the block begins, which is a part of a page.
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

    /// Adds one. Gives the oldest, if there are `most` of them already.
    #[inline]
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

/// The quick lists of an arena, by size class.
pub(super) struct Quick<S> {
    stacks: S,
    /// Nothing is put on them.
    closed: bool,
}

impl<S: DerefMut<Target = [Stack]>> Quick<S> {
    /// `stacks` are [`QUICK_LISTS`], all default.
    pub(super) fn new(stacks: S) -> Self {
        Self {
            stacks,
            closed: false,
        }
    }

    /// The most blocks on the list of a class.
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

    /// Puts a block that was freed on the list of its class. Gives what that has no room for:
    /// itself, or the oldest.
    #[inline(always)]
    pub(super) fn put<const PAGE_KIB: usize>(&mut self, start: u64, class: Class) -> Option<Loose> {
        let stack = self.stacks.get_mut(class.index());
        match (stack, Entry::new::<PAGE_KIB>(start, class)) {
            (Some(stack), Some(entry)) if !self.closed => {
                let oldest = stack.push(entry, Self::most::<PAGE_KIB>(class))?;
                Some(oldest.loose::<PAGE_KIB>(class.shift()))
            }
            _ => Some(Loose { start, class }),
        }
    }
}

impl<M: Backend, const PAGE_KIB: usize> Engine<M, PAGE_KIB> {
    /// Reserves a block of `size` bytes that is on a quick list: what [`Engine::reserve`] does first
    /// for a request that is neither headed, contiguous nor modest. `None` where that says more.
    ///
    /// Inlined with [`Engine::commit`], so that nothing is asked of the block that is known of it.
    #[inline(always)]
    pub fn reserve_fast(&mut self, size: u64) -> Option<Pending> {
        let request = Request {
            size,
            ..Request::default()
        };
        let class = Class::of(&request, Self::PAGE_SHIFT).ok()?;
        self.reserve_quick(&request, class)
    }

    /// The block of a class that was freed last, where a request may have it.
    pub(super) fn has_quick(&self, request: &Request, class: Class) -> bool {
        let newest = self.quick.stacks.get(class.index()).and_then(Stack::newest);
        newest.is_some_and(|entry| Self::quick_start(entry, request, class).is_some())
    }

    /// Where a block on the quick list of a class begins, if a request may have it.
    #[inline(always)]
    fn quick_start(entry: Entry, request: &Request, class: Class) -> Option<u64> {
        if class.is_subpage() {
            return Some(entry.subpage());
        }
        // The blocks of such a class differ in length.
        let (start, pages) = entry.pages::<PAGE_KIB>();
        (!request.modest && pages == class.pages()).then_some(start)
    }

    /// Reserves the block of a class that was freed last, as it is.
    #[inline(always)]
    pub(super) fn reserve_quick(&mut self, request: &Request, class: Class) -> Option<Pending> {
        let start = self.pop_quick(request, class)?;
        self.claimed += class.block_bytes();
        Some(Pending {
            headed: request.headed,
            ..Pending::ready(start, class, request.size)
        })
    }

    /// Takes the block of a class that was freed last off its quick list, where a request may have
    /// it.
    #[inline(always)]
    pub(super) fn pop_quick(&mut self, request: &Request, class: Class) -> Option<u64> {
        let stack = self.quick.stacks.get_mut(class.index())?;
        let start = Self::quick_start(stack.newest()?, request, class)?;
        stack.pop();
        Some(start)
    }

    /// From now on freed blocks join what is free around them `at_once`, or again after a while.
    pub fn merge_at_once(&mut self, at_once: bool, kit: &mut Kit<M, PAGE_KIB>) {
        self.quick.closed = at_once;
        if at_once {
            self.drain(kit);
        }
    }

    /// Empties the quick lists: their blocks join what is free around them. Says whether there
    /// were any.
    pub fn drain(&mut self, kit: &mut Kit<M, PAGE_KIB>) -> bool {
        let mut any = false;
        for index in 0..QUICK_LISTS {
            while let Some(entry) = self.quick.stacks.get_mut(index).and_then(Stack::pop) {
                self.merge(entry.loose::<PAGE_KIB>(MIN_SHIFT + index as u32), kit);
                any = true;
            }
        }
        any
    }

    /// A block that was freed, and is on no list, joins what is free around it.
    #[inline(never)]
    pub fn merge(&mut self, Loose { start, class }: Loose, kit: &mut Kit<M, PAGE_KIB>) {
        let page = (start >> Self::PAGE_SHIFT) as u32;
        match class.shape() {
            Shape::Subpage { shift } => self.give_node(page, Self::node(start, shift), kit),
            Shape::Pages { order, .. } => match self.directory.take_head(page, order) {
                Some(Head::Reserved {
                    order,
                    whole,
                    pages,
                    ..
                }) => self.release_block(page, order, whole, pages),
                _ => debug_assert!(false, "a block that was freed is reserved"),
            },
        }
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

    /// Bytes of blocks on quick lists of parts that lie in a page.
    pub(super) fn quick_bytes_in(&self, page: u32) -> u64 {
        let mut bytes = 0;
        for index in 0..QUICK_LISTS.min((Self::PAGE_SHIFT - MIN_SHIFT) as usize) {
            for (start, class) in self.quick_blocks(index) {
                if (start >> Self::PAGE_SHIFT) as u32 == page {
                    bytes += class.block_bytes();
                }
            }
        }
        bytes
    }

    /// Whether the block of whole pages that begins at a page, in a slot of `order`, is on a quick
    /// list.
    pub(super) fn is_quick(&self, page: u32, order: u8) -> bool {
        let index = (Self::PAGE_SHIFT - MIN_SHIFT) as usize + usize::from(order);
        let start = u64::from(page) << Self::PAGE_SHIFT;
        self.quick_blocks(index).any(|(other, _)| other == start)
    }

    /// Pages of the newest block on the quick list of a class of whole pages.
    pub(super) fn newest_pages(&self, shift: u32) -> u32 {
        let newest = self.quick_blocks((shift - MIN_SHIFT) as usize).next();
        newest.map_or(0, |(_, class)| class.pages())
    }
}
