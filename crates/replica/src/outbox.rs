//! What is owed to the peer → datagrams of the link's size.
//!
//! Entries of the internal cache are owed by being queued; the message is built
//! when it is sent, from the entry's present state. Without an internal cache,
//! events wait in a bounded queue of their own.

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

/// Sending side towards the peer.
#[derive(Debug)]
pub(crate) struct Outbox {
    seq: Seq,
    batch: Batch,
    controls: VecDeque<Control>,
    direct: VecDeque<(StateKind, Object)>,
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
        self.queue_directly(kind, Object::Flow(flow));
    }

    /// Queues a message about an expectation without an internal cache.
    pub(crate) fn owe_expectation_directly(&mut self, kind: StateKind, e: Expectation) {
        self.queue_directly(kind, Object::Expectation(e));
    }

    fn queue_directly(&mut self, kind: StateKind, object: Object) {
        if self.outbox.direct.len() >= DIRECT_MAX {
            self.outbox.direct.pop_front();
            self.stats.direct_dropped += 1;
        }
        self.outbox.direct.push_back((kind, object));
    }

    /// Number of objects that wait to be sent.
    pub fn owed(&self) -> usize {
        let expectations = self.expectations.as_ref().map_or(0, |e| e.owed());
        let flows = self.internal.queued(List::Owed) + self.outbox.direct.len();
        flows + expectations + self.outbox.controls.len()
    }

    /// Fills the next datagram with as much as is owed and fits.
    pub(crate) fn fill_datagram(&mut self) {
        let options = FlowOptions {
            timeout: self.settings.commit_timeout.is_none(),
            window_scale: self.settings.window_tracking,
        };
        self.outbox.batch.clear();
        if self.leads_with_alive() {
            self.push_control(Control::Alive);
        }
        while let Some(&control) = self.outbox.controls.front() {
            if !self.push_control(control) {
                return self.datagram_ready();
            }
            self.outbox.controls.pop_front();
        }
        while let Some((kind, object)) = self.outbox.direct.front() {
            let (kind, object) = (*kind, *object);
            let encode = |out: &mut Vec<u8>, seq| match &object {
                Object::Flow(flow) => encode_flow(out, kind, Flags::NONE, seq, flow, options),
                Object::Expectation(e) => {
                    encode_expectation(out, kind, Flags::NONE, seq, e, options.timeout);
                }
            };
            if self.outbox.push(encode).is_none() {
                return self.datagram_ready();
            }
            self.outbox.direct.pop_front();
            self.stats.messages_sent += 1;
        }
        while let Some(slot) = self.internal.front(List::Owed) {
            let kind = if self.internal.has(slot, marks::DEAD) {
                StateKind::Delete
            } else if self.internal.has(slot, marks::UPDATED) {
                StateKind::Update
            } else {
                StateKind::New
            };
            // The peer counts a timeout from when it hears of it.
            let flow = Replica::aged_flow(&self.internal, slot, self.now);
            let flags = self.greeting();
            let encode = |out: &mut Vec<u8>, seq| {
                encode_flow(out, kind, flags, seq, &flow, options);
            };
            let Some(seq) = self.outbox.push(encode) else {
                return self.datagram_ready();
            };
            self.stats.messages_sent += 1;
            self.entry_sent(slot, seq);
        }
        while let Some(key) = self.next_owed_expectation() {
            if !self.push_expectation(key) {
                return self.datagram_ready();
            }
        }
        // The trailer is said every second, whatever else is.
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

    /// Until the peer knows which run speaks, no datagram speaks of anything else first.
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
        let flags = self.greeting();
        let trailer = self.trailer().filter(|_| control == Control::Alive);
        let encode = |out: &mut Vec<u8>, seq| match &trailer {
            Some(trailer) => encode_alive(out, trailer, flags, seq),
            None => encode_control(out, control, flags, seq),
        };
        let Some(seq) = self.outbox.push(encode) else {
            return false;
        };
        self.stats.messages_sent += 1;
        if trailer.is_some() {
            self.bulk.on_alive_sent(seq);
            self.outbox.alive_at = Some(self.now + ALIVE_INTERVAL);
        }
        if let Some(ftfw) = &mut self.ftfw {
            ftfw.on_sent(self.now, seq, Some(control));
        }
        true
    }

    /// An owed entry has been said under `seq`.
    fn entry_sent(&mut self, slot: Slot, seq: Seq) {
        if let Some(ftfw) = &mut self.ftfw {
            ftfw.on_sent(self.now, seq, None);
            self.internal.meta_mut(slot).seq = seq.0;
            self.internal.mark(slot, 0, marks::UNTOLD | marks::SILENT);
            self.internal.queue(slot, List::Sent);
            if self.internal.has(slot, marks::DEAD) {
                self.bound_dead();
            }
        } else if self.internal.has(slot, marks::DEAD) {
            self.internal.remove(slot);
        } else {
            self.internal.unqueue(slot);
            let clear = marks::UNTOLD | marks::SILENT | marks::BULK;
            self.internal.mark(slot, 0, clear);
        }
    }

    fn datagram_ready(&mut self) {
        let is_sent = !self.outbox.batch.bytes().is_empty();
        if self.outbox.alive_at.is_some() && is_sent && !self.settings.trailer {
            self.outbox.alive_at = Some(self.now + ALIVE_INTERVAL);
        }
    }
}
