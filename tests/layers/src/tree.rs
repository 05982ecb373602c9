// SPDX-License-Identifier: GPL-2.0

//! The module's source files, by folder.

use std::fs;
use std::path::{Path as FsPath, PathBuf};

use anyhow::{Context, Result};
use walkdir::WalkDir;

use crate::paths::{paths, Path};

/// A source file of the module.
pub struct File {
    /// The path below `src/`.
    pub name: String,
    /// The folder; `None` for a file in `src/` itself.
    pub folder: Option<String>,
    /// The paths in it that leave its folder.
    pub paths: Vec<Path>,
}

/// The module's source files.
pub struct Tree {
    top: PathBuf,
    /// The folders of `src/`, in the order of their names.
    pub folders: Vec<String>,
    /// The files of the module, in the order of their names.
    pub files: Vec<File>,
}

impl Tree {
    /// Reads the files below `top`, without those in the folders `beside`, which are not part of the module.
    pub fn read(top: &FsPath, beside: &[&str]) -> Result<Self> {
        let mut tree = Self {
            top: top.to_owned(),
            folders: Vec::new(),
            files: Vec::new(),
        };
        for entry in WalkDir::new(top).min_depth(1).sort_by_file_name() {
            let entry = entry?;
            let below = entry.path().strip_prefix(top)?;
            let first = below.iter().next().unwrap_or_default().to_string_lossy();
            if entry.file_type().is_dir() {
                if entry.depth() == 1 {
                    tree.folders.push(first.into_owned());
                }
                continue;
            }
            let name = below.to_string_lossy().into_owned();
            if beside.contains(&&*first)
                || !name.ends_with(".rs")
                || name.ends_with("_generated.rs")
            {
                continue;
            }
            let text = fs::read_to_string(entry.path()).with_context(|| name.clone())?;
            // A mod.rs is the folder itself, any other file lies in it.
            let depth = entry.depth() - usize::from(name.ends_with("/mod.rs"));
            let paths = paths(&text, depth).with_context(|| name.clone())?;
            let folder = (entry.depth() > 1).then(|| first.into_owned());
            tree.files.push(File {
                name,
                folder,
                paths,
            });
        }
        Ok(tree)
    }

    /// Returns the folders in the table of the root file's documentation.
    pub fn map(&self, root: &str) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.top.join(root)).with_context(|| root.to_owned())?;
        let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `"));
        let names = rows.filter_map(|row| row.split('`').next());
        Ok(names.map(str::to_owned).collect())
    }
}
