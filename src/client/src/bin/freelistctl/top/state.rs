// SPDX-License-Identifier: MIT OR Apache-2.0

//! The state of `freelistctl top`, and the keys that change it.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use super::grid::{self, Cell, Column, View};
use crate::sample::Sample;

/// The action after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Quit,
    /// Read the statistics now.
    Sample,
    Draw,
}

/// The column that rows are sorted by, and whether its order is reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sort {
    column: usize,
    reversed: bool,
}

/// The state that a frame shows.
pub(crate) struct State {
    view: View,
    sorts: [Sort; 2],
    delay: Duration,
    /// The number of rows above the first that is shown.
    scroll: usize,
    help: bool,
    now: Option<(Sample, Instant)>,
    before: Option<(Sample, Instant)>,
}

/// The number of rows that a key for a page scrolls.
const PAGE: usize = 10;
/// The shortest and the longest time between two refreshes.
const DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

impl State {
    pub(crate) fn new(view: View, delay: Duration) -> Self {
        let sort = |view: View| Sort {
            column: view.default_sort(),
            reversed: false,
        };
        Self {
            view,
            sorts: [View::Arenas, View::Classes].map(sort),
            delay,
            scroll: 0,
            help: false,
            now: None,
            before: None,
        }
    }

    pub(crate) fn view(&self) -> View {
        self.view
    }

    pub(crate) fn delay(&self) -> Duration {
        self.delay
    }

    pub(crate) fn scroll(&self) -> usize {
        self.scroll
    }

    pub(crate) fn shows_help(&self) -> bool {
        self.help
    }

    pub(crate) fn sample(&self) -> Option<&Sample> {
        self.now.as_ref().map(|(sample, _)| sample)
    }

    /// Returns the column that rows are sorted by, and whether the largest value comes first.
    pub(crate) fn sorted_by(&self) -> (&'static Column, bool) {
        let sort = self.sorts[self.view as usize];
        let column = &self.view.columns()[sort.column];
        (column, column.falls != sort.reversed)
    }

    /// Stores the sample of the moment `at`. Rates count from the one before.
    pub(crate) fn update(&mut self, sample: Sample, at: Instant) {
        self.before = self.now.replace((sample, at));
        self.keep_in_sight();
    }

    /// Returns the change of a total per second.
    pub(crate) fn rate(&self, name: &str) -> Option<f64> {
        let ((now, at), (before, earlier)) = (self.now.as_ref()?, self.before.as_ref()?);
        let elapsed = at.saturating_duration_since(*earlier);
        grid::rate(now.total(name), before.totals.get(name), elapsed)
    }

    /// Returns the rows in their order.
    pub(crate) fn rows(&self) -> Vec<Vec<Cell>> {
        let Some((now, at)) = &self.now else {
            return Vec::new();
        };
        let before = self.before.as_ref();
        let elapsed = before.map(|(_, earlier)| at.saturating_duration_since(*earlier));
        let before = before.map(|(sample, _)| sample);
        let mut rows = grid::rows(self.view, now, before, elapsed.unwrap_or_default());
        let column = self.sorts[self.view as usize].column;
        let (_, falls) = self.sorted_by();
        rows.sort_by(|a, b| {
            let order = a[column].compare(&b[column]);
            if falls {
                order.reverse()
            } else {
                order
            }
        });
        rows
    }

    /// Sorts by the column of that name.
    ///
    /// # Errors
    ///
    /// The names of all columns.
    pub(crate) fn sort_by_name(&mut self, name: &str) -> Result<(), String> {
        let columns = self.view.columns();
        let is_it =
            |column: &Column| column.name == name || column.name.strip_suffix("/s") == Some(name);
        match columns.iter().position(is_it) {
            Some(column) => {
                self.sorts[self.view as usize].column = column;
                Ok(())
            }
            None => {
                let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
                Err(format!("--sort {name}: give one of {}", names.join(", ")))
            }
        }
    }

    /// Handles a key.
    pub(crate) fn key(&mut self, code: KeyCode, modifiers: KeyModifiers) -> Action {
        let is_control = modifiers.contains(KeyModifiers::CONTROL);
        match code {
            KeyCode::Char('c') if is_control => return Action::Quit,
            _ if is_control => {}
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Esc if !self.help => return Action::Quit,
            KeyCode::Char(' ') => return Action::Sample,
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Esc => self.help = false,
            KeyCode::Tab => self.show(match self.view {
                View::Arenas => View::Classes,
                View::Classes => View::Arenas,
            }),
            KeyCode::Char('a') => self.show(View::Arenas),
            KeyCode::Char('c') => self.show(View::Classes),
            KeyCode::Char('r') => self.sorts[self.view as usize].reversed ^= true,
            KeyCode::Char('+') => self.delay = (self.delay / 2).max(DELAYS.0),
            KeyCode::Char('-') => self.delay = (self.delay * 2).min(DELAYS.1),
            KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Down => self.scroll += 1,
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(PAGE),
            KeyCode::PageDown => self.scroll += PAGE,
            KeyCode::Home => self.scroll = 0,
            KeyCode::End => self.scroll = usize::MAX,
            KeyCode::Char(key) => self.sort_by_key(key),
            _ => {}
        }
        self.keep_in_sight();
        Action::Draw
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.scroll = 0;
    }

    fn sort_by_key(&mut self, key: char) {
        let columns = self.view.columns().iter();
        let Some(column) = columns.clone().position(|column| column.key == key) else {
            return;
        };
        self.sorts[self.view as usize] = Sort {
            column,
            reversed: false,
        };
    }

    /// Scrolls so that at least the last row is shown.
    fn keep_in_sight(&mut self) {
        let last = self.rows().len().saturating_sub(1);
        self.scroll = self.scroll.min(last);
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::tests::{after, sample};
    use super::*;

    fn press(state: &mut State, keys: &str) -> Action {
        let mut action = Action::Draw;
        for key in keys.chars() {
            action = state.key(KeyCode::Char(key), KeyModifiers::NONE);
        }
        action
    }

    fn names(state: &State) -> Vec<String> {
        let rows = state.rows();
        let name = |row: &Vec<Cell>| row.last().map(|cell| cell.text().to_owned());
        rows.iter().filter_map(name).collect()
    }

    fn state() -> State {
        let mut state = State::new(View::Arenas, Duration::from_secs(1));
        state.update(sample(), Instant::now());
        state
    }

    #[test]
    fn the_key_of_a_column_sorts_by_it_and_r_reverses_the_order() {
        let mut state = state();
        assert_eq!(names(&state), ["train", "sh", "cat"], "most held first");
        press(&mut state, "n");
        assert_eq!(names(&state), ["cat", "sh", "train"]);
        press(&mut state, "r");
        assert_eq!(names(&state), ["train", "sh", "cat"]);
        press(&mut state, "w");
        assert_eq!(names(&state)[0], "cat", "it waits");
        press(&mut state, "i");
        assert_eq!(names(&state), ["sh", "train", "cat"]);
        press(&mut state, "~");
        assert_eq!(state.sorted_by().0.name, "arena");
    }

    #[test]
    fn each_view_keeps_its_own_order() {
        let mut state = state();
        press(&mut state, "n");
        state.key(KeyCode::Tab, KeyModifiers::NONE);
        assert_eq!(state.view(), View::Classes);
        assert_eq!(state.sorted_by(), (&View::Classes.columns()[3], true));
        press(&mut state, "s");
        assert_eq!(state.rows()[0][0].text(), "64 B");
        press(&mut state, "a");
        assert_eq!(state.sorted_by().0.name, "name");
        press(&mut state, "c");
        assert_eq!(state.sorted_by().0.name, "size");
    }

    #[test]
    fn q_escape_and_control_c_end_it() {
        let mut state = state();
        assert_eq!(press(&mut state, "q"), Action::Quit);
        assert_eq!(state.key(KeyCode::Esc, KeyModifiers::NONE), Action::Quit);
        let control = KeyModifiers::CONTROL;
        assert_eq!(state.key(KeyCode::Char('c'), control), Action::Quit);
        assert_eq!(state.key(KeyCode::Char('q'), control), Action::Draw);
        press(&mut state, "?");
        assert!(state.shows_help());
        assert_eq!(state.key(KeyCode::Esc, KeyModifiers::NONE), Action::Draw);
        assert!(!state.shows_help());
        assert_eq!(press(&mut state, " "), Action::Sample);
    }

    #[test]
    fn the_last_row_stays_in_sight() {
        let mut state = state();
        state.key(KeyCode::End, KeyModifiers::NONE);
        assert_eq!(state.scroll(), 2);
        state.key(KeyCode::Up, KeyModifiers::NONE);
        assert_eq!(state.scroll(), 1);
        state.key(KeyCode::PageDown, KeyModifiers::NONE);
        assert_eq!(state.scroll(), 2);
        let mut fewer = sample();
        fewer.arenas.truncate(1);
        state.update(fewer, Instant::now());
        assert_eq!(state.scroll(), 0);
    }

    #[test]
    fn the_delay_is_halved_and_doubled_within_bounds() {
        let mut state = state();
        press(&mut state, "+");
        assert_eq!(state.delay(), Duration::from_millis(500));
        press(&mut state, "++++++");
        assert_eq!(state.delay(), DELAYS.0);
        press(&mut state, "-----------------");
        assert_eq!(state.delay(), DELAYS.1);
    }

    #[test]
    fn rates_are_of_the_last_two_samples() {
        let mut state = State::new(View::Arenas, Duration::from_secs(1));
        let start = Instant::now();
        state.update(sample(), start);
        assert_eq!(state.rate("allocs"), None);
        state.update(after(), start + Duration::from_secs(2));
        assert_eq!(state.rate("allocs"), Some(500.0));
        let rows = state.rows();
        assert_eq!(rows[0][5].text(), "16.00");
        press(&mut state, "c");
        assert_eq!(state.rows()[0][4].text(), "5");
    }

    #[test]
    fn an_unknown_column_is_reported_with_the_known_ones() {
        let mut state = state();
        assert_eq!(state.sort_by_name("growth"), Ok(()));
        assert_eq!(state.sorted_by().0.name, "growth");
        let error = state.sort_by_name("size").unwrap_err();
        assert!(
            error.contains("--sort size") && error.contains("wait"),
            "{error}"
        );
    }
}
