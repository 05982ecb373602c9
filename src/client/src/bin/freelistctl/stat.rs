// SPDX-License-Identifier: MIT OR Apache-2.0

//! `freelistctl stat`: prints the statistics, once or repeatedly.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use ratatui::crossterm::cursor::MoveTo;
use ratatui::crossterm::queue;
use ratatui::crossterm::terminal::{Clear, ClearType};

use crate::sample::Sample;
use crate::show;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object instead; with --watch one on each line.
    #[arg(long)]
    json: bool,
    /// Print them again every SECONDS, 2 by default, until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    watch: Option<Duration>,
}

/// Parses a time of 0.1 to 86400 seconds.
pub(crate) fn seconds(text: &str) -> std::result::Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds @ 0.1..=86400.0) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give 0.1 to 86400 seconds".to_owned()),
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut noted = false;
    loop {
        let sample = Sample::read()?;
        if let Some(note) = sample.note.as_ref().filter(|_| !noted) {
            eprintln!("freelistctl: {note}");
            noted = true;
        }
        let mut text = Vec::new();
        match args.json {
            true if args.watch.is_some() => writeln!(text, "{}", sample.json())?,
            true => writeln!(text, "{:#}", sample.json())?,
            false => print(&mut text, &sample)?,
        }
        let mut out = io::stdout().lock();
        if args.watch.is_some() && !args.json {
            if out.is_terminal() {
                queue!(out, Clear(ClearType::All), MoveTo(0, 0))?;
            } else {
                writeln!(text)?;
            }
        }
        out.write_all(&text)?;
        out.flush()?;
        let Some(interval) = args.watch else {
            return Ok(());
        };
        drop(out);
        thread::sleep(interval);
    }
}

/// Prints totals, arenas and classes as aligned text.
fn print(out: &mut impl Write, sample: &Sample) -> io::Result<()> {
    show::stats(out, &[("now", &sample.totals)])?;
    writeln!(out)?;
    show::arenas(out, &sample.arenas)?;
    if let Some(classes) = &sample.classes {
        writeln!(out)?;
        show::classes(out, "now", classes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_tenth_of_a_second_to_a_day() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("86400"), Ok(Duration::from_secs(86400)));
        for wrong in ["0", "-1", "0.01", "1e9", "nan", "soon", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
