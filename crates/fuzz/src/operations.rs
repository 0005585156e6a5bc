//! Two replicas, and whatever may happen to them in an order that the fuzzer chooses: events,
//! datagrams that come, are lost, changed or made up, answers of a kernel, commands, time.
//!
//! It looks for panics, for queues that grow, and for work that never ends. What must hold
//! beyond that is the simulator's.

use std::time::Duration;

use flow::{Addrs, Filter, Flow, L4, Proto, ProtoInfo, Status, TcpInfo, TcpState, Tuple};
use replica::{
    Change, Command, CommandId, DumpEnd, Epoch, Found, Instant, KernelError, KernelEvent,
    KernelRequest, KernelResult, LinkId, LinkSettings, Mode, Objects, Op, Origin, Outcome, PeerId,
    Progress, Replica, Seq, Settings, TableId,
};

use crate::bytes::Bytes;

/// Most flows in a cache.
const LIMIT: usize = 40;
/// Datagrams on their way to one replica; more are lost.
const UNDER_WAY_MAX: usize = 64;
/// Long work must be over after so many turns: a table has fewer entries.
const TURNS_MAX: usize = 2000;

const COMMANDS: [Command; 10] = [
    Command::Commit(Objects::All),
    Command::Commit(Objects::Expectations),
    Command::FlushInternal,
    Command::FlushExternal,
    Command::FlushCaches,
    Command::FlushKernel(Objects::All),
    Command::ScheduleFlush,
    Command::Resync(Objects::All),
    Command::Bulk,
    Command::RequestResync,
];

struct Node {
    replica: Replica,
    inbox: Vec<Vec<u8>>,
    requests: Vec<KernelRequest>,
    commands: u64,
}

/// A list of operations.
pub(crate) fn replica(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mode = [Mode::Ftfw, Mode::Notrack, Mode::Alarm][bytes.below(3)];
    let kinds = bytes.byte();
    let mut nodes = [1, 2].map(|n| Node {
        replica: Replica::new(settings(mode, kinds >> (2 * n), n)),
        inbox: Vec::new(),
        requests: Vec::new(),
        commands: 0,
    });
    let mut now = Instant::START;
    while !bytes.is_empty() {
        let choice = bytes.byte();
        let n = usize::from(choice & 1);
        now = now + Duration::from_millis(1);
        match choice >> 1 & 15 {
            0..=2 => event(&mut nodes[n], now, &mut bytes),
            3..=5 => send(&mut nodes, n, now, &mut bytes),
            6 | 7 => receive(&mut nodes[n], now, &mut bytes),
            8 | 9 => answer(&mut nodes[n], now, &mut bytes),
            10 => command(&mut nodes[n], now, bytes.below(COMMANDS.len())),
            11 => now = now + Duration::from_millis(1 << bytes.below(17)),
            12 => dump(&mut nodes[n], now, &mut bytes),
            13 => nodes[n].replica.handle_overrun(now),
            14 => {
                let link = LinkId(bytes.below(2));
                nodes[n]
                    .replica
                    .handle_link(now, link, bytes.byte() & 1 == 0);
            }
            _ => {
                let len = bytes.below(200);
                let made_up = bytes.take(len);
                nodes[n]
                    .replica
                    .handle_datagram(now, PeerId::FIRST, LinkId(0), made_up);
            }
        }
        for node in &mut nodes {
            node.go_on(now);
        }
    }
}

impl Node {
    fn go_on(&mut self, now: Instant) {
        self.replica.handle_timeout(now);
        let mut turns = 0;
        while self.replica.advance(now, 16) == Progress::More {
            turns += 1;
            assert!(turns < TURNS_MAX, "long work never ends");
            self.replica.poll_kernel(LIMIT, &mut self.requests);
        }
        self.replica.poll_kernel(LIMIT, &mut self.requests);
        while self.replica.poll_event().is_some() {}
        let caches = [replica::Which::Internal, replica::Which::External];
        for which in caches {
            // Besides those that live there are the ends that the peer has not acknowledged.
            assert!(self.replica.len(which) <= LIMIT, "{which:?}");
        }
    }
}

fn settings(mode: Mode, kinds: u8, n: u32) -> Settings {
    let link = |name: &str| LinkSettings {
        name: name.into(),
        mtu: 1500,
        allowance: 28,
    };
    Settings {
        mode,
        internal_cache: kinds & 1 == 0 || mode != Mode::Notrack,
        external_cache: kinds & 2 == 0 || mode == Mode::Alarm,
        limit: LIMIT,
        ack_window: 4,
        resend_queue: 16,
        refresh_time: Duration::from_secs(3),
        cache_timeout: Duration::from_secs(8),
        commit_timeout: None,
        purge_timeout: Duration::from_secs(2),
        window_tracking: false,
        startup_resync: false,
        overrun_resync: Some(Duration::from_secs(1)),
        expectations: None,
        filter: Filter::default(),
        links: vec![link("sync0"), link("sync1")],
        first_link: 0,
        sweep_short: Duration::from_secs(1),
        sweep_full: Duration::from_secs(2),
        sweep_leisurely: Duration::from_secs(2),
        first_seq: Seq(u32::MAX - 9),
        epoch: Epoch(n),
        table: TableId(n),
        trailer: true,
    }
}

/// A flow of few: keys come again.
fn flow(bytes: &mut Bytes<'_>) -> Flow {
    let (port, id) = (bytes.below(2 * LIMIT) as u16, bytes.byte());
    let mut flow = Flow::new(Tuple {
        addrs: Addrs::V4 {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
        },
        proto: Proto::TCP,
        l4: L4::Ports { src: port, dst: 80 },
    });
    flow.id = Some(u32::from(id & 1));
    flow.status = Status(u32::from(id & 0x0e));
    flow.timeout = Some(u32::from(id) * 4);
    flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
        state: TcpState(1 + (id >> 4) % 8),
        window_scale: None,
    }));
    flow
}

fn event(node: &mut Node, now: Instant, bytes: &mut Bytes<'_>) {
    let kind = bytes.byte();
    let event = KernelEvent {
        change: [Change::New, Change::Update, Change::Destroy][usize::from(kind) % 3],
        origin: [Origin::Traffic, Origin::Commit, Origin::Inject][usize::from(kind >> 4) % 3],
        flow: flow(bytes),
    };
    node.replica.handle_events(now, &[event]);
}

/// What a replica has to send goes on its way, is lost, or comes changed by a byte.
fn send(nodes: &mut [Node; 2], n: usize, now: Instant, bytes: &mut Bytes<'_>) {
    let fate = bytes.byte();
    let mut sent = 0;
    while let Some((_, datagram)) = nodes[n].replica.poll_transmit() {
        let mut datagram = datagram.to_vec();
        sent += 1;
        assert!(sent < TURNS_MAX, "datagrams without end");
        if fate & 3 == 1 {
            let at = usize::from(fate) * 7 % datagram.len();
            datagram[at] ^= 1 << (fate >> 5);
        }
        let inbox = &mut nodes[1 - n].inbox;
        if fate & 3 != 0 && inbox.len() < UNDER_WAY_MAX {
            inbox.push(datagram);
        }
    }
    nodes[n].replica.handle_timeout(now);
}

/// Datagrams come in any order, or twice.
fn receive(node: &mut Node, now: Instant, bytes: &mut Bytes<'_>) {
    for _ in 0..=bytes.below(8) {
        if node.inbox.is_empty() {
            return;
        }
        let choice = bytes.byte();
        let at = usize::from(choice >> 1) % node.inbox.len();
        let datagram = match choice & 1 {
            0 => node.inbox.remove(at),
            _ => node.inbox[at].clone(),
        };
        node.replica
            .handle_datagram(now, PeerId::FIRST, LinkId(0), &datagram);
    }
}

/// The kernel answers requests, in order, as it likes.
fn answer(node: &mut Node, now: Instant, bytes: &mut Bytes<'_>) {
    let count = bytes.below(LIMIT).min(node.requests.len());
    for request in node.requests.drain(..count).collect::<Vec<_>>() {
        let choice = bytes.byte();
        let outcome = match (choice % 5, &request.op) {
            (0, _) => Outcome::Failed(KernelError::NotFound),
            (1, Op::Create(_)) => Outcome::Failed(KernelError::Exists),
            (1, Op::Get(key)) => {
                let mut found = flow(bytes);
                (found.orig, found.zone) = (key.orig, key.zone);
                found.reply = found.orig.inverted();
                Outcome::Found(Box::new(Found {
                    flow: found,
                    is_liberal: choice >= 128,
                }))
            }
            (2, _) => Outcome::Failed(KernelError::Os(i32::from(choice))),
            (_, Op::Get(_)) => Outcome::Failed(KernelError::NotFound),
            _ => Outcome::Done,
        };
        node.replica
            .handle_results(now, &[KernelResult { request, outcome }]);
    }
}

fn command(node: &mut Node, now: Instant, which: usize) {
    node.commands += 1;
    let id = CommandId(node.commands);
    node.replica.handle_command(now, id, COMMANDS[which]);
}

fn dump(node: &mut Node, now: Instant, bytes: &mut Bytes<'_>) {
    if node.replica.poll_dump().is_none() {
        return;
    }
    let flows: Vec<Flow> = (0..bytes.below(16)).map(|_| flow(bytes)).collect();
    node.replica.handle_dump(now, &flows);
    let end = [DumpEnd::Complete, DumpEnd::Failed][bytes.below(2)];
    node.replica.handle_dump_end(now, end);
}
