//! Packing messages into datagrams of the link's size.

/// A datagram being filled.
///
/// The original appends a message when `used + len < size`, strictly, where
/// `size` is the MTU less an allowance for headers (28 for UDP, 40 for TCP); so
/// the largest payload is one byte below `size`.
///
/// Invariant: `bytes` holds whole messages and is shorter than `size`.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    size: usize,
}

impl Batch {
    /// `mtu` is the link's, in bytes; `allowance` what IP and transport headers take.
    ///
    /// Over IPv6 a caller passes 48, so that no datagram is fragmented; the
    /// original passes 28 and relies on fragments.
    pub fn new(mtu: usize, allowance: usize) -> Batch {
        let size = mtu.saturating_sub(allowance).max(Self::SIZE_MIN);
        Batch {
            bytes: Vec::with_capacity(size),
            size,
        }
    }

    /// Every single message fits below this many bytes, whatever the link's MTU.
    pub const SIZE_MIN: usize = 512;

    /// Appends what `encode` writes. If it does not fit, the batch is left as it
    /// was and `false` is returned: send, [`Batch::clear`], then try again.
    pub fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let before = self.bytes.len();
        encode(&mut self.bytes);
        if self.bytes.len() >= self.size {
            assert!(before > 0, "a single message is larger than a datagram");
            self.bytes.truncate(before);
            return false;
        }
        true
    }

    /// The datagram so far; empty if there is nothing to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Starts the next datagram.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_strict_and_a_refused_message_leaves_no_trace() {
        let mut b = Batch::new(540, 28);
        assert!(b.push(|o| o.extend_from_slice(&[1; 500])));
        assert!(!b.push(|o| o.extend_from_slice(&[2; 12])));
        assert_eq!(b.bytes().len(), 500);
        assert!(b.push(|o| o.extend_from_slice(&[2; 11])));
        assert_eq!(b.bytes().len(), 511);
        b.clear();
        assert!(b.bytes().is_empty());
    }
}
