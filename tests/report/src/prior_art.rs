// SPDX-License-Identifier: GPL-2.0

//! The table of prior art: the cases that other projects test, and the tests here that hold them.
//!
//! `tests/prior_art/PROJECT` lists every case of a project, one on each line: its name, and the reason if it
//! cannot apply here. A test names the cases that it holds in its doc comment, after `Prior art:`, as
//! `PROJECT CASE, CASE; PROJECT CASE.`; a file that is all about a case names it in its own.

mod claims;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;

use anyhow::{bail, Context, Result};
use walkdir::WalkDir;

use claims::{claims, Claim};

/// The directories of tests.
const SOURCES: [&str; 2] = ["src", "tests"];

/// A case of a project.
#[derive(Debug)]
struct Case {
    name: String,
    /// The reason why it cannot apply.
    reason: Option<String>,
    /// The tests that hold it.
    tests: BTreeSet<String>,
}

/// The cases of all projects, by the project's name, and faults of the lists and the tests.
#[derive(Debug)]
pub struct PriorArt {
    cases: BTreeMap<String, Vec<Case>>,
    wrong: Vec<String>,
}

impl PriorArt {
    /// Reads the lists and the tests under `top`.
    pub fn read(top: &Path) -> Result<Self> {
        let mut prior_art = Self {
            cases: BTreeMap::new(),
            wrong: Vec::new(),
        };
        for (name, text) in files(&top.join("tests/prior_art"), |_| true)? {
            let list = list(&text).with_context(|| format!("tests/prior_art/{name}"))?;
            prior_art.cases.insert(name, list);
        }
        for dir in SOURCES {
            for (path, text) in files(&top.join(dir), is_source)? {
                let path = format!("{dir}/{path}");
                let claims = claims(&path, &text).with_context(|| path.clone())?;
                for claim in claims {
                    prior_art.add(claim);
                }
            }
        }
        prior_art.judge();
        Ok(prior_art)
    }

    /// Adds a test to the cases that it claims to hold.
    fn add(&mut self, claim: Claim) {
        let Claim { test, said } = claim;
        for (project, case) in said {
            let known = self.cases.get_mut(&project);
            match known.and_then(|cases| cases.iter_mut().find(|known| known.name == case)) {
                Some(known) => _ = known.tests.insert(test.clone()),
                None => self
                    .wrong
                    .push(format!("{test}: no list knows {project} {case}")),
            }
        }
    }

    /// Checks that every case has either a test or a reason.
    fn judge(&mut self) {
        for (project, cases) in &self.cases {
            for Case {
                name,
                reason,
                tests,
            } in cases
            {
                match (tests.first(), reason) {
                    (None, None) => self
                        .wrong
                        .push(format!("{project} {name}: neither a test nor a reason")),
                    (Some(test), Some(_)) => self
                        .wrong
                        .push(format!("{project} {name}: {test}, and a reason why not")),
                    _ => {}
                }
            }
        }
    }

    /// Returns whether every case has its test or its reason.
    pub fn holds(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Returns the numbers of cases, as lines of KTAP for the report on trust.
    pub fn figures(&self) -> String {
        let (held, all) = self.counts();
        let wrong = self.wrong.len();
        format!(
            "# trust: prior_art_cases {all} cases -\n\
             # trust: prior_art_cases_held {held} cases -\n\
             # trust: prior_art_cases_wrong {wrong} cases =0\n"
        )
    }

    /// Returns the number of a project's cases that have a test, and of all its cases.
    fn count(cases: &[Case]) -> (usize, usize) {
        let held = cases.iter().filter(|case| !case.tests.is_empty());
        (held.count(), cases.len())
    }

    /// Returns the same numbers for all projects.
    fn counts(&self) -> (usize, usize) {
        let counts = self.cases.values().map(|cases| Self::count(cases));
        counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

impl Display for PriorArt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Cases of prior art\n")?;
        writeln!(f, "| project | cases | held | cannot apply |")?;
        writeln!(f, "| --- | ---: | ---: | ---: |")?;
        for (project, cases) in &self.cases {
            let (held, all) = Self::count(cases);
            writeln!(f, "| {project} | {all} | {held} | {} |", all - held)?;
        }
        let (held, all) = self.counts();
        writeln!(f, "| all | {all} | {held} | {} |", all - held)?;
        for (project, cases) in &self.cases {
            writeln!(
                f,
                "\n## {project}\n\n| case | held by, or why not |\n| --- | --- |"
            )?;
            for case in cases {
                let tests: Vec<_> = case.tests.iter().map(|test| format!("`{test}`")).collect();
                let said = match &case.reason {
                    Some(reason) => format!("- {reason}"),
                    None => tests.join(", "),
                };
                writeln!(f, "| {} | {said} |", case.name)?;
            }
        }
        for wrong in &self.wrong {
            writeln!(f, "\nWRONG: {wrong}")?;
        }
        Ok(())
    }
}

/// Returns the cases of a list.
fn list(text: &str) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, reason) = match line.split_once(char::is_whitespace) {
            Some((name, reason)) => (name, Some(reason.trim().to_owned())),
            None => (line, None),
        };
        if cases.iter().any(|case| case.name == name) {
            bail!("{name} is there twice");
        }
        cases.push(Case {
            name: name.to_owned(),
            reason,
            tests: BTreeSet::new(),
        });
    }
    Ok(cases)
}

fn is_source(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "rs" || extension == "c")
}

/// Returns the paths and texts of the files below `dir` that `wanted` selects.
fn files(dir: &Path, wanted: fn(&Path) -> bool) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for entry in WalkDir::new(dir).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type().is_file() && wanted(path) {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let name = path.strip_prefix(dir)?.to_string_lossy().into_owned();
            all.push((name, text));
        }
    }
    Ok(all)
}
