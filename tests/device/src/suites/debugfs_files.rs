// SPDX-License-Identifier: GPL-2.0

//! The files in debugfs, their names and columns, are those of `src/man/debugfs-freelist`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use freelist::debugfs::DIR;

use crate::harness::suite;
use crate::kit::{alloc, arena, KIB};

suite!("freelist_debugfs_files":
    the_files_are_those_of_the_text,
    the_columns_are_those_of_the_text,
    the_names_of_stats_are_those_of_the_text,
);

/// The text, in the form of the kernel's Documentation/ABI.
const TEXT: &str = include_str!("../../../../src/man/debugfs-freelist");

/// An entry of the text.
struct Entry {
    /// The files that it describes, below [`DIR`], an arena's number being `<id>`.
    files: Vec<String>,
    description: &'static str,
}

impl Entry {
    /// Returns whether every module has its files.
    fn is_always_there(&self) -> bool {
        !self.description.contains("In kernels with") && !self.description.contains("In a module")
    }

    /// Returns the names that are described, one on each line: lines with three tabs, up to the next tab.
    fn names(&self) -> Vec<&'static str> {
        let lines = self.description.lines();
        let rows = lines.filter_map(|line| line.strip_prefix("\t\t\t"));
        rows.filter(|row| !row.starts_with('\t'))
            .filter_map(|row| row.split_once('\t').map(|(name, _)| name))
            .collect()
    }
}

fn entries() -> Vec<Entry> {
    let entries = TEXT.split("What:").skip(1).map(|entry| {
        let (what, rest) = entry.split_once("Date:").expect("a date follows the files");
        let (_, description) = rest.split_once("Description:").expect("a description");
        let files = what.split_whitespace().map(|path| {
            let below = path
                .strip_prefix(DIR)
                .expect("a path in the module's directory");
            below.trim_matches('/').to_owned()
        });
        Entry {
            files: files.collect(),
            description,
        }
    });
    entries.collect()
}

#[track_caller]
fn entry(file: &str) -> Entry {
    let found = entries()
        .into_iter()
        .find(|entry| entry.files.iter().any(|name| name == file));
    found.unwrap_or_else(|| panic!("the text has no {file}"))
}

/// Adds the files below `dir`, as the text names them.
fn find(dir: &Path, name: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).expect("debugfs is mounted") {
        let entry = entry.unwrap();
        let own = entry.file_name().into_string().unwrap();
        let own = if name == "arenas.d" { "<id>" } else { &own };
        let inner = format!("{name}/{own}").trim_matches('/').to_owned();
        if entry.file_type().unwrap().is_dir() {
            find(&entry.path(), &inner, found);
            // The arena's own directory is that of its files.
            if own == "<id>" {
                continue;
            }
        }
        found.insert(inner);
    }
}

fn the_files_are_those_of_the_text() {
    let _arena = arena();
    let mut found = BTreeSet::new();
    find(Path::new(DIR), "", &mut found);
    let mut known = BTreeSet::new();
    for entry in entries() {
        let there: Vec<_> = entry
            .files
            .iter()
            .map(|file| found.contains(file))
            .collect();
        let wanted = entry.is_always_there() || there.contains(&true);
        assert!(
            !wanted || !there.contains(&false),
            "of {:?} there are {there:?}",
            entry.files
        );
        known.extend(entry.files);
    }
    let unknown: Vec<_> = found.difference(&known).collect();
    assert!(unknown.is_empty(), "the text has no {unknown:?}");
}

fn the_columns_are_those_of_the_text() {
    let arena = arena();
    alloc(&arena, 5 * KIB);
    let rows = fs::read_to_string(format!("{DIR}/arenas")).unwrap();
    let last = rows.lines().last().unwrap();
    let id = last.split_whitespace().next().unwrap();
    for (file, path) in [
        ("classes", "classes".to_owned()),
        ("arenas", "arenas".to_owned()),
        ("arenas.d/<id>/map", format!("arenas.d/{id}/map")),
    ] {
        let text = fs::read_to_string(format!("{DIR}/{path}")).unwrap();
        let head = text.lines().next().unwrap();
        let columns: Vec<_> = head.split_whitespace().collect();
        assert_eq!(columns, entry(file).names(), "{file}");
    }
}

fn the_names_of_stats_are_those_of_the_text() {
    let text = fs::read_to_string(format!("{DIR}/stats")).unwrap();
    let names = text.lines().filter_map(|line| line.split(' ').next());
    let names = names.filter(|name| !name.starts_with("failures_"));
    let rows = entry("stats").description.lines();
    let rows = rows.filter_map(|line| line.strip_prefix("\t\t\t"));
    let known: Vec<_> = rows.flat_map(str::split_whitespace).collect();
    assert_eq!(names.collect::<Vec<_>>(), known);
}
