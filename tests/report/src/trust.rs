// SPDX-License-Identifier: GPL-2.0

//! The report on trust: measured figures and their aims.
//!
//! A test prints a figure as a diagnostic line of its KTAP, `# trust: NAME VALUE UNIT AIM`, which
//! `tests/report/figures.toml` describes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{bail, Context, Result};

use crate::figure::{figures, Aim, Figure};
use crate::ktap::outcomes;
use crate::report::{Catalogue, Report};
use crate::reviews::Reviews;

/// Reads the figures of the last runs, which the stages have left in `build/test` under `top`.
pub fn read(top: &Path) -> Result<Report> {
    let catalogue = Catalogue::read(&top.join("tests/report/figures.toml"))?;
    let dir = top.join("build/test");
    let mut stages = BTreeMap::new();
    for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "ktap")
        {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let text = fs::read(&path).with_context(|| path.display().to_string())?;
            stages.insert(
                name.into_owned(),
                String::from_utf8_lossy(&text).into_owned(),
            );
        }
    }
    let mut report = report(&catalogue, &Reviews::read(top)?, &stages)?;
    let path = dir.join("status");
    let status = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    report.wrong.extend(not_passed(&status)?);
    Ok(report)
}

/// Returns the stages that did not pass, from the output of `scripts/test --status`: `NAME STATE` on each line.
fn not_passed(status: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for line in status.lines() {
        let (name, state) = line.split_once(' ').with_context(|| line.to_owned())?;
        all.push(match state {
            "passed" => continue,
            "failed" => format!("stage {name} has failed"),
            "old" => format!("stage {name} ran with other sources: its figures are old"),
            "never" => format!("stage {name} did not run"),
            _ => bail!("stage {name} is {state}"),
        });
    }
    Ok(all)
}

fn report(
    catalogue: &Catalogue,
    reviews: &Reviews,
    stages: &BTreeMap<String, String>,
) -> Result<Report> {
    let totals = [
        ("tests_passed", true, Aim::Shown),
        ("tests_failed", false, Aim::Exactly(0.0)),
    ];
    let totals = totals.map(|(name, passed, aim)| {
        let all = stages.values().flat_map(|text| outcomes(text));
        let total = all.filter(|outcome| outcome.passed == passed).count();
        let figure = Figure {
            name: name.to_owned(),
            value: total as f64,
            unit: "tests".to_owned(),
            aim,
            spread: None,
        };
        (figure, "all".to_owned())
    });
    let mut measured = Vec::from(totals);
    let (faults, wrong) = reviews.judge(stages);
    measured.push((faults, "all".to_owned()));
    for (stage, text) in stages {
        for figure in figures(text, "trust") {
            let figure = figure.with_context(|| format!("stage {stage}"))?;
            measured.push((figure, stage.clone()));
        }
    }
    let mut report = Report::new(catalogue, measured)?;
    report.wrong = wrong;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "\
        tests_passed.what = 'tests that passed'\n\
        tests_failed.what = 'tests that failed'\n\
        review_faults_held.what = 'faults of the reviews'\n\
        held.what = 'held over requested'\n";

    fn report(ktaps: &[&str]) -> Report {
        let stages = ktaps
            .iter()
            .enumerate()
            .map(|(at, ktap)| (at.to_string(), (*ktap).to_owned()));
        let known = toml::from_str(KNOWN).unwrap();
        super::report(&known, &Reviews::default(), &stages.collect()).unwrap()
    }

    #[test]
    fn figures_and_results_of_all_stages_are_found() {
        let ktap = "    # Subtest: a\n    # trust: held 1.01 ratio <=1.02\n    ok 1 one\n    \
            ok 2 two # SKIP no room\n    ok 3 three\nok 1 a\n";
        let report = report(&[ktap, "    ok 1 one\n"]);
        let values: Vec<_> = report.lines.iter().map(|line| line.value).collect();
        assert_eq!(values, [3.0, 0.0, 0.0, 1.01]);
        assert!(report.holds());
    }

    #[test]
    fn a_stage_that_did_not_pass_is_named() {
        let wrong = not_passed("a passed\nb old\nc never\nd failed\n").unwrap();
        assert_eq!(wrong.len(), 3);
        assert_eq!(wrong[2], "stage d has failed");
        assert!(not_passed("a fine").is_err());
    }

    #[test]
    fn a_failed_test_counts() {
        let report = report(&["# trust: held 1 ratio -\n    not ok 1 one\n"]);
        assert!(!report.holds());
    }
}
