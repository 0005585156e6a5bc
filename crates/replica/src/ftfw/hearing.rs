//! FT-FW, the receiving half: what one sender is owed for what has come from it.
//!
//! Each sender has numbers of its own, so what is to be acknowledged, and when, belongs to
//! the sender (`Peer`). The acknowledgement itself goes on our one stream, where version 1
//! has no room for an addressee: everybody who listens receives it, and passes over what is
//! not about numbers of its own (see `Replica::on_ack`).

use std::time::Duration;

use wire::Seq;
use wire::v1::{Control, Flags};

use super::{Effect, PROBE_MAX};
use crate::receive::{Accepted, Received};
use crate::settings::Settings;
use crate::time::Instant;

/// Received data are acknowledged after this long at the latest.
pub(super) const ACK_DELAY: Duration = Duration::from_millis(20);
/// An acknowledgement that is due this soon goes with the turn that is awake anyway: a timer
/// of its own would wake the daemon once more.
const ACK_EARLY: Duration = Duration::from_millis(3);

/// What one sender is owed.
#[derive(Debug)]
pub(crate) struct Hearing {
    window: u32,
    /// Our ALIVE names the epoch.
    has_trailer: bool,
    /// We owe an answer to its HELLO, in the very next message.
    hello_back_due: bool,
    /// First received sequence number that is not acknowledged.
    ack_first: Option<Seq>,
    /// Data received since the last acknowledgement.
    unacked_data: u32,
    /// When an acknowledgement of data is due.
    ack_at: Option<Instant>,
    /// When its last message came that was no greeting.
    heard_at: Option<Instant>,
}

impl Hearing {
    pub(crate) fn new(settings: &Settings) -> Hearing {
        Hearing {
            window: settings.ack_window.max(2),
            has_trailer: settings.trailer,
            hello_back_due: false,
            ack_first: None,
            unacked_data: 0,
            ack_at: None,
            heard_at: None,
        }
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.ack_at
    }

    /// Its HELLO is to be answered.
    pub(crate) fn owes_hello_back(&self) -> bool {
        self.hello_back_due
    }

    /// A message with that answer has been sent.
    pub(crate) fn hello_back_sent(&mut self) {
        self.hello_back_due = false;
    }

    /// It has sent something lately that was no greeting.
    pub(crate) fn lives(&self, now: Instant) -> bool {
        self.heard_at
            .is_some_and(|at| now.since(at) < 2 * PROBE_MAX)
    }

    /// A message has come that is not late.
    pub(crate) fn heard(&mut self, now: Instant, received: &Received) -> Vec<Effect> {
        let mut effects = Vec::new();
        let hello = received.flags.intersects(Flags::HELLO);
        if hello {
            // Answered at once: until then the peer sets HELLO in every message.
            self.hello_back_due = true;
            self.ack_at = Some(now);
            if self.has_trailer {
                // It is to know our epoch before it hears anything else.
                effects.push(Effect::Owe(Control::Alive));
            }
        } else {
            // Whoever greets has not received our answer, nor anything else.
            self.heard_at = Some(now);
        }
        if received.begins_anew() {
            self.ack_first = None;
            if hello {
                let anew = received.begins_numbers_anew();
                effects.push(Effect::PeerGreets { anew });
            }
        }
        if let Some((first, last)) = received.missed() {
            if let Some(begin) = self.ack_first.take() {
                let before = Seq(first.0.wrapping_sub(1));
                effects.push(Effect::Owe(Control::Ack(begin, before)));
            }
            effects.push(Effect::Owe(Control::Nack(first, last)));
        }
        // After numbers have led astray, those up to the last have not all come.
        self.ack_first = self.ack_first.or(Some(received.last));
        let is_ack = matches!(
            received.carries,
            Some(Accepted::Alive(_) | Accepted::Control(Control::Ack(..)))
        );
        if !is_ack {
            self.unacked_data += 1;
            let due = now + ACK_DELAY;
            let at = self.ack_at.map_or(due, |at| at.min(due));
            self.ack_at = Some(if at <= now + ACK_EARLY { now } else { at });
            if self.unacked_data >= self.window {
                effects.extend(self.take_ack(Some(received.last)).map(Effect::Owe));
            }
        }
        effects
    }

    /// Takes the acknowledgement that may go now, for what has been received up to `last`.
    pub(crate) fn take_ack(&mut self, last: Option<Seq>) -> Option<Control> {
        self.unacked_data = 0;
        self.ack_at = None;
        Some(Control::Ack(self.ack_first.take()?, last?))
    }

    /// Takes the acknowledgement that is due.
    pub(crate) fn timeout(&mut self, now: Instant, last: Option<Seq>) -> Option<Control> {
        self.ack_at.take_if(|at| *at <= now)?;
        self.take_ack(last)
    }
}
