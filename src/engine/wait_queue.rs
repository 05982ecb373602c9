// SPDX-License-Identifier: GPL-2.0

//! Who waits for a block, and whose turn it is: first come, first served.
//!
//! This decides and does not sleep: whoever calls it does all that under one lock, wakes whom it
//! names, and sleeps without the lock. The same file is checked on the host in every order in which
//! threads can run.
//!
//! # Rules
//!
//! - What comes back goes to the oldest waiter first. Free whole pages are set aside for it until it
//!   is served, however long that takes: a big request is not starved by small ones. Everybody else
//!   is *modest* meanwhile (see [`Request::modest`](super::Request)).
//! - A request below a page can be served from divided pages, which are of no use to bigger ones:
//!   so the oldest of these has its turn too.
//! - Who waits does not overtake: as long as it is not the oldest, divided pages are all that it
//!   may have.
//! - Whoever is woken looks once more; if that leads nowhere it keeps its place.
//!
//! # States of a waiter
//!
//! | state | comes by | goes by |
//! | --- | --- | --- |
//! | scanning | `enlist`; `scan` | `sleep`; `leave` |
//! | sleeping | `sleep` | `scan`, when it was woken or for a reason of its own; `leave` |
//!
//! Something that happens while it is scanning may have come too late for that look, so it *wakes*
//! it: `sleep` says no, and it looks again. So no wake-up is lost: a waiter is on the list before
//! its last look, and sleeps only when nothing has happened since that began. And none comes too
//! early: a sleeping waiter is woken only when it could be served.

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

/// A place for a waiter; without one it is on the list of those that are free.
pub struct WaiterSlot<R, W> {
    waiter: Option<Waiter<R, W>>,
    next_free: u32,
}

/// Somebody who waits for what `request` describes, and is woken through `wake`.
struct Waiter<R, W> {
    request: R,
    wake: W,
    /// Counts up: who came first.
    number: u64,
    small: bool,
    links: Links,
    scanning: bool,
    woken: bool,
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

/// All that wait. `R` describes what they want, `W` is how one is woken, `S` a table of slots.
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
    /// Nobody.
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

    /// Adds somebody, who is scanning. `small`: it wants less than a page.
    ///
    /// When there is no slot it is given back with the length of the table that is wanted in
    /// `new_table`, all default. A table that is of no more use is left there.
    pub fn enlist(
        &mut self,
        request: R,
        small: bool,
        wake: W,
        new_table: &mut Option<S>,
    ) -> Result<Ticket, (R, W, usize)> {
        if self.free == NONE {
            let len = self.slots.as_ref().map_or(0, |slots| slots.len());
            let want = (2 * len).max(FIRST);
            match new_table.take_if(|table| table.len() >= want) {
                Some(table) => *new_table = self.move_to(table),
                None => return Err((request, wake, want)),
            }
        }
        let ticket = self.free;
        self.number += 1;
        let queue = self.queues[usize::from(small)];
        let waiter = Waiter {
            request,
            wake,
            number: self.number,
            small,
            links: Links {
                prev: queue.last,
                next: NONE,
            },
            scanning: true,
            woken: false,
        };
        if let Some(slot) = self.slot_mut(ticket) {
            let next_free = slot.next_free;
            slot.waiter = Some(waiter);
            self.free = next_free;
        }
        match self.waiter_mut(queue.last) {
            Some(last) => last.links.next = ticket,
            None => self.queues[usize::from(small)].first = ticket,
        }
        self.queues[usize::from(small)].last = ticket;
        self.count += 1;
        Ok(Ticket(ticket))
    }

    /// Moves to a larger table. Gives the old one.
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

    /// Begins a look: whatever happens from here on wakes the waiter.
    pub fn scan(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.waiter_mut(ticket.0) {
            waiter.scanning = true;
            waiter.woken = false;
        }
    }

    /// Ends a look that led nowhere. Says whether to sleep: not if something has happened since it
    /// began.
    #[must_use]
    pub fn sleep(&mut self, ticket: Ticket) -> bool {
        let Some(waiter) = self.waiter_mut(ticket.0) else {
            return false;
        };
        waiter.scanning = waiter.woken;
        !waiter.woken
    }

    /// Whether a sleeping waiter is to look again.
    pub fn is_woken(&self, ticket: Ticket) -> bool {
        self.waiter(ticket.0).is_some_and(|waiter| waiter.woken)
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
            None => self.queues[usize::from(waiter.small)].first = next,
        }
        match self.waiter_mut(next) {
            Some(behind) => behind.links.prev = prev,
            None => self.queues[usize::from(waiter.small)].last = prev,
        }
        self.count -= 1;
    }

    /// Whether a waiter is the oldest: what is set aside is for it. So it is for whoever does not
    /// wait (`None`) when nobody does.
    pub fn may_have_all(&self, ticket: Option<Ticket>) -> bool {
        self.oldest() == ticket.map_or(NONE, |ticket| ticket.0)
    }

    /// Something has come back, or somebody has left: wakes whose turn it is and who `could` be
    /// served, given its request and whether it may have what is set aside. Gives those to be woken.
    ///
    /// Nobody wakes himself: what a waiter puts back after a look that led nowhere would lead it
    /// nowhere again.
    pub fn wake(
        &mut self,
        is_caller: impl Fn(&W) -> bool,
        mut could: impl FnMut(&R, bool) -> bool,
    ) -> [Option<&W>; 2] {
        let oldest = self.oldest();
        let small = self.queues[1].first;
        // A small one that is not the oldest, if there is one.
        let tickets = [oldest, if small == oldest { NONE } else { small }];
        let woken = [(tickets[0], true), (tickets[1], false)].map(|(ticket, all)| {
            let waiter = self.waiter_mut(ticket)?;
            if is_caller(&waiter.wake) {
                return None;
            }
            // One that is scanning has perhaps seen what was there before.
            if waiter.woken || !waiter.scanning && !could(&waiter.request, all) {
                return None;
            }
            waiter.woken = true;
            (!waiter.scanning).then_some(ticket)
        });
        woken.map(|ticket| Some(&self.waiter(ticket?)?.wake))
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
