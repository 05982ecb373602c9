// SPDX-License-Identifier: GPL-2.0

//! Tests of the harness: its results for tests of every outcome. Needs no device, so it runs on any host.

use std::process::Command;

/// Returns the output for one test of the hidden suite, and whether the run passed.
fn run(test: &str) -> (Vec<String>, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_freelist-device-tests"))
        .args(["--timeout", "2", &format!("freelist_selftest/{test}")])
        .output()
        .expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("KTAP is text");
    let lines = text.lines().map(|line| line.trim().to_owned()).collect();
    (lines, output.status.success())
}

#[track_caller]
fn expect(test: &str, passes: bool, lines: &[&str]) {
    let (output, passed) = run(test);
    assert_eq!(passed, passes, "{output:#?}");
    for line in lines {
        let found = output.iter().any(|out| out.contains(line));
        assert!(found, "{line:?} in {output:#?}");
    }
}

#[test]
fn a_test_that_returns_passes() {
    expect("passes", true, &["ok 1 passes", "pass:1 fail:0 skip:0"]);
}

#[test]
fn a_failing_assertion_is_reported_with_its_place() {
    let lines = [
        "not ok 1 fails",
        "selftest.rs:",
        "arithmetic",
        "not ok 1 freelist_selftest",
        "pass:0 fail:1 skip:0",
    ];
    expect("fails", false, &lines);
}

#[test]
fn a_panic_in_a_thread_fails_the_test() {
    let lines = ["not ok 1 fails_in_a_thread", "in a thread"];
    expect("fails_in_a_thread", false, &lines);
}

#[test]
fn a_skipped_test_says_why() {
    expect("skips", true, &["ok 1 skips # SKIP for show", "skip:1"]);
}

#[test]
fn a_test_that_hangs_is_ended_by_the_watchdog() {
    for test in ["hangs", "hangs_with_a_child"] {
        expect(test, false, &["not ok 1", "no result after 2s"]);
    }
}

#[test]
fn a_crash_fails_the_test_by_its_signal() {
    expect("aborts", false, &["killed by SIGABRT"]);
    expect("dies_of_a_wrong_access", false, &["killed by SIGSEGV"]);
}

#[test]
fn an_unknown_name_is_no_success() {
    expect("unknown", false, &["Bail out!"]);
}

#[test]
fn the_hidden_suite_is_not_run_unasked() {
    let output = Command::new(env!("CARGO_BIN_EXE_freelist-device-tests"))
        .arg("--list")
        .output()
        .expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("names are text");
    assert!(text.contains("freelist_info/"));
    assert!(!text.contains("freelist_selftest/"));
}
