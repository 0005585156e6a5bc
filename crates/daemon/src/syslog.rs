//! Lines for the system's log.

use std::io;
use std::os::unix::net::UnixDatagram;

use config::Facility;

use crate::journal::SYSLOG_IDENTIFIER;

/// `LOG_INFO`
pub(crate) const INFO: u8 = 6;

/// The system's log, under the original's name.
#[derive(Debug)]
pub(crate) struct Syslog {
    socket: UnixDatagram,
    facility: Facility,
}

impl Syslog {
    pub(crate) fn open(facility: Facility) -> io::Result<Syslog> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Syslog { socket, facility })
    }

    /// Sends a line. `priority` is one of `LOG_EMERG` (0) to `LOG_DEBUG` (7). A line that the log
    /// does not take at once is lost: it must not delay replication.
    pub(crate) fn send(&self, priority: u8, text: &str) {
        let Facility(facility) = self.facility;
        let pid = std::process::id();
        let line = format!(
            "<{}>{SYSLOG_IDENTIFIER}[{pid}]: {text}",
            facility * 8 + priority
        );
        let _ = self.socket.send_to(line.as_bytes(), "/dev/log");
    }
}
