// SPDX-License-Identifier: MIT OR Apache-2.0

//! Draws a frame of `freelistctl top`.

use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, Widget};

use super::grid::{Cell, View};
use super::state::State;
use crate::sample::Sample;
use crate::show::{grouped, mib};

/// The lines above the rows: totals, a bar, rates, a blank line, the columns' names.
const ABOVE: u16 = 5;
/// The help: the keys.
const HELP: [&str; 8] = [
    "a, c, Tab      arenas, size classes, the other",
    "a letter       sorts by the column that shows it",
    "r              reverses the order",
    "arrows, pages  scroll",
    "+, -           refreshes more often, less often",
    "space          refreshes now",
    "?              this",
    "q, Esc         end",
];

/// Returns the lines of a frame that shows all rows.
pub(crate) fn height(state: &State) -> u16 {
    let rows = state.rows().len().max(1);
    (rows as u16).saturating_add(ABOVE + 1)
}

/// Draws a frame into `area`, of any size.
pub(crate) fn draw(state: &State, area: Rect, frame: &mut Buffer) {
    let Some(sample) = state.sample() else {
        return;
    };
    let parts = [
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(1),
    ];
    let [totals, bar, rates, _, rows, foot] = Layout::vertical(parts).areas(area);
    Paragraph::new(total_line(sample)).render(totals, frame);
    Paragraph::new(bar_line(sample, bar.width)).render(bar, frame);
    Paragraph::new(rate_line(state)).render(rates, frame);
    table(state, rows, frame);
    Paragraph::new(foot_line(state, sample)).render(foot, frame);
    if state.shows_help() {
        help(area, frame);
    }
}

fn total_line(sample: &Sample) -> Line<'static> {
    let arenas = sample.total("arenas");
    let of = |name| mib(sample.total(name));
    let limit = sample.totals.get("limit_bytes");
    let limit = limit.map_or(String::new(), |bytes| format!(" of {}", mib(bytes)));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Line::from(vec![
        Span::styled("freelist", bold),
        Span::raw(format!(
            "  {} arena{}  live {}  free {}  held {}{limit}  huge {}",
            grouped(arenas),
            if arenas == 1 { "" } else { "s" },
            of("live_bytes"),
            of("free_bytes"),
            of("held_bytes"),
            of("huge_bytes"),
        )),
    ])
}

/// Draws a bar of live and free bytes, as parts of the limit.
fn bar_line(sample: &Sample, width: u16) -> Line<'static> {
    let limit = sample.totals.get("limit_bytes");
    let limit = limit.unwrap_or_else(|| sample.arenas.iter().map(|row| row.limit).sum());
    let width = u64::from(width.saturating_sub(2));
    let part = |bytes: u64| {
        let part = u128::from(bytes) * u128::from(width) / u128::from(limit.max(1));
        part.min(width.into()) as u64
    };
    let live = part(sample.total("live_bytes"));
    let held = part(sample.total("held_bytes")).max(live);
    let span = |glyph: &str, count: u64, colour| {
        Span::styled(glyph.repeat(count as usize), Style::new().fg(colour))
    };
    Line::from(vec![
        Span::raw("["),
        span("#", live, Color::Blue),
        span("-", held - live, Color::Green),
        span(".", width - held, Color::DarkGray),
        Span::raw("]"),
    ])
}

fn rate_line(state: &State) -> Line<'static> {
    let of = |name: &str, is_bytes: bool| {
        let text = match state.rate(&if is_bytes {
            format!("{name}_bytes")
        } else {
            name.to_owned()
        }) {
            None => "-".to_owned(),
            Some(rate) if is_bytes => mib(rate.max(0.0) as u64),
            Some(rate) => grouped(rate.max(0.0).round() as u64),
        };
        format!("{name} {text}")
    };
    let parts = [
        of("allocs", false),
        of("frees", false),
        of("grows", false),
        of("waits", false),
        of("moved", true),
        of("faulted", true),
        of("failures", false),
    ];
    Line::from(format!("a second: {}", parts.join("  ")))
}

/// Draws the rows under the names of their columns, in which the key of each stands out.
fn table(state: &State, area: Rect, frame: &mut Buffer) {
    let columns = state.view().columns();
    let (sorted, falls) = state.sorted_by();
    let name = |column: &super::grid::Column| {
        let style = if column.name == sorted.name {
            Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
        } else {
            Style::new().add_modifier(Modifier::BOLD)
        };
        let mark = match column.name == sorted.name {
            true if falls => "v",
            true => "^",
            false => "",
        };
        let text = format!("{}:{}{mark}", column.key, column.name);
        Line::from(Span::styled(text, style)).alignment(alignment(column.name))
    };
    let header = Row::new(columns.iter().map(name).collect::<Vec<_>>());
    let cell = |(cell, column): (&Cell, &super::grid::Column)| {
        Line::from(cell.text().to_owned()).alignment(alignment(column.name))
    };
    let rows = state.rows();
    let rows = rows.iter().skip(state.scroll()).map(|row| {
        let cells = row.iter().zip(columns).map(cell);
        Row::new(cells.collect::<Vec<_>>())
    });
    let widths = columns.iter().map(|column| match column.name {
        "name" => Constraint::Min(column.width),
        _ => Constraint::Length(column.width),
    });
    Widget::render(Table::new(rows, widths).header(header), area, frame);
}

fn alignment(column: &str) -> Alignment {
    match column {
        "name" => Alignment::Left,
        _ => Alignment::Right,
    }
}

fn foot_line(state: &State, sample: &Sample) -> Line<'static> {
    let dim = Style::new().fg(Color::DarkGray);
    if let Some(note) = &sample.note {
        let what = match state.view() {
            View::Classes => "size classes need root",
            View::Arenas => note,
        };
        return Line::styled(what.to_owned(), Style::new().fg(Color::Yellow));
    }
    let other = match state.view() {
        View::Arenas => "c classes",
        View::Classes => "a arenas",
    };
    let seconds = state.delay().as_secs_f64();
    Line::styled(
        format!(
            "q quit  {other}  r reverse  ? help  in MiB, growth a second, every {seconds:.1} s"
        ),
        dim,
    )
}

fn help(area: Rect, frame: &mut Buffer) {
    let width = 60.min(area.width);
    let height = (HELP.len() as u16 + 2).min(area.height);
    let inside = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(inside, frame);
    let text: Vec<Line> = HELP.iter().map(|line| Line::from(*line)).collect();
    let block = Block::bordered().title(" keys ");
    Paragraph::new(text).block(block).render(inside, frame);
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use freelist::debugfs::{ArenaRow, Classes, Stats};
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyModifiers};
    use ratatui::Terminal;

    use super::*;
    use crate::sample::{Origin, Row as Arena};

    fn arena(id: u64, name: &str, live: u64, held: u64, waiters: u64) -> Arena {
        Arena::from(ArenaRow {
            id,
            pid: 100 + id,
            live: live << 20,
            free: (held - live) << 20,
            held: held << 20,
            limit: 1 << 30,
            waiters,
            name: name.to_owned(),
        })
    }

    fn moment(allocs: u64, held: u64, splits: u64) -> Sample {
        let text = format!(
            "arenas 3\nlive_bytes 268435456\nfree_bytes 134217728\nheld_bytes 402653184\n\
             limit_bytes 1073741824\nallocs {allocs}\nfrees 0\ngrows 0\nwaits 1\nmoved_bytes 0\n"
        );
        let classes = format!(
            "shift size live free held splits merges grows waits largest\n\
             5 32 0 0 0 0 0 0 0 0\n6 64 3 1 4096 0 0 1 0 64\n16 65536 7 2 917504 {splits} 0 0 0 131072\n"
        );
        Sample {
            origin: Origin::Debugfs,
            totals: Stats::parse(&text).unwrap(),
            arenas: vec![
                arena(1, "sh", 16, 32, 0),
                arena(2, "train", 200, held, 0),
                arena(3, "cat", 8, 8, 2),
            ],
            classes: Some(Classes::parse(&classes).unwrap()),
            note: None,
        }
    }

    pub(crate) fn sample() -> Sample {
        moment(0, 256, 0)
    }

    /// Returns the sample of two seconds later.
    pub(crate) fn after() -> Sample {
        moment(1000, 288, 10)
    }

    fn lines(state: &State, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let frame = terminal.draw(|frame| draw(state, frame.area(), frame.buffer_mut()));
        let buffer = frame.unwrap().buffer.clone();
        let lines = buffer.content().chunks(width.into());
        lines
            .map(|line| {
                let text: String = line.iter().map(|cell| cell.symbol()).collect();
                text.trim_end().to_owned()
            })
            .collect()
    }

    fn state() -> State {
        let mut state = State::new(View::Arenas, Duration::from_secs(1));
        let start = Instant::now();
        state.update(sample(), start);
        state.update(after(), start + Duration::from_secs(2));
        state
    }

    #[test]
    fn a_frame_has_totals_rates_and_rows_in_order() {
        let lines = lines(&state(), 110, 12);
        assert_eq!(
            lines[0],
            "freelist  3 arenas  live 256.00 MiB  free 128.00 MiB  held 384.00 MiB of 1024.00 MiB  huge 0.00 MiB"
        );
        // 108 characters are 1 GiB: a quarter is live, an eighth free.
        assert_eq!(
            lines[1],
            format!("[{}{}{}]", "#".repeat(27), "-".repeat(13), ".".repeat(68))
        );
        assert!(
            lines[2].starts_with("a second: allocs 500  frees 0  grows 0  waits 0"),
            "{}",
            lines[2]
        );
        assert!(
            lines[4].contains("h:heldv") && lines[4].contains("n:name"),
            "{}",
            lines[4]
        );
        let row = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            row(&lines[5]).join(" "),
            "2 102 200.00 88.00 288.00 16.00 1024.00 0 train"
        );
        assert!(
            lines[6].ends_with("sh") && lines[7].ends_with("cat"),
            "{lines:?}"
        );
        assert!(lines[11].contains("q quit"), "{}", lines[11]);
    }

    #[test]
    fn classes_in_which_nothing_happened_are_left_out() {
        let mut state = state();
        state.key(KeyCode::Char('c'), KeyModifiers::NONE);
        let lines = lines(&state, 110, 12);
        assert!(lines[4].contains("s:size") && lines[4].contains("x:splits/s"));
        assert!(lines[5].trim_start().starts_with("64 KiB"), "{}", lines[5]);
        assert!(lines[6].trim_start().starts_with("64 B"), "{}", lines[6]);
        assert_eq!(lines[7], "");
    }

    #[test]
    fn help_lies_over_the_frame() {
        let mut state = state();
        assert!(!lines(&state, 100, 20).concat().contains("keys"));
        state.key(KeyCode::Char('?'), KeyModifiers::NONE);
        let text = lines(&state, 100, 20).concat();
        for line in HELP {
            assert!(text.contains(line), "{line}");
        }
    }

    #[test]
    fn arenas_fit_eighty_columns() {
        let lines = lines(&state(), 80, 12);
        for column in View::Arenas.columns() {
            let name = format!("{}:{}", column.key, column.name);
            assert!(lines[4].contains(&name), "{name}: {}", lines[4]);
        }
        assert!(lines[5].ends_with("1024.00       0 train"), "{}", lines[5]);
    }

    #[test]
    fn a_frame_fits_any_terminal() {
        let mut state = state();
        for help in [false, true] {
            if help {
                state.key(KeyCode::Char('?'), KeyModifiers::NONE);
            }
            for (width, height) in [(1, 1), (2, 40), (200, 1), (20, 5), (300, 90)] {
                lines(&state, width, height);
            }
        }
    }

    #[test]
    fn without_root_the_last_line_says_what_is_missing() {
        let mut state = state();
        let mut own = sample();
        own.note = Some("closed; showing only the arenas of your own processes".to_owned());
        own.classes = None;
        state.update(own, Instant::now());
        assert!(lines(&state, 100, 12)[11].starts_with("closed; showing only"));
        state.key(KeyCode::Char('c'), KeyModifiers::NONE);
        assert!(lines(&state, 100, 12)[11].starts_with("size classes need root"));
    }
}
