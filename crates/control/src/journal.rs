//! An entry of systemd's journal, with fields that are ours: its native protocol, one datagram an
//! entry. The meaning of the fields is in docs/journal.md.

/// The journal's socket.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// A field that is ours. `FTFW_EVENT` is beside them: the daemon's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// An instance of the HA manager.
    Instance,
    /// The role that this firewall has in the instance, or takes.
    Role,
    /// The address from which the peer was last heard.
    Peer,
    /// The interface of a dedicated link.
    Link,
    /// How many flows the line is about.
    Flows,
    /// How many flows, expectations or deletes the kernel refused.
    Refused,
    /// How long it took, or has lasted.
    Seconds,
}

impl Field {
    /// Its name in the journal.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Field::Instance => "FTFW_INSTANCE",
            Field::Role => "FTFW_ROLE",
            Field::Peer => "FTFW_PEER",
            Field::Link => "FTFW_LINK",
            Field::Flows => "FTFW_FLOWS",
            Field::Refused => "FTFW_REFUSED",
            Field::Seconds => "FTFW_SECONDS",
        }
    }
}

/// The bytes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry(Vec<u8>);

impl Entry {
    /// `priority`: one of `LOG_EMERG` (0) to `LOG_DEBUG` (7). `identifier`: the program's name.
    #[must_use]
    pub fn new(text: &str, priority: u8, identifier: &str) -> Entry {
        Entry(Vec::new())
            .with("MESSAGE", text)
            .with("PRIORITY", &priority.to_string())
            .with("SYSLOG_IDENTIFIER", identifier)
    }

    /// Appends a field: `NAME=value`, or with its length (64 bits, little endian) if the value
    /// has several lines.
    #[must_use]
    pub fn with(self, name: &str, value: &str) -> Entry {
        let Entry(mut bytes) = self;
        bytes.extend(name.as_bytes());
        if value.contains('\n') {
            bytes.push(b'\n');
            bytes.extend((value.len() as u64).to_le_bytes());
        } else {
            bytes.push(b'=');
        }
        bytes.extend(value.as_bytes());
        bytes.push(b'\n');
        Entry(bytes)
    }

    /// The datagram for the journal's socket.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
