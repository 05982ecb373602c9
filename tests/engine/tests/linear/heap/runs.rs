// SPDX-License-Identifier: GPL-2.0

//! Runs of free pages: found, taken and joined; new address space, and memory that is moved.

use super::{Heap, Kind, Record, EMPTY, NONE, PAGE};

impl Heap {
    /// Finds a run that has `pages` aligned pages.
    pub fn find(&self, is_backed: bool, pages: u32, align: u32, examined: &mut u32) -> Option<u32> {
        let lists = if is_backed {
            &self.backed
        } else {
            &self.unbacked
        };
        let mut index = lists.index(pages);
        loop {
            index = lists.next_with_a_run(index)?;
            let [mut run, last] = lists.heads[index];
            if !self.settings.newest_first {
                run = last;
            }
            let mut best = NONE;
            for _ in 0..self.settings.candidates {
                if run == NONE {
                    break;
                }
                *examined += 1;
                let record = self.records[run as usize];
                let start = run.next_multiple_of(align);
                if start + pages <= run + record.len {
                    if !self.settings.lowest {
                        return Some(run);
                    }
                    best = best.min(run);
                }
                run = if self.settings.newest_first {
                    record.next
                } else {
                    record.prev
                };
            }
            if best != NONE {
                return Some(best);
            }
            index += 1;
        }
    }

    /// Takes pages of a backed run; those before and after them stay free.
    pub fn take(&mut self, run: u32, pages: u32, align: u32) -> u32 {
        let len = self.remove(run);
        let mut start = run.next_multiple_of(align);
        if u64::from(pages) * PAGE <= self.settings.from_end {
            start = (run + len - pages) / align * align;
        }
        if start > run {
            self.insert(run, start - run, true);
        }
        if run + len > start + pages {
            self.insert(start + pages, run + len - start - pages, true);
        }
        start
    }

    /// Returns the longest backed run that is followed by enough address space: its beginning, the pages that the
    /// request can have of it, and its end. `hole` is the unbacked run that would serve the request alone.
    fn longest_before_space(
        &self,
        hole: Option<u32>,
        pages: u32,
        align: u32,
        examined: &mut u32,
    ) -> Option<(u32, u32, u32)> {
        let mut candidates = [NONE; 3];
        let frontier = self.counts.frontier;
        let left_of = |page: u32, records: &[Record]| match page.checked_sub(1) {
            Some(last) => records[last as usize].run_start,
            None => NONE,
        };
        candidates[0] = left_of(frontier, &self.records);
        if let Some(hole) = hole {
            candidates[1] = left_of(hole, &self.records);
        }
        if let Some(index) = self.backed.last_with_a_run() {
            candidates[2] = self.backed.heads[index][0];
        }
        let mut best: Option<(u32, u32, u32)> = None;
        for run in candidates {
            if run == NONE || self.records[run as usize].kind != Kind::Backed {
                continue;
            }
            *examined += 1;
            let start = run.next_multiple_of(align);
            let end = run + self.records[run as usize].len;
            if start >= end || start + pages <= end {
                continue;
            }
            let gap_end = if end == frontier {
                u32::MAX
            } else if self.records[end as usize].kind == Kind::Unbacked {
                end + self.records[end as usize].len
            } else {
                continue;
            };
            if start + pages <= gap_end && best.is_none_or(|(_, has, _)| has < end - start) {
                best = Some((run, end - start, end));
            }
        }
        best
    }

    /// Takes new memory: after a run that ends at unbacked pages, or in address space of its own.
    pub fn grow(&mut self, pages: u32, align: u32, examined: &mut u32) -> u32 {
        let frontier = self.counts.frontier;
        let hole = self.find(false, pages, align, examined);
        let longest = self.longest_before_space(hole, pages, align, examined);
        let (start, has) = if let Some((run, has, end)) = longest {
            let start = run.next_multiple_of(align);
            self.remove(run);
            if start > run {
                self.insert(run, start - run, true);
            }
            self.take_space(end, pages - has);
            (start, has)
        } else {
            let at = hole.unwrap_or(frontier);
            let start = at.next_multiple_of(align);
            if hole.is_none() && start > frontier {
                self.extend_to(start + pages);
                self.insert(frontier, start - frontier, false);
                self.back_pages(pages);
                return start;
            } else if start > at {
                let len = self.remove(at);
                self.insert(at, start - at, false);
                self.insert(start, len - (start - at), false);
            }
            self.take_space(start, pages);
            (start, 0)
        };
        self.back_pages(pages - has);
        start
    }

    fn extend_to(&mut self, end: u32) {
        if end > self.counts.frontier {
            self.counts.frontier = end;
            self.counts.space = self.counts.space.max(end);
            if self.records.len() < end as usize + 1 {
                self.records.resize(end as usize + 1, EMPTY);
            }
        }
    }

    /// Takes address space from the beginning of a run.
    fn take_space(&mut self, start: u32, pages: u32) {
        if start == self.counts.frontier {
            return self.extend_to(start + pages);
        }
        let len = self.remove(start);
        if len > pages {
            self.insert(start + pages, len - pages, false);
        }
    }

    /// Backs `missing` pages: new memory within the slack, otherwise that of free runs.
    fn back_pages(&mut self, missing: u32) {
        let max = self.peak + self.peak * self.settings.slack_permille / 1000;
        let after = (self.counts.held_pages + u64::from(missing)) * PAGE;
        let over = after.saturating_sub(max).div_ceil(PAGE);
        let mut move_pages = over.min(u64::from(missing)).min(self.free_backed) as u32;
        self.counts.held_pages += u64::from(missing - move_pages);
        self.counts.peak_held_pages = self.counts.peak_held_pages.max(self.counts.held_pages);
        self.counts.moved_pages += u64::from(move_pages);
        while move_pages > 0 {
            let from = if self.settings.move_largest {
                0
            } else {
                self.backed.index(2)
            };
            let index = if self.settings.move_largest {
                self.backed.last_with_a_run()
            } else {
                self.backed
                    .next_with_a_run(from)
                    .or(self.backed.next_with_a_run(0))
            };
            let run = self.backed.heads[index.expect("so many are free")][0];
            let len = self.remove(run);
            let part = len.min(move_pages);
            if len > part {
                self.insert(run, len - part, true);
            }
            self.release(run + len - part, part, false);
            move_pages -= part;
        }
    }

    /// Frees a range, and merges it with its neighbours of the same kind.
    pub fn release(&mut self, mut start: u32, mut len: u32, is_backed: bool) {
        let kind = if is_backed {
            Kind::Backed
        } else {
            Kind::Unbacked
        };
        if let Some(last) = start.checked_sub(1) {
            let left = self.records[last as usize].run_start;
            if left != NONE && self.records[left as usize].kind == kind {
                len += self.remove(left);
                start = left;
            }
        }
        let end = start + len;
        if end < self.counts.frontier && self.records[end as usize].kind == kind {
            len += self.remove(end);
        }
        if !is_backed && end == self.counts.frontier {
            // It is the last range: address space after it was never used.
            self.counts.frontier = start;
            return;
        }
        self.insert(start, len, is_backed);
    }

    fn insert(&mut self, start: u32, len: u32, is_backed: bool) {
        let lists = if is_backed {
            &mut self.backed
        } else {
            &mut self.unbacked
        };
        let index = lists.index(len);
        let [first, last] = lists.heads[index];
        lists.heads[index] = [start, if last == NONE { start } else { last }];
        lists.map[index / 64] |= 1 << (index % 64);
        self.records[start as usize] = Record {
            kind: if is_backed {
                Kind::Backed
            } else {
                Kind::Unbacked
            },
            len,
            prev: NONE,
            next: first,
            run_start: self.records[start as usize].run_start,
        };
        if first != NONE {
            self.records[first as usize].prev = start;
        }
        self.records[(start + len - 1) as usize].run_start = start;
        if is_backed {
            self.free_backed += u64::from(len);
        }
    }

    /// Removes a run from its list. Returns its length.
    fn remove(&mut self, start: u32) -> u32 {
        let Record {
            kind,
            len,
            prev,
            next,
            ..
        } = self.records[start as usize];
        let lists = if kind == Kind::Backed {
            &mut self.backed
        } else {
            &mut self.unbacked
        };
        assert!(
            matches!(kind, Kind::Backed | Kind::Unbacked),
            "{kind:?} at {start}"
        );
        let index = lists.index(len);
        if prev == NONE {
            lists.heads[index][0] = next;
        } else {
            self.records[prev as usize].next = next;
        }
        if next == NONE {
            lists.heads[index][1] = prev;
        } else {
            self.records[next as usize].prev = prev;
        }
        if lists.heads[index][0] == NONE {
            lists.map[index / 64] &= !(1 << (index % 64));
        }
        self.records[start as usize].kind = Kind::Inside;
        self.records[(start + len - 1) as usize].run_start = NONE;
        if kind == Kind::Backed {
            self.free_backed -= u64::from(len);
        }
        len
    }
}
