//! The receive path up to a typed message: framing, verdict, sequence, attributes,
//! each refusal counted by its reason in the original's order.

use flow::Flow;
use wire::v1::{
    Control, Flags, FrameError, Header, Message, Mode, ObjectKind, Seq, StateKind, Verdict,
    decode_expectation, decode_flow, verdict,
};

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

/// Receive state towards one peer.
#[derive(Clone, Debug)]
pub struct Receiver {
    mode: Mode,
    last: Option<Seq>,
    /// Counters.
    pub stats: ReceiveStats,
}

impl Receiver {
    /// A receiver that has heard nothing.
    pub fn new(mode: Mode) -> Receiver {
        Receiver {
            mode,
            last: None,
            stats: ReceiveStats::default(),
        }
    }

    /// Judges one message; `None` if it is rejected or passed over.
    ///
    /// The sequence advances before the attributes are read: a message with a bad
    /// payload is not asked for again.
    pub fn accept(&mut self, message: Result<Message<'_>, FrameError>) -> Option<Accepted> {
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
                .follow(&message.header)
                .then_some(Accepted::Control(control)),
            Verdict::Data(object, state) => {
                if !self.follow(&message.header) {
                    return None;
                }
                self.decode(object, state, message.body)
            }
        }
    }

    /// Follows the sequence; false if the message must not be used.
    fn follow(&mut self, header: &Header) -> bool {
        if self.mode == Mode::Alarm {
            return true;
        }
        let restarts = self.mode == Mode::Ftfw && header.flags.intersects(Flags::HELLO);
        let Some(last) = self.last.filter(|_| !restarts) else {
            self.last = Some(header.seq);
            return true;
        };
        match header.seq.ahead_of(last) {
            1 => {}
            ahead if ahead > 1 => self.stats.lost += u64::from(ahead.unsigned_abs() - 1),
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
