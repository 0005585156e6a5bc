//! The original's rules as the other end of a mixed pair, from the wire protocol
//! specification, section 5. Its weak points are modelled too: HELLO empties its resend
//! queue, a late message is dropped, and what it has given up is not mentioned.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use flow::{Flow, FlowKey};
use replica::{Change, Command, DumpScope, Instant, KernelEvent, KernelRequest, Op, Origin};
use replica::{KernelError, Outcome, Purpose};
use wire::v1::{
    Batch, Control, Flags, FlowOptions, Mode, ObjectKind, Seq, StateKind, Verdict, decode_flow,
    encode_control, encode_flow, messages, verdict,
};

use crate::kernel::Kernel;
use crate::random::Random;

const ALIVE: Duration = Duration::from_secs(1);
const OVERRUN_RESYNC: Duration = Duration::from_secs(2);

/// What it is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Mode.
    pub mode: Mode,
    /// `ACKWindowSize`.
    pub window: u32,
    /// `ResendQueueSize`.
    pub resend_max: usize,
    /// `RefreshTime`.
    pub refresh: Duration,
    /// `CacheTimeout`.
    pub cache_timeout: Duration,
    /// First sequence number.
    pub first_seq: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Object(FlowKey),
    Control(Control, Flags),
}

#[derive(Clone, Debug)]
struct Object {
    flow: Flow,
    kind: StateKind,
    /// ALARM: when it is sent again.
    refresh_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hello {
    Init,
    Say,
    Done,
}

/// One daemon of the original's rules.
#[derive(Debug)]
pub struct Original {
    options: Options,
    random: Random,
    now: Instant,
    internal: BTreeMap<FlowKey, Object>,
    external: BTreeMap<FlowKey, (Flow, Instant)>,
    queue: VecDeque<Element>,
    resend: VecDeque<(Seq, Element)>,
    seq: Seq,
    last: Option<Seq>,
    ack_first: Option<Seq>,
    budget: u32,
    hello: Hello,
    hello_back_due: bool,
    alive_at: Instant,
    resync_at: Option<Instant>,
}

impl Original {
    /// A daemon that has read the kernel's table and says nothing of it.
    pub fn new(options: Options, now: Instant, kernel: &Kernel, seed: u64) -> Original {
        let mut original = Original {
            options,
            random: Random::new(seed, "original"),
            now,
            internal: BTreeMap::new(),
            external: BTreeMap::new(),
            queue: VecDeque::new(),
            resend: VecDeque::new(),
            seq: options.first_seq,
            last: None,
            ack_first: None,
            budget: options.window,
            hello: Hello::Init,
            hello_back_due: false,
            alive_at: now + ALIVE,
            resync_at: None,
        };
        original.merge_dump(kernel, false);
        original
    }

    /// Flows of its internal cache that have not ended.
    pub fn internal(&self) -> BTreeMap<FlowKey, Flow> {
        let live =
            |(k, o): (&FlowKey, &Object)| (o.kind != StateKind::Delete).then_some((*k, o.flow));
        self.internal.iter().filter_map(live).collect()
    }

    /// Flows of its external cache.
    pub fn external(&self) -> BTreeMap<FlowKey, Flow> {
        self.external.iter().map(|(k, (f, _))| (*k, *f)).collect()
    }

    fn merge_dump(&mut self, kernel: &Kernel, send: bool) {
        for flow in kernel.dump(self.now, DumpScope::All, None, usize::MAX) {
            let known = self.internal.get_mut(&flow.key());
            match known {
                Some(object) if object.kind != StateKind::Delete => {
                    object.flow.merge(&flow);
                    object.kind = StateKind::Update;
                }
                _ => self.put(flow),
            }
            if send {
                self.owe(flow.key());
            }
        }
    }

    fn put(&mut self, flow: Flow) {
        self.drop_element(&flow.key());
        let object = Object {
            flow,
            kind: StateKind::New,
            refresh_at: self.refresh_at(),
        };
        self.internal.insert(flow.key(), object);
    }

    fn refresh_at(&mut self) -> Instant {
        let second = Duration::from_secs(1);
        self.now + second + self.random.within(self.options.refresh)
    }

    fn drop_element(&mut self, key: &FlowKey) {
        let element = Element::Object(*key);
        self.queue.retain(|e| *e != element);
        self.resend.retain(|(_, e)| *e != element);
    }

    /// An object is in one queue at most.
    fn owe(&mut self, key: FlowKey) {
        let element = Element::Object(key);
        if !self.queue.contains(&element) {
            self.resend.retain(|(_, e)| *e != element);
            self.queue.push_back(element);
        }
    }

    fn owe_control(&mut self, control: Control) {
        self.queue.push_back(Element::Control(control, Flags::NONE));
    }

    /// Events of the kernel.
    pub fn handle_events(&mut self, now: Instant, events: &[KernelEvent]) {
        self.now = now;
        for event in events {
            let key = event.flow.key();
            if event.origin == Origin::Inject {
                continue;
            }
            let send = event.origin == Origin::Traffic;
            match event.change {
                Change::New => self.put(event.flow),
                Change::Update => {
                    let at = self.refresh_at();
                    match self.internal.get_mut(&key) {
                        Some(object) if object.kind != StateKind::Delete => {
                            object.flow.merge(&event.flow);
                            object.kind = StateKind::Update;
                            object.refresh_at = at;
                        }
                        _ => self.put(event.flow),
                    }
                }
                Change::Destroy => {
                    let Some(object) = self.internal.get_mut(&key) else {
                        continue;
                    };
                    object.kind = StateKind::Delete;
                    if !send {
                        self.internal.remove(&key);
                        self.drop_element(&key);
                    }
                }
            }
            if send {
                self.owe(key);
            }
        }
    }

    /// The kernel dropped events.
    pub fn handle_overrun(&mut self, now: Instant) {
        self.resync_at = Some(now + OVERRUN_RESYNC);
    }

    /// A command; the commit is done at once.
    pub fn handle_command(&mut self, now: Instant, command: Command, kernel: &mut Kernel) {
        self.now = now;
        match command {
            Command::Commit(_) => self.commit(kernel),
            Command::FlushInternal => self.clear_internal(),
            Command::FlushExternal => self.external.clear(),
            Command::FlushCaches => {
                self.clear_internal();
                self.external.clear();
            }
            Command::Resync(_) => self.merge_dump(kernel, false),
            Command::Bulk => self.bulk(),
            Command::RequestResync => {
                if self.options.mode != Mode::Alarm {
                    self.owe_control(Control::Resync);
                }
            }
            // Its delay is longer than a run.
            Command::FlushKernel(_) | Command::ScheduleFlush => {}
        }
    }

    fn clear_internal(&mut self) {
        self.internal.clear();
        let is_control = |e: &Element| matches!(e, Element::Control(..));
        self.queue.retain(is_control);
        self.resend.retain(|(_, e)| is_control(e));
    }

    fn commit(&mut self, kernel: &mut Kernel) {
        let now = self.now;
        let mut execute = |op| {
            kernel.execute(
                now,
                KernelRequest {
                    purpose: Purpose::Commit,
                    ticket: None,
                    step: 0,
                    op,
                },
            )
        };
        for (flow, heard) in self.external.values() {
            let age = now.since(*heard).as_secs() as u32;
            let left = flow.timeout.unwrap_or(60).saturating_sub(age).max(1);
            let flow = Flow {
                timeout: Some(left),
                ..*flow
            };
            if execute(Op::Create(flow)) == Outcome::Failed(KernelError::Exists) {
                execute(Op::Delete(flow.key(), None));
                execute(Op::Create(flow));
            }
        }
    }

    fn bulk(&mut self) {
        if self.options.mode == Mode::Alarm {
            return;
        }
        let keys: Vec<_> = self.internal.keys().copied().collect();
        for key in keys {
            self.owe(key);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant, kernel: &Kernel) {
        self.now = now;
        if self.resync_at.is_some_and(|at| at <= now) {
            self.resync_at = None;
            self.merge_dump(kernel, true);
            let gone = |k: &&FlowKey| kernel.get(k).is_none();
            for key in self
                .internal
                .keys()
                .filter(gone)
                .copied()
                .collect::<Vec<_>>()
            {
                if let Some(object) = self.internal.get_mut(&key) {
                    object.kind = StateKind::Delete;
                }
                self.owe(key);
            }
        }
        if self.options.mode == Mode::Alarm {
            let due = self.internal.iter().filter(|(_, o)| o.refresh_at <= now);
            for key in due.map(|(k, _)| *k).collect::<Vec<_>>() {
                let at = self.refresh_at();
                if let Some(object) = self.internal.get_mut(&key) {
                    object.refresh_at = at;
                }
                self.owe(key);
            }
            let limit = self.options.cache_timeout;
            self.external.retain(|_, (_, at)| now.since(*at) < limit);
        } else if self.queue.is_empty() && self.alive_at <= now {
            let acks = self.options.mode == Mode::Ftfw;
            match (self.ack_first, self.last) {
                (Some(first), Some(last)) if acks => {
                    self.ack_first = None;
                    self.owe_control(Control::Ack(first, last));
                }
                _ => self.owe_control(Control::Alive),
            }
        }
    }

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
            self.hello = Hello::Say;
        }
        let mut flags = Flags::NONE;
        if self.hello == Hello::Say {
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
                let mut flags = Flags::NONE;
                if self.hello != Hello::Done && self.options.mode == Mode::Ftfw {
                    flags = flags.with(Flags::HELLO);
                }
                if self.hello_back_due {
                    flags = flags.with(Flags::HELLO_BACK);
                }
                let options = FlowOptions {
                    timeout: true,
                    window_scale: false,
                };
                encode_flow(bytes, object.kind, flags, seq, &object.flow, options);
            }
        }
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
            Element::Object(key) => {
                if keeps {
                    self.greeting();
                    self.resend.push_back((seq, element));
                } else if self
                    .internal
                    .get(&key)
                    .is_some_and(|o| o.kind == StateKind::Delete)
                {
                    self.internal.remove(&key);
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
        if let Element::Object(key) = element
            && self
                .internal
                .get(&key)
                .is_some_and(|o| o.kind == StateKind::Delete)
        {
            self.internal.remove(&key);
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
        if hello_back && self.hello == Hello::Say {
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
