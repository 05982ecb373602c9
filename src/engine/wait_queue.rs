// SPDX-License-Identifier: GPL-2.0-only

//! Waiters for a block, and whose turn it is: first come, first served.
//!
//! This decides and does not sleep: its caller does all that under one lock, wakes the waiters that
//! are named, and sleeps without the lock. The same file is checked on the host in every order in
//! which threads can run.
//!
//! # Rules
//!
//! - What comes back goes to the oldest waiter first. Free whole pages are set aside for it until it
//!   is served, however long that takes: a big request is not starved by small ones. All others are
//!   admitted to less meanwhile ([`Admission`](super::Admission)).
//! - A request below a page can be served from divided pages, which are of no use to bigger ones: so
//!   the oldest of these has its turn too.
//! - A waiter does not overtake: as long as it is not the oldest, divided pages are all that it may
//!   have.
//! - A waiter that is woken scans once more; if that leads nowhere it keeps its place.
//!
//! No wake-up is lost: a waiter is in the queue before its last scan, and sleeps only when nothing
//! has happened since that began. And none comes too early: a sleeping waiter is woken only when it
//! could be served, or never can be.

use super::request::Admission;
use core::ops::DerefMut;

/// No slot.
const NONE: u32 = u32::MAX;
/// Slots of the first table.
const FIRST: usize = 32;

/// A waiter's place, which stays the same until it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u32);

/// Neighbours in a queue.
#[derive(Clone, Copy, Debug)]
struct Links {
    prev: u32,
    next: u32,
}

/// What a waiter is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaiterState {
    /// Looks for a block. [`WaitQueue::scan`] makes it so; [`WaitQueue::sleep`] makes it
    /// `Sleeping`, [`WaitQueue::wake`] makes it `ScanStale`.
    Scanning,
    /// The same, but something has happened since: it may have come too late for this scan, so
    /// [`WaitQueue::sleep`] refuses, and it scans again.
    ScanStale,
    /// Sleeps. [`WaitQueue::wake`] makes it `Woken` when it could be served,
    /// [`WaitQueue::scan`] makes it `Scanning` when it has a reason of its own.
    Sleeping,
    /// Is to scan again: [`WaitQueue::scan`].
    Woken,
}

/// A place for a waiter; without one it is on the list of those that are free.
pub struct WaiterSlot<R, W> {
    waiter: Option<Waiter<R, W>>,
    next_free: u32,
}

/// A thread that waits for what `request` describes, and is woken through `wake`.
struct Waiter<R, W> {
    request: R,
    wake: W,
    /// Counts up: which came first.
    number: u64,
    subpage: bool,
    links: Links,
    state: WaiterState,
}

impl<R, W> Default for WaiterSlot<R, W> {
    fn default() -> Self {
        Self {
            waiter: None,
            next_free: NONE,
        }
    }
}

/// A queue, oldest first.
#[derive(Clone, Copy)]
struct Queue {
    first: u32,
    last: u32,
}

/// All waiters. `R` describes what they want, `W` is how one is woken, `S` a table of slots.
pub struct WaitQueue<R, W, S> {
    slots: Option<S>,
    free: u32,
    /// Those that want whole pages, and those that want less.
    queues: [Queue; 2],
    count: u32,
    number: u64,
    slot: core::marker::PhantomData<WaiterSlot<R, W>>,
}

impl<R, W, S: DerefMut<Target = [WaiterSlot<R, W>]>> WaitQueue<R, W, S> {
    /// An empty queue.
    pub const fn new() -> Self {
        const EMPTY: Queue = Queue {
            first: NONE,
            last: NONE,
        };
        Self {
            slots: None,
            free: NONE,
            queues: [EMPTY; 2],
            count: 0,
            number: 0,
            slot: core::marker::PhantomData,
        }
    }

    /// How many wait.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Adds a waiter, which is scanning. `subpage`: it wants less than a page.
    ///
    /// When there is no slot it is returned with the length of the table that is wanted in
    /// `new_table`, all default. A table that is of no more use is left there.
    pub fn enlist(
        &mut self,
        request: R,
        subpage: bool,
        wake: W,
        new_table: &mut Option<S>,
    ) -> Result<Ticket, (R, W, usize)> {
        if self.free == NONE {
            let len = self.slots.as_ref().map_or(0, |slots| slots.len());
            let wanted = (2 * len).max(FIRST);
            match new_table.take_if(|table| table.len() >= wanted) {
                Some(table) => *new_table = self.move_to(table),
                None => return Err((request, wake, wanted)),
            }
        }
        let ticket = self.free;
        self.number += 1;
        let queue = self.queues[usize::from(subpage)];
        let waiter = Waiter {
            request,
            wake,
            number: self.number,
            subpage,
            links: Links {
                prev: queue.last,
                next: NONE,
            },
            state: WaiterState::Scanning,
        };
        if let Some(slot) = self.slot_mut(ticket) {
            let next_free = slot.next_free;
            slot.waiter = Some(waiter);
            self.free = next_free;
        }
        match self.waiter_mut(queue.last) {
            Some(last) => last.links.next = ticket,
            None => self.queues[usize::from(subpage)].first = ticket,
        }
        self.queues[usize::from(subpage)].last = ticket;
        self.count += 1;
        Ok(Ticket(ticket))
    }

    /// Moves to a larger table. Returns the old one.
    fn move_to(&mut self, mut table: S) -> Option<S> {
        let old = self
            .slots
            .as_mut()
            .map_or(&mut [][..], |slots| &mut **slots);
        let len = old.len();
        for (new, old) in table.iter_mut().zip(old) {
            core::mem::swap(new, old);
        }
        let end = table.len();
        for (index, slot) in table.iter_mut().enumerate().skip(len) {
            slot.next_free = if index + 1 < end {
                index as u32 + 1
            } else {
                NONE
            };
        }
        self.free = len as u32;
        self.slots.replace(table)
    }

    /// Begins a scan: whatever happens from here on makes it stale.
    pub fn scan(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.waiter_mut(ticket.0) {
            waiter.state = WaiterState::Scanning;
        }
    }

    /// Ends a scan that led nowhere. Returns whether to sleep: not if something has happened since
    /// it began.
    #[must_use]
    pub fn sleep(&mut self, ticket: Ticket) -> bool {
        match self.waiter_mut(ticket.0) {
            Some(waiter) if waiter.state == WaiterState::Scanning => {
                waiter.state = WaiterState::Sleeping;
                true
            }
            _ => false,
        }
    }

    /// Whether a waiter is to scan again.
    pub fn is_woken(&self, ticket: Ticket) -> bool {
        self.waiter(ticket.0).is_some_and(|waiter| {
            matches!(waiter.state, WaiterState::Woken | WaiterState::ScanStale)
        })
    }

    /// Removes a waiter, for whatever reason. Others are to be woken after that: it may have been
    /// woken, or been before them.
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(waiter) = self.slot_mut(ticket.0).and_then(|slot| slot.waiter.take()) else {
            debug_assert!(false, "a ticket is that of a waiter");
            return;
        };
        let free = core::mem::replace(&mut self.free, ticket.0);
        if let Some(slot) = self.slot_mut(ticket.0) {
            slot.next_free = free;
        }
        let Links { prev, next } = waiter.links;
        match self.waiter_mut(prev) {
            Some(before) => before.links.next = next,
            None => self.queues[usize::from(waiter.subpage)].first = next,
        }
        match self.waiter_mut(next) {
            Some(behind) => behind.links.prev = prev,
            None => self.queues[usize::from(waiter.subpage)].last = prev,
        }
        self.count -= 1;
    }

    /// What a request is admitted to: of a waiter by its ticket; of one that `waits` but is not in
    /// the queue yet, it is behind all that are.
    pub fn admission(&self, ticket: Option<Ticket>, waits: bool) -> Admission {
        if self.oldest() == ticket.map_or(NONE, |ticket| ticket.0) {
            Admission::Full
        } else if waits {
            Admission::SubpageOnly
        } else {
            Admission::SubpageOrGrow
        }
    }

    /// What those want whose turn it is: the oldest, and, where it is another one, the oldest that
    /// wants less than a page.
    pub fn next_requests(&self) -> [Option<&R>; 2] {
        self.next_tickets()
            .map(|ticket| Some(&self.waiter(ticket)?.request))
    }

    fn next_tickets(&self) -> [u32; 2] {
        let oldest = self.oldest();
        let small = self.queues[1].first;
        [oldest, if small == oldest { NONE } else { small }]
    }

    /// Something has come back, or a waiter has left: wakes those whose turn it is and that `could`
    /// be served, given the request and what it is admitted to. Returns those whose threads are to
    /// be woken.
    ///
    /// The caller itself is left out: what a waiter puts back after a scan that led nowhere would
    /// lead it nowhere again.
    pub fn wake(
        &mut self,
        is_caller: impl Fn(&W) -> bool,
        mut could: impl FnMut(&R, Admission) -> bool,
    ) -> [Option<&W>; 2] {
        let [oldest, small] = self.next_tickets();
        let woken = [(oldest, Admission::Full), (small, Admission::SubpageOnly)].map(
            |(ticket, admission)| {
                let waiter = self.waiter_mut(ticket)?;
                if is_caller(&waiter.wake) {
                    return None;
                }
                match waiter.state {
                    // Its scan has perhaps seen what was there before.
                    WaiterState::Scanning => {
                        waiter.state = WaiterState::ScanStale;
                        None
                    }
                    WaiterState::Sleeping if could(&waiter.request, admission) => {
                        waiter.state = WaiterState::Woken;
                        Some(ticket)
                    }
                    _ => None,
                }
            },
        );
        woken.map(|ticket| Some(&self.waiter(ticket?)?.wake))
    }

    /// Wakes waiters whose requests have become hopeless, so that they see it: of at most `most`
    /// slots from the one on that `from` says. Calls `wake` for each whose thread is to be woken.
    /// Returns where to go on, `None` at the end.
    pub fn wake_hopeless(
        &mut self,
        from: usize,
        most: usize,
        is_hopeless: impl Fn(&R) -> bool,
        mut wake: impl FnMut(&W),
    ) -> Option<usize> {
        let slots = self.slots.as_mut()?;
        let end = slots.len();
        for waiter in slots
            .iter_mut()
            .skip(from)
            .take(most)
            .filter_map(|slot| slot.waiter.as_mut())
        {
            if !is_hopeless(&waiter.request) {
                continue;
            }
            match waiter.state {
                WaiterState::Scanning => waiter.state = WaiterState::ScanStale,
                WaiterState::Sleeping => {
                    waiter.state = WaiterState::Woken;
                    wake(&waiter.wake);
                }
                WaiterState::ScanStale | WaiterState::Woken => {}
            }
        }
        let next = from.saturating_add(most);
        (next < end).then_some(next)
    }

    /// The waiter that came first.
    fn oldest(&self) -> u32 {
        let number = |queue: &Queue| {
            self.waiter(queue.first)
                .map_or(u64::MAX, |first| first.number)
        };
        let [whole, small] = &self.queues;
        if number(small) < number(whole) {
            small.first
        } else {
            whole.first
        }
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut WaiterSlot<R, W>> {
        self.slots.as_mut()?.get_mut(index as usize)
    }

    fn waiter(&self, index: u32) -> Option<&Waiter<R, W>> {
        self.slots.as_ref()?.get(index as usize)?.waiter.as_ref()
    }

    fn waiter_mut(&mut self, index: u32) -> Option<&mut Waiter<R, W>> {
        self.slot_mut(index)?.waiter.as_mut()
    }
}

impl<R, W, S: DerefMut<Target = [WaiterSlot<R, W>]>> Default for WaitQueue<R, W, S> {
    fn default() -> Self {
        Self::new()
    }
}
