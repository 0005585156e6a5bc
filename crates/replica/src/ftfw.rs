//! FT-FW: every message is acknowledged, and what is lost is sent again.
//!
//! ```text
//!  owed ──sent──▶ under way ──acknowledged──▶ (a tombstone is removed)
//!    ▲               │
//!    └──missed, or the peer has started again; unless it has changed meanwhile
//! ```
//!
//! A retransmission gets a new sequence number and says the flow's present state.
//! Control messages are numbered and acknowledged like the others, so a lost NACK
//! shows as a gap in its sender's numbers.
//!
//! What differs from the original (wire protocol specification, section 5.1), and
//! why: after a burst the sender probes with ALIVE within 50 ms, so that the loss of
//! its last message does not wait for the next second; received data are
//! acknowledged within 20 ms; only data count in the window, so acknowledgements
//! never cause acknowledgements at once; a HELLO makes what is unacknowledged owed
//! again instead of forgotten.

use std::collections::VecDeque;
use std::time::Duration;

use wire::v1::{Control, Flags, Mode, Seq};

use crate::peer::Wish;
use crate::receive::{Accepted, Follows, Received};
use crate::under_way::{About, Message};
use crate::{Instant, Replica, Settings};

/// Received data are acknowledged after this long at the latest.
const ACK_DELAY: Duration = Duration::from_millis(20);
/// First pause before unacknowledged messages are probed for; it doubles.
const PROBE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause: the ordinary interval of ALIVE.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// The longest pause before everything unacknowledged is sent again unasked.
const REPEAT_MAX: Duration = Duration::from_secs(32);
/// Ranges of acknowledged numbers that are remembered.
const ACKED_MAX: usize = 64;

/// State towards the peer.
#[derive(Debug)]
pub(crate) struct Ftfw {
    window: u32,
    /// The peer has answered our HELLO.
    hello_done: bool,
    /// Each of our HELLOs makes a peer without trailer forget what we have not
    /// acknowledged. If anything was missed until shortly after its answer, that may be
    /// gone for good, and everything is asked for at this time.
    ask_again_at: Option<Instant>,
    missed_in_greeting: bool,
    /// We owe an answer to the peer's HELLO, in the very next message.
    hello_back_due: bool,
    /// First received sequence number that is not acknowledged.
    ack_first: Option<Seq>,
    /// Data received since the last acknowledgement.
    unacked_data: u32,
    /// When an acknowledgement of data is due.
    ack_at: Option<Instant>,
    /// When to probe for what is unacknowledged, and the pause after that.
    probe_at: Option<Instant>,
    probe_pause: Duration,
    /// When everything unacknowledged is sent again, and the pause after that.
    repeat_at: Option<Instant>,
    repeat_pause: Duration,
    /// When the last message of the peer came that was no greeting.
    heard_at: Option<Instant>,
    /// What the peer has acknowledged last, the latest at the end.
    acked: VecDeque<(Seq, Seq)>,
    /// Something was given up: the peer gets a bulk update when it is back.
    gave_up: bool,
}

impl Ftfw {
    /// `None` in the other modes.
    pub(crate) fn new(settings: &Settings) -> Option<Ftfw> {
        (settings.mode == Mode::Ftfw).then(|| Ftfw {
            window: settings.ack_window.max(2),
            hello_done: false,
            ask_again_at: None,
            missed_in_greeting: false,
            hello_back_due: false,
            ack_first: None,
            unacked_data: 0,
            ack_at: None,
            probe_at: None,
            probe_pause: PROBE_FIRST,
            repeat_at: None,
            repeat_pause: 2 * PROBE_MAX,
            heard_at: None,
            acked: VecDeque::new(),
            gave_up: false,
        })
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        let due = [
            self.ack_at,
            self.probe_at,
            self.repeat_at,
            self.ask_again_at,
        ];
        due.into_iter().flatten().min()
    }

    /// The peer has not answered our HELLO yet.
    pub(crate) fn is_unknown(&self) -> bool {
        !self.hello_done
    }

    /// Flags of the next message.
    pub(crate) fn greeting(&self) -> Flags {
        let mut flags = Flags::NONE;
        if !self.hello_done {
            flags = flags.with(Flags::HELLO);
        }
        if self.hello_back_due {
            flags = flags.with(Flags::HELLO_BACK);
        }
        flags
    }

    /// A message has been sent that waits for its acknowledgement.
    pub(crate) fn on_sent(&mut self, now: Instant, message: &Message) {
        // An acknowledgement alone is not worth probing for.
        if matches!(message.about, About::Control(Control::Ack(..))) {
            return;
        }
        if self.probe_at.is_none() {
            self.probe_pause = PROBE_FIRST;
            self.probe_at = Some(now + PROBE_FIRST);
            self.repeat_pause = 2 * PROBE_MAX;
            self.repeat_at = Some(now + self.repeat_pause);
        }
    }

    /// Any message has been sent: it carried the answer to the peer's HELLO.
    pub(crate) fn greeting_sent(&mut self) {
        self.hello_back_due = false;
    }

    /// Something was given up, and the bulk update that makes it good has not begun.
    pub(crate) fn has_given_up(&self) -> bool {
        self.gave_up
    }

    fn note_acked(&mut self, from: Seq, to: Seq) {
        if let Some((_, last)) = self.acked.back_mut()
            && last.next() == from
        {
            *last = to;
            return;
        }
        if self.acked.len() >= ACKED_MAX {
            self.acked.pop_front();
        }
        self.acked.push_back((from, to));
    }

    /// True if the peer misses what it had acknowledged.
    fn contradicts(&self, from: Seq, to: Seq) -> bool {
        let overlaps = |(first, last): &(Seq, Seq)| !to.before(*first) && !last.before(from);
        self.acked.iter().any(overlaps)
    }

    /// Takes the acknowledgement that is due, for what has been received up to `last`.
    fn take_ack(&mut self, last: Option<Seq>) -> Option<Control> {
        self.unacked_data = 0;
        self.ack_at = None;
        Some(Control::Ack(self.ack_first.take()?, last?))
    }
}

impl Replica {
    /// Bookkeeping for a message whose sequence number was accepted or missed some.
    pub(crate) fn on_followed(&mut self, received: &Received) {
        let now = self.now;
        let accepted = received.carries.as_ref();
        let is_anew = received.follows == Follows::Anew { known: true };
        let hello_anew = is_anew && received.flags.intersects(Flags::HELLO);
        // A trailer is about to say more.
        if hello_anew && !matches!(accepted, Some(Accepted::Alive(Some(_)))) {
            self.on_new_numbers();
        }
        let Some(ftfw) = &mut self.ftfw else { return };
        let (hello, hello_back) = (
            received.flags.intersects(Flags::HELLO),
            received.flags.intersects(Flags::HELLO_BACK),
        );
        if !hello {
            // Whoever greets has not received our answer, nor anything else.
            ftfw.heard_at = Some(now);
        }
        // The peer may have missed what we said before it first heard us.
        let repeat = hello_back && !ftfw.hello_done;
        if repeat {
            ftfw.ask_again_at = Some(now + PROBE_MAX);
        }
        ftfw.hello_done |= hello_back;
        let greets = !ftfw.hello_done || ftfw.ask_again_at.is_some();
        ftfw.missed_in_greeting |= greets && received.missed().is_some();
        if hello {
            // Answered at once: until then the peer says HELLO in every message.
            ftfw.hello_back_due = true;
            ftfw.ack_at = Some(now);
            if self.settings.trailer {
                // It is to know which run speaks before it hears anything else.
                self.stream.owe(Control::Alive);
            }
        }
        if received.begins_anew() {
            ftfw.ack_first = None;
        }
        if received.begins_anew() && hello {
            self.peer_greets(hello_anew);
        }
        let Some(ftfw) = &mut self.ftfw else { return };
        if let Some((first, last)) = received.missed() {
            if let Some(begin) = ftfw.ack_first.take() {
                let before = Seq(first.0.wrapping_sub(1));
                self.stream.owe(Control::Ack(begin, before));
            }
            self.stream.owe(Control::Nack(first, last));
        }
        let Some(ftfw) = &mut self.ftfw else { return };
        // After numbers have led astray, those up to the last have not all come.
        ftfw.ack_first = ftfw.ack_first.or(Some(received.last));
        let is_ack = matches!(
            accepted,
            Some(Accepted::Alive(_) | Accepted::Control(Control::Ack(..)))
        );
        if !is_ack {
            ftfw.unacked_data += 1;
            let due = now + ACK_DELAY;
            ftfw.ack_at = Some(ftfw.ack_at.map_or(due, |at| at.min(due)));
            if ftfw.unacked_data >= ftfw.window {
                self.owe_ack();
            }
        }
        if repeat {
            self.wish_repeat(false);
        }
    }

    fn owe_ack(&mut self) {
        let last = self.receiver.last();
        if let Some(ack) = self.ftfw.as_mut().and_then(|f| f.take_ack(last)) {
            self.stream.owe(ack);
        }
    }

    /// What the peer has not acknowledged it may not have: everything is owed again.
    ///
    /// If it has started again, its numbers have begun anew: what we missed or have of
    /// before is not to be spoken of any more.
    pub(crate) fn owe_all_sent(&mut self, restarted: bool) {
        for message in self.stream.under_way.take_all() {
            match message.about {
                About::Control(control) if restarted && control != Control::Resync => {}
                _ => self.owe_again(message),
            }
        }
    }

    /// The peer lacks a message: what it was about is owed, unless it has changed since and
    /// is owed for that.
    fn owe_again(&mut self, message: Message) {
        match message.about {
            About::Flow(ticket) => self.stream.owe_missed(ticket, message.version),
            About::Expectation => {
                if let Some(expectations) = &mut self.expectations {
                    expectations.owe_missed(message.version);
                }
            }
            About::Control(control) => self.stream.owe(control),
        }
    }

    /// The peer hears us: what has left the ring can be sent once more.
    fn peer_answers(&mut self) {
        self.stream.may_catch_up();
        if let Some(expectations) = &mut self.expectations {
            expectations.catch_up();
        }
    }

    /// The peer has received everything from `from` to `to`.
    pub(crate) fn on_ack(&mut self, from: Seq, to: Seq) {
        let before = self.stream.under_way.objects();
        self.peer_answers();
        if let Some(ftfw) = &mut self.ftfw
            && std::mem::take(&mut ftfw.gave_up)
        {
            self.wish(Wish::Repair);
        }
        for message in self.stream.under_way.take(from, to) {
            match message.about {
                About::Flow(ticket) => {
                    if let Some(slot) = self.ledger.unchanged(ticket, message.version) {
                        self.flow_acknowledged(slot);
                    }
                }
                About::Expectation => {
                    if let Some(expectations) = &mut self.expectations {
                        expectations.acknowledged(message.version);
                    }
                }
                About::Control(_) => {}
            }
        }
        let is_all_acknowledged = self.stream.under_way.is_empty();
        let left = self.stream.under_way.objects();
        let Some(ftfw) = &mut self.ftfw else { return };
        ftfw.note_acked(from, to);
        if is_all_acknowledged {
            ftfw.probe_at = None;
            ftfw.repeat_at = None;
        } else if left == before {
            // Nothing new: it may be about acknowledgements alone.
        } else if let Some(at) = &mut ftfw.probe_at {
            // The peer answers: what is left is on its way rather than lost.
            ftfw.probe_pause = PROBE_FIRST;
            ftfw.repeat_pause = 2 * PROBE_MAX;
            ftfw.repeat_at = Some(self.now + ftfw.repeat_pause);
            *at = (*at).max(self.now + PROBE_FIRST);
        }
    }

    /// The peer misses everything from `from` to `to`. What is not under way any more was
    /// acknowledged, or has left the ring. In the first case the peer has gone back: a late
    /// copy of a HELLO makes the original follow its old number, and take the flow in it
    /// back, too. Then it is sent everything again.
    pub(crate) fn on_nack(&mut self, from: Seq, to: Seq) {
        self.peer_answers();
        for message in self.stream.under_way.take(from, to) {
            self.owe_again(message);
        }
        let Some(ftfw) = &mut self.ftfw else { return };
        if ftfw.contradicts(from, to) {
            ftfw.acked.clear();
            self.wish(Wish::Repair);
        }
    }

    /// The tombstone of a flow has been sent. Those of an absent peer would fill the cache:
    /// beyond `ResendQueueSize` the oldest are removed, which a bulk update makes good when
    /// the peer is back.
    pub(crate) fn bound_tombstones(&mut self, slot: cache::Slot) {
        let lost = self.ledger.bury(slot, self.settings.resend_queue);
        self.stats.ends_given_up += lost;
        if lost > 0 {
            self.ends_lost();
        }
    }

    /// The peer does not learn of some ends by itself.
    pub(crate) fn ends_lost(&mut self) {
        if let Some(ftfw) = &mut self.ftfw {
            ftfw.gave_up = true;
        }
    }

    /// Owes acknowledgements and probes whose time has come.
    pub(crate) fn ftfw_due(&mut self) {
        let now = self.now;
        let Some(ftfw) = &mut self.ftfw else { return };
        if ftfw.probe_at.is_some_and(|at| at <= now) {
            ftfw.probe_pause = (ftfw.probe_pause * 2).min(PROBE_MAX);
            ftfw.probe_at = Some(now + ftfw.probe_pause);
            self.stream.owe(Control::Alive);
        }
        if ftfw.repeat_at.is_some_and(|at| at <= now) {
            ftfw.repeat_pause = (ftfw.repeat_pause * 2).min(REPEAT_MAX);
            ftfw.repeat_at = Some(now + ftfw.repeat_pause);
            let peer_lives = |at: Instant| now.since(at) < 2 * PROBE_MAX;
            if ftfw.heard_at.is_some_and(peer_lives) {
                // Long probed for, and a peer that lives has neither confirmed nor
                // missed it: the last resort against any disagreement about numbers.
                self.owe_all_sent(false);
            }
        }
        let Some(ftfw) = &mut self.ftfw else { return };
        if ftfw.ask_again_at.is_some_and(|at| at <= now) {
            ftfw.ask_again_at = None;
            let missed = std::mem::take(&mut ftfw.missed_in_greeting);
            if missed && self.receiver.epoch().is_none() {
                self.request_resync();
            }
        }
        let Some(ftfw) = &mut self.ftfw else { return };
        if ftfw.ack_at.is_some_and(|at| at <= now) {
            ftfw.ack_at = None;
            self.owe_ack();
        }
    }

    /// The acknowledgement that may go with an ALIVE, or instead of it.
    pub(crate) fn idle_ack(&mut self) -> Option<Control> {
        let last = self.receiver.last();
        self.ftfw.as_mut().and_then(|f| f.take_ack(last))
    }

    /// Unacknowledged: the number of flows and expectations, and the control messages with
    /// their sequence numbers. Walks through everything under way.
    pub fn unacknowledged(&self) -> (usize, Vec<(Seq, Control)>) {
        let under_way = &self.stream.under_way;
        let is_latest = |message: &&Message| match message.about {
            About::Flow(ticket) => self.ledger.unchanged(ticket, message.version).is_some(),
            About::Expectation => {
                let expectations = self.expectations.as_ref();
                expectations.is_some_and(|e| e.is_latest(message.version))
            }
            About::Control(_) => false,
        };
        let objects = under_way.messages().filter(is_latest).count();
        (objects, under_way.controls().collect())
    }
}
