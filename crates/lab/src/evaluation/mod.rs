//! An evaluation of both daemons: measured in one run, and written down as a report with charts.
//!
//! Nothing is measured here. Each part is a kind of `ftfw-lab bench`, in a process of its own that
//! hands its table on as JSON: what `bench` prints and what the report shows are the same figures.
//! A part that fails, or takes three times as long as it should, is in the report with the reason.

pub mod chart;
mod pictures;
mod plan;
mod progress;
pub mod report;
mod run;
mod text;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use sys::signal::Signals;

use crate::bench;
use crate::daemon::{self, Kind};
use crate::limits;
use chart::Painter;
use plan::{Part, Subject};
use progress::Progress;
use report::{Chapter, Report};

/// What the user asks for.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Few contenders, sizes and rounds: a look whether all of it works, in less than three minutes
    #[arg(long)]
    quick: bool,
    /// Only this subject; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Leave out what wants more flows than this
    #[arg(long)]
    flows_max: Option<u32>,
    /// Folder for the report
    #[arg(long, default_value = "target/evaluation")]
    out: PathBuf,
}

/// Measures everything and writes the report.
///
/// # Errors
/// If nothing is chosen, it is interrupted, the report cannot be written, or a part of it failed.
pub fn run(options: &Options) -> Result<()> {
    // What would be found out after an hour otherwise.
    Painter::new()?;
    let all = if options.quick {
        plan::quick()
    } else {
        plan::full()
    };
    let subjects = plan::chosen(all, &options.only, options.flows_max)?;
    fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let signals = Signals::open()?;
    let parts = || subjects.iter().flat_map(|s| &s.parts);
    let most = parts().filter(|p| p.fills_kernel).filter_map(|p| p.flows);
    let raised = limits::raise(most.max().unwrap_or(0))
        .context("--flows-max N leaves out what wants more flows")?;
    let began = Command::new("date").args(["-u", "+%F %H:%M"]).output()?;
    let begun = Instant::now();
    let mut evaluation = Evaluation {
        signals,
        progress: Progress::new(parts().map(Part::takes).sum()),
        done: 0.0,
    };
    let mut chapters = Vec::new();
    let mut end = Ok(());
    for subject in &subjects {
        match evaluation.chapter(subject) {
            Ok(chapter) => chapters.push(chapter),
            // What has been measured until then is written down.
            Err(e) => {
                end = Err(e);
                break;
            }
        }
    }
    evaluation.progress.end();
    drop(raised);
    if let Some(overview) = pictures::overview(&chapters) {
        chapters.insert(0, overview);
    }
    let report = Report {
        command: format!("ftfw-lab {}", words()),
        began: String::from_utf8(began.stdout)?.trim().to_owned(),
        seconds: begun.elapsed().as_secs_f64(),
        circumstances: circumstances()?,
        chapters,
    };
    if !report.chapters.is_empty() {
        report.write(&options.out)?;
        println!("{}", options.out.join("evaluation.html").display());
    }
    end?;
    let failed: Vec<_> = report.chapters.iter().flat_map(|c| &c.failed).collect();
    match failed[..] {
        [] => Ok(()),
        [first, ..] => bail!("{} parts failed, the first: {first}", failed.len()),
    }
}

fn words() -> String {
    env::args().skip(1).collect::<Vec<_>>().join(" ")
}

/// A run.
struct Evaluation {
    signals: Signals,
    progress: Progress,
    /// Seconds of the plan that are done.
    done: f64,
}

impl Evaluation {
    /// Measures all parts of a subject.
    ///
    /// # Errors
    /// If it is interrupted.
    fn chapter(&mut self, subject: &Subject) -> Result<Chapter> {
        let mut chapter = Chapter {
            name: subject.name.to_owned(),
            title: subject.title.to_owned(),
            text: subject.text.to_owned(),
            against: subject.against.to_owned(),
            table: None,
            charts: Vec::new(),
            failed: Vec::new(),
        };
        for part in &subject.parts {
            self.progress.begin(subject.title);
            let before = self.done;
            let outcome = run::part(part, &self.signals, |steps| {
                let done = before + steps * part.seconds;
                self.progress.reach(done.min(before + part.takes()));
                self.progress.draw();
            })?;
            self.done = before + part.takes();
            self.progress.reach(self.done);
            chapter.failed.extend(outcome.failure);
            for table in outcome.tables {
                let table = match part.flows {
                    Some(flows) if part.is_at_flows => table.at(flows.into()),
                    _ => table,
                };
                match &mut chapter.table {
                    None => chapter.table = Some(table),
                    Some(all) => all.join(table),
                }
            }
        }
        if let Some(table) = &chapter.table {
            chapter.charts = (subject.draw)(table);
        }
        Ok(chapter)
    }
}

/// Machine, kernel and versions.
fn circumstances() -> Result<BTreeMap<String, String>> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let memory = read("/proc/meminfo")?;
    let memory = memory.split_whitespace().nth(1).context("meminfo")?;
    let memory = memory.parse::<f64>()? / f64::from(1 << 20);
    let cpus = std::thread::available_parallelism()?;
    let ours = daemon::program(Kind::Ftfw)?;
    let ours = ours.to_str().context("the path of ftfw")?.to_owned();
    let mut all = BTreeMap::from([
        ("machine".to_owned(), bench::processor()),
        ("CPUs".to_owned(), cpus.to_string()),
        ("memory".to_owned(), format!("{memory:.1} GiB")),
        ("kernel".to_owned(), read("/proc/sys/kernel/osrelease")?),
    ]);
    for (name, program) in [
        ("ftfw", ours.as_str()),
        ("conntrackd", "conntrackd"),
        ("keepalived", "keepalived"),
    ] {
        all.insert(name.to_owned(), version(program)?);
    }
    Ok(all)
}

/// The first line of what a program says of its version.
fn version(program: &str) -> Result<String> {
    let path = env::var("PATH").unwrap_or_default();
    let out = Command::new(program)
        .arg("--version")
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output()
        .with_context(|| program.to_owned())?;
    // keepalived says it on its standard error.
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty());
    Ok(line.unwrap_or("unknown").trim().to_owned())
}
