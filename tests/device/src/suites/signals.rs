// SPDX-License-Identifier: GPL-2.0

//! Waiters that are interrupted, killed, stopped or frozen.

use std::time::{Duration, Instant};

use freelist::uapi::freelist_alloc;
use nix::errno::Errno;
use nix::sys::signal::{kill, sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::sys::wait::WaitStatus;

use crate::harness::suite;
use crate::kit::process::spawn_child;
use crate::kit::waiter::{full, sleeping_child, sleeps_in_ioctl, waiting, Waiter, PATIENCE, WHILE};
use crate::kit::{check, free, page, raw, stat, thread, Cgroup, DEFAULT};

suite!("freelist_signals":
    a_signal_ends_it_and_leaves_the_rest_of_the_time,
    a_signal_whose_handler_restarts_does_not_prolong_it,
    a_killed_waiter_ends_at_once_and_the_next_is_served,
    a_stopped_waiter_goes_on_waiting,
    a_frozen_waiter_goes_on_waiting,
);

extern "C" fn nothing(_: i32) {}

/// Makes SIGUSR1 interrupt calls from now on, or restart them.
#[expect(unsafe_code, reason = "sigaction()")]
fn handle(flags: SaFlags) {
    let action = SigAction::new(SigHandler::Handler(nothing), flags, SigSet::empty());
    // SAFETY: The handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
}

fn a_signal_ends_it_and_leaves_the_rest_of_the_time() {
    handle(SaFlags::empty());
    let (arena, _) = full(4);
    thread::scope(|scope| {
        let timeout = Duration::from_secs(30);
        let request = waiting(page(), DEFAULT, Some(timeout));
        let waiter = Waiter::asleep(scope, &arena, request);
        thread::sleep(Duration::from_millis(50));
        waiter.signal(Signal::SIGUSR1);
        let ended = waiter.end();
        assert_eq!(ended.result, Err(Errno::EINTR));
        let rest = Duration::from_nanos(ended.request.timeout_ns as u64);
        assert!(rest + ended.took >= timeout, "{rest:?} after {ended:?}");
        assert!(rest <= timeout - Duration::from_millis(50), "{rest:?}");
        // No other field of the request was changed: it can be made again.
        let again = freelist_alloc {
            timeout_ns: request.timeout_ns,
            ..ended.request
        };
        assert_eq!(again, request);

        let waiter = Waiter::asleep(scope, &arena, waiting(page(), DEFAULT, None));
        waiter.signal(Signal::SIGUSR1);
        let ended = waiter.end();
        assert_eq!(ended.result, Err(Errno::EINTR));
        assert!(ended.request.timeout_ns < 0, "for ever");
    });
    assert_eq!(stat(&arena).timeouts, 0);
}

fn a_signal_whose_handler_restarts_does_not_prolong_it() {
    handle(SaFlags::SA_RESTART);
    let (arena, blocks) = full(4);
    thread::scope(|scope| {
        let timeout = Duration::from_millis(400);
        let request = waiting(page(), DEFAULT, Some(timeout));
        let waiter = Waiter::asleep(scope, &arena, request);
        for _ in 0..10 {
            thread::sleep(Duration::from_millis(20));
            waiter.signal(Signal::SIGUSR1);
        }
        let ended = waiter.end();
        assert_eq!(ended.result, Err(Errno::ETIMEDOUT));
        assert!(ended.took >= timeout, "{:?}", ended.took);
        assert!(ended.took < 2 * timeout, "{:?}", ended.took);
        // A waiter that a signal interrupted is served later.
        let waiter = Waiter::asleep(scope, &arena, waiting(page(), DEFAULT, None));
        waiter.signal(Signal::SIGUSR1);
        waiter.sleeps_on();
        free(&arena, blocks[0]);
        waiter.served();
    });
}

/// Prior art: vulnerabilities SIGKILL_while_waiting.
fn a_killed_waiter_ends_at_once_and_the_next_is_served() {
    let (shared, blocks) = full(4);
    let children = [0, 1, 2].map(|_| sleeping_child(&shared));
    let [first, second, third] = children;
    for killed in [second, first] {
        let (pid, start) = (killed.pid(), Instant::now());
        kill(pid, Signal::SIGKILL).unwrap();
        let status = killed.wait();
        assert_eq!(status, WaitStatus::Signaled(pid, Signal::SIGKILL, false));
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    free(&shared, blocks[0]);
    third.succeed();
    assert_eq!(stat(&shared).live_blocks, 4);
    check();
}

/// Prior art: vulnerabilities SIGSTOP_while_waiting.
fn a_stopped_waiter_goes_on_waiting() {
    let (shared, blocks) = full(4);
    let child = sleeping_child(&shared);
    for _ in 0..3 {
        kill(child.pid(), Signal::SIGSTOP).unwrap();
        thread::sleep(WHILE / 4);
        kill(child.pid(), Signal::SIGCONT).unwrap();
        thread::sleep(WHILE / 4);
    }
    sleeps_in_ioctl(&format!("/proc/{}", child.pid()));
    free(&shared, blocks[2]);
    child.succeed();
}

fn a_frozen_waiter_goes_on_waiting() {
    let cgroup = Cgroup::new("frozen");
    let (shared, blocks) = full(4);
    let child = spawn_child(|| {
        cgroup.join();
        let mut request = waiting(page(), DEFAULT, None);
        raw::alloc_in(&shared, &mut request).unwrap();
    });
    sleeps_in_ioctl(&format!("/proc/{}", child.pid()));
    cgroup.write("cgroup.freeze", "1");
    let start = Instant::now();
    while !cgroup.is_frozen() {
        assert!(start.elapsed() < PATIENCE, "it does not freeze");
        thread::sleep(Duration::from_millis(5));
    }
    cgroup.write("cgroup.freeze", "0");
    free(&shared, blocks[1]);
    child.succeed();
}
