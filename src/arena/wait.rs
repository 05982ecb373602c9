// SPDX-License-Identifier: GPL-2.0

//! Waiting for a block: sleeping and waking as `engine::waiters` says.
//!
//! Whoever makes memory available looks, under the lock, whose turn it is ([`Arena::wake`]). A
//! thread is enlisted before its last look, and marks itself asleep before it looks whether it was
//! called. It is woken by its own arena, or by another one that gave up memory of the limit that
//! they share; and now and then when it is the system that is short, which tells nobody.

use super::{
    counters::add,
    request::AllocOptions,
    state::State,
    Arena, //
};
use crate::{
    engine::{
        Admission,
        Drained,
        Request,
        Reservation,
        Ticket,
        WaitQueue,
        WaiterSlot, //
    },
    ffi::{
        errno::edquot,
        poll_queue::Sleeper,
        task, //
    },
    mm::{
        backend::{
            table,
            KernelGarbage,
            KernelPrealloc,
            Table, //
        },
        shrinker, //
    },
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    sync::aref::ARef,
    task::Task, //
};

/// How long to sleep at most, in nanoseconds, when the system is short of memory.
const RETRY_NS: i64 = 100_000_000;

type Who = ARef<Task>;
pub(super) type Queue = WaitQueue<Request, Who, Table<WaiterSlot<Request, Who>>>;

/// How long a caller waits.
#[derive(Clone, Copy)]
pub(crate) enum Deadline {
    /// Not at all.
    Passed,
    /// Until this time, in nanoseconds of the monotonic clock.
    At(i64),
    /// For ever.
    Never,
}

impl Deadline {
    /// So many nanoseconds from now; for ever when negative.
    pub(crate) fn after(timeout_ns: i64) -> Self {
        match timeout_ns {
            0 => Self::Passed,
            1.. => Self::At(task::now_ns().saturating_add(timeout_ns)),
            _ => Self::Never,
        }
    }

    /// Nanoseconds that are left, at least 0; `forever` when there is no end.
    pub(crate) fn rest(self, forever: i64) -> i64 {
        match self {
            Self::Passed => 0,
            Self::At(end) => (end - task::now_ns()).max(0),
            Self::Never => forever,
        }
    }

    /// The earlier of this and `end`.
    fn or_at(self, end: i64) -> i64 {
        match self {
            Self::Passed => 0,
            Self::At(at) => at.min(end),
            Self::Never => end,
        }
    }
}

/// A place among the waiters, until it is dropped: then others are called.
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

/// Whether more memory would help.
pub(super) fn is_shortage(error: Error) -> bool {
    error == ENOMEM || error == edquot()
}

impl State {
    /// What of the free memory a request may have: waiters are before those that do not wait, and
    /// the oldest before those that came later.
    pub(super) fn admission(&self, options: &AllocOptions, ticket: Option<Ticket>) -> Admission {
        self.waiters.admission(ticket, options.wait.is_some())
    }

    /// Keeps freed blocks for the waiters whose turn it is, if exactly their class is all that these
    /// take.
    fn keep_for_waiters(&mut self, garbage: &mut KernelGarbage) {
        let State {
            engine, waiters, ..
        } = self;
        engine.keep_for(waiters.next_requests(), garbage);
    }
}

impl Arena {
    /// Reserves a block and makes it as it is wanted; waits for it, if so asked, and remembers for
    /// `poll` that it could not be had. May sleep.
    ///
    /// Beside the errors of [`Arena::alloc`]: `EAGAIN` when it would have to wait and may not,
    /// `ETIMEDOUT` when it has waited in vain, `ERESTARTSYS` when a signal came.
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

    /// One look.
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
        let place = self.enlist(&options.request)?;
        let ticket = place.ticket;
        if !options.request.policy.may_grow() {
            return self.wait_at(ticket, options, None, deadline, prealloc);
        }
        // Memory that other arenas give up is of use to who may grow.
        pin_init::stack_pin_init!(let sleeper = Sleeper::new(self.shared_limit.listeners()));
        self.wait_at(ticket, options, Some(&sleeper), deadline, prealloc)
    }

    /// Waits at a place among the waiters.
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
            // It could have been served, but for what only the system has.
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

    /// Sleeps until it is this waiter's turn, or worth a look when the system is `short`.
    fn sleep(
        &self,
        ticket: Ticket,
        sleeper: Option<&Sleeper<'_>>,
        deadline: Deadline,
        short: bool,
    ) -> Result {
        let retry = task::now_ns().saturating_add(RETRY_NS);
        loop {
            // From here on a wake-up ends the sleep, also one before it.
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

    /// Takes the last place.
    fn enlist(&self, request: &Request) -> Result<Place<'_>> {
        let mut new_table = None;
        let mut who = (*request, ARef::from(&**current!()));
        loop {
            // Dropped after the unlock.
            let mut garbage = KernelGarbage::default();
            let mut state = self.lock();
            let small = state.engine.is_subpage(request);
            let result = state.waiters.enlist(who.0, small, who.1, &mut new_table);
            if result.is_ok() {
                state.engine.close_quick(true);
                state.keep_for_waiters(&mut garbage);
            }
            drop(state);
            drop(garbage);
            match result {
                Ok(ticket) => {
                    // Whole pages that are free must be seen as such.
                    self.drain();
                    return Ok(Place {
                        arena: self,
                        ticket,
                    });
                }
                Err((request, task, len)) => {
                    who = (request, task);
                    new_table = Some(self.memcg.charge(|| table(len))?);
                }
            }
        }
    }

    /// Memory may be available that was not before: wakes whose turn it is, and who polls, but never
    /// the caller himself.
    #[inline(always)]
    pub(super) fn wake(&self, state: &mut State) {
        let wanted = self.shared_limit.is_wanted_from(self.id);
        // Who begins to poll is in the queue before it takes the lock for its own look.
        let polled = state.refused.is_some() && !self.poll.is_idle();
        if state.waiters.count() > 0 || polled || wanted {
            self.wake_some(state, polled);
        }
    }

    #[inline(never)]
    fn wake_some(&self, state: &mut State, polled: bool) {
        if self.shared_limit.is_wanted_from(self.id) {
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
        let is_caller = |task: &Who| task.as_ptr() == caller;
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

    /// Another arena was refused by the limit that they share: tells it if there is free memory here,
    /// that nobody waits for.
    #[cold]
    fn offer(&self, state: &mut State) {
        let drained = state.engine.drain(&mut KernelGarbage::default());
        let has_some = drained == Drained::Part || state.engine.free_pages() > 0;
        let has = has_some && state.waiters.count() == 0;
        if has || !self.shared_limit.has_listeners() {
            self.shared_limit.wake();
        }
    }

    /// The same, for whoever does not hold the lock.
    pub(super) fn wake_unlocked(&self) {
        self.wake(&mut self.lock());
    }

    /// Bytes of new pages that the limits allow.
    fn headroom(&self, state: &State) -> u64 {
        self.headroom_with(state, 0)
    }

    /// The same with what other arenas would hand over.
    fn headroom_with(&self, state: &State, elsewhere: u64) -> u64 {
        let held = state.taken();
        state
            .limit
            .saturating_sub(held)
            .min(self.shared_limit.headroom().saturating_add(elsewhere))
    }

    fn remember_refused(&self, request: &Request) {
        let mut state = self.lock();
        let smaller = |refused: Request| request.bytes() < refused.bytes();
        if state.refused.is_none_or(smaller) {
            state.refused = Some(*request);
        }
    }

    /// Whether what was refused could be served now, with free memory `elsewhere`, in bytes, that other
    /// arenas would hand over.
    fn could_serve_refused(&self, state: &mut State, elsewhere: u64) -> bool {
        let Some(refused) = state.refused else {
            return false;
        };
        let admission = state.waiters.admission(None, false);
        let headroom = self.headroom_with(state, elsewhere);
        state
            .engine
            .could_serve(&refused, admission, headroom, &mut KernelGarbage::default())
    }

    /// Whether the smallest request that was refused since this was last true could be served; so it
    /// is as long as none was.
    pub(crate) fn is_ready(&self) -> bool {
        self.drain();
        let mut state = self.lock();
        let mut ready = state.refused.is_none() || self.could_serve_refused(&mut state, 0);
        if !ready && self.could_serve_refused(&mut state, u64::MAX) {
            // Only other arenas have room for it. Before the look, so that nothing is missed after it.
            self.shared_limit.refuse(self.id);
            drop(state);
            let elsewhere = shrinker::reclaimable_of_others(self) << PAGE_SHIFT;
            state = self.lock();
            ready = state.refused.is_none() || self.could_serve_refused(&mut state, elsewhere);
        }
        if ready {
            state.refused = None;
        }
        ready
    }

    /// How many wait.
    pub(crate) fn waiters(&self) -> u32 {
        self.lock().waiters.count()
    }
}
