//! What is owed to the peer → datagrams of the link's size.
//!
//! Entries of the internal cache are owed by being queued; the message is built
//! when it is sent, from the entry's present state. Without an internal cache,
//! events wait in a bounded queue of their own.

use std::collections::VecDeque;
use std::time::Duration;

use cache::{List, Slot};
use flow::Flow;
use wire::v1::{
    Batch, Control, Flags, FlowOptions, Mode, Seq, StateKind, encode_control, encode_flow,
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

/// Sending side towards the peer.
#[derive(Debug)]
pub(crate) struct Outbox {
    seq: Seq,
    batch: Batch,
    controls: VecDeque<Control>,
    direct: VecDeque<(StateKind, Flow)>,
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
    fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>, Seq)) -> Option<Seq> {
        let seq = self.seq;
        if !self.batch.push(|out| encode(out, seq)) {
            return None;
        }
        self.seq = seq.next();
        Some(seq)
    }
}

impl Replica {
    /// Queues a message without an internal cache.
    pub(crate) fn owe_directly(&mut self, kind: StateKind, flow: Flow) {
        if self.outbox.direct.len() >= DIRECT_MAX {
            self.outbox.direct.pop_front();
            self.stats.direct_dropped += 1;
        }
        self.outbox.direct.push_back((kind, flow));
    }

    /// Number of objects that wait to be sent.
    pub fn owed(&self) -> usize {
        self.internal.queued(List::Owed) + self.outbox.direct.len() + self.outbox.controls.len()
    }

    /// Fills the next datagram with as much as is owed and fits.
    pub(crate) fn fill_datagram(&mut self) {
        let options = FlowOptions {
            timeout: self.settings.commit_timeout.is_none(),
            window_scale: self.settings.window_tracking,
        };
        self.outbox.batch.clear();
        while let Some(&control) = self.outbox.controls.front() {
            if !self.push_control(control) {
                return self.datagram_ready();
            }
            self.outbox.controls.pop_front();
        }
        while let Some((kind, flow)) = self.outbox.direct.front() {
            let (kind, flow) = (*kind, *flow);
            let encode = |out: &mut Vec<u8>, seq| {
                encode_flow(out, kind, Flags::NONE, seq, &flow, options);
            };
            if self.outbox.push(encode).is_none() {
                return self.datagram_ready();
            }
            self.outbox.direct.pop_front();
            self.stats.messages_sent += 1;
        }
        while let Some(slot) = self.internal.front(List::Owed) {
            let marks = self.internal.meta(slot).marks;
            let kind = if marks & marks::DEAD != 0 {
                StateKind::Delete
            } else if marks & marks::UPDATED != 0 {
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
        if self.outbox.batch.bytes().is_empty() {
            if self.outbox.alive_at.is_none_or(|at| at > self.now) {
                return;
            }
            let control = self.idle_control();
            self.push_control(control);
        }
        self.datagram_ready();
    }

    fn greeting(&self) -> Flags {
        self.ftfw.as_ref().map_or(Flags::NONE, Ftfw::greeting)
    }

    /// Appends a control message; false if the datagram is full.
    fn push_control(&mut self, control: Control) -> bool {
        let flags = self.greeting();
        let encode = |out: &mut Vec<u8>, seq| encode_control(out, control, flags, seq);
        let Some(seq) = self.outbox.push(encode) else {
            return false;
        };
        self.stats.messages_sent += 1;
        if let Some(ftfw) = &mut self.ftfw {
            ftfw.on_sent(self.now, seq, Some(control));
        }
        true
    }

    /// An owed entry has been said under `seq`.
    fn entry_sent(&mut self, slot: Slot, seq: Seq) {
        if let Some(ftfw) = &mut self.ftfw {
            ftfw.on_sent(self.now, seq, None);
            let meta = self.internal.meta_mut(slot);
            meta.seq = seq.0;
            meta.marks &= !marks::UNTOLD;
            let dead = meta.marks & marks::DEAD != 0;
            self.internal.queue(slot, List::Sent);
            if dead {
                self.bound_dead();
            }
        } else if self.internal.meta(slot).marks & marks::DEAD != 0 {
            self.internal.remove(slot);
        } else {
            self.internal.unqueue(slot);
            self.internal.meta_mut(slot).marks &= !marks::UNTOLD;
        }
    }

    fn datagram_ready(&mut self) {
        if self.outbox.alive_at.is_some() {
            self.outbox.alive_at = Some(self.now + ALIVE_INTERVAL);
        }
    }
}
