// SPDX-License-Identifier: GPL-2.0-only

//! Freeing.
//!
//! A block without a header is free at once, on its quick list as a rule. A block with a header becomes
//! reserved for the call that frees it, which checks the header without the lock and then releases the
//! block. So exactly one of several calls that free it at the same time succeeds.

use super::class::Class;
use super::head::{Head, Memory};
use super::holes::Holed;
use super::request::{header_bytes, FreeError, Releasing};
use super::{Backend, Engine, Garbage};

/// The rest of a release that [`Engine::free`] leaves to the caller. The block stays reserved until
/// that is done.
#[must_use = "a block that is not released to its end is lost"]
#[derive(Debug)]
pub enum Unfinished {
    /// The block has a header: check it, then call [`Engine::release`].
    Headed(Releasing),
    /// The quick list is full: pass this block, the freed one or the oldest, to [`Engine::merge`].
    Loose(Loose),
    /// The block has pages without memory: pass it to [`Engine::release_holed`].
    Holed(Holed),
}

/// How a taken block is to be released.
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
    /// Returns whether it has whole pages, so that [`Engine::merge_whole`] takes it.
    pub fn is_pages(&self) -> bool {
        !self.class.is_subpage()
    }
}

impl<B: Backend, const PAGE_KIB: usize> Engine<B, PAGE_KIB> {
    /// Frees the live block at `offset`. Needs no metadata.
    ///
    /// Usually returns `None`: the block is free. `Some` is the rest of the release.
    #[inline(always)]
    pub fn free(&mut self, offset: u64) -> Result<Option<Unfinished>, FreeError> {
        let (start, class, kind) = self.take(offset)?;
        match kind {
            Kind::Headed => Ok(Some(Unfinished::Headed(Releasing { start, class }))),
            Kind::Plain(memory) => Ok(self.put(start, class, memory)),
        }
    }

    /// Makes a live block reserved. Returns where it begins, with its header, and its class.
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
            Some(Head::Subpage(tree, ..)) => {
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

    /// Returns why no block at page number `page` can be freed, where no extent begins.
    #[cold]
    pub(super) fn why_not(&self, page: u32) -> FreeError {
        match self.directory.extent_of(page) {
            Some((_, Head::Live { .. })) => FreeError::Inside,
            _ => FreeError::NotLive,
        }
    }

    /// Releases a block whose header was checked.
    pub fn release(&mut self, releasing: Releasing, garbage: &mut Garbage<B, PAGE_KIB>) {
        match self.put(releasing.start, releasing.class, Memory::Whole) {
            None | Some(Unfinished::Headed(_)) => {}
            Some(Unfinished::Loose(loose)) => self.merge(loose, garbage),
            // Lost pages are few, so the loop is short.
            Some(Unfinished::Holed(holed)) => {
                let mut rest = Some(holed);
                while let Some(holed) = rest {
                    rest = self.release_holed(holed, garbage).1;
                }
            }
        }
    }

    /// Frees a taken block. Returns the rest of the release.
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

    /// Gives up the claim of a taken block in an arena with holes. Returns the block if it has some.
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
