//! What the protocol's machine concludes, for caches and stream: what is acknowledged, what
//! the peer lacks, what is sent again.

use cache::Slot;
use wire::Seq;
use wire::v1::{Control, Flags};

use super::Replica;
use crate::ftfw::Effect;
use crate::peer::Peer;
use crate::protocol::Protocol;
use crate::receive::{Accepted, PeerId, Received};
use crate::repairs::Wish;
use crate::under_way::{About, Message};

impl Replica {
    /// A message of a peer has come that is not late.
    pub(crate) fn on_received(&mut self, from: PeerId, received: &Received) {
        // An ALIVE is about to say more.
        let says_more = match received.carries {
            Some(Accepted::Alive(trailer)) => trailer.is_some() || received.is_new_epoch,
            _ => false,
        };
        if received.begins_numbers_anew() && !says_more {
            self.on_new_numbers(from);
        }
        if received.begins_numbers_anew() {
            self.stream.void_answers();
        }
        let now = self.now;
        let Some(ftfw) = self.protocol.ftfw_mut() else {
            return;
        };
        let answers_hello = ftfw.heard(now, received);
        let effects = self.peer_mut(from).hearing.heard(now, received);
        self.apply(from, effects);
        if answers_hello {
            self.wish_repeat(false);
        }
    }

    /// Owes what the protocol has waited for.
    pub(crate) fn protocol_due(&mut self) {
        let now = self.now;
        match &mut self.protocol {
            Protocol::Alone | Protocol::Notrack => {}
            Protocol::Alarm(alarm) => {
                if alarm.timeout(now, self.ledger.len()) {
                    self.expire();
                }
            }
            Protocol::Ftfw(ftfw) => {
                let peers = &self.peers;
                let lives = peers.iter().any(|p| p.hearing.lives(now));
                let mut heard = peers.iter().filter(|p| p.heard_at.is_some());
                let is_named = heard.all(|p| p.receiver.epoch().is_some());
                let mut effects = ftfw.timeout(now, lives, is_named);
                for peer in &mut self.peers {
                    let ack = peer.hearing.timeout(now, peer.receiver.last());
                    effects.extend(ack.map(Effect::Owe));
                }
                self.apply(PeerId::FIRST, effects);
            }
        }
    }

    fn apply(&mut self, from: PeerId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Owe(control) => self.stream.owe(control),
                Effect::PeerGreets { anew } => self.peer_greets(from, anew),
                Effect::SendAgain => {
                    self.events.extend(self.links.on_unanswered(self.now));
                    self.owe_all_sent(false);
                }
                Effect::AskForAll => self.request_resync(),
            }
        }
    }

    /// A peer acknowledges everything from `from` to `to`.
    ///
    /// An acknowledgement has no addressee. With several peers, if this stream has sent neither
    /// end of the range in this epoch, it is about the stream of another one, or of a former
    /// epoch of ours: it changes nothing here. Streams whose numbers overlap cannot be told
    /// apart; each one's have to begin far from the others'.
    /// Of several listeners the first one settles a message; whoever lacks it asks for it, and
    /// a request for what was acknowledged begins a bulk update (see [`Ftfw::missed`]).
    ///
    /// [`Ftfw::missed`]: crate::ftfw::Ftfw::missed
    pub(crate) fn on_ack(&mut self, from: Seq, to: Seq) {
        if !self.is_about_us(from, to) {
            return;
        }
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

    /// True if a range of numbers may be about our stream. With one peer there is no other
    /// stream that it could be about: that it answers at all is news even when its numbers
    /// have been led astray.
    fn is_about_us(&self, from: Seq, to: Seq) -> bool {
        self.peers.len() == 1 || self.stream.has_sent(from) || self.stream.has_sent(to)
    }

    /// A peer lacks everything from `from` to `to`; numbers of another stream are passed over
    /// as in [`Replica::on_ack`].
    pub(crate) fn on_nack(&mut self, from: Seq, to: Seq) {
        if !self.is_about_us(from, to) {
            return;
        }
        let Some(ftfw) = self.protocol.ftfw_mut() else {
            return;
        };
        let most = self.repairs.again(self.now, ftfw.under_way().objects());
        let missed = ftfw.missed(from, to, most);
        self.repairs.sent_again(missed.messages.len());
        self.peer_answers();
        if missed.is_cut {
            // Anybody can ask, and again and again.
            self.wish_repeat(false);
        }
        for message in missed.messages {
            self.owe_again(message);
        }
        if missed.went_back {
            self.wish(Wish::Repair);
        }
    }

    /// The peer hears us: what has left the ring can be sent once more.
    fn peer_answers(&mut self) {
        self.links.on_answered();
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
            About::Control(control) => self.stream.owe_again(control, message.version),
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

    /// The acknowledgements that may go with an ALIVE, or instead of it: one for each peer.
    pub(crate) fn idle_acks(&mut self) -> Vec<Control> {
        if self.protocol.ftfw().is_none() {
            return Vec::new();
        }
        let take = |p: &mut Peer| p.hearing.take_ack(p.receiver.last());
        self.peers.iter_mut().filter_map(take).collect()
    }

    /// Flags of the next message.
    pub(crate) fn flags(&self) -> Flags {
        let mut flags = Flags::NONE;
        if self.protocol.is_greeting() {
            flags = flags.with(Flags::HELLO);
        }
        if self.peers.iter().any(|p| p.hearing.owes_hello_back()) {
            flags = flags.with(Flags::HELLO_BACK);
        }
        flags
    }

    /// A message with these flags has been sent: it answers everybody who has greeted.
    pub(crate) fn flags_sent(&mut self) {
        for peer in &mut self.peers {
            peer.hearing.hello_back_sent();
        }
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
