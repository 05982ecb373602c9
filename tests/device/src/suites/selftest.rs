// SPDX-License-Identifier: GPL-2.0

//! Tests that end in every way there is. Hidden: they are run by this crate's
//! host tests, which check the harness's results for them.

use std::thread;
use std::time::Duration;

use nix::sys::mman::ProtFlags;
use nix::sys::signal::Signal;

use crate::harness::{skip, suite};
use crate::kit::process::{fork_child, signal_of};
use crate::kit::View;

suite!("freelist_selftest", true:
    passes,
    fails,
    fails_in_a_thread,
    skips,
    hangs,
    hangs_with_a_child,
    aborts,
    dies_of_a_wrong_access,
);

fn passes() {}

fn fails() {
    assert_eq!(1 + 1, 3, "arithmetic");
}

fn fails_in_a_thread() {
    thread::spawn(|| panic!("in a thread")).join().unwrap();
}

fn skips() {
    skip("for show");
}

fn hangs() {
    thread::sleep(Duration::from_secs(3600));
}

fn hangs_with_a_child() {
    fork_child(|| thread::sleep(Duration::from_secs(3600)));
}

fn aborts() {
    std::process::abort();
}

/// First in a child, where this test sees it; then here, where the harness sees it.
fn dies_of_a_wrong_access() {
    let view = View::anonymous(1);
    view.protect(0..view.len(), ProtFlags::PROT_NONE).unwrap();
    assert_eq!(signal_of(|| view.touch(0)), Some(Signal::SIGSEGV));
    view.touch(0);
}
