// SPDX-License-Identifier: MIT OR Apache-2.0

//! `freelistctl plot`: draws a recording as one self-contained picture.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{anyhow, ensure, Context, Result};
use plotters::coord::types::RangedCoordf64;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::record::FILE;
use super::{tracefs, Header, Line, Moment};
use crate::show::grouped;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The recording, as `record` or `replay --timeline` made it.
    #[arg(value_name = "FILE", default_value = FILE)]
    file: PathBuf,
    /// The picture; by default beside the recording.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The sizes of the picture and of its first chart, in pixels.
const SIZE: (u32, u32) = (1000, 700);
const FIRST: u32 = 400;
/// The pixels for the numbers at each side.
const SIDE: u32 = 80;
/// Colours that are distinct for colour-blind readers too (Okabe and Ito, 2008).
const LIVE: RGBColor = RGBColor(0, 114, 178);
const FREE: RGBColor = RGBColor(0, 158, 115);
const HELD: RGBColor = RGBColor(20, 20, 20);
const MOVED: RGBColor = RGBColor(213, 94, 0);
const WAITS: RGBColor = RGBColor(204, 121, 167);
const EVENTS: [RGBColor; 6] = [
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(240, 200, 40),
    RGBColor(120, 120, 120),
    RGBColor(130, 90, 40),
    RGBColor(0, 114, 178),
];
/// The most marks whose text is beside them.
const TEXTS: usize = 12;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

pub(crate) fn run(args: &Args) -> Result<()> {
    let (header, lines) = super::read(&args.file)?;
    let default = || args.file.with_extension("svg");
    let output = args.output.clone().unwrap_or_else(default);
    ensure!(
        output != args.file,
        "{}: it is the recording; name another with --output",
        output.display()
    );
    let picture = draw(&header, &lines)?;
    std::fs::write(&output, picture).with_context(|| output.display().to_string())?;
    writeln!(io::stdout(), "{}: {}", output.display(), header.title)?;
    Ok(())
}

/// The samples to draw, over seconds or over the events of a trace.
struct Series {
    moments: Vec<Moment>,
    /// The position of each moment on the axis.
    at: Vec<f64>,
    /// The phases of a trace: their positions and their texts.
    marks: Vec<(f64, String)>,
    is_replay: bool,
}

impl Series {
    fn of(lines: &[Line]) -> Self {
        let mut moments = Vec::new();
        let mut marks = Vec::new();
        for line in lines {
            match line {
                Line::Sample(moment) => moments.push(moment.clone()),
                Line::Mark(mark) => marks.push((mark.event as f64, mark.text.clone())),
                Line::Recording(_) | Line::Event(_) => {}
            }
        }
        let is_replay = moments.iter().all(|moment| moment.event.is_some());
        let at = |moment: &Moment| match moment.event {
            Some(event) if is_replay => event as f64,
            _ => moment.time_ns as f64 / 1e9,
        };
        Self {
            at: moments.iter().map(at).collect(),
            moments,
            marks,
            is_replay,
        }
    }

    fn range(&self) -> Range<f64> {
        let first = self.at.first().copied().unwrap_or(0.0);
        let last = self.at.last().copied().unwrap_or(0.0);
        first..last.max(first + 1e-3)
    }

    fn points(&self, value: impl Fn(&Moment) -> f64) -> Vec<(f64, f64)> {
        let values = self.moments.iter().map(value);
        self.at.iter().copied().zip(values).collect()
    }

    /// Returns a counter, counted from the beginning of the recording.
    fn counter(&self, value: impl Fn(&Moment) -> u64) -> Vec<(f64, f64)> {
        let first = self.moments.first().map_or(0, &value);
        self.points(|moment| value(moment).saturating_sub(first) as f64)
    }

    fn axis(&self) -> &'static str {
        match self.is_replay {
            true => "events of the trace",
            false => "seconds",
        }
    }

    /// Returns the names of the tracepoints with events.
    fn events(&self) -> BTreeSet<&str> {
        let names = self.moments.iter().flat_map(|moment| moment.events.keys());
        names
            .map(String::as_str)
            .filter(|name| *name != tracefs::LOST)
            .collect()
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Returns the end of an axis: a little above the highest of these points.
fn top(points: &[(f64, f64)]) -> f64 {
    let max = points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    if max > 0.0 {
        max * 1.1
    } else {
        1.0
    }
}

/// Draws a recording.
///
/// # Errors
///
/// Fails if the recording has no sample.
pub(super) fn draw(header: &Header, lines: &[Line]) -> Result<String> {
    let series = Series::of(lines);
    ensure!(!series.moments.is_empty(), "the recording has no sample");
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        // Its errors cannot be sent to another thread.
        charts(&area, header, &series).map_err(|error| anyhow!("drawing: {error}"))?;
    }
    Ok(text)
}

fn charts(area: &Area<'_>, header: &Header, series: &Series) -> Drawn {
    area.fill(&WHITE)?;
    let title = area.titled(&header.title, ("sans-serif", 18))?;
    let (first, second) = title.split_vertically(FIRST);
    bytes(&first, series)?;
    if series.events().is_empty() {
        counters(&second, series)?;
    } else {
        let (left, right) = second.split_horizontally(SIZE.0 / 2);
        counters(&left, series)?;
        events(&right, series)?;
    }
    area.present()?;
    Ok(())
}

/// Returns a chart with room for the numbers at its left and its lower side.
fn builder<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(SIDE);
    builder
}

/// Draws the names of a chart's series.
fn names<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, position: SeriesLabelPosition) -> Drawn {
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// Draws live bytes, free bytes on top of them, and a line of held bytes.
fn bytes(area: &Area<'_>, series: &Series) -> Drawn {
    let live = series.points(|moment| mib(moment.live_bytes));
    let both = series.points(|moment| mib(moment.live_bytes.saturating_add(moment.free_bytes)));
    let held = series.points(|moment| mib(moment.held_bytes));
    let max = top(&held).max(top(&both));
    let mut chart = builder(area).build_cartesian_2d(series.range(), 0.0..max)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(BLACK.mix(0.05))
        .x_desc(series.axis())
        .x_label_formatter(&|at| position(*at, series.is_replay))
        .y_desc("MiB")
        .draw()?;
    chart
        .draw_series(AreaSeries::new(both, 0.0, FREE.filled()))?
        .label("free")
        .legend(|at| key(at, FREE));
    chart
        .draw_series(AreaSeries::new(live, 0.0, LIVE.filled()))?
        .label("live")
        .legend(|at| key(at, LIVE));
    chart
        .draw_series(LineSeries::new(held, HELD.stroke_width(2)))?
        .label("held")
        .legend(|at| key(at, HELD));
    for (number, (at, text)) in series.marks.iter().enumerate() {
        let line = [(*at, 0.0), (*at, max)];
        chart.draw_series(LineSeries::new(line, BLACK.mix(0.25)))?;
        if series.marks.len() <= TEXTS {
            // Neighbours are at different heights.
            let height = max * (0.99 - 0.04 * (number % 3) as f64);
            let style = ("sans-serif", 11).into_font().color(&BLACK.mix(0.7));
            let text = Text::new(format!(" {text}"), (*at, height), style);
            chart.draw_series([text])?;
        }
    }
    names(&mut chart, SeriesLabelPosition::LowerRight)
}

/// Draws moved bytes and waits since the beginning of the recording, each on its own scale.
fn counters(area: &Area<'_>, series: &Series) -> Drawn {
    let moved = series.counter(|moment| moment.moved_bytes);
    let moved: Vec<_> = moved
        .into_iter()
        .map(|(at, v)| (at, v / f64::from(1 << 20)))
        .collect();
    let waits = series.counter(|moment| moment.waits);
    let mut chart = builder(area)
        .right_y_label_area_size(SIDE)
        .build_cartesian_2d(series.range(), 0.0..top(&moved))?
        // Whole numbers at the side, even if nothing waited.
        .set_secondary_coord(series.range(), 0.0..top(&waits).max(10.0));
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(BLACK.mix(0.05))
        .x_desc(series.axis())
        .x_label_formatter(&|at| position(*at, series.is_replay))
        .y_desc("MiB moved")
        .draw()?;
    chart
        .configure_secondary_axes()
        .y_desc("waits")
        .y_label_formatter(&|count| format!("{count:.0}"))
        .draw()?;
    chart
        .draw_series(LineSeries::new(moved, MOVED.stroke_width(3)))?
        .label("moved")
        .legend(|at| key(at, MOVED));
    chart
        .draw_secondary_series(LineSeries::new(waits, WAITS.stroke_width(2)))?
        .label("waits")
        .legend(|at| key(at, WAITS));
    names(&mut chart, SeriesLabelPosition::UpperLeft)
}

/// Draws the events per second of each tracepoint.
fn events(area: &Area<'_>, series: &Series) -> Drawn {
    let rates = |name: &str| -> Vec<(f64, f64)> {
        let count = |moment: &Moment| moment.events.get(name).copied().unwrap_or(0);
        let pairs = series.moments.windows(2).zip(series.at.windows(2));
        pairs
            .filter(|(_, at)| at[1] > at[0])
            .map(|(moments, at)| {
                let change = count(&moments[1]).saturating_sub(count(&moments[0]));
                (at[1], change as f64 / (at[1] - at[0]))
            })
            .collect()
    };
    let all: Vec<_> = series
        .events()
        .into_iter()
        .map(|name| (name, rates(name)))
        .collect();
    let max = all
        .iter()
        .map(|(_, points)| top(points))
        .fold(1.0, f64::max);
    let mut chart = builder(area).build_cartesian_2d(series.range(), 0.0..max)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(BLACK.mix(0.05))
        .x_desc(series.axis())
        .y_desc("events a second")
        .draw()?;
    for (number, (name, points)) in all.into_iter().enumerate() {
        let colour = EVENTS[number % EVENTS.len()];
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |at| key(at, colour));
    }
    names(&mut chart, SeriesLabelPosition::UpperRight)
}

/// Formats a position on the axis.
fn position(at: f64, is_replay: bool) -> String {
    match is_replay {
        true => grouped(at.max(0.0) as u64),
        false => format!("{at:.1}"),
    }
}

/// Returns the square before a series' name.
fn key((x, y): (i32, i32), colour: RGBColor) -> Rectangle<(i32, i32)> {
    Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Mark;
    use super::*;
    use crate::pixels::Pixels;

    /// Returns a recording with a quarter of 64 MiB live at first, from the middle on half of it, and as much free.
    fn recording(is_replay: bool, events: bool) -> (Header, Vec<Line>) {
        let moment = |step: u64| {
            let live = if step < 50 { 16 << 20 } else { 32 << 20 };
            let counts = BTreeMap::from([("alloc".to_owned(), step * 7), ("lost".to_owned(), 1)]);
            Line::Sample(Moment {
                time_ns: step * 1_000_000_000,
                event: is_replay.then_some(step * 10),
                live_bytes: live,
                free_bytes: live,
                held_bytes: 64 << 20,
                moved_bytes: (1 << 40) + (step << 20),
                waits: 5 + step / 90,
                events: if events { counts } else { BTreeMap::new() },
                ..Moment::default()
            })
        };
        let mut lines: Vec<Line> = (0..=100).map(moment).collect();
        if is_replay {
            lines.push(Line::Mark(Mark {
                time_ns: 0,
                event: 250,
                text: "step 1 end".to_owned(),
            }));
        }
        (Header::new("a <test>".to_owned(), "debugfs"), lines)
    }

    fn hex(colour: RGBColor) -> String {
        format!("#{:02x}{:02x}{:02x}", colour.0, colour.1, colour.2)
    }

    /// Returns the rows of the column `x`, above `below`, that have this colour.
    fn height(pixels: &Pixels, x: f64, below: u32, colour: RGBColor) -> usize {
        let column = (0..below).map(|y| pixels.at(x, y.into()));
        column.filter(|at| *at == hex(colour)).count()
    }

    #[test]
    fn areas_are_as_high_as_live_and_free_bytes() {
        for is_replay in [true, false] {
            let (header, lines) = recording(is_replay, false);
            let pixels = Pixels::of(&draw(&header, &lines).unwrap());
            let (early, late) = (300.0, 700.0);
            let of = |x, colour| height(&pixels, x, FIRST, colour) as f64;
            for colour in [LIVE, FREE] {
                assert!(of(early, colour) > 40.0, "{}", of(early, colour));
                let ratio = of(late, colour) / of(early, colour);
                assert!((1.9..2.1).contains(&ratio), "{ratio}");
            }
            // Live and free bytes are the same; the line of held bytes lies over both.
            let ratio = of(early, LIVE) / of(early, FREE);
            assert!((0.95..1.05).contains(&ratio), "{ratio}");
            assert!(of(early, HELD) >= 1.0);
        }
    }

    #[test]
    fn counters_go_from_the_beginning_of_the_recording() {
        let (header, lines) = recording(false, false);
        let text = draw(&header, &lines).unwrap();
        let pixels = Pixels::of(&text);
        let at = |x: f64| (FIRST..SIZE.1).find(|y| pixels.at(x, f64::from(*y)) == hex(MOVED));
        let (early, late) = (at(300.0).unwrap(), at(700.0).unwrap());
        assert!(late + 50 < early, "it rises from {early} to {late}");
        // The tebibyte that was moved before the recording is not in it.
        assert!(
            text.contains(">\n100.0\n<") || text.contains("100.0"),
            "{text}"
        );
        assert!(
            !text.contains("1048576") && !text.contains("1048"),
            "{text}"
        );
    }

    #[test]
    fn recorded_tracepoints_have_a_chart() {
        let (header, lines) = recording(false, true);
        let text = draw(&header, &lines).unwrap();
        assert!(
            text.contains("events a second") && text.contains("alloc"),
            "{text}"
        );
        let pixels = Pixels::of(&text);
        assert!(height(&pixels, 800.0, SIZE.1, EVENTS[0]) >= 1);
        let (header, lines) = recording(false, false);
        assert!(!draw(&header, &lines).unwrap().contains("events a second"));
    }

    #[test]
    fn a_picture_needs_nothing_beside_it_and_has_its_marks() {
        let (header, lines) = recording(true, false);
        let text = draw(&header, &lines).unwrap();
        assert!(
            text.contains("step 1 end") && text.contains("events of the trace"),
            "{text}"
        );
        assert!(text.contains("a &lt;test&gt;"), "{text}");
        assert_eq!(text.matches("http").count(), 1, "{text}");
        assert!(!text.contains("href") && !text.contains("url("), "{text}");
        let error = draw(&header, &lines[101..]).unwrap_err();
        assert!(error.to_string().contains("no sample"));
    }

    #[test]
    fn a_single_sample_is_a_picture_too() {
        let (header, lines) = recording(false, true);
        Pixels::of(&draw(&header, &lines[..1]).unwrap());
    }
}
