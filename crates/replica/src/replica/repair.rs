//! Grants what the peers' datagrams have wished for, as soon as it may be.

use super::Replica;
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
