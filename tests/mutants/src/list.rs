// SPDX-License-Identifier: GPL-2.0

//! The mutants, as cargo-mutants lists them.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// A position in a file; line and column count from 1.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: usize,
    /// The column in characters.
    pub column: usize,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub start: Position,
    pub end: Position,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Function {
    pub function_name: String,
    /// The type with its arrow; empty if there is none.
    pub return_type: String,
    pub span: Span,
}

/// A mutant: a replacement for a piece of a function.
#[derive(Clone, Debug, Deserialize)]
pub struct Mutant {
    /// The path from the top of the workspace.
    pub file: String,
    pub function: Option<Function>,
    pub span: Span,
    pub replacement: String,
    genre: String,
    /// The change and its function: see [`Mutant::set_name`].
    #[serde(skip)]
    pub name: String,
}

impl Mutant {
    /// Sets the name, from the piece that is replaced.
    pub fn set_name(&mut self, piece: &str) {
        let Self {
            file, replacement, ..
        } = self;
        let (name, returned) = self.function.as_ref().map_or(("", ""), |function| {
            (&*function.function_name, &*function.return_type)
        });
        let piece = piece.split_whitespace().collect::<Vec<_>>().join(" ");
        self.name = match (&*self.genre, replacement.as_str()) {
            ("FnValue", _) => format!("{file}: replace {name} {returned} with {replacement}"),
            (_, "") => format!("{file}: delete {piece} in {name}"),
            _ => format!("{file}: replace {piece} with {replacement} in {name}"),
        };
    }

    /// Returns the name and the position, which are unique together.
    pub fn full_name(&self) -> String {
        let Position { line, column } = self.span.start;
        format!("{line}:{column}: {}", self.name)
    }
}

/// Returns a file's path without `..` at its beginning.
pub fn plain(path: &str) -> &str {
    path.rsplit_once("../").map_or(path, |(_, rest)| rest)
}

pub fn read(path: &Path) -> Result<Vec<Mutant>> {
    let name = || path.display().to_string();
    let file = File::open(path).with_context(name)?;
    let mut all: Vec<Mutant> = serde_json::from_reader(BufReader::new(file)).with_context(name)?;
    for mutant in &mut all {
        mutant.file = plain(&mutant.file).to_owned();
    }
    Ok(all)
}

/// Sorts the mutants into an order that is the same each time and does not depend on their positions,
/// so that the first ones are a sample of all.
pub fn shuffle(mutants: &mut [Mutant]) {
    mutants.sort_by_cached_key(|mutant| {
        let mut hasher = DefaultHasher::new();
        (&mutant.file, mutant.span.start, &mutant.replacement).hash(&mut hasher);
        hasher.finish()
    });
}

#[cfg(test)]
pub fn mutant(function: Span, span: Span, replacement: &str) -> Mutant {
    Mutant {
        file: "a.rs".to_owned(),
        function: Some(Function {
            function_name: "f".to_owned(),
            return_type: String::new(),
            span: function,
        }),
        span,
        replacement: replacement.to_owned(),
        genre: "BinaryOperator".to_owned(),
        name: String::new(),
    }
}
