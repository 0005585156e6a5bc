//! The statistics log: one line about each flow that has ended.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use config::Stats;
use control::reply;
use flow::Flow;
use sys::place::open_log;

use crate::kernel::Ending;
use crate::syslog::{INFO, Syslog};

/// Where the lines go.
#[derive(Debug)]
pub(crate) struct StatisticsLog {
    path: Option<PathBuf>,
    file: Option<File>,
    syslog: Option<Syslog>,
    /// Lines that the file did not take.
    pub(crate) failed: u64,
}

impl StatisticsLog {
    pub(crate) fn open(stats: &Stats) -> Result<StatisticsLog> {
        let mut log = StatisticsLog {
            path: stats.log_file.clone(),
            file: None,
            syslog: stats
                .syslog
                .map(Syslog::open)
                .transpose()
                .context("syslog")?,
            failed: 0,
        };
        log.reopen().with_context(|| match &log.path {
            Some(path) => format!("can't open logfile '{}'", path.display()),
            None => "can't open the statistics log".to_owned(),
        })?;
        Ok(log)
    }

    /// Opens the file anew, after a rotation.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = self.path.as_deref().map(open_log).transpose()?;
        Ok(())
    }

    /// A flow has ended. `ending` is missing if no event has reported the end.
    pub(crate) fn ended(&mut self, flow: &Flow, ending: Option<Ending>) {
        let Ending { counters, seconds } = ending.unwrap_or_default();
        let line = reply::ended_line(flow, counters, seconds);
        if let Some(file) = &mut self.file {
            let text = format!("{}\t{line}\n", sys::time::local_now());
            self.failed += u64::from(file.write_all(text.as_bytes()).is_err());
        }
        if let Some(syslog) = &self.syslog {
            syslog.send(INFO, &line);
        }
    }
}
