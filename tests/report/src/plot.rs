// SPDX-License-Identifier: GPL-2.0

//! Tables as pictures (SVG).

use std::path::Path;

use anyhow::{anyhow, Result};
use indexmap::IndexSet;
use plotters::prelude::*;
use serde::Deserialize;

use crate::bench::Cells;

/// The kind of a plot. Both have a logarithmic axis, as values differ by hundreds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A line for each column, from row to row.
    Lines,
    /// A group of bars for each row.
    Bars,
}

/// The size of the picture, and of the chart in it.
const SIZE: (u32, u32) = (920, 480);
const CHART: u32 = 740;
/// The part of a row's width that its bars have.
const BARS: f64 = 0.85;
/// Colours that are distinct for colour-blind readers too (Okabe and Ito, 2008).
pub const OTHERS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(240, 200, 40),
    RGBColor(120, 120, 120),
    RGBColor(130, 90, 40),
];

/// Returns the style of each column: freelist's stands out; another setting of the same (NAME_keeping) is paler.
fn styles<'a>(columns: &IndexSet<&'a str>) -> Vec<ShapeStyle> {
    let mut others = IndexSet::new();
    let style = |column: &&'a str| {
        if let Some(way) = column.strip_prefix("freelist") {
            let colour = match way {
                "" => RGBColor(200, 30, 30),
                _ => RGBColor(240, 120, 30),
            };
            return ShapeStyle::from(colour).filled().stroke_width(4);
        }
        let (name, is_set) = match column.strip_suffix("_keeping") {
            Some(name) => (name, true),
            None => (*column, false),
        };
        let colour = OTHERS[others.insert_full(name).0 % OTHERS.len()];
        ShapeStyle::from(colour.mix(if is_set { 0.45 } else { 1.0 }))
            .filled()
            .stroke_width(2)
    };
    columns.iter().map(style).collect()
}

/// Returns a name with blanks for its underscores.
fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// Draws a table into a file.
pub fn draw(cells: &Cells, kind: Kind, path: &Path) -> Result<()> {
    // Its errors cannot be sent to another thread.
    draw_with(cells, kind, path).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw_with(
    cells: &Cells,
    kind: Kind,
    path: &Path,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (rows, columns) = (cells.rows(), cells.columns());
    let points = |column: &str| -> Vec<(f64, f64)> {
        let values = rows.iter().enumerate();
        let points = values.filter_map(|(x, row)| Some((x as f64, cells.value(row, column)?)));
        // A logarithmic axis has no 0.
        points.filter(|(_, value)| *value > 0.0).collect()
    };
    let all: Vec<f64> = columns
        .iter()
        .flat_map(|column| points(column))
        .map(|(_, value)| value)
        .collect();
    let least = all.iter().copied().fold(f64::MAX, f64::min) / 2.0;
    let max = all.iter().copied().fold(0.0, f64::max) * 1.5;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(CHART);
    let mut chart = ChartBuilder::on(&left)
        .caption(&cells.what, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(-0.5..rows.len() as f64 - 0.5, (least..max).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(BLACK.mix(0.05))
        .x_labels(rows.len() * 2 + 1)
        .x_label_formatter(&|at| {
            let is_row = at.fract() == 0.0 && *at >= 0.0;
            let row = rows.get_index(*at as usize).filter(|_| is_row);
            row.map_or_else(String::new, |row| words(row))
        })
        .y_label_formatter(&|value| format!("{value}"))
        .y_desc(format!("{}, fewer is better", words(&cells.unit)))
        .draw()?;
    let styles = styles(&columns);
    for (at, (column, style)) in columns.iter().zip(styles).enumerate() {
        let points = points(column);
        match kind {
            Kind::Lines => chart.draw_series(LineSeries::new(points, style).point_size(4))?,
            Kind::Bars => chart.draw_series(points.into_iter().map(|(x, value)| {
                let width = BARS / columns.len() as f64;
                let left = x - BARS / 2.0 + at as f64 * width;
                Rectangle::new([(left, least), (left + width * 0.9, value)], style)
            }))?,
        };
        let y = 50 + 20 * at as i32;
        right.draw(&Rectangle::new([(0, y), (14, y + 10)], style))?;
        right.draw(&Text::new(words(column), (20, y), ("sans-serif", 13)))?;
    }
    area.present()?;
    Ok(())
}
