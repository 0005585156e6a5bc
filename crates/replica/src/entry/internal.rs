//! The life of an entry of the internal cache, as a table of transitions.
//!
//! ```text
//!   NEW event ─▶ Ours ──end──▶ Ended ──acknowledged──▶ (removed)
//!                 │ ▲            ▲
//!  peer announces │ │ traffic    │ end
//!                 ▼ │            │
//!               Taken ──┐  Found ──sent──▶ Offered      both: traffic ─▶ Ours
//!                 │     │    ▲
//!            end  ▼     └────┘ committed
//!             (removed)
//! ```
//!
//! [`Internal::step`] is the whole of it: it knows no cache, no time and no message, so a
//! test walks through every state and every step.

use cache::Note;

/// Whose a flow of our kernel is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    /// Ours: the peer has been sent it, or is about to be.
    #[default]
    Ours,
    /// Found in our kernel at the start, or committed: traffic shows whose it is.
    Found,
    /// Found, and offered to the peer as such.
    Offered,
    /// The peer has announced it since our kernel last saw traffic of it: it is the peer's.
    Taken,
    /// It has ended in our kernel: a tombstone, which waits until the peer knows.
    Ended,
}

/// What happens to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// An event has created it.
    Created,
    /// A sweep has found it: no event had reported it, and the peer may know a former life.
    Noticed,
    /// It was found in the kernel at the start, or has been committed, and is new to us.
    Adopted,
    /// A new flow has taken its tuple.
    Reused,
    /// Our kernel has changed it because of traffic.
    Updated,
    /// Our kernel has seen traffic of it.
    Traffic,
    /// The peer has announced it.
    TakenByPeer,
    /// The peer has announced its end.
    EndedByPeer,
    /// An operator's resync has found it: whose it is, nobody knows any more.
    FoundAgain,
    /// It has been committed.
    Committed,
    /// A sweep has noted its timeout since it was taken.
    Noted,
    /// The kernel is asked whether it still has it.
    Doubted,
    /// The kernel has answered.
    Answered,
    /// It has ended in our kernel.
    Ended,
    /// A bulk update passes it.
    InBulk,
    /// A bulk update announces it, whoever it may belong to.
    Promoted,
    /// A message about it has been sent.
    Sent,
    /// The peer has its latest state; without acknowledgements: that has been sent.
    Acknowledged,
}

/// What the ledger does after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    /// It is owed to the peer.
    Announce,
    /// It is not ours to send: it leaves the order of versions.
    Withdraw,
    /// It waits beside the order of versions for traffic or a bulk update.
    Adopt,
    /// Its entry is of no use any more.
    Remove,
}

/// Updated since it was created: the next message about it is an update, which a peer
/// merges; a new flow replaces what the peer holds.
const UPDATED: u8 = 1;
/// The peer may know it, or a former life of it: its end must be announced.
const KNOWN: u8 = 2;
/// A bulk update covers it, and the peer has not acknowledged it since.
const BULK: u8 = 4;
/// The kernel is asked whether it still has the flow, and no event has come since.
const DOUBTED: u8 = 8;
/// `Taken`, and a sweep has noted the kernel's timeout: a longer one is evidence of traffic
/// from here on. The copy of a former owner may live longer than its last event shows, so
/// the first look is none.
const NOTED: u8 = 16;
/// `Taken`, and the owner has announced its end: our kernel's copy is of no use any more.
const OWNER_ENDED: u8 = 32;

/// What is noted about an entry of the internal cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Internal {
    /// High and low half of its version, 0 outside the order of versions. The halves keep
    /// the record aligned to four bytes.
    version: [u32; 2],
    /// Number of the last sweep that saw it.
    pub(crate) sweep: u8,
    life: Life,
    flags: u8,
}

impl Internal {
    pub(crate) const OURS: u16 = 1;
    pub(crate) const FOUND: u16 = 2;
    pub(crate) const OFFERED: u16 = 4;
    pub(crate) const ENDED: u16 = 8;
    pub(crate) const IN_BULK: u16 = 16;
    pub(crate) const TAKEN: u16 = 32;

    pub(crate) fn life(self) -> Life {
        self.life
    }

    pub(crate) fn is_ours(self) -> bool {
        self.life == Life::Ours
    }

    pub(crate) fn is_taken(self) -> bool {
        self.life == Life::Taken
    }

    pub(crate) fn has_ended(self) -> bool {
        self.life == Life::Ended
    }

    /// Found in our kernel, offered or not.
    pub(crate) fn is_found(self) -> bool {
        matches!(self.life, Life::Found | Life::Offered)
    }

    pub(crate) fn is_updated(self) -> bool {
        self.flags & UPDATED != 0
    }

    pub(crate) fn is_in_bulk(self) -> bool {
        self.flags & BULK != 0
    }

    pub(crate) fn is_doubted(self) -> bool {
        self.flags & DOUBTED != 0
    }

    pub(crate) fn is_noted(self) -> bool {
        self.flags & NOTED != 0
    }

    pub(crate) fn has_owner_ended(self) -> bool {
        self.flags & OWNER_ENDED != 0
    }

    pub(crate) fn version(self) -> u64 {
        u64::from(self.version[0]) << 32 | u64::from(self.version[1])
    }

    pub(crate) fn set_version(&mut self, version: u64) {
        self.version = [(version >> 32) as u32, version as u32];
    }

    fn set(&mut self, flags: u8) {
        self.flags |= flags;
    }

    fn clear(&mut self, flags: u8) {
        self.flags &= !flags;
    }

    fn becomes(&mut self, life: Life) {
        self.life = life;
        if life != Life::Taken {
            self.clear(NOTED | OWNER_ENDED);
        }
    }

    /// Changes the note by one step and returns what follows.
    pub(crate) fn step(&mut self, step: Step) -> Effect {
        match (step, self.life) {
            (Step::Created, _) => {
                self.flags = 0;
                self.becomes(Life::Ours);
                Effect::Announce
            }
            (Step::Noticed, _) => {
                self.flags = KNOWN;
                self.becomes(Life::Ours);
                Effect::Announce
            }
            (Step::Adopted, _) => {
                self.flags = KNOWN;
                self.becomes(Life::Found);
                Effect::Adopt
            }
            (Step::Reused, _) => {
                self.flags = KNOWN | self.flags & BULK;
                self.becomes(Life::Ours);
                Effect::Announce
            }
            (Step::Updated | Step::Traffic, Life::Ended) => Effect::Nothing,
            (Step::Updated, _) => {
                self.set(UPDATED);
                self.clear(DOUBTED);
                self.becomes(Life::Ours);
                Effect::Announce
            }
            (Step::Traffic, _) => {
                self.becomes(Life::Ours);
                Effect::Announce
            }
            (Step::TakenByPeer, Life::Ended) => Effect::Nothing,
            (Step::TakenByPeer, _) => {
                self.set(KNOWN);
                self.clear(OWNER_ENDED | BULK);
                self.becomes(Life::Taken);
                Effect::Withdraw
            }
            (Step::EndedByPeer, Life::Taken) => {
                self.set(OWNER_ENDED);
                Effect::Nothing
            }
            (Step::EndedByPeer, _) => Effect::Nothing,
            (Step::FoundAgain | Step::Committed, Life::Taken) => {
                self.becomes(Life::Found);
                Effect::Adopt
            }
            (Step::Committed, Life::Ended) => {
                self.becomes(Life::Ours);
                Effect::Announce
            }
            (Step::FoundAgain | Step::Committed, _) => Effect::Nothing,
            (Step::Noted, Life::Taken) => {
                self.set(NOTED);
                Effect::Nothing
            }
            (Step::Noted, _) => Effect::Nothing,
            (Step::Doubted, _) => {
                self.set(DOUBTED);
                Effect::Nothing
            }
            (Step::Answered, _) => {
                self.clear(DOUBTED);
                Effect::Nothing
            }
            (Step::Ended, Life::Ended) => Effect::Nothing,
            (Step::Ended, Life::Taken) => Effect::Remove,
            (Step::Ended, _) if self.flags & KNOWN == 0 => Effect::Remove,
            (Step::Ended, _) => {
                self.becomes(Life::Ended);
                Effect::Announce
            }
            (Step::InBulk, Life::Taken | Life::Ended) => Effect::Nothing,
            (Step::InBulk, _) => {
                self.set(BULK);
                Effect::Nothing
            }
            (Step::Promoted, Life::Found | Life::Offered) => {
                self.set(BULK);
                self.becomes(Life::Ours);
                Effect::Announce
            }
            (Step::Promoted, _) => Effect::Nothing,
            (Step::Sent, life) => {
                self.set(KNOWN);
                if life == Life::Found {
                    self.becomes(Life::Offered);
                }
                Effect::Nothing
            }
            (Step::Acknowledged, Life::Ended) => Effect::Remove,
            (Step::Acknowledged, _) => {
                self.clear(BULK);
                Effect::Nothing
            }
        }
    }
}

impl Note for Internal {
    fn classes(&self) -> u16 {
        let life = match self.life {
            Life::Ours => Internal::OURS,
            Life::Found => Internal::FOUND,
            Life::Offered => Internal::FOUND | Internal::OFFERED,
            // Its owner holds it no more.
            Life::Taken if self.has_owner_ended() => 0,
            Life::Taken => Internal::TAKEN,
            Life::Ended => Internal::ENDED,
        };
        let bulk = if self.is_in_bulk() {
            Internal::IN_BULK
        } else {
            0
        };
        life | bulk
    }
}

#[cfg(test)]
mod tests;
