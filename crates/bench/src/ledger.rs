//! A sender of FT-FW whose peer answers as it is told to: changes are announced, and then
//! acknowledged or asked for again.

use std::time::Duration;

use replica::{Change, Instant, KernelEvent, LinkId, Origin, PeerId, Replica, Seq, Which};
use wire::v1::{Control, Flags, encode_control, messages};

use crate::events::Events;
use crate::pair::settings;

/// A sender, and what it knows of its peer.
#[derive(Debug)]
pub struct Sender {
    replica: Replica,
    now: Instant,
    /// One update of each flow.
    updates: Vec<KernelEvent>,
    /// Numbers of the messages that have been sent last.
    sent: Option<(Seq, Seq)>,
    peer_seq: Seq,
    control: Vec<u8>,
}

impl Sender {
    /// A sender with so many flows, all announced and acknowledged.
    pub fn with_flows(count: u32) -> Sender {
        let limit = count as usize;
        let mut sender = Sender {
            replica: Replica::new(settings(limit, 1)),
            now: Instant::START,
            updates: updates(count),
            sent: None,
            peer_seq: Seq(0),
            control: Vec::new(),
        };
        sender.greet(Replica::new(settings(limit, 2)));
        sender.announce();
        sender.acknowledge();
        assert_eq!(sender.replica.len(Which::Internal), limit);
        assert_eq!(sender.replica.owed(), 0);
        sender
    }

    /// Number of its flows.
    pub fn flows(&self) -> usize {
        self.updates.len()
    }

    /// Lets it and a peer know each other; the peer then falls silent.
    fn greet(&mut self, mut peer: Replica) {
        for _ in 0..20 {
            self.now = self.now + Duration::from_millis(100);
            exchange(&mut self.replica, &mut peer, self.now);
            if let Some((_, last)) = exchange(&mut peer, &mut self.replica, self.now) {
                self.peer_seq = last;
            }
        }
    }

    /// Every flow changes, and the change is sent.
    pub fn announce(&mut self) {
        self.replica.handle_events(self.now, &self.updates);
        self.send();
    }

    fn send(&mut self) {
        self.sent = None;
        while let Some((_, bytes)) = self.replica.poll_transmit() {
            let numbers = messages(std::hint::black_box(bytes)).flatten();
            for message in numbers {
                let first = self.sent.map_or(message.header.seq, |(first, _)| first);
                self.sent = Some((first, message.header.seq));
            }
        }
    }

    /// The peer acknowledges all that was sent last.
    pub fn acknowledge(&mut self) {
        if let Some((first, last)) = self.sent {
            self.receive(Control::Ack(first, last));
        }
    }

    /// The peer has missed all that was sent last: it is sent again.
    pub fn resend(&mut self) {
        if let Some((first, last)) = self.sent {
            self.receive(Control::Nack(first, last));
            self.send();
        }
    }

    fn receive(&mut self, control: Control) {
        self.peer_seq = self.peer_seq.next();
        self.control.clear();
        encode_control(&mut self.control, control, Flags::NONE, self.peer_seq);
        self.replica
            .handle_datagram(self.now, PeerId(0), LinkId(0), &self.control);
    }
}

fn updates(count: u32) -> Vec<KernelEvent> {
    let events = Events::default();
    let update = |n| KernelEvent {
        change: Change::Update,
        origin: Origin::Traffic,
        flow: events.established(n),
    };
    (0..count).map(update).collect()
}

/// What one owes the other; the numbers of the first and the last message.
fn exchange(from: &mut Replica, to: &mut Replica, now: Instant) -> Option<(Seq, Seq)> {
    from.handle_timeout(now);
    from.advance(now, 1024);
    let mut numbers = None;
    while let Some((link, bytes)) = from.poll_transmit() {
        for message in messages(bytes).flatten() {
            let first = numbers.map_or(message.header.seq, |(first, _)| first);
            numbers = Some((first, message.header.seq));
        }
        to.handle_datagram(now, PeerId(0), link, bytes);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages about flows that are sent by `act`.
    fn sent(sender: &mut Sender, act: impl FnOnce(&mut Sender)) -> u64 {
        let before = sender.replica.stats().messages_sent;
        act(sender);
        sender.replica.stats().messages_sent - before
    }

    #[test]
    fn all_is_announced_and_only_what_is_not_acknowledged_is_sent_again() {
        let mut sender = Sender::with_flows(1000);
        assert_eq!(sent(&mut sender, Sender::announce), 1000);
        assert_eq!(sent(&mut sender, Sender::resend), 1000);
        sender.acknowledge();
        assert_eq!(sent(&mut sender, Sender::resend), 0);
    }
}
