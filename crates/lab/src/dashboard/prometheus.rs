//! A Prometheus of this run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::node::{Node, Process};
use crate::wait;

const ADDRESS: &str = "127.0.0.1:9090";

/// A server that scrapes; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Prometheus {
    node: Node,
    _process: Process,
}

/// Times for which an expression is evaluated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) from: SystemTime,
    pub(super) to: SystemTime,
    pub(super) step: Duration,
}

impl Range {
    /// One time; `step` is any.
    pub(super) fn at(time: SystemTime, step: Duration) -> Range {
        Range {
            from: time,
            to: time,
            step,
        }
    }
}

/// A series of an answer.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) labels: BTreeMap<String, String>,
    /// Seconds since the begin of the range, and the value. Values that are no number are left out.
    pub(super) points: Vec<(f64, f64)>,
}

impl Prometheus {
    /// Starts it on `node`, with a scrape of each place (name of the instance, address) at this
    /// interval.
    pub(super) fn start(
        node: &Node,
        dir: &Path,
        places: &[(&str, &str)],
        interval: Duration,
    ) -> Result<Prometheus> {
        let dir = dir.join("prometheus");
        fs::create_dir_all(&dir)?;
        let config = dir.join("config.yml");
        fs::write(&config, text_of(places, interval))?;
        let log = File::create(dir.join("log"))?;
        let mut command = node.command("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg(format!("--web.listen-address={ADDRESS}"))
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process(command.spawn().context("prometheus")?);
        let prometheus = Prometheus {
            node: node.clone(),
            _process: process,
        };
        wait::until("prometheus is ready", Duration::from_secs(20), || {
            prometheus.get("/-/ready").is_ok()
        })
        .with_context(|| fs::read_to_string(dir.join("log")).unwrap_or_default())?;
        Ok(prometheus)
    }

    /// Evaluates an expression.
    ///
    /// # Errors
    /// It is no expression of PromQL.
    pub(super) fn query(&self, expression: &str, range: &Range) -> Result<Vec<Series>> {
        let seconds = |time: SystemTime| -> Result<f64> {
            Ok(time.duration_since(UNIX_EPOCH)?.as_secs_f64())
        };
        let (from, to) = (seconds(range.from)?, seconds(range.to)?);
        let path = format!(
            "/api/v1/query_range?start={from:.3}&end={to:.3}&step={}&query={}",
            range.step.as_secs_f64(),
            escaped(expression)
        );
        let answer: Value = serde_json::from_str(&self.get(&path)?)?;
        let list = answer["data"]["result"].as_array().context("no result")?;
        list.iter().map(|series| read(series, from)).collect()
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = self.node.inside(|| TcpStream::connect(ADDRESS))??;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // With HTTP/1.0 the body is not cut into chunks, and the server closes at its end.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").context("no head")?;
        let status = head.split(' ').nth(1).context("no status")?;
        ensure!(status == "200", "{status}: {body}");
        Ok(body.to_owned())
    }
}

fn text_of(places: &[(&str, &str)], interval: Duration) -> String {
    let ms = interval.as_millis();
    let mut text = format!(
        "global: {{scrape_interval: {ms}ms, scrape_timeout: {ms}ms}}\n\
         scrape_configs:\n- job_name: ftfw\n  static_configs:\n"
    );
    for (name, address) in places {
        text += &format!("  - {{targets: ['{address}'], labels: {{instance: {name}}}}}\n");
    }
    text
}

fn read(series: &Value, from: f64) -> Result<Series> {
    let labels = series["metric"].as_object().context("no labels")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = labels
        .iter()
        .map(|(name, value)| (name.clone(), text(value)));
    let mut points = Vec::new();
    for pair in series["values"].as_array().context("no values")? {
        let (Some(time), Some(value)) = (pair[0].as_f64(), pair[1].as_str()) else {
            bail!("{pair} is no value with its time");
        };
        let value: f64 = value.parse()?;
        if value.is_finite() {
            points.push((time - from, value));
        }
    }
    Ok(Series {
        labels: labels.collect(),
        points,
    })
}

/// A text as a part of an address.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() {
            true => escaped.push(char::from(byte)),
            // A `String` takes everything.
            false => _ = write!(escaped, "%{byte:02X}"),
        }
    }
    escaped
}
