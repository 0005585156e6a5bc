//! Grants what the peers' datagrams have wished for, as soon as it may be.

use wire::Role;

use super::Replica;
use crate::command::Objects;
use crate::entry::Internal;
use crate::peer::Peer;
use crate::repairs::{Wish, is_recent};

impl Replica {
    /// A datagram wants a bulk update: it begins now, or as soon as it may.
    pub(crate) fn wish(&mut self, wish: Wish) {
        if self.protocol.has_control() {
            self.repairs.wish = self.repairs.wish.max(Some(wish));
            self.grant_wish();
        }
    }

    /// All that is unacknowledged is to be sent again, because a peer has started again or
    /// greets anew: now, or as soon as it may be.
    pub(crate) fn wish_repeat(&mut self, restarted: bool) {
        let before = self.repairs.repeat.unwrap_or(false);
        self.repairs.repeat = Some(before || restarted);
        self.grant_repeat();
    }

    /// A peer asks for everything (RESYNC).
    pub(crate) fn asked_for_all(&mut self) {
        self.repairs.asked_at = Some(self.now);
        self.wish(Wish::Everything);
    }

    /// A peer has said what it is. If one has asked before, and has announced more since, it is
    /// answered once more.
    pub(crate) fn peer_told_its_role(&mut self) {
        if self.is_to_claim() {
            self.wish(Wish::Everything);
        }
    }

    /// True if a backup has asked for everything that has announced flows of our kernel, and no
    /// other replica is primary. It has been primary beside us for a moment, and its HA manager
    /// has made it the backup again: nobody tells us. A peer that names no role is believed if we
    /// have one, and know our copies of its flows from our own.
    fn is_to_claim(&self) -> bool {
        let believes_plain = self.role == Role::Primary && self.settings.external_cache;
        let is_backup = |peer: &Peer| peer.role == Role::Backup || (peer.plain && believes_plain);
        let has_taken = self.ledger.members(Internal::TAKEN) > 0;
        let is_asked = self.role != Role::Backup && self.repairs.is_asked(self.now);
        is_asked && has_taken && self.peers.iter().all(|p| p.is_lost || is_backup(p))
    }

    /// Sends the peer everything. A primary claims what is in its kernel, as at its take-over.
    fn answer_with_all(&mut self) {
        if self.is_to_claim() {
            self.repairs.asked_at = None;
            self.start_resync(Objects::All);
        }
        self.start_bulk();
    }

    /// Grants what has waited for time to pass.
    pub(crate) fn repairs_due(&mut self) {
        self.grant_wish();
        self.grant_repeat();
    }

    fn grant_wish(&mut self) {
        if self.is_bulk_under_way() || is_recent(self.repairs.granted_at, self.now) {
            return;
        }
        let Some(wish) = self.repairs.wish.take() else {
            return;
        };
        // A bulk update of nothing costs nothing.
        if !self.settings.internal_cache || !self.ledger.is_empty() {
            self.repairs.granted_at = Some(self.now);
        }
        match wish {
            Wish::Everything => self.answer_with_all(),
            Wish::Repair => self.start_repair(),
        }
    }

    fn grant_repeat(&mut self) {
        if is_recent(self.repairs.repeated_at, self.now) {
            return;
        }
        if let Some(restarted) = self.repairs.repeat.take() {
            self.repairs.repeated_at = Some(self.now);
            self.owe_all_sent(restarted);
        }
    }
}
