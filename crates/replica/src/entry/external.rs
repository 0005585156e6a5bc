//! What is noted about an entry of the external cache: what the peer last sent of the flow,
//! whose it is since, and how far the kernel has it.
//!
//! Without injection an entry is what the peer holds, and only a commit writes it. With
//! injection it is the ledger of what we put into our kernel: at most one request about it
//! is under way, and what changes meanwhile is noted and looked at when that is answered.

use cache::Note;
use wire::Seq;

use crate::receive::PeerId;

/// The flow has ended; the entry waits until the kernel has it no more.
const ENDED: u16 = 1;
/// Our kernel has seen traffic of the flow since the peer announced it. We announce it;
/// until the peer has acknowledged that, the peer counts on this entry.
const OURS: u16 = 2;
/// The peer has only offered it: whose it is, nobody knows.
const OFFER: u16 = 16;
/// The peer has announced it since the commit, under way or over, has read it.
const LATE: u16 = 4;
/// Not a flag but a class: the entries of the first peer. Those of the others follow, up to
/// `PEERS_MAX` in all; the flags that are classes lie below.
const OF_FIRST_PEER: u16 = 16;

// With injection.

/// The kernel has not been given yet what the peer sent last.
const UNWRITTEN: u16 = 32;
/// Our kernel has the flow from us.
const IN_KERNEL: u16 = 64;
/// A request about it is under way.
const ASKED: u16 = 128;
/// It changed meanwhile.
const CHANGED: u16 = 256;
/// Kept out of the kernel: an offer to one whose table has survived, or a copy that has run down
/// there. Only a commit writes it.
const HELD: u16 = 8;

/// The round in which a dump of the kernel last showed it; rounds are on and off in turn.
const SEEN: u16 = 4096;

/// What is noted about an entry of the external cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct External {
    /// Number of the message that last announced or offered it.
    pub(crate) seq: Seq,
    /// The peer that did so, and which of its epochs, as we count them, it was in.
    pub(crate) peer: PeerId,
    pub(crate) epoch: u8,
    flags: u16,
}

impl External {
    pub(crate) const ENDED: u16 = ENDED;
    pub(crate) const OURS: u16 = OURS;
    pub(crate) const LATE: u16 = LATE;
    pub(crate) const HELD: u16 = HELD;

    /// The class of the entries that a peer was the last to announce or offer.
    pub(crate) fn of_peer(peer: PeerId) -> u16 {
        OF_FIRST_PEER << peer.0
    }

    fn has(self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    fn change(&mut self, set: u16, clear: u16) {
        self.flags = self.flags & !clear | set;
    }

    pub(crate) fn has_ended(self) -> bool {
        self.has(ENDED)
    }

    pub(crate) fn is_ours(self) -> bool {
        self.has(OURS)
    }

    pub(crate) fn is_offer(self) -> bool {
        self.has(OFFER)
    }

    pub(crate) fn is_late(self) -> bool {
        self.has(LATE)
    }

    pub(crate) fn is_unwritten(self) -> bool {
        self.has(UNWRITTEN)
    }

    pub(crate) fn is_in_kernel(self) -> bool {
        self.has(IN_KERNEL)
    }

    pub(crate) fn is_asked(self) -> bool {
        self.has(ASKED)
    }

    pub(crate) fn is_held(self) -> bool {
        self.has(HELD)
    }

    // ---- what the peer sends ----

    /// The message `seq` of a peer in an epoch has announced or offered it.
    pub(crate) fn heard(&mut self, peer: PeerId, epoch: u8, seq: Seq, is_offer: bool) {
        self.seq = seq;
        self.peer = peer;
        self.epoch = epoch;
        self.change(if is_offer { OFFER } else { 0 }, OFFER);
    }

    /// The peer has announced it: it is the peer's. `late`: a commit has passed it already.
    pub(crate) fn announced(&mut self, late: bool) {
        self.change(if late { LATE } else { 0 }, OURS | HELD);
    }

    /// The kernel is to be given what the peer sent.
    pub(crate) fn owed_to_kernel(&mut self) {
        self.change(UNWRITTEN, 0);
    }

    /// The peer has ended it, and our kernel may still have it.
    pub(crate) fn ended(&mut self, seq: Seq) {
        self.seq = seq;
        self.change(ENDED, 0);
    }

    /// The peer has announced it after its end.
    pub(crate) fn revived(&mut self) {
        self.change(UNWRITTEN, ENDED);
    }

    /// It is kept out of the kernel.
    pub(crate) fn held(&mut self) {
        self.change(HELD, 0);
    }

    /// It is an offer from here on: the peer has not accepted that the flow is ours, and our
    /// kernel has it no more. `held`: only a commit writes it.
    pub(crate) fn doubted(&mut self, held: bool) {
        self.change(OFFER | if held { HELD } else { 0 }, OURS);
    }

    // ---- what our kernel shows ----

    /// Our kernel has seen traffic. Whatever the peer sends next is compared with the
    /// kernel's entry first.
    pub(crate) fn claimed(&mut self) {
        self.change(OURS, UNWRITTEN | IN_KERNEL | HELD);
    }

    /// The peer only offered the flow, and it is ours.
    pub(crate) fn offered_ours(&mut self) {
        self.change(OURS, 0);
    }

    /// Our kernel has it no more.
    pub(crate) fn left_kernel(&mut self) {
        self.change(0, IN_KERNEL);
    }

    // ---- the conversation with the kernel ----

    /// A request about it is on its way.
    pub(crate) fn asked(&mut self) {
        self.change(ASKED, 0);
    }

    /// The dump of a round has shown it.
    pub(crate) fn seen(&mut self, round: bool) {
        self.change(if round { SEEN } else { 0 }, SEEN);
    }

    /// True if the last dump that has shown it was of that round. Rounds have two names in turn: one
    /// that was missing in between has been found then.
    pub(crate) fn is_seen(self, round: bool) -> bool {
        self.has(SEEN) == round
    }

    /// It has changed; true if it can be queued at once, false if a request is under way.
    pub(crate) fn changed(&mut self) -> bool {
        if self.is_asked() {
            self.change(CHANGED, 0);
        }
        !self.is_asked()
    }

    /// True if it has changed since the request under way was made.
    pub(crate) fn has_changed(self) -> bool {
        self.has(CHANGED)
    }

    /// The request is over; true if the entry changed meanwhile.
    pub(crate) fn answered(&mut self) -> bool {
        let changed = self.has(CHANGED);
        self.change(0, ASKED | CHANGED);
        changed
    }

    /// The kernel has it as the peer sent it when the request was made.
    pub(crate) fn written(&mut self) {
        let newest = !self.has(CHANGED);
        self.change(IN_KERNEL, if newest { UNWRITTEN } else { 0 });
    }

    /// A commit has read it.
    pub(crate) fn committing(&mut self) {
        self.change(0, LATE);
    }

    /// A commit has written what our kernel did not have.
    pub(crate) fn committed(&mut self) {
        self.written();
        self.change(0, HELD);
    }

    /// It is to be committed after a flush of the external cache.
    pub(crate) fn kept_as_late(&mut self) {
        self.change(LATE, 0);
    }

    /// The note of an entry in another slot, about which no request is under way.
    pub(crate) fn renewed(self) -> External {
        External {
            flags: self.flags & OFFER,
            ..self
        }
    }
}

impl Note for External {
    fn classes(&self) -> u16 {
        self.flags & (ENDED | OURS | LATE | HELD) | External::of_peer(self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type NamedStep = (&'static str, fn(&mut External));

    fn steps() -> Vec<NamedStep> {
        vec![
            ("announced", |e| {
                e.heard(PeerId::FIRST, 1, Seq(2), false);
                e.announced(false);
            }),
            ("announced late", |e| {
                e.heard(PeerId::FIRST, 1, Seq(2), false);
                e.announced(true);
            }),
            ("offered", |e| e.heard(PeerId::FIRST, 1, Seq(2), true)),
            ("owed to the kernel", External::owed_to_kernel),
            ("ended", |e| e.ended(Seq(2))),
            ("revived", External::revived),
            ("held", External::held),
            ("doubted", |e| e.doubted(true)),
            ("claimed", External::claimed),
            ("left the kernel", External::left_kernel),
            ("asked", External::asked),
            ("changed", |e| {
                e.changed();
            }),
            ("answered", |e| {
                e.answered();
            }),
            ("written", External::written),
            ("committing", External::committing),
            ("committed", External::committed),
            ("renewed", |e| *e = e.renewed()),
        ]
    }

    /// Walks through every state that the steps reach.
    fn for_each_transition(mut see: impl FnMut(External, &str, External)) -> usize {
        let mut known = std::collections::BTreeSet::new();
        let mut open = vec![External::default()];
        while let Some(from) = open.pop() {
            if !known.insert(from.flags) {
                continue;
            }
            for (name, step) in steps() {
                let mut to = from;
                step(&mut to);
                see(from, name, to);
                open.push(to);
            }
        }
        known.len()
    }

    #[test]
    fn each_step_has_its_meaning_in_every_state() {
        let states = for_each_transition(|from, name, to| {
            let context = format!("{from:?} --{name}--> {to:?}");
            match name {
                "announced" | "announced late" => {
                    let is_theirs = !to.is_ours() && !to.is_offer() && !to.is_held();
                    assert!(is_theirs, "{context}");
                }
                "claimed" => {
                    let needs_reading = !to.is_unwritten() && !to.is_in_kernel();
                    assert!(to.is_ours() && needs_reading && !to.is_held(), "{context}");
                }
                "doubted" => assert!(to.is_offer() && !to.is_ours(), "{context}"),
                "written" => {
                    // What changed since the request is still to be written.
                    let stays = from.has(CHANGED) && from.is_unwritten();
                    assert_eq!(to.is_unwritten(), stays, "{context}");
                    assert!(to.is_in_kernel(), "{context}");
                }
                "answered" => assert!(!to.is_asked(), "{context}"),
                "changed" => assert_eq!(to.is_asked(), from.is_asked(), "{context}"),
                "renewed" => {
                    let nothing = ENDED | OURS | LATE | UNWRITTEN | IN_KERNEL | ASKED | HELD;
                    assert!(!to.has(nothing), "{context}");
                }
                "committed" => {
                    assert!(to.is_in_kernel() && !to.is_held(), "{context}");
                    let stays = from.has(CHANGED) && from.is_unwritten();
                    assert_eq!(to.is_unwritten(), stays, "{context}");
                }
                _ => {}
            }
            // A change is only noted while a request is under way.
            assert!(!to.has(CHANGED) || to.is_asked(), "{context}");
        });
        assert!(states > 100, "only {states} states were reached");
    }

    #[test]
    fn what_changes_while_a_request_is_under_way_is_looked_at_again() {
        let mut entry = External::default();
        entry.owed_to_kernel();
        assert!(entry.changed(), "nothing is under way");
        entry.asked();
        assert!(!entry.changed(), "a request is under way");
        entry.written();
        assert!(entry.is_unwritten(), "the change has not been written");
        assert!(entry.answered(), "it is looked at again");
        assert!(!entry.answered(), "once");
    }
}
