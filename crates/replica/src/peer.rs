//! A session per peer: its numbers, which epoch it is in, and what it has announced.
//!
//! Version 1 has one stream for everybody who listens, so the sending half of the replica
//! is the stream's; the receiving half is here, one for each sender.
//!
//! A peer that starts again has lost its memory, and maybe its table: what we learned
//! of its former epoch may be the only copy. So nothing is removed because of a restart.
//! Entries note the epoch in which they were last announced; until the new epoch
//! announces them, they are unconfirmed, counted, and committed with a short timeout.
//!
//! A restart is known from the epoch in the trailer of ALIVE, or, with a peer that
//! sends none, from a HELLO whose numbers begin anew.

use std::time::Duration;

use cache::{Position, Slot};
use wire::v1::{Epoch, Holdings, Role, Seq, TableId, Trailer};

use crate::entry::External;
use crate::receive::{Received, Receiver};
use crate::repairs::Wish;
use crate::{Event, Instant, Replica, Settings};

/// A greeting is believed when messages still follow its numbers after this time.
const GREETING_PROVEN: Duration = Duration::from_secs(1);

/// A peer of which nothing has come for this long is lost: five times ALIVE's interval.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// A point in the peer's sequence from which we count what it announces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    pub(crate) seq: Seq,
    /// Messages lost by then (NOTRACK).
    pub(crate) lost: u64,
}

/// We hold fewer flows than the peer counts on, or more.
#[derive(Debug, Default)]
pub(crate) struct Lack {
    /// ALIVE messages in a row that showed it.
    pub(crate) seen: u32,
    /// When we asked, and the number of the peer's latest bulk update then.
    pub(crate) asked: Option<(Instant, u32)>,
    /// Pause before asking again.
    pub(crate) pause: Duration,
    /// Our ALIVE asks.
    pub(crate) wants: bool,
}

/// A HELLO that begins the numbers of the peer anew.
///
/// One datagram proves nothing: what it would cost, a repetition of all that is
/// unacknowledged and a bulk update, waits until the numbers have gone on from there.
#[derive(Clone, Copy, Debug)]
struct Greeting {
    at: Instant,
    /// Its sender names no epoch, and had been heard before: it has started again.
    is_restart: bool,
}

/// One of the replicas that send to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u8);

impl PeerId {
    /// The peer of a pair.
    pub const FIRST: PeerId = PeerId(0);

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Most peers: whoever drives the replica must not make up any number of them.
const PEERS_MAX: usize = 16;

/// State of one peer, whatever the protocol.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) receiver: Receiver,
    pub(crate) role: Role,
    /// Counts its epochs as far as we noticed; entries note the one that announced them. It
    /// wraps: an entry that 256 epochs in a row did not mention counts as confirmed again.
    pub(crate) epoch: u8,
    /// The first of its epochs with the table that it has now.
    pub(crate) table_since: u8,
    /// That table, and the one of the epoch before the present one.
    pub(crate) table: TableId,
    pub(crate) former_table: TableId,
    /// Entries of the external cache that it has announced or offered in its present epoch.
    pub(crate) mentioned: usize,
    /// Those of them that are offers.
    pub(crate) offers: usize,
    pub(crate) since: Option<Since>,
    /// Those of the mentioned ones that it has sent since then.
    pub(crate) heard_since: usize,
    /// Number of its last bulk update that we have drawn the conclusion from.
    pub(crate) handled: u32,
    /// Walk over the external cache for what that bulk did not mention, and `since` then.
    pub(crate) absent: Option<(Position, Seq)>,
    /// The last end of a flow that it announced.
    last_end: Option<Seq>,
    /// It has sent an ALIVE without trailer.
    plain: bool,
    /// What it last said of holdings.
    pub(crate) holdings: Option<Holdings>,
    /// The epoch in which it has been sent, or is about to be, what we have.
    pub(crate) greeted: Option<Epoch>,
    pub(crate) lack: Lack,
    /// A greeting has begun its numbers anew, and no message has followed it for long
    /// enough.
    greeting: Option<Greeting>,
    heard_at: Option<Instant>,
    is_lost: bool,
}

impl Peer {
    pub(crate) fn new(settings: &Settings) -> Peer {
        Peer {
            receiver: Receiver::new(settings.mode),
            role: Role::Unknown,
            epoch: 0,
            table_since: 0,
            table: TableId(0),
            former_table: TableId(0),
            mentioned: 0,
            offers: 0,
            since: None,
            heard_since: 0,
            handled: 0,
            absent: None,
            last_end: None,
            plain: false,
            holdings: None,
            greeted: None,
            lack: Lack::default(),
            greeting: None,
            heard_at: None,
            is_lost: false,
        }
    }

    fn restarted(&mut self) {
        // An epoch in which nothing was announced needs no number of its own: the numbers
        // are few, and greetings can be forged.
        if self.mentioned > 0 {
            self.epoch = self.epoch.wrapping_add(1);
        }
        self.handled = 0;
        self.last_end = None;
        self.holdings = None;
        self.lack = Lack::default();
        self.forget_all();
    }

    /// The external cache has been emptied, or nothing in it is confirmed any more.
    pub(crate) fn forget_all(&mut self) {
        self.mentioned = 0;
        self.offers = 0;
        self.heard_since = 0;
        self.since = None;
        self.absent = None;
    }

    pub(crate) fn on_ended(&mut self, seq: Seq) {
        if self.last_end.is_none_or(|last| last.before(seq)) {
            self.last_end = Some(seq);
        }
    }

    /// True if no end of a flow has been announced since `seq`.
    pub(crate) fn ended_before(&self, seq: Seq) -> bool {
        self.last_end.is_none_or(|last| last.before(seq))
    }

    /// When it is lost unless something comes from it.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let lost = self.heard_at.filter(|_| !self.is_lost)? + LOST_AFTER;
        (lost > now).then_some(lost)
    }
}

impl Peer {
    /// True if the message `seq` has come since the point from which we count. A number
    /// ahead of the peer's last one is of a former epoch, in a late copy.
    fn is_after_since(&self, seq: Seq) -> bool {
        let is_later = self.since.is_some_and(|s| s.seq.before(seq));
        let last = self.receiver.last();
        is_later && last.is_none_or(|last| !last.before(seq))
    }

    /// Counts an entry that it has announced or offered. `before`: the note of the entry, if
    /// this peer has mentioned it in this epoch.
    fn count(&mut self, before: Option<External>, seq: Seq, is_offer: bool) {
        let counted = before.is_some_and(|note| self.is_after_since(note.seq));
        self.mentioned += usize::from(before.is_none());
        self.offers += usize::from(is_offer);
        let was_offer = before.is_some_and(External::is_offer);
        self.offers = self.offers.saturating_sub(usize::from(was_offer));
        self.heard_since += usize::from(!counted && self.is_after_since(seq));
    }

    /// An entry that it has mentioned in this epoch has ended.
    fn discount(&mut self, note: External) {
        self.mentioned = self.mentioned.saturating_sub(1);
        let was_offer = usize::from(note.is_offer());
        self.offers = self.offers.saturating_sub(was_offer);
        let counted = usize::from(self.is_after_since(note.seq));
        self.heard_since = self.heard_since.saturating_sub(counted);
    }

    /// True if it has had its present table since an epoch.
    pub(crate) fn has_same_table(&self, epoch: u8) -> bool {
        let age = self.epoch.wrapping_sub(epoch);
        age <= self.epoch.wrapping_sub(self.table_since)
    }
}

impl Replica {
    /// True if there is a session of this peer; one is made for a new one, up to a bound.
    pub(crate) fn has_peer(&mut self, peer: PeerId) -> bool {
        if peer.index() >= PEERS_MAX {
            return false;
        }
        while self.peers.len() <= peer.index() {
            self.peers.push(Peer::new(&self.settings));
        }
        true
    }

    pub(crate) fn peer(&self, peer: PeerId) -> &Peer {
        &self.peers[peer.index()]
    }

    pub(crate) fn peer_mut(&mut self, peer: PeerId) -> &mut Peer {
        &mut self.peers[peer.index()]
    }

    /// The peer of a pair: the one that the trailer of our stream answers.
    pub(crate) fn first_peer(&self) -> &Peer {
        self.peer(PeerId::FIRST)
    }

    pub(crate) fn peer_ids(&self) -> impl Iterator<Item = PeerId> + use<> {
        let count = u8::try_from(self.peers.len()).unwrap_or(u8::MAX);
        (0..count).map(PeerId)
    }

    /// Number of entries of the external cache that the peers have announced in their
    /// present epochs.
    pub fn confirmed(&self) -> usize {
        let announced = |peer: &Peer| peer.mentioned.saturating_sub(peer.offers);
        self.peers.iter().map(announced).sum()
    }

    /// Number of entries that only a former epoch of a peer has announced, or that were
    /// only offered.
    pub fn unconfirmed(&self) -> usize {
        let live = self.external.len() - self.external.members(External::ENDED);
        live.saturating_sub(self.confirmed())
    }

    /// The epoch that a peer is in, if it sends trailers, and what it takes itself for.
    pub fn epoch_and_role_of(&self, peer: PeerId) -> (Option<Epoch>, Role) {
        let peer = self.peers.get(peer.index());
        peer.map_or((None, Role::Unknown), |p| (p.receiver.epoch(), p.role))
    }

    /// How many of our flows a peer reports to hold, and how many it should hold. `None` if
    /// it does not report it.
    pub fn held_by(&self, peer: PeerId) -> Option<(usize, usize)> {
        let holdings = self.peers.get(peer.index())?.holdings?;
        let hears_us = holdings.heard == Some(self.settings.epoch);
        let held = if hears_us { holdings.held as usize } else { 0 };
        Some((held, self.ledger.announced() + self.ledger.offered()))
    }

    /// Time since the last message of a peer; `None` before the first.
    pub fn silence_of(&self, peer: PeerId) -> Option<Duration> {
        Some(self.now.since(self.peers.get(peer.index())?.heard_at?))
    }

    pub(crate) fn is_confirmed(&self, slot: Slot) -> bool {
        self.is_mentioned(slot) && !self.external.note(slot).is_offer()
    }

    /// True if a peer has announced or offered an entry in its present epoch.
    pub(crate) fn is_mentioned(&self, slot: Slot) -> bool {
        let note = self.external.note(slot);
        self.is_present_epoch(note.peer, note.epoch)
    }

    pub(crate) fn is_present_epoch(&self, peer: PeerId, epoch: u8) -> bool {
        self.peer(peer).epoch == epoch
    }

    /// Which of its epochs a peer is in, as entries note it.
    pub(crate) fn present_epoch(&self, peer: PeerId) -> u8 {
        self.peer(peer).epoch
    }

    /// The message `seq` of a peer has announced or offered an entry of the external cache.
    pub(crate) fn heard_of(
        &mut self,
        slot: Slot,
        peer: PeerId,
        seq: Seq,
        is_new: bool,
        is_offer: bool,
    ) {
        if !is_new && self.external.note(slot).peer != peer {
            // Another one announced it before.
            self.forget(slot);
        }
        let was_mentioned = !is_new && self.is_mentioned(slot);
        let before = was_mentioned.then(|| self.external.note(slot));
        let epoch = self.present_epoch(peer);
        self.external
            .change(slot, |note| note.heard(peer, epoch, seq, is_offer));
        self.peer_mut(peer).count(before, seq, is_offer);
        self.age(slot);
    }

    /// An entry of the external cache is an offer from here on: the peer has not accepted
    /// that the flow is ours, and our kernel has it no more.
    fn doubt_external(&mut self, slot: Slot) {
        if self.is_confirmed(slot) {
            let peer = self.external.note(slot).peer;
            self.peer_mut(peer).offers += 1;
        }
        let held = !self.settings.external_cache;
        self.external.change(slot, |note| note.doubted(held));
    }

    /// An entry of the external cache ends.
    pub(crate) fn forget(&mut self, slot: Slot) {
        if !self.is_mentioned(slot) {
            return;
        }
        let note = self.external.note(slot);
        // An ended entry may still wait for the kernel.
        let former = note.epoch.wrapping_sub(1);
        self.external.change(slot, |note| note.epoch = former);
        self.peer_mut(note.peer).discount(note);
    }

    /// Removes an entry of the external cache.
    pub(crate) fn remove_external(&mut self, slot: Slot) {
        self.forget(slot);
        self.external.remove(slot);
    }

    /// The peer has received what we sent last of an entry of the internal cache: that it
    /// lives, or that it has ended. What the peer announced of it before is over.
    pub(crate) fn claim_received(&mut self, own: Slot) {
        let note = self.ledger.note(own);
        if note.is_ours() {
            self.forget_expectations_of_peer(own);
        }
        if note.is_found() || self.external.members(External::OURS) == 0 {
            return;
        }
        let slot = self.external.find(&self.ledger.key(own));
        let Some(slot) = slot.filter(|s| self.external.note(*s).is_ours()) else {
            return;
        };
        if self.ledger.note(own).has_ended() {
            // Whether it took the flow for ours before, or refused the end of its own
            // flow, nobody knows.
            self.doubt_external(slot);
        } else {
            self.remove_external(slot);
        }
    }

    // ---- life and restarts ----

    /// A message of a peer has come that is not late.
    pub(crate) fn peer_heard(&mut self, from: PeerId, received: &Received) {
        let now = self.now;
        let peer = self.peer_mut(from);
        if received.begins_anew()
            && let (Some(last), Some(end)) = (peer.receiver.last(), peer.last_end)
            && last.before(end)
        {
            // It was a number of a former epoch.
            peer.last_end = Some(last);
        }
        let proven = |g: &mut Greeting| now.since(g.at) >= GREETING_PROVEN;
        let greeting = peer
            .greeting
            .take_if(|g| !received.begins_anew() && proven(g));
        let silence = peer.heard_at.map(|at| now.since(at));
        peer.heard_at = Some(now);
        let was_lost = std::mem::take(&mut peer.is_lost);
        if let Some(greeting) = greeting {
            self.wish_repeat(true);
            if greeting.is_restart {
                self.wish(Wish::Repair);
            }
        }
        match silence {
            None => self.events.push_back(Event::PeerHeard),
            Some(silence) if was_lost => self.events.push_back(Event::PeerBack { silence }),
            Some(_) => {}
        }
    }

    /// Notices which peers are silent.
    pub(crate) fn peers_due(&mut self) {
        // ALARM sends nothing while there are no flows.
        if !self.protocol.has_control() {
            return;
        }
        let now = self.now;
        for peer in &mut self.peers {
            let is_silent = peer.heard_at.is_some_and(|at| now.since(at) >= LOST_AFTER);
            if is_silent && !peer.is_lost {
                peer.is_lost = true;
                self.events.push_back(Event::PeerLost);
            }
        }
    }

    /// The numbers of a peer have begun anew.
    pub(crate) fn on_new_numbers(&mut self, from: PeerId) {
        // With trailers its epoch shows whether it has started again.
        if self.peer(from).receiver.epoch().is_none() {
            self.on_peer_restart(from);
        }
    }

    /// A HELLO has begun the numbers of a peer; `anew`, if they were known before.
    pub(crate) fn peer_greets(&mut self, from: PeerId, anew: bool) {
        let now = self.now;
        let peer = self.peer_mut(from);
        let is_plain = peer.receiver.epoch().is_none();
        let before = peer.greeting.is_some_and(|g| g.is_restart);
        peer.greeting = Some(Greeting {
            at: now,
            is_restart: before || (anew && is_plain),
        });
    }

    fn on_peer_restart(&mut self, from: PeerId) {
        self.peer_mut(from).restarted();
        if let Some(expectations) = &mut self.expectations {
            expectations.on_peer_restart();
        }
        self.stats.peer_restarts += 1;
        self.events.push_back(Event::PeerRestarted {
            unconfirmed: self.unconfirmed(),
        });
        // Whoever is told to be the backup knows that what the peer has is the peer's.
        if self.role == Role::Backup && self.protocol.has_control() {
            self.request_resync();
        }
    }

    /// An ALIVE of a peer, with its trailer if it has one.
    pub(crate) fn on_alive(&mut self, from: PeerId, trailer: Option<Trailer>, received: &Received) {
        let was_plain = std::mem::replace(&mut self.peer_mut(from).plain, trailer.is_none());
        // Also if another program stands in for the one that sent trailers, or the reverse.
        let is_other = received.is_new_epoch || (was_plain && trailer.is_some());
        if is_other || (received.begins_numbers_anew() && trailer.is_some()) {
            self.on_peer_restart(from);
            if trailer.is_none_or(|t| t.holdings.is_none()) {
                let at = self.now;
                self.peer_mut(from).greeting = Some(Greeting {
                    at,
                    is_restart: true,
                });
            }
        }
        let peer = self.peer_mut(from);
        peer.role = trailer.map_or(Role::Unknown, |t| t.role);
        peer.holdings = trailer.and_then(|t| t.holdings);
        if let Some(trailer) = trailer {
            self.on_trailer(from, &trailer, received);
        }
    }
}
