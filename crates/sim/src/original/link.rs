//! The original's sessions: numbers, greetings, acknowledgements and what it sends again.

use flow::Flow;
use replica::{Instant, Mode, Seq, Verdict, verdict};
use wire::v1::{
    Batch, Control, Flags, FlowOptions, decode_expectation, decode_flow, encode_control,
    encode_flow, messages,
};
use wire::{ObjectKind, StateKind};

use super::{ALIVE, Element, Hello, Original};

impl Original {
    /// Datagrams that are owed.
    pub fn poll_transmit(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        if self.queue.is_empty() {
            return out;
        }
        let mut batch = Batch::new(1500, 28);
        while let Some(element) = self.queue.pop_front() {
            let element = self.stamp(element);
            let seq = self.seq;
            self.seq = seq.next();
            if !batch.push(|bytes| self.encode(bytes, element, seq)) {
                out.push(batch.bytes().to_vec());
                batch.clear();
                batch.push(|bytes| self.encode(bytes, element, seq));
            }
            self.sent(element, seq);
        }
        out.push(batch.bytes().to_vec());
        self.alive_at = self.now + ALIVE;
        out
    }

    /// A control message that is sent again keeps the flags that it had.
    fn stamp(&mut self, element: Element) -> Element {
        match element {
            Element::Control(control, flags) => {
                Element::Control(control, flags.with(self.greeting()))
            }
            object => object,
        }
    }

    fn greeting(&mut self) -> Flags {
        if self.options.mode != Mode::Ftfw {
            return Flags::NONE;
        }
        if self.hello == Hello::Init {
            self.hello = Hello::Greeting;
        }
        let mut flags = Flags::NONE;
        if self.hello == Hello::Greeting {
            flags = flags.with(Flags::HELLO);
        }
        if std::mem::take(&mut self.hello_back_due) {
            flags = flags.with(Flags::HELLO_BACK);
        }
        flags
    }

    fn encode(&self, bytes: &mut Vec<u8>, element: Element, seq: Seq) {
        match element {
            Element::Control(control, flags) => encode_control(bytes, control, flags, seq),
            Element::Object(key) => {
                let Some(object) = self.internal.get(&key) else {
                    return;
                };
                let flags = self.object_flags();
                let options = FlowOptions {
                    timeout: true,
                    window_scale: false,
                };
                encode_flow(bytes, object.kind, flags, seq, &object.flow, options);
            }
            Element::Expectation(key) => self.encode_expectation(bytes, key, seq),
        }
    }

    /// Flags of a message about an object.
    pub(super) fn object_flags(&self) -> Flags {
        let mut flags = Flags::NONE;
        if self.hello != Hello::Done && self.options.mode == Mode::Ftfw {
            flags = flags.with(Flags::HELLO);
        }
        if self.hello_back_due {
            flags = flags.with(Flags::HELLO_BACK);
        }
        flags
    }

    fn sent(&mut self, element: Element, seq: Seq) {
        let keeps = self.options.mode == Mode::Ftfw;
        match element {
            Element::Control(Control::Alive, _) => {}
            Element::Control(..) => {
                if keeps {
                    self.resend.push_back((seq, element));
                }
            }
            Element::Object(_) | Element::Expectation(_) => {
                if keeps {
                    self.greeting();
                    self.resend.push_back((seq, element));
                } else {
                    self.free(element);
                }
            }
        }
        if self.resend.len() > self.options.resend_max
            && let Some((_, oldest)) = self.resend.pop_front()
        {
            self.free(oldest);
        }
    }

    /// An element leaves the resend queue for good.
    fn free(&mut self, element: Element) {
        match element {
            Element::Object(key) => {
                let object = self.internal.get(&key);
                if object.is_some_and(|o| o.kind == StateKind::Delete) {
                    self.internal.remove(&key);
                }
            }
            Element::Expectation(key) => self.expectations.free(&key),
            Element::Control(..) => {}
        }
    }

    /// A datagram of the peer.
    pub fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        self.now = now;
        for message in messages(bytes).flatten() {
            let verdict = verdict(self.options.mode, &message.header);
            if matches!(
                verdict,
                Verdict::BadHeader | Verdict::BadType | Verdict::Ignored
            ) {
                continue;
            }
            if self.options.mode == Mode::Ftfw
                && !self.follow(message.header.seq, message.header.flags)
            {
                continue;
            }
            match verdict {
                Verdict::Data(ObjectKind::Flow, kind) => {
                    if let Ok(decoded) = decode_flow(message.body) {
                        self.deliver(kind, decoded.object);
                    }
                }
                Verdict::Data(ObjectKind::Expectation, kind) => {
                    if let Ok(decoded) = decode_expectation(message.body) {
                        self.deliver_expectation(kind, &decoded.object);
                    }
                }
                Verdict::Control(Control::Resync) => self.bulk(),
                Verdict::Control(Control::Ack(from, to)) => {
                    for (_, element) in self.take_sent(from, to) {
                        self.free(element);
                    }
                }
                Verdict::Control(Control::Nack(from, to)) => {
                    for (_, element) in self.take_sent(from, to) {
                        self.queue.push_back(element);
                    }
                }
                _ => {}
            }
        }
    }

    fn take_sent(&mut self, from: Seq, to: Seq) -> Vec<(Seq, Element)> {
        let within = |seq: Seq| !seq.before(from) && !to.before(seq);
        let all = std::mem::take(&mut self.resend).into_iter();
        let (taken, kept): (Vec<_>, Vec<_>) = all.partition(|(seq, _)| within(*seq));
        self.resend = kept.into();
        taken
    }

    /// Section 5.1, "Receiving a message with sequence s"; false to drop it.
    fn follow(&mut self, seq: Seq, flags: Flags) -> bool {
        let window = self.options.window;
        let hello_back = flags.intersects(Flags::HELLO_BACK);
        if hello_back && self.hello == Hello::Greeting {
            self.hello = Hello::Done;
        }
        if flags.intersects(Flags::HELLO) {
            self.hello_back_due = true;
            if self.ack_first.is_some_and(|first| seq.before(first)) {
                self.budget = window - 1;
                self.ack_first = Some(seq);
            }
            for (_, element) in std::mem::take(&mut self.resend) {
                self.free(element);
            }
        } else if let Some(last) = self.last {
            let ahead = seq.ahead_of(last);
            if ahead <= 0 {
                return false;
            }
            if ahead > 1 {
                if let Some(first) = self.ack_first {
                    self.owe_control(Control::Ack(first, last));
                }
                let before = Seq(seq.0.wrapping_sub(1));
                self.owe_control(Control::Nack(last.next(), before));
                self.budget = window - 1;
                self.ack_first = Some(seq);
                self.last = Some(seq);
                return true;
            }
        }
        let first = *self.ack_first.get_or_insert(seq);
        self.budget = self.budget.saturating_sub(1);
        if self.budget == 0 {
            self.owe_control(Control::Ack(first, seq));
            self.budget = window;
            self.ack_first = None;
        }
        self.last = Some(seq);
        true
    }

    fn deliver(&mut self, kind: StateKind, flow: Flow) {
        let key = flow.key();
        match (kind, self.external.get_mut(&key)) {
            (StateKind::Delete, _) => {
                self.external.remove(&key);
            }
            (StateKind::Update, Some((held, at))) => {
                held.merge(&flow);
                *at = self.now;
            }
            _ => {
                self.external.insert(key, (flow, self.now));
            }
        }
    }
}
