// SPDX-License-Identifier: MIT OR Apache-2.0

//! Small blocks that were freed and are not handed out again soon, so that one that is freed twice is
//! seen: it is here still.

use std::sync::PoisonError;

use super::central::NotLive;
use crate::sync::Mutex;

/// Blocks that are kept.
const MOST: usize = 1024;

/// The blocks that were freed last, by their offsets plus 1; 0 is none.
pub(super) struct Quarantine(Mutex<Ring>);

struct Ring {
    blocks: Box<[usize; MOST]>,
    /// Where the oldest is, and the next comes.
    next: usize,
}

impl Quarantine {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Ring {
            blocks: Box::new([0; MOST]),
            next: 0,
        }))
    }

    /// Keeps a block, and returns the oldest if there are more than are kept.
    ///
    /// # Errors
    ///
    /// [`NotLive`] if it is here already.
    pub(super) fn detain(&self, offset: usize) -> Result<Option<usize>, NotLive> {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.blocks.contains(&(offset + 1)) {
            return Err(NotLive { offset });
        }
        let next = ring.next;
        let oldest = std::mem::replace(&mut ring.blocks[next], offset + 1);
        ring.next = (next + 1) % MOST;
        Ok(oldest.checked_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leaves_and_none_comes_twice() {
        let quarantine = Quarantine::new();
        for offset in 0..MOST {
            assert_eq!(quarantine.detain(offset), Ok(None));
        }
        assert_eq!(quarantine.detain(0), Err(NotLive { offset: 0 }));
        assert_eq!(quarantine.detain(MOST), Ok(Some(0)));
        assert_eq!(quarantine.detain(0), Ok(Some(1)));
        let twice = MOST - 1;
        assert_eq!(quarantine.detain(twice), Err(NotLive { offset: twice }));
    }
}
