//! The receive path up to a typed message: framing, verdict, sequence, attributes,
//! each refusal counted by its reason in the original's order.

mod epochs;
mod numbers;

use std::time::Duration;

use flow::{Expectation, Flow};
use wire::v1::{
    Control, Flags, FrameError, Header, Message, Trailer, decode_expectation, decode_flow,
};
use wire::{Epoch, ObjectKind, Seq, StateKind};

use crate::mode::{Mode, Verdict, verdict};
use crate::stats::ReceiveStats;
use crate::time::Instant;
use epochs::Epochs;
use numbers::{Lateness, Numbers};

/// One of the replicas that send to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u8);

impl PeerId {
    /// The peer of a pair.
    pub const FIRST: PeerId = PeerId(0);

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

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

/// How a message's sequence number follows those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// It is the next one; in ALARM, whatever it is.
    Next,
    /// The numbers from the first to the last of these have not come.
    Gap(Seq, Seq),
    /// It is lower, and the numbers go on from there (NOTRACK).
    Back,
    /// The numbers begin here.
    Anew {
        /// Others were known before: the sender has started again.
        known: bool,
        /// The numbers from the first to the last of these are of the sender too. Their
        /// messages have come, but seemed late: its requests are still to be obeyed.
        missed: Option<(Seq, Seq)>,
    },
    /// It is older than one seen before: it is used only as far as it is still news.
    Late,
}

/// A message whose header is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Received {
    /// Its number.
    pub seq: Seq,
    /// Its flags.
    pub flags: Flags,
    /// What its number means.
    pub follows: Follows,
    /// The last number of the sender from here on.
    pub last: Seq,
    /// It is an ALIVE that does not name the epoch that the last one named.
    pub is_new_epoch: bool,
    /// What it carries; `None` if that is bad or has been overtaken.
    pub carries: Option<Accepted>,
}

impl Received {
    pub(crate) fn is_late(&self) -> bool {
        self.follows == Follows::Late
    }

    pub(crate) fn begins_anew(&self) -> bool {
        matches!(self.follows, Follows::Anew { .. })
    }

    /// The numbers were known, and have begun anew.
    pub(crate) fn begins_numbers_anew(&self) -> bool {
        matches!(self.follows, Follows::Anew { known: true, .. })
    }

    /// First and last number that did not come before it, or were passed over.
    pub(crate) fn missed(&self) -> Option<(Seq, Seq)> {
        match self.follows {
            Follows::Gap(first, last) => Some((first, last)),
            Follows::Anew { missed, .. } => missed,
            _ => None,
        }
    }
}

/// The first copy of a datagram is not later than this behind those sent after it.
const LATE_COPY_MAX: Duration = Duration::from_millis(500);

/// Receive state towards one peer.
#[derive(Clone, Debug)]
pub struct Receiver {
    mode: Mode,
    numbers: Numbers,
    epochs: Epochs,
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
            numbers: Numbers::default(),
            epochs: Epochs::default(),
            is_offer: false,
            stats: ReceiveStats::default(),
        }
    }

    /// What follows is of another datagram.
    pub fn begin_datagram(&mut self) {
        self.epochs.begin_datagram();
        self.is_offer = false;
    }

    /// True if the states that follow in this datagram are offers.
    pub(crate) fn is_offer(&self) -> bool {
        self.is_offer
    }

    /// The last sequence number accepted.
    pub fn last(&self) -> Option<Seq> {
        self.numbers.last()
    }

    /// The epoch that the peer is in, if it sends trailers.
    pub fn epoch(&self) -> Option<Epoch> {
        self.epochs.present()
    }

    /// Judges one message; `None` if it is refused or passed over.
    ///
    /// The sequence advances before the attributes are read: a message with a bad
    /// payload is not asked for again. `own_next` is the number that we send next.
    pub fn accept(
        &mut self,
        now: Instant,
        own_next: Seq,
        message: Result<Message<'_>, FrameError>,
    ) -> Option<Received> {
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
        let header = &message.header;
        match verdict(self.mode, header) {
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
                self.accept_alive(now, own_next, header, message.body)
            }
            Verdict::Control(control) => {
                // A late acknowledgement may be of the peer's former epoch; a late request
                // is repeated, since it counts as missed.
                let mut received = self.follow(now, header, false);
                if received.is_late() && self.numbers.are_astray(control, own_next) {
                    self.follow_acknowledgement(&mut received);
                }
                if received.is_late() {
                    self.numbers.suspect(now, header.seq, own_next);
                } else {
                    received.carries = Some(Accepted::Control(control));
                }
                Some(received)
            }
            Verdict::Data(object, state) => {
                self.epochs.note(header.seq);
                let mut received = self.follow(now, header, false);
                if received.is_late() {
                    self.numbers.suspect(now, header.seq, own_next);
                }
                received.carries = self.decode(object, state, message.body);
                Some(received)
            }
        }
    }

    fn accept_alive(
        &mut self,
        now: Instant,
        own_next: Seq,
        header: &Header,
        body: &[u8],
    ) -> Option<Received> {
        let trailer = Trailer::decode(body).unwrap_or_else(|_| {
            self.stats.bad_trailers += 1;
            None
        });
        // A datagram of offers is one, however late it is.
        if let Some(trailer) = &trailer {
            self.is_offer = trailer.holdings.is_some_and(|h| h.offers);
        }
        let Some(named) = self.epochs.name(now, trailer.map(|t| t.epoch)) else {
            self.stats.before += 1;
            return None;
        };
        self.is_offer &= trailer.is_some();
        let mut received = self.follow(now, header, named.is_new);
        let late = received.is_late();
        let is_fresh = self.epochs.numbered(now, named, header.seq, late);
        if late && is_fresh && self.epochs.present().is_some() && self.numbers.are_long_astray(now)
        {
            self.follow_anew(&mut received);
        }
        if received.is_late() {
            self.numbers.suspect(now, header.seq, own_next);
            return Some(received);
        }
        self.epochs.enter(named);
        received.carries = Some(Accepted::Alive(trailer));
        Some(received)
    }

    /// Follows the sequence; `is_new_epoch` if the message names another one.
    fn follow(&mut self, now: Instant, header: &Header, is_new_epoch: bool) -> Received {
        let seq = header.seq;
        let mut received = Received {
            seq,
            flags: header.flags,
            follows: Follows::Next,
            last: seq,
            is_new_epoch,
            carries: None,
        };
        if self.mode == Mode::Alarm {
            return received;
        }
        let is_ftfw = self.mode == Mode::Ftfw;
        let hello = is_ftfw && header.flags.intersects(Flags::HELLO);
        let is_named = self.epochs.datagram_names();
        if hello && !is_named && self.epochs.is_named_lately(now) {
            self.stats.before += 1;
            received.follows = Follows::Late;
            return received;
        }
        let lateness = match self.mode {
            Mode::Ftfw => Lateness::Always,
            _ if self.epochs.present().is_some() => Lateness::Near,
            _ => Lateness::Never,
        };
        received.follows = self.numbers.follow(
            now,
            numbers::Message {
                seq,
                hello,
                is_named,
                is_new_epoch,
                lateness,
            },
        );
        match received.follows {
            Follows::Next => {}
            Follows::Gap(first, last) => {
                let missing = last.ahead_of(first).unsigned_abs() + 1;
                self.stats.lost += u64::from(missing);
            }
            Follows::Back | Follows::Late => self.stats.before += 1,
            Follows::Anew { .. } if !is_new_epoch => self.epochs.name_no_more(),
            Follows::Anew { .. } => {}
        }
        received
    }

    /// The sender's numbers go on from a message that seemed late.
    fn follow_anew(&mut self, received: &mut Received) {
        let surely = self.epochs.surely_up_to();
        received.last = self.numbers.follow_anew(received.seq, surely);
        received.follows = Follows::Anew {
            known: false,
            missed: None,
        };
    }

    /// A message that seemed late was sent after all that has come before it. With a HELLO whose
    /// datagram names no epoch, it is of another program in the place of the one that names them.
    /// A lower number alone proves nothing: two datagrams can overtake each other.
    fn follow_acknowledgement(&mut self, received: &mut Received) {
        let hello = received.flags.intersects(Flags::HELLO);
        if !hello || self.epochs.datagram_names() || self.epochs.present().is_none() {
            self.follow_anew(received);
            return;
        }
        self.epochs.name_no_more();
        received.follows = self.numbers.begin_anew(received.seq);
        received.last = received.seq;
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
