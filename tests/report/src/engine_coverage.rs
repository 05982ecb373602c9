// SPDX-License-Identifier: GPL-2.0

//! The coverage of the engine by its tests, from the output of `llvm-cov export --summary-only`.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;

use anyhow::{bail, Context, Result};
use serde::Deserialize;

/// The directory of the engine's sources.
const ENGINE: &str = "/src/engine/";

#[derive(Deserialize)]
struct Export {
    data: Vec<Data>,
}

#[derive(Deserialize)]
struct Data {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    summary: Summary,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Summary {
    lines: Count,
    branches: Count,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Count {
    count: u64,
    covered: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.covered += other.covered;
    }

    fn percent(self) -> f64 {
        self.covered as f64 * 100.0 / self.count.max(1) as f64
    }
}

/// The coverage of each file.
pub struct EngineCoverage(Vec<(String, Summary)>);

impl EngineCoverage {
    /// Reads the output of llvm-cov.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::new(&text).with_context(|| path.display().to_string())
    }

    fn new(text: &str) -> Result<Self> {
        let export: Export = serde_json::from_str(text)?;
        let files = export.data.into_iter().flat_map(|data| data.files);
        let ours = files.filter_map(|file| {
            let (_, name) = file.filename.split_once(ENGINE)?;
            Some((name.to_owned(), file.summary))
        });
        let ours: Vec<_> = ours.collect();
        if ours.is_empty() {
            bail!("it has no file of the engine");
        }
        Ok(Self(ours))
    }
}

impl Display for EngineCoverage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut all = Summary::default();
        for (name, Summary { lines, branches }) in &self.0 {
            let (of_lines, of_branches) = (lines.percent(), branches.percent());
            writeln!(
                f,
                "# {name}: {of_lines:.1} % of lines, {of_branches:.1} % of branches"
            )?;
            all.lines.add(*lines);
            all.branches.add(*branches);
        }
        let (lines, branches) = (all.lines.percent(), all.branches.percent());
        writeln!(f, "# trust: engine_lines_covered {lines:.1} percent -")?;
        writeln!(
            f,
            "# trust: engine_branches_covered {branches:.1} percent -"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_files_are_summed() {
        let file = |name: &str, covered: u64| {
            let count = format!(r#"{{"count": 50, "covered": {covered}, "percent": 0}}"#);
            format!(
                r#"{{"filename": "{name}", "summary": {{"lines": {count}, "branches": {count}}}}}"#
            )
        };
        let files = [
            file("/x/src/engine/mod.rs", 50),
            file("/x/src/engine/tree.rs", 40),
            file("/cargo/other/mod.rs", 0),
        ];
        let text = format!(r#"{{"data": [{{"files": [{}]}}]}}"#, files.join(","));
        let shown = EngineCoverage::new(&text).unwrap().to_string();
        assert!(shown.contains("# tree.rs: 80.0 % of lines, 80.0 % of branches"));
        assert!(shown.contains("# trust: engine_lines_covered 90.0 percent -"));
        assert!(EngineCoverage::new(r#"{"data": [{"files": []}]}"#).is_err());
    }
}
