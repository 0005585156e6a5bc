//! What is owed to the peer → datagrams of the link's size.
//!
//! Entries of the internal cache are owed by being queued; the message is built
//! when it is sent, from the entry's present state. Without an internal cache,
//! events wait in a bounded queue of their own.
//!
//! A datagram of offers begins with an ALIVE that says so; nothing else is in it.

use std::collections::VecDeque;
use std::time::Duration;

use cache::{List, Slot};
use flow::{Expectation, Flow};
use wire::v1::{
    Batch, Control, Flags, FlowOptions, Mode, Seq, StateKind, encode_alive, encode_control,
    encode_expectation, encode_flow,
};

use crate::ftfw::Ftfw;
use crate::{Instant, Replica, Settings, batch_for, marks};

/// A replica that has sent nothing for this long says that it is alive.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Most events that wait without an internal cache: about 20 MiB. Then the oldest
/// is dropped and counted.
const DIRECT_MAX: usize = 65_536;

/// Most control messages that wait to be sent, or to be acknowledged.
pub(crate) const CONTROLS_MAX: usize = 1024;

/// What a message without an internal cache is about.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are flows, and the queue is bounded"
)]
enum Object {
    Flow(Flow),
    Expectation(Expectation),
}

/// A message without an internal cache.
#[derive(Clone, Copy, Debug)]
struct Direct {
    kind: StateKind,
    object: Object,
    is_offer: bool,
}

/// Sending side towards the peer.
#[derive(Debug)]
pub(crate) struct Outbox {
    seq: Seq,
    batch: Batch,
    controls: VecDeque<Control>,
    direct: VecDeque<Direct>,
    /// When ALIVE is due; `None` in ALARM, which never sends control messages.
    alive_at: Option<Instant>,
}

impl Outbox {
    pub(crate) fn new(settings: &Settings) -> Outbox {
        Outbox {
            seq: settings.first_seq,
            batch: batch_for(settings),
            controls: VecDeque::new(),
            direct: VecDeque::new(),
            alive_at: (settings.mode != Mode::Alarm).then_some(Instant::START + ALIVE_INTERVAL),
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

    pub(crate) fn next_seq(&self) -> Seq {
        self.seq
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
        Some(seq)
    }
}

impl Replica {
    /// Queues a message about a flow without an internal cache.
    pub(crate) fn owe_directly(&mut self, kind: StateKind, flow: Flow) {
        self.queue_directly(kind, Object::Flow(flow), false);
    }

    /// Queues the offer of a flow without an internal cache.
    pub(crate) fn offer_directly(&mut self, flow: Flow) {
        self.queue_directly(StateKind::New, Object::Flow(flow), true);
    }

    /// Queues a message about an expectation without an internal cache.
    pub(crate) fn owe_expectation_directly(&mut self, kind: StateKind, e: Expectation) {
        self.queue_directly(kind, Object::Expectation(e), false);
    }

    fn queue_directly(&mut self, kind: StateKind, object: Object, is_offer: bool) {
        if self.outbox.direct.len() >= DIRECT_MAX {
            self.outbox.direct.pop_front();
            self.stats.direct_dropped += 1;
        }
        self.outbox.direct.push_back(Direct {
            kind,
            object,
            is_offer,
        });
    }

    /// Number of objects that wait to be sent.
    pub fn owed(&self) -> usize {
        let expectations = self.expectations.as_ref().map_or(0, |e| e.owed());
        let flows = self.internal_owed() + self.outbox.direct.len();
        flows + expectations + self.outbox.controls.len()
    }

    /// Fills the next datagram with as much as is owed and fits.
    pub(crate) fn fill_datagram(&mut self) {
        self.outbox.batch.clear();
        if self.owes_offers_alone() {
            self.push_alive(true);
            let _ = self.push_direct(true) && self.push_entries(List::Offered);
            return self.datagram_ready();
        }
        if self.leads_with_alive() {
            self.push_control(Control::Alive);
        }
        while let Some(&control) = self.outbox.controls.front() {
            if !self.push_control(control) {
                return self.datagram_ready();
            }
            self.outbox.controls.pop_front();
        }
        if !self.push_direct(false) || !self.push_entries(List::Owed) {
            return self.datagram_ready();
        }
        while let Some(key) = self.next_owed_expectation() {
            if !self.push_expectation(key) {
                return self.datagram_ready();
            }
        }
        // An ALIVE with the trailer is sent every second, even when other messages are.
        let trailer = self.settings.trailer;
        let may = trailer || self.outbox.batch.bytes().is_empty();
        if may && self.outbox.alive_at.is_some_and(|at| at <= self.now) {
            let ack = self.idle_ack();
            if let Some(ack) = ack
                && !self.push_control(ack)
            {
                self.outbox.owe(ack);
            }
            if ack.is_none() || trailer {
                self.push_control(Control::Alive);
            }
        }
        self.datagram_ready();
    }

    /// True if what is owed next are offers.
    fn owes_offers_alone(&mut self) -> bool {
        let (offers, others) = match self.outbox.direct.front() {
            Some(direct) => (direct.is_offer, !direct.is_offer),
            None => (self.internal.queued(List::Offered) > 0, false),
        };
        offers
            && !others
            && self.outbox.controls.is_empty()
            && self.internal.queued(List::Owed) == 0
            && self.next_owed_expectation().is_none()
    }

    fn flow_options(&self) -> FlowOptions {
        FlowOptions {
            timeout: self.settings.commit_timeout.is_none(),
            window_scale: self.settings.window_tracking,
        }
    }

    /// Appends messages without an internal cache, up to one of the other sort; false if
    /// the datagram is full.
    fn push_direct(&mut self, offers: bool) -> bool {
        let options = self.flow_options();
        while let Some(&Direct {
            kind,
            object,
            is_offer,
        }) = self.outbox.direct.front()
            && is_offer == offers
        {
            let encode = |out: &mut Vec<u8>, seq| match &object {
                Object::Flow(flow) => encode_flow(out, kind, Flags::NONE, seq, flow, options),
                Object::Expectation(e) => {
                    encode_expectation(out, kind, Flags::NONE, seq, e, options.timeout);
                }
            };
            if self.outbox.push(encode).is_none() {
                return false;
            }
            self.outbox.direct.pop_front();
            self.stats.messages_sent += 1;
        }
        true
    }

    /// Appends messages about the entries of a queue; false if the datagram is full.
    fn push_entries(&mut self, list: List) -> bool {
        let options = self.flow_options();
        while let Some(slot) = self.internal.front(list) {
            let kind = if self.internal.has(slot, marks::DEAD) {
                StateKind::Delete
            } else if self.internal.has(slot, marks::UPDATED) {
                StateKind::Update
            } else {
                StateKind::New
            };
            // The peer counts a timeout from when it receives it.
            let flow = Replica::aged_flow(&self.internal, slot, self.now);
            let flags = self.greeting();
            let encode = |out: &mut Vec<u8>, seq| {
                encode_flow(out, kind, flags, seq, &flow, options);
            };
            let Some(seq) = self.outbox.push(encode) else {
                return false;
            };
            self.stats.messages_sent += 1;
            self.entry_sent(slot, seq);
        }
        true
    }

    /// Until the peer has acknowledged our epoch, every datagram begins with an ALIVE
    /// that carries it.
    fn leads_with_alive(&self) -> bool {
        let unknown = self.ftfw.as_ref().is_some_and(Ftfw::is_unknown);
        let first = self.outbox.controls.front();
        unknown && self.settings.trailer && first != Some(&Control::Alive) && self.owed() > 0
    }

    pub(crate) fn greeting(&self) -> Flags {
        self.ftfw.as_ref().map_or(Flags::NONE, Ftfw::greeting)
    }

    /// Appends a control message; false if the datagram is full.
    fn push_control(&mut self, control: Control) -> bool {
        if control == Control::Alive {
            return self.push_alive(false);
        }
        let flags = self.greeting();
        let encode = |out: &mut Vec<u8>, seq| encode_control(out, control, flags, seq);
        let Some(seq) = self.outbox.push(encode) else {
            return false;
        };
        self.control_sent(seq, control);
        true
    }

    /// Appends an ALIVE, with what it says of itself; `offers`: what follows are offers.
    fn push_alive(&mut self, offers: bool) -> bool {
        let flags = self.greeting();
        let trailer = self.trailer(offers);
        let encode = |out: &mut Vec<u8>, seq| match &trailer {
            Some(trailer) => encode_alive(out, trailer, flags, seq),
            None => encode_control(out, Control::Alive, flags, seq),
        };
        let Some(seq) = self.outbox.push(encode) else {
            return false;
        };
        if trailer.is_some() {
            self.bulk.on_alive_sent(seq);
            self.outbox.alive_at = Some(self.now + ALIVE_INTERVAL);
        }
        self.control_sent(seq, Control::Alive);
        true
    }

    fn control_sent(&mut self, seq: Seq, control: Control) {
        self.stats.messages_sent += 1;
        if let Some(ftfw) = &mut self.ftfw {
            ftfw.on_sent(self.now, seq, Some(control));
        }
    }

    /// An owed entry has been sent under `seq`.
    fn entry_sent(&mut self, slot: Slot, seq: Seq) {
        let set = if self.internal.has(slot, marks::SILENT) {
            marks::OFFERED
        } else {
            0
        };
        self.internal.mark(slot, set, marks::UNTOLD);
        let has_ended = self.internal.has(slot, marks::DEAD);
        if let Some(ftfw) = &mut self.ftfw {
            ftfw.on_sent(self.now, seq, None);
            self.internal.meta_mut(slot).seq = seq.0;
            self.internal.queue(slot, List::Sent);
            if has_ended {
                self.bound_dead();
            }
            return;
        }
        // Nothing is acknowledged: what is sent is all that can be known.
        self.claim_received(slot);
        if has_ended {
            self.internal.remove(slot);
        } else {
            self.internal.unqueue(slot);
            self.internal.mark(slot, 0, marks::BULK);
        }
    }

    fn datagram_ready(&mut self) {
        let is_sent = !self.outbox.batch.bytes().is_empty();
        if self.outbox.alive_at.is_some() && is_sent && !self.settings.trailer {
            self.outbox.alive_at = Some(self.now + ALIVE_INTERVAL);
        }
    }
}
