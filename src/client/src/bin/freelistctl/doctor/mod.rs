// SPDX-License-Identifier: MIT OR Apache-2.0

//! `freelistctl doctor`: finds the faults that keep freelist from working on this machine, and the command that
//! mends each.

mod checks;
mod facts;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use freelist::DEVICE;
use serde_json::json;

use self::checks::{Check, Verdict};
use self::facts::Facts;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// The device file.
    #[arg(long, default_value = DEVICE)]
    device: PathBuf,
}

/// Runs all checks and prints them. Fails if a verdict is wrong, not for warnings.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let checks = checks::all(&Facts::read(&args.device));
    let worst = checks.iter().map(|check| check.verdict).max();
    let worst = worst.unwrap_or(Verdict::Ok);
    if args.json {
        let report = json!({ "verdict": worst, "checks": checks });
        writeln!(io::stdout(), "{report:#}")?;
    } else {
        print(&mut anstream::stdout(), &checks)?;
    }
    Ok(ExitCode::from(u8::from(worst == Verdict::Wrong)))
}

impl Verdict {
    fn style(self) -> Style {
        let colour = match self {
            Self::Ok => AnsiColor::Green,
            Self::Warning => AnsiColor::Yellow,
            Self::Wrong => AnsiColor::Red,
        };
        colour.on_default().bold()
    }
}

/// Prints a line for each check, and below it the command that mends the fault.
fn print(out: &mut impl Write, checks: &[Check]) -> io::Result<()> {
    for check in checks {
        let (style, word) = (check.verdict.style(), check.verdict.word());
        writeln!(
            out,
            "{style}{word:<8}{style:#} {:<12}{}",
            check.name, check.text
        )?;
        if let Some(mend) = &check.mend {
            writeln!(out, "{:21}{mend}", "")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_stands_below_the_problem_that_it_mends() {
        let check = Check {
            name: "debugfs",
            verdict: Verdict::Warning,
            text: "is not mounted".to_owned(),
            mend: Some("sudo mount x".to_owned()),
        };
        let mut out = Vec::new();
        print(&mut anstream::StripStream::new(&mut out), &[check]).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "warning  debugfs     is not mounted\n                     sudo mount x\n"
        );
    }
}
