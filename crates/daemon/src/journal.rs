//! Lines for systemd's journal, with fields.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use config::Facility;
use control::journal::{Entry, SOCKET};

use crate::line::Line;
use crate::log::priority;

/// The name of the lines with `Syslog on`, as the original's, which rules of syslog match.
pub(crate) const SYSLOG_IDENTIFIER: &str = "conntrack-tools";

/// The journal's socket.
#[derive(Debug)]
pub(crate) struct Journal {
    socket: UnixDatagram,
    /// The value of `SYSLOG_IDENTIFIER`.
    identifier: String,
    facility: Option<Facility>,
}

/// True if the journal reads what is written to this stream: the service manager gives the
/// device and inode in `JOURNAL_STREAM`.
pub(crate) fn reads(stream: impl AsFd) -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(stream).is_ok_and(|s| named == format!("{}:{}", s.st_dev, s.st_ino))
}

impl Journal {
    /// `None` if this machine has no journal. `facility`: that of `Syslog`, if it is on.
    pub(crate) fn open(facility: Option<Facility>) -> io::Result<Option<Journal>> {
        if !Path::new(SOCKET).exists() {
            return Ok(None);
        }
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let identifier = match facility {
            Some(_) => SYSLOG_IDENTIFIER.to_owned(),
            None => program_name(),
        };
        Ok(Some(Journal {
            socket,
            identifier,
            facility,
        }))
    }

    /// Sends a line. False if it is to be written elsewhere: the journal is gone, or the line is
    /// longer than a datagram. A line that the journal does not take at once is lost: it must
    /// not delay replication.
    pub(crate) fn send(&self, line: &Line) -> bool {
        match self.socket.send_to(self.entry(line).bytes(), SOCKET) {
            Err(e) => e.kind() == ErrorKind::WouldBlock,
            Ok(_) => true,
        }
    }

    fn entry(&self, line: &Line) -> Entry {
        let mut entry = Entry::new(&line.text, priority(line.level), &self.identifier);
        if let Some(Facility(facility)) = self.facility {
            entry = entry.with("SYSLOG_FACILITY", &facility.to_string());
        }
        if let Some(occasion) = line.fields.occasion {
            entry = (entry.with("MESSAGE_ID", occasion.message_id()))
                .with("FTFW_EVENT", occasion.name());
        }
        (line.fields.list.iter()).fold(entry, |entry, (field, value)| {
            entry.with(field.name(), value)
        })
    }
}

/// As the service manager names the lines of a program.
fn program_name() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or("ftfw".as_ref());
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::{Field, Fields, Level, Occasion};

    #[test]
    fn a_value_of_several_lines_has_its_length_before_it() {
        let journal = Journal {
            socket: UnixDatagram::unbound().unwrap(),
            identifier: "ftfw".to_owned(),
            facility: Some(Facility(3)),
        };
        let fields = Fields::from(Occasion::CommitEnded).with(Field::Flows, 12);
        let line = Line::new(Level::Error, "one\ntwo", fields);
        let wanted = [
            &b"MESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\n"[..],
            b"PRIORITY=3\nSYSLOG_IDENTIFIER=ftfw\nSYSLOG_FACILITY=3\n",
            b"MESSAGE_ID=55b665af902a48019e4c99cdf8c21b42\nFTFW_EVENT=commit-ended\n",
            b"FTFW_FLOWS=12\n",
        ]
        .concat();
        let entry = journal.entry(&line);
        assert_eq!(
            String::from_utf8_lossy(entry.bytes()),
            String::from_utf8_lossy(&wanted)
        );
    }
}
