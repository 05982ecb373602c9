// SPDX-License-Identifier: GPL-2.0

//! The report on trust: figures that the tests have measured, and what they are held to.
//!
//! A test prints a figure as a diagnostic line of its KTAP, `# trust: NAME VALUE UNIT AIM`.
//! `tests/report/figures.toml` says what each is, so that none is missed when it is not printed.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{bail, Context, Error, Result};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// What a figure is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Aim {
    AtMost(f64),
    AtLeast(f64),
    Exactly(f64),
    /// It is only shown.
    Shown,
}

impl Aim {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
            Self::Exactly(exact) => value == exact,
            Self::Shown => true,
        }
    }

    /// Whether `one` is farther from it than `other`. Of what is only shown the most counts.
    fn is_worse(self, one: f64, other: f64) -> bool {
        match self {
            Self::AtMost(_) | Self::Shown => one > other,
            Self::AtLeast(_) => one < other,
            Self::Exactly(exact) => (one - exact).abs() > (other - exact).abs(),
        }
    }
}

impl FromStr for Aim {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.parse().with_context(|| format!("the aim {text}"));
        Ok(if text == "-" {
            Self::Shown
        } else if let Some(most) = text.strip_prefix("<=") {
            Self::AtMost(number(most)?)
        } else if let Some(least) = text.strip_prefix(">=") {
            Self::AtLeast(number(least)?)
        } else if let Some(exact) = text.strip_prefix('=') {
            Self::Exactly(number(exact)?)
        } else {
            bail!("{text} is not an aim: <=X, >=X, =X or -")
        })
    }
}

impl Display for Aim {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::Exactly(exact) => write!(f, "= {exact}"),
            Self::Shown => f.write_str("-"),
        }
    }
}

/// A figure that was printed.
#[derive(Clone, Debug, PartialEq)]
struct Figure {
    name: String,
    value: f64,
    unit: String,
    aim: Aim,
}

impl FromStr for Figure {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fields: Vec<_> = text.split_whitespace().collect();
        let &[name, value, unit, aim] = &fields[..] else {
            bail!("not NAME VALUE UNIT AIM: {text}");
        };
        Ok(Self {
            name: name.to_owned(),
            value: value
                .parse()
                .with_context(|| format!("the value {value}"))?,
            unit: unit.to_owned(),
            aim: aim.parse()?,
        })
    }
}

/// What is known of a figure beforehand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// What it is, in a few words.
    what: String,
    /// Why it misses its aim, where it does.
    explained: Option<String>,
}

/// A line of the report.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    what: String,
    /// Where it was measured: the stage of `scripts/test` where it was worst.
    stage: String,
    value: f64,
    unit: String,
    aim: String,
    met: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    explained: Option<String>,
}

/// All figures of the last runs, in the order of figures.toml.
#[derive(Debug)]
pub struct Report {
    lines: Vec<Line>,
    missing: Vec<String>,
}

impl Report {
    /// Reads what the stages have left in `build/test` under `top`.
    pub fn read(top: &Path) -> Result<Self> {
        let path = top.join("tests/report/figures.toml");
        let known = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
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
        Self::new(&toml::from_str(&known).context("figures.toml")?, &stages)
    }

    fn new(known: &IndexMap<String, Known>, stages: &BTreeMap<String, String>) -> Result<Self> {
        // Of each figure the worst, and where it was measured.
        let mut worst: BTreeMap<String, (Figure, String)> = BTreeMap::new();
        let totals = [
            ("tests_passed", "ok", Aim::Shown),
            ("tests_failed", "not ok", Aim::Exactly(0.0)),
        ];
        for (name, result, aim) in totals {
            let total: usize = stages.values().map(|text| results(text, result)).sum();
            let figure = Figure {
                name: name.to_owned(),
                value: total as f64,
                unit: "tests".to_owned(),
                aim,
            };
            worst.insert(name.to_owned(), (figure, "all".to_owned()));
        }
        for (stage, text) in stages {
            for figure in figures(text) {
                let figure = figure.with_context(|| format!("stage {stage}"))?;
                if !known.contains_key(&figure.name) {
                    bail!("stage {stage}: {} is not in figures.toml", figure.name);
                }
                let is_better = worst
                    .get(&figure.name)
                    .is_some_and(|(before, _)| !figure.aim.is_worse(figure.value, before.value));
                if !is_better {
                    worst.insert(figure.name.clone(), (figure, stage.clone()));
                }
            }
        }
        let (mut lines, mut missing) = (Vec::new(), Vec::new());
        for (name, known) in known {
            let Some((figure, stage)) = worst.remove(name) else {
                missing.push(name.clone());
                continue;
            };
            let met = figure.aim.is_met_by(figure.value);
            lines.push(Line {
                name: figure.name,
                what: known.what.clone(),
                stage,
                value: figure.value,
                unit: figure.unit,
                aim: figure.aim.to_string(),
                met,
                explained: known.explained.clone().filter(|_| !met),
            });
        }
        Ok(Self { lines, missing })
    }

    /// Whether all figures are there, and meet their aims or say why not.
    pub fn holds(&self) -> bool {
        self.missing.is_empty()
            && self
                .lines
                .iter()
                .all(|line| line.met || line.explained.is_some())
    }

    /// The figures, as an array of objects.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(&self.lines)? + "\n")
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table
            .load_preset(UTF8_HORIZONTAL_ONLY)
            .set_header(["figure", "stage", "value", "target", "result"]);
        for line in &self.lines {
            let result = match (line.met, &line.explained) {
                (true, _) if line.aim == "-" => "",
                (true, _) => "met",
                (false, None) => "MISSED",
                (false, Some(why)) => why,
            };
            let value = format!("{} {}", rounded(line.value), line.unit);
            table.add_row([&line.what, &line.stage, &value, &line.aim, result]);
        }
        if let Some(column) = table.column_mut(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        for name in &self.missing {
            writeln!(f, "MISSING: {name}: no stage has printed it")?;
        }
        let aims = || self.lines.iter().filter(|line| line.aim != "-");
        let met = aims().filter(|line| line.met).count();
        writeln!(f, "{met} of {} targets met", aims().count())
    }
}

/// A value as a reader wants it: the report in JSON has all digits.
fn rounded(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 => format!("{value}"),
        0.0..10.0 => format!("{value:.4}"),
        _ => format!("{value:.1}"),
    }
}

/// The figures that a stage has printed.
fn figures(ktap: &str) -> impl Iterator<Item = Result<Figure>> + '_ {
    let lines = ktap.lines().filter_map(|line| {
        line.trim_start()
            .strip_prefix('#')?
            .trim_start()
            .strip_prefix("trust: ")
    });
    lines.map(str::parse)
}

/// How many tests have the result `result`: those that stand below a suite, and were not skipped.
fn results(ktap: &str, result: &str) -> usize {
    let is_one = |line: &&str| {
        let test = line.trim_start();
        test.len() < line.len()
            && test
                .strip_prefix(result)
                .is_some_and(|rest| rest.starts_with(' '))
            && !test.contains("# SKIP")
    };
    ktap.lines().filter(is_one).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(known: &str, ktap: &str) -> Result<Report> {
        let stages = [("stock".to_owned(), ktap.to_owned())].into();
        Report::new(&toml::from_str(known)?, &stages)
    }

    const TESTS: &str = "\
        tests_passed.what = 'tests that passed'\n\
        tests_failed.what = 'tests that failed'\n\
        held.what = 'held over requested'\n";

    #[test]
    fn figures_and_results_are_found() {
        let ktap = "    # Subtest: a\n    # trust: held 1.01 ratio <=1.02\n    ok 1 one\n    \
            ok 2 two # SKIP no room\n    ok 3 three\nok 1 a\n";
        let report = report(TESTS, ktap).unwrap();
        let values: Vec<_> = report.lines.iter().map(|line| line.value).collect();
        assert_eq!(values, [2.0, 0.0, 1.01]);
        assert!(report.holds());
        let json: Vec<serde_json::Value> = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json[2]["name"], "held");
        assert_eq!(json[2]["unit"], "ratio");
        assert_eq!(json[2]["aim"], "<= 1.02");
        assert_eq!(json[2]["met"], true);
        assert!(report.to_string().ends_with("2 of 2 targets met\n"));
    }

    #[test]
    fn a_missed_aim_counts_unless_it_is_explained() {
        let ktap = "# trust: held 1.03 ratio <=1.02";
        let missed = report(TESTS, ktap).unwrap();
        assert!(!missed.holds() && missed.to_string().contains("MISSED"));
        let explained = format!("{TESTS}held.explained = 'pages of 64 KiB'\n");
        let explained = report(&explained, ktap).unwrap();
        assert!(explained.holds() && explained.to_string().contains("pages of 64 KiB"));
    }

    #[test]
    fn of_several_values_the_worst_counts() {
        let figure = |value| format!("# trust: held {value} ratio <=1.02\n    ok 1 one\n");
        let stages = [("a", 1.01), ("b", 1.03), ("c", 1.0)];
        let stages = stages.map(|(stage, value)| (stage.to_owned(), figure(value)));
        let report = Report::new(&toml::from_str(TESTS).unwrap(), &stages.into()).unwrap();
        let last = report.lines.last().unwrap();
        assert_eq!((last.value, last.stage.as_str()), (1.03, "b"));
        assert_eq!((report.lines.len(), report.lines[0].value), (3, 3.0));
        for (aim, worse, better) in [(">=2", 1.0, 3.0), ("=2", 4.0, 1.0), ("-", 2.0, 1.0)] {
            let aim: Aim = aim.parse().unwrap();
            assert!(
                aim.is_worse(worse, better) && !aim.is_worse(better, worse),
                "{aim}"
            );
        }
    }

    #[test]
    fn values_are_rounded_for_readers() {
        let rounded = [3.0, 1.0103361, 87.1497, 1_000_000.0].map(rounded);
        assert_eq!(rounded, ["3", "1.0103", "87.1", "1000000"]);
    }

    #[test]
    fn a_failed_test_counts() {
        let report = report(TESTS, "# trust: held 1 ratio -\n    not ok 1 one\n").unwrap();
        assert!(!report.holds());
    }

    #[test]
    fn a_figure_that_is_not_printed_is_missed() {
        let report = report(TESTS, "").unwrap();
        assert!(!report.holds() && report.to_string().contains("MISSING: held"));
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        for ktap in [
            "# trust: other 1 ratio -",
            "# trust: held 1 ratio",
            "# trust: held 1 ratio ~1",
            "# trust: held one ratio -",
        ] {
            assert!(report(TESTS, ktap).is_err(), "{ktap}");
        }
    }

    #[test]
    fn aims_are_inclusive() {
        for (aim, met, missed) in [("<=2", 2.0, 2.1), (">=2", 2.0, 1.9), ("=2", 2.0, 3.0)] {
            let aim: Aim = aim.parse().unwrap();
            assert!(aim.is_met_by(met) && !aim.is_met_by(missed), "{aim}");
        }
    }
}
