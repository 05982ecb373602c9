// SPDX-License-Identifier: MIT OR Apache-2.0

//! `freelistctl top`: shows arenas and size classes as they change.

mod draw;
mod grid;
mod state;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::layout::Rect;
use ratatui::DefaultTerminal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::grid::View;
use self::state::{Action, State};
use crate::sample::Sample;
use crate::stat::seconds;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The seconds from one refresh to the next.
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    delay: Duration,
    /// Show arenas or size classes.
    #[arg(long, value_enum, default_value = "arenas")]
    view: View,
    /// The column to sort by.
    #[arg(short, long, value_name = "COLUMN")]
    sort: Option<String>,
    /// Print one frame and end, as without a terminal.
    #[arg(long)]
    once: bool,
}

/// The longest delay until a signal is noticed.
const SIGNALS: Duration = Duration::from_millis(200);
/// The width in characters without a terminal.
const WIDTH: u16 = 100;

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut state = State::new(args.view, args.delay);
    if let Some(name) = &args.sort {
        state.sort_by_name(name).map_err(anyhow::Error::msg)?;
    }
    // Before the terminal is set up, so that errors are one line as in any other command.
    state.update(Sample::read()?, Instant::now());
    if args.once || !io::stdout().is_terminal() {
        return once(&state);
    }
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, ended.clone())?;
    }
    let result = match ratatui::try_init() {
        Ok(mut terminal) => live(&mut terminal, &mut state, &ended),
        Err(error) => Err(error).context("setting up the terminal; --once needs none"),
    };
    // The terminal may be gone.
    let _ = ratatui::try_restore();
    result
}

/// Prints a frame as text.
fn once(state: &State) -> Result<()> {
    let width = ratatui::crossterm::terminal::size().map_or(WIDTH, |(columns, _)| columns);
    let width = if io::stdout().is_terminal() {
        width
    } else {
        WIDTH
    };
    let area = Rect::new(0, 0, width.max(WIDTH), draw::height(state));
    let mut frame = Buffer::empty(area);
    draw::draw(state, area, &mut frame);
    let mut out = io::stdout().lock();
    for line in frame.content().chunks(area.width.into()) {
        let line: String = line.iter().map(|cell| cell.symbol()).collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Draws frames and handles keys until a key or a signal ends it.
fn live(terminal: &mut DefaultTerminal, state: &mut State, ended: &AtomicBool) -> Result<()> {
    let mut next = Instant::now() + state.delay();
    loop {
        terminal.draw(|frame| draw::draw(state, frame.area(), frame.buffer_mut()))?;
        let action = listen(state, next, ended)?;
        match action {
            Action::Quit => return Ok(()),
            Action::Sample => {
                state.update(Sample::read()?, Instant::now());
                next = Instant::now() + state.delay();
            }
            Action::Draw => {}
        }
    }
}

/// Waits for a key, a signal, or the time of the next refresh.
fn listen(state: &mut State, next: Instant, ended: &AtomicBool) -> Result<Action> {
    loop {
        if ended.load(Ordering::Relaxed) {
            return Ok(Action::Quit);
        }
        let left = next.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Action::Sample);
        }
        if !event::poll(left.min(SIGNALS))? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                return Ok(state.key(key.code, key.modifiers))
            }
            Event::Resize(..) => return Ok(Action::Draw),
            _ => {}
        }
    }
}
