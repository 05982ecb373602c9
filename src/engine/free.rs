// SPDX-License-Identifier: GPL-2.0-only

//! Blocks that come back.
//!
//! One without a header is free at once, on its quick list as a rule. One with a header is taken
//! first: it is reserved for the call that frees it, which looks at the header without the lock and
//! then releases the block. So of calls that free it at the same time exactly one gets it.

use super::class::Class;
use super::head::{Head, Memory};
use super::holes::Holed;
use super::request::{header_bytes, FreeError, Releasing};
use super::{Backend, Engine, Garbage};

/// What is left to do of a release. The block is reserved until then.
#[must_use = "a block that is not released to its end is lost"]
#[derive(Debug)]
pub enum Unfinished {
    /// It has a header to look at: then it goes to [`Engine::release`].
    Headed(Releasing),
    /// There is no room on its quick list: some block goes to [`Engine::merge`].
    Loose(Loose),
    /// Some of its pages have no memory: it goes to [`Engine::release_holed`].
    Holed(Holed),
}

/// What a block that was taken is, beside its class.
enum Kind {
    Headed,
    Plain(Memory),
}

/// A block that was freed and is on no list.
#[derive(Debug)]
pub struct Loose {
    pub(super) start: u64,
    pub(super) class: Class,
}

impl Loose {
    /// Whether it is whole pages: then it may go to [`Engine::merge_whole`].
    pub fn is_pages(&self) -> bool {
        !self.class.is_subpage()
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Frees the live block that the caller knows by `offset`. Needs no metadata.
    ///
    /// As a rule that is all. `Some`: no other request can get the block until the rest is done.
    #[inline(always)]
    pub fn free(&mut self, offset: u64) -> Result<Option<Unfinished>, FreeError> {
        let (start, class, kind) = self.take(offset)?;
        match kind {
            Kind::Headed => Ok(Some(Unfinished::Headed(Releasing { start, class }))),
            Kind::Plain(memory) => Ok(self.put(start, class, memory)),
        }
    }

    /// Makes a live block a reserved one: where it begins, its class, what else it is.
    #[inline(always)]
    fn take(&mut self, offset: u64) -> Result<(u64, Class, Kind), FreeError> {
        if offset % 16 != 0 {
            return Err(FreeError::Misaligned);
        }
        if offset >= self.span_bytes() {
            return Err(FreeError::Beyond);
        }
        let page = (offset >> Self::PAGE_SHIFT) as u32;
        let within = offset & (Self::PAGE_BYTES - 1);
        let (class, headed, memory) = match self.directory.head_mut(page) {
            Some(Head::Subpage(tree)) => {
                let (shift, headed) = tree.end_live(within)?;
                let class = Class::of_subpage(shift, Self::PAGE_SHIFT);
                (class, headed, Memory::Whole)
            }
            Some(head) => match *head {
                Head::Live {
                    pages,
                    memory,
                    headed,
                    ..
                } if within == header_bytes(headed) => {
                    *head = Head::Reserved {
                        pages,
                        backed: pages,
                        awaits_memory: false,
                    };
                    (Class::of_pages(pages, Self::PAGE_SHIFT), headed, memory)
                }
                Head::Live { .. } => return Err(FreeError::Inside),
                _ => return Err(FreeError::NotLive),
            },
            None => return Err(self.why_not(page)),
        };
        let stats = &mut self.stats[class.index()];
        stats.frees = stats.frees.wrapping_add(1);
        if !class.is_subpage() {
            stats.live_pages -= u64::from(class.pages());
        }
        let kind = match headed {
            true => Kind::Headed,
            false => Kind::Plain(memory),
        };
        Ok((offset - header_bytes(headed), class, kind))
    }

    /// Why nothing that begins at page number `page` can be freed.
    #[cold]
    pub(super) fn why_not(&self, page: u32) -> FreeError {
        match self.directory.extent_of(page) {
            Some((_, Head::Live { .. })) => FreeError::Inside,
            _ => FreeError::NotLive,
        }
    }

    /// Ends the release of a block with a header.
    pub fn release(&mut self, releasing: Releasing, garbage: &mut Garbage<B, PAGE_KIB>) {
        match self.put(releasing.start, releasing.class, Memory::Whole) {
            None | Some(Unfinished::Headed(_)) => {}
            Some(Unfinished::Loose(loose)) => self.merge(loose, garbage),
            // Pages that were lost: they are few.
            Some(Unfinished::Holed(holed)) => {
                let mut rest = Some(holed);
                while let Some(holed) = rest {
                    rest = self.release_holed(holed, garbage).1;
                }
            }
        }
    }

    /// Frees a block that was taken. Returns what is left to do.
    #[inline(always)]
    fn put(&mut self, start: u64, class: Class, memory: Memory) -> Option<Unfinished> {
        if self.may_have_holes() {
            if let Some(rest) = self.put_holed(start, class, memory) {
                return Some(rest);
            }
        } else {
            self.claimed -= class.block_bytes();
        }
        let loose = self.quick.put::<PAGE_KIB>(start, class);
        loose.map(Unfinished::Loose)
    }

    /// Takes the claim of a block that may have holes. Returns it if it has some.
    #[cold]
    #[inline(never)]
    fn put_holed(&mut self, start: u64, class: Class, memory: Memory) -> Option<Unfinished> {
        let (page, pages) = (class.page_of(start), class.pages());
        if !class.is_subpage() {
            return self.take_holed(page, pages, memory).map(Unfinished::Holed);
        }
        self.claimed -= class.block_bytes();
        let lost = self.holes > 0 && self.has_holes(page, pages);
        lost.then_some(Unfinished::Loose(Loose { start, class }))
    }
}
