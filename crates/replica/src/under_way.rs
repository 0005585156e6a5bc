//! Messages that have been sent and are not acknowledged, in a ring of bounded size.
//!
//! The ring is in the order of sequence numbers. A message about a flow or an expectation
//! names the entry and the version that it carried: what has changed since is ahead of
//! the live cursor and needs no second message. A full ring forgets nothing: what leaves it
//! at its old end goes back to the cursors of the ledger.

use std::collections::VecDeque;

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
    /// The version of the object that it carried; 0 for control messages.
    pub(crate) version: u64,
}

/// The ring.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    /// `None`: taken out, and not yet at the old end.
    ring: VecDeque<(Seq, Option<Message>)>,
    /// Messages about flows and expectations.
    objects: usize,
    controls: usize,
}

impl UnderWay {
    /// Number of messages about flows and expectations.
    pub(crate) fn objects(&self) -> usize {
        self.objects
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.objects + self.controls == 0
    }

    /// True if a message about a flow or an expectation up to number `last` is under way.
    pub(crate) fn has_object_until(&self, last: Seq) -> bool {
        let until = self.ring.iter().take_while(|(seq, _)| !last.before(*seq));
        let mut messages = until.filter_map(|(_, message)| message.as_ref());
        messages.any(|message| !matches!(message.about, About::Control(_)))
    }

    /// All messages, oldest first.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.ring.iter().filter_map(|(_, message)| message.as_ref())
    }

    /// The control messages.
    pub(crate) fn controls(&self) -> impl Iterator<Item = (Seq, Control)> {
        self.ring.iter().filter_map(|(seq, message)| match message {
            Some(Message {
                about: About::Control(control),
                ..
            }) => Some((*seq, *control)),
            _ => None,
        })
    }

    fn count(&mut self, message: &Message) -> &mut usize {
        match message.about {
            About::Control(_) => &mut self.controls,
            About::Flow(_) | About::Expectation => &mut self.objects,
        }
    }

    /// Adds the latest message. Returns the oldest if there is no room for both.
    pub(crate) fn push(&mut self, seq: Seq, message: Message) -> Option<Message> {
        self.ring.push_back((seq, Some(message)));
        *self.count(&message) += 1;
        if self.ring.len() <= MAX {
            return None;
        }
        let (_, oldest) = self.ring.pop_front()?;
        if let Some(oldest) = &oldest {
            *self.count(oldest) -= 1;
        }
        self.drop_gaps();
        oldest
    }

    /// Takes the messages from number `from` to number `to` out, oldest first.
    pub(crate) fn take(&mut self, from: Seq, to: Seq) -> Vec<Message> {
        let first = self.ring.partition_point(|(seq, _)| seq.before(from));
        let mut taken = Vec::new();
        for (seq, message) in self.ring.range_mut(first..) {
            if to.before(*seq) {
                break;
            }
            taken.extend(message.take());
        }
        for message in &taken {
            *self.count(message) -= 1;
        }
        self.drop_gaps();
        taken
    }

    /// Takes all of them out, oldest first.
    pub(crate) fn take_all(&mut self) -> Vec<Message> {
        let taken = self.ring.drain(..).filter_map(|(_, m)| m).collect();
        (self.objects, self.controls) = (0, 0);
        taken
    }

    fn drop_gaps(&mut self) {
        while self.ring.front().is_some_and(|(_, m)| m.is_none()) {
            self.ring.pop_front();
        }
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
        let taken = ring.take(Seq(u32::MAX), Seq(1));
        assert_eq!(taken, [control(2), control(3), control(4)]);
        assert_eq!(ring.take(Seq(u32::MAX), Seq(1)), []);
        assert_eq!(ring.controls().count(), 3);
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
    fn a_message_takes_no_more_than_is_said() {
        assert!(size_of::<(Seq, Option<Message>)>() <= 32);
    }
}
