// SPDX-License-Identifier: GPL-2.0

//! The module's own `wait_queue.rs` in every order in which threads can run, as far as loom finds one
//! that differs (Norris and Demsky, 2013). The arena around it is simulated: a mutex is its spin lock, and
//! parking is its sleep.
//!
//! A lost wake-up is a deadlock here, which loom reports with the order that leads to it.

use freelist_engine::engine::{Admission, Ticket, WaitQueue, WaiterSlot};
use loom::sync::{Arc, Mutex};
use loom::thread::{self, Thread};

/// The request of a waiter.
#[derive(Clone, Copy)]
enum Need {
    /// As many whole pages.
    Pages(u32),
    /// Any subpage of a divided page.
    Subpage,
}

impl Need {
    fn is_subpage(self) -> bool {
        matches!(self, Self::Subpage)
    }
}

type Queue = WaitQueue<Need, Thread, Box<[WaiterSlot<Need, Thread>]>>;

/// The state under the arena's lock.
struct State {
    /// Free whole pages, and free subpages of divided ones.
    pages: u32,
    subpages: u32,
    queue: Queue,
    /// The waiters for whole pages in the order of arrival, and in the order in which they were served.
    came: Vec<u32>,
    served: Vec<u32>,
}

impl State {
    fn could(pages: u32, subpages: u32, need: &Need, admission: Admission) -> bool {
        let all = admission == Admission::Full;
        match need {
            Need::Pages(count) => all && pages >= *count,
            Need::Subpage => subpages > 0 || all && pages > 0,
        }
    }

    /// Takes the memory for `need`, if it is the caller's turn.
    fn take(&mut self, need: Need, ticket: Option<Ticket>) -> bool {
        let admission = self.queue.admission(ticket, ticket.is_some());
        if !Self::could(self.pages, self.subpages, &need, admission) {
            return false;
        }
        match need {
            Need::Pages(count) => self.pages -= count,
            Need::Subpage if self.subpages > 0 => self.subpages -= 1,
            Need::Subpage => self.pages -= 1,
        }
        true
    }

    fn wake(&mut self) {
        let caller = thread::current().id();
        let (pages, subpages) = (self.pages, self.subpages);
        let woken = self.queue.wake(
            |thread| thread.id() == caller,
            |need, admission| Self::could(pages, subpages, need, admission),
        );
        for thread in woken.into_iter().flatten() {
            thread.unpark();
        }
    }
}

#[derive(Clone)]
struct Arena(Arc<Mutex<State>>);

impl Arena {
    fn new(pages: u32, subpages: u32) -> Self {
        Self(Arc::new(Mutex::new(State {
            pages,
            subpages,
            queue: WaitQueue::new(),
            came: Vec::new(),
            served: Vec::new(),
        })))
    }

    /// Frees memory.
    fn free(&self, need: Need) {
        let mut state = self.0.lock().unwrap();
        match need {
            Need::Pages(count) => state.pages += count,
            Need::Subpage => state.subpages += 1,
        }
        state.wake();
    }

    /// Makes a request that does not wait. Returns whether it was served.
    fn take(&self, need: Need) -> bool {
        self.0.lock().unwrap().take(need, None)
    }

    fn enlist(&self, id: u32, need: Need) -> Ticket {
        let mut new_table = None;
        let mut waiter = (need, thread::current());
        loop {
            let mut state = self.0.lock().unwrap();
            match state
                .queue
                .enlist(waiter.0, need.is_subpage(), waiter.1, &mut new_table)
            {
                Ok(ticket) => {
                    if !need.is_subpage() {
                        state.came.push(id);
                    }
                    return ticket;
                }
                Err((need, thread, len)) => {
                    waiter = (need, thread);
                    new_table = Some((0..len).map(|_| WaiterSlot::default()).collect());
                }
            }
        }
    }

    fn leave(&self, id: u32, ticket: Ticket, served: bool) {
        let mut state = self.0.lock().unwrap();
        if served {
            state.served.push(id);
        } else {
            state.came.retain(|came| *came != id);
        }
        state.queue.leave(ticket);
        state.wake();
    }

    /// Makes a request that waits. `fails` scans fail although they could succeed, as when the system is short of
    /// memory: the memory that they took is put back, and the waiter scans again, as after the arena's timer.
    /// After `patience` sleeps it gives up.
    fn wait(&self, id: u32, need: Need, mut fails: u32, mut patience: u32) -> bool {
        if fails == 0 && self.take(need) {
            return true;
        }
        let ticket = self.enlist(id, need);
        let mut woken = false;
        loop {
            let mut state = self.0.lock().unwrap();
            state.queue.scan(ticket);
            let mut failed = false;
            if state.take(need, Some(ticket)) {
                if fails == 0 {
                    drop(state);
                    self.leave(id, ticket, !need.is_subpage());
                    return true;
                }
                // Its block belongs to no thread, and is freed at the end.
                drop(state);
                state = self.0.lock().unwrap();
                match need {
                    Need::Pages(count) => state.pages += count,
                    Need::Subpage => state.subpages += 1,
                }
                fails -= 1;
                failed = true;
            } else {
                assert!(!woken, "woken before it could be served");
                // The arena scans, backs pages, and reports that it has found none, step by step.
                drop(state);
                state = self.0.lock().unwrap();
            }
            if !state.queue.sleep(ticket) {
                woken = false;
                continue;
            }
            let admission = state.queue.admission(Some(ticket), true);
            let short = admission == Admission::Full
                && State::could(state.pages, state.subpages, &need, admission);
            state.wake();
            drop(state);
            if short {
                assert!(failed, "what came during the scan was missed");
                woken = false;
                continue;
            }
            if patience == 0 {
                self.leave(id, ticket, false);
                return false;
            }
            patience -= 1;
            while !self.0.lock().unwrap().queue.is_woken(ticket) {
                thread::park();
            }
            woken = true;
        }
    }

    /// Checks the free memory, that no waiter is left, and that the waiters were served in the order of arrival.
    fn end(&self, pages: u32, subpages: u32) {
        let state = self.0.lock().unwrap();
        assert_eq!((state.pages, state.subpages), (pages, subpages));
        assert_eq!(state.queue.count(), 0);
        assert!(state.came.ends_with(&state.served), "out of turn");
    }
}

const FOREVER: u32 = u32::MAX;

fn check(body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    // In practice more preemptions find no other faults (Musuvathi and Qadeer, 2007).
    model.preemption_bound = Some(3);
    model.check(body);
}

fn spawn(arena: &Arena, body: impl FnOnce(Arena) + 'static) -> thread::JoinHandle<()> {
    let arena = arena.clone();
    thread::spawn(move || body(arena))
}

#[test]
fn a_waiter_is_woken_whenever_the_release_comes() {
    check(|| {
        let arena = Arena::new(0, 0);
        let waiter = spawn(&arena, |arena| {
            assert!(arena.wait(1, Need::Pages(2), 0, FOREVER));
        });
        arena.free(Need::Pages(1));
        arena.free(Need::Pages(1));
        waiter.join().unwrap();
        arena.end(0, 0);
    });
}

#[test]
fn two_waiters_are_served_in_their_order() {
    check(|| {
        let arena = Arena::new(0, 0);
        let waiters = [1, 2].map(|id| {
            spawn(&arena, move |arena| {
                assert!(arena.wait(id, Need::Pages(1), 0, FOREVER));
            })
        });
        arena.free(Need::Pages(1));
        arena.free(Need::Pages(1));
        for waiter in waiters {
            waiter.join().unwrap();
        }
        arena.end(0, 0);
    });
}

#[test]
fn a_waiter_that_gives_up_passes_its_turn_on() {
    check(|| {
        let arena = Arena::new(0, 0);
        let leaver = spawn(&arena, |arena| {
            if arena.wait(1, Need::Pages(1), 0, 0) {
                arena.free(Need::Pages(1));
            }
        });
        let waiter = spawn(&arena, |arena| {
            assert!(arena.wait(2, Need::Pages(1), 0, FOREVER));
        });
        arena.free(Need::Pages(1));
        leaver.join().unwrap();
        waiter.join().unwrap();
        arena.end(0, 0);
    });
}

#[test]
fn a_big_one_is_not_starved_by_small_ones_that_do_not_wait() {
    check(|| {
        let arena = Arena::new(1, 0);
        let big = spawn(&arena, |arena| {
            assert!(arena.wait(1, Need::Pages(2), 0, FOREVER));
        });
        let small = spawn(&arena, |arena| {
            for _ in 0..2 {
                if arena.take(Need::Pages(1)) {
                    arena.free(Need::Pages(1));
                }
            }
        });
        arena.free(Need::Pages(1));
        big.join().unwrap();
        small.join().unwrap();
        arena.end(0, 0);
    });
}

#[test]
fn a_subpage_is_allocated_while_a_large_request_waits() {
    check(|| {
        let arena = Arena::new(0, 0);
        let big = spawn(&arena, |arena| {
            assert!(arena.wait(1, Need::Pages(1), 0, FOREVER));
        });
        let subpage = spawn(&arena, |arena| {
            assert!(arena.wait(2, Need::Subpage, 0, FOREVER));
            // Freed only now: if this request had to wait for the large one, it would never be served.
            arena.free(Need::Pages(1));
        });
        arena.free(Need::Subpage);
        big.join().unwrap();
        subpage.join().unwrap();
        arena.end(0, 0);
    });
}

#[test]
fn a_failed_scan_hides_no_release() {
    check(|| {
        let arena = Arena::new(1, 0);
        let unlucky = spawn(&arena, |arena| {
            assert!(arena.wait(1, Need::Pages(1), 1, FOREVER));
        });
        // The waiter may have scanned and failed before: this block is new.
        arena.free(Need::Pages(1));
        unlucky.join().unwrap();
        arena.end(1, 0);
    });
}

#[test]
fn pages_of_a_failed_scan_serve_a_subpage() {
    check(|| {
        let arena = Arena::new(0, 1);
        let unlucky = spawn(&arena, |arena| {
            if arena.wait(1, Need::Subpage, 1, 0) {
                arena.free(Need::Subpage);
            }
        });
        let subpage = spawn(&arena, |arena| {
            assert!(arena.wait(2, Need::Subpage, 0, FOREVER));
        });
        unlucky.join().unwrap();
        subpage.join().unwrap();
        arena.end(0, 0);
    });
}

#[test]
fn slots_are_reused_and_tables_grow() {
    // One thread, any number of waiters.
    let slots = |len| {
        (0..len)
            .map(|_| WaiterSlot::default())
            .collect::<Box<[_]>>()
    };
    let mut queue = WaitQueue::<u32, u32, Box<[WaiterSlot<u32, u32>]>>::new();
    let mut new_table = None;
    let mut tickets = std::collections::VecDeque::new();
    for id in 0..1000 {
        let ticket = loop {
            match queue.enlist(id, false, id, &mut new_table) {
                Ok(ticket) => break ticket,
                Err((_, _, len)) => new_table = Some(slots(len)),
            }
        };
        tickets.push_back((id, ticket));
        if id % 3 == 0 {
            let (_, ticket) = tickets.remove(tickets.len() / 2).unwrap();
            queue.leave(ticket);
        }
    }
    assert_eq!(queue.count() as usize, tickets.len());
    // All waiters sleep; each is woken in its turn, and once.
    for (_, ticket) in &tickets {
        assert!(queue.sleep(*ticket));
    }
    while let Some((id, ticket)) = tickets.pop_front() {
        assert_eq!(queue.admission(Some(ticket), true), Admission::Full);
        let woken = queue.wake(|_| false, |_, admission| admission == Admission::Full);
        assert_eq!(woken, [Some(&id), None]);
        assert_eq!(
            queue.wake(|_| false, |_, admission| admission == Admission::Full),
            [None, None]
        );
        queue.leave(ticket);
    }
    assert_eq!(queue.admission(None, true), Admission::Full);
}

#[test]
fn memory_that_a_waiter_puts_back_wakes_the_others_only() {
    let mut queue = WaitQueue::<u32, u32, Box<[WaiterSlot<u32, u32>]>>::new();
    let mut new_table = Some((0..32).map(|_| WaiterSlot::default()).collect());
    let whole = queue.enlist(1, false, 1, &mut new_table).unwrap();
    let subpage = queue.enlist(2, true, 2, &mut new_table).unwrap();
    assert!(queue.sleep(subpage));
    // The caller does not wake itself: it would scan again at once, and for ever.
    assert_eq!(queue.wake(|id| *id == 1, |_, _| true), [None, Some(&2)]);
    assert!(!queue.is_woken(whole) && queue.is_woken(subpage));
    assert!(queue.sleep(whole));
    assert_eq!(queue.wake(|id| *id == 3, |_, _| true), [Some(&1), None]);
}

#[test]
fn free_whole_pages_are_for_the_oldest_waiter_of_both_queues() {
    for first_is_part in [false, true] {
        let mut queue = WaitQueue::<u32, u32, Box<[WaiterSlot<u32, u32>]>>::new();
        let mut new_table = Some((0..32).map(|_| WaiterSlot::default()).collect());
        let mut came = |is_subpage| queue.enlist(0, is_subpage, 0, &mut new_table).unwrap();
        let first = came(first_is_part);
        let second = came(!first_is_part);
        assert_eq!(queue.admission(Some(first), true), Admission::Full);
        assert_ne!(queue.admission(Some(second), true), Admission::Full);
        queue.leave(first);
        assert_eq!(queue.admission(Some(second), true), Admission::Full);
    }
}

#[test]
fn the_admission_of_a_request_depends_on_whether_it_waits() {
    let mut queue = WaitQueue::<u32, u32, Box<[WaiterSlot<u32, u32>]>>::new();
    let mut new_table = Some((0..32).map(|_| WaiterSlot::default()).collect());
    for waits in [false, true] {
        assert_eq!(queue.admission(None, waits), Admission::Full);
    }
    assert_eq!(queue.next_requests(), [None, None]);
    let first = queue.enlist(7, false, 0, &mut new_table).unwrap();
    let second = queue.enlist(8, true, 0, &mut new_table).unwrap();
    assert_eq!(queue.admission(None, false), Admission::SubpageOrGrow);
    assert_eq!(queue.admission(None, true), Admission::SubpageOnly);
    assert_eq!(queue.admission(Some(second), true), Admission::SubpageOnly);
    assert_eq!(queue.next_requests(), [Some(&7), Some(&8)]);
    queue.leave(first);
    assert_eq!(queue.next_requests(), [Some(&8), None]);
}

#[test]
fn a_waiter_that_can_never_be_served_is_woken_at_any_place() {
    let mut queue = WaitQueue::<u32, u32, Box<[WaiterSlot<u32, u32>]>>::new();
    let mut new_table = None;
    let mut tickets = Vec::new();
    for size in 0..100 {
        let ticket = loop {
            match queue.enlist(size, size % 2 == 0, size, &mut new_table) {
                Ok(ticket) => break ticket,
                Err((_, _, len)) => {
                    new_table = Some((0..len).map(|_| WaiterSlot::default()).collect());
                }
            }
        };
        // The last one is scanning.
        assert!(size == 99 || queue.sleep(ticket));
        tickets.push(ticket);
    }
    let mut woken = Vec::new();
    let mut from = Some(0);
    while let Some(next) = from {
        let before = woken.len();
        from = queue.wake_hopeless(next, 8, |size| *size >= 90, |id| woken.push(*id));
        assert!(woken.len() - before <= 8);
    }
    assert_eq!(woken, (90..99).collect::<Vec<_>>());
    for (size, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(queue.is_woken(ticket), size >= 90);
        // It scans, and finds that nothing can be allocated any more.
        assert!(size < 90 || !queue.sleep(ticket));
    }
}
