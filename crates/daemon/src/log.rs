//! Log lines in the original's form, to console, file and syslog.
//!
//! Lines that strangers can cause go through [`Log::limited`].

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use config::Facility;

use crate::limit::{Kind, Limiter};
use crate::syslog::Syslog;

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Ordinary.
    Notice,
    /// Something an operator should know.
    Warning,
    /// Something went wrong.
    Error,
}

#[derive(Debug)]
pub(crate) struct Log {
    console: bool,
    path: Option<PathBuf>,
    file: Option<File>,
    syslog: Option<Syslog>,
    limiter: Limiter,
}

/// Opens a log file, which only its owner reads.
pub(crate) fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).open(path)
}

impl Log {
    /// Opens what is configured. `console` in the foreground only.
    pub(crate) fn open(
        console: bool,
        path: Option<&Path>,
        syslog: Option<Facility>,
    ) -> io::Result<Log> {
        let mut log = Log {
            console,
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
        self.file = self.path.as_deref().map(append_to).transpose()?;
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

    pub(crate) fn notice(&mut self, text: impl AsRef<str>) {
        self.line(Level::Notice, text.as_ref());
    }

    pub(crate) fn warning(&mut self, text: impl AsRef<str>) {
        self.line(Level::Warning, text.as_ref());
    }

    pub(crate) fn error(&mut self, text: impl AsRef<str>) {
        self.line(Level::Error, text.as_ref());
    }

    /// A line that a client, a peer, a packet or the kernel can cause as often as it likes.
    pub(crate) fn limited(&mut self, kind: Kind, level: Level, text: impl Display) {
        if self.limiter.admits(kind, Instant::now()) {
            self.line(level, &text.to_string());
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

    pub(crate) fn line(&mut self, level: Level, text: &str) {
        let (word, priority) = match level {
            Level::Notice => ("notice", 5),
            Level::Warning => ("warning", 4),
            Level::Error => ("ERROR", 3),
        };
        let pid = std::process::id();
        for text in text.lines() {
            if self.console || self.file.is_some() {
                let now = sys::time::local_now();
                let line = format!("[{now}] (pid={pid}) [{word}] {text}\n");
                // A log that cannot be written must not stop replication.
                if let Some(file) = &mut self.file {
                    let _ = file.write_all(line.as_bytes());
                }
                if self.console {
                    let _ = if level == Level::Notice {
                        io::stdout().write_all(line.as_bytes())
                    } else {
                        io::stderr().write_all(line.as_bytes())
                    };
                }
            }
            if let Some(syslog) = &self.syslog {
                syslog.send(priority, text);
            }
        }
    }
}
