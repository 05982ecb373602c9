// SPDX-License-Identifier: GPL-2.0

//! `freelist-snippets DIR`: writes each program of README and of the manual pages into a file in DIR, named by its
//! text and its line there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use freelist_manual::snippets;

fn main() -> Result<()> {
    let dir = std::env::args_os()
        .nth(1)
        .context("usage: freelist-snippets DIR")?;
    let dir = Path::new(&dir);
    for name in snippets::sources()? {
        let stem = name.rsplit('/').next().unwrap_or(&name);
        let stem = stem.trim_end_matches(".md").replace('.', "_");
        for snippet in snippets::of_file(&name).with_context(|| name.clone())? {
            let file = dir.join(format!(
                "{stem}-line-{}.{}",
                snippet.line,
                snippet.language.ending()
            ));
            fs::write(&file, snippet.text).with_context(|| file.display().to_string())?;
        }
    }
    Ok(())
}
