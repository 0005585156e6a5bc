//! Log lines in the original's form, to console, file and syslog.
//!
//! What a stranger can cause is limited: ten lines a second, then a count of what
//! was left out.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use config::Facility;
use replica::Level;

/// Lines a second that strangers can cause.
const LIMIT: u32 = 10;

#[derive(Debug)]
pub(crate) struct Log {
    console: bool,
    path: Option<PathBuf>,
    file: Option<File>,
    syslog: Option<(UnixDatagram, Facility)>,
    window: Instant,
    in_window: u32,
    left_out: u64,
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
            window: Instant::now(),
            in_window: 0,
            left_out: 0,
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

    /// A line that a peer, a packet or the kernel can cause as often as it likes.
    pub(crate) fn limited(&mut self, level: Level, text: &str) {
        if self.window.elapsed() >= Duration::from_secs(1) {
            let left_out = std::mem::take(&mut self.left_out);
            if left_out > 0 {
                self.line(Level::Warning, &format!("{left_out} lines left out"));
            }
            self.window = Instant::now();
            self.in_window = 0;
        }
        self.in_window += 1;
        if self.in_window > LIMIT {
            self.left_out += 1;
        } else {
            self.line(level, text);
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
