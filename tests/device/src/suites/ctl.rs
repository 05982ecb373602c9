// SPDX-License-Identifier: GPL-2.0

//! `freelistctl`, which lies beside this program: doctor, stat, map, a frame of top, errors.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use freelist::debugfs::Arenas;
use freelist::Arena;
use serde_json::Value;

use crate::harness::suite;
use crate::kit::{alloc, arena, free, page, stat, KIB, MIB};

suite!("freelist_ctl":
    doctor_finds_nothing_wrong_with_a_loaded_module,
    doctors_command_makes_a_device_that_is_missing,
    doctor_has_a_command_for_a_user_without_permission,
    stat_as_json_agrees_with_the_arena,
    stat_prints_until_it_is_ended,
    stat_without_root_shows_the_arenas_of_ones_own_processes,
    map_shows_each_extent_at_its_offset,
    map_has_colours_only_where_they_are_seen,
    map_draws_a_picture,
    a_frame_of_top_needs_no_terminal,
    a_closed_pipe_is_not_reported,
    a_wrong_command_line_is_answered_by_one_line,
);

/// A user without rights.
const NOBODY: u32 = 65534;

/// Returns the command, which lies beside this program.
pub(super) fn ctl<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let this = env::current_exe().expect("/proc is mounted");
    let mut command = Command::new(this.with_file_name("freelistctl"));
    command.args(arguments).stdin(Stdio::null());
    // Variables of the test's own environment would have an effect.
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm-256color");
    command
}

#[track_caller]
pub(super) fn output(command: &mut Command) -> Output {
    command
        .output()
        .expect("freelistctl lies beside this program")
}

/// Returns the output of the command, which has to succeed and to print nothing to standard error.
#[track_caller]
pub(super) fn said<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    let output = output(&mut ctl(arguments));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaint}", output.status);
    assert_eq!(complaint, "");
    String::from_utf8(output.stdout).expect("it prints text")
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns the number of the arena that this process opened last.
#[track_caller]
pub(super) fn id() -> u64 {
    let rows = Arenas::read().expect("debugfs is mounted").0;
    let own = rows
        .iter()
        .rev()
        .find(|row| row.pid == u64::from(std::process::id()));
    own.expect("an arena of this process has a row").id
}

/// Returns the check `name` of the doctor's report.
#[track_caller]
fn check(report: &Value, name: &str) -> (String, String, String) {
    let checks = report["checks"].as_array().expect("there are checks");
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no check {name}: {report:#}"));
    let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
    (text("verdict"), text("text"), text("mend"))
}

fn doctor_finds_nothing_wrong_with_a_loaded_module() {
    let report = json(&said(&["doctor", "--json"]));
    for name in ["kernel", "module", "permission", "debugfs", "limits"] {
        let (verdict, text, _) = check(&report, name);
        assert_eq!(verdict, "ok", "{name}: {text}");
    }
    let (verdict, ..) = check(&report, "device");
    assert_ne!(verdict, "wrong");
    let (_, limits, _) = check(&report, "limits");
    let limit = format!(
        "one arena {:.2} MiB",
        stat(&arena()).limit_bytes as f64 / MIB as f64
    );
    assert!(limits.contains(&limit), "{limits} has {limit}");
    // As text: a line for each check, without colours in a pipe.
    let text = said(&["doctor"]);
    assert!(text.contains("ok       module      freelist"), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
}

fn doctors_command_makes_a_device_that_is_missing() {
    let device = Path::new("/dev/freelist");
    fs::rename(device, "/dev/freelist.away").unwrap();
    let before = output(&mut ctl(&["doctor", "--json"]));
    let report = String::from_utf8_lossy(&before.stdout).into_owned();
    let report = serde_json::from_str(&report).unwrap_or(Value::Null);
    let mend = report["checks"]
        .as_array()
        .map_or(String::new(), |_| check(&report, "device").2);
    let shell = Command::new("sh")
        .arg("-c")
        .arg(mend.replace("sudo ", ""))
        .status();
    let after = output(&mut ctl(&["doctor", "--json"]));
    // Later tests need the device, also where this one fails.
    fs::rename("/dev/freelist.away", device).unwrap();
    assert_eq!(before.status.code(), Some(1));
    assert_eq!(check(&report, "device").0, "wrong");
    assert!(shell.unwrap().success(), "{mend}");
    let after = json(&String::from_utf8(after.stdout).unwrap());
    assert_eq!(check(&after, "device").0, "ok");
    assert_eq!(check(&after, "permission").0, "ok");
}

fn doctor_has_a_command_for_a_user_without_permission() {
    let output = output(ctl(&["doctor", "--json"]).uid(NOBODY).gid(NOBODY));
    assert_eq!(output.status.code(), Some(1));
    let report = json(&String::from_utf8(output.stdout).unwrap());
    let (verdict, text, mend) = check(&report, "permission");
    assert_eq!(verdict, "wrong", "{text}");
    // There is no such group in this system, as where nothing was installed.
    assert!(mend.contains("chgrp freelist /dev/freelist"), "{mend}");
    assert!(mend.contains("usermod -aG freelist"), "{mend}");
    let (verdict, text, _) = check(&report, "debugfs");
    assert_eq!(verdict, "warning", "{text}");
}

fn stat_as_json_agrees_with_the_arena() {
    let arena = arena();
    alloc(&arena, 5 * MIB);
    free(&arena, alloc(&arena, MIB));
    let report = json(&said(&["stat", "--json"]));
    let stat = stat(&arena);
    let rows = report["arenas"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["id"] == id())
        .expect("it has a row");
    assert_eq!(row["live_bytes"], stat.live_bytes);
    assert_eq!(row["free_bytes"], stat.free_bytes);
    assert_eq!(row["held_bytes"], stat.held_bytes);
    assert_eq!(row["limit_bytes"], stat.limit_bytes);
    assert!(report["stats"]["allocs"].as_u64() >= Some(2), "{report:#}");
    assert_eq!(report["origin"], "debugfs");
    let classes = report["classes"].as_array().unwrap();
    assert!(classes.iter().any(|class| class["size"] == 64 * KIB));
    // As text.
    let text = said(&["stat"]);
    let row = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(id().to_string().as_str()));
    assert!(row.is_some_and(|row| row.contains("5.00 MiB")), "{text}");
}

fn stat_prints_until_it_is_ended() {
    let arena = arena();
    let mut command = ctl(&["stat", "--json", "--watch", "0.2"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = {
        let out = child.stdout.take().unwrap();
        io::BufRead::lines(io::BufReader::new(out))
    };
    let mut held = || {
        let report = json(&lines.next().unwrap().unwrap());
        let rows = report["arenas"].as_array().unwrap().clone();
        let row = rows.into_iter().find(|row| row["id"] == id()).unwrap();
        row["held_bytes"].as_u64().unwrap()
    };
    assert_eq!(held(), 0);
    alloc(&arena, 3 * MIB);
    let deadline = Instant::now() + Duration::from_secs(60);
    while held() != 3 * MIB {
        assert!(Instant::now() < deadline, "it never shows the new arena");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Starts an idle process of another user that has the file open.
fn holder(arena: &Arena) -> Child {
    let file: OwnedFd = arena.as_fd().try_clone_to_owned().unwrap();
    let mut command = Command::new("sleep");
    let command = command.arg("600").uid(NOBODY).gid(NOBODY);
    command
        .stdin(File::from(file))
        .spawn()
        .expect("there is a sleep")
}

fn stat_without_root_shows_the_arenas_of_ones_own_processes() {
    let (mine, others) = (arena(), arena());
    alloc(&mine, 7 * MIB);
    alloc(&others, MIB);
    let mut holder = holder(&mine);
    let output = output(ctl(&["stat", "--json"]).uid(NOBODY).gid(NOBODY));
    holder.kill().unwrap();
    holder.wait().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaint}");
    assert!(
        complaint.contains("showing only the arenas of your own processes"),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    let report = json(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(report["origin"], "fdinfo");
    let rows = report["arenas"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{report:#}");
    let row = &rows[0];
    assert_eq!(row["live_bytes"], 7 * MIB);
    assert_eq!(row["pid"], holder.id());
    assert_eq!(row["name"], "sleep");
    assert_eq!(row["stats"]["allocs"], 1);
    assert_eq!(report["stats"]["held_bytes"], 7 * MIB);
    assert_eq!(report["classes"], Value::Null);
}

/// Makes an arena with memory of each kind that a test can make.
fn mixed() -> Arena {
    let arena = arena();
    alloc(&arena, 64 * page());
    let gap = alloc(&arena, 64 * page());
    alloc(&arena, 64 * page());
    free(&arena, gap);
    alloc(&arena, 64);
    arena
}

fn map_shows_each_extent_at_its_offset() {
    let _arena = mixed();
    let text = said(&["map", &id().to_string()]);
    let mut lines = text.lines();
    let title = lines.next().unwrap();
    let this = format!("arena {} of ", id());
    assert!(title.starts_with(&this), "{title}");
    assert!(
        title.contains(&format!("(pid {})", std::process::id())),
        "{title}"
    );
    let legend = lines.next().unwrap();
    for kind in ["# live 0.50 MiB", "- free ", "+ subpage 0.00 MiB"] {
        assert!(legend.contains(kind), "{legend}");
    }
    let cells: String = lines
        .map(|line| line.split_whitespace().nth(1).unwrap_or(""))
        .collect();
    assert!(cells.starts_with(&"#".repeat(64)), "{text}");
    let free = cells.matches('-').count();
    assert_eq!(free + cells.matches('+').count(), 64, "{text}");
    assert_eq!(cells.matches('#').count(), 128, "{text}");
    // The rows as in debugfs.
    let rows = said(&["map", "--rows", &id().to_string()]);
    assert_eq!(rows, freelist::debugfs::map(id()).unwrap());
}

fn map_has_colours_only_where_they_are_seen() {
    let _arena = mixed();
    let number = id().to_string();
    let has_colours = |variables: &[&str]| {
        let mut command = ctl(&["map", &number]);
        command.envs(variables.iter().map(|name| (name, "1")));
        output(&mut command).stdout.contains(&b'\x1b')
    };
    assert!(!has_colours(&[]), "in a pipe");
    assert!(has_colours(&["CLICOLOR_FORCE"]));
    assert!(!has_colours(&["NO_COLOR"]));
}

fn map_draws_a_picture() {
    let _arena = mixed();
    let path = env::temp_dir().join(format!("map-{}.svg", std::process::id()));
    let text = said(&[
        OsStr::new("map"),
        id().to_string().as_ref(),
        "--svg".as_ref(),
        path.as_ref(),
    ]);
    assert!(
        text.starts_with(&format!("{}: arena", path.display())),
        "{text}"
    );
    let picture = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(
        picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"),
        "{picture}"
    );
    for kind in ["live", "free", "subpage"] {
        assert!(
            picture.contains(&format!("class=\"{kind}\"")),
            "{kind}: {picture}"
        );
    }
    let nowhere = output(&mut ctl(&[
        "map",
        &id().to_string(),
        "--svg",
        "/nowhere/x.svg",
    ]));
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/nowhere/x.svg"));
}

fn a_frame_of_top_needs_no_terminal() {
    let (small, large) = (arena(), arena());
    alloc(&small, MIB);
    alloc(&large, 9 * MIB);
    let text = said(&["top", "--sort", "held"]);
    assert!(text.starts_with("freelist  "), "{text}");
    let at = |held: &str| {
        text.find(held)
            .unwrap_or_else(|| panic!("no {held}: {text}"))
    };
    assert!(at(" 9.00 ") < at(" 1.00 "), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
    let classes = said(&["top", "--once", "--view", "classes"]);
    assert!(classes.contains("splits/s"), "{classes}");
}

fn a_closed_pipe_is_not_reported() {
    let _arena = mixed();
    let number = id().to_string();
    for arguments in [
        &["doctor"][..],
        &["stat"],
        &["stat", "--watch", "0.1"],
        &["top"],
        &["map", &number],
        &["map", "--rows", &number],
        &["completions", "zsh"],
    ] {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        let mut command = ctl(arguments);
        let child = command.stdout(writer).stderr(Stdio::piped()).spawn();
        let output = child.unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
}

fn a_wrong_command_line_is_answered_by_one_line() {
    for (arguments, status, advice) in [
        (&["map", "18446744073709551615"][..], 1, "the arena open?"),
        (&["top", "--sort", "colour"], 1, "give one of arena, pid,"),
        (&["top", "--delay", "0"], 2, "0.1 to 86400 seconds"),
        (&["stat", "--watch", "never"], 2, "0.1 to 86400 seconds"),
    ] {
        let output = output(&mut ctl(arguments));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{complaint}");
        assert!(complaint.contains(advice), "{complaint}");
        assert_eq!(output.stdout, b"");
        if status == 1 {
            assert_eq!(complaint.lines().count(), 1, "{complaint}");
        }
    }
}
