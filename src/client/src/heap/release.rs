// SPDX-License-Identifier: MIT OR Apache-2.0

//! Releases. The fast path is [`Shared::free`], as far as the calling thread can keep the block.

use std::io::{self, Write};
use std::process;
use std::ptr::NonNull;
use std::sync::Once;

use super::central::NotLive;
use super::class::{Class, UNIT_BYTES};
use super::quarantine::Quarantine;
use super::{local, Shared};
use crate::error::{Error, Result};

/// Whether a call failed because the program has closed the arena's file, or has another one of its number
/// by now.
pub(super) fn is_of_closed_file(error: &Error) -> bool {
    use nix::errno::Errno;
    matches!(error.errno(), Some(Errno::EBADF | Errno::ENOTTY))
}

impl Shared {
    /// Takes a block back. Ends the program if it does not lie in the arena.
    #[inline]
    pub(super) fn free(&self, block: NonNull<u8>) {
        let offset = self.offset(block);
        let Some(place) = self.small.table.place(offset) else {
            self.misused(offset);
        };
        if local::with(self.id, |cache| cache.push(place, block)) != Some(true) {
            self.free_slow(block, offset);
        }
    }

    /// Takes a block back that this thread cannot keep.
    #[cold]
    #[inline(never)]
    fn free_slow(&self, block: NonNull<u8>, offset: usize) {
        match self.small.table.class(offset) {
            Some(class) => self.spill(class, block, offset),
            None => self.free_large(offset),
        }
    }

    /// Takes a block back of which this thread has enough, or where its cache of another heap is the one at
    /// hand; or one that is none.
    fn spill(&self, class: Class, block: NonNull<u8>, offset: usize) {
        if class.block_at(offset).is_none() {
            self.misused(offset);
        }
        if let Some(quarantine) = &self.quarantine {
            return self.detain(quarantine, offset);
        }
        let spilled = local::attached(self, |cache| self.small.spill(self, cache, class, block));
        let spilled = spilled.unwrap_or_else(|| self.small.put_offsets(self, class, &[offset]));
        self.unless_misused(spilled);
    }

    /// Takes a small block back that is not to be handed out again soon.
    fn detain(&self, quarantine: &Quarantine, offset: usize) {
        // Nothing is known of blocks in a forked child.
        if self.must_be_here().is_err() {
            return;
        }
        match quarantine.detain(offset) {
            Ok(None) => {}
            Ok(Some(oldest)) => match self.small.table.class(oldest) {
                Some(class) => {
                    self.unless_misused(self.small.put_offsets(self, class, &[oldest]));
                }
                None => self.misused(oldest),
            },
            Err(NotLive { offset }) => self.misused(offset),
        }
    }

    /// Takes a block back that lies in no slab.
    #[inline(never)]
    fn free_large(&self, offset: usize) {
        // Nothing is known of blocks in a forked child, nor theirs to give back.
        if self.must_be_here().is_err() {
            return;
        }
        // First, as the thread that gets the place next says what is there.
        if self.small.table.clear_large(offset).is_none() {
            self.misused(offset);
        }
        match self.arena.free(offset as u64) {
            Ok(_) => {}
            Err(error) if is_of_closed_file(&error) => self.say_file_is_closed(),
            Err(_) => self.misused(offset),
        }
    }

    /// Says once that nothing comes back to the arena any more: it has its memory until the process
    /// ends.
    #[cold]
    pub(super) fn say_file_is_closed(&self) {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            // A closed stderr is no reason to end.
            let _ = writeln!(
                io::stderr(),
                "freelist: the file of a heap was closed, as by close_range() or by a daemon: what is \
                 freed stays in use until the process ends, and no more can be had"
            );
        });
    }

    /// Returns the bytes of a block; ends the program where none begins.
    pub(super) fn usable(&self, block: NonNull<u8>) -> Result<usize> {
        self.must_be_here()?;
        let offset = self.offset(block);
        let bytes = self.small.table.block(offset);
        Ok(bytes.unwrap_or_else(|| self.misused(offset)))
    }

    /// Ends the program if a block that came back was not live.
    pub(super) fn unless_misused<T>(&self, result: std::result::Result<T, NotLive>) -> T {
        result.unwrap_or_else(|NotLive { offset }| self.misused(offset))
    }

    /// Ends the program: memory that may be in use elsewhere by now would go on to be used.
    #[cold]
    pub(super) fn misused(&self, offset: usize) -> ! {
        let address = self.mapping.as_ptr().as_ptr().wrapping_add(offset);
        // A closed stderr is no reason to go on.
        let _ = writeln!(
            io::stderr(),
            "freelist: {address:p} is freed or resized, but no live block of the heap starts there: \
             freed before?"
        );
        process::abort()
    }

    /// Returns the offset of an address: beyond the mapping for one that is not in it.
    #[inline]
    pub(super) fn offset(&self, address: NonNull<u8>) -> usize {
        self.small.offset(address.as_ptr())
    }

    /// Fails if the mapping lessens an offset's alignment.
    pub(super) fn can_align(&self, align: usize) -> Result<()> {
        let base = self.mapping.as_ptr().addr().get();
        match base & (align - 1) {
            0 => Ok(()),
            _ => Err(Error::Alignment { align }),
        }
    }
}

const _: () = assert!(UNIT_BYTES.is_power_of_two());
