// SPDX-License-Identifier: GPL-2.0

//! The table of faults that reviews found, with the tests that show that each is gone.
//!
//! `tests/reviews` has a line for each fault: `NUMBER FAULT: SUITE/TEST, SUITE/TEST`. A fault is held if each of
//! its tests has passed in some stage, and failed in none; one without a test is not held.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{bail, Context, Result};

use crate::figure::{Aim, Figure};
use crate::ktap::outcomes;

/// The path of the table in the project.
const TABLE: &str = "tests/reviews";

/// A fault.
#[derive(Debug, PartialEq)]
struct Fault {
    number: u32,
    what: String,
    /// The tests that show that it is gone, as `SUITE/TEST`.
    tests: Vec<String>,
}

/// All faults, by their numbers.
#[derive(Debug, Default)]
pub struct Reviews(Vec<Fault>);

impl Reviews {
    /// Reads the table under `top`.
    pub fn read(top: &Path) -> Result<Self> {
        let text = fs::read_to_string(top.join(TABLE)).context(TABLE)?;
        Self::parse(&text).context(TABLE)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut all: Vec<Fault> = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fault = fault(line).with_context(|| line.to_owned())?;
            let expected = all.len() as u32 + 1;
            if fault.number != expected {
                bail!("{line}: number {expected} comes next");
            }
            all.push(fault);
        }
        Ok(Self(all))
    }

    /// Returns the number of faults that are held according to the output of the stages, as a figure, and
    /// descriptions of the others.
    pub fn judge(&self, stages: &BTreeMap<String, String>) -> (Figure, Vec<String>) {
        // One failure outweighs all successes.
        let mut results = BTreeMap::new();
        for outcome in stages.values().flat_map(|text| outcomes(text)) {
            let test = format!("{}/{}", outcome.suite, outcome.name);
            *results.entry(test).or_insert(true) &= outcome.passed;
        }
        let mut wrong = Vec::new();
        for Fault {
            number,
            what,
            tests,
        } in &self.0
        {
            let fault = format!("fault {number} of the reviews ({what})");
            let failed = tests
                .iter()
                .filter(|test| results.get(*test) != Some(&true));
            let failed: Vec<_> = failed.map(String::as_str).collect();
            if tests.is_empty() {
                wrong.push(format!("{fault} has no test"));
            } else if !failed.is_empty() {
                wrong.push(format!("{fault}: {} has not passed", failed.join(", ")));
            }
        }
        let figure = Figure {
            name: "review_faults_held".to_owned(),
            value: (self.0.len() - wrong.len()) as f64,
            unit: format!("of {}", self.0.len()),
            aim: Aim::Exactly(self.0.len() as f64),
            spread: None,
        };
        (figure, wrong)
    }
}

/// Parses a line of the table.
fn fault(line: &str) -> Result<Fault> {
    let (before, tests) = line.split_once(':').context("no colon")?;
    let (number, what) = before
        .split_once(' ')
        .context("no fault after the number")?;
    let mut all = Vec::new();
    for test in tests
        .split(',')
        .map(str::trim)
        .filter(|test| !test.is_empty())
    {
        if !test.contains('/') || test.contains(char::is_whitespace) {
            bail!("not SUITE/TEST: {test}");
        }
        all.push(test.to_owned());
    }
    Ok(Fault {
        number: number.parse().context("the number")?,
        what: what.trim().to_owned(),
        tests: all,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use walkdir::WalkDir;

    const TABLE: &str = "# faults\n1 it broke: a/one, b/two\n2 it tore:\n3 it bent: a/one\n";

    fn stages(ktaps: &[&str]) -> BTreeMap<String, String> {
        let stages = ktaps.iter().enumerate();
        stages
            .map(|(at, ktap)| (at.to_string(), (*ktap).to_owned()))
            .collect()
    }

    /// Looks for each test in the sources: a function, or a name that a program prints.
    #[test]
    fn every_test_that_a_fault_names_is_in_the_sources() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let reviews = Reviews::read(&top).unwrap();
        assert!(!reviews.0.is_empty());
        let files = ["src", "tests"].map(|dir| WalkDir::new(top.join(dir)));
        let mut text = String::new();
        for entry in files.into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy();
            if entry.file_type().is_file() && name != "reviews" && !name.ends_with(".patch") {
                text += &fs::read_to_string(entry.path()).unwrap_or_default();
            }
        }
        for fault in &reviews.0 {
            for test in &fault.tests {
                let name = test.rsplit(['/', ':']).next().unwrap();
                let found = text.matches(name).count();
                assert!(found > 0, "fault {}: no source has {test}", fault.number);
            }
        }
    }

    #[test]
    fn a_fault_is_held_when_all_of_its_tests_have_passed() {
        let reviews = Reviews::parse(TABLE).unwrap();
        let a = "    # Subtest: a\n    ok 1 one\n    ok 2 two\nok 1 a\n";
        let (figure, wrong) = reviews.judge(&stages(&[a]));
        assert_eq!((figure.value, figure.aim), (1.0, Aim::Exactly(3.0)));
        assert_eq!(figure.unit, "of 3");
        assert_eq!(
            wrong,
            [
                "fault 1 of the reviews (it broke): b/two has not passed",
                "fault 2 of the reviews (it tore) has no test"
            ]
        );
        let b = "    # Subtest: b\n    ok 1 - two\n";
        assert_eq!(reviews.judge(&stages(&[a, b])).0.value, 2.0);
    }

    #[test]
    fn a_test_that_was_skipped_or_failed_somewhere_shows_nothing() {
        let reviews = Reviews::parse("1 it bent: a/one").unwrap();
        let held = |ktaps: &[&str]| reviews.judge(&stages(ktaps)).0.value == 1.0;
        let passed = "    # Subtest: a\n    ok 1 one\n";
        assert!(held(&[
            passed,
            "    # Subtest: a\n    ok 1 one # SKIP no room\n"
        ]));
        assert!(!held(&["    # Subtest: a\n    ok 1 one # SKIP no room\n"]));
        assert!(!held(&[passed, "    # Subtest: a\n    not ok 1 one\n"]));
        // The suite's own line, and another suite's test.
        assert!(!held(&[
            "# Subtest: a\nok 1 one\n",
            "    # Subtest: c\n    ok 1 one\n"
        ]));
    }

    #[test]
    fn an_invalid_line_of_the_table_is_refused() {
        for text in [
            "1 it broke",
            "one it broke: a/b",
            "1: a/b",
            "1 it broke: one",
            "1 it broke: a/one two",
            "2 it broke: a/b",
            "1 it broke: a/b\n1 it tore: a/b",
        ] {
            assert!(Reviews::parse(text).is_err(), "{text}");
        }
    }
}
