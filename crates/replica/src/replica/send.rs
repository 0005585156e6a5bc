//! What is owed → the next datagram.

use cache::Slot;
use flow::{Expectation, Flow};
use wire::v1::{
    Control, Flags, FlowOptions, encode_alive, encode_control, encode_expectation, encode_flow,
};
use wire::{Seq, StateKind};

use super::Replica;
use crate::bulk::Passed;
use crate::entry::{Effect, Step};
use crate::protocol::Fate;
use crate::stream::{ALIVE_INTERVAL, DIRECT_MAX, Direct, Next, Object, Source};
use crate::under_way::{About, Message};

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
        if self.stream.direct.len() >= DIRECT_MAX {
            self.stream.direct.pop_front();
            self.stats.direct_dropped += 1;
        }
        self.stream.direct.push_back(Direct {
            kind,
            object,
            is_offer,
        });
    }

    /// Number of objects that wait to be sent, but for those of a bulk update.
    pub fn owed(&self) -> usize {
        let flows = self.flows_owed() + self.stream.direct.len();
        flows + self.expectations.owed() + self.stream.controls.len()
    }

    /// Number of flows of the internal cache that wait to be sent, but for those of a bulk
    /// update.
    pub(crate) fn flows_owed(&self) -> usize {
        self.ledger.owed() + self.stream.missed()
    }

    /// Fills the next datagram with as much as is owed and fits.
    pub(crate) fn fill_datagram(&mut self) {
        self.stream.batch.clear();
        let next = self.next_flow();
        if self.owes_offers_alone(next) {
            self.push_alive(true);
            let _has_room = self.push_direct(true) && self.push_flows(next, true);
            return self.datagram_ready();
        }
        if self.leads_with_alive(next) {
            self.push_control(Control::Alive);
        }
        while let Some(&control) = self.stream.controls.front() {
            if !self.push_control(control) {
                return self.datagram_ready();
            }
            self.stream.controls.pop_front();
        }
        if !self.push_direct(false) || !self.push_flows(next, false) {
            return self.datagram_ready();
        }
        while let Some(next) = self.next_owed_expectation() {
            if !self.push_expectation(next) {
                return self.datagram_ready();
            }
        }
        // An ALIVE with the trailer is sent every second, even when other messages are.
        let trailer = self.settings.trailer;
        let may = trailer || self.stream.batch.bytes().is_empty();
        if may && self.stream.alive_at.is_some_and(|at| at <= self.now) {
            let is_first = trailer && self.protocol.is_greeting();
            if is_first {
                self.push_control(Control::Alive);
            }
            let acks = self.idle_acks();
            for &ack in &acks {
                if !self.push_control(ack) {
                    self.stream.owe(ack);
                }
            }
            if !is_first && (acks.is_empty() || trailer) {
                self.push_control(Control::Alive);
            }
        }
        self.datagram_ready();
    }

    /// True if what is owed next are offers.
    fn owes_offers_alone(&mut self, next: Option<Next>) -> bool {
        let is_offer = match self.stream.direct.front() {
            Some(direct) => direct.is_offer,
            None => next.is_some_and(|next| next.is_offer),
        };
        is_offer && self.stream.controls.is_empty() && self.next_owed_expectation().is_none()
    }

    /// The next message about a flow of the internal cache.
    fn next_flow(&mut self) -> Option<Next> {
        loop {
            let (slot, source) = if let Some(slot) = self.next_missed() {
                (slot, Source::Missed)
            } else if let Some(slot) = self.ledger.next_owed() {
                (slot, Source::Live)
            } else if let Some(slot) = self.next_paced() {
                (slot, Source::Paced)
            } else if !self.stream.has_allowance() {
                return None;
            } else if let Some(slot) = self.next_to_catch_up() {
                (slot, Source::CatchUp)
            } else {
                match self.pass_in_bulk() {
                    Passed::Send(slot) => (slot, Source::Bulk),
                    Passed::Another => continue,
                    Passed::Nothing if self.ledger.next_owed().is_some() => continue,
                    Passed::Nothing => return None,
                }
            };
            let is_offer = self.ledger.note(slot).is_found();
            return Some(Next {
                slot,
                source,
                is_offer,
            });
        }
    }

    fn next_missed(&mut self) -> Option<Slot> {
        loop {
            let (ticket, version) = *self.stream.missed.front()?;
            if let Some(slot) = self.ledger.unchanged(ticket, version) {
                return Some(slot);
            }
            self.stream.missed.pop_front();
        }
    }

    /// True if the peer answers and lacks messages that have left the ring.
    pub(crate) fn catches_up(&self) -> bool {
        self.stream.may_catch_up && self.ledger.has_to_catch_up()
    }

    fn next_to_catch_up(&mut self) -> Option<Slot> {
        let may = self.catches_up();
        may.then(|| self.ledger.next_to_catch_up()).flatten()
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
        }) = self.stream.direct.front()
            && is_offer == offers
        {
            let encode = |out: &mut Vec<u8>, seq| match &object {
                Object::Flow(flow) => encode_flow(out, kind, Flags::NONE, seq, flow, options),
                Object::Expectation(e) => {
                    encode_expectation(out, kind, Flags::NONE, seq, e, options.timeout);
                }
            };
            if self.stream.push(encode).is_none() {
                return false;
            }
            self.stream.direct.pop_front();
            self.stats.messages_sent += 1;
        }
        true
    }

    /// Appends messages about flows, up to one of the other sort; false if the datagram is
    /// full.
    fn push_flows(&mut self, mut next: Option<Next>, offers: bool) -> bool {
        let options = self.flow_options();
        while let Some(Next { slot, source, .. }) = next.filter(|n| n.is_offer == offers) {
            let note = self.ledger.note(slot);
            let kind = if note.has_ended() {
                StateKind::Delete
            } else if note.is_updated() {
                StateKind::Update
            } else {
                StateKind::New
            };
            // The peer counts a timeout from when it receives it.
            let flow = Replica::aged_flow(&self.ledger, slot, self.now);
            let flags = self.flags();
            let encode = |out: &mut Vec<u8>, seq| {
                encode_flow(out, kind, flags, seq, &flow, options);
            };
            let Some(seq) = self.stream.push(encode) else {
                return false;
            };
            self.count_sent();
            // A repetition is none of those.
            if matches!(source, Source::Live | Source::Bulk) {
                self.repairs.sent_anew();
            }
            match source {
                Source::Missed => _ = self.stream.missed.pop_front(),
                Source::Live => {}
                Source::Paced => self.paced_sent(slot),
                Source::CatchUp | Source::Bulk => self.stream.use_allowance(),
            }
            self.flow_sent(slot, seq, source == Source::Live);
            next = self.next_flow();
        }
        true
    }

    /// Until the peer has acknowledged our epoch, every datagram begins with an ALIVE
    /// that carries it.
    fn leads_with_alive(&self, next: Option<Next>) -> bool {
        self.protocol.is_greeting()
            && self.settings.trailer
            && self.stream.controls.front() != Some(&Control::Alive)
            && (next.is_some() || self.owed() > 0)
    }

    /// Appends a control message; false if the datagram is full.
    fn push_control(&mut self, control: Control) -> bool {
        if control == Control::Alive {
            return self.push_alive(false);
        }
        let flags = self.flags();
        let encode = |out: &mut Vec<u8>, seq| encode_control(out, control, flags, seq);
        let Some(seq) = self.stream.push(encode) else {
            return false;
        };
        self.control_sent(seq, control);
        true
    }

    /// Appends an ALIVE, with our trailer; `offers`: what follows are offers.
    fn push_alive(&mut self, offers: bool) -> bool {
        let flags = self.flags();
        let trailer = self.trailer(offers);
        let encode = |out: &mut Vec<u8>, seq| match &trailer {
            Some(trailer) => encode_alive(out, trailer, flags, seq),
            None => encode_control(out, Control::Alive, flags, seq),
        };
        let Some(seq) = self.stream.push(encode) else {
            return false;
        };
        if trailer.is_some() {
            self.bulk.on_alive_sent(seq);
            self.trailer_sent();
            self.stream.alive_at = Some(self.now + ALIVE_INTERVAL);
        }
        self.control_sent(seq, Control::Alive);
        true
    }

    /// Counts a message that has been sent with the flags of the protocol.
    pub(crate) fn count_sent(&mut self) {
        self.stats.messages_sent += 1;
        self.flags_sent();
    }

    fn control_sent(&mut self, seq: Seq, control: Control) {
        self.count_sent();
        // An ALIVE is not repeated: the next one carries newer numbers.
        if control != Control::Alive {
            let about = About::Control(control);
            let version = self.stream.answers();
            self.message_sent(seq, Message { about, version });
        }
    }

    /// A message about an entry of the internal cache has been sent under `seq`; `is_first`:
    /// the first one with its latest state.
    fn flow_sent(&mut self, slot: Slot, seq: Seq, is_first: bool) {
        let version = self.ledger.sent(slot);
        let about = About::Flow(self.ledger.ticket(slot));
        if self.message_sent(seq, Message { about, version }) {
            self.flow_acknowledged(slot);
        } else if is_first && self.ledger.note(slot).has_ended() {
            self.bound_tombstones(slot);
        }
    }

    /// Without a peer what is owed is settled without being sent. True if there is more.
    pub(crate) fn settle_alone(&mut self, items: usize) -> bool {
        if !self.protocol.is_alone() {
            return false;
        }
        for _ in 0..items {
            let Some(slot) = self.ledger.next_owed() else {
                return false;
            };
            self.ledger.sent(slot);
            self.flow_acknowledged(slot);
        }
        true
    }

    /// The peer has the latest state of a flow.
    pub(crate) fn flow_acknowledged(&mut self, slot: Slot) {
        self.claim_received(slot);
        let effect = self.ledger.step(slot, Step::Acknowledged);
        debug_assert!(matches!(effect, Effect::Nothing | Effect::Remove));
    }

    /// A message has been sent. True if it is settled by that; otherwise it waits for its
    /// acknowledgement.
    pub(crate) fn message_sent(&mut self, seq: Seq, message: Message) -> bool {
        let evicted = match self.protocol.sent(self.now, seq, message) {
            Fate::Settled => return true,
            Fate::UnderWay { evicted } => evicted,
        };
        if let Some(oldest) = evicted {
            self.forget_message(oldest);
        }
        false
    }

    /// A message has left the ring of those under way, and nobody acknowledged it.
    fn forget_message(&mut self, message: Message) {
        self.stream.may_catch_up = false;
        match message.about {
            About::Flow(ticket) => self.ledger.forget_message(ticket, message.version),
            About::Expectation => {
                self.expectations.forget_message(message.version);
            }
            // What nobody has received is asked for again.
            About::Control(Control::Resync) => self.stream.owe(Control::Resync),
            // The numbers that these are about have long left the peer's ring, too.
            About::Control(_) => {}
        }
    }

    fn datagram_ready(&mut self) {
        self.note_bulk_sent();
        let is_sent = !self.stream.batch.bytes().is_empty();
        if self.stream.alive_at.is_some() && is_sent && !self.settings.trailer {
            self.stream.alive_at = Some(self.now + ALIVE_INTERVAL);
        }
    }
}
