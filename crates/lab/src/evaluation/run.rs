//! One part: a process of `ftfw-lab bench`, and what it hands on.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sys::signal::{Signal, Signals};

use super::plan::Part;
use crate::bench::{Line, Table};

/// How often the line of progress is drawn, and a signal noticed.
const LOOK: Duration = Duration::from_millis(250);
/// So much of a step is done that takes longer than it should.
const STEP_MAX: f64 = 0.95;
/// A part may take as many times what it should.
const SLOW: f64 = 3.0;
const GRACE: Duration = Duration::from_secs(120);

/// What came of a part.
pub(super) struct Outcome {
    pub(super) tables: Vec<Table>,
    /// Why there is not all of it.
    pub(super) failure: Option<String>,
}

/// Runs a part to its end. `reached` is told how many steps are done, and how much of the next one
/// should be.
///
/// # Errors
/// If a signal ends the run, or it cannot be started.
pub(super) fn part(
    part: &Part,
    signals: &Signals,
    mut reached: impl FnMut(f64),
) -> Result<Outcome> {
    let words = words(part);
    let mut child = Running::start(&words)?;
    let limit = GRACE + Duration::from_secs_f64(SLOW * part.takes());
    let (begun, mut steps, mut tables) = (Instant::now(), 0.0, Vec::new());
    let mut since = begun;
    let failure = loop {
        if let Some(Signal::Terminate) = signals.next() {
            bail!("interrupted");
        }
        if begun.elapsed() > limit {
            break Some(format!("not done within {} s", limit.as_secs()));
        }
        match child.lines.recv_timeout(LOOK) {
            Ok(Line::Step) => (steps, since) = (steps + 1.0, Instant::now()),
            Ok(Line::Table(table)) => tables.push(*table),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break child.failure()?,
        }
        let under_way = since.elapsed().as_secs_f64() / part.seconds;
        reached(steps + under_way.min(STEP_MAX));
    };
    Ok(Outcome {
        tables,
        failure: failure.map(|why| format!("ftfw-lab {}: {why}", words.join(" "))),
    })
}

fn words(part: &Part) -> Vec<String> {
    let mut words = vec![
        "bench".to_owned(),
        part.bench.to_owned(),
        "--json".to_owned(),
    ];
    words.extend(["--rounds".to_owned(), part.rounds.to_string()]);
    if let Some(flows) = part.flows {
        words.extend(["--flows".to_owned(), flows.to_string()]);
    }
    for name in part.only {
        words.extend(["--only".to_owned(), (*name).to_owned()]);
    }
    words
}

/// The process, which ends with this.
struct Running {
    child: Child,
    lines: mpsc::Receiver<Line>,
    errors: Option<thread::JoinHandle<String>>,
}

impl Running {
    fn start(words: &[String]) -> Result<Running> {
        // If this program is killed, so is that one.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(env::current_exe()?)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("setpriv")?;
        let out = child.stdout.take().context("its output")?;
        let mut err = child.stderr.take().context("its errors")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else {
                    continue;
                };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = err.read_to_end(&mut text);
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        Ok(Running {
            child,
            lines,
            errors: Some(errors),
        })
    }

    /// Why it ended, if not well.
    fn failure(&mut self) -> Result<Option<String>> {
        let status = self.child.wait()?;
        let errors = self.errors.take().and_then(|errors| errors.join().ok());
        Ok((!status.success()).then(|| match errors {
            Some(text) if !text.is_empty() => text,
            _ => status.to_string(),
        }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
