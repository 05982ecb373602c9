// SPDX-License-Identifier: MIT OR Apache-2.0

//! Recorded allocation traces, as in `tests/traces/`.
//!
//! A trace is text, compressed by gzip or plain, with one event on each line: `a ID BYTES` an allocation,
//! `f ID` its release, `m TEXT` the mark of a phase, `# key: value` a line of the header. An ID is never
//! used twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

/// An event of a trace. Blocks are numbered in the order of their allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The block of this number is allocated.
    Alloc(usize),
    /// The block of this number is freed.
    Free(usize),
    /// A phase begins.
    Mark(String),
}

/// The point of a trace at which the most bytes are live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peak {
    /// The index in [`Trace::events`] of the event that reaches it.
    pub event: usize,
    /// The bytes of live blocks after that event, as asked for.
    pub bytes: u64,
    /// The number of live blocks after that event.
    pub blocks: usize,
}

/// A trace in which every release is that of a live block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The header's `key: value` pairs, in order.
    pub header: Vec<(String, String)>,
    /// The events, in order.
    pub events: Vec<Event>,
    /// The bytes of each block, as asked for, by block number.
    pub sizes: Vec<u64>,
}

/// The reason why a file is not a trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error. The message has it, so it is not a source of its own.
        error: io::Error,
    },
    /// A line is not valid in a trace.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// A description of the problem.
        problem: String,
    },
}

impl Trace {
    /// Reads a file, gzip'd or plain.
    ///
    /// # Errors
    ///
    /// [`TraceError`] with the file's name and the line.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let failed = |error| TraceError::Read {
            path: path.to_owned(),
            error,
        };
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let gzipped = file.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
        let mut text = Vec::new();
        if gzipped {
            MultiGzDecoder::new(file).read_to_end(&mut text)
        } else {
            file.read_to_end(&mut text)
        }
        .map_err(failed)?;
        Self::parse(&text).map_err(|(line, problem)| TraceError::Line {
            path: path.to_owned(),
            line,
            problem,
        })
    }

    /// Parses a trace's text.
    ///
    /// # Errors
    ///
    /// The number of the invalid line, from 1, and a description of the problem.
    pub fn parse(text: &[u8]) -> Result<Self, (usize, String)> {
        let mut parser = Parser::default();
        for (i, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            std::str::from_utf8(line)
                .map_err(|_| "is not UTF-8".to_owned())
                .and_then(|line| parser.line(line))
                .map_err(|problem| (i + 1, problem))?;
        }
        Ok(parser.trace)
    }

    /// Returns the value of a header line.
    pub fn header(&self, key: &str) -> Option<&str> {
        let pair = self.header.iter().find(|(k, _)| k == key);
        pair.map(|(_, value)| value.as_str())
    }

    /// Drops the events after training step `steps`, which ends with the mark `step N end`. Returns
    /// `false`, and changes nothing, if there are fewer steps.
    pub fn keep_steps(&mut self, steps: usize) -> bool {
        let end = format!("step {steps} end");
        let is_end = |event: &Event| matches!(event, Event::Mark(text) if *text == end);
        match self.events.iter().position(is_end) {
            Some(at) => {
                self.events.truncate(at + 1);
                true
            }
            None => false,
        }
    }

    /// Returns the first point at which the most bytes are live.
    pub fn peak(&self) -> Peak {
        let mut peak = Peak::default();
        let (mut bytes, mut blocks) = (0, 0);
        for (event, what) in self.events.iter().enumerate() {
            match what {
                Event::Alloc(block) => {
                    bytes += self.sizes[*block];
                    blocks += 1;
                }
                Event::Free(block) => {
                    bytes -= self.sizes[*block];
                    blocks -= 1;
                }
                Event::Mark(_) => {}
            }
            if bytes > peak.bytes {
                peak = Peak {
                    event,
                    bytes,
                    blocks,
                };
            }
        }
        peak
    }
}

#[derive(Default)]
struct Parser {
    trace: Trace,
    /// The block number of each ID, and whether the block is live.
    blocks: HashMap<u64, (usize, bool)>,
    /// The bytes of all allocations so far.
    total: u64,
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let Some((kind, rest)) = line.split_once(' ') else {
            return match line {
                "" => Ok(()),
                "#" => Ok(()),
                "m" => {
                    self.trace.events.push(Event::Mark(String::new()));
                    Ok(())
                }
                _ => Err(format!("{line:?} is no event")),
            };
        };
        match kind {
            "#" => {
                if let Some((key, value)) = rest.split_once(": ") {
                    let pair = (key.trim().to_owned(), value.trim().to_owned());
                    self.trace.header.push(pair);
                }
                Ok(())
            }
            "m" => {
                self.trace.events.push(Event::Mark(rest.to_owned()));
                Ok(())
            }
            "a" => {
                let (id, size) = rest
                    .split_once(' ')
                    .ok_or("an allocation needs an ID and a size")?;
                self.alloc(number(id)?, number(size)?)
            }
            "f" => self.free(number(rest)?),
            _ => Err(format!("{kind:?} is no kind of event (a, f, m or #)")),
        }
    }

    fn alloc(&mut self, id: u64, size: u64) -> Result<(), String> {
        let block = self.trace.sizes.len();
        // The total is a bound of every sum of sizes that is computed later.
        self.total = self
            .total
            .checked_add(size)
            .ok_or("all sizes together exceed 64 bits")?;
        if self.blocks.insert(id, (block, true)).is_some() {
            return Err(format!("block {id} is allocated a second time"));
        }
        self.trace.sizes.push(size);
        self.trace.events.push(Event::Alloc(block));
        Ok(())
    }

    fn free(&mut self, id: u64) -> Result<(), String> {
        match self.blocks.get_mut(&id) {
            Some((block, live)) if *live => {
                *live = false;
                self.trace.events.push(Event::Free(*block));
                Ok(())
            }
            Some(_) => Err(format!("block {id} is released a second time")),
            None => Err(format!("block {id} is released but was never allocated")),
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    // Digits only: parse() would accept a sign.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| format!("{text:?} is no number of 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(name: &str) -> Trace {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/traces");
        Trace::read(format!("{dir}/{name}.txt.gz")).unwrap()
    }

    fn problem(text: &str) -> (usize, String) {
        Trace::parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn events_are_numbered_in_order() {
        let trace =
            Trace::parse(b"# name: x\n# no pair\nm begin\na 7 10\na 3 0\nf 7\n\na 8 1").unwrap();
        assert_eq!(trace.header("name"), Some("x"));
        assert_eq!(trace.sizes, [10, 0, 1]);
        assert_eq!(
            trace.events,
            [
                Event::Mark("begin".to_owned()),
                Event::Alloc(0),
                Event::Alloc(1),
                Event::Free(0),
                Event::Alloc(2),
            ]
        );
    }

    #[test]
    fn bad_lines_are_named_by_number() {
        assert_eq!(problem("a 1 5\nx 1").0, 2);
        assert_eq!(problem("hello").0, 1);
        assert_eq!(problem("# a: b\n\na 1").0, 3);
        assert_eq!(problem("a 1 -5").0, 1);
        assert_eq!(problem("a 1 +5").0, 1);
        assert_eq!(problem("a 1 5 6").0, 1);
        assert_eq!(problem("a 1 18446744073709551616").0, 1);
        assert_eq!(problem("a 1 18446744073709551615\na 2 1").0, 2);
        assert_eq!(problem("f ").0, 1);
        assert_eq!(Trace::parse(b"a 1 5\nm \xff\n").unwrap_err().0, 2);
    }

    #[test]
    fn only_live_blocks_are_released() {
        assert_eq!(problem("a 1 5\na 1 5").0, 2);
        assert_eq!(problem("f 1").0, 1);
        assert_eq!(problem("a 1 5\nf 1\nf 1").0, 3);
        assert!(problem("a 1 5\nf 1\nf 1").1.contains("second time"));
    }

    #[test]
    fn the_peak_is_the_first_point_with_the_most_bytes() {
        let trace = Trace::parse(b"a 1 5\na 2 5\nf 1\na 3 5\nf 2").unwrap();
        let peak = Peak {
            event: 1,
            bytes: 10,
            blocks: 2,
        };
        assert_eq!(trace.peak(), peak);
        assert_eq!(Trace::default().peak(), Peak::default());
    }

    #[test]
    fn steps_end_at_their_mark() {
        let mut trace = Trace::parse(b"a 1 5\nm step 1 end\na 2 5\nm step 2 end\n").unwrap();
        assert!(!trace.clone().keep_steps(3));
        assert!(trace.keep_steps(1));
        assert_eq!(trace.events.len(), 2);
    }

    #[test]
    fn a_missing_or_invalid_file_is_named() {
        let error = Trace::read("/nonexistent/trace").unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/trace: "));
        // The message has it once, where an error's sources are printed after it too.
        assert!(std::error::Error::source(&error).is_none());
    }

    /// Expects events, total bytes and peak as in the traces' README.
    #[test]
    fn the_recorded_traces_match_their_readme() {
        for (name, events, total, peak) in [
            ("torch_resnet18", 5_480, 1_557_091_632, 169_175_752),
            ("torch_gpt", 6_846, 1_586_969_280, 267_054_296),
            ("torch_unet", 9_920, 2_202_851_392, 118_124_200),
            ("small_sqlite3", 393_902, 50_360_327, 4_459_421),
            ("small_git_log", 60_588, 85_184_631, 3_337_091),
        ] {
            let trace = recorded(name);
            let marks = |event: &&Event| !matches!(event, Event::Mark(_));
            assert_eq!(trace.events.iter().filter(marks).count(), events, "{name}");
            assert_eq!(trace.sizes.iter().sum::<u64>(), total, "{name}");
            assert_eq!(trace.peak().bytes, peak, "{name}");
            let header = trace.header("peak live bytes").unwrap();
            assert_eq!(header, peak.to_string(), "{name}");
        }
    }

    #[test]
    fn a_training_trace_has_four_steps() {
        for name in ["torch_resnet18", "torch_gpt", "torch_unet"] {
            assert!(recorded(name).keep_steps(4), "{name}");
            assert!(!recorded(name).keep_steps(5), "{name}");
        }
    }
}
