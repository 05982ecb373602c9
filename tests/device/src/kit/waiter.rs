// SPDX-License-Identifier: GPL-2.0

//! Calls that sleep, each in a thread of its own.

use std::fs;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use freelist::uapi::freelist_alloc;
use freelist::{Arena, Block, Flags};
use nix::errno::Errno;
use nix::sys::pthread::{pthread_kill, pthread_self, Pthread};
use nix::sys::signal::Signal;
use nix::unistd::{gettid, Pid};

use super::process::{spawn_child, Child};
use super::raw;
use super::thread::{self, Scope};
use super::{alloc, arena, page, DEFAULT, MIB};
use crate::harness::skip;

/// The longest time for an expected event: far more than it takes, on any machine.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The time for which a test watches that something does not happen.
pub const WHILE: Duration = Duration::from_millis(60);

/// Returns a request that may sleep at most `timeout`; [`None`] is for ever.
pub fn waiting(size: u64, flags: Flags, timeout: Option<Duration>) -> freelist_alloc {
    freelist_alloc {
        size,
        flags: (flags | Flags::WAIT).bits(),
        timeout_ns: timeout.map_or(-1, |timeout| timeout.as_nanos() as i64),
        ..Default::default()
    }
}

/// The end of a call.
#[derive(Debug)]
pub struct Ended {
    /// The structure, with the result if there is one.
    pub request: freelist_alloc,
    /// The result of the call.
    pub result: Result<(), Errno>,
    /// The duration of the call.
    pub took: Duration,
}

/// A thread in a call of FREELIST_IOC_ALLOC.
pub struct Waiter {
    thread: Pthread,
    id: Pid,
    ended: mpsc::Receiver<Ended>,
}

impl Waiter {
    /// Begins the call, which may end at any time.
    pub fn begin<'scope>(
        scope: Scope<'scope, '_>,
        arena: &'scope Arena,
        mut request: freelist_alloc,
    ) -> Self {
        let (tell, started) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        scope.spawn(move || {
            tell.send((pthread_self(), gettid())).expect("is awaited");
            let start = Instant::now();
            let result = raw::alloc_in(arena, &mut request);
            let took = start.elapsed();
            // The receiver may be gone.
            let _ = end.send(Ended {
                request,
                result,
                took,
            });
        });
        let (thread, id) = started.recv().expect("the thread runs");
        Self { thread, id, ended }
    }

    /// Begins the call, and returns once it sleeps.
    #[track_caller]
    pub fn asleep<'scope>(
        scope: Scope<'scope, '_>,
        arena: &'scope Arena,
        request: freelist_alloc,
    ) -> Self {
        let this = Self::begin(scope, arena, request);
        sleeps_in_ioctl(&format!("/proc/self/task/{}", this.id));
        this
    }

    /// Returns the end of the call, which has to come in time.
    #[track_caller]
    pub fn end(&self) -> Ended {
        let ended = self.ended.recv_timeout(PATIENCE);
        ended.unwrap_or_else(|_| panic!("the call has not ended after {PATIENCE:?}"))
    }

    /// Returns the block that the call allocated, in time.
    #[track_caller]
    pub fn served(&self) -> u64 {
        let ended = self.end();
        assert_eq!(ended.result, Ok(()), "{ended:?}");
        ended.request.offset
    }

    /// Checks that the call has not ended.
    #[track_caller]
    pub fn sleeps_on(&self) {
        if let Ok(ended) = self.ended.recv_timeout(WHILE) {
            panic!("the call ended: {ended:?}");
        }
    }

    /// Sends a signal to the thread.
    pub fn signal(&self, signal: Signal) {
        pthread_kill(self.thread, signal).expect("the thread is there");
    }
}

/// Waits until a task, given by its directory in /proc, sleeps in ioctl().
#[track_caller]
pub fn sleeps_in_ioctl(task: &str) {
    let wanted = format!("{} ", libc::SYS_ioctl);
    let start = Instant::now();
    let mut seen = 0;
    // Twice in a row, as a call may sleep for a moment elsewhere.
    while seen < 2 {
        assert!(
            start.elapsed() < PATIENCE,
            "{task} does not sleep in ioctl()"
        );
        let call = fs::read_to_string(format!("{task}/syscall")).unwrap_or_default();
        seen = if call.starts_with(&wanted) {
            seen + 1
        } else {
            0
        };
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns an arena at its limit, whose `pages` pages are live blocks of a page each.
pub fn full(pages: u64) -> (Arena, Vec<Block>) {
    let arena = arena();
    arena.set_limit(pages * page()).unwrap();
    let blocks = (0..pages).map(|_| alloc(&arena, page())).collect();
    (arena, blocks)
}

/// Returns an arena that has taken the whole limit of all arenas, and its blocks. Skips the test if that
/// limit is too large, or the machine has less memory.
pub fn hog() -> (Arena, Vec<Block>) {
    let stats = freelist::debugfs::Stats::read().expect("debugfs is mounted");
    let limit = stats.get("limit_bytes").expect("the limit of all arenas");
    if limit > 640 * MIB {
        skip("too much memory to fill; needs a machine of about 1 GiB or less");
    }
    let arena = arena();
    arena.set_limit(2 * limit).unwrap();
    let mut blocks = Vec::new();
    let mut size = 64 * MIB;
    while size >= page() {
        match arena.alloc(size, DEFAULT) {
            Ok(block) => blocks.push(block),
            Err(error) => match error.errno() {
                Some(Errno::EDQUOT) => size /= 2,
                Some(Errno::ENOMEM) => skip("memory is short"),
                _ => panic!("{error}"),
            },
        }
    }
    (arena, blocks)
}

/// Returns a child that waits for a page, and sleeps.
pub fn sleeping_child(shared: &Arena) -> Child {
    let child = spawn_child(|| {
        let mut request = waiting(page(), DEFAULT, None);
        raw::alloc_in(shared, &mut request).unwrap();
    });
    sleeps_in_ioctl(&format!("/proc/{}", child.pid()));
    child
}
