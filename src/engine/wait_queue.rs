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
//! - A request below a page can be served from broken pages, which are of no use to bigger ones: so
//!   the oldest of these has its turn too.
//! - Who waits does not overtake: as long as it is not the oldest, broken pages are all that it may
//!   have.
//! - Whoever is called looks once more; if that leads nowhere it keeps its place.
//!
//! # States of a waiter
//!
//! | state | comes by | goes by |
//! | --- | --- | --- |
//! | looking | `enlist`; `look` | `rest`; `leave` |
//! | resting | `rest` | `look`, when it was called or for a reason of its own; `leave` |
//!
//! Something that happens while it is looking may have come too late for that look, so it *calls* it:
//! `rest` says no, and it looks again. So no wake-up is lost: a waiter is on the list before its last
//! look, and rests only when nothing has happened since that began. And none comes too early: a
//! resting waiter is called only when it could be served.

use core::ops::DerefMut;

/// No seat.
const NONE: u32 = u32::MAX;
/// Seats of the first table.
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
pub struct Seat<R, W> {
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
    looking: bool,
    called: bool,
}

impl<R, W> Default for Seat<R, W> {
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

/// All that wait. `R` describes what they want, `W` is how one is woken, `S` a table of seats.
pub struct Waiters<R, W, S> {
    seats: Option<S>,
    free: u32,
    /// Those that want whole pages, and those that want less.
    queues: [Queue; 2],
    count: u32,
    number: u64,
    seat: core::marker::PhantomData<Seat<R, W>>,
}

impl<R, W, S: DerefMut<Target = [Seat<R, W>]>> Waiters<R, W, S> {
    /// Nobody.
    pub const fn new() -> Self {
        const EMPTY: Queue = Queue {
            first: NONE,
            last: NONE,
        };
        Self {
            seats: None,
            free: NONE,
            queues: [EMPTY; 2],
            count: 0,
            number: 0,
            seat: core::marker::PhantomData,
        }
    }

    /// How many wait.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Adds somebody, who is looking. `small`: it wants less than a page.
    ///
    /// When there is no seat it is given back with the length of the table that is wanted in
    /// `spare`, all default. A table that is of no more use is left there.
    pub fn enlist(
        &mut self,
        request: R,
        small: bool,
        wake: W,
        spare: &mut Option<S>,
    ) -> Result<Ticket, (R, W, usize)> {
        if self.free == NONE {
            let len = self.seats.as_ref().map_or(0, |seats| seats.len());
            let want = (2 * len).max(FIRST);
            match spare.take_if(|table| table.len() >= want) {
                Some(table) => *spare = self.move_to(table),
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
            looking: true,
            called: false,
        };
        if let Some(seat) = self.seat_mut(ticket) {
            let next_free = seat.next_free;
            seat.waiter = Some(waiter);
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
            .seats
            .as_mut()
            .map_or(&mut [][..], |seats| &mut **seats);
        let len = old.len();
        for (new, old) in table.iter_mut().zip(old) {
            core::mem::swap(new, old);
        }
        let end = table.len();
        for (index, seat) in table.iter_mut().enumerate().skip(len) {
            seat.next_free = if index + 1 < end {
                index as u32 + 1
            } else {
                NONE
            };
        }
        self.free = len as u32;
        self.seats.replace(table)
    }

    /// Begins a look: whatever happens from here on calls the waiter.
    pub fn look(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.waiter_mut(ticket.0) {
            waiter.looking = true;
            waiter.called = false;
        }
    }

    /// Ends a look that led nowhere. Says whether to sleep: not if something has happened since it
    /// began.
    #[must_use]
    pub fn rest(&mut self, ticket: Ticket) -> bool {
        let Some(waiter) = self.waiter_mut(ticket.0) else {
            return false;
        };
        waiter.looking = waiter.called;
        !waiter.called
    }

    /// Whether a resting waiter is to look again.
    pub fn is_called(&self, ticket: Ticket) -> bool {
        self.waiter(ticket.0).is_some_and(|waiter| waiter.called)
    }

    /// Removes a waiter, for whatever reason. Others are to be called after that: it may have been
    /// called, or been before them.
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(waiter) = self.seat_mut(ticket.0).and_then(|seat| seat.waiter.take()) else {
            debug_assert!(false, "a ticket is that of a waiter");
            return;
        };
        let free = core::mem::replace(&mut self.free, ticket.0);
        if let Some(seat) = self.seat_mut(ticket.0) {
            seat.next_free = free;
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

    /// Something has come back, or somebody has left: calls whose turn it is and who `could` be
    /// served, given its request and whether it may have what is set aside. Gives those to be woken.
    ///
    /// Nobody calls himself: what a waiter puts back after a look that led nowhere would lead it
    /// nowhere again.
    pub fn call(
        &mut self,
        is_caller: impl Fn(&W) -> bool,
        mut could: impl FnMut(&R, bool) -> bool,
    ) -> [Option<&W>; 2] {
        let oldest = self.oldest();
        let small = self.queues[1].first;
        // A small one that is not the oldest, if there is one.
        let tickets = [oldest, if small == oldest { NONE } else { small }];
        let called = [(tickets[0], true), (tickets[1], false)].map(|(ticket, all)| {
            let waiter = self.waiter_mut(ticket)?;
            if is_caller(&waiter.wake) {
                return None;
            }
            // One that is looking has perhaps seen what was there before.
            if waiter.called || !waiter.looking && !could(&waiter.request, all) {
                return None;
            }
            waiter.called = true;
            (!waiter.looking).then_some(ticket)
        });
        called.map(|ticket| Some(&self.waiter(ticket?)?.wake))
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

    fn seat_mut(&mut self, index: u32) -> Option<&mut Seat<R, W>> {
        self.seats.as_mut()?.get_mut(index as usize)
    }

    fn waiter(&self, index: u32) -> Option<&Waiter<R, W>> {
        self.seats.as_ref()?.get(index as usize)?.waiter.as_ref()
    }

    fn waiter_mut(&mut self, index: u32) -> Option<&mut Waiter<R, W>> {
        self.seat_mut(index)?.waiter.as_mut()
    }
}

impl<R, W, S: DerefMut<Target = [Seat<R, W>]>> Default for Waiters<R, W, S> {
    fn default() -> Self {
        Self::new()
    }
}
