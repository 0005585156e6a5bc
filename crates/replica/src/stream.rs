//! The sending half: what is owed to the peer → datagrams of the link's size.
//!
//! Version 1 has one stream of numbered messages for everybody who listens. Each message
//! is built when it is sent, from the entry's present state, and taken from the first of
//! these that has one: control messages, events without an internal cache, what was
//! missed, the live cursor, the paced cursor (ALARM), the catch-up cursor, the bulk
//! cursor, expectations.
//!
//! A datagram of offers begins with an ALIVE that marks it as such; nothing else is in it.

use std::collections::VecDeque;
use std::time::Duration;

use cache::{Slot, Ticket};
use flow::{Expectation, Flow};
use wire::v1::{Batch, Control};
use wire::{Seq, StateKind};

use crate::mode::Mode;
use crate::settings::Settings;
use crate::time::Instant;

/// A replica that has sent nothing for this long sends an ALIVE.
pub(crate) const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Most events that wait without an internal cache: about 20 MiB. Then the oldest
/// is dropped and counted.
pub(crate) const DIRECT_MAX: usize = 65_536;

/// Most control messages that wait to be sent.
const CONTROLS_MAX: usize = 1024;

/// What a message without an internal cache is about.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are flows, and the queue is bounded"
)]
pub(crate) enum Object {
    Flow(Flow),
    Expectation(Expectation),
}

/// A message without an internal cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Direct {
    pub(crate) kind: StateKind,
    pub(crate) object: Object,
    pub(crate) is_offer: bool,
}

/// Where the next message about a flow comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Missed,
    Live,
    Paced,
    CatchUp,
    Bulk,
}

/// The next message about a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    pub(crate) slot: Slot,
    pub(crate) source: Source,
    pub(crate) is_offer: bool,
}

/// Sending half of the replica.
#[derive(Debug)]
pub(crate) struct Stream {
    seq: Seq,
    /// Messages sent in this epoch.
    sent: u64,
    pub(crate) batch: Batch,
    pub(crate) controls: VecDeque<Control>,
    /// How often a peer's numbers have begun anew: answers are about those of one time.
    answers: u64,
    pub(crate) direct: VecDeque<Direct>,
    /// Messages about flows that the peer has missed, unless the flow has changed since.
    pub(crate) missed: VecDeque<(Ticket, u64)>,
    /// Entries that the catch-up and the bulk cursor may still pass in this turn.
    allowance: usize,
    /// The peer has answered since a message last left the ring: catching up makes sense.
    pub(crate) may_catch_up: bool,
    /// When ALIVE is due; `None` in modes without control messages.
    pub(crate) alive_at: Option<Instant>,
}

impl Stream {
    pub(crate) fn new(settings: &Settings) -> Stream {
        Stream {
            seq: settings.first_seq,
            sent: 0,
            batch: batch_for(settings),
            controls: VecDeque::new(),
            answers: 0,
            direct: VecDeque::new(),
            missed: VecDeque::new(),
            allowance: 0,
            may_catch_up: false,
            alive_at: matches!(settings.mode, Mode::Notrack | Mode::Ftfw)
                .then_some(Instant::START + ALIVE_INTERVAL),
        }
    }

    /// Owes a control message, once. A peer's gaps can cause any number while the link
    /// takes none: beyond the bound the oldest is forgotten, which the repetition of what
    /// stays unacknowledged makes good.
    pub(crate) fn owe(&mut self, control: Control) {
        if self.controls.contains(&control) {
            return;
        }
        if self.controls.len() >= CONTROLS_MAX {
            self.controls.pop_front();
        }
        self.controls.push_back(control);
    }

    /// The numbers of a peer begin anew: what we still owe of answers is about others.
    pub(crate) fn void_answers(&mut self) {
        self.answers += 1;
        self.controls.retain(|control| !is_answer(control));
    }

    /// What distinguishes a control message sent now from an older one with the same numbers.
    pub(crate) fn answers(&self) -> u64 {
        self.answers
    }

    /// The peer has missed a control message, which was sent when `answers` was this. An
    /// answer about former numbers would confirm what has not come under the new ones.
    pub(crate) fn owe_again(&mut self, control: Control, answers: u64) {
        if answers == self.answers || !is_answer(&control) {
            self.owe(control);
        }
    }

    /// The peer has missed a message about a flow.
    pub(crate) fn owe_missed(&mut self, ticket: Ticket, version: u64) {
        self.missed.push_back((ticket, version));
    }

    /// Messages that the peer has missed and that are not sent again yet, at most.
    pub(crate) fn missed(&self) -> usize {
        self.missed.len()
    }

    /// Keeps of what was missed what `keep` wants.
    pub(crate) fn retain_missed(&mut self, mut keep: impl FnMut(Ticket, u64) -> bool) {
        self.missed
            .retain(|(ticket, version)| keep(*ticket, *version));
    }

    /// The peer answers.
    pub(crate) fn may_catch_up(&mut self) {
        self.may_catch_up = true;
    }

    /// Lets the second cursors pass so many entries.
    pub(crate) fn allow(&mut self, entries: usize) {
        self.allowance = entries;
    }

    pub(crate) fn has_allowance(&self) -> bool {
        self.allowance > 0
    }

    pub(crate) fn use_allowance(&mut self) {
        self.allowance = self.allowance.saturating_sub(1);
    }

    pub(crate) fn next_seq(&self) -> Seq {
        self.seq
    }

    /// True if this stream has sent a message under this number.
    pub(crate) fn has_sent(&self, seq: Seq) -> bool {
        let ago = self.seq.ahead_of(seq);
        ago > 0 && u64::from(ago.unsigned_abs()) <= self.sent
    }

    pub(crate) fn is_direct_half_full(&self) -> bool {
        self.direct.len() >= DIRECT_MAX / 2
    }

    pub(crate) fn alive_at(&self) -> Option<Instant> {
        self.alive_at
    }

    pub(crate) fn datagram(&self) -> &[u8] {
        self.batch.bytes()
    }

    /// Appends a message under the next sequence number, which is returned; `None` if
    /// the datagram is full.
    pub(crate) fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>, Seq)) -> Option<Seq> {
        let seq = self.seq;
        if !self.batch.push(|out| encode(out, seq)) {
            return None;
        }
        self.seq = seq.next();
        self.sent += 1;
        Some(seq)
    }
}

/// A batch for the link with the least room: any datagram then fits every link.
fn batch_for(settings: &Settings) -> Batch {
    let sizes = settings.links.iter().map(|l| (l.mtu, l.allowance));
    let (mtu, allowance) = sizes
        .min_by_key(|(mtu, allowance)| mtu.saturating_sub(*allowance))
        .unwrap_or((1500, 28));
    Batch::new(mtu, allowance)
}

/// True if a control message is about the peer's numbers.
fn is_answer(control: &Control) -> bool {
    matches!(control, Control::Ack(..) | Control::Nack(..))
}
