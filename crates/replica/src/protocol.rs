//! The three replication protocols, and none, behind one contract.
//!
//! | | NOTRACK | ALARM | FT-FW |
//! |---|---|---|---|
//! | control messages | yes | no | yes |
//! | a message is settled | when it is sent | when it is sent | when it is acknowledged |
//! | what is lost | a bulk update brings it | the next round brings it | it is sent again |
//! | late messages | dropped near the last one | applied | used as far as they are news |
//!
//! Without a peer (statistics) nothing is sent: what is owed is settled at once.

use wire::Seq;

use crate::alarm::Alarm;
use crate::ftfw::Ftfw;
use crate::mode::Mode;
use crate::settings::Settings;
use crate::time::Instant;
use crate::under_way::Message;

/// The protocol in use, with its state.
#[derive(Debug)]
pub(crate) enum Protocol {
    /// Nobody listens.
    Alone,
    Notrack,
    Alarm(Alarm),
    Ftfw(Box<Ftfw>),
}

/// What becomes of a message that has been sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// Nothing is acknowledged: what is sent is all that can be known.
    Settled,
    /// It waits for its acknowledgement. The oldest one may have had to make room.
    UnderWay { evicted: Option<Message> },
}

impl Protocol {
    pub(crate) fn new(settings: &Settings) -> Protocol {
        match settings.mode {
            Mode::Statistics => Protocol::Alone,
            Mode::Notrack => Protocol::Notrack,
            Mode::Alarm => Protocol::Alarm(Alarm::new(settings)),
            Mode::Ftfw => Protocol::Ftfw(Box::new(Ftfw::new())),
        }
    }

    /// The acknowledging protocol, if it is that.
    pub(crate) fn ftfw(&self) -> Option<&Ftfw> {
        match self {
            Protocol::Ftfw(ftfw) => Some(ftfw),
            _ => None,
        }
    }

    pub(crate) fn ftfw_mut(&mut self) -> Option<&mut Ftfw> {
        match self {
            Protocol::Ftfw(ftfw) => Some(ftfw),
            _ => None,
        }
    }

    pub(crate) fn alarm_mut(&mut self) -> Option<&mut Alarm> {
        match self {
            Protocol::Alarm(alarm) => Some(alarm),
            _ => None,
        }
    }

    /// True if entries of the peer expire unless they are sent again.
    pub(crate) fn expires(&self) -> bool {
        matches!(self, Protocol::Alarm(_))
    }

    /// True if there are control messages: ALIVE, requests, bulk updates.
    pub(crate) fn has_control(&self) -> bool {
        matches!(self, Protocol::Notrack | Protocol::Ftfw(_))
    }

    /// True if there is nobody to send anything to.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Protocol::Alone)
    }

    /// True if the peer has not yet answered our greeting.
    pub(crate) fn is_greeting(&self) -> bool {
        self.ftfw().is_some_and(Ftfw::is_greeting)
    }

    /// A message has been sent under `seq`.
    pub(crate) fn sent(&mut self, now: Instant, seq: Seq, message: Message) -> Fate {
        match self {
            Protocol::Alone | Protocol::Notrack | Protocol::Alarm(_) => Fate::Settled,
            Protocol::Ftfw(ftfw) => Fate::UnderWay {
                evicted: ftfw.sent(now, seq, message),
            },
        }
    }

    /// Messages about flows and expectations that are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.ftfw().map_or(0, |ftfw| ftfw.under_way().objects())
    }

    /// True if ends were lost, and the bulk update that makes that good has not begun.
    pub(crate) fn has_lost_ends(&self) -> bool {
        self.ftfw().is_some_and(Ftfw::has_lost_ends)
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        match self {
            Protocol::Alone | Protocol::Notrack => None,
            Protocol::Alarm(alarm) => Some(alarm.next_due()),
            Protocol::Ftfw(ftfw) => ftfw.next_due(),
        }
    }
}
