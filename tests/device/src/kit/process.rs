// SPDX-License-Identifier: GPL-2.0

//! Children that share what this process has.

#![expect(unsafe_code, reason = "fork()")]

use std::fs;
use std::panic::{self, AssertUnwindSafe};

use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{fork, ForkResult, Pid};

/// A forked child, running.
pub struct Child(Pid);

impl Child {
    /// Waits for its end.
    pub fn wait(self) -> WaitStatus {
        waitpid(self.0, None).expect("the child is ours to wait for")
    }

    /// Waits for its end, and panics unless it went well.
    #[track_caller]
    pub fn succeed(self) {
        let pid = self.0;
        assert_eq!(self.wait(), WaitStatus::Exited(pid, 0), "the child's end");
    }
}

/// Runs `work` in a forked child; a panic there is the status 1.
pub fn spawn_child(work: impl FnOnce()) -> Child {
    let threads = fs::read_dir("/proc/self/task").expect("/proc is mounted");
    assert_eq!(threads.count(), 1, "fork() is for processes of one thread");
    // SAFETY: This process has one thread (asserted above), so no lock can be
    // held in the child by a thread that it does not have.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => Child(child),
        ForkResult::Child => {
            let result = panic::catch_unwind(AssertUnwindSafe(work));
            // Not exit(): the parent's buffers and handlers are not ours.
            // SAFETY: _exit() ends the process and touches nothing of it.
            unsafe { libc::_exit(result.is_err().into()) }
        }
    }
}

/// Runs `work` in a forked child and waits for its end.
pub fn fork_child(work: impl FnOnce()) -> WaitStatus {
    spawn_child(work).wait()
}

/// The signal that `work` dies of, tried in a forked child.
#[track_caller]
pub fn signal_of(work: impl FnOnce()) -> Option<Signal> {
    match fork_child(work) {
        WaitStatus::Signaled(_, signal, _) => Some(signal),
        WaitStatus::Exited(_, 0) => None,
        status => panic!("the child ended as {status:?}"),
    }
}
