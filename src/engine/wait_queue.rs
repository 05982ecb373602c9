// SPDX-License-Identifier: GPL-2.0-only

//! The queue of waiters for a block: first come, first served.
//!
//! The queue only decides. Its caller makes all calls under one lock, wakes the waiters that the queue
//! names, and sleeps without the lock. Tests on the host run this file in every order in which threads
//! can run.
//!
//! # Rules
//!
//! - Freed memory goes to the oldest waiter first. Free whole pages are set aside for it until it is
//!   served, however long that takes, so that small requests do not starve a large one. All other
//!   requests are admitted to less meanwhile ([`Admission`]).
//! - A subpage request can be served from divided pages, which are of no use to larger requests. So the
//!   oldest waiter for a subpage block is woken too.
//! - A waiter that is not the oldest takes free subpage blocks alone, so that it overtakes no other.
//! - A woken waiter scans once more. If the scan fails, the waiter keeps its place.
//!
//! No wake-up is lost: a waiter is in the queue before its last scan, and sleeps only when no wake-up
//! came since that scan began. No waiter is woken in vain: a sleeping waiter is woken only when its
//! request could be served, or never can be.

use super::request::Admission;
use core::ops::DerefMut;

/// The index of no slot.
const NONE: u32 = u32::MAX;
/// Slots of the first table.
const FIRST: usize = 32;

/// The index of a waiter's slot, valid until [`WaitQueue::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u32);

/// The previous and the next waiter of a queue, as indices of slots.
#[derive(Clone, Copy, Debug)]
struct Links {
    prev: u32,
    next: u32,
}

/// The state of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaiterState {
    /// Scans the free memory. [`WaitQueue::sleep`] makes it `Sleeping`, [`WaitQueue::wake`] makes it
    /// `ScanStale`.
    Scanning,
    /// Scans, but memory may have been freed too late for this scan: [`WaitQueue::sleep`] refuses, and
    /// [`WaitQueue::scan`] makes it `Scanning`.
    ScanStale,
    /// Sleeps. [`WaitQueue::wake`] makes it `Woken` when its request could be served;
    /// [`WaitQueue::scan`] makes it `Scanning` when a timeout or a signal ended the sleep.
    Sleeping,
    /// Was woken. [`WaitQueue::scan`] makes it `Scanning`.
    Woken,
}

/// A slot for a waiter. A slot without one is on the list of free slots.
pub struct WaiterSlot<R, W> {
    waiter: Option<Waiter<R, W>>,
    next_free: u32,
}

/// A thread that waits until `request` is served, and is woken through `wake`.
struct Waiter<R, W> {
    request: R,
    wake: W,
    /// The order of arrival: a later waiter has a larger number.
    number: u64,
    /// The request is for a subpage block.
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

/// The first and the last waiter of a queue, oldest first.
#[derive(Clone, Copy)]
struct Queue {
    first: u32,
    last: u32,
}

/// All waiters of an arena. `R` is a request, `W` the handle that wakes a thread, `S` a table of slots.
pub struct WaitQueue<R, W, S> {
    slots: Option<S>,
    /// The first free slot.
    free: u32,
    /// The waiters for whole pages, and those for subpage blocks.
    queues: [Queue; 2],
    count: u32,
    /// The number of the last waiter that was enlisted.
    number: u64,
    slot: core::marker::PhantomData<WaiterSlot<R, W>>,
}

impl<R, W, S: DerefMut<Target = [WaiterSlot<R, W>]>> WaitQueue<R, W, S> {
    /// Makes an empty queue.
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

    /// Returns the number of waiters.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Adds a waiter, in the state `Scanning`. `subpage`: its request is for a subpage block.
    ///
    /// Without a free slot, fails with the request, the handle, and the length that `new_table` has to
    /// have, in default slots. Leaves a table that it no longer uses in `new_table`.
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

    /// Moves all waiters to a larger table. Returns the old table.
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

    /// Begins a scan: a wake-up from here on makes it stale.
    pub fn scan(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.waiter_mut(ticket.0) {
            waiter.state = WaiterState::Scanning;
        }
    }

    /// Ends a scan that failed. Returns whether the waiter is to sleep: not if a wake-up came since the
    /// scan began.
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

    /// Returns whether a waiter is to scan again.
    pub fn is_woken(&self, ticket: Ticket) -> bool {
        self.waiter(ticket.0).is_some_and(|waiter| {
            matches!(waiter.state, WaiterState::Woken | WaiterState::ScanStale)
        })
    }

    /// Removes a waiter, served or not. The caller then calls [`WaitQueue::wake`]: the removed waiter
    /// may have been woken in place of another one, or been the oldest.
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
            Some(after) => after.links.prev = prev,
            None => self.queues[usize::from(waiter.subpage)].last = prev,
        }
        self.count -= 1;
    }

    /// Returns the admission of a request: of a waiter by its ticket. A request without a ticket comes
    /// after all waiters; `waits` says whether it is going to wait.
    pub fn admission(&self, ticket: Option<Ticket>, waits: bool) -> Admission {
        if self.oldest() == ticket.map_or(NONE, |ticket| ticket.0) {
            Admission::Full
        } else if waits {
            Admission::SubpageOnly
        } else {
            Admission::SubpageOrGrow
        }
    }

    /// Returns the requests to be served next: that of the oldest waiter, and that of the oldest waiter
    /// for a subpage block, if that is another one.
    pub fn next_requests(&self) -> [Option<&R>; 2] {
        self.next_tickets()
            .map(|ticket| Some(&self.waiter(ticket)?.request))
    }

    fn next_tickets(&self) -> [u32; 2] {
        let oldest = self.oldest();
        let small = self.queues[1].first;
        [oldest, if small == oldest { NONE } else { small }]
    }

    /// Wakes the waiters that are next ([`WaitQueue::next_requests`]) and `could` be served, after
    /// memory was freed or a waiter has left. `could` gets the request and its admission. Returns the
    /// handles of the threads that the caller has to wake.
    ///
    /// Leaves the calling waiter out: memory that it returns after a failed scan would make it fail
    /// again.
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
                    // Its scan may have missed the freed memory.
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

    /// Wakes the waiters whose requests can no longer be served at all, so that they fail. Visits at
    /// most `max_slots` slots, from the index `from` on. Calls `wake` with the handle of each thread
    /// that the caller has to wake.
    ///
    /// Returns the index at which the next call goes on; `None` at the end.
    pub fn wake_hopeless(
        &mut self,
        from: usize,
        max_slots: usize,
        is_hopeless: impl Fn(&R) -> bool,
        mut wake: impl FnMut(&W),
    ) -> Option<usize> {
        let slots = self.slots.as_mut()?;
        let end = slots.len();
        for waiter in slots
            .iter_mut()
            .skip(from)
            .take(max_slots)
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
        let next = from.saturating_add(max_slots);
        (next < end).then_some(next)
    }

    /// Returns the slot of the oldest waiter.
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
