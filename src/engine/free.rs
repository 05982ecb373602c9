// SPDX-License-Identifier: GPL-2.0

//! Blocks that come back.
//!
//! One without a header is free at once. One with a header is taken first: it is reserved for
//! whoever releases it, who looks at the header without the lock and then gives the block back. So
//! of those that release it at the same time exactly one gets it.

use super::class::Class;
use super::directory::{Head, Kit, Memory};
use super::tree;
use super::{header_bytes, Engine, FreeError, Pending};

impl<M: Memory, const PAGE_KIB: usize> Engine<M, PAGE_KIB> {
    /// Gives the live block back that the caller knows by `offset`. Needs no memory.
    ///
    /// `Some`: the block has a header. Nobody else can get it until it is given to
    /// [`Engine::give_back`].
    pub fn free(
        &mut self,
        offset: u64,
        kit: &mut Kit<M, PAGE_KIB>,
    ) -> Result<Option<Pending>, FreeError> {
        let taken = self.take(offset)?;
        if taken.headed {
            return Ok(Some(taken));
        }
        self.give_back(taken, kit);
        Ok(None)
    }

    /// Makes a live block a reserved one.
    fn take(&mut self, offset: u64) -> Result<Pending, FreeError> {
        if offset % 16 != 0 {
            return Err(FreeError::Misaligned);
        }
        if offset >= self.span_bytes() {
            return Err(FreeError::Beyond);
        }
        let page = (offset >> Self::PAGE_SHIFT) as u32;
        let within = offset & (Self::PAGE_BYTES - 1);
        let Some((first, head)) = self.directory.locate(page, Self::MAX_ORDER) else {
            return Err(FreeError::NotLive);
        };
        let (class, headed) = match *head {
            Head::Live {
                order,
                whole,
                pages,
                headed,
            } if page - first < pages => {
                if page != first || within != header_bytes(headed) {
                    return Err(FreeError::Inside);
                }
                if let Some(head) = self.directory.head_mut(first) {
                    *head = Head::Reserved {
                        order,
                        whole,
                        pages,
                        backed: pages,
                    };
                }
                (Class::of_pages(pages, Self::PAGE_SHIFT), headed)
            }
            Head::Broken(ref tree) if page == first => {
                let (node, headed) = tree.live_at(within)?;
                if let Some(Head::Broken(tree)) = self.directory.head_mut(page) {
                    tree.clear_live(node);
                }
                let shift = Self::PAGE_SHIFT - tree::depth(node);
                (Class::of_part(shift, Self::PAGE_SHIFT), headed)
            }
            _ => return Err(FreeError::NotLive),
        };
        let bytes = class.block_bytes();
        self.counters.live_bytes -= bytes;
        self.counters.pending_bytes += bytes;
        self.counters.live_blocks -= 1;
        self.counters.frees += 1;
        let counters = &mut self.classes[class.index()];
        counters.live -= 1;
        counters.held -= bytes;
        Ok(Pending {
            start: offset - header_bytes(headed),
            class,
            headed,
            requested: 0,
            had: class.pages(),
            stale: class.pages(),
            missing: 0,
            movable: false,
        })
    }

    /// Frees a block that [`Engine::free`] has taken.
    pub fn give_back(&mut self, taken: Pending, kit: &mut Kit<M, PAGE_KIB>) {
        let class = taken.class;
        let bytes = class.block_bytes();
        self.claimed -= bytes;
        self.counters.pending_bytes -= bytes;
        let counters = &mut self.classes[class.index()];
        counters.free += 1;
        counters.held += bytes;
        if let Some(oldest) = self.quick.push(class, taken.start) {
            self.merge_quick(class.index(), oldest, kit);
        }
    }
}
