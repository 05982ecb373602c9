// SPDX-License-Identifier: MIT OR Apache-2.0

//! Shell completions and man pages, generated from the command line's definition.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::Cli;

#[derive(clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(clap::Args)]
pub(crate) struct ManArgs {
    /// An existing directory, for freelistctl.1 and a page for each command.
    dir: PathBuf,
}

/// Returns the definition of the whole command line.
fn command() -> Command {
    Cli::command()
}

/// Prints the completions for a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<()> {
    // clap panics if standard output is closed, so it writes to memory.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "freelistctl", &mut text);
    io::stdout().write_all(&text)?;
    Ok(())
}

/// Writes freelistctl.1, and freelistctl-COMMAND.1 for each command.
pub(crate) fn man(args: &ManArgs) -> Result<()> {
    pages(&args.dir).with_context(|| args.dir.display().to_string())
}

fn pages(dir: &Path) -> Result<()> {
    clap_mangen::generate_to(command(), dir)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use std::fs;

    fn names() -> Vec<String> {
        let command = command();
        let shown = command.get_subcommands().filter(|one| !one.is_hide_set());
        shown.map(|one| one.get_name().to_owned()).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_shell_completes_every_command() {
        assert!(names().len() >= 10);
        for shell in Shell::value_variants() {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut command(), "freelistctl", &mut text);
            let text = String::from_utf8(text).unwrap();
            for name in names() {
                assert!(text.contains(&name), "{shell}: {name}");
            }
        }
    }

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let dir = std::env::temp_dir().join(format!("man-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        pages(&dir).unwrap();
        let page = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let main = page("freelistctl.1");
        let all: Vec<(String, String)> = names()
            .into_iter()
            .map(|name| (page(&format!("freelistctl-{name}.1")), name))
            .collect();
        let hidden = dir.join("freelistctl-man.1").exists();
        fs::remove_dir_all(&dir).unwrap();
        assert!(main.contains(".TH freelistctl 1"), "{main}");
        assert!(!hidden);
        for (text, name) in all {
            assert!(
                main.contains(&format!("freelistctl\\-{name}(1)")),
                "{name}: {main}"
            );
            assert!(text.contains(".SH SYNOPSIS"), "{name}");
        }
    }
}
