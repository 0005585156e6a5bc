//! Log lines in the original's form, to console, file and syslog; and to systemd's journal, with
//! fields, in place of the console or of syslog if these lead there.
//!
//! Lines that strangers can cause go through [`Log::limited`].

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use config::Facility;
use sys::place::open_log;

use crate::journal::{self, Journal};
use crate::limit::{Kind, Limiter};
use crate::line::{Level, Line, Occasion};
use crate::syslog::Syslog;

/// Where the lines for one of the standard streams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Console {
    /// Nowhere: in the background.
    Off,
    Stream,
    /// The journal reads the stream: the stream has only what the journal's socket refuses.
    Journal,
}

impl Console {
    fn of(stream: impl AsFd) -> Console {
        match journal::reads(stream) {
            true => Console::Journal,
            false => Console::Stream,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Log {
    /// What is written to standard output and standard error.
    console: [Console; 2],
    journal: Option<Journal>,
    path: Option<PathBuf>,
    file: Option<File>,
    syslog: Option<Syslog>,
    limiter: Limiter,
}

impl Log {
    /// Opens what is configured. `console` in the foreground only.
    pub(crate) fn open(
        console: bool,
        path: Option<&Path>,
        syslog: Option<Facility>,
    ) -> io::Result<Log> {
        let console = match console {
            true => [Console::of(io::stdout()), Console::of(io::stderr())],
            false => [Console::Off; 2],
        };
        let leads_there = syslog.is_some() || console.contains(&Console::Journal);
        let journal = leads_there.then(|| Journal::open(syslog)).transpose()?;
        let mut log = Log {
            console,
            journal: journal.flatten(),
            path: path.map(Path::to_owned),
            file: None,
            syslog: syslog.map(Syslog::open).transpose()?,
            limiter: Limiter::default(),
        };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file anew, after a rotation.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = self.path.as_deref().map(open_log).transpose()?;
        Ok(())
    }

    /// The same, after SIGHUP.
    pub(crate) fn reopen_after_hangup(&mut self) {
        match self.reopen() {
            Ok(()) => self.notice("SIGHUP: log file opened again"),
            Err(e) => self.error(format!(
                "the log file cannot be opened again: {e}: the lines go on into the old one until \
                 the next SIGHUP"
            )),
        }
    }

    pub(crate) fn notice(&mut self, text: impl Into<String>) {
        self.write((Level::Notice, text.into()));
    }

    pub(crate) fn warning(&mut self, text: impl Into<String>) {
        self.write((Level::Warning, text.into()));
    }

    pub(crate) fn error(&mut self, text: impl Into<String>) {
        self.write((Level::Error, text.into()));
    }

    /// The daemon has started, and serves.
    pub(crate) fn started(&mut self, text: &str) {
        self.write(Line::new(Level::Notice, text, Occasion::Started.into()));
    }

    /// The daemon ends, because it was told to.
    pub(crate) fn stopping(&mut self) {
        let text = "---- shutdown received ----";
        self.write(Line::new(Level::Notice, text, Occasion::Stopping.into()));
    }

    /// A line that a client, a peer, a packet or the kernel can cause as often as it likes.
    pub(crate) fn limited(&mut self, kind: Kind, line: impl Into<Line>) {
        if self.limiter.admits(kind, Instant::now()) {
            self.write(line);
        }
    }

    /// Logs what was left out, when that is due. The loop calls it every turn.
    pub(crate) fn report_left_out(&mut self) {
        if let Some(text) = self.limiter.summary(Instant::now()) {
            self.warning(text);
        }
    }

    /// Logs what was left out and not logged yet: before the end.
    pub(crate) fn report_all_left_out(&mut self) {
        if let Some(text) = self.limiter.what_was_left_out() {
            self.warning(text);
        }
    }

    pub(crate) fn write(&mut self, line: impl Into<Line>) {
        let line = line.into();
        let is_taken = self.journal.as_ref().is_some_and(|j| j.send(&line));
        let [stdout, stderr] = self.console;
        let console = match line.level {
            Level::Notice => stdout,
            Level::Warning | Level::Error => stderr,
        };
        let to_console = match console {
            Console::Off => false,
            Console::Stream => true,
            Console::Journal => !is_taken,
        };
        if to_console || self.file.is_some() {
            self.write_text(&line, to_console);
        }
        if let Some(syslog) = self.syslog.as_ref().filter(|_| !is_taken) {
            for text in line.text.lines() {
                syslog.send(priority(line.level), text);
            }
        }
    }

    /// Writes it in the original's form to the file and perhaps to the console. A log that
    /// cannot be written must not stop replication.
    fn write_text(&mut self, line: &Line, to_console: bool) {
        let (now, pid) = (sys::time::local_now(), std::process::id());
        let word = match line.level {
            Level::Notice => "notice",
            Level::Warning => "warning",
            Level::Error => "ERROR",
        };
        for text in line.text.lines() {
            let text = format!("[{now}] (pid={pid}) [{word}] {text}\n");
            if let Some(file) = &mut self.file {
                let _ = file.write_all(text.as_bytes());
            }
            if to_console {
                let _ = match line.level {
                    Level::Notice => io::stdout().write_all(text.as_bytes()),
                    Level::Warning | Level::Error => io::stderr().write_all(text.as_bytes()),
                };
            }
        }
    }
}

/// The priority of syslog: `LOG_NOTICE`, `LOG_WARNING`, `LOG_ERR`.
pub(crate) fn priority(level: Level) -> u8 {
    match level {
        Level::Notice => 5,
        Level::Warning => 4,
        Level::Error => 3,
    }
}
