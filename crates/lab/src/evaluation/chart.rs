//! Draws a chart as SVG, to be read in black and white, too: lines differ by mark and dash, and
//! the spread is a bar.

use anyhow::{Result, ensure};
use plotters::chart::SeriesLabelPosition;
use plotters::prelude::*;

use super::{Chart, Point};

const SIZE: (u32, u32) = (760, 420);
const INK: RGBColor = RGBColor(36, 41, 46);
const PALE: RGBColor = RGBColor(222, 225, 229);
/// Dark enough for paper.
const COLORS: [RGBColor; 4] = [
    RGBColor(120, 120, 120),
    RGBColor(160, 110, 40),
    RGBColor(20, 80, 160),
    RGBColor(0, 0, 0),
];
/// Of the axes, beyond the greatest value.
const AIR: f64 = 1.08;

fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// The `n`th mark, in the coordinates of a chart or in pixels: each has a type of its own.
macro_rules! mark {
    ($n:expr, $at:expr, $color:expr) => {
        match $n % 4 {
            0 => Circle::new($at, 4, $color.stroke_width(2)).into_dyn(),
            1 => Cross::new($at, 4, $color.stroke_width(2)).into_dyn(),
            2 => Circle::new($at, 4, $color.filled()).into_dyn(),
            _ => TriangleMarker::new($at, 6, $color.filled()).into_dyn(),
        }
    };
}

/// The chart as a picture.
///
/// # Errors
/// It has no point, or the drawing library refuses something.
pub(super) fn svg(chart: &Chart) -> Result<String> {
    let points = || chart.series.iter().flat_map(|s| &s.points);
    ensure!(points().next().is_some(), "{}: nothing counts", chart.title);
    let right = points().map(|p| p.x).fold(0.0, f64::max) * AIR;
    let top = points().map(|p| p.y.max).fold(0.0, f64::max) * AIR;
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut area = ChartBuilder::on(&root)
            .caption(&chart.title, font(18))
            .margin(8)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        area.configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(PALE)
            .axis_style(INK)
            .x_desc(&chart.x)
            .y_desc(&chart.y)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .label_style(font(12))
            .axis_desc_style(font(13))
            .draw()?;
        for (n, series) in chart.series.iter().enumerate() {
            let color = COLORS[n % COLORS.len()];
            let at = series.points.iter().map(|p| (p.x, p.y.median));
            let style = color.stroke_width(2);
            let drawn = if series.original {
                area.draw_series(DashedLineSeries::new(at, 7, 5, style))?
            } else {
                area.draw_series(LineSeries::new(at, style))?
            };
            drawn
                .label(&series.name)
                .legend(move |(x, y)| mark!(n, (x + 10, y), color));
            area.draw_series(series.points.iter().map(|p| spread(p, color)))?;
            let marks = series.points.iter().map(|p| (p.x, p.y.median));
            area.draw_series(marks.map(|at| mark!(n, at, color)))?;
        }
        area.configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(PALE)
            .label_font(font(13))
            .draw()?;
        root.present()?;
    }
    Ok(text)
}

/// From the least to the greatest.
fn spread(p: &Point, color: RGBColor) -> PathElement<(f64, f64)> {
    PathElement::new([(p.x, p.y.min), (p.x, p.y.max)], color.stroke_width(1))
}
