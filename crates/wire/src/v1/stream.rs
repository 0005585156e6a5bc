//! Reassembly of messages from a byte stream (the TCP transport).

use thiserror::Error;

use super::header::HEADER_LEN;

/// The stream cannot be followed any more; the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// A length field below that of a header (8).
    #[error("message length {0} on a stream: the boundaries are lost")]
    Length(u16),
    /// The high nibble of a message's first byte, which is not 1.
    #[error("protocol version {0} on a stream: the boundaries are lost")]
    Version(u8),
}

/// Bytes of one connection that do not yet make a whole message.
///
/// One per accepted connection. The only framing is the messages' own length
/// (wire-protocol.md, section 1.1), so nothing is found again behind a header that is wrong.
///
/// Invariant: the buffer never grows beyond one message (65 535 bytes) and one read.
#[derive(Debug, Default)]
pub struct Stream {
    buffer: Vec<u8>,
    /// Bytes at the front that are whole messages.
    whole: usize,
}

impl Stream {
    /// A connection of which nothing has been read.
    pub fn new() -> Stream {
        Stream::default()
    }

    /// Takes what was read. True if there are whole messages, which [`Stream::row`] returns.
    ///
    /// # Errors
    /// A header that is wrong. What precedes it comes first, and the error with the next
    /// call, which may bring no bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, StreamError> {
        self.buffer.drain(..self.whole);
        self.whole = 0;
        self.buffer.extend_from_slice(bytes);
        while let Some(head) = self.buffer.get(self.whole..self.whole + 4) {
            match length(head) {
                Ok(len) if self.buffer.len() - self.whole >= len => self.whole += len,
                Err(error) if self.whole == 0 => return Err(error),
                Ok(_) | Err(_) => break,
            }
        }
        Ok(self.whole > 0)
    }

    /// The whole messages that the last [`Stream::push`] found, one after the other.
    pub fn row(&self) -> &[u8] {
        &self.buffer[..self.whole]
    }
}

/// The length of the message whose first four bytes these are.
fn length(head: &[u8]) -> Result<usize, StreamError> {
    let version = head[0] >> 4;
    if version != 1 {
        return Err(StreamError::Version(version));
    }
    let len = u16::from_be_bytes([head[2], head[3]]);
    if usize::from(len) < HEADER_LEN {
        return Err(StreamError::Length(len));
    }
    Ok(usize::from(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seq;
    use crate::v1::{Control, Flags, encode_control};

    #[test]
    fn messages_survive_any_split() {
        let mut all = Vec::new();
        for n in 0..5 {
            encode_control(&mut all, Control::Alive, Flags::NONE, Seq(n));
            encode_control(&mut all, Control::Resync, Flags::NONE, Seq(n));
        }
        for step in 1..all.len() {
            let (mut stream, mut got) = (Stream::new(), Vec::new());
            for part in all.chunks(step) {
                if stream.push(part).unwrap() {
                    got.extend_from_slice(stream.row());
                }
            }
            assert_eq!(got, all, "split every {step} bytes");
        }
    }

    #[test]
    fn a_wrong_header_ends_the_stream_after_what_precedes_it() {
        for (wrong, error) in [
            ([0x1a, 0, 0, 3], StreamError::Length(3)),
            ([0x2a, 0, 0, 8], StreamError::Version(2)),
        ] {
            let mut all = Vec::new();
            encode_control(&mut all, Control::Alive, Flags::NONE, Seq(1));
            all.extend_from_slice(&wrong);
            let mut stream = Stream::new();
            assert_eq!(stream.push(&all), Ok(true));
            assert_eq!(stream.row().len(), 8);
            assert_eq!(stream.push(&[]), Err(error));
        }
    }
}
