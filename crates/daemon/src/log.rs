//! Log lines in the original's form, to console, file and syslog.
//!
//! Lines that strangers can cause go through [`Log::limited`].

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Instant;

use config::Facility;

use crate::limit::{Kind, Limiter};

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
    syslog: Option<(UnixDatagram, Facility)>,
    limiter: Limiter,
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
            syslog: None,
            limiter: Limiter::default(),
        };
        log.reopen()?;
        if let Some(facility) = syslog {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            log.syslog = Some((socket, facility));
        }
        Ok(log)
    }

    /// Opens the file anew, after a rotation.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            let mut options = OpenOptions::new();
            self.file = Some(options.create(true).append(true).mode(0o600).open(path)?);
        }
        Ok(())
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

    /// Says what was left out, when that is due. The loop calls it every turn.
    pub(crate) fn say_left_out(&mut self) {
        if let Some(text) = self.limiter.summary(Instant::now()) {
            self.warning(text);
        }
    }

    /// Says what was left out and not said yet: before the end.
    pub(crate) fn say_all_left_out(&mut self) {
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
            if let Some((socket, Facility(facility))) = &self.syslog {
                let line = format!(
                    "<{}>conntrack-tools[{pid}]: {text}",
                    facility * 8 + priority
                );
                let _ = socket.send_to(line.as_bytes(), "/dev/log");
            }
        }
    }
}
