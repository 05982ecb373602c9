// SPDX-License-Identifier: MIT OR Apache-2.0

//! Freed small blocks that are held back from being allocated again, so that a double free is found: the block
//! is in the quarantine still.

use std::sync::PoisonError;

use super::central::NotLive;
use crate::sync::Mutex;

/// The number of blocks that are held back.
const BLOCKS: usize = 1024;

/// The blocks that were freed last, as their offsets plus 1; 0 is an empty entry.
pub(super) struct Quarantine(Mutex<Ring>);

struct Ring {
    blocks: Box<[usize; BLOCKS]>,
    /// The index of the oldest block, and of the next entry to be written.
    next: usize,
}

impl Quarantine {
    /// Makes an empty quarantine.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Ring {
            blocks: Box::new([0; BLOCKS]),
            next: 0,
        }))
    }

    /// Holds a block back, and returns the oldest if the quarantine was full.
    ///
    /// # Errors
    ///
    /// [`NotLive`] if the block is in the quarantine already.
    pub(super) fn detain(&self, offset: usize) -> Result<Option<usize>, NotLive> {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.blocks.contains(&(offset + 1)) {
            return Err(NotLive { offset });
        }
        let next = ring.next;
        let oldest = std::mem::replace(&mut ring.blocks[next], offset + 1);
        ring.next = (next + 1) % BLOCKS;
        Ok(oldest.checked_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_released_and_none_is_accepted_twice() {
        let quarantine = Quarantine::new();
        for offset in 0..BLOCKS {
            assert_eq!(quarantine.detain(offset), Ok(None));
        }
        assert_eq!(quarantine.detain(0), Err(NotLive { offset: 0 }));
        assert_eq!(quarantine.detain(BLOCKS), Ok(Some(0)));
        assert_eq!(quarantine.detain(0), Ok(Some(1)));
        let twice = BLOCKS - 1;
        assert_eq!(quarantine.detain(twice), Err(NotLive { offset: twice }));
    }
}
