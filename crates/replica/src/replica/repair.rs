//! Grants what the peers' datagrams have wished for, as soon as it may be.

use wire::Role;

use super::Replica;
use crate::bulk::Found;
use crate::command::Objects;
use crate::entry::Internal;
use crate::event::Event;
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

    /// True if a peer was primary beside us for a moment, is the backup now, and has announced
    /// flows of our kernel: its HA manager had missed the advertisements of ours, and nobody tells
    /// us. Not if another peer is primary, nor while a commit, and with it a script, runs.
    pub(crate) fn is_to_claim(&self) -> bool {
        let is_over = |p: &Peer| p.is_beside && !p.is_lost && p.role == Role::Backup;
        self.role == Role::Primary
            && self.ledger.members(Internal::TAKEN) > 0
            && self.peers.iter().any(is_over)
            && !self.peers.iter().any(|p| p.role == Role::Primary)
            && !self.is_commit_open()
    }

    /// Claims what is in our kernel, as at a take-over: the bulk update follows.
    fn claim_back(&mut self) {
        for peer in &mut self.peers {
            peer.was_primary |= peer.is_beside;
            peer.is_beside = false;
        }
        self.events.push_back(Event::ClaimedBack);
        self.start_resync(Objects::All);
    }

    /// True while a claim, or a take-over, reads the kernel, and its bulk update waits for that.
    pub(crate) fn is_claim_under_way(&self) -> bool {
        self.bulk.found == Some(Found::Announced) && self.sweeps.is_resync_owed()
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
            Wish::Everything => self.start_bulk(),
            Wish::Claim => {
                // It may also have asked for everything.
                if self.is_to_claim() {
                    self.claim_back();
                }
                self.start_bulk();
            }
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
