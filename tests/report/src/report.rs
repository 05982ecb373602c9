// SPDX-License-Identifier: GPL-2.0

//! A table of figures and their aims. A file describes all figures, so that a missing one is noticed.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;

use anyhow::{bail, Context, Result};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::figure::{rounded, Aim, Figure};

/// The suffix of a figure's name if it is a time; without it the figure is a count of instructions.
const BY_TIME: &str = "_wall";

/// The description of a figure.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// A short description.
    what: String,
    /// The reason why it misses its aim, if it does; without an aim, the reason for its value.
    explained: Option<String>,
}

/// The descriptions of all figures, in the order of the report.
///
/// One name may stand for several, as `reuse_{4,16}KiB`: the description of each has its own word, with spaces
/// for underscores, in place of `{}`.
#[derive(Debug, Deserialize)]
#[serde(from = "IndexMap<String, Known>")]
pub struct Catalogue(IndexMap<String, Known>);

impl From<IndexMap<String, Known>> for Catalogue {
    fn from(tables: IndexMap<String, Known>) -> Self {
        let mut all = IndexMap::new();
        for (name, known) in tables {
            let Some((before, words, after)) = braces(&name) else {
                all.insert(name, known);
                continue;
            };
            for word in words.split(',') {
                let mut known = known.clone();
                known.what = known.what.replace("{}", &word.replace('_', " "));
                all.insert(format!("{before}{word}{after}"), known);
            }
        }
        Self(all)
    }
}

/// Returns the parts before, within and after the braces of a name, if it has some.
fn braces(name: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = name.split_once('{')?;
    let (words, after) = rest.split_once('}')?;
    Some((before, words, after))
}

impl Catalogue {
    /// Reads a file: TOML, with a table for each figure or kind of figures.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    fn has(&self, name: &str) -> bool {
        self.0
            .contains_key(name.strip_suffix(BY_TIME).unwrap_or(name))
    }
}

/// A figure, and the stage that measured it.
pub type Measured = (Figure, String);

/// A line of the report.
#[derive(Debug, Serialize)]
pub struct Line {
    pub name: String,
    pub what: String,
    /// The stage that measured it.
    pub stage: String,
    pub value: f64,
    pub unit: String,
    pub aim: String,
    pub met: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explained: Option<String>,
}

impl Line {
    /// Makes a line of a figure with the description `what`.
    pub fn new((figure, stage): Measured, what: String, explained: Option<String>) -> Self {
        let met = figure.aim.is_met_by(figure.value);
        let says_why = !met || figure.aim == Aim::Shown;
        Self {
            name: figure.name,
            what,
            stage,
            value: figure.value,
            unit: figure.unit,
            aim: figure.aim.to_string(),
            met,
            spread: figure.spread,
            explained: explained.filter(|_| says_why),
        }
    }

    /// Returns whether the figure misses its aim without an explanation.
    fn is_unexplained(&self) -> bool {
        !self.met && self.explained.is_none()
    }

    fn shown_value(&self) -> String {
        let mut shown = format!("{} {}", rounded(self.value), self.unit);
        if let Some(spread) = self.spread.filter(|spread| *spread >= 0.001) {
            shown += &format!(" ±{:.1} %", spread * 100.0);
        }
        shown
    }
}

/// All figures, in the order of their file.
#[derive(Debug)]
pub struct Report {
    pub lines: Vec<Line>,
    missing: Vec<String>,
    /// Descriptions of other faults of the run.
    pub wrong: Vec<String>,
}

impl Report {
    /// Makes a report of measured figures. Of several values of a figure the worst counts.
    pub fn new(
        catalogue: &Catalogue,
        measured: impl IntoIterator<Item = Measured>,
    ) -> Result<Self> {
        let mut worst: BTreeMap<String, Measured> = BTreeMap::new();
        for (figure, stage) in measured {
            if !catalogue.has(&figure.name) {
                bail!("stage {stage}: {} is not in figures.toml", figure.name);
            }
            let is_better = worst
                .get(&figure.name)
                .is_some_and(|(before, _)| !figure.aim.is_worse(figure.value, before.value));
            if !is_better {
                worst.insert(figure.name.clone(), (figure, stage));
            }
        }
        let (mut lines, mut missing) = (Vec::new(), Vec::new());
        for (name, known) in &catalogue.0 {
            match worst.remove(name) {
                Some(figure) => lines.push(Line::new(
                    figure,
                    known.what.clone(),
                    known.explained.clone(),
                )),
                None => missing.push(name.clone()),
            }
            if let Some(figure) = worst.remove(&format!("{name}{BY_TIME}")) {
                lines.push(Line::new(figure, format!("{}, by time", known.what), None));
            }
        }
        Ok(Self {
            lines,
            missing,
            wrong: Vec::new(),
        })
    }

    /// Returns whether all figures are there, and meet their aims or have an explanation, and there is no other
    /// fault.
    pub fn holds(&self) -> bool {
        self.wrong.is_empty()
            && self.missing.is_empty()
            && self.lines.iter().all(|line| !line.is_unexplained())
    }
}

/// Returns lines as an array of objects.
pub fn json<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Result<String> {
    let lines: Vec<_> = lines.into_iter().collect();
    Ok(serde_json::to_string_pretty(&lines)? + "\n")
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.shown_value())?;
        if self.met {
            return Ok(());
        }
        write!(f, ", not {}", self.aim)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table
            .load_preset(UTF8_BORDERS_ONLY)
            .set_header(["figure", "stage", "value", "target", "result"]);
        for line in &self.lines {
            let result = match (line.met, &line.explained) {
                (true, _) if line.aim == "-" => "",
                (true, _) => "met",
                (false, None) => "MISSED",
                (false, Some(_)) => "missed, see below",
            };
            let value = line.shown_value();
            table.add_row([&line.what, &line.stage, &value, &line.aim, result]);
        }
        if let Some(column) = table.column_mut(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        for what in &self.wrong {
            writeln!(f, "WRONG: {what}")?;
        }
        for name in &self.missing {
            writeln!(f, "MISSING: {name}: no stage has printed it")?;
        }
        for line in self.lines.iter().filter(|line| line.is_unexplained()) {
            writeln!(f, "MISSED: {line}: nothing explains it")?;
        }
        // Figures with the same explanation are listed together.
        let explained: Vec<_> = self
            .lines
            .iter()
            .filter(|line| line.explained.is_some())
            .collect();
        for lines in explained.chunk_by(|one, next| one.explained == next.explained) {
            for line in lines {
                writeln!(f, "{}: {line}", if line.met { "shown" } else { "missed" })?;
            }
            writeln!(
                f,
                "    {}",
                lines[0].explained.as_deref().unwrap_or_default()
            )?;
        }
        let aims = || self.lines.iter().filter(|line| line.aim != "-");
        let met = aims().filter(|line| line.met).count();
        writeln!(f, "{met} of {} targets met", aims().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::figures;

    const KNOWN: &str = "\
        cost.what = 'a call'\n\
        held.what = 'held over requested'\n";

    fn report(known: &str, printed: &[(&str, &str)]) -> Result<Report> {
        let mut measured = Vec::new();
        for (stage, text) in printed {
            for figure in figures(text, "trust") {
                measured.push((figure?, (*stage).to_owned()));
            }
        }
        Report::new(&toml::from_str(known)?, measured)
    }

    const COST: &str = "# trust: cost 5 ns -\n";

    #[test]
    fn figures_come_in_the_order_of_their_file() {
        let text = format!("# trust: held 1.01 ratio <=1.02 0.05\n{COST}");
        let report = report(KNOWN, &[("stock", &text)]).unwrap();
        assert!(report.holds());
        let text = json(&report.lines).unwrap();
        let json: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(json[1]["name"], "held");
        assert_eq!(json[1]["unit"], "ratio");
        assert_eq!(json[1]["aim"], "<= 1.02");
        assert_eq!(json[1]["met"], true);
        assert_eq!(json[1]["spread"], 0.05);
        assert!(json[0].get("spread").is_none());
        let text = report.to_string();
        assert!(text.contains("1.0100 ratio ±5.0 %"), "{text}");
        assert!(text.ends_with("1 of 1 targets met\n"), "{text}");
    }

    #[test]
    fn a_missed_aim_counts_unless_it_is_explained() {
        let text = format!("{COST}# trust: held 1.03 ratio <=1.02");
        let missed = report(KNOWN, &[("stock", &text)]).unwrap();
        assert!(!missed.holds() && missed.to_string().contains("MISSED"));
        let explained = format!("{KNOWN}held.explained = 'pages of 64 KiB'\n");
        let explained = report(&explained, &[("stock", &text)]).unwrap();
        assert!(explained.holds() && explained.to_string().contains("pages of 64 KiB"));
    }

    #[test]
    fn several_figures_can_have_one_name() {
        let known = "['held_{gpt,unet_2}_mib']\nwhat = '{}: held'\nexplained = 'pages of 64 KiB'\n";
        let text = "# trust: held_gpt_mib 3 ratio <=2\n# trust: held_unet_2_mib 4 ratio <=2\n";
        let report = report(known, &[("stock", text)]).unwrap();
        let whats: Vec<_> = report.lines.iter().map(|line| line.what.as_str()).collect();
        assert_eq!(whats, ["gpt: held", "unet 2: held"]);
        // The common explanation is printed once.
        let text = report.to_string();
        let explained =
            "\nmissed: gpt: held: 3 ratio, not <= 2\nmissed: unet 2: held: 4 ratio, not <= 2\n    \
                    pages of 64 KiB\n";
        assert!(report.holds() && text.contains(explained), "{text}");
    }

    #[test]
    fn a_figure_without_an_aim_is_explained_too() {
        let known = "cost.what = 'a call'\ncost.explained = 'most of it is the entry'\n";
        let shown = report(known, &[("stock", COST)]).unwrap();
        let text = shown.to_string();
        assert!(
            text.contains("\nshown: a call: 5 ns\n    most of it is the entry\n"),
            "{text}"
        );
        // A figure that meets its aim is not listed.
        let met = report(known, &[("stock", "# trust: cost 5 ns <=5\n")]).unwrap();
        assert!(!met.to_string().contains("entry"));
    }

    #[test]
    fn of_several_values_the_worst_counts() {
        let texts =
            [1.01, 1.03, 1.0].map(|value| format!("{COST}# trust: held {value} ratio <=1.02\n"));
        let stages = [("a", &*texts[0]), ("b", &*texts[1]), ("c", &*texts[2])];
        let report = report(KNOWN, &stages).unwrap();
        let last = report.lines.last().unwrap();
        assert_eq!((last.value, last.stage.as_str()), (1.03, "b"));
        assert_eq!(report.lines.len(), 2);
    }

    #[test]
    fn a_figure_by_time_is_beside_that_by_instructions() {
        let text = format!("# trust: cost_wall 7 ns -\n# trust: held 1 ratio -\n{COST}");
        let report = report(KNOWN, &[("stock", &text)]).unwrap();
        let whats: Vec<_> = report.lines.iter().map(|line| line.what.as_str()).collect();
        assert_eq!(whats, ["a call", "a call, by time", "held over requested"]);
    }

    #[test]
    fn a_figure_that_is_not_printed_is_missed() {
        let report = report(KNOWN, &[("stock", COST)]).unwrap();
        assert!(!report.holds() && report.to_string().contains("MISSING: held"));
    }

    #[test]
    fn another_error_fails_the_report() {
        let text = format!("# trust: held 1 ratio -\n{COST}");
        let mut report = report(KNOWN, &[("stock", &text)]).unwrap();
        assert!(report.holds());
        report.wrong.push("the weather".to_owned());
        assert!(!report.holds() && report.to_string().contains("WRONG: the weather"));
    }

    #[test]
    fn an_unknown_figure_is_refused() {
        assert!(report(KNOWN, &[("stock", "# trust: other 1 ratio -")]).is_err());
    }
}
