//! What happened: one digest of everything, and lines for those who want to read.

use std::fmt;
use std::hash::Hasher;

use flow::{Expectation, Flow, Tuple};
use replica::Instant;

use crate::check::expectation_version;

/// A number, odd and without a pattern in its bits: the golden ratio as 64 bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A digest of 64 bits, eight bytes at a time: equal runs have equal digests. It also hashes
/// keys, in the same way in each run.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(GOLDEN)
    }
}

impl Digest {
    /// Takes bytes in.
    pub fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(GOLDEN);
    }

    /// The digest so far.
    pub fn value(self) -> u64 {
        // The upper bits depend on all of the input, the lower ones on little of it.
        self.0 ^ (self.0 >> 32)
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.value()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.add(bytes);
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.mix(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
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

    /// Something that follows from the lines: printed, and no part of the digest.
    pub fn remark(&self, now: Instant, what: fmt::Arguments<'_>) {
        if self.is_printed {
            println!("{:>8} ms    {what}", now.since(Instant::START).as_millis());
        }
    }

    /// Something happened to a flow: printed if it is watched, and no part of the digest.
    pub fn flow(&self, now: Instant, flow: &Flow, what: fmt::Arguments<'_>) {
        let of = flow.master.unwrap_or(flow.orig);
        if self.is_watched(&of) {
            let ms = now.since(Instant::START).as_millis();
            let version = flow.mark.map_or(0, |m| m.0);
            let state = flow.tcp_state().map_or(0, |s| s.0);
            println!("{ms:>8} ms    {what}, version {version}, state {state}");
        }
    }

    /// The same for an expectation, which is watched with its master.
    pub fn expectation(&self, now: Instant, e: &Expectation, what: fmt::Arguments<'_>) {
        if self.is_watched(&e.master) {
            let ms = now.since(Instant::START).as_millis();
            let version = expectation_version(e);
            println!(
                "{ms:>8} ms    {what}, expectation {}, version {version}",
                e.key()
            );
        }
    }

    fn is_watched(&self, orig: &Tuple) -> bool {
        self.watched.is_some() && self.watched == Some(orig.ports().0)
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
