// SPDX-License-Identifier: MIT OR Apache-2.0

//! The module's statistics at one moment: of all arenas from debugfs or, if that cannot be read, of the arenas of
//! the caller's processes.

use std::fmt;
use std::io;
use std::path::Path;

use anyhow::{bail, Result};
use freelist::debugfs::{ArenaRow, Arenas, Classes, Stats};
use freelist::fdinfo::{self, OpenArena};
use serde::Serialize;
use serde_json::{json, Map, Value};

/// The source of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    Debugfs,
    /// `/proc/PID/fdinfo` of the processes that the caller may inspect.
    Fdinfo,
}

/// An arena. Sizes are in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: u64,
    /// The process that opened it, or the first that has it open.
    pub(crate) pid: u64,
    pub(crate) name: String,
    pub(crate) live: u64,
    pub(crate) free: u64,
    pub(crate) held: u64,
    pub(crate) limit: u64,
    /// The number of requests that wait, if it is known.
    pub(crate) waiters: Option<u64>,
    /// The fields of STAT that are known.
    pub(crate) stats: Stats,
}

/// The statistics at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) origin: Origin,
    /// The sums over the arenas.
    pub(crate) totals: Stats,
    pub(crate) arenas: Vec<Row>,
    /// The size classes, from debugfs.
    pub(crate) classes: Option<Classes>,
    /// The reason why it is not all arenas.
    pub(crate) note: Option<String>,
}

impl Sample {
    /// Reads debugfs, or else the `fdinfo` of the caller's processes.
    ///
    /// # Errors
    ///
    /// The module is not loaded, or a file could not be parsed.
    pub(crate) fn read() -> Result<Self> {
        match Self::of_debugfs() {
            Ok(sample) => Ok(sample),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error.into()),
            Err(_) if !Path::new("/sys/module/freelist").exists() => {
                bail!("the module is not loaded; `freelistctl doctor` says how to have it")
            }
            Err(error) => Ok(Self::of_processes(fdinfo::arenas()?, &error)),
        }
    }

    fn of_debugfs() -> io::Result<Self> {
        Ok(Self {
            origin: Origin::Debugfs,
            totals: Stats::read()?,
            arenas: Arenas::read()?.0.into_iter().map(Row::from).collect(),
            classes: Some(Classes::read()?),
            note: None,
        })
    }

    /// Makes a sample of the arenas of the caller's processes. `error` is the reason why debugfs cannot be read.
    fn of_processes(arenas: Vec<OpenArena>, error: &dyn fmt::Display) -> Self {
        let mut totals = Stats(vec![("arenas".to_owned(), arenas.len() as u64)]);
        for (name, value) in arenas.iter().flat_map(|arena| &arena.stats.0) {
            // Sums of limits and of spans have no meaning.
            if ["arena_bytes", "limit_bytes"].contains(&name.as_str()) {
                continue;
            }
            match totals.0.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum = sum.saturating_add(*value),
                None => totals.0.push((name.clone(), *value)),
            }
        }
        Self {
            origin: Origin::Fdinfo,
            totals,
            arenas: arenas.into_iter().map(Row::from).collect(),
            classes: None,
            note: Some(format!(
                "{error}; showing only the arenas of your own processes"
            )),
        }
    }

    /// Returns a total; 0 if it is not known.
    pub(crate) fn total(&self, name: &str) -> u64 {
        self.totals.get(name).unwrap_or(0)
    }

    /// Returns the sample as JSON.
    pub(crate) fn json(&self) -> Value {
        let classes = self.classes.as_ref().map(|classes| {
            let row = |row: &Vec<u64>| {
                let pairs = classes
                    .columns
                    .iter()
                    .cloned()
                    .zip(row.iter().map(|v| json!(v)));
                pairs.collect::<Map<_, _>>()
            };
            classes.rows.iter().map(row).collect::<Vec<_>>()
        });
        json!({
            "origin": self.origin,
            "stats": object(&self.totals),
            "arenas": self.arenas.iter().map(Row::json).collect::<Vec<_>>(),
            "classes": classes,
        })
    }
}

fn object(stats: &Stats) -> Map<String, Value> {
    let pairs = stats.0.iter();
    pairs
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect()
}

impl Row {
    pub(crate) fn json(&self) -> Value {
        let mut row = json!({
            "id": self.id,
            "pid": self.pid,
            "name": self.name,
            "live_bytes": self.live,
            "free_bytes": self.free,
            "held_bytes": self.held,
            "limit_bytes": self.limit,
            "waiters": self.waiters,
        });
        if !self.stats.0.is_empty() {
            row["stats"] = Value::Object(object(&self.stats));
        }
        row
    }
}

impl From<ArenaRow> for Row {
    fn from(row: ArenaRow) -> Self {
        Self {
            id: row.id,
            pid: row.pid,
            name: row.name,
            live: row.live,
            free: row.free,
            held: row.held,
            limit: row.limit,
            waiters: Some(row.waiters),
            stats: Stats::default(),
        }
    }
}

impl From<OpenArena> for Row {
    fn from(arena: OpenArena) -> Self {
        let of = |name| arena.stats.get(name).unwrap_or(0);
        Self {
            id: arena.id,
            pid: arena.pids.first().copied().unwrap_or(0).into(),
            live: of("live_bytes"),
            free: of("free_bytes"),
            held: of("held_bytes"),
            limit: of("limit_bytes"),
            waiters: arena.stats.get("waiters"),
            name: arena.name,
            stats: arena.stats,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(id: u64, held: u64) -> OpenArena {
        let pair = |name: &str, value| (name.to_owned(), value);
        OpenArena {
            id,
            pids: vec![7, 9],
            name: "sh".to_owned(),
            stats: Stats(vec![
                pair("arena_bytes", 64 << 30),
                pair("held_bytes", held),
                pair("limit_bytes", 1 << 30),
                pair("waits", 2),
                pair("waiters", 1),
            ]),
        }
    }

    #[test]
    fn arenas_of_processes_are_summed_up_but_for_their_limits() {
        let arenas = vec![arena(1, 4096), arena(2, 8192)];
        let sample = Sample::of_processes(arenas, &"closed");
        assert_eq!(sample.total("arenas"), 2);
        assert_eq!(sample.total("held_bytes"), 12288);
        assert_eq!(sample.total("waits"), 4);
        assert_eq!(sample.totals.get("limit_bytes"), None);
        assert_eq!((sample.arenas[1].pid, sample.arenas[1].held), (7, 8192));
        let note = sample.note.as_deref();
        assert_eq!(
            note,
            Some("closed; showing only the arenas of your own processes")
        );
    }

    #[test]
    fn a_sample_as_json_has_names() {
        let mut sample = Sample::of_processes(vec![arena(1, 4096)], &"closed");
        let json = sample.json();
        assert_eq!(json["origin"], "fdinfo");
        assert_eq!(json["arenas"][0]["stats"]["waits"], 2);
        assert_eq!(json["arenas"][0]["waiters"], 1);
        assert_eq!(json["classes"], Value::Null);
        sample.classes = Some(Classes::parse("shift live\n5 3\n").unwrap());
        assert_eq!(sample.json()["classes"][0]["live"], 3);
    }
}
