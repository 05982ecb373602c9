// SPDX-License-Identifier: GPL-2.0

//! Programs whose allocator is [`freelist::Global`].

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::harness::suite;

suite!("freelist_global":
    a_whole_program_has_its_large_blocks_in_an_arena,
    a_program_without_a_device_continues_and_reports_why,
);

/// Returns the program whose allocator is [`freelist::Global`]; it lies beside this one.
fn program() -> Command {
    let this = env::current_exe().expect("/proc is mounted");
    Command::new(this.with_file_name("freelist-global"))
}

fn a_whole_program_has_its_large_blocks_in_an_arena() {
    let output = program()
        .output()
        .expect("freelist-global lies beside this program");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {complained}", output.status);
    assert!(said.contains("bytes were in an arena"), "{said}");
    assert_eq!(complained, "");
}

fn a_program_without_a_device_continues_and_reports_why() {
    let mut command = program();
    // A user without permission to open the device.
    let command = command.arg("without").uid(65534).gid(65534);
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let line = "freelist: no permission to open the device: the C library serves large blocks\n";
    assert_eq!(said, line, "it is said once");
    let output = command.env("FREELIST_QUIET", "1").output();
    assert_eq!(output.expect("it runs").stderr, b"");
}
