// SPDX-License-Identifier: GPL-2.0

//! The table of faults that reviews found, and of the attacks that were tried on each file of the module.
//!
//! `tests/reviews` has a line for each fault: `NUMBER FAULT: SUITE/TEST, SUITE/TEST`. A fault is held if each of
//! its tests has passed in some stage, and failed in none; one without a test is not held. And a line for each file
//! and attacker, `FILE ATTACKER WHAT: SUITE/TEST, SUITE/TEST`, or a dash where there is nothing to try.

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

/// The attackers of a file: a program, by its calls; a lack of memory; a thread that closes, kills or unloads meanwhile.
const ATTACKERS: [&str; 3] = ["hostile", "full", "closer"];

/// An attack on a file of the module, and the tests that try it.
#[derive(Debug, PartialEq)]
struct Attack {
    file: String,
    attacker: String,
    what: String,
    /// The tests that try it, as `SUITE/TEST`; none where there is nothing to try.
    tests: Vec<String>,
}

/// All faults, by their numbers, and all attacks.
#[derive(Debug, Default)]
pub struct Reviews(Vec<Fault>, Vec<Attack>);

impl Reviews {
    /// Reads the table under `top`.
    pub fn read(top: &Path) -> Result<Self> {
        let text = fs::read_to_string(top.join(TABLE)).context(TABLE)?;
        Self::parse(&text).context(TABLE)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut all: Vec<Fault> = Vec::new();
        let mut attacks = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with("src/") {
                attacks.push(attack(line).with_context(|| line.to_owned())?);
                continue;
            }
            let fault = fault(line).with_context(|| line.to_owned())?;
            let expected = all.len() as u32 + 1;
            if fault.number != expected {
                bail!("{line}: number {expected} comes next");
            }
            all.push(fault);
        }
        Ok(Self(all, attacks))
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
        let figure = figure("review_faults_held", self.0.len(), wrong.len());
        for attack in &self.1 {
            let mut failed = attack.tests.iter();
            if let Some(test) = failed.find(|test| results.get(*test) != Some(&true)) {
                let Attack { file, what, .. } = attack;
                wrong.push(format!("{file} ({what}): {test} has not passed"));
            }
        }
        (figure, wrong)
    }
}

/// Makes the figure of `count` faults or attacks, of which `wrong` are not held.
fn figure(name: &str, count: usize, wrong: usize) -> Figure {
    Figure {
        name: name.to_owned(),
        value: (count - wrong) as f64,
        unit: format!("of {count}"),
        aim: Aim::Exactly(count as f64),
        spread: None,
    }
}

/// Parses a line of a fault.
fn fault(line: &str) -> Result<Fault> {
    let (before, tests) = line.split_once(':').context("no colon")?;
    let (number, what) = before
        .split_once(' ')
        .context("no fault after the number")?;
    Ok(Fault {
        number: number.parse().context("the number")?,
        what: what.trim().to_owned(),
        tests: tests_of(tests)?,
    })
}

/// Parses a line of an attack.
fn attack(line: &str) -> Result<Attack> {
    let (before, tests) = line.split_once(':').context("no colon")?;
    let mut words = before.splitn(3, ' ').map(str::to_owned);
    let (Some(file), Some(attacker), Some(what)) = (words.next(), words.next(), words.next())
    else {
        bail!("not FILE ATTACKER WHAT");
    };
    if !ATTACKERS.contains(&attacker.as_str()) {
        bail!("{attacker} is none of {ATTACKERS:?}");
    }
    let tests = match tests.trim() {
        "-" => Vec::new(),
        "" => bail!("no test, and no dash"),
        tests => tests_of(tests)?,
    };
    Ok(Attack {
        file,
        attacker,
        what,
        tests,
    })
}

/// Parses the tests of a line.
fn tests_of(tests: &str) -> Result<Vec<String>> {
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
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use walkdir::WalkDir;

    const TABLE: &str = "# faults\n1 it broke: a/one, b/two\n2 it tore:\n3 it bent: a/one\n";

    fn stages(ktaps: &[&str]) -> BTreeMap<String, String> {
        let stages = ktaps.iter().enumerate();
        stages
            .map(|(at, ktap)| (at.to_string(), (*ktap).to_owned()))
            .collect()
    }

    fn top() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    /// Each file of the module that a caller reaches is attacked by each attacker, or the table says why not.
    #[test]
    fn every_file_of_the_module_is_attacked_in_each_way() {
        let attacks = Reviews::read(&top()).unwrap().1;
        let mut tried = BTreeMap::new();
        for attack in &attacks {
            let key = (attack.file.clone(), attack.attacker.clone());
            *tried.entry(key).or_insert(0) += 1;
        }
        let mut files = 0;
        for folder in ["arena", "device", "mm", "ffi"] {
            for entry in WalkDir::new(top().join("src").join(folder)) {
                let name = entry.unwrap().file_name().to_string_lossy().into_owned();
                if !name.ends_with(".rs") {
                    continue;
                }
                files += 1;
                for attacker in ATTACKERS {
                    let key = (format!("src/{folder}/{name}"), attacker.to_owned());
                    assert!(tried.remove(&key).is_some(), "{key:?}");
                }
            }
        }
        assert!(files > 50);
        assert!(tried.is_empty(), "of no file: {tried:?}");
        let untried = attacks.iter().filter(|attack| attack.tests.is_empty());
        let untried: Vec<_> = untried.map(|attack| &attack.file).collect();
        assert!(untried.len() < attacks.len() / 5, "{untried:?}");
    }

    /// Where a suite of the device's tests is named, the test is one of its list.
    #[test]
    fn every_test_of_an_attack_is_in_its_suite() {
        let mut suites = BTreeMap::new();
        for folder in ["tests/device/src/suites", "src/kunit"] {
            for entry in WalkDir::new(top().join(folder)) {
                let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
                let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
                let names: BTreeSet<_> = words.filter(|w| w.starts_with("freelist_")).collect();
                for name in names {
                    suites
                        .entry(name.to_owned())
                        .or_insert(String::new())
                        .push_str(&text);
                }
            }
        }
        for Attack { file, tests, .. } in Reviews::read(&top()).unwrap().1 {
            for test in tests {
                let (suite, name) = test.split_once('/').unwrap();
                let text = suites
                    .get(suite)
                    .unwrap_or_else(|| panic!("{file}: {suite}"));
                assert!(text.contains(&format!("fn {name}(")), "{file}: {test}");
            }
        }
    }

    /// Looks for each test in the sources: a function, or a name that a program prints.
    #[test]
    fn every_test_that_a_fault_names_is_in_the_sources() {
        let top = top();
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
    fn an_attack_whose_test_has_not_passed_is_reported() {
        let table =
            "1 it bent: a/one\nsrc/x.rs full it breaks: b/two\nsrc/x.rs closer no state: -\n";
        let reviews = Reviews::parse(table).unwrap();
        let a = "    # Subtest: a\n    ok 1 one\n";
        let (figure, wrong) = reviews.judge(&stages(&[a]));
        assert_eq!(figure.value, 1.0);
        assert_eq!(wrong, ["src/x.rs (it breaks): b/two has not passed"]);
        let b = "    # Subtest: b\n    ok 1 two\n";
        assert_eq!(reviews.judge(&stages(&[a, b])).1, [""; 0]);
    }

    #[test]
    fn a_skipped_or_failed_test_shows_nothing() {
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
            "src/a.rs hostile: a/b",
            "src/a.rs nobody does nothing: a/b",
            "src/a.rs full it breaks:",
            "src/a.rs full it breaks: one",
            "1 it broke: a/b\n1 it tore: a/b",
        ] {
            assert!(Reviews::parse(text).is_err(), "{text}");
        }
    }
}
