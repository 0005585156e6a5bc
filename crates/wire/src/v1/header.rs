//! Message headers, framing within a datagram, control messages.

use thiserror::Error;

use super::Trailer;
use crate::{ObjectKind, Seq, StateKind};

const VERSION: u8 = 1;
const TYPE_CONTROL: u8 = 10;
pub(super) const HEADER_LEN: usize = 8;
const RANGE_LEN: usize = 16;

/// Flag bits of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// Send me your whole internal cache.
    pub const RESYNC: Flags = Flags(0x02);
    /// I miss the range: send it again.
    pub const NACK: Flags = Flags(0x04);
    /// I have the range.
    pub const ACK: Flags = Flags(0x08);
    /// No content; the sender is alive.
    pub const ALIVE: Flags = Flags(0x10);
    /// I have just started; my sequence restarts here.
    pub const HELLO: Flags = Flags(0x20);
    /// I saw your HELLO.
    pub const HELLO_BACK: Flags = Flags(0x40);

    const RANGE: Flags = Flags(Self::RESYNC.0 | Self::NACK.0 | Self::ACK.0);
    /// Both flags of the greeting.
    pub const GREETING: Flags = Flags(Self::HELLO.0 | Self::HELLO_BACK.0);

    /// True if any bit of `other` is set.
    pub fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// With the bits of `other` set.
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Without the bits of `other`.
    pub fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

/// Type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// Types 0 to 5.
    State(ObjectKind, StateKind),
    /// Type 10.
    Control,
    /// Any other number.
    Other(u8),
}

impl MessageType {
    fn from_nibble(n: u8) -> MessageType {
        use {ObjectKind as O, StateKind as S};
        match n {
            0 => MessageType::State(O::Flow, S::New),
            1 => MessageType::State(O::Flow, S::Update),
            2 => MessageType::State(O::Flow, S::Delete),
            3 => MessageType::State(O::Expectation, S::New),
            4 => MessageType::State(O::Expectation, S::Update),
            5 => MessageType::State(O::Expectation, S::Delete),
            TYPE_CONTROL => MessageType::Control,
            n => MessageType::Other(n),
        }
    }

    fn nibble(self) -> u8 {
        match self {
            MessageType::State(object, state) => {
                let base = match object {
                    ObjectKind::Flow => 0,
                    ObjectKind::Expectation => 3,
                };
                base + match state {
                    StateKind::New => 0,
                    StateKind::Update => 1,
                    StateKind::Delete => 2,
                }
            }
            MessageType::Control => TYPE_CONTROL,
            MessageType::Other(n) => n & 15,
        }
    }
}

/// Header of a message, 8 bytes, or 16 with a range.
///
/// | Offset | Size | Field   | Order | Meaning                                      |
/// |-------:|-----:|---------|-------|----------------------------------------------|
/// |      0 |    1 | version |       | high nibble: 1                               |
/// |        |      | type    |       | low nibble, see [`MessageType`]              |
/// |      1 |    1 | flags   |       | see [`Flags`]                                |
/// |      2 |    2 | length  | big   | whole message with header, in bytes          |
/// |      4 |    4 | seq     | big   | see [`Seq`]; wraps                           |
/// |      8 |    4 | from    | big   | only in control with ACK, NACK, RESYNC       |
/// |     12 |    4 | to      | big   | the same; inclusive                          |
///
/// Source: wire protocol specification, section 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type.
    pub kind: MessageType,
    /// Flags.
    pub flags: Flags,
    /// Sequence number.
    pub seq: Seq,
    /// First and last sequence number of a control message's range.
    pub range: Option<(Seq, Seq)>,
}

/// One message of a datagram. `body` is what follows the header and range: the
/// attributes of a state message, or bytes that a control message may trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Header.
    pub header: Header,
    /// Rest of the message.
    pub body: &'a [u8],
}

/// Why a message, or the rest of a datagram, could not be framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Fewer bytes than a header are left. Ends the datagram.
    #[error("truncated message: {have} bytes where a header needs {need}")]
    Truncated {
        /// Bytes needed.
        need: usize,
        /// Bytes left.
        have: usize,
    },
    /// The length field is smaller than the header or larger than what is left. Ends the datagram.
    #[error("bad message size {len}, {have} bytes are left")]
    BadSize {
        /// The length field.
        len: usize,
        /// Bytes left.
        have: usize,
    },
    /// Not version 1. The next message of the datagram is tried.
    #[error("wrong protocol version {0}")]
    WrongVersion(u8),
}

/// Iterator over the messages of one datagram, see [`messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

/// Splits a datagram, or several whole messages of a stream, into messages.
pub fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages { rest: datagram }
}

impl<'a> Messages<'a> {
    fn next_message(&mut self) -> Result<Message<'a>, FrameError> {
        let have = self.rest.len();
        let Some((head, _)) = self.rest.split_first_chunk::<HEADER_LEN>() else {
            return Err(FrameError::Truncated {
                need: HEADER_LEN,
                have,
            });
        };
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let bad_size = FrameError::BadSize { len, have };
        if len == 0 || len > have {
            return Err(bad_size);
        }
        let kind = MessageType::from_nibble(head[0] & 15);
        let flags = Flags(head[1]);
        let ranged = kind == MessageType::Control && flags.intersects(Flags::RANGE);
        let header_len = if ranged { RANGE_LEN } else { HEADER_LEN };
        if have < header_len {
            return Err(FrameError::Truncated {
                need: header_len,
                have,
            });
        }
        if len < header_len {
            return Err(bad_size);
        }
        let (message, rest) = self.rest.split_at(len);
        self.rest = rest;
        if head[0] >> 4 != VERSION {
            return Err(FrameError::WrongVersion(head[0] >> 4));
        }
        let seq_at = |at: usize| {
            Seq(u32::from_be_bytes(
                message[at..at + 4].try_into().expect("4 bytes"),
            ))
        };
        Ok(Message {
            header: Header {
                kind,
                flags,
                seq: seq_at(4),
                range: ranged.then(|| (seq_at(8), seq_at(12))),
            },
            body: &message[header_len..],
        })
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let result = self.next_message();
        if let Err(FrameError::Truncated { .. } | FrameError::BadSize { .. }) = result {
            self.rest = &[];
        }
        Some(result)
    }
}

/// Content of a control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// I have these, both ends inclusive.
    Ack(Seq, Seq),
    /// I miss these, both ends inclusive.
    Nack(Seq, Seq),
    /// Send me your whole internal cache.
    Resync,
    /// No content; the sender is alive.
    Alive,
}

/// Starts a message; the length is filled in by [`finish`].
pub(super) fn start(out: &mut Vec<u8>, kind: MessageType, flags: Flags, seq: Seq) -> usize {
    let at = out.len();
    out.extend_from_slice(&[VERSION << 4 | kind.nibble(), flags.0, 0, 0]);
    out.extend_from_slice(&seq.0.to_be_bytes());
    at
}

/// Fills in the length of the message that starts at `at` and ends with `out`.
pub(super) fn finish(out: &mut [u8], at: usize) {
    let len = u16::try_from(out.len() - at).expect("no message comes near 64 KiB");
    out[at + 2..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// Appends a control message of 8 (ALIVE) or 16 bytes. `greeting` is HELLO, HELLO_BACK or none.
pub fn encode_control(out: &mut Vec<u8>, control: Control, greeting: Flags, seq: Seq) {
    let (flags, range) = match control {
        Control::Ack(from, to) => (Flags::ACK, Some((from, to))),
        Control::Nack(from, to) => (Flags::NACK, Some((from, to))),
        Control::Resync => (Flags::RESYNC, Some((Seq(0), Seq(0)))),
        Control::Alive => (Flags::ALIVE, None),
    };
    let at = start(out, MessageType::Control, flags.with(greeting), seq);
    if let Some((from, to)) = range {
        out.extend_from_slice(&from.0.to_be_bytes());
        out.extend_from_slice(&to.0.to_be_bytes());
    }
    finish(out, at);
}

/// Appends an ALIVE with a trailer, [`Trailer::LEN`] bytes longer than a plain one.
pub fn encode_alive(out: &mut Vec<u8>, trailer: &Trailer, greeting: Flags, seq: Seq) {
    let flags = Flags::ALIVE.with(greeting);
    let at = start(out, MessageType::Control, flags, seq);
    trailer.encode(out);
    finish(out, at);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_compare_across_the_wrap() {
        assert!(Seq(u32::MAX).before(Seq(0)));
        assert_eq!(Seq(2).ahead_of(Seq(u32::MAX)), 3);
        assert!(!Seq(5).before(Seq(5)));
    }

    #[test]
    fn a_bad_size_ends_the_datagram_and_a_bad_version_does_not() {
        let mut bytes = Vec::new();
        encode_control(&mut bytes, Control::Alive, Flags::NONE, Seq(1));
        bytes[0] = 0x3a;
        encode_control(&mut bytes, Control::Alive, Flags::NONE, Seq(2));
        bytes.extend_from_slice(&[0x1a, 0x10, 0, 7, 0, 0, 0, 3]);
        encode_control(&mut bytes, Control::Alive, Flags::NONE, Seq(4));
        let seen: Vec<_> = messages(&bytes).map(|m| m.map(|m| m.header.seq)).collect();
        assert_eq!(
            seen,
            [
                Err(FrameError::WrongVersion(3)),
                Ok(Seq(2)),
                Err(FrameError::BadSize { len: 7, have: 16 })
            ]
        );
    }
}
