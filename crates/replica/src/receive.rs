//! The receive path up to a typed message: framing, verdict, sequence, attributes,
//! each refusal counted by its reason in the original's order.

use std::time::Duration;

use flow::Flow;
use wire::v1::{
    Control, Flags, FrameError, Header, Message, Mode, ObjectKind, Seq, StateKind, Verdict,
    decode_expectation, decode_flow, verdict,
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
    Expectation,
    /// A control message.
    Control(Control),
}

/// What a message's sequence number meant (FT-FW).
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
}

/// A HELLO whose number is ahead by no more than this comes from a peer that has not
/// yet heard our answer, rather than from one that has started again; in doubt we
/// ask for numbers that the peer never had, which costs nothing.
const HELLO_AHEAD_MAX: i32 = 1 << 16;

/// A HELLO whose number is behind is a late copy for this long after the last HELLO;
/// a peer that has started again says it until it is answered.
const HELLO_LATE_MAX: Duration = Duration::from_millis(500);

/// Receive state towards one peer.
#[derive(Clone, Debug)]
pub struct Receiver {
    mode: Mode,
    last: Option<Seq>,
    followed: Option<Followed>,
    hello_at: Option<Instant>,
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
            stats: ReceiveStats::default(),
        }
    }

    /// The last sequence number accepted.
    pub fn last(&self) -> Option<Seq> {
        self.last
    }

    /// What the sequence number of the last message meant, if it was followed.
    pub fn take_followed(&mut self) -> Option<Followed> {
        self.followed.take()
    }

    /// Judges one message; `None` if it is rejected or passed over.
    ///
    /// The sequence advances before the attributes are read: a message with a bad
    /// payload is not asked for again.
    pub fn accept(
        &mut self,
        now: Instant,
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
            Verdict::Control(control) => self
                .follow(now, &message.header)
                .then_some(Accepted::Control(control)),
            Verdict::Data(object, state) => {
                if !self.follow(now, &message.header) {
                    return None;
                }
                self.decode(object, state, message.body)
            }
        }
    }

    /// Follows the sequence; false if the message must not be used.
    fn follow(&mut self, now: Instant, header: &Header) -> bool {
        if self.mode == Mode::Alarm {
            return true;
        }
        let mut followed = Followed {
            seq: header.seq,
            flags: header.flags,
            missed: None,
            restarted: false,
        };
        let hello = self.mode == Mode::Ftfw && header.flags.intersects(Flags::HELLO);
        let hello_was_late = |at: Instant| now.since(at) < HELLO_LATE_MAX;
        let may_be_late = self.hello_at.is_some_and(hello_was_late);
        let goes_on = |last: &Seq| match header.seq.ahead_of(*last) {
            _ if !hello => true,
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
            self.last = Some(header.seq);
            self.followed = Some(followed);
            return true;
        };
        match header.seq.ahead_of(last) {
            1 => {}
            ahead if ahead > 1 => {
                self.stats.lost += u64::from(ahead.unsigned_abs() - 1);
                followed.missed = Some((last.next(), Seq(header.seq.0.wrapping_sub(1))));
            }
            _ => {
                self.stats.before += 1;
                if self.mode == Mode::Ftfw {
                    return false;
                }
            }
        }
        // In NOTRACK also backwards, as the original does: a peer that has started
        // again begins with a lower number.
        self.last = Some(header.seq);
        self.followed = Some(followed);
        true
    }

    fn decode(&mut self, object: ObjectKind, state: StateKind, body: &[u8]) -> Option<Accepted> {
        let decoded = match object {
            ObjectKind::Flow => decode_flow(body).map(|d| {
                self.stats.unknown_attrs += u64::from(d.unknown_attrs);
                Accepted::Flow(state, d.object)
            }),
            ObjectKind::Expectation => decode_expectation(body).map(|d| {
                self.stats.unknown_attrs += u64::from(d.unknown_attrs);
                self.stats.expectations_ignored += 1;
                Accepted::Expectation
            }),
        };
        if decoded.is_err() {
            self.stats.malformed += 1;
            self.stats.bad_payload += 1;
        }
        decoded.ok()
    }
}
