// SPDX-License-Identifier: GPL-2.0-only

//! Waits for a block, in the order that the engine's wait queue keeps.
//!
//! A waiter's task is woken by `wake_up()` in this file and in `bounds.rs`, and by `wake_sleeper` in
//! `ffi/poll_queue.rs` if it is a listener of the shared limit, too. It is woken
//!
//! - by a call that makes memory of its arena available or raises the limit, and by a waiter that leaves.
//!   They call [`Arena::wake`] in this file under the lock. It wakes the pollers, and the waiters whose turn
//!   it is: `engine/wait_queue.rs` decides that;
//! - by another arena that has free memory (`Arena::offer` in this file) or returns headroom
//!   (`SharedLimit::uncharge`): both call `SharedLimit::wake` in `shared_limit.rs`;
//! - by a lower limit of its arena, under which its request can never succeed: `Arena::wake_hopeless` in `bounds.rs`;
//! - every [`RETRY_NS`] while the system is short of memory, as no call reports the end of that.
//!
//! No wake-up is lost: a waiter is enlisted before it scans for the last time, and marks itself asleep
//! before it checks whether it was woken.

use super::{
    counters::add,
    deadline::Deadline,
    request::AllocOptions,
    state::{
        State,
        WaitingTask, //
    },
    Arena, //
};
use crate::{
    engine::{
        Admission,
        Drained,
        Request,
        Reservation,
        Ticket, //
    },
    ffi::{
        errno::edquot,
        poll_queue::Sleeper,
        task,
        trace, //
    },
    mm::{
        backend::{
            table,
            KernelGarbage,
            KernelPrealloc, //
        }, //
    },
};
use kernel::{
    prelude::*,
    sync::aref::ARef, //
};

/// The longest sleep while the system is short of memory, in nanoseconds.
const RETRY_NS: i64 = 100_000_000;

/// A place among the waiters. When it is dropped, the waiters whose turn it is then are woken.
struct Place<'a> {
    arena: &'a Arena,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // Dropped after the unlock.
        let mut garbage = KernelGarbage::default();
        let mut state = self.arena.lock();
        state.waiters.leave(self.ticket);
        state.keep_for_waiters(&mut garbage);
        if state.waiters.count() == 0 {
            state.engine.close_quick(false);
        }
        self.arena.wake(&mut state);
    }
}

/// Returns whether more free memory could make a request succeed that failed with `error`.
pub(super) fn is_shortage(error: Error) -> bool {
    error == ENOMEM || error == edquot()
}

impl State {
    /// Returns which free memory a request may have: waiters come before requests that do not wait, and
    /// earlier waiters before later ones.
    pub(super) fn admission(&self, options: &AllocOptions, ticket: Option<Ticket>) -> Admission {
        self.waiters.admission(ticket, options.wait.is_some())
    }

    /// Keeps freed blocks of their class for the waiters whose turn it is and that take no others.
    fn keep_for_waiters(&mut self, garbage: &mut KernelGarbage) {
        let State {
            engine, waiters, ..
        } = self;
        engine.keep_for(waiters.next_requests(), garbage);
    }
}

impl Arena {
    /// Reserves and prepares a block, and waits for it if the options allow that. A refused request is
    /// noted for `poll`. May sleep.
    ///
    /// Errors are those of [`Arena::alloc`].
    pub(super) fn obtain(
        &self,
        options: &AllocOptions,
        prealloc: &mut KernelPrealloc,
    ) -> Result<Reservation> {
        let result = match (self.attempt(options, None, prealloc), options.wait) {
            (Err(error), Some(deadline)) if is_shortage(error) => {
                self.wait_for(options, deadline, prealloc)
            }
            (result, _) => result,
        };
        if let Err(error) = result {
            if is_shortage(error) || error == EAGAIN || error == ETIMEDOUT {
                self.remember_refused(&options.request);
            }
        }
        result
    }

    /// Reserves and prepares a block without waiting. May sleep to allocate memory.
    pub(super) fn attempt(
        &self,
        options: &AllocOptions,
        ticket: Option<Ticket>,
        prealloc: &mut KernelPrealloc,
    ) -> Result<Reservation> {
        let pending = self.reserve(options, ticket, prealloc)?;
        self.prepared(pending, options, prealloc)
    }

    fn wait_for(
        &self,
        options: &AllocOptions,
        deadline: Deadline,
        prealloc: &mut KernelPrealloc,
    ) -> Result<Reservation> {
        self.lock().admit(options)?;
        if let Deadline::Passed = deadline {
            return Err(EAGAIN);
        }
        let start = trace::Wait::is_enabled().then(task::now_ns);
        let result = self.wait_in_queue(options, deadline, prealloc);
        self.trace_wait(options, start, &result);
        result
    }

    /// Takes the last place among the waiters, and waits there.
    fn wait_in_queue(
        &self,
        options: &AllocOptions,
        deadline: Deadline,
        prealloc: &mut KernelPrealloc,
    ) -> Result<Reservation> {
        let place = self.enlist(&options.request)?;
        let ticket = place.ticket;
        if !options.request.policy.may_grow() {
            return self.wait_at(ticket, options, None, deadline, prealloc);
        }
        // A request that may grow can use memory that other arenas release.
        pin_init::stack_pin_init!(let sleeper = Sleeper::new(self.shared_limit.listeners()));
        self.wait_at(ticket, options, Some(&sleeper), deadline, prealloc)
    }

    /// Scans and sleeps, at a place among the waiters, until the request is served or fails.
    fn wait_at(
        &self,
        ticket: Ticket,
        options: &AllocOptions,
        sleeper: Option<&Sleeper<'_>>,
        deadline: Deadline,
        prealloc: &mut KernelPrealloc,
    ) -> Result<Reservation> {
        let mut slept = false;
        loop {
            self.lock().waiters.scan(ticket);
            if let Some(sleeper) = sleeper {
                sleeper.scan();
            }
            match self.attempt(options, Some(ticket), prealloc) {
                Err(error) if is_shortage(error) => {}
                result => return result,
            }
            let mut state = self.lock();
            // The limit may have been lowered meanwhile.
            state.admit(options)?;
            if !state.waiters.sleep(ticket) {
                continue;
            }
            if !slept {
                slept = true;
                add(&mut state.events.waits, 1);
                state.engine.count_wait(&options.request);
            }
            // The arena could serve it, so that only the system's memory is short.
            let headroom = self.headroom(&state);
            let admission = state.admission(options, Some(ticket));
            let mut garbage = KernelGarbage::default();
            let short = admission == Admission::Full
                && state
                    .engine
                    .could_serve(&options.request, admission, headroom, &mut garbage);
            drop(state);
            drop(garbage);
            let sleeper = sleeper.filter(|_| !short);
            self.sleep(ticket, sleeper, deadline, short)?;
        }
    }

    /// Sleeps until the waiter is woken, or [`RETRY_NS`] have passed if the system is `short`.
    ///
    /// `ERESTARTSYS` when a signal is pending, `ETIMEDOUT` when the deadline has passed.
    fn sleep(
        &self,
        ticket: Ticket,
        sleeper: Option<&Sleeper<'_>>,
        deadline: Deadline,
        short: bool,
    ) -> Result {
        let retry = task::now_ns().saturating_add(RETRY_NS);
        loop {
            // From here on a wake-up ends the sleep, even one that comes before it begins.
            let sleep = task::Sleep::prepare();
            if self.lock().waiters.is_woken(ticket) || sleeper.is_some_and(Sleeper::is_woken) {
                return Ok(());
            }
            if task::signal_pending() {
                return Err(ERESTARTSYS);
            }
            let end = if short { retry } else { i64::MAX };
            let woken = sleep.until(deadline.or_at(end));
            if !woken && !self.lock().waiters.is_woken(ticket) {
                if deadline.rest(1) > 0 {
                    return Ok(());
                }
                add(&mut self.lock().events.timeouts, 1);
                return Err(ETIMEDOUT);
            }
        }
    }

    /// Takes the last place among the waiters. `ENOMEM` when memory is short. May sleep.
    fn enlist(&self, request: &Request) -> Result<Place<'_>> {
        let mut new_table = None;
        let mut waiter = (*request, ARef::from(&**current!()));
        loop {
            // Dropped after the unlock.
            let mut garbage = KernelGarbage::default();
            let mut state = self.lock();
            let small = state.engine.is_subpage(request);
            let result = state
                .waiters
                .enlist(waiter.0, small, waiter.1, &mut new_table);
            if result.is_ok() {
                state.engine.close_quick(true);
                state.keep_for_waiters(&mut garbage);
            }
            drop(state);
            drop(garbage);
            match result {
                Ok(ticket) => {
                    // Free pages on quick lists must be seen as free runs.
                    self.drain();
                    return Ok(Place {
                        arena: self,
                        ticket,
                    });
                }
                Err((request, task, len)) => {
                    waiter = (request, task);
                    new_table = Some(self.memcg.charge(|| table(len))?);
                }
            }
        }
    }

    /// Wakes waiters and pollers that could be served now, after memory has become available. Never
    /// wakes the caller itself.
    #[inline(always)]
    pub(super) fn wake(&self, state: &mut State) {
        let refused = self.shared_limit.has_refused_another_than(self.id);
        // A poller enters the queue before it takes the lock to check for itself: none is missed here.
        let polled = state.refused.is_some() && !self.poll.is_idle();
        if state.waiters.count() > 0 || polled || refused {
            self.wake_some(state, polled);
        }
    }

    #[inline(never)]
    fn wake_some(&self, state: &mut State, polled: bool) {
        if self.shared_limit.has_refused_another_than(self.id) {
            self.offer(state);
        }
        if state.waiters.count() == 0 && !polled {
            return;
        }
        let headroom = self.headroom(state);
        let mut garbage = KernelGarbage::default();
        let State {
            engine, waiters, ..
        } = state;
        let caller = current!().as_ptr();
        let is_caller = |task: &WaitingTask| task.as_ptr() == caller;
        let woken = waiters.wake(is_caller, |request, admission| {
            engine.could_serve(request, admission, headroom, &mut garbage)
        });
        for task in woken.into_iter().flatten() {
            task.wake_up();
        }
        if polled && self.could_serve_refused(state, 0) {
            self.poll.wake();
        }
    }

    /// Wakes the listeners of the shared limit, which has refused another arena, if this one has free
    /// memory that no thread waits for.
    #[cold]
    fn offer(&self, state: &mut State) {
        let drained = state.engine.drain(&mut KernelGarbage::default());
        let has_some = drained == Drained::Part || state.engine.free_pages() > 0;
        let has = has_some && state.waiters.count() == 0;
        if has || !self.shared_limit.has_listeners() {
            self.shared_limit.wake();
        }
    }

    /// Calls [`Arena::wake`] under the lock, for a caller that does not hold it.
    pub(super) fn wake_unlocked(&self) {
        self.wake(&mut self.lock());
    }

    /// Returns the bytes of new pages that both limits allow.
    fn headroom(&self, state: &State) -> u64 {
        self.headroom_with(state, 0)
    }

    /// Returns the headroom if other arenas released `reclaimable` bytes.
    pub(super) fn headroom_with(&self, state: &State, reclaimable: u64) -> u64 {
        let held = state.taken();
        state
            .limit
            .saturating_sub(held)
            .min(self.shared_limit.headroom().saturating_add(reclaimable))
    }

    /// Returns the number of waiters.
    pub(crate) fn waiters(&self) -> u32 {
        self.lock().waiters.count()
    }
}
