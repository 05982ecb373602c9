// SPDX-License-Identifier: GPL-2.0

//! The module stays while it is in use. Last of all suites: a failure here
//! takes the device away.
//! Peer: unloading while open, mapped or waited on.

use nix::errno::Errno;
use nix::kmod::{delete_module, DeleteModuleFlags};

use crate::harness::{skip, suite};
use crate::kit::process::spawn_child;
use crate::kit::{alloc, arena, page, stat, View};

suite!("freelist_unload":
    the_module_stays_while_an_arena_is_open,
    the_module_stays_while_only_a_mapping_lives,
    the_module_stays_while_only_a_child_has_the_arena,
    the_module_stays_while_a_file_of_debugfs_is_open,
    the_module_stays_while_somebody_waits,
);

#[track_caller]
fn unloading_is_refused() {
    if !std::path::Path::new("/sys/module/freelist/refcnt").exists() {
        skip("the module is built in");
    }
    let result = delete_module(c"freelist", DeleteModuleFlags::O_NONBLOCK);
    assert!(
        matches!(result, Err(Errno::EWOULDBLOCK | Errno::EBUSY)),
        "{result:?}"
    );
}

fn the_module_stays_while_an_arena_is_open() {
    let arena = arena();
    unloading_is_refused();
    let block = alloc(&arena, 64);
    unloading_is_refused();
    arena.free(block.offset).unwrap();
    assert_eq!(stat(&arena).live_blocks, 0);
}

fn the_module_stays_while_only_a_mapping_lives() {
    let arena = arena();
    let block = alloc(&arena, 2 * page());
    let view = View::shared(&arena, block.offset, block.bytes as usize);
    drop(arena);
    unloading_is_refused();
    // A fault after that needs the module's code.
    view.store(page() as usize, 1);
    assert_eq!(view.load(page() as usize), 1);
}

fn the_module_stays_while_a_file_of_debugfs_is_open() {
    let arena = arena();
    let dir = std::path::Path::new(freelist::debugfs::DIR);
    let of_arena = std::fs::read_dir(dir.join("arenas.d")).unwrap();
    let of_arena = of_arena.flatten().next().unwrap().path();
    let paths = [
        dir.join("stats"),
        dir.join("classes"),
        dir.join("arenas"),
        of_arena.join("map"),
    ];
    let mut files = paths.map(|path| std::fs::File::open(path).unwrap());
    drop(arena);
    unloading_is_refused();
    // The arena's own file outlives it, and says nothing.
    let mut text = String::new();
    let _ = std::io::Read::read_to_string(&mut files[3], &mut text);
    for file in files {
        unloading_is_refused();
        drop(file);
    }
}

fn the_module_stays_while_somebody_waits() {
    use crate::kit::waiter::{sleeps_in_ioctl, waiting};
    let shared = arena();
    shared.set_limit(page()).unwrap();
    alloc(&shared, page());
    let child = spawn_child(|| {
        let request = waiting(page(), crate::kit::DEFAULT, None);
        let _ = crate::kit::raw::alloc(&shared, request);
    });
    sleeps_in_ioctl(&format!("/proc/{}", child.pid()));
    // Nobody else has the arena.
    drop(shared);
    unloading_is_refused();
    nix::sys::signal::kill(child.pid(), nix::sys::signal::Signal::SIGKILL).unwrap();
    child.wait();
}

fn the_module_stays_while_only_a_child_has_the_arena() {
    let shared = arena();
    let (read, write) = nix::unistd::pipe().unwrap();
    let child = spawn_child(|| {
        let mut byte = [0];
        nix::unistd::read(&read, &mut byte).unwrap();
        alloc(&shared, 64);
    });
    drop(shared);
    unloading_is_refused();
    nix::unistd::write(&write, b"x").unwrap();
    child.succeed();
}
