// SPDX-License-Identifier: GPL-2.0

//! Tables as pictures (SVG).

use std::path::Path;

use anyhow::{anyhow, Result};
use plotters::prelude::*;
use serde::Deserialize;

use crate::bench::Cells;

/// What a plot looks like. Both have a logarithmic axis: what is compared differs by hundreds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A line a column, from row to row.
    Lines,
    /// A group of bars a row.
    Bars,
}

const SIZE: (u32, u32) = (900, 480);
/// How much of the width of a row its bars have.
const BARS: f64 = 0.85;

/// Ours stand out; the others are told apart.
fn style(column: &str, at: usize) -> ShapeStyle {
    if column.starts_with("freelist") {
        let colour = if column == "freelist" {
            RGBColor(200, 30, 30)
        } else {
            RGBColor(240, 120, 30)
        };
        ShapeStyle::from(colour).filled().stroke_width(4)
    } else {
        ShapeStyle::from(Palette99::pick(at + 2).mix(0.9))
            .filled()
            .stroke_width(2)
    }
}

/// Draws a table into a file.
pub fn draw(cells: &Cells, kind: Kind, path: &Path) -> Result<()> {
    // Its errors hold what cannot be sent to another thread.
    draw_with(cells, kind, path).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw_with(
    cells: &Cells,
    kind: Kind,
    path: &Path,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (rows, columns) = (cells.rows(), cells.columns());
    let values = || {
        let keys = rows
            .iter()
            .flat_map(|row| columns.iter().map(move |column| (row, column)));
        keys.filter_map(|(row, column)| cells.value(row, column))
            .filter(|value| *value > 0.0)
    };
    let (least, most) = (
        values().fold(f64::MAX, f64::min),
        values().fold(0.0, f64::max),
    );
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let axis = (least / 2.0..most * 1.5).log_scale();
    let mut chart = ChartBuilder::on(&area)
        .caption(
            format!("{} ({})", cells.what, cells.unit),
            ("sans-serif", 20),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .right_y_label_area_size(160)
        .build_cartesian_2d(-0.5..rows.len() as f64 - 0.5, axis)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(BLACK.mix(0.05))
        .x_labels(rows.len() * 2 + 1)
        .x_label_formatter(&|at| {
            let row = rows
                .get_index(at.round() as usize)
                .filter(|_| at.fract() == 0.0 && *at >= 0.0);
            row.map_or_else(String::new, |row| row.replace('_', " "))
        })
        .y_label_formatter(&|value| format!("{value}"))
        .y_desc(format!("{}, fewer is better", cells.unit))
        .draw()?;
    for (at, column) in columns.iter().enumerate() {
        let style = style(column, at);
        let points = rows.iter().enumerate().filter_map(|(x, row)| {
            let value = cells.value(row, column).filter(|value| *value > 0.0);
            value.map(|value| (x as f64, value))
        });
        let series = match kind {
            Kind::Lines => chart.draw_series(LineSeries::new(points, style).point_size(4))?,
            Kind::Bars => chart.draw_series(points.map(|(x, value)| {
                let width = BARS / columns.len() as f64;
                let left = x - BARS / 2.0 + at as f64 * width;
                Rectangle::new([(left, least / 2.0), (left + width * 0.9, value)], style)
            }))?,
        };
        series
            .label(column.replace('_', " "))
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 14, y + 4)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::Coordinate(SIZE.0 as i32 - 250, 0))
        .border_style(BLACK.mix(0.2))
        .background_style(WHITE)
        .draw()?;
    area.present()?;
    Ok(())
}
