// SPDX-License-Identifier: GPL-2.0

//! Reads which folders of the module its source files use.

mod paths;
mod tree;

pub use paths::{paths, Path, Root};
pub use tree::{File, Tree};
