//! The original's rules as the other end of a mixed pair, from the wire protocol
//! specification, section 5. Its weak points are modelled too: HELLO empties its resend
//! queue, a late message is dropped, and what it has given up is not mentioned.

mod expectations;
mod link;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use flow::{ExpectKey, Flow, FlowKey};
use replica::{
    Change, Command, Instant, KernelError, KernelEvent, KernelRequest, Mode, Op, Origin, Outcome,
    Purpose, Seq, Subject,
};
use wire::StateKind;
use wire::v1::{Control, Flags};

use expectations::Expectations;
pub use expectations::committed;

use crate::kernel::Kernel;
use crate::random::Random;

const ALIVE: Duration = Duration::from_secs(1);
const OVERRUN_RESYNC: Duration = Duration::from_secs(2);

/// Its configuration.
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
    /// `ExpectationSync`.
    pub expectations: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Object(FlowKey),
    Expectation(ExpectKey),
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
    Greeting,
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
    expectations: Expectations,
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
    /// A daemon that has read the kernel's table, and that announces nothing of it.
    pub fn new(options: Options, now: Instant, kernel: &Kernel, seed: u64) -> Original {
        let mut original = Original {
            options,
            random: Random::new(seed, "original"),
            now,
            internal: BTreeMap::new(),
            external: BTreeMap::new(),
            expectations: Expectations::default(),
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
        for flow in kernel.flows(self.now) {
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
        self.drop_from_queues(Element::Object(*key));
    }

    fn drop_from_queues(&mut self, element: Element) {
        self.queue.retain(|e| *e != element);
        self.resend.retain(|(_, e)| *e != element);
    }

    /// An object is in one queue at most.
    fn owe(&mut self, key: FlowKey) {
        self.owe_element(Element::Object(key));
    }

    fn owe_element(&mut self, element: Element) {
        if !self.queue.contains(&element) {
            self.resend.retain(|(_, e)| *e != element);
            self.queue.push_back(element);
        }
    }

    fn owe_control(&mut self, control: Control) {
        self.queue.push_back(Element::Control(control, Flags::NONE));
    }

    /// An event of the kernel about a flow.
    pub fn handle_event(&mut self, now: Instant, event: &KernelEvent) {
        self.now = now;
        let key = event.flow.key();
        if event.origin == Origin::Inject {
            return;
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
                    return;
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
            Command::FlushExternal => self.clear_external(),
            Command::FlushCaches => {
                self.clear_internal();
                self.clear_external();
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

    fn clear_external(&mut self) {
        self.external.clear();
        self.expectations.external.clear();
    }

    fn clear_internal(&mut self) {
        self.internal.clear();
        self.expectations.internal.clear();
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
                    subject: Subject::Table,
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
        for (e, _) in self.expectations.external.values() {
            execute(Op::CreateExpectation(committed(e)));
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
        self.owe_all_expectations();
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
            self.refresh_expectations();
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
}
