// SPDX-License-Identifier: GPL-2.0

//! Copies of an arena on the host, as the module makes them: in steps, between which the source may
//! change.

use crate::engine::{Garbage, LiveExtent, LiveShape, Refusal, Reservation, Still};
use crate::host::Arena;

/// A copy that is being made.
pub struct Copying<const KIB: usize> {
    /// The target.
    pub target: Arena<KIB>,
    /// The page number in the source at which the next step begins.
    from: Option<u32>,
    /// The extents that the last step found, reserved in the target.
    found: Vec<(LiveExtent, Reservation)>,
}

impl<const KIB: usize> Copying<KIB> {
    /// Begins a copy to a new arena of `span` pages.
    pub fn new(span: u32) -> Self {
        let mut target = Arena::new(span);
        target.checked = false;
        Self {
            target,
            from: Some(0),
            found: Vec::new(),
        }
    }

    /// Reserves the next `max` extents of the source in the target. Returns whether there may be more.
    ///
    /// # Panics
    ///
    /// If the pages at an offset of the source are in use in the target.
    pub fn find(&mut self, source: &Arena<KIB>, max: u32) -> bool {
        let Some(from) = self.from else {
            return false;
        };
        let mut extents = Vec::new();
        self.from = source
            .engine
            .live_from(from, max, |extent| extents.push(extent));
        assert!(extents.len() <= max as usize, "more than were asked for");
        for extent in extents {
            let reservation = self.reserve(extent);
            self.found.push((extent, reservation));
        }
        true
    }

    fn reserve(&mut self, extent: LiveExtent) -> Reservation {
        loop {
            let target = &mut self.target;
            let result = target.engine.reserve_at(extent, &mut target.prealloc);
            target.step();
            match result {
                Ok(reservation) => return reservation,
                Err(Refusal::Need(metadata)) => target.make(metadata),
                Err(refusal) => panic!("{extent:?}: {refusal:?}"),
            }
        }
    }

    /// Backs these extents: with pages where the source has pages, with holes where it has none.
    pub fn fill(&mut self, source: &Arena<KIB>) {
        for (_, reservation) in &mut self.found {
            while reservation.missing() > 0 {
                if source.backed.contains_key(&reservation.next_page()) {
                    self.target.back(reservation, 1);
                } else {
                    let lazy = source.engine.is_lazy(reservation.next_page());
                    self.target.engine.leave_hole(reservation, 1, lazy);
                    self.target.step();
                }
            }
        }
    }

    /// Makes the blocks live that are still live in the source. If `all` is `false`, cancels all of them.
    pub fn commit(&mut self, source: &Arena<KIB>, all: bool) {
        let target = &mut self.target;
        for (extent, reservation) in self.found.drain(..) {
            let live = match extent.shape {
                LiveShape::Divided => loop {
                    match source.engine.copy_tree(extent.page, &mut target.prealloc) {
                        Ok(live) => break live,
                        Err(metadata) => target.make(metadata),
                    }
                },
                LiveShape::Block { .. } => match source.engine.still_has(extent) {
                    Still::Gone => false,
                    Still::Holed => true,
                    Still::Whole => reservation.is_lazy() || !target.engine.has_hole(&reservation),
                },
            };
            if !live || !all {
                target.undo(reservation);
                continue;
            }
            if extent.shape == LiveShape::Divided {
                target
                    .engine
                    .commit_divided(reservation, &mut target.prealloc);
                target.step();
            } else if target.engine.has_hole(&reservation) {
                target.engine.commit(reservation);
                target.step();
            } else {
                target.commit(reservation);
            }
        }
    }
}

impl<const KIB: usize> Arena<KIB> {
    /// Cancels a reservation, of which some pages may be holes.
    fn undo(&mut self, reservation: Reservation) {
        let mut rest = self.engine.cancel(reservation, &mut Garbage::default());
        while let Some(isolated) = rest {
            for page in isolated.range() {
                self.backed.remove(&page);
            }
            let mut garbage = Garbage::default();
            (_, rest) = self
                .engine
                .remove_isolated(isolated, &mut garbage, &mut |_| None);
        }
        self.step();
    }

    /// Copies all live blocks.
    pub fn copy(&self, span: u32) -> Self {
        let mut copying = Copying::new(span);
        while copying.find(self, 7) {
            copying.fill(self);
            copying.commit(self, true);
        }
        copying.target
    }
}
