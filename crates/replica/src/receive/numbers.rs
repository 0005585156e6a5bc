//! The sequence numbers of the peer: what is next, what is missing, what is late, and when
//! they have begun anew.
//!
//! Hard cases: a peer that has started again may begin anywhere; a late copy of a HELLO
//! looks like one; and a message of a former epoch can lead the numbers astray for good.

use std::time::Duration;

use wire::Seq;
use wire::v1::Control;

use super::{Follows, LATE_COPY_MAX};
use crate::time::Instant;

/// In NOTRACK, a message that is this much older than one seen before is late; further
/// back, the sender has started again.
const LATE_MAX: i32 = 4096;

/// A HELLO whose number is ahead by no more than this comes from a peer that has not
/// yet heard our answer, rather than from one that has started again; in doubt we
/// ask for numbers that the peer never had, which costs nothing.
const HELLO_AHEAD_MAX: i32 = 1 << 16;

/// A HELLO whose number is behind is a late copy for this long after the last HELLO;
/// a peer that has started again greets until it is answered.
const HELLO_LATE_MAX: Duration = Duration::from_millis(500);

/// Only late messages have come since then. Either they are late copies, or a message of
/// the sender's former epoch had led us astray and the sender's numbers are those of the late ones. Two
/// things are no late copy: an acknowledgement of what we have sent since, and an ALIVE
/// that names the present epoch under a number that none of them had, [`LATE_COPY_MAX`] on.
#[derive(Clone, Copy, Debug)]
struct Astray {
    since: Instant,
    /// The first of them had this number.
    first: Seq,
    /// The number that we were about to send.
    own_next: Seq,
}

/// What is known of a message before its number is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) seq: Seq,
    /// It greets (FT-FW).
    pub(super) hello: bool,
    /// Its datagram names an epoch.
    pub(super) is_named: bool,
    /// It names another epoch than the ALIVE before it.
    pub(super) is_new_epoch: bool,
    /// Late messages are known by their number: always in FT-FW, in NOTRACK near the last one
    /// and only of a peer that names epochs.
    pub(super) lateness: Lateness,
}

/// When a lower number means that a message is late rather than that numbers begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lateness {
    Always,
    Near,
    Never,
}

/// The numbers of one sender.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    last: Option<Seq>,
    hello_at: Option<Instant>,
    astray: Option<Astray>,
}

impl Numbers {
    /// The last number, if one has come.
    pub(super) fn last(&self) -> Option<Seq> {
        self.last
    }

    /// Takes the number of a message.
    pub(super) fn follow(&mut self, now: Instant, message: Message) -> Follows {
        let Message { seq, hello, .. } = message;
        let hello_was_late = |at: Instant| now.since(at) < HELLO_LATE_MAX;
        let may_be_late = self.hello_at.is_some_and(hello_was_late);
        let goes_on = |last: &Seq| match seq.ahead_of(*last) {
            _ if message.is_new_epoch => false,
            // A peer that names its epoch names it before all else.
            _ if !hello || message.is_named => true,
            ahead if ahead > 0 => ahead <= HELLO_AHEAD_MAX,
            _ => may_be_late,
        };
        let known = self.last.filter(goes_on);
        let is_behind = known.is_some_and(|last| seq.ahead_of(last) <= 0);
        if hello && !is_behind {
            self.hello_at = Some(now);
        }
        let Some(last) = known else {
            let known = self.last.is_some();
            self.astray = None;
            self.last = Some(seq);
            return Follows::Anew {
                known,
                missed: None,
            };
        };
        let follows = match seq.ahead_of(last) {
            1 => Follows::Next,
            ahead if ahead > 1 => Follows::Gap(last.next(), Seq(seq.0.wrapping_sub(1))),
            behind => {
                let is_late = match message.lateness {
                    Lateness::Always => true,
                    Lateness::Near => behind > -LATE_MAX,
                    // As the original does: a peer that has started again begins with a
                    // lower number.
                    Lateness::Never => false,
                };
                if is_late {
                    return Follows::Late;
                }
                Follows::Back
            }
        };
        self.astray = None;
        self.last = Some(seq);
        follows
    }

    /// Notes that the message `seq` was late.
    pub(super) fn suspect(&mut self, now: Instant, seq: Seq, own_next: Seq) {
        self.astray.get_or_insert(Astray {
            since: now,
            first: seq,
            own_next,
        });
    }

    /// True if a late message acknowledges what was sent after late messages had begun, before
    /// `own_next`. What we have not sent, a former epoch of ours has.
    pub(super) fn are_astray(&self, control: Control, own_next: Seq) -> bool {
        match (self.astray, control) {
            (Some(astray), Control::Ack(_, to)) => {
                !to.before(astray.own_next) && to.before(own_next)
            }
            _ => false,
        }
    }

    /// True if late messages have come for longer than late copies do.
    pub(super) fn are_long_astray(&self, now: Instant) -> bool {
        let is_long = |a: Astray| now.since(a.since) >= LATE_COPY_MAX;
        self.astray.is_some_and(is_long)
    }

    /// The sender's numbers go on from a message that seemed late. `surely`: the highest
    /// one that has come of the present epoch, which must not be taken for new again.
    pub(super) fn follow_anew(&mut self, seq: Seq, surely: Option<Seq>) -> Seq {
        self.astray = None;
        let last = surely.filter(|to| seq.before(*to)).unwrap_or(seq);
        self.last = Some(last);
        last
    }

    /// The messages that seemed late were of another program, and the present one is `seq`.
    pub(super) fn begin_anew(&mut self, seq: Seq) -> Follows {
        let first = self.astray.take().map(|a| a.first);
        self.last = Some(seq);
        let is_before = |first: &Seq| seq.ahead_of(*first) > 0;
        let oldest = Seq(seq.0.wrapping_sub(LATE_MAX.unsigned_abs()));
        let first = first.filter(is_before);
        let first = first.map(|f| if f.before(oldest) { oldest } else { f });
        Follows::Anew {
            known: true,
            missed: first.map(|f| (f, Seq(seq.0.wrapping_sub(1)))),
        }
    }
}
