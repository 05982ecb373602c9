// SPDX-License-Identifier: MIT OR Apache-2.0

//! Recordings: samples of arenas over time, with a JSON object on each line.
//!
//! The first line is the header; each of the others is a moment (`sample`), a mark of a replayed trace (`mark`),
//! or an event of a tracepoint (`event`). Times are in ns from the beginning, sizes in bytes.

pub(crate) mod plot;
pub(crate) mod record;
mod tracefs;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use freelist::Stat;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::sample::{Origin, Sample};

/// The version of the format.
const VERSION: u32 = 1;

/// A line of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Line {
    Recording(Header),
    Sample(Moment),
    Mark(Mark),
    Event(Event),
}

/// The header: the source of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) version: u32,
    /// The recorded program or trace, for people.
    pub(crate) title: String,
    pub(crate) kernel: String,
    pub(crate) module: String,
    /// The source of the samples: all arenas, those of the caller's processes, or a replay.
    pub(crate) origin: String,
}

/// A sample of the arenas at one moment. Counters count from the beginning of the arenas.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) time_ns: u64,
    /// The number of the trace's event, in a replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<u64>,
    pub(crate) live_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) held_bytes: u64,
    pub(crate) moved_bytes: u64,
    pub(crate) allocs: u64,
    pub(crate) frees: u64,
    pub(crate) grows: u64,
    pub(crate) waits: u64,
    /// An object for each arena, with the names of `stat --json`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) arenas: Vec<Value>,
    /// The number of events of each tracepoint since the recording began.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) events: BTreeMap<String, u64>,
}

/// The beginning of a phase of a replayed trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) time_ns: u64,
    pub(crate) event: u64,
    pub(crate) text: String,
}

/// An event of a tracepoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) time_ns: u64,
    pub(crate) name: String,
    pub(crate) cpu: u32,
    pub(crate) pid: u32,
    pub(crate) comm: String,
    /// The event's fields, numbers as numbers.
    pub(crate) fields: Map<String, Value>,
}

impl Header {
    pub(crate) fn new(title: String, origin: &str) -> Self {
        let identity = crate::session::Identity::read();
        Self {
            version: VERSION,
            title,
            kernel: identity.kernel,
            module: identity.module,
            origin: origin.to_owned(),
        }
    }
}

impl Moment {
    pub(crate) fn of_sample(time_ns: u64, sample: &Sample) -> Self {
        Self {
            time_ns,
            live_bytes: sample.total("live_bytes"),
            free_bytes: sample.total("free_bytes"),
            held_bytes: sample.total("held_bytes"),
            moved_bytes: sample.total("moved_bytes"),
            allocs: sample.total("allocs"),
            frees: sample.total("frees"),
            grows: sample.total("grows"),
            waits: sample.total("waits"),
            arenas: sample.arenas.iter().map(|row| row.json()).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn of_stat(time_ns: u64, event: u64, stat: &Stat) -> Self {
        Self {
            time_ns,
            event: Some(event),
            live_bytes: stat.live_bytes,
            free_bytes: stat.free_bytes,
            held_bytes: stat.held_bytes,
            moved_bytes: stat.moved_bytes,
            allocs: stat.allocs,
            frees: stat.frees,
            grows: stat.grows,
            waits: stat.waits,
            ..Self::default()
        }
    }
}

/// Returns the name of a sample's source.
pub(crate) fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Debugfs => "debugfs",
        Origin::Fdinfo => "fdinfo",
    }
}

/// Writes a recording.
pub(crate) struct Writer {
    path: PathBuf,
    out: BufWriter<Box<dyn Write>>,
}

impl Writer {
    /// Creates the file; `-` is standard output.
    pub(crate) fn create(path: &Path, header: Header) -> Result<Self> {
        let out: Box<dyn Write> = match path.to_str() {
            Some("-") => Box::new(io::stdout()),
            _ => Box::new(File::create(path).with_context(|| path.display().to_string())?),
        };
        let mut writer = Self {
            path: path.to_owned(),
            out: BufWriter::new(out),
        };
        writer.write(&Line::Recording(header))?;
        Ok(writer)
    }

    pub(crate) fn write(&mut self, line: &Line) -> Result<()> {
        let text = serde_json::to_string(line)?;
        writeln!(self.out, "{text}").with_context(|| self.path.display().to_string())
    }

    /// Writes all buffered lines to the file.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let result = self.out.flush();
        result.with_context(|| self.path.display().to_string())
    }
}

/// Reads a recording.
///
/// # Errors
///
/// An error with the file's name, and the line that is not valid.
pub(crate) fn read(path: &Path) -> Result<(Header, Vec<Line>)> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    parse(BufReader::new(file)).with_context(|| path.display().to_string())
}

fn parse(lines: impl BufRead) -> Result<(Header, Vec<Line>)> {
    let mut parsed = Vec::new();
    let mut header = None;
    for (number, line) in lines.lines().enumerate() {
        let line = line?;
        let at = || format!("line {} is not a line of a recording", number + 1);
        match serde_json::from_str(&line).with_context(at)? {
            Line::Recording(first) if number == 0 => header = Some(first),
            line => parsed.push(line),
        }
        ensure!(
            header.is_some(),
            "it is not a recording: `freelistctl record` and `replay --timeline` make one"
        );
    }
    let header = header.context("it is empty")?;
    ensure!(
        header.version <= VERSION,
        "a newer freelistctl wrote it (version {})",
        header.version
    );
    Ok((header, parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_read_as_it_was_written() {
        let dir = std::env::temp_dir().join(format!("timeline-{}", std::process::id()));
        let header = Header::new("a \"test\"".to_owned(), "debugfs");
        let stat = Stat {
            live_bytes: 4096,
            waits: 3,
            ..Stat::default()
        };
        let fields = Map::from_iter([("size".to_owned(), 64.into())]);
        let lines = [
            Line::Sample(Moment::of_stat(5, 1, &stat)),
            Line::Mark(Mark {
                time_ns: 6,
                event: 2,
                text: "step 1 end".to_owned(),
            }),
            Line::Event(Event {
                time_ns: 7,
                name: "wait".to_owned(),
                cpu: 1,
                pid: 17,
                comm: "a b".to_owned(),
                fields,
            }),
        ];
        let mut writer = Writer::create(&dir, header.clone()).unwrap();
        for line in &lines {
            writer.write(line).unwrap();
        }
        writer.flush().unwrap();
        let read = read(&dir);
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(read.unwrap(), (header, lines.to_vec()));
    }

    #[test]
    fn an_invalid_recording_is_reported_with_its_line() {
        let of = |text: &str| format!("{:#}", parse(text.as_bytes()).unwrap_err());
        assert!(of("").contains("it is empty"));
        assert!(of("a 1 64\n").contains("line 1 is not a line of a recording"));
        let sample = serde_json::to_string(&Line::Sample(Moment::default())).unwrap();
        assert!(of(&sample).contains("replay --timeline"));
        let mut header = Header::new(String::new(), "debugfs");
        let text =
            |header: &Header| serde_json::to_string(&Line::Recording(header.clone())).unwrap();
        let broken = format!("{}\n{{}}\n", text(&header));
        assert!(of(&broken).contains("line 2 is not"), "{}", of(&broken));
        header.version = 2;
        assert!(of(&text(&header)).contains("newer freelistctl"));
    }
}
