//! The receive path up to a typed message: framing, verdict, sequence, attributes,
//! each refusal counted by its reason in the original's order.

use std::time::Duration;

use flow::{Expectation, Flow};
use wire::v1::{
    Control, Epoch, Flags, FrameError, Header, Message, Mode, ObjectKind, Seq, StateKind, Trailer,
    Verdict, decode_expectation, decode_flow, verdict,
};

use crate::Instant;
use crate::stats::ReceiveStats;

/// A message that has passed every check.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "handled at once and never stored"
)]
pub enum Accepted {
    /// A flow of the peer.
    Flow(StateKind, Flow),
    /// An expectation of the peer.
    Expectation(StateKind, Expectation),
    /// ALIVE, with its trailer if it has one.
    Alive(Option<Trailer>),
    /// Any other control message.
    Control(Control),
}

/// What a message's sequence number meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The number.
    pub seq: Seq,
    /// Its flags.
    pub flags: Flags,
    /// First and last number that did not come before it.
    pub missed: Option<(Seq, Seq)>,
    /// Nothing was known of the sender's numbers, or they began anew.
    pub restarted: bool,
    /// They were known: it is the sender that has started again.
    pub anew: bool,
    /// An ALIVE that does not name the epoch that the last one named.
    pub new_run: bool,
    /// Older than one seen before: it is used only as far as it is still news.
    pub late: bool,
    /// The last number of the sender from here on.
    pub last: Seq,
}

/// A peer names its epoch every second: after this long without, it is another.
const STALE_MAX: Duration = Duration::from_secs(3);

/// In NOTRACK, a message that is this much older than one seen before is late; further
/// back, the sender has started again.
const LATE_MAX: i32 = 4096;

/// A HELLO whose number is ahead by no more than this comes from a peer that has not
/// yet heard our answer, rather than from one that has started again; in doubt we
/// ask for numbers that the peer never had, which costs nothing.
const HELLO_AHEAD_MAX: i32 = 1 << 16;

/// A HELLO whose number is behind is a late copy for this long after the last HELLO;
/// a peer that has started again says it until it is answered.
const HELLO_LATE_MAX: Duration = Duration::from_millis(500);

/// Only late messages have come since then. Either they are late copies, or a message of
/// the sender's former run had led us astray and its numbers are what they say. Two
/// things are no late copy: an acknowledgement of what we have sent since, and an ALIVE
/// that names the present epoch under a number that none of them had, [`LATE_COPY_MAX`] on.
#[derive(Clone, Copy, Debug)]
struct Astray {
    since: Instant,
    /// The number that we were about to send.
    own_next: Seq,
}

/// The first copy of a datagram is not later than this behind those sent after it.
const LATE_COPY_MAX: Duration = Duration::from_millis(500);

/// Receive state towards one peer.
#[derive(Clone, Debug)]
pub struct Receiver {
    mode: Mode,
    last: Option<Seq>,
    followed: Option<Followed>,
    hello_at: Option<Instant>,
    /// Only late messages have come for some time.
    astray: Option<Astray>,
    /// The highest number of an ALIVE that named the present epoch.
    named: Option<Seq>,
    /// When the present epoch was last named.
    named_at: Option<Instant>,
    /// The highest number in a datagram that named the present epoch: surely of this run.
    named_to: Option<Seq>,
    /// Which of its runs the peer says it is, if it does, and which it said before.
    epoch: Option<Epoch>,
    former: Option<Epoch>,
    /// When the former one was first named since the present one last was.
    former_at: Option<Instant>,
    /// This datagram has named an epoch. One with HELLO of a peer that names epochs begins so.
    is_named: bool,
    /// The epoch that it has named is the present one.
    is_current: bool,
    /// The states of this datagram are offers.
    is_offer: bool,
    /// Counters.
    pub stats: ReceiveStats,
}

impl Receiver {
    /// A receiver that has heard nothing.
    pub fn new(mode: Mode) -> Receiver {
        Receiver {
            mode,
            last: None,
            followed: None,
            hello_at: None,
            astray: None,
            named: None,
            named_at: None,
            named_to: None,
            epoch: None,
            former: None,
            former_at: None,
            is_named: false,
            is_current: false,
            is_offer: false,
            stats: ReceiveStats::default(),
        }
    }

    /// What follows is of another datagram.
    pub(crate) fn begin_datagram(&mut self) {
        self.is_named = false;
        self.is_current = false;
        self.is_offer = false;
    }

    /// True if the states that follow in this datagram are offers.
    pub(crate) fn is_offer(&self) -> bool {
        self.is_offer
    }

    /// The last sequence number accepted.
    pub fn last(&self) -> Option<Seq> {
        self.last
    }

    /// Which of its runs the peer says it is, if it sends trailers.
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// What the sequence number of the last message meant, if its header was good.
    pub fn take_followed(&mut self) -> Option<Followed> {
        self.followed.take()
    }

    /// Judges one message; `None` if it is rejected or passed over.
    ///
    /// The sequence advances before the attributes are read: a message with a bad
    /// payload is not asked for again. `own_next` is the number that we send next.
    pub fn accept(
        &mut self,
        now: Instant,
        own_next: Seq,
        message: Result<Message<'_>, FrameError>,
    ) -> Option<Accepted> {
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                self.stats.malformed += 1;
                match error {
                    FrameError::Truncated { .. } => self.stats.truncated += 1,
                    FrameError::BadSize { .. } => self.stats.bad_size += 1,
                    FrameError::WrongVersion(_) => self.stats.wrong_version += 1,
                }
                return None;
            }
        };
        match verdict(self.mode, &message.header) {
            Verdict::Ignored => {
                self.stats.ignored += 1;
                None
            }
            Verdict::BadHeader => {
                self.stats.malformed += 1;
                self.stats.bad_header += 1;
                None
            }
            Verdict::BadType => {
                self.stats.malformed += 1;
                self.stats.bad_type += 1;
                None
            }
            Verdict::Control(Control::Alive) => {
                let trailer = self.trailer(message.body);
                let epoch = trailer.map(|t| t.epoch);
                if epoch.is_none() && self.is_named_lately(now) {
                    self.stats.before += 1;
                    return None;
                }
                self.is_named |= epoch.is_some();
                let holdings = trailer.and_then(|t| t.holdings);
                self.is_offer = holdings.is_some_and(|h| h.offers);
                if epoch.is_some() && epoch == self.former && self.is_stale(now) {
                    self.stats.before += 1;
                    return None;
                }
                self.former_at = None;
                let new_run = self.epoch.is_some() && epoch != self.epoch;
                let followed = self.follow(now, &message.header, new_run);
                let seq = message.header.seq;
                let is_fresh = new_run || self.named.is_none_or(|named| named.before(seq));
                if is_fresh {
                    self.named = epoch.map(|_| seq);
                }
                if new_run {
                    self.named_to = None;
                }
                self.is_current = epoch.is_some() && (new_run || epoch == self.epoch);
                if self.is_current && !followed.late {
                    self.named_at = Some(now);
                }
                self.note_current(seq);
                if followed.late && !(is_fresh && self.was_long_astray(now, seq)) {
                    self.suspect(now, own_next);
                    return None;
                }
                if new_run {
                    self.former = self.epoch;
                }
                self.epoch = epoch;
                Some(Accepted::Alive(trailer))
            }
            Verdict::Control(control) => {
                // A late acknowledgement may be of the peer's former run; a late request
                // is repeated, since it counts as missed.
                let followed = self.follow(now, &message.header, false);
                if followed.late && !self.was_astray(&message.header, control) {
                    self.suspect(now, own_next);
                    return None;
                }
                Some(Accepted::Control(control))
            }
            Verdict::Data(object, state) => {
                self.note_current(message.header.seq);
                if self.follow(now, &message.header, false).late {
                    self.suspect(now, own_next);
                }
                self.decode(object, state, message.body)
            }
        }
    }

    /// True while the peer names its epoch as often as it should: what comes without is a
    /// late copy or forged, and no evidence of another program in its place.
    fn is_named_lately(&self, now: Instant) -> bool {
        let lately = |at: Instant| now.since(at) < STALE_MAX;
        self.epoch.is_some() && self.named_at.is_some_and(lately)
    }

    /// True if a message that names the former epoch is a late copy, which those of the
    /// present run come between. If none does, it was the other one that was late.
    fn is_stale(&mut self, now: Instant) -> bool {
        now.since(*self.former_at.get_or_insert(now)) < STALE_MAX
    }

    fn trailer(&mut self, body: &[u8]) -> Option<Trailer> {
        Trailer::decode(body).unwrap_or_else(|_| {
            self.stats.bad_trailers += 1;
            None
        })
    }

    /// Follows the sequence; `new_run` if the message names another epoch.
    fn follow(&mut self, now: Instant, header: &Header, new_run: bool) -> Followed {
        let followed = self.place(now, header, new_run);
        self.followed = Some(followed);
        followed
    }

    fn place(&mut self, now: Instant, header: &Header, new_run: bool) -> Followed {
        let mut followed = Followed {
            seq: header.seq,
            flags: header.flags,
            missed: None,
            restarted: false,
            anew: false,
            new_run,
            late: false,
            last: header.seq,
        };
        if self.mode == Mode::Alarm {
            return followed;
        }
        let hello = self.mode == Mode::Ftfw && header.flags.intersects(Flags::HELLO);
        if hello && !self.is_named && self.is_named_lately(now) {
            self.stats.before += 1;
            followed.late = true;
            return followed;
        }
        let hello_was_late = |at: Instant| now.since(at) < HELLO_LATE_MAX;
        let may_be_late = self.hello_at.is_some_and(hello_was_late);
        let goes_on = |last: &Seq| match header.seq.ahead_of(*last) {
            _ if new_run => false,
            // A peer that says which of its runs speaks says so before all else.
            _ if !hello || self.is_named => true,
            ahead if ahead > 0 => ahead <= HELLO_AHEAD_MAX,
            _ => may_be_late,
        };
        let known = self.last.filter(goes_on);
        let is_late = known.is_some_and(|last| header.seq.ahead_of(last) <= 0);
        if hello && !is_late {
            self.hello_at = Some(now);
        }
        let Some(last) = known else {
            followed.restarted = true;
            followed.anew = self.last.is_some();
            if !new_run && self.epoch.is_some() {
                // Another program stands in for the one that named epochs.
                self.former = self.epoch.take();
            }
            self.astray = None;
            self.last = Some(header.seq);
            return followed;
        };
        match header.seq.ahead_of(last) {
            1 => {}
            ahead if ahead > 1 => {
                self.stats.lost += u64::from(ahead.unsigned_abs() - 1);
                followed.missed = Some((last.next(), Seq(header.seq.0.wrapping_sub(1))));
            }
            behind => {
                self.stats.before += 1;
                followed.late = match self.mode {
                    Mode::Ftfw => true,
                    // Also backwards, as the original does: a peer that has started again
                    // begins with a lower number.
                    _ => self.epoch.is_some() && behind > -LATE_MAX,
                };
                if followed.late {
                    return followed;
                }
            }
        }
        self.astray = None;
        self.last = Some(header.seq);
        followed
    }

    /// Notes the number of a message in a datagram that names the present epoch.
    fn note_current(&mut self, seq: Seq) {
        if self.is_current && self.named_to.is_none_or(|to| to.before(seq)) {
            self.named_to = Some(seq);
        }
    }

    /// Notes that a message was late.
    fn suspect(&mut self, now: Instant, own_next: Seq) {
        self.astray.get_or_insert(Astray {
            since: now,
            own_next,
        });
    }

    /// Follows the sender's numbers anew if a late message acknowledges what was sent
    /// after late messages had begun.
    fn was_astray(&mut self, header: &Header, control: Control) -> bool {
        let (Some(astray), Control::Ack(_, to)) = (self.astray, control) else {
            return false;
        };
        let proves = !to.before(astray.own_next);
        if proves {
            self.follow_anew(header.seq);
        }
        proves
    }

    /// The same for a fresh ALIVE that names the present epoch.
    fn was_long_astray(&mut self, now: Instant, seq: Seq) -> bool {
        let is_long = |a: Astray| now.since(a.since) >= LATE_COPY_MAX;
        let proves = self.epoch.is_some() && self.astray.is_some_and(is_long);
        if proves {
            self.follow_anew(seq);
        }
        proves
    }

    /// The sender's numbers are what this message, which seemed late, says.
    fn follow_anew(&mut self, seq: Seq) {
        self.astray = None;
        // What the run has sent since has come, too: it must not be taken for new again.
        let to = self.named_to.filter(|to| seq.before(*to));
        let last = to.unwrap_or(seq);
        self.last = Some(last);
        if let Some(followed) = &mut self.followed {
            followed.last = last;
            followed.late = false;
            followed.restarted = true;
        }
    }

    fn decode(&mut self, object: ObjectKind, state: StateKind, body: &[u8]) -> Option<Accepted> {
        let decoded = match object {
            ObjectKind::Flow => decode_flow(body).map(|d| {
                self.stats.unknown_attrs += u64::from(d.unknown_attrs);
                Accepted::Flow(state, d.object)
            }),
            ObjectKind::Expectation => decode_expectation(body).map(|d| {
                self.stats.unknown_attrs += u64::from(d.unknown_attrs);
                Accepted::Expectation(state, d.object)
            }),
        };
        if decoded.is_err() {
            self.stats.malformed += 1;
            self.stats.bad_payload += 1;
        }
        decoded.ok()
    }
}
