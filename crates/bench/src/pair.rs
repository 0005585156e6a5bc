//! Two replicas of FT-FW, each with a table in place of its kernel, and a link that loses
//! nothing. The first has the traffic, the second keeps its flows in the external cache.
//!
//! Both are driven by [`replica::driver::turn`] with the daemon's shares of a turn. What the
//! daemon does outside its core's thread (the kernel's work, the writer's encoding) is done
//! between turns, and is in no figure. There are no system calls.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use ctnetlink::{EventKind, Message};
use flow::{Filter, Flow};
use replica::driver::{self, Part, Report};
use replica::{
    Change, Command, CommandId, DumpEnd, DumpScope, Epoch, Event, Instant, KernelEvent,
    KernelRequest, KernelResult, LinkId, LinkSettings, Mode, Origin, PeerId, Progress, Replica,
    Seq, Settings, TableId,
};

use crate::clock::{Reading, Turns};
use crate::kernel::Kernel;

/// Events read in one turn, and datagrams received and sent, as in the daemon.
const EVENTS_PER_TURN: usize = 512;
const DATAGRAMS_PER_TURN: usize = 64;
/// Requests in one batch, and batches under way, as in the daemon.
const BATCH: usize = 256;
const BATCHES_MAX: usize = 4;

/// So long a round takes on the virtual clock when no events set the pace.
const ROUND: Duration = Duration::from_micros(500);

/// Settings of a replica of at most `limit` flows.
pub fn settings(limit: usize, epoch: u32) -> Settings {
    Settings {
        mode: Mode::Ftfw,
        internal_cache: true,
        external_cache: true,
        limit,
        ack_window: 300,
        resend_queue: 262_144,
        refresh_time: Duration::from_secs(60),
        cache_timeout: Duration::from_secs(180),
        commit_timeout: None,
        purge_timeout: Duration::from_secs(60),
        window_tracking: false,
        startup_resync: false,
        overrun_resync: Some(Duration::from_secs(5)),
        expectations: None,
        filter: Filter::default(),
        links: vec![LinkSettings {
            name: "link".into(),
            mtu: 1500,
            allowance: 28,
        }],
        first_link: 0,
        sweep_short: Duration::from_secs(5),
        sweep_full: Duration::from_secs(15),
        sweep_leisurely: Duration::from_secs(15),
        first_seq: Seq(epoch),
        epoch: Epoch(epoch),
        table: TableId(epoch),
        trailer: true,
    }
}

/// A replica and its surroundings.
#[derive(Debug)]
pub struct Node {
    /// The replica.
    pub replica: Replica,
    /// What surrounds it.
    pub around: Surroundings,
    /// What its turns have taken since somebody last took the figures.
    pub turns: Turns,
}

/// What surrounds a replica.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// In place of the kernel's table.
    pub kernel: Kernel,
    /// Bytes of `kernel.waiting` that are read.
    read: usize,
    /// Flows that a dump has still to read; `None` if there is none under way.
    dump: Option<usize>,
    /// Bytes of the next part of a dump.
    dump_bytes: Vec<u8>,
    inbox: VecDeque<Vec<u8>>,
    outbox: Vec<Vec<u8>>,
    asked: Vec<KernelRequest>,
    results: VecDeque<Vec<KernelResult>>,
    /// Flows of dumps that were read.
    pub dumped: u64,
    /// Events for the operator, but for those that nobody asks for here.
    pub events: Vec<Event>,
    turn: Turn,
}

/// What the present turn has read and sent.
#[derive(Debug, Default)]
struct Turn {
    has_read_events: bool,
    received: usize,
    sent: usize,
    events: Vec<KernelEvent>,
    flows: Vec<Flow>,
    datagram: Vec<u8>,
}

impl Surroundings {
    /// Makes ready what the turn will read.
    fn begin_turn(&mut self) {
        self.turn.has_read_events = false;
        (self.turn.received, self.turn.sent) = (0, 0);
        self.dump_bytes.clear();
        if let Some(left) = &mut self.dump {
            *left = self.kernel.dump(*left, &mut self.dump_bytes);
        }
        let asked = mem::take(&mut self.asked);
        let mut batch = Vec::with_capacity(BATCH);
        for request in asked {
            batch.push(self.kernel.execute(request));
            if batch.len() == BATCH {
                self.results.push_back(mem::take(&mut batch));
            }
        }
        if !batch.is_empty() {
            self.results.push_back(batch);
        }
    }

    /// True if the turn has left something unread or unsent.
    fn has_more(&self) -> bool {
        self.read < self.kernel.waiting.len()
            || !self.inbox.is_empty()
            || !self.asked.is_empty()
            || self.dump.is_some()
            || self.turn.sent == DATAGRAMS_PER_TURN
    }
}

impl driver::Host for Surroundings {
    const ITEMS: usize = 1024;
    const BATCH: usize = BATCH;
    const BATCHES: usize = BATCHES_MAX;

    fn report(&mut self) -> Option<Report<'_>> {
        if mem::replace(&mut self.turn.has_read_events, true) {
            return None;
        }
        let events = &mut self.turn.events;
        events.clear();
        for message in ctnetlink::messages(&self.kernel.waiting[self.read..]) {
            let message = message.expect("whole messages are written");
            self.read += (16 + message.payload.len()).next_multiple_of(4);
            if let Ok(Message::Flow { kind, flow, .. }) = ctnetlink::decode(&message) {
                events.push(KernelEvent {
                    change: match kind {
                        EventKind::New => Change::New,
                        EventKind::Update => Change::Update,
                        EventKind::Destroy => Change::Destroy,
                    },
                    origin: Origin::Traffic,
                    flow,
                });
            }
            if events.len() == EVENTS_PER_TURN {
                break;
            }
        }
        if self.read == self.kernel.waiting.len() {
            self.kernel.waiting.clear();
            self.read = 0;
        }
        (!events.is_empty()).then_some(Report::Flows(events))
    }

    fn datagram(&mut self) -> Option<(PeerId, LinkId, &[u8])> {
        if self.turn.received == DATAGRAMS_PER_TURN {
            return None;
        }
        self.turn.received += 1;
        self.turn.datagram = self.inbox.pop_front()?;
        Some((PeerId(0), LinkId(0), &self.turn.datagram))
    }

    fn results(&mut self) -> Option<Vec<KernelResult>> {
        self.results.pop_front()
    }

    fn is_dumping(&self) -> bool {
        self.dump.is_some()
    }

    fn start_dump(&mut self, _scope: DumpScope) -> bool {
        // All flows are of the one protocol that a dump can be about.
        self.dump = Some(self.kernel.len());
        true
    }

    fn dumped(&mut self) -> Option<Part<'_>> {
        self.turn.flows.clear();
        for message in ctnetlink::messages(&self.dump_bytes).flatten() {
            if let Ok(Message::Flow { flow, .. }) = ctnetlink::decode(&message) {
                self.turn.flows.push(flow);
            }
        }
        self.dump_bytes.clear();
        self.dumped += self.turn.flows.len() as u64;
        // The turn in which a dump is started reads nothing of it yet.
        let is_over = self.dump == Some(0);
        let end = is_over.then_some(DumpEnd::Complete);
        self.dump = self.dump.filter(|_| !is_over);
        Some(Part {
            flows: &self.turn.flows,
            expectations: &[],
            end,
        })
    }

    fn may_send(&mut self, _link: LinkId) -> bool {
        self.turn.sent < DATAGRAMS_PER_TURN
    }

    fn send(&mut self, _link: LinkId, bytes: &[u8]) {
        self.turn.sent += 1;
        self.outbox.push(bytes.to_vec());
    }

    fn listen_to_new(&mut self, _joins: bool) {
        // What a commit creates makes no event here.
    }

    fn may_write(&self) -> bool {
        self.asked.len() < BATCH * BATCHES_MAX
    }

    fn write(&mut self, batch: &mut Vec<KernelRequest>) -> Option<Vec<KernelResult>> {
        self.asked.append(batch);
        None
    }

    fn on_event(&mut self, event: Event) {
        self.events.push(event);
    }
}

impl Node {
    fn new(settings: Settings) -> Node {
        Node {
            replica: Replica::new(settings),
            around: Surroundings::default(),
            turns: Turns::default(),
        }
    }

    /// One turn; true if the next should follow at once.
    fn turn(&mut self, now: Instant) -> bool {
        let secs = now.since(Instant::START).as_secs();
        self.around.kernel.now_secs = u32::try_from(secs).unwrap_or(u32::MAX);
        self.around.begin_turn();
        let begun = Reading::now();
        let progress = driver::turn(&mut self.replica, &mut self.around, now);
        self.turns.end(begun);
        progress == Progress::More || self.around.has_more()
    }

    /// What the turns since the last call have taken.
    pub fn take_turns(&mut self) -> Turns {
        mem::take(&mut self.turns)
    }
}

/// Two replicas and the clock.
#[derive(Debug)]
pub struct Pair {
    /// Has the traffic.
    pub sender: Node,
    /// Keeps its flows.
    pub receiver: Node,
    now: Instant,
    next_command: u64,
}

impl Pair {
    /// A pair whose caches hold up to `limit` flows. Both know each other.
    pub fn new(limit: usize) -> Pair {
        let mut pair = Pair {
            sender: Node::new(settings(limit, 1)),
            receiver: Node::new(settings(limit, 2)),
            now: Instant::START,
            next_command: 0,
        };
        for _ in 0..30 {
            pair.run(Duration::from_millis(100));
        }
        pair.take_turns();
        pair
    }

    /// Time on the virtual clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Lets the clock run, and both replicas take the turns that are to be taken.
    pub fn run(&mut self, step: Duration) {
        self.now = self.now + step;
        while self.round() {
            self.now = self.now + ROUND;
        }
    }

    /// One turn of each; true if either wants another at once.
    fn round(&mut self) -> bool {
        let mut more = self.sender.turn(self.now);
        let sent = self.sender.around.outbox.drain(..);
        self.receiver.around.inbox.extend(sent);
        more |= self.receiver.turn(self.now);
        let sent = self.receiver.around.outbox.drain(..);
        self.sender.around.inbox.extend(sent);
        more || !self.sender.around.inbox.is_empty()
    }

    /// Gives the sender a command. It counts as a turn of its own.
    pub fn command_sender(&mut self, command: Command) {
        self.next_command += 1;
        command_to(&mut self.sender, self.now, self.next_command, command);
    }

    /// The same for the receiver.
    pub fn command_receiver(&mut self, command: Command) {
        self.next_command += 1;
        command_to(&mut self.receiver, self.now, self.next_command, command);
    }

    /// The sender starts anew: its caches are empty, its kernel's table is not. To free the
    /// memory of the old one is no turn of a daemon.
    pub fn restart_sender(&mut self) {
        restart(&mut self.sender, 3);
    }

    /// The same for the receiver.
    pub fn restart_receiver(&mut self) {
        restart(&mut self.receiver, 4);
    }

    /// What the turns of sender and receiver have taken since the last call.
    pub fn take_turns(&mut self) -> [Turns; 2] {
        [self.sender.take_turns(), self.receiver.take_turns()]
    }
}

fn command_to(node: &mut Node, now: Instant, id: u64, command: Command) {
    let begun = Reading::now();
    node.replica.handle_command(now, CommandId(id), command);
    node.turns.end(begun);
}

fn restart(node: &mut Node, epoch: u32) {
    let limit = node.replica.settings().limit;
    node.replica = Replica::new(settings(limit, epoch));
    // A dump of the former one is nobody's.
    node.around.dump = None;
    node.around.asked.clear();
    node.around.results.clear();
}

#[cfg(test)]
mod tests {
    use replica::Which;

    use super::*;
    use crate::events::Step;

    fn learned(count: u32) -> Pair {
        let mut pair = Pair::new(100_000);
        for n in 0..count {
            pair.sender.around.kernel.step(Step::New, n);
        }
        pair.run(Duration::from_millis(1));
        pair
    }

    #[test]
    fn what_the_sender_sees_the_receiver_keeps_until_it_ends() {
        let mut pair = learned(3000);
        assert_eq!(pair.sender.replica.len(Which::Internal), 3000);
        assert_eq!(pair.receiver.replica.len(Which::External), 3000);
        for n in 0..1000 {
            pair.sender.around.kernel.step(Step::Destroy, n);
        }
        pair.run(Duration::from_millis(1));
        assert_eq!(pair.receiver.replica.len(Which::External), 2000);
        // Acknowledgements remove the tombstones.
        pair.run(Duration::from_secs(2));
        assert_eq!(pair.sender.replica.len(Which::Internal), 2000);
    }

    #[test]
    fn a_commit_fills_the_table_of_the_receiver() {
        let mut pair = learned(3000);
        pair.command_receiver(Command::Commit(replica::Objects::All));
        pair.run(Duration::from_millis(1));
        assert_eq!(pair.receiver.around.kernel.len(), 3000);
        let created = pair.receiver.around.events.iter().any(|event| {
            matches!(
                event,
                Event::Done(_, replica::Answer::Committed { created: 3000, .. })
            )
        });
        assert!(created, "{:?}", pair.receiver.around.events);
    }

    #[test]
    fn after_a_restart_both_hold_everything_again() {
        let mut pair = learned(3000);
        pair.restart_receiver();
        for _ in 0..30 {
            pair.run(Duration::from_millis(100));
        }
        assert_eq!(pair.receiver.replica.len(Which::External), 3000);
        pair.restart_sender();
        for _ in 0..30 {
            pair.run(Duration::from_millis(100));
        }
        assert_eq!(pair.sender.replica.len(Which::Internal), 3000);
    }
}
