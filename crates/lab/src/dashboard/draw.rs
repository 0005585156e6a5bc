//! Draws what the panels of a dashboard show, in Grafana's places.

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::RGBColor;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::board::{Board, Kind, Panel};
use super::{Line, Shown};

/// A part of the drawing.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Pixels of a cell of the grid of 24 columns, across and down.
const CELL: (u32, u32) = (50, 28);
const COLUMNS: u32 = 24;
const GAP: u32 = 6;
const TITLE: u32 = 22;
const LEGEND_LINE: u32 = 14;
const LEGEND_GAP: u32 = 5;
/// Of a letter of the legend, on average.
const LETTER: f64 = 5.6;
const INK: RGBColor = RGBColor(36, 41, 46);
const PALE: RGBColor = RGBColor(222, 225, 229);
const CURVES: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(226, 120, 17),
    RGBColor(44, 145, 60),
    RGBColor(196, 40, 46),
    RGBColor(129, 88, 176),
    RGBColor(122, 82, 70),
    RGBColor(205, 96, 170),
    RGBColor(110, 110, 110),
];

/// The dashboard as one picture.
///
/// # Errors
/// The drawing library refuses something.
pub fn svg(board: &Board, shown: &[Shown]) -> Result<String> {
    let mut text = String::new();
    let lines = shown.iter().map(|s| s.panel.place[1] + s.panel.place[3]);
    let size = (COLUMNS * CELL.0, lines.max().unwrap_or(0) * CELL.1 + GAP);
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&RGBColor(244, 245, 245))?;
        for (title, line) in &board.rows {
            let at = (10, pixels(line * CELL.1) + 9);
            root.draw(&Text::new(title.clone(), at, font(16, INK)))?;
        }
        for one in shown {
            let [x, y, w, h] = one.panel.place;
            let at = (pixels(x * CELL.0 + GAP / 2), pixels(y * CELL.1 + GAP / 2));
            let size = (w * CELL.0 - GAP, h * CELL.1 - GAP);
            panel(&root.clone().shrink(at, size), one)?;
        }
        root.present()?;
    }
    Ok(text)
}

fn panel(area: &Area<'_>, shown: &Shown) -> Result<()> {
    let (width, height) = area.dim_in_pixel();
    area.fill(&WHITE)?;
    let corners = [(0, 0), (pixels(width) - 1, pixels(height) - 1)];
    area.draw(&Rectangle::new(corners, PALE))?;
    area.draw(&Text::new(shown.panel.title.clone(), (8, 6), font(13, INK)))?;
    let inner = area.margin(TITLE, 6, 6, 6);
    match shown.panel.kind {
        Kind::Stat => stat(&inner, shown),
        Kind::TimeSeries => time_series(&inner, shown),
        Kind::StateTimeline => state_timeline(&inner, shown),
    }
}

/// A field for each series, with its last value.
fn stat(area: &Area<'_>, shown: &Shown) -> Result<()> {
    let fields = area.split_evenly((shown.series.len().max(1), 1));
    for (field, line) in fields.iter().zip(&shown.series) {
        let Some((_, value)) = line.points.last() else {
            continue;
        };
        let (text, color) = named(&shown.panel, *value);
        let field = field.margin(1, 1, 0, 0);
        field.fill(&color)?;
        let (width, height) = field.dim_in_pixel();
        let middle = Pos::new(HPos::Center, VPos::Center);
        let at = (pixels(width / 2), pixels(height / 2));
        let text = format!("{}  {text}", line.legend);
        field.draw(&Text::new(text, at, font(16, WHITE).pos(middle)))?;
    }
    Ok(())
}

/// The text and the colour of a value.
fn named(panel: &Panel, value: f64) -> (String, RGBColor) {
    if let Some((text, name)) = panel.mappings.get(&value.to_string()) {
        return (text.trim().to_owned(), color(name));
    }
    let reached = panel
        .thresholds
        .iter()
        .rev()
        .find(|(from, _)| value >= *from);
    let name = reached.map_or("green", |(_, name)| name.as_str());
    (with_unit(value, &panel.unit), color(name))
}

fn color(name: &str) -> RGBColor {
    match name {
        "green" => RGBColor(55, 135, 45),
        "red" => RGBColor(196, 22, 42),
        "orange" => RGBColor(224, 112, 0),
        "blue" => RGBColor(31, 96, 196),
        _ => RGBColor(140, 146, 152),
    }
}

fn time_series(area: &Area<'_>, shown: &Shown) -> Result<()> {
    let rows = legend_rows(&shown.series, area.dim_in_pixel().0);
    let legend_height = LEGEND_GAP + LEGEND_LINE * u32::try_from(rows.len())?;
    let (chart, below) = area.split_vertically(area.dim_in_pixel().1 - legend_height);
    legend(&below, &rows)?;

    let word = shown.panel.on_the_right.as_deref();
    let is_right = |line: &Line| word.is_some_and(|word| line.legend.ends_with(word));
    let [left, right] = [false, true].map(|side| {
        let of_side = shown.series.iter().filter(|line| is_right(line) == side);
        bounds(of_side.flat_map(|line| &line.points))
    });
    let unit = shown.panel.unit.as_str();
    let seconds = 0.0..last_second(shown);
    let mut chart = ChartBuilder::on(&chart)
        .margin_top(6)
        .margin_right(if word.is_some() { 0 } else { 10 })
        .x_label_area_size(18)
        .y_label_area_size(54)
        .right_y_label_area_size(if word.is_some() { 54 } else { 0 })
        .build_cartesian_2d(seconds.clone(), left.0..left.1)?
        .set_secondary_coord(seconds, right.0..right.1);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(PALE)
        .axis_style(PALE)
        .x_labels(5)
        .y_labels(6)
        .x_label_formatter(&|t| clock(*t))
        .y_label_formatter(&|v| with_unit(*v, unit))
        .label_style(font(11, INK))
        .draw()?;
    if word.is_some() {
        chart
            .configure_secondary_axes()
            .axis_style(PALE)
            .y_labels(6)
            .y_label_formatter(&|v| with_unit(*v, unit))
            .label_style(font(11, INK))
            .draw()?;
    }
    for (n, line) in shown.series.iter().enumerate() {
        let style = CURVES[n % CURVES.len()].stroke_width(1);
        let points = line.points.iter().copied();
        match is_right(line) {
            true => chart.draw_secondary_series(DashedLineSeries::new(points, 6, 4, style))?,
            false => chart.draw_series(LineSeries::new(points, style))?,
        };
    }
    Ok(())
}

/// The lowest and the highest value of an axis, with zero on it.
fn bounds<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> (f64, f64) {
    let (low, high) = points.fold((0.0_f64, 0.0_f64), |(low, high), (_, value)| {
        (low.min(*value), high.max(*value))
    });
    match high - low {
        0.0 => (0.0, 1.0),
        span if low < 0.0 => (low - span / 20.0, high + span / 20.0),
        span => (0.0, high + span / 20.0),
    }
}

fn last_second(shown: &Shown) -> f64 {
    let times = shown.series.iter().flat_map(|line| &line.points);
    times.fold(1.0, |last, (time, _)| last.max(*time))
}

/// The legends with their curves' numbers, as many in a row as fit.
fn legend_rows(series: &[Line], width: u32) -> Vec<Vec<(usize, i32, String)>> {
    let mut rows = vec![Vec::new()];
    let mut at = 0.0;
    for (n, line) in series.iter().enumerate() {
        let wanted = 22.0 + LETTER * line.legend.chars().count() as f64;
        if at + wanted > f64::from(width) && at > 0.0 {
            rows.push(Vec::new());
            at = 0.0;
        }
        if let Some(row) = rows.last_mut() {
            row.push((n, at as i32, line.legend.clone()));
        }
        at += wanted;
    }
    rows
}

fn legend(area: &Area<'_>, rows: &[Vec<(usize, i32, String)>]) -> Result<()> {
    let lines = (pixels(LEGEND_GAP)..).step_by(LEGEND_LINE as usize);
    for (row, y) in rows.iter().zip(lines) {
        for (n, x, text) in row {
            let color = CURVES[n % CURVES.len()];
            let mark = [(*x, y + 6), (x + 10, y + 9)];
            area.draw(&Rectangle::new(mark, color.filled()))?;
            area.draw(&Text::new(text.clone(), (x + 14, y + 1), font(11, INK)))?;
        }
    }
    Ok(())
}

/// A bar for each series; where its value changes, so does the colour.
fn state_timeline(area: &Area<'_>, shown: &Shown) -> Result<()> {
    let end = last_second(shown);
    let (bars, axis) = area.split_vertically(area.dim_in_pixel().1 - 18);
    let (names, bars) = bars.split_horizontally(70);
    let count = shown.series.len().max(1);
    let places = names.split_evenly((count, 1));
    for ((name, bar), line) in (places.iter())
        .zip(bars.split_evenly((count, 1)))
        .zip(&shown.series)
    {
        let (width, height) = bar.dim_in_pixel();
        let center = Pos::new(HPos::Left, VPos::Center);
        let at = (2, pixels(height / 2));
        name.draw(&Text::new(
            line.legend.clone(),
            at,
            font(11, INK).pos(center),
        ))?;
        let x = |time: f64| (time / end * f64::from(width)) as i32;
        for same in line.points.chunk_by(|a, b| a.1 == b.1) {
            let (Some(first), Some(last)) = (same.first(), same.last()) else {
                continue;
            };
            let (text, color) = named(&shown.panel, first.1);
            let corners = [(x(first.0), 5), (x(last.0), pixels(height) - 5)];
            bar.draw(&Rectangle::new(corners, color.filled()))?;
            let at = (x(first.0) + 6, pixels(height / 2));
            bar.draw(&Text::new(text, at, font(11, WHITE).pos(center)))?;
        }
    }
    let (width, _) = axis.dim_in_pixel();
    for n in 0..4 {
        let part = f64::from(n) / 4.0;
        let at = (70 + (part * f64::from(width - 70)) as i32, 5);
        axis.draw(&Text::new(clock(part * end), at, font(11, INK)))?;
    }
    Ok(())
}

fn font(size: u32, color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&color)
}

/// Of a drawing that is a few thousand pixels wide.
fn pixels(n: u32) -> i32 {
    n.cast_signed()
}

/// Minutes and seconds.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u32;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// A value with one of Grafana's units.
fn with_unit(value: f64, unit: &str) -> String {
    let (value, unit) = match unit {
        "percentunit" => (value * 100.0, " %"),
        "ops" => (value, "/s"),
        "Bps" => (value, "B/s"),
        "s" => (value, " s"),
        _ => (value, ""),
    };
    let (value, prefix) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, " M"),
        v if v >= 1e4 => (value / 1e3, " k"),
        _ => (value, if unit == "B/s" { " " } else { "" }),
    };
    let digits = match value.abs() {
        v if v.fract() == 0.0 => 0,
        _ if unit == " %" => 1,
        v if v >= 10.0 => 0,
        v if v >= 0.1 => 1,
        _ => 3,
    };
    format!("{value:.digits$}{prefix}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_few_digits() {
        for (value, unit, wanted) in [
            (1_048_576.0, "short", "1.0 M"),
            (12_345.0, "Bps", "12 kB/s"),
            (-640.0, "Bps", "-640 B/s"),
            (0.998, "percentunit", "99.8 %"),
            (1.0, "percentunit", "100 %"),
            (0.25, "s", "0.2 s"),
            (0.004, "s", "0.004 s"),
            (40.0, "ops", "40/s"),
        ] {
            assert_eq!(with_unit(value, unit), wanted);
        }
    }
}
