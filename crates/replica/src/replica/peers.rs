//! The sessions of the peers: who has announced which entry, their life and their restarts.

use std::time::Duration;

use cache::Slot;
use wire::v1::{Holdings, Trailer};
use wire::{Epoch, Role, Seq};

use super::Replica;
use crate::entry::External;
use crate::event::Event;
use crate::peer::{GREETING_PROVEN, Greeting, LOST_AFTER, PEERS_MAX, Peer, Reported};
use crate::receive::{PeerId, Received};
use crate::repairs::Wish;

impl Replica {
    /// True if there is a session of this peer; one is made for a new one, up to a bound.
    pub(crate) fn has_peer(&mut self, peer: PeerId) -> bool {
        if peer.index() >= PEERS_MAX {
            self.stats.sessions_refused += 1;
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

    /// Those that have been heard, and those before them.
    pub fn peer_ids(&self) -> impl Iterator<Item = PeerId> + use<> {
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

    /// What a peer has of flows, as of its last ALIVE, and how many of them we held then. `None`
    /// if it does not report it.
    pub fn reported_by(&self, peer: PeerId) -> Option<Reported> {
        self.peers.get(peer.index())?.reported
    }

    /// Time since the last message of a peer; `None` before the first.
    pub fn silence_of(&self, peer: PeerId) -> Option<Duration> {
        Some(self.now.since(self.peers.get(peer.index())?.heard_at?))
    }

    /// True if nothing has come from a peer for long; `None` before its first message. Never
    /// in ALARM, which sends nothing while there are no flows.
    pub fn is_lost(&self, peer: PeerId) -> Option<bool> {
        let peer = self.peers.get(peer.index())?;
        peer.heard_at.map(|_| peer.is_lost)
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
        } else if !self.settings.external_cache || self.external.change(slot, External::changed) {
            // What a commit is writing may be newer than what our kernel has.
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
        if received.begins_anew() && !received.begins_numbers_anew() && peer.heard_at.is_some() {
            // A message of a former epoch had led the numbers astray, and what it announced is
            // counted with what the peer has: the bulk update before shows no more what is gone.
            peer.handled = 0;
        }
        let proven = |g: &mut Greeting| now.since(g.at) >= GREETING_PROVEN;
        let greeting = peer
            .greeting
            .take_if(|g| !received.begins_anew() && proven(g));
        let silence = peer.heard_at.map(|at| now.since(at));
        peer.heard_at = Some(now);
        let was_lost = std::mem::take(&mut peer.is_lost);
        if was_lost {
            // It is of before the silence. The next ALIVE brings another one.
            peer.reported = None;
        }
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
        // ALARM sends nothing while there are no flows. In the other modes each program sends
        // once a second.
        if !self.protocol.has_control() {
            return;
        }
        let now = self.now;
        self.events.extend(self.links.on_time(now));
        for peer in &mut self.peers {
            let is_silent = peer.heard_at.is_some_and(|at| now.since(at) >= LOST_AFTER);
            if is_silent && !peer.is_lost {
                peer.is_lost = true;
                // Its flows may come here now, which no event tells.
                self.sweeps.rounds.doubt();
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
        self.keep_all_lacking();
        self.expectations.on_peer_restart();
        self.stats.peer_restarts += 1;
        self.events.push_back(Event::PeerRestarted {
            unconfirmed: self.unconfirmed(),
        });
        // A replica that the HA manager made the backup knows that what the peer has is the peer's.
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
        let own_epoch = self.settings.epoch;
        let own_role = self.role;
        let peer = self.peer_mut(from);
        let former_role = peer.role;
        peer.role = trailer.map_or(Role::Unknown, |t| t.role);
        // A peer that has become backup may still send what it had, in answer to an earlier request.
        let has_taken_over = peer.role == Role::Primary && former_role != Role::Primary;
        peer.was_primary &= peer.role != Role::Unknown && !has_taken_over;
        peer.is_beside |= has_taken_over && own_role == Role::Primary;
        let holdings = trailer.and_then(|t| t.holdings);
        let answers_us = |h: &Holdings| h.heard == Some(own_epoch);
        let answers_another = |h: &Holdings| h.heard.is_some() && !answers_us(h);
        // A peer of several answers them in turn: its last answer to us stands.
        if !(holdings.as_ref().is_some_and(answers_another)
            && peer.holdings.as_ref().is_some_and(answers_us))
        {
            peer.holdings = holdings;
        }
        if let Some(trailer) = trailer {
            self.on_trailer(from, &trailer, received);
        }
        if self.is_to_claim() {
            self.wish(Wish::Claim);
        }
    }
}
