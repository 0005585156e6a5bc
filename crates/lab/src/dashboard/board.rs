//! A dashboard as Grafana's JSON has it, as far as ours needs it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The panels of a dashboard.
#[derive(Clone, Debug)]
pub struct Board {
    /// All but the headings, which are in [`Board::rows`].
    pub panels: Vec<Panel>,
    /// Headings, and the line of the grid on which each stands.
    pub rows: Vec<(String, u32)>,
}

/// How a panel is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The last values, each on its colour.
    Stat,
    /// Curves over time.
    TimeSeries,
    /// Bars over time, whose colours are the values.
    StateTimeline,
}

/// One panel.
#[derive(Clone, Debug)]
pub struct Panel {
    /// How it is drawn.
    pub kind: Kind,
    /// Its title.
    pub title: String,
    /// Column, line, width and height in the grid of 24 columns.
    pub(super) place: [u32; 4],
    /// Grafana's name of the unit.
    pub(super) unit: String,
    /// Texts and colours in place of values.
    pub(super) mappings: BTreeMap<String, (String, String)>,
    /// Colours from these values on, the lowest first.
    pub(super) thresholds: Vec<(f64, String)>,
    /// How the legends of the curves end that have an axis of their own on the right.
    pub(super) on_the_right: Option<String>,
    pub(super) queries: Vec<Query>,
}

/// An expression of PromQL, and the text of its legend.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) expr: String,
    legend: String,
}

impl Board {
    /// Reads Grafana's JSON.
    ///
    /// # Errors
    /// It has something that is not known here.
    pub fn parse(text: &str) -> Result<Board> {
        let json: Value = serde_json::from_str(text)?;
        let mut board = Board {
            panels: Vec::new(),
            rows: Vec::new(),
        };
        for panel in json["panels"].as_array().context("no panels")? {
            let title = panel["title"].as_str().context("a panel without title")?;
            if panel["type"] == "row" {
                board
                    .rows
                    .push((title.to_owned(), number(&panel["gridPos"]["y"])?));
            } else {
                let read = Panel::read(panel, title).with_context(|| title.to_owned())?;
                board.panels.push(read);
            }
        }
        Ok(board)
    }
}

impl Panel {
    fn read(json: &Value, title: &str) -> Result<Panel> {
        let kind = match json["type"].as_str() {
            Some("stat") => Kind::Stat,
            Some("timeseries") => Kind::TimeSeries,
            Some("state-timeline") => Kind::StateTimeline,
            other => bail!("a panel of type {other:?}: known are stat, timeseries, state-timeline"),
        };
        let grid = &json["gridPos"];
        let config = &json["fieldConfig"];
        let defaults = &config["defaults"];
        let queries = json["targets"].as_array().context("no targets")?;
        Ok(Panel {
            kind,
            title: title.to_owned(),
            place: [
                number(&grid["x"])?,
                number(&grid["y"])?,
                number(&grid["w"])?,
                number(&grid["h"])?,
            ],
            unit: text(&defaults["unit"])?,
            mappings: mappings(&defaults["mappings"])?,
            thresholds: thresholds(&defaults["thresholds"]["steps"])?,
            on_the_right: on_the_right(&config["overrides"])?,
            queries: queries.iter().map(Query::read).collect::<Result<_>>()?,
        })
    }

    /// True if it shows the present and no past.
    pub(super) fn is_of_now(&self) -> bool {
        self.kind == Kind::Stat
    }
}

impl Query {
    fn read(json: &Value) -> Result<Query> {
        Ok(Query {
            expr: text(&json["expr"])?,
            legend: text(&json["legendFormat"])?,
        })
    }

    /// The expression with all firewalls in place of Grafana's variables.
    pub(super) fn expression(&self, rate_interval: Duration) -> String {
        let rate = format!("{}ms", rate_interval.as_millis());
        (self.expr.replace("$__rate_interval", &rate))
            .replace("$job", ".*")
            .replace("$instance", ".*")
    }

    /// The legend of a series with these labels.
    pub(super) fn legend_of(&self, labels: &BTreeMap<String, String>) -> String {
        let filled = labels
            .iter()
            .fold(self.legend.clone(), |text, (name, value)| {
                text.replace(&format!("{{{{{name}}}}}"), value)
            });
        filled.trim().to_owned()
    }
}

fn text(json: &Value) -> Result<String> {
    Ok(json.as_str().context("a text is missing")?.to_owned())
}

fn number(json: &Value) -> Result<u32> {
    Ok(u32::try_from(
        json.as_u64().context("a number is missing")?,
    )?)
}

fn list(json: &Value) -> &[Value] {
    json.as_array().map_or(&[], Vec::as_slice)
}

fn mappings(json: &Value) -> Result<BTreeMap<String, (String, String)>> {
    let mut all = BTreeMap::new();
    for options in list(json).iter().filter_map(|m| m["options"].as_object()) {
        for (value, to) in options {
            all.insert(value.clone(), (text(&to["text"])?, text(&to["color"])?));
        }
    }
    Ok(all)
}

fn thresholds(json: &Value) -> Result<Vec<(f64, String)>> {
    let from = |step: &Value| step["value"].as_f64().unwrap_or(f64::NEG_INFINITY);
    let all = list(json).iter();
    all.map(|step| Ok((from(step), text(&step["color"])?)))
        .collect()
}

/// The only override that is known: curves whose legend ends with a word have the right axis.
fn on_the_right(json: &Value) -> Result<Option<String>> {
    let Some(rule) = list(json).first() else {
        return Ok(None);
    };
    let pattern = text(&rule["matcher"]["options"])?;
    let word = pattern.strip_prefix('/').and_then(|p| p.strip_suffix("$/"));
    let is_right = |p: &Value| p["id"] == "custom.axisPlacement" && p["value"] == "right";
    match word.filter(|_| list(&rule["properties"]).iter().any(is_right)) {
        Some(word) => Ok(Some(word.to_owned())),
        None => bail!("the override for {pattern}: known is axisPlacement of /WORD$/"),
    }
}
