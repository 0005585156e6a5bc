//! Charts as SVG, and as PNG for where SVG is not shown.
//!
//! A chart is read without its colours, too: ours is a full line with filled marks, the
//! original's is dashed with hollow ones, everything else is dotted; the shape of the mark is
//! that of the mode. Every value is a median, with a bar from the least to the greatest.

use std::sync::Arc;

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::RGBColor;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use resvg::{tiny_skia, usvg};
use serde::{Deserialize, Serialize};

use super::text::short;
use crate::bench::Spread;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (900, 480);
const LEFT: i32 = 76;
const RIGHT: i32 = 24;
const BOTTOM: i32 = 52;
const TITLE: i32 = 34;
const LEGEND_LINE: i32 = 20;
/// Of a letter of 13 pixels, on average.
const LETTER: f64 = 7.2;
const INK: RGBColor = RGBColor(30, 34, 38);
/// Lines with a number, and those between them.
const PALE: RGBColor = RGBColor(200, 204, 209);
const PALER: RGBColor = RGBColor(238, 240, 242);
const OURS: RGBColor = RGBColor(11, 94, 168);
const THEIRS: RGBColor = RGBColor(200, 80, 20);
const OTHERS: RGBColor = RGBColor(84, 84, 84);
/// Of a bar's group, this part is empty.
const GROUP_GAP: f64 = 0.25;
/// Pixels of a PNG for one of the SVG.
const PNG_SCALE: f32 = 2.0;

/// What stands along an axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// What it is, with the unit.
    pub label: String,
    /// How values lie on it.
    pub scale: Scale,
}

/// How values lie on an axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scale {
    /// Evenly, from zero on.
    Linear,
    /// Each power of ten takes the same length.
    Log,
    /// Names; a value is the number of one.
    Names(Vec<String>),
}

impl Axis {
    /// From zero on.
    pub fn linear(label: &str) -> Axis {
        let scale = Scale::Linear;
        Axis {
            label: label.to_owned(),
            scale,
        }
    }

    /// From power of ten to power of ten.
    pub fn log(label: &str) -> Axis {
        let scale = Scale::Log;
        Axis {
            label: label.to_owned(),
            scale,
        }
    }

    /// With a group of bars for each name.
    pub fn names(label: &str, names: Vec<String>) -> Axis {
        let scale = Scale::Names(names);
        Axis {
            label: label.to_owned(),
            scale,
        }
    }
}

/// One place of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Along the x axis.
    pub x: f64,
    /// What was measured there.
    pub median: f64,
    /// The least of it.
    pub min: f64,
    /// The greatest of it.
    pub max: f64,
}

impl Point {
    /// A median with its range.
    pub fn new(x: f64, s: Spread) -> Point {
        Point {
            x,
            median: s.median,
            min: s.min,
            max: s.max,
        }
    }
}

/// The values of a daemon in a mode, or of something beside them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Begins with the name of the daemon.
    pub name: String,
    /// In the order of the x axis.
    pub points: Vec<Point>,
}

/// A line across the chart: a goal, or what the kernel alone takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// What it is.
    pub name: String,
    /// Where it is.
    pub value: f64,
}

/// One chart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// Of its file, without the ending.
    pub name: String,
    /// Above it.
    pub title: String,
    /// Below it: how it is read.
    pub reading: String,
    /// Across.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// Curves or bars.
    pub series: Vec<Series>,
    /// Lines across.
    pub limits: Vec<Limit>,
    /// Where the stems of marks begin, if not at the bottom.
    pub base: Option<f64>,
}

/// How a series is drawn.
#[derive(Clone, Copy)]
struct Look {
    color: RGBColor,
    /// Length of a dash and of a gap; `None`: a full line.
    dash: Option<(u32, u32)>,
    is_filled: bool,
    /// Number of the mark's shape.
    mark: usize,
}

impl Chart {
    /// The looks of its series, in their order.
    fn looks(&self) -> Vec<Look> {
        let mut seen = [0; 3];
        let each = self.series.iter().map(|series| {
            let who = match series.name.as_str() {
                name if name.starts_with("ftfw") => 0,
                name if name.starts_with("conntrackd") => 1,
                _ => 2,
            };
            seen[who] += 1;
            Look {
                color: [OURS, THEIRS, OTHERS][who],
                dash: [None, Some((9, 5)), Some((2, 4))][who],
                is_filled: who == 0,
                mark: seen[who] - 1,
            }
        });
        each.collect()
    }

    /// Names have bars; where there is no zero, they have a mark on a stem.
    fn has_bars(&self) -> bool {
        matches!(self.x.scale, Scale::Names(_)) && self.y.scale == Scale::Linear
    }

    /// The drawing.
    ///
    /// # Errors
    /// The drawing library refuses something.
    pub fn svg(&self) -> Result<String> {
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
            root.fill(&WHITE)?;
            let title = self.title.clone();
            root.draw(&Text::new(title, (12, 8), font(17, INK)))?;
            let looks = self.looks();
            let top = self.legend(&root, &looks)?;
            let plot = Plot::new(self, top);
            plot.frame(&root)?;
            for limit in &self.limits {
                plot.limit(&root, limit)?;
            }
            for (n, (series, look)) in self.series.iter().zip(&looks).enumerate() {
                match self.x.scale {
                    Scale::Names(_) => plot.bars(&root, n, &series.points, *look)?,
                    _ => plot.curve(&root, &series.points, *look)?,
                }
            }
            root.present()?;
        }
        Ok(text)
    }

    /// Draws the legend, as many entries in a row as fit, and yields where the plot may begin.
    fn legend(&self, root: &Area<'_>, looks: &[Look]) -> Result<i32> {
        let (mut x, mut y) = (14, TITLE + 8);
        for (series, look) in self.series.iter().zip(looks) {
            let wanted = 56 + (LETTER * series.name.chars().count() as f64) as i32;
            if x > 14 && x + wanted > pixels(SIZE.0) {
                (x, y) = (14, y + LEGEND_LINE);
            }
            if self.has_bars() {
                bar(root, (x + 8, y - 6), (x + 34, y + 7), *look)?;
            } else {
                line(root, vec![(x, y), (x + 40, y)], *look)?;
                mark(root, (x + 20, y), *look)?;
            }
            let style = font(13, INK).pos(Pos::new(HPos::Left, VPos::Center));
            root.draw(&Text::new(series.name.clone(), (x + 46, y), style))?;
            x += wanted;
        }
        Ok(y + 34)
    }
}

/// Where the values of a chart lie.
struct Plot<'a> {
    chart: &'a Chart,
    top: i32,
    x: Range,
    y: Range,
}

/// From the value at the one end of an axis to that at the other.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Range {
    /// What contains all values: from zero on, or from power of ten to power of ten.
    fn of(values: impl Iterator<Item = f64>, scale: &Scale) -> Range {
        let values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
        let high = values.iter().copied().fold(0.0, f64::max);
        let high = if high > 0.0 { high } else { 1.0 };
        match scale {
            Scale::Linear => Range {
                low: 0.0,
                high: high * 1.06,
                is_log: false,
            },
            Scale::Log => {
                let least = values.iter().copied().filter(|v| *v > 0.0);
                let low = round_down(least.fold(high, f64::min));
                let above = step(high);
                Range {
                    low,
                    high: if above > low { above } else { low * 10.0 },
                    is_log: true,
                }
            }
            Scale::Names(names) => Range {
                low: 0.0,
                high: names.len().max(1) as f64,
                is_log: false,
            },
        }
    }

    /// From 0, the lower end, to 1. What a logarithm does not have is at the lower end.
    fn part(self, value: f64) -> f64 {
        let part = if self.is_log {
            let value = value.max(self.low);
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        part.clamp(0.0, 1.0)
    }

    /// Values with a line, and whether it has a number.
    fn ticks(self) -> Vec<(f64, bool)> {
        if !self.is_log {
            let step = step(self.high / 6.0);
            let count = (self.high / step).floor() as usize;
            return (0..=count).map(|n| (n as f64 * step, true)).collect();
        }
        let decades = (self.high / self.low).log10();
        let mut base = 10f64.powf(self.low.log10().floor());
        let mut ticks = Vec::new();
        while base <= self.high {
            for n in 1..10 {
                let has_number = n == 1 || decades < 3.0 && (n == 2 || n == 5);
                ticks.push((base * f64::from(n), has_number));
            }
            base *= 10.0;
        }
        // What was rounded on the way is still inside.
        let is_inside = |v: f64| v > self.low * 0.999 && v < self.high * 1.001;
        ticks.retain(|(value, _)| is_inside(*value));
        ticks
    }
}

/// The round number above: 1, 2 or 5 with zeros.
fn step(value: f64) -> f64 {
    let mut rounds = rounds(value);
    rounds.find(|round| *round >= value).unwrap_or(value)
}

/// The round number below.
fn round_down(value: f64) -> f64 {
    let rounds = rounds(value);
    rounds.filter(|r| *r <= value).last().unwrap_or(value)
}

/// Round numbers from below to above.
fn rounds(value: f64) -> impl Iterator<Item = f64> {
    let base = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(move |n| n * base)
}

impl Plot<'_> {
    fn new(chart: &Chart, top: i32) -> Plot<'_> {
        let points = || chart.series.iter().flat_map(|s| &s.points);
        let limits = chart.limits.iter().map(|l| l.value);
        Plot {
            chart,
            top,
            x: Range::of(points().map(|p| p.x), &chart.x.scale),
            y: Range::of(
                points().flat_map(|p| [p.min, p.max]).chain(limits),
                &chart.y.scale,
            ),
        }
    }

    fn px(&self, part: f64) -> i32 {
        LEFT + (part * f64::from(pixels(SIZE.0) - LEFT - RIGHT)).round() as i32
    }

    fn py(&self, value: f64) -> i32 {
        let height = f64::from(pixels(SIZE.1) - BOTTOM - self.top);
        self.top + ((1.0 - self.y.part(value)) * height).round() as i32
    }

    /// Lines, numbers and labels of both axes.
    fn frame(&self, root: &Area<'_>) -> Result<()> {
        let (left, right) = (self.px(0.0), self.px(1.0));
        let (top, bottom) = (self.top, pixels(SIZE.1) - BOTTOM);
        for (value, has_number) in self.y.ticks() {
            let y = self.py(value);
            let color = if has_number { PALE } else { PALER };
            root.draw(&PathElement::new(vec![(left, y), (right, y)], color))?;
            if has_number {
                let style = font(12, INK).pos(Pos::new(HPos::Right, VPos::Center));
                root.draw(&Text::new(short(value), (left - 8, y), style))?;
            }
        }
        let below = font(12, INK).pos(Pos::new(HPos::Center, VPos::Top));
        if let Scale::Names(names) = &self.chart.x.scale {
            for (n, name) in names.iter().enumerate() {
                let x = self.px((n as f64 + 0.5) / names.len() as f64);
                let at = (x, bottom + 7);
                root.draw(&Text::new(name.clone(), at, below.clone()))?;
            }
        } else {
            for (value, has_number) in self.x.ticks() {
                let x = self.px(self.x.part(value));
                let color = if has_number { PALE } else { PALER };
                root.draw(&PathElement::new(vec![(x, top), (x, bottom)], color))?;
                if has_number {
                    let at = (x, bottom + 7);
                    root.draw(&Text::new(short(value), at, below.clone()))?;
                }
            }
        }
        let axes = vec![(left, top), (left, bottom), (right, bottom)];
        root.draw(&PathElement::new(axes, INK.stroke_width(1)))?;
        let middle = (self.px(0.5), bottom + 28);
        let label = self.chart.x.label.clone();
        root.draw(&Text::new(label, middle, font(13, INK).pos(below.pos)))?;
        let label = self.chart.y.label.clone();
        let above = Pos::new(HPos::Left, VPos::Bottom);
        root.draw(&Text::new(label, (12, top - 6), font(13, INK).pos(above)))?;
        Ok(())
    }

    fn curve(&self, root: &Area<'_>, points: &[Point], look: Look) -> Result<()> {
        let place = |p: &Point| (self.px(self.x.part(p.x)), self.py(p.median));
        line(root, points.iter().map(place).collect(), look)?;
        for point in points {
            let (x, y) = place(point);
            self.spread(root, x, point, look.color)?;
            mark(root, (x, y), look)?;
        }
        Ok(())
    }

    /// The bars of series number `n`.
    fn bars(&self, root: &Area<'_>, n: usize, points: &[Point], look: Look) -> Result<()> {
        let count = self.chart.series.len() as f64;
        for point in points {
            let width = (1.0 - GROUP_GAP) / count;
            let begin = point.x + GROUP_GAP / 2.0 + width * n as f64;
            let at = |x: f64| self.px(self.x.part(x));
            let (left, right) = (at(begin), at(begin + width) - 2);
            let (middle, top) = ((left + right) / 2, self.py(point.median));
            let bottom = pixels(SIZE.1) - BOTTOM;
            let base = self.chart.base.map_or(bottom, |base| self.py(base));
            if self.y.is_log {
                // The length of a bar would mean nothing: the axis has no zero.
                line(root, vec![(middle, base), (middle, top)], look)?;
                self.spread(root, middle, point, INK)?;
                mark(root, (middle, top), look)?;
            } else {
                bar(root, (left, top), (right, bottom), look)?;
                self.spread(root, middle, point, INK)?;
            }
            let lift = if self.y.is_log { 9 } else { 4 };
            let (y, vertical) = match top > base {
                true => (self.py(point.min) + lift, VPos::Top),
                false => (self.py(point.max) - lift, VPos::Bottom),
            };
            let style = font(11, INK).pos(Pos::new(HPos::Center, vertical));
            root.draw(&Text::new(short(point.median), (middle, y), style))?;
        }
        Ok(())
    }

    /// From the least to the greatest.
    fn spread(&self, root: &Area<'_>, x: i32, point: &Point, color: RGBColor) -> Result<()> {
        let (low, high) = (self.py(point.min), self.py(point.max));
        for ends in [
            vec![(x, low), (x, high)],
            vec![(x - 3, low), (x + 3, low)],
            vec![(x - 3, high), (x + 3, high)],
        ] {
            root.draw(&PathElement::new(ends, color.stroke_width(1)))?;
        }
        Ok(())
    }

    fn limit(&self, root: &Area<'_>, limit: &Limit) -> Result<()> {
        let y = self.py(limit.value);
        let (left, right) = (self.px(0.0), self.px(1.0));
        let ends = vec![(left, y), (right, y)];
        root.draw(&DashedPathElement::new(ends, 14, 5, INK.stroke_width(2)))?;
        let style = font(12, INK).pos(Pos::new(HPos::Right, VPos::Bottom));
        let text = format!("{}: {}", limit.name, short(limit.value));
        root.draw(&Text::new(text, (right - 4, y - 3), style))?;
        Ok(())
    }
}

fn line(root: &Area<'_>, points: Vec<(i32, i32)>, look: Look) -> Result<()> {
    let style = look.color.stroke_width(2);
    match look.dash {
        None => root.draw(&PathElement::new(points, style))?,
        Some((dash, gap)) => root.draw(&DashedPathElement::new(points, dash, gap, style))?,
    }
    Ok(())
}

/// Circle, square, triangle, diamond, and again.
fn mark(root: &Area<'_>, (x, y): (i32, i32), look: Look) -> Result<()> {
    const R: i32 = 5;
    let corners = match look.mark % 4 {
        0 => {
            root.draw(&Circle::new((x, y), R, WHITE.filled()))?;
            let style = match look.is_filled {
                true => look.color.filled(),
                false => look.color.stroke_width(2),
            };
            root.draw(&Circle::new((x, y), R, style))?;
            return Ok(());
        }
        1 => vec![(-R, -R), (R, -R), (R, R), (-R, R)],
        2 => vec![(0, -R - 1), (R + 1, R), (-R - 1, R)],
        _ => vec![(0, -R - 2), (R + 2, 0), (0, R + 2), (-R - 2, 0)],
    };
    let mut path: Vec<_> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
    let fill = if look.is_filled { look.color } else { WHITE };
    root.draw(&Polygon::new(path.clone(), fill.filled()))?;
    path.push(path[0]);
    root.draw(&PathElement::new(path, look.color.stroke_width(2)))?;
    Ok(())
}

/// A bar. Ours is full, then paler, then with upright lines on it; the original's has lines across,
/// farther apart in each mode; everything else is an outline.
fn bar(root: &Area<'_>, from: (i32, i32), to: (i32, i32), look: Look) -> Result<()> {
    let rule = |ends: [(i32, i32); 2]| {
        root.draw(&PathElement::new(ends.to_vec(), look.color.stroke_width(2)))
    };
    root.draw(&Rectangle::new([from, to], WHITE.filled()))?;
    if look.is_filled {
        let shade = [1.0, 0.5, 0.25, 0.0][look.mark.min(3)];
        root.draw(&Rectangle::new([from, to], look.color.mix(shade).filled()))?;
        if look.mark >= 2 {
            for x in (from.0..to.0).step_by(6) {
                rule([(x, from.1), (x, to.1)])?;
            }
        }
    } else if look.dash.is_some_and(|(dash, _)| dash > 2) {
        for y in (from.1..to.1).step_by(5 + 5 * look.mark) {
            rule([(from.0, y), (to.0, y)])?;
        }
    }
    root.draw(&Rectangle::new([from, to], look.color.stroke_width(1)))?;
    Ok(())
}

fn font(size: u32, color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&color)
}

/// Of a drawing that is a thousand pixels wide.
fn pixels(n: u32) -> i32 {
    n.cast_signed()
}

/// Draws SVG as PNG.
#[derive(Debug)]
pub struct Painter {
    options: usvg::Options<'static>,
}

impl Painter {
    /// With the fonts of the machine.
    ///
    /// # Errors
    /// If there is no DejaVu Sans: text would be left out without a word.
    pub fn new() -> Result<Painter> {
        const FAMILY: &str = "DejaVu Sans";
        let mut options = usvg::Options::default();
        let fonts = Arc::make_mut(&mut options.fontdb);
        fonts.load_system_fonts();
        fonts.set_sans_serif_family(FAMILY);
        let query = usvg::fontdb::Query {
            families: &[usvg::fontdb::Family::Name(FAMILY)],
            ..usvg::fontdb::Query::default()
        };
        let found = fonts.query(&query);
        found.context("no font DejaVu Sans: apt-get install fonts-dejavu-core")?;
        Ok(Painter { options })
    }

    /// A picture twice as large as the drawing.
    ///
    /// # Errors
    /// If it is no SVG.
    pub fn png(&self, svg: &str) -> Result<Vec<u8>> {
        Ok(self.paint(svg)?.encode_png()?)
    }

    fn paint(&self, svg: &str) -> Result<tiny_skia::Pixmap> {
        let tree = usvg::Tree::from_str(svg, &self.options)?;
        let size = tree.size().to_int_size().scale_by(PNG_SCALE);
        let size = size.context("an empty drawing")?;
        let pixmap = tiny_skia::Pixmap::new(size.width(), size.height());
        let mut pixmap = pixmap.context("an empty drawing")?;
        let scale = tiny_skia::Transform::from_scale(PNG_SCALE, PNG_SCALE);
        resvg::render(&tree, scale, &mut pixmap.as_mut());
        Ok(pixmap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(x: Scale, y: Scale) -> Chart {
        let point = |x: f64, median: f64| Point {
            x,
            median,
            min: median * 0.5,
            max: median * 2.0,
        };
        let series = |name: &str, factor: f64| Series {
            name: name.to_owned(),
            points: [1.0, 10.0, 100.0].map(|x| point(x, x * factor)).to_vec(),
        };
        let axis = |label: &str, scale| Axis {
            label: label.to_owned(),
            scale,
        };
        Chart {
            name: "made-up".into(),
            title: "Made up".into(),
            reading: "Lower is better.".into(),
            x: axis("flows", x),
            y: axis("ms", y),
            series: vec![
                series("conntrackd FTFW", 3.0),
                series("ftfw FTFW", 1.0),
                series("none", 0.1),
            ],
            limits: vec![Limit {
                name: "goal".into(),
                value: 50.0,
            }],
            base: None,
        }
    }

    /// Goal: titles, axes with units, a legend for each series, and the limit are on every kind of
    /// chart.
    #[test]
    fn all_words_are_on_it() {
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        for x in [Scale::Log, Scale::Linear, Scale::Names(names)] {
            let svg = chart(x, Scale::Log).svg().unwrap();
            for word in [
                "Made up",
                "flows",
                "ms",
                "conntrackd FTFW",
                "none",
                "goal: 50",
            ] {
                assert!(svg.contains(word), "{word} in {svg}");
            }
        }
    }

    /// Goal: the daemons differ without colours, and so do the modes of one.
    #[test]
    fn no_two_look_the_same_in_black_and_white() {
        let mut chart = chart(Scale::Log, Scale::Log);
        for name in ["conntrackd ALARM", "ftfw ALARM", "kernel"] {
            let points = chart.series[0].points.clone();
            let name = name.to_owned();
            chart.series.push(Series { name, points });
        }
        let mut looks: Vec<_> = (chart.looks().iter())
            .map(|look| (look.dash, look.is_filled, look.mark))
            .collect();
        looks.sort_unstable();
        looks.dedup();
        assert_eq!(looks.len(), chart.series.len());
    }

    /// Goal: the picture has its text. Without the font it would have none, and no error.
    /// Method: dark pixels where the title is, and none where it is not.
    #[test]
    fn glyphs_are_drawn() {
        let painter = Painter::new().unwrap();
        let dark = |chart: &Chart| {
            let pixmap = painter.paint(&chart.svg().unwrap()).unwrap();
            let band = (TITLE as f32 * PNG_SCALE) as usize * pixmap.width() as usize;
            let title = &pixmap.pixels()[..band];
            title.iter().filter(|p| p.red() < 128).count()
        };
        let mut chart = chart(Scale::Log, Scale::Log);
        assert!(dark(&chart) > 200, "{} dark pixels", dark(&chart));
        chart.title.clear();
        assert_eq!(dark(&chart), 0);
    }

    /// Goal: each value is inside the axis, in order, and a decade is as long as the other.
    #[test]
    fn values_lie_where_they_should() {
        let range = Range::of([1.0, 9000.0].into_iter(), &Scale::Log);
        assert_eq!((range.low, range.high), (1.0, 10_000.0));
        assert!((range.part(10.0) - 0.25).abs() < 1e-9);
        assert!((range.part(100.0) - 0.5).abs() < 1e-9);
        let narrow = Range::of([60.0, 118.0].into_iter(), &Scale::Log);
        assert_eq!((narrow.low, narrow.high), (50.0, 200.0));
        let ticks: Vec<f64> = narrow.ticks().iter().map(|t| t.0).collect();
        assert_eq!(ticks, [50.0, 60.0, 70.0, 80.0, 90.0, 100.0, 200.0]);
        assert_eq!(range.part(0.0), 0.0, "no logarithm");
        let range = Range::of([0.0, 50.0].into_iter(), &Scale::Linear);
        assert!(range.high > 50.0);
        let ticks: Vec<f64> = range.ticks().iter().map(|t| t.0).collect();
        assert_eq!(ticks, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        // One value, or none, is no empty axis.
        for values in [vec![10.0], vec![]] {
            let range = Range::of(values.into_iter(), &Scale::Log);
            assert!(range.high > range.low);
        }
    }
}
