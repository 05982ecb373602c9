// SPDX-License-Identifier: GPL-2.0

//! Blocks that come back.
//!
//! One without a header is free at once, on its quick list as a rule. One with a header is taken
//! first: it is reserved for whoever releases it, who looks at the header without the lock and then
//! gives the block back. So of those that release it at the same time exactly one gets it.

use super::backend::{Backend, Kit};
use super::class::Class;
use super::directory::Head;
use super::{header_bytes, Engine, FreeError, Pending};

/// What is left to do of a release. The block is reserved until then.
#[must_use = "a block that is not released to its end is lost"]
#[derive(Debug)]
pub enum Unfinished {
    /// It has a header to look at: then it is for [`Engine::give_back`].
    Headed(Pending),
    /// There is no room on its quick list: some block is for [`Engine::merge`].
    Loose(Loose),
}

/// A block that was freed and is on no list.
#[derive(Debug)]
pub struct Loose {
    pub(super) start: u64,
    pub(super) class: Class,
}

impl<M: Backend, const PAGE_KIB: usize> Engine<M, PAGE_KIB> {
    /// Gives the live block back that the caller knows by `offset`. Needs no memory.
    ///
    /// As a rule that is all. `Some`: nobody else can get the block until the rest is done.
    #[inline(always)]
    pub fn free(&mut self, offset: u64) -> Result<Option<Unfinished>, FreeError> {
        let (start, class, headed) = self.take(offset)?;
        if headed {
            return Ok(Some(Unfinished::Headed(Pending {
                headed,
                ..Pending::ready(start, class, 0)
            })));
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
                Head::Live {
                    order,
                    whole,
                    pages,
                    headed,
                } if within == header_bytes(headed) => {
                    *head = Head::Reserved {
                        order,
                        whole,
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
        let stats = &mut self.class_stats[class.index()];
        stats.frees += 1;
        if !class.is_subpage() {
            stats.live_pages -= u64::from(class.pages());
        }
        Ok((offset - header_bytes(headed), class, headed))
    }

    /// Why nothing that begins at page number `page` can be freed.
    #[cold]
    fn why_not(&self, page: u32) -> FreeError {
        match self.directory.locate(page, Self::MAX_ORDER) {
            Some((first, Head::Live { pages, .. })) if page - first < *pages => FreeError::Inside,
            _ => FreeError::NotLive,
        }
    }

    /// Frees a block that [`Engine::free`] has taken.
    pub fn give_back(&mut self, taken: Pending, kit: &mut Kit<M, PAGE_KIB>) {
        if let Some(loose) = self.put(taken.start, taken.class) {
            self.merge(loose, kit);
        }
    }

    /// Frees a block that was taken. Gives one that is to be merged.
    #[inline(always)]
    fn put(&mut self, start: u64, class: Class) -> Option<Loose> {
        self.claimed -= class.block_bytes();
        self.quick.put::<PAGE_KIB>(start, class)
    }
}
