//! What the protocol's machine concludes, for caches and stream: what is acknowledged, what
//! the peer lacks, what is sent again.

use cache::Slot;
use wire::Seq;
use wire::v1::{Control, Flags};

use super::Replica;
use crate::ftfw::Effect;
use crate::protocol::Protocol;
use crate::receive::{Accepted, PeerId, Received};
use crate::repairs::Wish;
use crate::under_way::{About, Message};

impl Replica {
    /// A message of a peer has come that is not late.
    pub(crate) fn on_received(&mut self, from: PeerId, received: &Received) {
        let is_hello = received.flags.intersects(Flags::HELLO);
        let has_trailer = matches!(received.carries, Some(Accepted::Alive(Some(_))));
        // A trailer is about to say more.
        if is_hello && received.begins_numbers_anew() && !has_trailer {
            self.on_new_numbers(from);
        }
        let now = self.now;
        if let Some(ftfw) = self.protocol.ftfw_mut() {
            let effects = ftfw.heard(now, received);
            self.apply(from, effects);
        }
    }

    /// Owes what the protocol has waited for.
    pub(crate) fn protocol_due(&mut self) {
        let now = self.now;
        match &mut self.protocol {
            Protocol::Notrack => {}
            Protocol::Alarm(alarm) => {
                if alarm.timeout(now, self.ledger.len()) {
                    self.expire();
                }
            }
            Protocol::Ftfw(ftfw) => {
                let receiver = &self.peers[PeerId::FIRST.index()].receiver;
                let is_named = receiver.epoch().is_some();
                let effects = ftfw.timeout(now, receiver.last(), is_named);
                self.apply(PeerId::FIRST, effects);
            }
        }
    }

    fn apply(&mut self, from: PeerId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Owe(control) => self.stream.owe(control),
                Effect::PeerGreets { anew } => self.peer_greets(from, anew),
                Effect::MayLackAll => self.wish_repeat(false),
                Effect::SendAgain => {
                    self.events.extend(self.links.on_unanswered(self.now));
                    self.owe_all_sent(false);
                }
                Effect::AskForAll => self.request_resync(),
            }
        }
    }

    /// The peer acknowledges everything from `from` to `to`.
    pub(crate) fn on_ack(&mut self, from: Seq, to: Seq) {
        let Some(ftfw) = self.protocol.ftfw_mut() else {
            return;
        };
        let settled = ftfw.acknowledged(self.now, from, to);
        self.peer_answers();
        if settled.ends_lost {
            self.wish(Wish::Repair);
        }
        for message in settled.messages {
            match message.about {
                About::Flow(ticket) => {
                    if let Some(slot) = self.ledger.unchanged(ticket, message.version) {
                        self.flow_acknowledged(slot);
                    }
                }
                About::Expectation => {
                    self.expectations.acknowledged(message.version);
                }
                About::Control(_) => {}
            }
        }
    }

    /// The peer lacks everything from `from` to `to`.
    pub(crate) fn on_nack(&mut self, from: Seq, to: Seq) {
        let Some(ftfw) = self.protocol.ftfw_mut() else {
            return;
        };
        let missed = ftfw.missed(from, to);
        self.peer_answers();
        for message in missed.messages {
            self.owe_again(message);
        }
        if missed.went_back {
            self.wish(Wish::Repair);
        }
    }

    /// The peer hears us: what has left the ring can be sent once more.
    fn peer_answers(&mut self) {
        self.stream.may_catch_up();
        self.expectations.catch_up();
    }

    /// What the peer has not acknowledged it may not have: everything is owed again.
    ///
    /// If it has started again, its numbers have begun anew: what we missed or have of
    /// those before is of no use to it any more.
    pub(crate) fn owe_all_sent(&mut self, restarted: bool) {
        let Some(ftfw) = self.protocol.ftfw_mut() else {
            return;
        };
        for message in ftfw.take_all() {
            match message.about {
                About::Control(control) if restarted && control != Control::Resync => {}
                _ => self.owe_again(message),
            }
        }
    }

    /// The peer lacks a message: what it was about is owed, unless it has changed since and
    /// is owed for that.
    fn owe_again(&mut self, message: Message) {
        self.bulk.reopen();
        match message.about {
            About::Flow(ticket) => self.stream.owe_missed(ticket, message.version),
            About::Expectation => {
                self.expectations.owe_missed(message.version);
            }
            About::Control(control) => self.stream.owe(control),
        }
    }

    /// The tombstone of a flow has been sent. Those of an absent peer would fill the cache:
    /// beyond `ResendQueueSize` the oldest are removed, which a bulk update makes good when
    /// the peer is back.
    pub(crate) fn bound_tombstones(&mut self, slot: Slot) {
        let lost = self.ledger.bury(slot, self.settings.resend_queue);
        self.stats.ends_given_up += lost;
        if lost > 0 {
            self.note_ends_lost();
        }
    }

    /// The peer does not learn of some ends by itself.
    pub(crate) fn note_ends_lost(&mut self) {
        self.claim_no_bulk();
        if let Some(ftfw) = self.protocol.ftfw_mut() {
            ftfw.note_ends_lost();
        }
    }

    /// The acknowledgement that may go with an ALIVE, or instead of it.
    pub(crate) fn idle_ack(&mut self) -> Option<Control> {
        let last = self.first_peer().receiver.last();
        self.protocol.ftfw_mut()?.take_ack(last)
    }

    /// Unacknowledged: the number of flows and expectations, and the control messages with
    /// their sequence numbers. Walks through everything under way.
    pub fn unacknowledged(&self) -> (usize, Vec<(Seq, Control)>) {
        let Some(ftfw) = self.protocol.ftfw() else {
            return (0, Vec::new());
        };
        let is_latest = |message: &&Message| match message.about {
            About::Flow(ticket) => self.ledger.unchanged(ticket, message.version).is_some(),
            About::Expectation => self.expectations.is_latest(message.version),
            About::Control(_) => false,
        };
        let objects = ftfw.under_way().messages().filter(is_latest).count();
        (objects, ftfw.under_way().controls().collect())
    }
}
