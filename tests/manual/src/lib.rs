// SPDX-License-Identifier: GPL-2.0

//! Reads README, the manual pages and the sources that they describe.
//!
//! | module | reads |
//! | --- | --- |
//! | `snippets` | programs in README and in the manual pages |
//! | `page` | names in a manual page in mdoc |
//! | `header` | names in a C header |
//! | `markdown` | headings, links and commands in Markdown |

pub mod header;
pub mod markdown;
pub mod page;
pub mod snippets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Returns the path of `name` in this clone.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name)
}

/// Reads the file `name` of this clone. Fails with its name in the error.
pub fn read(name: &str) -> Result<String> {
    std::fs::read_to_string(path(name)).with_context(|| name.to_owned())
}

/// Returns the files of this clone below `folder` whose names end in `ending`, sorted. Fails if a directory
/// cannot be read.
pub fn files(folder: &str, ending: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(path(&folder)).with_context(|| folder.clone())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let inner = if folder == "." {
                name.clone()
            } else {
                format!("{folder}/{name}")
            };
            if entry.file_type()?.is_dir() {
                // Build output and foreign files.
                if !matches!(name.as_str(), ".git" | "build" | "target" | "out") {
                    folders.push(inner);
                }
            } else if name.ends_with(ending) {
                found.push(inner);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Splits `text` into words of letters, digits and `_`.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// Returns the names of all errors, from the kernel's headers for user space, and the one that these headers
/// lack. Fails if the headers are not installed.
pub fn errnos() -> Result<BTreeSet<String>> {
    let mut known = BTreeSet::from(["ERESTARTSYS".to_owned()]);
    for name in ["errno-base.h", "errno.h"] {
        let file = format!("/usr/include/asm-generic/{name}");
        let text = std::fs::read_to_string(&file).with_context(|| file.clone())?;
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("#define\t"));
        known.extend(
            lines
                .filter_map(|line| line.split_whitespace().next())
                .map(str::to_owned),
        );
    }
    Ok(known)
}

/// Returns the names of errors that are words of `text`.
pub fn errnos_in(text: &str) -> Result<BTreeSet<String>> {
    let words: BTreeSet<_> = words(text).map(str::to_owned).collect();
    Ok(words.intersection(&errnos()?).cloned().collect())
}
