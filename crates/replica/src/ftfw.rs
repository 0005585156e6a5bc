//! FT-FW: every message is acknowledged, and what is lost is sent again.
//!
//! ```text
//!  owed ──sent──▶ under way ──acknowledged──▶ (a tombstone is removed)
//!    ▲               │
//!    └──missed, or the peer has started again; unless it has changed meanwhile
//! ```
//!
//! A retransmission gets a new sequence number and carries the flow's present state.
//! Control messages are numbered and acknowledged like the others, so a lost NACK
//! shows as a gap in its sender's numbers.
//!
//! What differs from the original (wire protocol specification, section 5.1), and
//! why: after a burst the sender probes with ALIVE within 50 ms, so that the loss of
//! its last message does not wait for the next second; received data are
//! acknowledged within 20 ms; only data count in the window, so acknowledgements
//! never cause acknowledgements at once; a HELLO makes what is unacknowledged owed
//! again instead of forgotten.
//!
//! Version 1 has one stream for all listeners, so what is here belongs to the stream: the
//! ring of what is under way, the greeting, the probes. What belongs to a sender is in
//! [`Hearing`].

mod hearing;

use std::collections::VecDeque;
use std::time::Duration;

use wire::Seq;
use wire::v1::{Control, Flags};

use crate::receive::Received;
use crate::time::Instant;
use crate::under_way::{About, Message, UnderWay};

pub(crate) use hearing::Hearing;

/// First pause before unacknowledged messages are probed for; it doubles.
const PROBE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause: the ordinary interval of ALIVE.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// The longest pause before everything unacknowledged is sent again unasked.
const REPEAT_MAX: Duration = Duration::from_secs(32);
/// Ranges of acknowledged numbers that are remembered.
const ACKED_MAX: usize = 64;

/// Our HELLO and its answer.
///
/// Each of our HELLOs makes a peer without trailer forget what we have not acknowledged.
/// If anything was missed until shortly after its answer, that may be gone for good, and
/// everything is asked for.
#[derive(Clone, Copy, Debug)]
enum Greeting {
    /// The peer has not answered it yet.
    Unanswered {
        missed: bool,
    },
    /// It has just answered; the timer [`Timer::AskAgain`] runs.
    Settling {
        missed: bool,
    },
    Settled,
}

impl Greeting {
    fn note_missed(&mut self) {
        match self {
            Greeting::Unanswered { missed } | Greeting::Settling { missed } => *missed = true,
            Greeting::Settled => {}
        }
    }
}

/// What waits for time to pass.
#[derive(Clone, Copy, Debug)]
enum Timer {
    /// What is unacknowledged is probed for.
    Probe,
    /// Everything unacknowledged is sent again.
    Repeat,
    /// What was missed while we greeted is asked for.
    AskAgain,
}

#[derive(Debug, Default)]
struct Timers([Option<Instant>; 3]);

impl Timers {
    fn at(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// True, once, when the time of a timer has come.
    fn take_due(&mut self, timer: Timer, now: Instant) -> bool {
        self.0[timer as usize].take_if(|at| *at <= now).is_some()
    }

    fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }
}

/// What follows for the replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Effect {
    /// A control message is owed.
    Owe(Control),
    /// A HELLO has begun the peer's numbers. `anew`: others were known before.
    PeerGreets { anew: bool },
    /// The peer lives and has neither confirmed nor missed what was long probed for: the
    /// last resort against any disagreement about numbers is to send that again.
    SendAgain,
    /// The peer is asked for all its flows.
    AskForAll,
}

/// What an acknowledgement settles.
#[derive(Debug)]
pub(crate) struct Settled {
    /// Ends were lost while the peer was absent.
    pub(crate) ends_lost: bool,
    pub(crate) messages: Vec<Message>,
}

/// What the peer lacks.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(crate) messages: Vec<Message>,
    /// It had acknowledged some of it: it has gone back.
    pub(crate) went_back: bool,
    /// There are more, which stay under way.
    pub(crate) is_cut: bool,
}

/// State of our stream.
#[derive(Debug)]
pub(crate) struct Ftfw {
    /// One for all listeners: HELLO and its answer name nobody. What a listener lacks that
    /// did not answer shows in its numbers and in its epoch.
    greeting: Greeting,
    timers: Timers,
    probe_pause: Duration,
    repeat_pause: Duration,
    under_way: UnderWay,
    /// The peer has acknowledged something of this stream.
    is_received: bool,
    /// What the peer has acknowledged last, the latest at the end.
    acked: VecDeque<(Seq, Seq)>,
    /// Tombstones were removed that the peer has not acknowledged: it gets a bulk update
    /// when it is back.
    ends_lost: bool,
}

impl Ftfw {
    pub(crate) fn new() -> Ftfw {
        Ftfw {
            greeting: Greeting::Unanswered { missed: false },
            timers: Timers::default(),
            probe_pause: PROBE_FIRST,
            repeat_pause: 2 * PROBE_MAX,
            under_way: UnderWay::default(),
            is_received: false,
            acked: VecDeque::new(),
            ends_lost: false,
        }
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The peer has not answered our HELLO yet.
    pub(crate) fn is_greeting(&self) -> bool {
        matches!(self.greeting, Greeting::Unanswered { .. })
    }

    /// What is sent and not acknowledged.
    pub(crate) fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    // ---- sending ----

    /// A message has been sent that waits for its acknowledgement. Returns the oldest one
    /// under way if there is no room for both.
    pub(crate) fn sent(&mut self, now: Instant, seq: Seq, message: Message) -> Option<Message> {
        // An acknowledgement alone is not worth probing for.
        let is_ack = matches!(message.about, About::Control(Control::Ack(..)));
        if !is_ack && self.timers.at(Timer::Probe).is_none() {
            self.timers.set(Timer::Probe, now + PROBE_FIRST);
            self.probe_pause = PROBE_FIRST;
            self.repeat_pause = 2 * PROBE_MAX;
            self.timers.set(Timer::Repeat, now + self.repeat_pause);
        }
        self.under_way.push(seq, message)
    }

    /// A tombstone was removed that the peer has not acknowledged.
    pub(crate) fn note_ends_lost(&mut self) {
        self.ends_lost = true;
    }

    pub(crate) fn has_lost_ends(&self) -> bool {
        self.ends_lost
    }

    /// Everything under way is to be sent again.
    pub(crate) fn take_all(&mut self) -> Vec<Message> {
        self.under_way.take_all()
    }

    // ---- what the peer sends ----

    /// A message of a peer that is not late. True if it answers our HELLO: the peer may lack
    /// what we sent before it first heard us.
    pub(crate) fn heard(&mut self, now: Instant, received: &Received) -> bool {
        let mut was_deaf = false;
        if let Greeting::Unanswered { missed } = self.greeting
            && received.flags.intersects(Flags::HELLO_BACK)
        {
            was_deaf = true;
            self.greeting = Greeting::Settling { missed };
            self.timers.set(Timer::AskAgain, now + PROBE_MAX);
        }
        if received.missed().is_some() {
            self.greeting.note_missed();
        }
        was_deaf
    }

    /// The peer has received everything from `from` to `to`.
    pub(crate) fn acknowledged(&mut self, now: Instant, from: Seq, to: Seq) -> Settled {
        let before = self.under_way.objects();
        let messages = self.under_way.take(from, to, usize::MAX);
        self.note_acked(from, to);
        self.is_received |= !messages.is_empty();
        if self.under_way.is_empty() {
            self.timers.stop(Timer::Probe);
            self.timers.stop(Timer::Repeat);
        } else if self.under_way.objects() == before {
            // Nothing new: it may be about acknowledgements alone.
        } else if let Some(at) = self.timers.at(Timer::Probe) {
            // The peer answers: what is left is on its way rather than lost.
            self.probe_pause = PROBE_FIRST;
            self.repeat_pause = 2 * PROBE_MAX;
            self.timers.set(Timer::Repeat, now + self.repeat_pause);
            self.timers.set(Timer::Probe, at.max(now + PROBE_FIRST));
        }
        Settled {
            ends_lost: std::mem::take(&mut self.ends_lost),
            messages,
        }
    }

    /// The peer misses everything from `from` to `to`. What is not under way any more was
    /// acknowledged, or has left the ring. In the first case the peer has gone back: a late
    /// copy of a HELLO makes the original follow its old number, and take the flow in it
    /// back, too. At most `most` messages are taken, the oldest.
    pub(crate) fn missed(&mut self, from: Seq, to: Seq, most: usize) -> Missed {
        let messages = self.under_way.take(from, to, most);
        let overlaps = |(first, last): &(Seq, Seq)| !to.before(*first) && !last.before(from);
        let went_back = self.acked.iter().any(overlaps);
        if went_back {
            self.acked.clear();
        }
        Missed {
            messages,
            went_back,
            is_cut: self.under_way.has_any(from, to),
        }
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

    // ---- time ----

    /// What is due. `peer_lives`: a peer has been heard lately; `is_named`: the peers name their
    /// epochs.
    pub(crate) fn timeout(
        &mut self,
        now: Instant,
        peer_lives: bool,
        is_named: bool,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.timers.take_due(Timer::Probe, now) {
            self.probe_pause = (self.probe_pause * 2).min(PROBE_MAX);
            self.timers.set(Timer::Probe, now + self.probe_pause);
            effects.push(Effect::Owe(Control::Alive));
        }
        if self.timers.take_due(Timer::Repeat, now) {
            self.repeat_pause = (self.repeat_pause * 2).min(REPEAT_MAX);
            self.timers.set(Timer::Repeat, now + self.repeat_pause);
            if peer_lives {
                // The original sets HELLO_BACK in its next message, maybe a second later: the
                // answer that came was to the program before us, and our HELLO was lost. It
                // drops all that is below the numbers of that one.
                if !self.is_received && !is_named {
                    self.greeting = Greeting::Unanswered { missed: false };
                    self.timers.stop(Timer::AskAgain);
                }
                effects.push(Effect::SendAgain);
            }
        }
        if self.timers.take_due(Timer::AskAgain, now) {
            let missed = matches!(self.greeting, Greeting::Settling { missed: true });
            self.greeting = Greeting::Settled;
            if missed && !is_named {
                effects.push(Effect::AskForAll);
            }
        }
        effects
    }
}

#[cfg(test)]
mod tests;
