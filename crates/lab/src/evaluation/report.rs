//! Writes a report: one page with its pictures in it, the pictures, the data, and a summary.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Part, Report, Table, chart};

/// What the original says of itself.
pub(super) fn version_of_conntrackd() -> String {
    let out = Command::new("conntrackd").arg("-v").output();
    let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    let line = text.ok().and_then(|t| t.lines().next().map(str::to_owned));
    line.unwrap_or_else(|| "conntrackd: no version".to_owned())
}

/// Writes `index.html`, `data.json`, `summary.md` and a picture for each chart into a folder.
///
/// # Errors
/// The folder cannot be made or written.
pub(super) fn write(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    let mut page = String::from(HEAD);
    let mut summary = String::from("# Evaluation\n\n");
    for line in [
        &report.circumstances,
        &report.conntrackd,
        &format!("load average at the end: {}", report.load_at_the_end),
    ] {
        writeln!(page, "<p>{}</p>", escaped(line))?;
        writeln!(summary, "{line}  ")?;
    }
    for part in &report.parts {
        write!(
            page,
            "<h2>{}</h2>\n<p>{}</p>\n",
            escaped(&part.title),
            escaped(&part.text)
        )?;
        write!(summary, "\n## {}\n\n{}\n", part.title, part.text)?;
        for one in &part.charts {
            // A chart of which nothing counts is not there; what was left out says why.
            let Ok(picture) = chart::svg(one) else {
                continue;
            };
            put(&format!("{}.svg", one.name), &picture)?;
            writeln!(page, "<figure>{picture}</figure>")?;
            writeln!(summary, "\n![{}]({}.svg)", one.title, one.name)?;
        }
        for table in &part.tables {
            html(&mut page, table)?;
            markdown(&mut summary, table)?;
        }
        left_out(&mut page, &mut summary, part)?;
    }
    put("index.html", &(page + "</body></html>\n"))?;
    put("summary.md", &summary)?;
    put("data.json", &serde_json::to_string_pretty(report)?)
}

const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>ftfw beside conntrackd</title><style>
body { font-family: sans-serif; max-width: 60em; margin: 2em auto; color: #24292e }
table { border-collapse: collapse; margin: 1em 0 }
td, th { border-bottom: 1px solid #dee1e5; padding: 0.2em 0.8em; text-align: right }
td:first-child, th:first-child { text-align: left }
caption { text-align: left; font-weight: bold }
figure { margin: 1em 0 }
</style></head><body>
<h1>ftfw beside conntrackd</h1>
";

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

fn html(page: &mut String, table: &Table) -> Result<()> {
    let line = |cells: &[String], tag: &str| {
        let cell = |c: &String| format!("<{tag}>{}</{tag}>", escaped(c));
        let cells: String = cells.iter().map(cell).collect();
        format!("<tr>{cells}</tr>\n")
    };
    writeln!(page, "<table><caption>{}</caption>", escaped(&table.title))?;
    page.push_str(&line(&table.head, "th"));
    for row in &table.rows {
        page.push_str(&line(row, "td"));
    }
    page.push_str("</table>\n");
    Ok(())
}

fn markdown(summary: &mut String, table: &Table) -> Result<()> {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    write!(summary, "\n{}\n\n{}", table.title, line(&table.head))?;
    summary.push_str(&line(&vec!["---".to_owned(); table.head.len()]));
    for row in &table.rows {
        summary.push_str(&line(row));
    }
    Ok(())
}

fn left_out(page: &mut String, summary: &mut String, part: &Part) -> Result<()> {
    if part.left_out.is_empty() {
        return Ok(());
    }
    page.push_str("<p>These measurements do not count:</p><ul>\n");
    summary.push_str("\nThese measurements do not count:\n\n");
    for reason in &part.left_out {
        writeln!(page, "<li>{}</li>", escaped(reason))?;
        writeln!(summary, "- {reason}")?;
    }
    page.push_str("</ul>\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Chart, Point, Series};
    use super::*;
    use crate::bench::table::Spread;

    fn report() -> Report {
        let point = |x: f64, median: f64| Point {
            x,
            y: Spread {
                median,
                min: median * 0.9,
                max: median * 1.2,
            },
        };
        let series = |name: &str, original, points| Series {
            name: name.to_owned(),
            original,
            points,
        };
        let chart = Chart {
            name: "made-up".to_owned(),
            title: "Made up".to_owned(),
            x: "connections/s".to_owned(),
            y: "%".to_owned(),
            series: vec![
                series("theirs", true, vec![point(500.0, 8.0), point(1000.0, 16.0)]),
                series("ours", false, vec![point(500.0, 2.0), point(1000.0, 3.0)]),
            ],
        };
        let empty = Chart {
            name: "empty".to_owned(),
            series: Vec::new(),
            ..chart.clone()
        };
        let table = Table {
            title: "Numbers".to_owned(),
            head: vec!["of".to_owned(), "value".to_owned()],
            rows: vec![vec!["a < b".to_owned(), "3".to_owned()]],
        };
        Report {
            circumstances: "a machine".to_owned(),
            conntrackd: "conntrackd 1".to_owned(),
            load_at_the_end: "0.1".to_owned(),
            parts: vec![Part {
                title: "Part".to_owned(),
                text: "How to read it.".to_owned(),
                charts: vec![chart, empty],
                tables: vec![table],
                left_out: vec!["round 1: too slow".to_owned()],
            }],
        }
    }

    #[test]
    fn a_report_is_whole_in_each_of_its_forms() {
        let folder = std::env::temp_dir().join(format!("ftfw-report-{}", std::process::id()));
        write(&report(), &folder).unwrap();
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let page = read("index.html");
        for part in [
            "<svg",
            "a &lt; b",
            "round 1: too slow",
            "a machine",
            "theirs",
        ] {
            assert!(page.contains(part), "{part}");
        }
        let summary = read("summary.md");
        for part in ["| a < b | 3 |", "![Made up](made-up.svg)", "too slow"] {
            assert!(summary.contains(part), "{part}\n{summary}");
        }
        assert!(!summary.contains("empty.svg") && !folder.join("empty.svg").exists());
        let data: serde_json::Value = serde_json::from_str(&read("data.json")).unwrap();
        let point = &data["parts"][0]["charts"][0]["series"][1]["points"][1];
        assert_eq!(
            (&point["x"], &point["y"]["median"]),
            (&1000.0.into(), &3.0.into())
        );
        let picture = read("made-up.svg");
        for part in ["Made up", "connections/s", "ours"] {
            assert!(picture.contains(part), "{part}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
