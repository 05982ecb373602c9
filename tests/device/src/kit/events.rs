// SPDX-License-Identifier: GPL-2.0

//! The events of the module's tracepoints.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use freelist::Arena;

use super::fdinfo;
use super::trace::Instance;

/// The directory of the module's events, in an instance of the tracer.
const SYSTEM: &str = "events/freelist";

/// An event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its fields, `NAME=VALUE`, separated by blanks.
    text: String,
}

impl Event {
    /// Returns the value of a field, as it was printed.
    #[track_caller]
    pub fn text(&self, field: &str) -> &str {
        let values = self.text.split(' ').filter_map(|word| word.split_once('='));
        let mut named = values.filter(|(name, _)| *name == field);
        let (_, value) = named
            .next()
            .unwrap_or_else(|| panic!("no field {field} in {self:?}"));
        value
    }

    /// Returns the value of a field that is a number: decimal, or hexadecimal after `0x`.
    #[track_caller]
    pub fn number(&self, field: &str) -> i64 {
        let text = self.text(field);
        let number = match text.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16),
            None => i64::from_str(text),
        };
        number.unwrap_or_else(|error| panic!("{field}={text}: {error}"))
    }
}

/// The tracer, switched on for events of the module, ordered over all CPUs.
pub struct Events(Instance);

impl Events {
    /// Records all events of these names.
    pub fn record(names: &[&str]) -> Self {
        let instance = Instance::new();
        // A counter, not a time: CPUs whose clocks differ do not change the order.
        instance.set("trace_clock", "counter");
        instance.set("buffer_size_kb", "4096");
        for name in names {
            instance.set(&format!("{SYSTEM}/{name}/enable"), "1");
        }
        Self(instance)
    }

    /// Stops the recording.
    pub fn stop(&self) {
        self.0.set(&format!("{SYSTEM}/enable"), "0");
    }

    /// Returns the events of an arena so far.
    pub fn of(&self, arena: &Arena) -> Vec<Event> {
        self.of_number(number(arena))
    }

    /// Returns the events of the arena with this number.
    pub fn of_number(&self, arena: i64) -> Vec<Event> {
        let text = fs::read_to_string(self.0 .0.join("trace")).expect("root may read it");
        assert!(!text.contains("LOST"), "the buffer is too small");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let events = lines.map(|line| parse(line).unwrap_or_else(|| panic!("{line:?}")));
        events
            .filter(|event| event.number("arena") == arena)
            .collect()
    }

    /// Returns the text of an event's format.
    pub fn format(&self, name: &str) -> String {
        let path = Path::new(SYSTEM).join(name).join("format");
        fs::read_to_string(self.0 .0.join(path)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Returns the names of all events, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0 .0.join(SYSTEM)).expect("the module has events");
        let directories = entries.flatten().filter(|entry| entry.path().is_dir());
        let mut names: Vec<String> = directories
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }
}

/// Returns the number of an arena.
#[track_caller]
pub fn number(arena: &Arena) -> i64 {
    fdinfo(arena).0 as i64
}

/// Parses a line ` PROGRAM-PID [CPU] FLAGS TIME: NAME: FIELDS`.
fn parse(line: &str) -> Option<Event> {
    let (_, after) = line.split_once("] ")?;
    let (_, event) = after.split_once(": ")?;
    let (name, text) = event.split_once(": ")?;
    Some(Event {
        name: name.to_owned(),
        text: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_by_name() {
        let line = "  a: b-106  [000] .....  6285: alloc: arena=2 offset=0x20 flags= result=-12";
        let event = parse(line).unwrap();
        assert_eq!(event.name, "alloc");
        assert_eq!(event.number("offset"), 32);
        assert_eq!(event.number("result"), -12);
        assert_eq!(event.text("flags"), "");
    }
}
