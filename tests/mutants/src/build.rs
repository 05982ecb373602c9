// SPDX-License-Identifier: GPL-2.0

//! Builds programs of mutated sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;

use crate::list::{plain, Mutant};
use crate::weave::Source;

/// The root of a crate that is the engine and its tests: one program, in which the engine's generic code is
/// compiled once. It ends at the first failure, which is all that is needed.
const CRATE: &str = "tests/engine/src/lib.rs";
const ADDED: &str = r#"
#[cfg(test)]
extern crate self as freelist_engine;

mod changed {
    use std::sync::LazyLock;

    static ID: LazyLock<usize> = LazyLock::new(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            hook(info);
            std::process::exit(1);
        }));
        let id = std::env::var("FREELIST_CHANGED").ok();
        id.map_or(usize::MAX, |id| id.parse().expect("a number"))
    });

    pub fn id() -> usize {
        *ID
    }
}
"#;
const TESTS: &str = "tests/engine/tests";
/// Tests that have a heap of their own in the place of the engine.
const OTHER: &str = "linear";

/// The workspace with the sources.
pub struct Tree {
    top: PathBuf,
    /// The files that have mutants, unchanged.
    sources: BTreeMap<String, Source>,
}

/// The part of cargo's messages that is used here.
#[derive(Deserialize)]
struct Said {
    message: Option<Message>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Message {
    level: String,
    rendered: Option<String>,
    spans: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    file_name: String,
    line_start: usize,
    is_primary: bool,
}

/// The lines of each file, with the mutant that they belong to.
type Lines = BTreeMap<String, Vec<(Range<usize>, usize)>>;

impl Tree {
    /// Reads the unchanged sources at `top`, and names the mutants.
    pub fn new(top: PathBuf, mutants: &mut [Mutant]) -> Result<Self> {
        let mut sources = BTreeMap::new();
        for mutant in mutants {
            let file = &mutant.file;
            if !sources.contains_key(file) {
                let text = fs::read_to_string(top.join(file)).with_context(|| file.clone())?;
                sources.insert(file.clone(), Source::new(text));
            }
            mutant.set_name(sources[&mutant.file].piece(mutant)?);
        }
        let mut root = fs::read_to_string(top.join(CRATE))? + ADDED;
        for entry in fs::read_dir(top.join(TESTS))? {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let file = if path.extension().is_some_and(|extension| extension == "rs") {
                format!("{name}.rs")
            } else if path.join("main.rs").exists() && name != OTHER {
                format!("{name}/main.rs")
            } else {
                continue;
            };
            root += &format!("#[cfg(test)]\n#[path = \"../tests/{file}\"]\nmod test_{name};\n");
        }
        fs::write(top.join(CRATE), root)?;
        Ok(Self { top, sources })
    }

    /// Returns the mutants that can be in one program, if they compile.
    pub fn together(&self, mutants: &[Mutant]) -> Result<Vec<usize>> {
        let mut ids = Vec::new();
        for (id, mutant) in mutants.iter().enumerate() {
            if self.sources[&mutant.file].can_be_chosen(mutant)? {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Builds the program with all of these mutants, or returns those that do not compile.
    pub fn build(
        &self,
        mutants: &[Mutant],
        ids: &[usize],
    ) -> Result<Result<PathBuf, BTreeSet<usize>>> {
        let mut lines = Lines::new();
        for (file, source) in &self.sources {
            let of_file: Vec<_> = ids
                .iter()
                .copied()
                .filter(|id| mutants[*id].file == *file)
                .collect();
            let woven = source.with_all(mutants, &of_file)?;
            fs::write(self.top.join(file), woven.text)?;
            lines.insert(file.clone(), woven.lines);
        }
        let (program, errors) = self.cargo()?;
        if let Some(program) = program {
            return Ok(Ok(program));
        }
        let mut wrong = BTreeSet::new();
        for error in &errors {
            let places = error.spans.iter().filter(|place| place.is_primary);
            let before = wrong.len();
            for place in places {
                let file = lines
                    .get(plain(&place.file_name))
                    .map_or(&[][..], Vec::as_slice);
                let of = file
                    .iter()
                    .find(|(lines, _)| lines.contains(&place.line_start));
                wrong.extend(of.map(|(_, id)| *id));
            }
            if wrong.len() == before && !error.spans.is_empty() && before == 0 {
                bail!(
                    "not of a change: {}",
                    error.rendered.as_deref().unwrap_or_default()
                );
            }
        }
        ensure!(!wrong.is_empty(), "it does not compile");
        Ok(Err(wrong))
    }

    /// Builds the program with this mutant only; `None` if it does not compile.
    pub fn build_alone(&self, mutants: &[Mutant], id: usize) -> Result<Option<PathBuf>> {
        for (file, source) in &self.sources {
            let text = if mutants[id].file == *file {
                source.with(&mutants[id])?
            } else {
                source.with_all(mutants, &[])?.text
            };
            let path = self.top.join(file);
            // An unchanged file is not compiled again.
            if fs::read_to_string(&path)? != text {
                fs::write(path, text)?;
            }
        }
        Ok(self.cargo()?.0)
    }

    /// Builds the sources as they are: returns the program, or the errors.
    fn cargo(&self) -> Result<(Option<PathBuf>, Vec<Message>)> {
        let output = Command::new("cargo")
            .args([
                "test",
                "--lib",
                "--no-run",
                "--offline",
                "--message-format=json",
            ])
            .current_dir(&self.top)
            // Long tests are made shorter by this variable, with all of their checks.
            .env("CARGO_PROFILE_TEST_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_TEST_DEBUG", "0")
            // As in cargo-mutants: a warning is not an error.
            .env("RUSTFLAGS", "--cap-lints=allow")
            .stderr(Stdio::inherit())
            .output()
            .context("cargo")?;
        let (mut program, mut errors) = (None, Vec::new());
        for line in String::from_utf8(output.stdout)?.lines() {
            let said: Said = serde_json::from_str(line).with_context(|| line.to_owned())?;
            program = said.executable.or(program);
            errors.extend(said.message.filter(|message| message.level == "error"));
        }
        if !output.status.success() {
            ensure!(!errors.is_empty(), "cargo: {}", output.status);
            program = None;
        }
        Ok((program, errors))
    }
}
