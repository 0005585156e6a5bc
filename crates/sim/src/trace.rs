//! What happened: one digest of everything, and lines for those who want to read.

use std::fmt;

use flow::{Flow, L4};
use replica::Instant;

/// FNV-1a of 64 bits (Fowler, Noll, Vo): equal runs have equal digests.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Takes bytes in.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The digest so far.
    pub fn value(self) -> u64 {
        self.0
    }
}

/// The trace of a run.
#[derive(Debug, Default)]
pub struct Trace {
    digest: Digest,
    /// Print every line as it comes.
    pub is_printed: bool,
    /// Print everything about flows with this source port, too.
    pub watched: Option<u16>,
}

impl Trace {
    /// Something happened.
    pub fn line(&mut self, now: Instant, what: fmt::Arguments<'_>) {
        let ms = now.since(Instant::START).as_millis();
        let line = format!("{ms:>8} ms  {what}");
        if self.is_printed {
            println!("{line}");
        }
        self.digest.add(line.as_bytes());
    }

    /// Something happened to a flow: printed if it is watched, and no part of the digest.
    pub fn flow(&self, now: Instant, flow: &Flow, what: fmt::Arguments<'_>) {
        let port = match flow.orig.l4 {
            L4::Ports { src, .. } => src,
            _ => 0,
        };
        if self.watched == Some(port) {
            let ms = now.since(Instant::START).as_millis();
            let version = flow.mark.map_or(0, |m| m.0);
            let state = flow.tcp_state().map_or(0, |s| s.0);
            println!("{ms:>8} ms    {what}, version {version}, state {state}");
        }
    }

    /// A datagram was sent.
    pub fn datagram(&mut self, from: usize, bytes: &[u8]) {
        self.digest.add(&[from as u8]);
        self.digest.add(bytes);
    }

    /// The digest of everything so far.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }
}
