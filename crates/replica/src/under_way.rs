//! Messages that have been sent and are not acknowledged: the ring of messages under way, whose
//! size is bounded.
//!
//! It is in the order of sequence numbers. A message about a flow or an expectation
//! names the entry and the version that it carried: what has changed since is ahead of
//! the live cursor and needs no second message. A full ring forgets nothing: what leaves it
//! at its old end goes back to the cursors of the ledger.

use std::collections::BTreeMap;

use cache::Ticket;
use wire::Seq;
use wire::v1::Control;

/// Most messages under way. Each takes 32 bytes.
const MAX: usize = 65_536;

/// What a message was about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum About {
    /// A flow of the ledger.
    Flow(Ticket),
    /// An expectation, which its version finds.
    Expectation,
    /// A control message.
    Control(Control),
}

/// A message under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) about: About,
    /// The version of the object that it carried; of a control message, which numbers of the
    /// peers it may be about.
    pub(crate) version: u64,
}

impl Message {
    fn is_about_object(&self) -> bool {
        !matches!(self.about, About::Control(_))
    }
}

/// The ring.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    /// By number, counted on beyond 32 bits: what is taken out leaves no gap to be walked over.
    messages: BTreeMap<i64, Message>,
    /// The latest number, as it was sent and counted on.
    latest: (Seq, i64),
    /// Messages about flows and expectations.
    objects: usize,
}

impl UnderWay {
    /// Number of messages about flows and expectations.
    pub(crate) fn objects(&self) -> usize {
        self.objects
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// True if a message about a flow or an expectation up to number `last` is under way.
    pub(crate) fn has_object_until(&self, last: Seq) -> bool {
        let mut until = self.messages.range(..=self.counted_on(last));
        until.any(|(_, message)| message.is_about_object())
    }

    /// All messages, oldest first.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.values()
    }

    /// The control messages.
    pub(crate) fn controls(&self) -> impl Iterator<Item = (Seq, Control)> {
        let control = |(number, message): (&i64, &Message)| match message.about {
            About::Control(control) => Some((Seq(*number as u32), control)),
            About::Flow(_) | About::Expectation => None,
        };
        self.messages.iter().filter_map(control)
    }

    fn counted_on(&self, seq: Seq) -> i64 {
        self.latest.1 + i64::from(seq.ahead_of(self.latest.0))
    }

    /// Adds the latest message. Returns the oldest if there is no room for both.
    pub(crate) fn push(&mut self, seq: Seq, message: Message) -> Option<Message> {
        let number = match self.messages.is_empty() {
            true => i64::from(seq.0),
            false => self.counted_on(seq),
        };
        self.latest = (seq, number);
        self.messages.insert(number, message);
        self.objects += usize::from(message.is_about_object());
        if self.messages.len() <= MAX {
            return None;
        }
        let (_, oldest) = self.messages.pop_first()?;
        self.objects -= usize::from(oldest.is_about_object());
        Some(oldest)
    }

    /// True if a message from number `from` to number `to` is under way.
    pub(crate) fn has_any(&self, from: Seq, to: Seq) -> bool {
        let (from, to) = (self.counted_on(from), self.counted_on(to));
        from <= to && self.messages.range(from..=to).next().is_some()
    }

    /// Takes the messages from number `from` to number `to` out, oldest first, at most so many.
    pub(crate) fn take(&mut self, from: Seq, to: Seq, most: usize) -> Vec<Message> {
        let (from, to) = (self.counted_on(from), self.counted_on(to));
        if from > to {
            return Vec::new();
        }
        let range = self.messages.range(from..=to).take(most);
        let numbers: Vec<i64> = range.map(|(n, _)| *n).collect();
        let taken = numbers.iter().filter_map(|n| self.messages.remove(n));
        let taken: Vec<Message> = taken.collect();
        self.objects -= taken.iter().filter(|m| m.is_about_object()).count();
        taken
    }

    /// Takes all of them out, oldest first.
    pub(crate) fn take_all(&mut self) -> Vec<Message> {
        self.objects = 0;
        std::mem::take(&mut self.messages).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(n: u32) -> Message {
        Message {
            about: About::Control(Control::Ack(Seq(n), Seq(n))),
            version: 0,
        }
    }

    #[test]
    fn a_range_is_taken_once_also_across_the_wrap_of_numbers() {
        let mut ring = UnderWay::default();
        let first = u32::MAX - 2;
        for n in 0..6 {
            assert_eq!(ring.push(Seq(first.wrapping_add(n)), control(n)), None);
        }
        let taken = ring.take(Seq(u32::MAX), Seq(1), 9);
        assert_eq!(taken, [control(2), control(3), control(4)]);
        assert_eq!(ring.take(Seq(u32::MAX), Seq(1), 9), []);
        assert_eq!(ring.controls().count(), 3);
        assert!(!ring.has_any(Seq(u32::MAX), Seq(1)) && ring.has_any(Seq(first), Seq(1)));
        assert_eq!(ring.take_all(), [control(0), control(1), control(5)]);
        assert!(ring.is_empty());
    }

    #[test]
    fn a_full_ring_gives_back_the_oldest() {
        let mut ring = UnderWay::default();
        let of = |version| Message {
            about: About::Expectation,
            version,
        };
        for n in 0..MAX as u32 {
            assert_eq!(ring.push(Seq(n), of(u64::from(n))), None);
        }
        assert_eq!(ring.push(Seq(MAX as u32), of(7)), Some(of(0)));
        assert_eq!(ring.objects(), MAX);
    }

    #[test]
    fn what_is_taken_out_makes_room_and_evicts_nothing() {
        let mut ring = UnderWay::default();
        let of = |version| Message {
            about: About::Expectation,
            version,
        };
        for n in 0..MAX as u32 {
            ring.push(Seq(n), of(u64::from(n)));
        }
        // All but the oldest are acknowledged.
        assert_eq!(ring.take(Seq(1), Seq(MAX as u32 - 1), MAX).len(), MAX - 1);
        for n in 0..1000 {
            assert_eq!(ring.push(Seq(MAX as u32 + n), of(1)), None);
        }
        assert_eq!(ring.objects(), 1001);
    }

    #[test]
    fn a_message_takes_no_more_than_is_said() {
        assert!(size_of::<(i64, Message)>() <= 32);
    }
}
