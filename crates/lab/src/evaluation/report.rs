//! What an evaluation has found, and its files: HTML with everything in it, JSON, Markdown, and
//! each chart as SVG and PNG.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::chart::{Chart, Painter};
use super::text::{clock, escape, short};
use crate::bench::{Row, Spread, Table};

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How it was made.
    pub command: String,
    /// When it began, UTC.
    pub began: String,
    /// How long it took.
    pub seconds: f64,
    /// Machine, kernel, versions: what, and its value.
    pub circumstances: BTreeMap<String, String>,
    /// In order.
    pub chapters: Vec<Chapter>,
}

/// One subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chapter {
    /// As the user asks for it.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// What was done.
    pub text: String,
    /// What the rows of the table were measured against, e.g. flows.
    pub against: String,
    /// The figures.
    pub table: Option<Table>,
    /// What of them is drawn.
    pub charts: Vec<Chart>,
    /// Parts that gave no table, and why.
    pub failed: Vec<String>,
}

impl Report {
    /// Writes all files into a folder, which is made.
    ///
    /// # Errors
    /// If one cannot be written, or there is no font.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let painter = Painter::new()?;
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            fs::write(&path, bytes).with_context(|| path.display().to_string())
        };
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        for chart in self.chapters.iter().flat_map(|c| &c.charts) {
            let svg = chart.svg()?;
            put(&format!("{}.png", chart.name), &painter.png(&svg)?)?;
            put(&format!("{}.svg", chart.name), svg.as_bytes())?;
        }
        put("evaluation.json", &serde_json::to_vec_pretty(self)?)?;
        put("evaluation.md", self.markdown().as_bytes())?;
        put("evaluation.html", self.html()?.as_bytes())
    }

    /// The summary, with links to the PNG files beside it.
    pub fn markdown(&self) -> String {
        let how = self.how();
        let mut text = format!("# {TITLE}\n\n`{}`, {how}\n\n", self.command);
        for (what, value) in &self.circumstances {
            let _ = writeln!(text, "- {what}: {value}");
        }
        for chapter in &self.chapters {
            let _ = writeln!(text, "\n## {}\n\n{}\n", chapter.title, chapter.text);
            for chart in &chapter.charts {
                let _ = writeln!(
                    text,
                    "![{}]({}.png)\n\n{}\n",
                    chart.title, chart.name, chart.reading
                );
            }
            if let Some(table) = &chapter.table {
                let lines = cells(table, &chapter.against);
                for (n, line) in lines.iter().enumerate() {
                    let _ = writeln!(text, "| {} |", line.join(" | "));
                    if n == 0 {
                        let _ = writeln!(text, "|{}", "---|".repeat(line.len()));
                    }
                }
            }
            let remarks = chapter.remarks();
            if !remarks.is_empty() {
                text.push('\n');
            }
            for remark in remarks {
                let _ = writeln!(text, "- {}", remark.replace('\n', " "));
            }
        }
        text
    }

    /// One page that needs no other file.
    ///
    /// # Errors
    /// The drawing library refuses something.
    pub fn html(&self) -> Result<String> {
        let mut text = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <title>{TITLE}</title><style>{STYLE}</style></head><body>\n<h1>{TITLE}</h1>\n\
             <p><code>{}</code>, {}</p>\n<dl>",
            escape(&self.command),
            escape(&self.how())
        );
        for (what, value) in &self.circumstances {
            let _ = write!(text, "<dt>{}</dt><dd>{}</dd>", escape(what), escape(value));
        }
        text += "</dl>\n<nav>";
        for chapter in &self.chapters {
            let (name, title) = (&chapter.name, escape(&chapter.title));
            let _ = write!(text, "<a href=\"#{name}\">{title}</a> ");
        }
        text += "</nav>\n";
        for chapter in &self.chapters {
            let (title, about) = (escape(&chapter.title), escape(&chapter.text));
            let name = &chapter.name;
            let _ = writeln!(text, "<h2 id=\"{name}\">{title}</h2>\n<p>{about}</p>");
            for chart in &chapter.charts {
                let reading = escape(&chart.reading);
                let svg = chart.svg()?;
                let _ = writeln!(
                    text,
                    "<figure>{svg}<figcaption>{reading}</figcaption></figure>"
                );
            }
            chapter.html_table(&mut text);
        }
        text += "</body></html>\n";
        Ok(text)
    }

    fn how(&self) -> String {
        format!(
            "{} UTC, took {}. Median of the rounds, and in brackets the least and the greatest of \
             them.",
            self.began,
            clock(self.seconds)
        )
    }
}

impl Chapter {
    /// What a reader of the figures must know: goals, what does not count, what failed.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = self.failed.clone();
        if let Some(table) = &self.table {
            for row in &table.rows {
                let goals = table.ratios(row).into_iter();
                let goals = goals.filter(|line| line.contains("goal"));
                remarks.extend(goals.map(|line| format!("{}: {line}", name(row, &self.against))));
            }
            remarks.extend(table.refused.iter().map(|refused| refused.text()));
            for name in table.unmeasured() {
                remarks.push(format!("no measurement of {name} counts"));
            }
            remarks.push(format!("load average: {} at the end", table.load_at_end));
        }
        remarks
    }

    fn html_table(&self, text: &mut String) {
        if let Some(table) = &self.table {
            text.push_str("<div class=\"wide\"><table>\n");
            for (n, line) in cells(table, &self.against).iter().enumerate() {
                let tag = if n == 0 { "th" } else { "td" };
                let cells = line.iter().map(|cell| escape(cell));
                let cells = cells.map(|cell| format!("<{tag}>{cell}</{tag}>"));
                let _ = writeln!(text, "<tr>{}</tr>", cells.collect::<String>());
            }
            text.push_str("</table></div>\n");
        }
        text.push_str("<ul>");
        for remark in self.remarks() {
            let _ = writeln!(text, "<li>{}</li>", escape(&remark));
        }
        text.push_str("</ul>\n");
        let files = self.table.iter().flat_map(|t| &t.configurations);
        for (what, file) in files {
            let (what, file) = (escape(what), escape(file));
            let _ = writeln!(
                text,
                "<details><summary>configuration file of both daemons: {what}</summary>\
                 <pre>{file}</pre></details>"
            );
        }
    }
}

const TITLE: &str = "ftfw beside conntrackd";

const STYLE: &str = "body{font:16px/1.5 'DejaVu Sans',sans-serif;max-width:62rem;margin:2rem auto;\
padding:0 1rem;color:#1e2226}h2{margin-top:3rem;border-top:2px solid #1e2226;padding-top:.5rem}\
figure{margin:1.5rem 0}figure svg{max-width:100%;height:auto}figcaption,li,dd,pre{font-size:.85rem}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.8rem}\
th,td{border-bottom:1px solid #d0d4d8;padding:.25rem .6rem;text-align:right;white-space:nowrap}\
th:first-child,td:first-child{text-align:left}nav a{margin-right:.8rem}\
dl{display:grid;grid-template-columns:8rem 1fr}dt{font-size:.85rem;font-weight:bold}\
dd{margin:0}";

/// Name of a row, and against what it was measured.
fn name(row: &Row, against: &str) -> String {
    match row.at {
        Some(at) => format!("{}, {} {against}", row.name, short(at)),
        None => row.name.clone(),
    }
}

/// The figures as text: a heading, and a line for each row. A program's mode that both daemons
/// have is compared in the last column.
fn cells(table: &Table, against: &str) -> Vec<Vec<String>> {
    let mut head = vec!["figure".to_owned(), "unit".to_owned()];
    head.extend(table.contenders.iter().cloned());
    head.push("ftfw / conntrackd".to_owned());
    let mut lines = vec![head];
    for row in in_order(table) {
        let mut line = vec![name(row, against), row.unit.clone()];
        line.extend((0..table.contenders.len()).map(|n| cell(row.spread(n))));
        let ratios = table.beside(row).into_iter();
        let ratios = ratios.map(|(mode, ratio)| format!("{mode} {}", short(ratio.median)));
        line.push(ratios.collect::<Vec<_>>().join(", ").trim().to_owned());
        lines.push(line);
    }
    lines
}

/// The rows of a figure one after the other, by what they were measured against.
fn in_order(table: &Table) -> Vec<&Row> {
    let first = |row: &Row| table.rows.iter().position(|r| r.name == row.name);
    let mut rows: Vec<_> = table.rows.iter().collect();
    rows.sort_by(|a, b| {
        let at = |row: &Row| row.at.unwrap_or(f64::INFINITY);
        first(a).cmp(&first(b)).then(at(a).total_cmp(&at(b)))
    });
    rows
}

fn cell(spread: Option<Spread>) -> String {
    let Some(s) = spread else {
        return String::new();
    };
    if s.min == s.max {
        return short(s.median);
    }
    format!("{} ({}–{})", short(s.median), short(s.min), short(s.max))
}

#[cfg(test)]
mod tests {
    use super::super::chart::{Axis, Point, Series};
    use super::*;
    use crate::bench::Refused;

    /// Two daemons, two sizes, one of them refused once.
    fn report() -> Report {
        let row = |at: f64, values: [&[(usize, f64)]; 2]| Row {
            name: "time".into(),
            at: Some(at),
            unit: "ms".into(),
            values: values.map(<[_]>::to_vec).to_vec(),
        };
        let table = Table {
            title: "commit".into(),
            circumstances: "a machine".into(),
            load_at_end: "0.5".into(),
            contenders: vec!["conntrackd".into(), "ftfw".into()],
            rounds: 3,
            rows: vec![
                row(1000.0, [&[(0, 10.0), (1, 12.0), (2, 30.0)], &[(0, 4.0)]]),
                row(1e6, [&[], &[(0, 5.0)]]),
            ],
            refused: vec![Refused {
                contender: "ftfw".into(),
                round: 1,
                reason: "held 999 of <1000>".into(),
            }],
            goals: Vec::new(),
            configurations: [("pair".to_owned(), "Mode FTFW { }".to_owned())].into(),
        };
        let points = [1000.0, 1e6].map(|x| Point {
            x,
            median: 5.0,
            min: 4.0,
            max: 6.0,
        });
        let chart = Chart {
            name: "commit".into(),
            title: "Commit".into(),
            reading: "Lower is better.".into(),
            x: Axis::log("flows"),
            y: Axis::log("ms"),
            series: vec![Series {
                name: "ftfw".into(),
                points: points.to_vec(),
            }],
            limits: Vec::new(),
            base: None,
        };
        Report {
            command: "ftfw-lab evaluation".into(),
            began: "2026-11-27 10:00".into(),
            seconds: 61.0,
            circumstances: [("kernel".to_owned(), "6.18".to_owned())].into(),
            chapters: vec![Chapter {
                name: "commit".into(),
                title: "Commit".into(),
                text: "What it takes.".into(),
                against: "flows".into(),
                table: Some(table),
                charts: vec![chart],
                failed: vec!["bench bulk: died".into()],
            }],
        }
    }

    /// Goal: a figure is there with its spread and its ratio; a size that was not measured is
    /// empty; what does not count and what failed stay in the report with the reason.
    #[test]
    fn the_summary_has_all() {
        let text = report().markdown();
        for line in [
            "| time, 1000 flows | ms | 12 (10–30) | 4 | 0.333 |",
            "| time, 1 M flows | ms |  | 5 |  |",
            "- round 2, ftfw: does not count: held 999 of <1000>",
            "- bench bulk: died",
            "![Commit](commit.png)",
            "- kernel: 6.18",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    /// Goal: the page needs nothing beside it, and what was measured is no markup.
    #[test]
    fn the_page_stands_alone() {
        let text = report().html().unwrap();
        for part in [
            "<svg",
            "held 999 of &lt;1000&gt;",
            "Mode FTFW { }",
            "</html>",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        for part in ["src=", "href=\"http", "<link", "@import", "url("] {
            assert!(!text.contains(part), "{part} in\n{text}");
        }
    }

    /// Goal: what is read back from the JSON is what was written, and all files are there.
    #[test]
    fn the_files_are_there() {
        let dir = std::env::temp_dir().join(format!("ftfw-report-{}", std::process::id()));
        let report = report();
        report.write(&dir).unwrap();
        let json = fs::read(dir.join("evaluation.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Report>(&json).unwrap(), report);
        let png = fs::read(dir.join("commit.png")).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        for name in ["evaluation.html", "evaluation.md", "commit.svg"] {
            assert!(dir.join(name).is_file(), "{name}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
