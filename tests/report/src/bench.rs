// SPDX-License-Identifier: GPL-2.0

//! The report on speed, from the lines that the benchmarks print: `# bench: NAME VALUE UNIT AIM [SPREAD]`.
//!
//! A name TABLE/ROW/COLUMN is a cell of a table, described in `tests/bench/tables.toml`; all others are figures
//! of their own, described in `tests/bench/figures.toml`.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use indexmap::{IndexMap, IndexSet};
use serde::Deserialize;

use crate::figure::{figures, rounded, Figure};
use crate::plot::{self, Kind};
use crate::report::{json, Catalogue, Line, Report};

/// The description of a table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownTable {
    /// A description of its cells.
    what: String,
    /// The kind of its plot, if it has one.
    plot: Option<Kind>,
}

/// The cells of a table.
#[derive(Debug)]
pub struct Cells {
    pub name: String,
    pub what: String,
    pub unit: String,
    plot: Option<Kind>,
    stage: String,
    cells: IndexMap<(String, String), Figure>,
}

impl Cells {
    /// Returns the names of the rows, in the order in which they were printed.
    pub fn rows(&self) -> IndexSet<&str> {
        self.cells.keys().map(|(row, _)| row.as_str()).collect()
    }

    /// Returns the names of the columns, in the order in which they were printed.
    pub fn columns(&self) -> IndexSet<&str> {
        self.cells
            .keys()
            .map(|(_, column)| column.as_str())
            .collect()
    }

    /// Returns the value of a cell, if it was measured.
    pub fn value(&self, row: &str, column: &str) -> Option<f64> {
        let key = (row.to_owned(), column.to_owned());
        self.cells.get(&key).map(|figure| figure.value)
    }

    fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        self.cells.values().map(|figure| {
            let what = format!("{}: {}", self.what, figure.name);
            Line::new((figure.clone(), self.stage.clone()), what, None)
        })
    }
}

impl Display for Cells {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_preset(UTF8_BORDERS_ONLY);
        let columns = self.columns();
        table.set_header(
            [""].iter()
                .chain(&columns)
                .map(|name| name.replace('_', " ")),
        );
        for row in self.rows() {
            let values = columns.iter().map(|column| self.value(row, column));
            let shown = values.map(|value| value.map_or_else(String::new, rounded));
            table.add_row([row.replace('_', " ")].into_iter().chain(shown));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        writeln!(
            f,
            "\n{}, in {} ({})\n{table}",
            self.what,
            self.unit.replace('_', " "),
            self.stage
        )
    }
}

/// All results of the benchmarks.
#[derive(Debug)]
pub struct Bench {
    report: Report,
    tables: Vec<Cells>,
}

impl Bench {
    /// Reads the results from files.
    pub fn read(top: &Path, printed: &[PathBuf]) -> Result<Self> {
        let catalogue = Catalogue::read(&top.join("tests/bench/figures.toml"))?;
        let path = top.join("tests/bench/tables.toml");
        let known = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut stages = Vec::new();
        for path in printed {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let stage = path.file_stem().unwrap_or_default().to_string_lossy();
            stages.push((stage.into_owned(), text));
        }
        let known = toml::from_str(&known).with_context(|| path.display().to_string())?;
        Self::new(&catalogue, &known, &stages)
    }

    fn new(
        catalogue: &Catalogue,
        known: &IndexMap<String, KnownTable>,
        stages: &[(String, String)],
    ) -> Result<Self> {
        let mut measured = Vec::new();
        let mut tables: IndexMap<String, Cells> = IndexMap::new();
        for (stage, text) in stages {
            for figure in figures(text, "bench") {
                let figure = figure.with_context(|| format!("stage {stage}"))?;
                let parts: Vec<_> = figure.name.split('/').collect();
                let [table, row, column] = parts[..] else {
                    measured.push((figure, stage.clone()));
                    continue;
                };
                let Some(about) = known.get(table.strip_suffix("_wall").unwrap_or(table)) else {
                    bail!("stage {stage}: {table} is not in tables.toml");
                };
                let key = (row.to_owned(), column.to_owned());
                let cells = tables.entry(table.to_owned()).or_insert_with(|| Cells {
                    name: table.to_owned(),
                    what: about.what.clone(),
                    unit: figure.unit.clone(),
                    plot: about.plot,
                    stage: stage.clone(),
                    cells: IndexMap::new(),
                });
                cells.cells.insert(key, figure);
            }
        }
        Ok(Self {
            report: Report::new(catalogue, measured)?,
            tables: tables.into_values().collect(),
        })
    }

    /// Returns all figures, with those in tables, as an array of objects.
    pub fn json(&self) -> Result<String> {
        let cells: Vec<_> = self.tables.iter().flat_map(Cells::lines).collect();
        json(self.report.lines.iter().chain(&cells))
    }

    /// Draws the tables of instructions into `dir`, each as `NAME.svg`.
    pub fn plot(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        for cells in &self.tables {
            if let (Some(kind), false) = (cells.plot, cells.name.ends_with("_wall")) {
                plot::draw(cells, kind, &dir.join(format!("{}.svg", cells.name)))?;
            }
        }
        Ok(())
    }
}

impl Display for Bench {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            write!(f, "{table}")?;
        }
        write!(f, "\n{}", self.report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
        # bench: reuse/4KiB/freelist 2100 instructions - 0.01\n\
        # bench: reuse/4KiB/memfd 30000 instructions -\n\
        # bench: reuse/1MiB/memfd 2500000 instructions -\n\
        # bench: fewer 14 times >=6 0\n\
        noise\n";

    fn bench(printed: &str) -> Result<Bench> {
        let figures = toml::from_str("fewer.what = 'fewer than memfd'").unwrap();
        let tables = toml::from_str("[reuse]\nwhat = 'a buffer'\nplot = 'lines'").unwrap();
        Bench::new(
            &figures,
            &tables,
            &[("icount".to_owned(), printed.to_owned())],
        )
    }

    #[test]
    fn cells_are_put_into_tables_and_all_is_in_the_json() {
        let bench = bench(PRINTED).unwrap();
        let cells = &bench.tables[0];
        assert!(cells.rows().iter().eq(&["4KiB", "1MiB"]));
        assert!(cells.columns().iter().eq(&["freelist", "memfd"]));
        assert_eq!(cells.value("4KiB", "freelist"), Some(2100.0));
        assert_eq!(cells.value("1MiB", "freelist"), None);
        let json: Vec<serde_json::Value> = serde_json::from_str(&bench.json().unwrap()).unwrap();
        assert_eq!(json.len(), 4);
        assert_eq!(
            (&json[0]["name"], &json[0]["met"]),
            (&"fewer".into(), &true.into())
        );
        assert_eq!(json[1]["name"], "reuse/4KiB/freelist");
        assert!(bench.to_string().ends_with("1 of 1 targets met\n"));
    }

    #[test]
    fn plots_are_drawn_for_tables_with_a_plot() {
        let dir = std::env::temp_dir().join(format!("freelist-plots-{}", std::process::id()));
        bench(PRINTED).unwrap().plot(&dir).unwrap();
        let svg = fs::read_to_string(dir.join("reuse.svg")).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        for text in ["<svg", "4KiB", "memfd", "a buffer"] {
            assert!(svg.contains(text), "{text} is not in the plot");
        }
    }

    #[test]
    fn an_unknown_table_is_refused() {
        assert!(bench("# bench: other/a/b 1 ns -\n").is_err());
    }
}
