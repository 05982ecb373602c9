// SPDX-License-Identifier: GPL-2.0

//! Children that share the resources of this process.

#![expect(unsafe_code, reason = "fork(), and calls that nix does not have")]

use std::ffi::{c_int, c_void};
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{signal, SigHandler, Signal};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{fork, ForkResult, Pid};

use super::View;

/// A forked child, running.
pub struct Child(Pid);

impl Child {
    /// Returns its process ID.
    pub fn pid(&self) -> Pid {
        self.0
    }

    /// Waits for its end.
    pub fn wait(self) -> WaitStatus {
        waitpid(self.0, None).expect("the child is this process's")
    }

    /// Waits for its end, and panics if its status is not 0.
    #[track_caller]
    pub fn succeed(self) {
        let pid = self.0;
        assert_eq!(self.wait(), WaitStatus::Exited(pid, 0), "the child's end");
    }
}

/// Runs `work` in a forked child; a panic there is the status 1.
pub fn spawn_child(work: impl FnOnce()) -> Child {
    // A thread that was joined may exist for a moment more.
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_dir("/proc/self/task")
        .expect("/proc is mounted")
        .count()
        > 1
    {
        assert!(
            Instant::now() < deadline,
            "fork() is for processes of one thread"
        );
        thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: This process has one thread (waited for above), so no lock can be
    // held in the child by a thread that it does not have.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => Child(child),
        ForkResult::Child => {
            freelist_probe::kcov::note();
            let result = panic::catch_unwind(AssertUnwindSafe(work));
            // Not exit(): the parent's buffers and handlers must not run here.
            // SAFETY: _exit() ends the process and touches nothing of it.
            unsafe { libc::_exit(result.is_err().into()) }
        }
    }
}

/// Runs `work` in a child in this process's memory, while this process waits: as after vfork(), but on a stack of
/// its own. A panic there is the status 1.
pub fn in_same_memory(work: impl FnOnce()) -> WaitStatus {
    struct Run<'a>(Option<Box<dyn FnOnce() + 'a>>);

    extern "C" fn run(argument: *mut c_void) -> c_int {
        // SAFETY: The parent's, which waits.
        let Run(work) = unsafe { &mut *argument.cast::<Run<'_>>() };
        let work = work.take().expect("runs once");
        panic::catch_unwind(AssertUnwindSafe(work)).is_err().into()
    }

    let mut stack = vec![0u128; 1 << 16];
    let top = stack.as_mut_ptr_range().end;
    let mut run_this = Run(Some(Box::new(work)));
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: The stack is the child's until it has ended, for which the call waits; and this thread does
    // nothing meanwhile, so that what is the thread's can be used by the child.
    let pid = unsafe { libc::clone(run, top.cast(), flags, (&raw mut run_this).cast()) };
    assert!(pid > 0, "clone: {}", std::io::Error::last_os_error());
    Child(Pid::from_raw(pid)).wait()
}

/// Returns the minor page faults of this process so far.
pub fn faults() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
    let fields = stat.rsplit(") ").next().expect("fields follow the name");
    let faults = fields.split(' ').nth(7).expect("it has as many fields");
    faults.parse().expect("a number")
}

/// CAP_IPC_LOCK of linux/capability.h.
const CAP_IPC_LOCK: u32 = 14;
/// CAP_SYS_RESOURCE of linux/capability.h.
const CAP_SYS_RESOURCE: u32 = 24;

/// Makes this process, which is root, subject to limits from now on.
pub fn drop_cap_sys_resource() {
    drop_capability(CAP_SYS_RESOURCE);
}

/// Makes this process, which is root, subject to RLIMIT_MEMLOCK from now on.
pub fn drop_cap_ipc_lock() {
    drop_capability(CAP_IPC_LOCK);
}

fn drop_capability(capability: u32) {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }

    // _LINUX_CAPABILITY_VERSION_3: two words of 32 bits each.
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    // SAFETY: The kernel reads the header and fills both words.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    assert_eq!(got, 0, "capget");
    for word in [&mut data[0].effective, &mut data[0].permitted] {
        *word &= !(1 << capability);
    }
    // SAFETY: The kernel reads the header and both words.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    assert_eq!(set, 0, "capset");
}

/// Runs `work` in a forked child and waits for its end.
pub fn fork_child(work: impl FnOnce()) -> WaitStatus {
    spawn_child(work).wait()
}

/// Returns the signal that ends `work`, which runs in a forked child.
///
/// The child has no handlers: the kernel writes to the stack of one first, and sends `SIGSEGV` instead of `SIGBUS`
/// where the cgroup has no page for that.
#[track_caller]
pub fn signal_of(work: impl FnOnce()) -> Option<Signal> {
    let without_handlers = || {
        for number in [Signal::SIGBUS, Signal::SIGSEGV] {
            // SAFETY: The default action runs no code of this process.
            unsafe { signal(number, SigHandler::SigDfl) }.expect("it may be changed");
        }
        work();
    };
    match fork_child(without_handlers) {
        WaitStatus::Signaled(_, signal, _) => Some(signal),
        WaitStatus::Exited(_, 0) => None,
        status => panic!("the child ended as {status:?}"),
    }
}

/// Returns a descriptor that serves page faults of this process, if the kernel has them.
pub fn userfaultfd() -> Option<OwnedFd> {
    // SAFETY: Returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    // SAFETY: The descriptor is new, and no other object owns it.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Forks while other threads run, which [`spawn_child`] does not allow. The status of the child is the first byte
/// of a view.
pub fn fork_beside_threads(view: &View) -> WaitStatus {
    // SAFETY: The child calls nothing that takes a lock: it reads and ends.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => waitpid(child, None).expect("the child is this process's"),
        // SAFETY: As above.
        ForkResult::Child => unsafe { libc::_exit(view.load(0).into()) },
    }
}
