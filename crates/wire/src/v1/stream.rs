//! Reassembly of messages from a byte stream (the TCP transport).

use thiserror::Error;

/// The stream cannot be followed any more; the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("message length {0} on a stream: the boundaries are lost")]
pub struct StreamError(pub u16);

/// Bytes of one connection that do not yet make a whole message.
///
/// One per accepted connection. The only framing is the messages' own length,
/// so a length below that of a header can never be recovered from.
///
/// Invariant: the buffer never grows beyond one message and one push.
#[derive(Debug, Default)]
pub struct Stream {
    buffer: Vec<u8>,
}

impl Stream {
    /// A connection of which nothing has been read.
    pub fn new() -> Stream {
        Stream::default()
    }

    /// Takes what was read and passes the whole messages to `deliver`, if there are any.
    ///
    /// # Errors
    /// A length field below 8: what precedes it has been delivered.
    pub fn push(&mut self, bytes: &[u8], deliver: impl FnOnce(&[u8])) -> Result<(), StreamError> {
        self.buffer.extend_from_slice(bytes);
        let mut whole = 0;
        let mut result = Ok(());
        while let Some(head) = self.buffer.get(whole..whole + 4) {
            let len = u16::from_be_bytes([head[2], head[3]]);
            if len < 8 {
                result = Err(StreamError(len));
                break;
            }
            if self.buffer.len() - whole < usize::from(len) {
                break;
            }
            whole += usize::from(len);
        }
        if whole > 0 {
            deliver(&self.buffer[..whole]);
            self.buffer.drain(..whole);
        }
        result
    }
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
                stream.push(part, |b| got.extend_from_slice(b)).unwrap();
            }
            assert_eq!(got, all, "split every {step} bytes");
        }
    }

    #[test]
    fn a_length_below_a_header_ends_the_stream() {
        let mut all = Vec::new();
        encode_control(&mut all, Control::Alive, Flags::NONE, Seq(1));
        all.extend_from_slice(&[0x1a, 0, 0, 3, 0]);
        let mut got = Vec::new();
        let result = Stream::new().push(&all, |b| got.extend_from_slice(b));
        assert_eq!(result, Err(StreamError(3)));
        assert_eq!(got.len(), 8);
    }
}
