// SPDX-License-Identifier: GPL-2.0

//! The file of a copy: its flags, owner and limits, and the state after a copy that fails.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use freelist::uapi::{freelist_clone, FREELIST_IOC_CLONE};
use freelist::Arena;
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, FdFlag, OFlag};
use nix::sys::resource::{getrlimit, setrlimit, Resource};

use super::clone::{fill, has_its_bytes, leaves_nothing, now, SPAN};
use crate::harness::suite;
use crate::kit::calls::{ioctl, ioctl_at};
use crate::kit::process::{drop_cap_sys_resource, fork_child, spawn_child};
use crate::kit::{alloc, arena, page, raw, refused, stat, Cgroup, View, DEFAULT, MIB};

suite!("freelist_clone_file":
    bounds_are_taken_over,
    its_file_is_as_the_source_s,
    the_clone_belongs_to_the_caller,
    unknown_fields_are_refused,
    a_file_that_is_not_open_for_writing_is_ebadf,
    a_copy_beyond_the_limit_of_files_leaves_nothing,
    a_copy_beyond_a_limit_of_bytes_leaves_nothing,
    a_copy_in_a_full_cgroup_leaves_nothing_and_kills_no_process,
    an_answer_that_cannot_be_written_leaves_nothing,
);

fn bounds_are_taken_over() {
    let source = arena();
    source.set_span(1024 * page()).unwrap();
    source.set_slack_permille(Some(7)).unwrap();
    source.set_limit(100 * page()).unwrap();
    alloc(&source, page());
    let copy = source.copy().unwrap();
    assert_eq!(raw::limit(&copy, 0, 0), raw::limit(&source, 0, 0));
    refused(copy.alloc(100 * page(), DEFAULT), Errno::EDQUOT);
    alloc(&copy, 99 * page());
}

fn its_file_is_as_the_source_s() {
    for mode in [
        OFlag::O_RDWR,
        OFlag::O_WRONLY,
        OFlag::O_RDWR | OFlag::O_NONBLOCK,
    ] {
        let source = Arena::from_fd(raw::open_as(mode));
        let copy = source.copy().unwrap();
        let flags = |fd: &dyn AsFd| fcntl(fd.as_fd(), FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags(&copy), flags(&source), "{mode:?}");
        let number = fcntl(copy.as_fd(), FcntlArg::F_GETFD).unwrap();
        assert_eq!(number, FdFlag::FD_CLOEXEC.bits());
        let path = |number: i32| fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        assert_eq!(
            path(copy.as_fd().as_raw_fd()),
            path(source.as_fd().as_raw_fd())
        );
    }
}

fn the_clone_belongs_to_the_caller() {
    let source = arena();
    alloc(&source, MIB);
    let child = fork_child(|| {
        let copy = source.copy().unwrap();
        alloc(&copy, page());
        let own = std::process::id() as u64;
        let arenas = freelist::debugfs::Arenas::read().unwrap();
        let mine = arenas.0.iter().filter(|arena| arena.pid == own).count();
        assert_eq!(mine, 1);
    });
    assert!(
        matches!(child, nix::sys::wait::WaitStatus::Exited(_, 0)),
        "{child:?}"
    );
}

fn unknown_fields_are_refused() {
    let source = arena();
    alloc(&source, page());
    let before = stat(&source);
    leaves_nothing(|| {
        for request in [
            freelist_clone {
                flags: 1,
                ..Default::default()
            },
            freelist_clone {
                flags: 1 << 31,
                ..Default::default()
            },
            freelist_clone {
                reserved: 1,
                ..Default::default()
            },
            freelist_clone {
                reserved2: 1,
                ..Default::default()
            },
        ] {
            let result = ioctl(source.as_fd(), FREELIST_IOC_CLONE, &mut { request });
            assert_eq!(result, Err(Errno::EINVAL), "{request:?}");
        }
    });
    let failures = before.failures + 4;
    assert_eq!(stat(&source), freelist::Stat { failures, ..before });
}

fn a_file_that_is_not_open_for_writing_is_ebadf() {
    let source = Arena::open_read_only().unwrap();
    leaves_nothing(|| refused(source.copy(), Errno::EBADF));
}

fn a_copy_beyond_the_limit_of_files_leaves_nothing() {
    let source = arena();
    alloc(&source, MIB);
    leaves_nothing(|| {
        spawn_child(|| {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            let open = arena();
            let before = now();
            let next = fcntl(open.as_fd(), FcntlArg::F_DUPFD(0)).unwrap();
            nix::unistd::close(next).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, next as u64, hard).unwrap();
            refused(source.copy(), Errno::EMFILE);
            setrlimit(Resource::RLIMIT_NOFILE, next as u64 + 8, hard).unwrap();
            assert_eq!(now(), before);
            source.copy().unwrap();
        })
        .succeed();
    });
}

fn a_copy_beyond_a_limit_of_bytes_leaves_nothing() {
    let source = arena();
    let view = View::shared(&source, 0, SPAN);
    let blocks = [5 * MIB, 64, MIB, 300].map(|size| alloc(&source, size));
    for block in blocks {
        fill(&view, block, 0);
    }
    // Less than the source holds: the copy exceeds its limit, at its first block or later.
    for limit in [MIB, 5 * MIB + page(), 6 * MIB] {
        source.set_limit(limit).unwrap();
        let before = crate::kit::counters(&source);
        leaves_nothing(|| refused(source.copy(), Errno::EDQUOT));
        let failures = before.failures + 1;
        assert_eq!(
            crate::kit::counters(&source),
            freelist::Stat { failures, ..before }
        );
    }
    drop_cap_sys_resource();
    source.set_limit(16 * MIB).unwrap();
    source.copy().unwrap();
}

/// The copy is charged to the caller's cgroup.
fn a_copy_in_a_full_cgroup_leaves_nothing_and_kills_no_process() {
    let group = Cgroup::new("clone");
    // Enough for the blocks and for this process, but not for the copy.
    group.limit(62 * MIB);
    spawn_child(|| {
        group.join();
        let source = arena();
        let view = View::shared(&source, 0, SPAN);
        let blocks = [20 * MIB, 64, 12 * MIB].map(|size| alloc(&source, size));
        for block in blocks {
            fill(&view, block, 0);
        }
        leaves_nothing(|| refused(source.copy(), Errno::ENOMEM));
        assert!(blocks
            .into_iter()
            .all(|block| has_its_bytes(&view, block, 0)));
        // Under a higher limit the copy succeeds.
        source.free(blocks[0].offset).unwrap();
        source.trim(0).unwrap();
        source.copy().unwrap();
    })
    .succeed();
    assert_eq!(group.event("oom_kill"), 0);
    group.remove();
}

fn an_answer_that_cannot_be_written_leaves_nothing() {
    let source = arena();
    alloc(&source, MIB);
    let view = View::anonymous(size_of::<freelist_clone>());
    view.set_bytes(0, &[0; size_of::<freelist_clone>()]);
    view.protect(0..view.len(), nix::sys::mman::ProtFlags::PROT_READ)
        .unwrap();
    leaves_nothing(|| {
        let result = ioctl_at(&source, FREELIST_IOC_CLONE, view.address(0));
        assert_eq!(result, Err(Errno::EFAULT));
    });
}
