// SPDX-License-Identifier: GPL-2.0

//! The examples of the crate `freelist`, which lie beside this program as `example-NAME`.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::harness::suite;
use crate::kit::system_page;

suite!("freelist_examples":
    each_example_of_the_crate_does_what_it_says,
    an_example_without_permission_says_what_to_do,
);

fn example(name: &str) -> Command {
    let this = env::current_exe().expect("/proc is mounted");
    Command::new(this.with_file_name(format!("example-{name}")))
}

fn each_example_of_the_crate_does_what_it_says() {
    let frame = 1920 * 1080 * 3;
    let pages = |bytes: u64| bytes.next_multiple_of(system_page() as u64);
    let numbers = 8 * 1_000_000;
    // The output of each, without values that depend on the machine.
    let examples = [
        (
            "arena",
            vec![
                format!(
                    "{} bytes asked for, {} allocated",
                    8 * frame,
                    pages(8 * frame)
                ),
                "at the start: the first frame".to_owned(),
                format!("{} bytes after RESIZE to two frames", pages(2 * frame)),
                "at the start after DISCARD: 0".to_owned(),
                "a second free: ".to_owned(),
                "TRIM released all that was held: true".to_owned(),
            ],
        ),
        (
            "heap",
            vec![
                "200 buffers of ".to_owned(),
                ", 0 of them wrong\n65 MiB: ".to_owned(),
                "0 blocks and 0 bytes remain after a trim".to_owned(),
            ],
        ),
        (
            "global",
            vec![
                "the sum of 1000000 numbers is 499999500000".to_owned(),
                format!("{} bytes in 1 blocks of the arena", pages(numbers)),
                "0 bytes after they were dropped\n0 bytes are kept".to_owned(),
            ],
        ),
    ];
    for (name, promised) in examples {
        let output = example(name).output();
        let output =
            output.unwrap_or_else(|error| panic!("example-{name} beside this program: {error}"));
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}{complained}");
        assert_eq!(complained, "", "{name}");
        for line in promised {
            assert!(said.contains(&line), "{name}: no '{line}' in:\n{said}");
        }
    }
}

fn an_example_without_permission_says_what_to_do() {
    for name in ["arena", "heap"] {
        let mut command = example(name);
        let output = command.uid(65534).gid(65534).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        let begin = format!("{name}: cannot open /dev/freelist: EACCES");
        assert!(said.starts_with(&begin), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
