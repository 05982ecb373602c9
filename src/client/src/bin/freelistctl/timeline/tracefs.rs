// SPDX-License-Identifier: MIT OR Apache-2.0

//! The module's tracepoints, read through an instance of tracefs of its own, which leaves other tracers
//! undisturbed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::Event;

/// The directory of tracefs.
const ROOT: &str = "/sys/kernel/tracing";
/// The name for the number of events that were lost, as the kernel's buffer was full.
pub(super) const LOST: &str = "lost";

/// A running trace. It ends when it is dropped: the pipe is closed before the instance is removed, as the kernel
/// refuses that while a file of the instance is open.
pub(super) struct Tracer {
    pipe: File,
    _instance: Instance,
    /// The beginning of a line whose rest has not been read yet.
    rest: Vec<u8>,
    /// The time of the beginning, of `CLOCK_MONOTONIC` in ns.
    start: u64,
    pub(super) counts: BTreeMap<String, u64>,
}

/// Returns whether this module has tracepoints that the caller may use.
pub(super) fn is_there() -> bool {
    Path::new(ROOT).join("events/freelist").is_dir()
}

impl Tracer {
    /// Begins to trace. Times of events count from `start`.
    pub(super) fn start(start: u64) -> Result<Self> {
        let instance = Instance::new()?;
        instance.write("trace_clock", "mono")?;
        instance.write("events/freelist/enable", "1")?;
        let path = instance.0.join("trace_pipe");
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let pipe = options.open(&path);
        Ok(Self {
            pipe: pipe.with_context(|| path.display().to_string())?,
            _instance: instance,
            rest: Vec::new(),
            start,
            counts: BTreeMap::new(),
        })
    }

    /// Reads the events since the last call, counts them, and calls `see` with each.
    pub(super) fn take(&mut self, mut see: impl FnMut(Event) -> Result<()>) -> Result<()> {
        let mut bytes = [0; 64 << 10];
        loop {
            let count = match self.pipe.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("trace_pipe"),
            };
            self.rest.extend_from_slice(&bytes[..count]);
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
                continue;
            };
            let whole: Vec<u8> = self.rest.drain(..=end).collect();
            for line in String::from_utf8_lossy(&whole).lines() {
                if let Some(lost) = lost(line) {
                    *self.counts.entry(LOST.to_owned()).or_default() += lost;
                } else if let Some(event) = event(line, self.start) {
                    *self.counts.entry(event.name.clone()).or_default() += 1;
                    see(event)?;
                }
            }
        }
    }
}

/// A directory of tracefs with its own buffers and switches, which is removed when it is dropped.
struct Instance(PathBuf);

impl Instance {
    fn new() -> Result<Self> {
        let name = format!("instances/freelistctl-{}", std::process::id());
        let path = Path::new(ROOT).join(name);
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Writes a file of the instance.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.write("events/enable", "0");
        // The directory remains if another program is reading in it.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Parses a line about lost events: `CPU:1 [LOST 12 EVENTS]`.
fn lost(line: &str) -> Option<u64> {
    let (_, rest) = line.strip_prefix("CPU:")?.split_once("[LOST ")?;
    rest.split(' ').next()?.parse().ok()
}

/// Parses the line of an event: `          name-17      [001] d..1.  1234.567890: wait: arena=3 size=64`.
fn event(line: &str, start: u64) -> Option<Event> {
    // A name may have any character: the first place where the rest is that of a line ends it.
    let mut places = line.match_indices(" [");
    places.find_map(|(at, _)| {
        let (cpu, rest) = line[at + 2..].split_once("] ")?;
        let cpu = cpu.parse().ok()?;
        let (_flags, rest) = rest.split_once(' ')?;
        let (time, rest) = rest.trim_start().split_once(": ")?;
        let (seconds, micros) = time.split_once('.')?;
        let (seconds, micros): (u64, u64) = (seconds.parse().ok()?, micros.parse().ok()?);
        let (name, fields) = rest.split_once(':')?;
        let (comm, pid) = line[..at].trim().rsplit_once('-')?;
        Some(Event {
            time_ns: (seconds * 1_000_000_000 + micros * 1000).saturating_sub(start),
            name: name.to_owned(),
            cpu,
            pid: pid.trim().parse().ok()?,
            comm: comm.to_owned(),
            fields: self::fields(fields),
        })
    })
}

/// Parses the fields of an event: `arena=3 size=64`. Skips other words.
fn fields(text: &str) -> Map<String, Value> {
    let pair = |word: &str| {
        let (name, value) = word.split_once('=')?;
        let value = value.trim_end_matches(',');
        let number = match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok().map(Value::from),
            None => value.parse::<i64>().ok().map(Value::from),
        };
        Some((name.to_owned(), number.unwrap_or_else(|| value.into())))
    };
    text.split_whitespace().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_event_whatever_the_programs_name() {
        let line = "      a-b [x] c-17      [001] d..1.  1234.567890: wait: arena=3 size=64, offset=0x1000 flags=LARGER|GROW";
        let event = event(line, 1_234_000_000_000).unwrap();
        assert_eq!(event.time_ns, 567_890_000);
        assert_eq!((event.cpu, event.pid), (1, 17));
        assert_eq!(
            (event.name.as_str(), event.comm.as_str()),
            ("wait", "a-b [x] c")
        );
        assert_eq!(event.fields["size"], 64);
        assert_eq!(event.fields["offset"], 4096);
        assert_eq!(event.fields["flags"], "LARGER|GROW");
    }

    #[test]
    fn a_line_without_an_event_is_none() {
        assert_eq!(lost("CPU:1 [LOST 12 EVENTS]"), Some(12));
        for line in [
            "",
            "# tracer: nop",
            "CPU:1 [LOST 12 EVENTS]",
            "x-1 [0] d 5: y: z",
        ] {
            assert_eq!(event(line, 0), None, "{line}");
        }
    }
}
