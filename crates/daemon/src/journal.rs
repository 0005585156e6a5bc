//! Lines for systemd's journal, with fields: its native protocol, one datagram a line.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use config::Facility;

use crate::line::Line;
use crate::log::priority;

const SOCKET: &str = "/run/systemd/journal/socket";
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
        match self.socket.send_to(&self.encode(line), SOCKET) {
            Err(e) => e.kind() == ErrorKind::WouldBlock,
            Ok(_) => true,
        }
    }

    fn encode(&self, line: &Line) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, "MESSAGE", &line.text);
        put(&mut bytes, "PRIORITY", &priority(line.level).to_string());
        put(&mut bytes, "SYSLOG_IDENTIFIER", &self.identifier);
        if let Some(Facility(facility)) = self.facility {
            put(&mut bytes, "SYSLOG_FACILITY", &facility.to_string());
        }
        if let Some(occasion) = line.fields.occasion {
            put(&mut bytes, "MESSAGE_ID", occasion.message_id());
            put(&mut bytes, "FTFW_EVENT", occasion.name());
        }
        for (field, value) in &line.fields.list {
            put(&mut bytes, field.name(), value);
        }
        bytes
    }
}

/// Appends a field: `NAME=value`, or with its length (64 bits, little endian) if the value has
/// several lines.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend(value.as_bytes());
    bytes.push(b'\n');
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
        let encoded = journal.encode(&line);
        assert_eq!(
            String::from_utf8_lossy(&encoded),
            String::from_utf8_lossy(&wanted)
        );
    }
}
