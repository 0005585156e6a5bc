//! What is noted about an expectation of our kernel, and about one of the peer's.

use wire::Seq;

use crate::receive::PeerId;

/// Of our kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ours {
    /// It has ended; the entry waits until that has been announced.
    pub(crate) has_ended: bool,
    /// Found in the kernel at the start or committed: it is not announced before a bulk update.
    pub(crate) is_found: bool,
    /// The last comparison with the kernel did not see it.
    pub(crate) is_doubted: bool,
    /// Number of the last sweep that saw it.
    pub(crate) sweep: u8,
    /// Its version, 0 if it has none.
    pub(crate) version: u64,
}

impl Ours {
    /// The kernel has reported it.
    pub(crate) fn reported(&mut self) {
        self.has_ended = false;
        self.is_doubted = false;
    }
}

/// Of the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Theirs {
    /// Number of the message that last announced it.
    pub(crate) seq: Seq,
    /// The peer that did so, and which of its epochs, as we count them, it was in.
    pub(crate) peer: PeerId,
    pub(crate) epoch: u8,
    /// It has ended; the entry waits until the kernel has it no more.
    pub(crate) has_ended: bool,
    /// It is in the queue of what is owed to the kernel.
    pub(crate) is_unwritten: bool,
    /// Our kernel has it from us.
    pub(crate) is_in_kernel: bool,
}

impl Theirs {
    /// The message `seq` of a peer in an epoch has announced it.
    pub(crate) fn announced(&mut self, peer: PeerId, epoch: u8, seq: Seq) {
        self.peer = peer;
        self.epoch = epoch;
        self.seq = seq;
        self.has_ended = false;
    }
}
