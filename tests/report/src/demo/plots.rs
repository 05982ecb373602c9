// SPDX-License-Identifier: GPL-2.0

//! The plots: memory over time, and the peak against processor time.

use std::ops::Range;
use std::path::Path;

use anyhow::{anyhow, Result};
use freelist_demo::allocator::FREELIST;
use freelist_demo::record::{Run, Sample};
use freelist_demo::workload;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::{mib, time, Demo};
use crate::plot::OTHERS;

/// The size of a panel in pixels: each workload has one, two side by side.
const PANEL: (u32, u32) = (620, 400);
/// The height of the row with the allocators' names.
const LEGEND: u32 = 60;
/// The part of the range of values by which an axis extends beyond them.
const MARGIN: f64 = 0.08;

type Drawn<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws `memory.svg` and `peak.svg` in `dir`.
pub fn draw(demo: &Demo, dir: &Path) -> Result<()> {
    for (name, is_over_time) in [("memory.svg", true), ("peak.svg", false)] {
        let path = dir.join(name);
        // Its errors cannot be sent to another thread.
        plot(demo, &path, is_over_time).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn plot(demo: &Demo, path: &Path, is_over_time: bool) -> Drawn {
    let workloads = plotted(demo);
    let columns = workloads.len().clamp(1, 2);
    let rows = workloads.len().div_ceil(2).max(1);
    let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32 + LEGEND);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    let (legend, panels) = area.split_vertically(LEGEND);
    let mut names = names(demo);
    if is_over_time && names.contains(&FREELIST) {
        names.push(IN_USE);
    }
    draw_legend(&legend, &names)?;
    for (workload, area) in workloads.iter().zip(panels.split_evenly((rows, columns))) {
        match is_over_time {
            true => memory(demo, workload, &area)?,
            false => peak(demo, workload, &area)?,
        }
    }
    area.present()?;
    Ok(())
}

fn plotted(demo: &Demo) -> Vec<&'static str> {
    let is_plotted = |name: &&str| workload::named(name).is_some_and(|known| known.is_plotted);
    demo.workloads().into_iter().filter(is_plotted).collect()
}

/// Returns all allocators of all workloads that are plotted.
fn names(demo: &Demo) -> Vec<&'static str> {
    let mut names = Vec::new();
    for workload in plotted(demo) {
        for name in demo.allocators(workload) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// The colours of allocators, by the first part of their names, as indices of `OTHERS`.
const COLOURS: [(&str, usize); 4] = [
    ("glibc", 0),
    ("jemalloc", 1),
    ("mimalloc", 2),
    ("tcmalloc", 6),
];

/// The name for freelist's memory without that of free blocks, which others could have at any time.
const IN_USE: &str = "freelist-less-free";

/// Returns the style of an allocator: freelist's stands out; NAME-SETTING is paler than NAME.
fn style(name: &str) -> ShapeStyle {
    let (base, setting) = name.split_once('-').unwrap_or((name, ""));
    let known = COLOURS.iter().find(|(known, _)| *known == base);
    let (colour, width) = match base {
        FREELIST => (RGBColor(200, 30, 30), 3),
        _ => (OTHERS[known.map_or(5, |(_, at)| *at)], 2),
    };
    let opacity = if setting.is_empty() { 1.0 } else { 0.45 };
    ShapeStyle::from(colour.mix(opacity))
        .filled()
        .stroke_width(width)
}

fn draw_legend(area: &Area, names: &[&str]) -> Drawn {
    let width = area.dim_in_pixel().0 as i32;
    let mut at = (20, 12);
    for name in names {
        let needed = 30 + 8 * name.len() as i32;
        if at.0 + needed > width {
            at = (20, at.1 + 22);
        }
        area.draw(&Rectangle::new([at, (at.0 + 14, at.1 + 10)], style(name)))?;
        area.draw(&Text::new(
            (*name).to_owned(),
            (at.0 + 20, at.1 - 1),
            ("sans-serif", 14),
        ))?;
        at.0 += needed + 12;
    }
    Ok(())
}

fn caption(name: &str) -> &str {
    workload::named(name).map_or(name, |workload| workload.what)
}

/// Returns the range of some values, extended a little.
fn range(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let least = values.clone().fold(f64::MAX, f64::min);
    let max = values.fold(0.0, f64::max);
    let margin = (max - least).max(max * 0.01) * MARGIN;
    (least - margin).max(0.0)..max + margin
}

/// Draws the memory of each allocator over time, in the first round.
fn memory(demo: &Demo, workload: &str, area: &Area) -> Drawn {
    let runs: Vec<&Run> = demo.runs(workload).filter(|run| run.round == 0).collect();
    let samples = || runs.iter().flat_map(|run| &run.samples);
    let max = samples()
        .map(|sample| mib(sample.current))
        .fold(0.0, f64::max);
    let end = samples()
        .map(|sample| time(sample.at_us))
        .fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(caption(workload), ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..end, 0.0..max * (1.0 + MARGIN))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_desc(format!("time, {}", demo.time_unit()))
        .y_desc("held, MiB")
        .draw()?;
    for run in runs {
        let points = thinned(run, end, |sample| sample.current);
        chart.draw_series(LineSeries::new(points, style(&run.allocator)))?;
        if run.allocator == FREELIST {
            let points = thinned(run, end, |sample| sample.current - sample.free);
            chart.draw_series(LineSeries::new(points, style(IN_USE)))?;
        }
    }
    Ok(())
}

/// The most points of a line: about one for two pixels.
const POINTS: f64 = 280.0;

/// Returns a run's samples as points; of those too near to be distinguished the highest. Leaves out the last,
/// which is the end of the process.
fn thinned(run: &Run, end: f64, bytes: impl Fn(&Sample) -> u64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    let place = |at: f64| (at / end * POINTS) as u64;
    let shown = run.samples.split_last().map_or(&[][..], |(_, shown)| shown);
    for sample in shown {
        let (at, held) = (time(sample.at_us), mib(bytes(sample)));
        match points.last_mut() {
            Some(last) if place(last.0) == place(at) => last.1 = last.1.max(held),
            _ => points.push((at, held)),
        }
    }
    points
}

/// Draws a dot for each allocator: nearer to the lower left corner is better.
fn peak(demo: &Demo, workload: &str, area: &Area) -> Drawn {
    let allocators = demo.allocators(workload);
    let dot = |name: &&'static str| {
        let peak = demo.median(workload, name, |run| Some(mib(run.peak)))?;
        let used = demo.median(workload, name, |run| Some(time(run.total.time_us)))?;
        Some((*name, used, peak))
    };
    let dots: Vec<_> = allocators.iter().filter_map(dot).collect();
    let mut chart = ChartBuilder::on(area)
        .caption(caption(workload), ("sans-serif", 16))
        .margin(12)
        .margin_right(90)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(
            range(dots.iter().map(|dot| dot.1)),
            range(dots.iter().map(|dot| dot.2)),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_desc(format!("processor time, {}", demo.time_unit()))
        .y_desc("peak, MiB")
        .draw()?;
    let mut labels: Vec<(i32, i32)> = Vec::new();
    for (name, used, peak) in &dots {
        let at = chart.backend_coord(&(*used, *peak));
        let mut label = (at.0 + 8, at.1 - 6);
        while labels.iter().any(|other| overlap(*other, label)) {
            label.1 += LINE;
        }
        labels.push(label);
        let shift = (label.0 - at.0, label.1 - at.1);
        chart.draw_series([EmptyElement::at((*used, *peak))
            + Circle::new((0, 0), 5, style(name))
            + Text::new((*name).to_owned(), shift, ("sans-serif", 12))])?;
    }
    Ok(())
}

/// The pixels between two lines of labels, and the width of the widest label.
const LINE: i32 = 12;
const WIDEST: i32 = 90;

fn overlap(one: (i32, i32), other: (i32, i32)) -> bool {
    (one.0 - other.0).abs() < WIDEST && (one.1 - other.1).abs() < LINE
}
