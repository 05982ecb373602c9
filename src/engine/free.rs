// SPDX-License-Identifier: GPL-2.0

//! Blocks that come back.
//!
//! One without a header is free at once, on its quick list as a rule. One with a header is taken
//! first: it is reserved for the call that frees it, which looks at the header without the lock and
//! then releases the block. So of calls that free it at the same time exactly one gets it.

use super::class::Class;
use super::directory::Head;
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
        let (start, class, headed) = self.take(offset)?;
        if headed {
            return Ok(Some(Unfinished::Headed(Releasing { start, class })));
        }
        Ok(self.put(start, class).map(Unfinished::Loose))
    }

    /// Makes a live block a reserved one: where it begins, its class, whether it has a header.
    #[inline(always)]
    fn take(&mut self, offset: u64) -> Result<(u64, Class, bool), FreeError> {
        if offset % 16 != 0 {
            return Err(FreeError::Misaligned);
        }
        if offset >= self.span_bytes() {
            return Err(FreeError::Beyond);
        }
        let page = (offset >> Self::PAGE_SHIFT) as u32;
        let within = offset & (Self::PAGE_BYTES - 1);
        let (class, headed) = match self.directory.head_mut(page) {
            Some(Head::Subpage(tree)) => {
                let (shift, headed) = tree.end_live(within)?;
                (Class::of_subpage(shift, Self::PAGE_SHIFT), headed)
            }
            Some(head) => match *head {
                Head::Live { pages, headed, .. } if within == header_bytes(headed) => {
                    *head = Head::Reserved {
                        pages,
                        backed: pages,
                    };
                    (Class::of_pages(pages, Self::PAGE_SHIFT), headed)
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
        Ok((offset - header_bytes(headed), class, headed))
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
        if let Some(loose) = self.put(releasing.start, releasing.class) {
            self.merge(loose, garbage);
        }
    }

    /// Frees a block that was taken. Returns one that is to be merged.
    #[inline(always)]
    fn put(&mut self, start: u64, class: Class) -> Option<Loose> {
        self.claimed -= class.block_bytes();
        if self.lost > 0 && self.has_lost(class.page_of(start), class.pages()) {
            return Some(Loose { start, class });
        }
        self.quick.put::<PAGE_KIB>(start, class)
    }
}
