// SPDX-License-Identifier: GPL-2.0

//! The known outcomes of mutants, in a file, so that an interrupted run continues.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Mutex;

use anyhow::{bail, Context, Result};

use crate::list::Mutant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Some test fails.
    Caught,
    /// The tests do not end, which would be noticed.
    Endless,
    /// No test fails.
    Lived,
    /// It does not compile.
    Unviable,
}

impl Outcome {
    const ALL: [(Self, &str); 4] = [
        (Self::Caught, "caught"),
        (Self::Endless, "endless"),
        (Self::Lived, "lived"),
        (Self::Unviable, "unviable"),
    ];
}

/// The outcomes, by the names of mutants.
pub struct State(Mutex<(HashMap<String, Outcome>, File)>);

impl State {
    pub fn open(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            text => text.with_context(name)?,
        };
        let file = File::options().create(true).append(true).open(path);
        let mut known = HashMap::new();
        for line in text.lines() {
            let (word, mutant) = line.split_once(' ').with_context(name)?;
            match Outcome::ALL.iter().find(|(_, other)| *other == word) {
                Some((outcome, _)) => known.insert(mutant.to_owned(), *outcome),
                None => bail!("{}: {line}", name()),
            };
        }
        Ok(Self(Mutex::new((known, file.with_context(name)?))))
    }

    pub fn get(&self, mutant: &Mutant) -> Option<Outcome> {
        let inner = self
            .0
            .lock()
            .expect("no thread panics while it holds the lock");
        inner.0.get(&mutant.full_name()).copied()
    }

    pub fn set(&self, mutant: &Mutant, outcome: Outcome) -> Result<()> {
        let mut inner = self
            .0
            .lock()
            .expect("no thread panics while it holds the lock");
        let (_, word) = Outcome::ALL[outcome as usize];
        writeln!(inner.1, "{word} {}", mutant.full_name())?;
        inner.0.insert(mutant.full_name(), outcome);
        Ok(())
    }
}
