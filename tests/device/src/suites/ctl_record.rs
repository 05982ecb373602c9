// SPDX-License-Identifier: GPL-2.0

//! `freelistctl record`, `replay --timeline` and `plot`: arenas over time.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use super::ctl::{ctl, id, output, said};
use crate::harness::suite;
use crate::kit::{alloc, arena, free, thread, KIB, MIB};

suite!("freelist_ctl_record":
    a_recording_follows_arenas_while_a_program_runs,
    a_recording_ends_as_its_program_does,
    a_recording_that_is_interrupted_is_whole,
    one_may_record_ones_own_arenas_without_root,
    tracepoints_are_counted_and_left_as_they_were,
    a_replay_leaves_a_timeline_that_is_drawn,
    completions_and_man_pages_are_made,
);

/// A file of this test, which is removed when the value is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let this = std::env::current_exe().expect("/proc is mounted");
        Self(this.with_file_name(format!("{}-{name}", std::process::id())))
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.0).unwrap();
        let line =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        text.lines().map(line).collect()
    }
}

impl AsRef<OsStr> for Scratch {
    fn as_ref(&self) -> &OsStr {
        self.0.as_ref()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns the samples of a recording, after its header.
fn samples(lines: &[Value]) -> Vec<&Value> {
    assert_eq!(lines[0]["type"], "recording", "{}", lines[0]);
    lines
        .iter()
        .filter(|line| line["type"] == "sample")
        .collect()
}

/// Returns the held bytes of an arena in each sample that has it.
fn held(samples: &[&Value], id: u64) -> Vec<u64> {
    let of = |sample: &&Value| {
        let rows = sample["arenas"].as_array()?;
        rows.iter().find(|row| row["id"] == id)?["held_bytes"].as_u64()
    };
    samples.iter().filter_map(of).collect()
}

fn a_recording_follows_arenas_while_a_program_runs() {
    let (arena, file) = (arena(), Scratch::new("follow.jsonl"));
    let arguments: [&OsStr; 8] = [
        "record".as_ref(),
        "--interval".as_ref(),
        "0.1".as_ref(),
        "--output".as_ref(),
        file.as_ref(),
        "--".as_ref(),
        "cat".as_ref(),
        "-".as_ref(),
    ];
    let mut command = ctl(&arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The recording runs from here on, until `cat` has no more to read.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !file.0.exists() {
        assert!(Instant::now() < deadline, "it never begins");
        thread::sleep(Duration::from_millis(50));
    }
    let block = alloc(&arena, 5 * MIB);
    thread::sleep(Duration::from_millis(1500));
    free(&arena, block);
    arena.trim(0).unwrap();
    thread::sleep(Duration::from_millis(1500));
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.contains("samples in"), "{complaint}");
    let lines = file.lines();
    assert!(
        lines[0]["title"].as_str().unwrap().starts_with("cat -"),
        "{}",
        lines[0]
    );
    assert_eq!(lines[0]["origin"], "debugfs");
    let samples = samples(&lines);
    let held = held(&samples, id());
    assert!(held.contains(&(5 * MIB)), "{held:?}");
    assert_eq!(held.last(), Some(&0), "{held:?}");
    let times: Vec<u64> = samples
        .iter()
        .map(|one| one["time_ns"].as_u64().unwrap())
        .collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    draws(&file);
}

/// Checks that a recording can be drawn.
#[track_caller]
fn draws(file: &Scratch) {
    let picture = Scratch::new("picture.svg");
    let plot: [&OsStr; 4] = [
        "plot".as_ref(),
        file.as_ref(),
        "--output".as_ref(),
        picture.as_ref(),
    ];
    said(&plot);
    let text = fs::read_to_string(&picture.0).unwrap();
    assert!(
        text.starts_with("<svg") && text.contains("MiB moved"),
        "{text}"
    );
}

fn a_recording_ends_as_its_program_does() {
    let file = Scratch::new("end.jsonl");
    for (script, status) in [("exit 3", 3), ("kill -9 $$", 137)] {
        let arguments: [&OsStr; 7] = [
            "record".as_ref(),
            "-o".as_ref(),
            file.as_ref(),
            "--".as_ref(),
            "sh".as_ref(),
            "-c".as_ref(),
            script.as_ref(),
        ];
        assert_eq!(output(&mut ctl(&arguments)).status.code(), Some(status));
        // One at its beginning and one at its end.
        assert!(samples(&file.lines()).len() >= 2);
    }
    let nothing: [&OsStr; 5] = [
        "record".as_ref(),
        "-o".as_ref(),
        file.as_ref(),
        "--".as_ref(),
        "no-such-program".as_ref(),
    ];
    let output = output(&mut ctl(&nothing));
    assert_eq!(output.status.code(), Some(127));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.contains("no-such-program"), "{complaint}");
}

fn a_recording_that_is_interrupted_is_whole() {
    let file = Scratch::new("signal.jsonl");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let arguments: [&OsStr; 3] = ["record".as_ref(), "-o".as_ref(), file.as_ref()];
        let mut child = ctl(&arguments).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_secs(2));
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert!(child.wait().unwrap().success(), "{signal}");
        let text = fs::read_to_string(&file.0).unwrap();
        assert!(text.ends_with("}\n"), "{text}");
        assert!(samples(&file.lines()).len() >= 2, "{text}");
    }
}

fn one_may_record_ones_own_arenas_without_root() {
    let arguments = ["record", "--duration", "0.3", "--output", "-"];
    let output = output(ctl(&arguments).uid(65534).gid(65534));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaint}");
    assert!(complaint.contains("your own processes"), "{complaint}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["origin"], "fdinfo");
    assert!(samples(&lines).len() >= 2, "{text}");
}

fn tracepoints_are_counted_and_left_as_they_were() {
    let tracing = Path::new("/sys/kernel/tracing");
    let has_events = tracing.join("events/freelist").is_dir();
    let file = Scratch::new("events.jsonl");
    let arguments: [&OsStr; 4] = [
        "record".as_ref(),
        "--events".as_ref(),
        "-o".as_ref(),
        file.as_ref(),
    ];
    let mut child = ctl(&arguments).stderr(Stdio::null()).spawn().unwrap();
    thread::sleep(Duration::from_secs(2));
    let arena = arena();
    for _ in 0..10 {
        free(&arena, alloc(&arena, 64 * KIB));
    }
    thread::sleep(Duration::from_secs(1));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success());
    let lines = file.lines();
    let last = samples(&lines).last().copied().cloned().unwrap();
    let events = lines.iter().filter(|line| line["type"] == "event");
    let allocs = events.filter(|line| line["name"] == "alloc").count();
    if has_events {
        assert!(last["events"]["alloc"].as_u64() >= Some(10), "{last}");
        assert!(allocs >= 10, "{allocs}");
        let instances = fs::read_dir(tracing.join("instances")).unwrap();
        assert_eq!(instances.count(), 0, "its own instance has gone");
    } else {
        // Without tracepoints in the module or the kernel the statistics are recorded alone.
        assert_eq!((allocs, &last["events"]), (0, &Value::Null));
        assert!(last["allocs"].as_u64() >= Some(10), "{last}");
    }
}

fn a_replay_leaves_a_timeline_that_is_drawn() {
    let (trace, file) = (Scratch::new("a.trace"), Scratch::new("replay.jsonl"));
    let mut text = String::from("# recorded: by hand\n");
    for number in 0..40 {
        text += &format!("a {number} 1048576\n");
    }
    text += "m step 1 end\n";
    for number in 0..40 {
        text += &format!("f {number}\n");
    }
    fs::write(&trace.0, text).unwrap();
    let arguments: [&OsStr; 4] = [
        "replay".as_ref(),
        trace.as_ref(),
        "--timeline".as_ref(),
        file.as_ref(),
    ];
    said(&arguments);
    let lines = file.lines();
    let samples = samples(&lines);
    assert_eq!(samples.len(), 81, "one an event of so short a trace");
    let live = |at: usize| samples[at]["live_bytes"].as_u64().unwrap();
    assert_eq!((live(0), live(39), live(80)), (MIB, 40 * MIB, 0));
    assert!(lines
        .iter()
        .any(|line| line["type"] == "mark" && line["text"] == "step 1 end"));
    let plot: [&OsStr; 2] = ["plot".as_ref(), file.as_ref()];
    said(&plot);
    let picture = Scratch(file.0.with_extension("svg"));
    let text = fs::read_to_string(&picture.0).unwrap();
    assert!(
        text.contains("step 1 end") && text.contains("events of the trace"),
        "{text}"
    );
    // A file that is not a recording is not drawn.
    let plot: [&OsStr; 2] = ["plot".as_ref(), trace.as_ref()];
    let refused = output(&mut ctl(&plot));
    assert_eq!(refused.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        complaint.contains("line 1 is not a line of a recording"),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
}

fn completions_and_man_pages_are_made() {
    let text = said(&["completions", "bash"]);
    assert!(
        text.contains("_freelistctl") && text.contains("doctor"),
        "{text}"
    );
    let dir = Scratch::new("man");
    fs::create_dir(&dir.0).unwrap();
    let arguments: [&OsStr; 2] = ["man".as_ref(), dir.as_ref()];
    said(&arguments);
    for page in ["freelistctl.1", "freelistctl-top.1", "freelistctl-plot.1"] {
        let text = fs::read_to_string(dir.0.join(page)).unwrap();
        assert!(text.contains(".TH freelistctl"), "{page}: {text}");
    }
    let nowhere = output(&mut ctl(&["man", "/nowhere"]));
    assert_eq!(nowhere.status.code(), Some(1));
}
