//! What the trailers of ALIVE say: how many flows each side holds for the other.
//!
//! Both replicas count. A peer reports how many flows we must hold, and a replica that holds
//! fewer asks for all of them.
//!
//! **Absence** from a bulk update removes an entry only if everything supports it:
//!
//! 1. the peer sends trailers, and has announced the entry before in this epoch, or in a
//!    former one and the peer's table is still the same: a new table ends nothing;
//! 2. it reports that the bulk is complete, in a message before which nothing is missing
//!    (FT-FW: we have acknowledged all of the bulk; NOTRACK: nothing was lost since);
//! 3. the number of flows that it has announced and offered is the number that we have
//!    received since a point before the bulk: `since`, moved on with each ALIVE while no
//!    bulk is open.

use std::time::Duration;

use cache::Position;
use wire::v1::{Bulk, BulkState, Control, Holdings, Trailer};
use wire::{Seq, StateKind, TableId};

use super::Replica;
use crate::entry::External;
use crate::event::Event;
use crate::peer::{Lack, Since};
use crate::protocol::Protocol;
use crate::receive::{PeerId, Received};
use crate::repairs::{self, Wish};

/// The longest pause between two times that the peer is asked for what we lack: what
/// asking does not mend, as a limit here, is not asked for every ten seconds.
const ASK_PAUSE_MAX: Duration = Duration::from_secs(320);

impl Replica {
    /// The trailer of an ALIVE.
    pub(crate) fn on_trailer(&mut self, from: PeerId, trailer: &Trailer, received: &Received) {
        self.on_holdings(from, trailer);
        if trailer.has_bulks {
            self.on_bulk_state(from, trailer, received);
        }
        if let Some(holdings) = trailer.holdings {
            self.compare_holdings(from, &holdings, &trailer.bulk, received);
            let lacking = self.lacking();
            self.peer_mut(from)
                .report(&holdings, &trailer.bulk, lacking);
        }
    }

    /// True if every peer distinguishes offers from announcements, and our trailer names them:
    /// a bulk update is one for all.
    pub(crate) fn takes_offers(&self) -> bool {
        let mut heard = self.peers.iter().filter(|p| p.heard_at.is_some());
        let knows_some = self.peers.iter().any(|p| p.holdings.is_some());
        self.settings.trailer && knows_some && heard.all(|p| p.holdings.is_some())
    }

    /// What a trailer reports of the peer's table, and what it asks for.
    fn on_holdings(&mut self, from: PeerId, trailer: &Trailer) {
        let Some(holdings) = trailer.holdings else {
            return;
        };
        if !self.settings.trailer {
            // To the peer we are an original, which sends nothing unasked.
            return;
        }
        let own_epoch = self.settings.epoch;
        let peer = self.peer_mut(from);
        if peer.greeted != Some(trailer.epoch) {
            peer.greeted = Some(trailer.epoch);
            peer.former_table = std::mem::replace(&mut peer.table, holdings.table);
            if peer.former_table != peer.table || peer.table == TableId(0) {
                peer.table_since = peer.epoch;
            }
            self.wish(Wish::Repair);
        } else if holdings.wants && holdings.heard == Some(own_epoch) {
            self.wish(Wish::Repair);
        }
    }

    /// What a trailer reports of a bulk update.
    fn on_bulk_state(&mut self, from: PeerId, trailer: &Trailer, received: &Received) {
        let bulk = &trailer.bulk;
        let offered = trailer.holdings.map_or(0, |h| h.offered as usize);
        let seq = received.seq;
        let peer = &mut self.peers[from.index()];
        let lost = peer.receiver.stats.lost;
        let is_open = bulk.number != peer.handled;
        if !is_open || bulk.first == seq {
            peer.since = Some(Since { seq, lost });
            peer.heard_since = 0;
            return;
        }
        let Some(since) = peer.since else { return };
        if bulk.state != BulkState::Complete || bulk.first.before(since.seq) {
            return;
        }
        let nothing_lost = match &self.protocol {
            // What is missing before this very message may be what ended a flow.
            Protocol::Ftfw(_) => received.missed().is_none(),
            _ => lost == since.lost,
        };
        if nothing_lost && peer.heard_since == bulk.flows as usize + offered {
            peer.handled = bulk.number;
            let holds_more = self.external.members(External::of_peer(from)) > peer.heard_since;
            if holds_more || !self.expectations.external.is_empty() {
                peer.absent = Some((Position::default(), since.seq));
            }
        }
    }

    /// Asks for everything if the peer counts on more flows than we hold, or if a complete
    /// bulk update has not shown which of those that we hold are gone.
    fn compare_holdings(
        &mut self,
        from: PeerId,
        holdings: &Holdings,
        bulk: &Bulk,
        received: &Received,
    ) {
        let now = self.now;
        let lack = &mut self.peer_mut(from).lack;
        if lack.asked.is_some_and(|(_, number)| number != bulk.number) {
            lack.wants = false;
        }
        let hears_us = holdings.heard == Some(self.settings.epoch);
        let is_judged =
            hears_us && bulk.state == BulkState::Complete && received.missed().is_none();
        // While we send the peer all that is ours, it may count on what it no longer owns.
        if !is_judged || self.is_bulk_under_way() {
            return;
        }
        let all = bulk.flows as usize + holdings.offered as usize;
        let ours = self.external.members(External::OURS) + self.external.members(External::ENDED);
        let held = self.external.members(External::of_peer(from));
        let is_full = self.external.len() >= self.settings.limit;
        let peer = self.peer_mut(from);
        let is_open = bulk.number != peer.handled;
        let has_more = is_open && held > all + ours;
        // Asking does not make room.
        let lacks = !is_full && peer.mentioned < holdings.kept as usize;
        let (counts_on, holds) = match lacks {
            true => (holdings.kept as usize, peer.mentioned),
            false => (all, held),
        };
        let lack = &mut peer.lack;
        if !lacks && !has_more {
            *lack = Lack::default();
            return;
        }
        lack.seen += 1;
        let may_ask = match lack.asked {
            // What is on its way may explain the first ones.
            None => lack.seen >= if lacks { 2 } else { 4 },
            Some((at, _)) => now.since(at) >= lack.pause,
        };
        if may_ask {
            lack.pause = (lack.pause * 2).clamp(repairs::INTERVAL, ASK_PAUSE_MAX);
            lack.asked = Some((now, bulk.number));
            lack.wants = true;
            self.stats.lacks_found += 1;
            self.events.push_back(if lacks {
                Event::Lacking { counts_on, holds }
            } else {
                Event::HoldsMore { counts_on, holds }
            });
            self.owe_alive();
        }
    }

    /// Moves on through what complete bulk updates did not mention. True if there is more.
    pub(crate) fn advance_absent(&mut self, items: usize) -> bool {
        // A commit takes what there is.
        if self.commit.is_some() {
            return false;
        }
        let mut more = false;
        for peer in self.peer_ids() {
            more |= self.advance_absent_of(peer, items);
        }
        more
    }

    fn advance_absent_of(&mut self, from: PeerId, items: usize) -> bool {
        let Some((mut position, since)) = self.peer(from).absent else {
            return false;
        };
        for _ in 0..items {
            let Some((slot, next)) = self.external.walk(position) else {
                self.peer_mut(from).absent = None;
                self.end_absent_expectations(from, since);
                return false;
            };
            position = next;
            let note = self.external.note(slot);
            if note.has_ended() || note.peer != from {
                continue;
            }
            if self.is_absent(from, note.epoch, note.seq, since) {
                self.stats.external_absent += 1;
                let flow = self.external.flow(slot);
                self.deliver(from, StateKind::Delete, flow, since);
            }
        }
        self.peer_mut(from).absent = Some((position, since));
        true
    }

    /// True if what a peer announced as `seq` in one of its epochs has no place in its bulk
    /// update that began at `since`.
    fn is_absent(&self, from: PeerId, epoch: u8, seq: Seq, since: Seq) -> bool {
        let peer = self.peer(from);
        let last = peer.receiver.last();
        let is_of_former_epoch = last.is_some_and(|last| last.before(seq));
        if epoch == peer.epoch {
            !since.before(seq) || is_of_former_epoch
        } else {
            peer.has_same_table(epoch)
        }
    }

    /// A bulk update mentions expectations, too.
    fn end_absent_expectations(&mut self, from: PeerId, since: Seq) {
        let theirs = self.expectations.external.behind(None);
        let absent = theirs.filter(|e| {
            let note = &e.note;
            note.peer == from
                && !note.has_ended
                && self.is_absent(from, note.epoch, note.seq, since)
        });
        for key in absent.map(|e| e.expectation.key()).collect::<Vec<_>>() {
            let owner = self.ledger.find(&key.master());
            let master_is_ours = owner.is_some_and(|s| self.ledger.is_ours(s));
            self.end_external_expectation(&key, master_is_ours);
        }
    }

    /// True if our kernel has lost its table since our former epoch, as a peer knows it.
    pub(crate) fn has_new_table(&self, peer: PeerId) -> bool {
        let hears_us = |h: &Holdings| h.heard == Some(self.settings.epoch);
        let holdings = self.peer(peer).holdings.filter(hears_us);
        let former = holdings.map_or(TableId(0), |h| h.former_table);
        former != TableId(0) && former != self.settings.table
    }

    /// What our own ALIVE carries; `None` if it carries nothing. `offers`: what follows
    /// it in the datagram are offers.
    pub(crate) fn trailer(&self, offers: bool) -> Option<Trailer> {
        if !self.settings.trailer || !self.protocol.has_control() {
            return None;
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let peer = self.peer(self.answers);
        // A full cache may be full of flows that the peer does not have, announced by somebody in
        // its name: how many of the peer's own are held is not known then.
        let held = match self.external.len() < self.settings.limit {
            true => peer.mentioned.saturating_sub(self.lacking()),
            false => 0,
        };
        Some(Trailer {
            role: self.role,
            has_bulks: true,
            epoch: self.settings.epoch,
            bulk: self.bulk_state(),
            holdings: Some(Holdings {
                offers,
                wants: peer.lack.wants,
                table: self.settings.table,
                offered: count(self.ledger.offered()),
                kept: count(self.kept()),
                heard: peer.receiver.epoch(),
                former_table: peer.former_table,
                held: count(held),
            }),
        })
    }

    /// Least number of flows that the peer that it answers must hold in its present epoch.
    fn kept(&self) -> usize {
        let peer = self.peer(self.answers);
        let is_greeted = peer.greeted.is_some() && peer.greeted == peer.receiver.epoch();
        let is_behind = self.protocol.has_lost_ends() || self.ledger.has_to_catch_up();
        if !is_greeted || is_behind || self.repairs.is_bulk_due() || self.is_bulk_under_way() {
            return 0;
        }
        let under_way = self.flows_owed() + self.protocol.under_way();
        (self.ledger.announced() + self.ledger.offered()).saturating_sub(under_way)
    }

    /// An ALIVE has been sent with our trailer, which answers one peer; the next one answers
    /// the next peer that has been heard.
    pub(crate) fn trailer_sent(&mut self) {
        let before = self.answers;
        let others = self.peer_ids().filter(|p| *p > before);
        let mut in_turn = others.chain(self.peer_ids().filter(|p| *p <= before));
        let next = in_turn.find(|p| self.peer(*p).heard_at.is_some());
        self.answers = next.unwrap_or(before);
    }

    /// Owes an ALIVE that is not due: it tells of our role, or begins or ends a bulk update.
    pub(crate) fn owe_alive(&mut self) {
        self.stream.owe(Control::Alive);
    }
}
