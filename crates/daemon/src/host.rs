//! What drives the core: the kernel's sockets, the links, the log and the clients, as
//! [`replica::driver`] wants them, each within its share of a turn.

use std::time::{Duration, Instant as OsInstant};

use control::call::Tail;
use replica::driver::{self, Part, Report};
use replica::{
    Answer, Caches, CommandId, DumpScope, Event, Instant, KernelRequest, KernelResult, LinkId,
    PeerId,
};
use sys::netlink::RECEIVE_BYTES;

use crate::clients::Clients;
use crate::dumper::Dumper;
use crate::kernel::{Dumped, EventSocket, Events, Read, Run};
use crate::limit::Kind;
use crate::line::{Fields, Level, Line};
use crate::links::Links;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::serve::tail_of;
use crate::statistics::StatisticsLog;
use crate::wording;
use crate::writer::{BATCH, Writer};

/// Events read in one turn, unless `EventIterationLimit` says otherwise.
const EVENTS_PER_TURN: usize = 512;
/// Datagrams read from each link, and sent, in one turn.
const DATAGRAMS_PER_TURN: usize = 64;

/// So long from the first turn on all else waits for the first dump. A daemon that answers before it
/// knows what its kernel has takes part in a pair with an empty table.
const FILLING_MAX: Duration = Duration::from_secs(1);

/// The surroundings of the core.
pub(crate) struct Host {
    pub(crate) log: Log,
    pub(crate) links: Links,
    pub(crate) writer: Writer,
    /// `None` in polling mode.
    pub(crate) events: Option<EventSocket>,
    pub(crate) dump: Dumper,
    pub(crate) clients: Clients,
    /// Without a peer: the flows that have ended.
    pub(crate) statistics: Option<StatisticsLog>,
    /// `None` without the block `Metrics`.
    pub(crate) metrics: Option<Metrics>,
    pub(crate) commits: Commits,
    pub(crate) pace: Pace,
    /// When the peer was last asked for all its flows, if neither it nor we have forgotten
    /// them since.
    pub(crate) asked_peer_at: Option<Instant>,
    /// Since the loop last looked it has started again or come back, or the external cache was
    /// emptied: what it and we had before says nothing now.
    pub(crate) has_forgotten_theirs: bool,
    /// Commands that have ended since the loop last looked.
    pub(crate) ended: Vec<(CommandId, Tail)>,
    events_per_turn: usize,
    /// The first dump, with which the internal cache begins, is not over: neither datagrams nor
    /// clients are served.
    pub(crate) is_filling: bool,
    /// When the first turn was.
    began: Option<Instant>,
    turn: Turn,
    /// Events of this turn.
    read: Events,
    dumped: Dumped,
    buffer: Vec<u8>,
}

/// Commits that have ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Commits {
    pub(crate) count: u64,
    /// Flows and expectations that the kernel refused.
    pub(crate) refused: u64,
    /// How long the last one took.
    pub(crate) last: Option<Duration>,
}

impl Commits {
    fn note(&mut self, answer: Answer) {
        match answer {
            Answer::Committed { failed, took, .. } => {
                self.count += 1;
                self.refused += failed;
                self.last = Some(took);
            }
            Answer::NothingToCommit => self.count += 1,
            _ => {}
        }
    }
}

/// How far one turn has come.
#[derive(Debug)]
struct Turn {
    now: Instant,
    os_now: OsInstant,
    /// Events are to be read.
    reads_events: bool,
    /// Runs of events that the core has got.
    runs: usize,
    overrun: bool,
    /// The link that is being read, and datagrams read from it.
    link: usize,
    received: usize,
    /// What waits at the links has had its chance.
    has_retried: bool,
    sent: usize,
    /// Something was left unread or unsent because the turn has had its share.
    has_more: bool,
}

/// Who caused what the core reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The operator: a command is always answered in full.
    Command,
    /// Perhaps a stranger.
    Anybody,
}

impl Host {
    pub(crate) fn new(
        log: Log,
        links: Links,
        writer: Writer,
        events: Option<EventSocket>,
        dump: Dumper,
        clients: Clients,
        event_limit: Option<u32>,
    ) -> Host {
        Host {
            log,
            links,
            writer,
            events,
            dump,
            clients,
            statistics: None,
            metrics: None,
            commits: Commits::default(),
            pace: Pace::default(),
            asked_peer_at: None,
            has_forgotten_theirs: false,
            ended: Vec::new(),
            events_per_turn: event_limit.map_or(EVENTS_PER_TURN, |n| n as usize),
            is_filling: false,
            began: None,
            turn: Turn::new(Instant::START, false),
            read: Events::default(),
            dumped: Dumped::default(),
            buffer: vec![0; RECEIVE_BYTES],
        }
    }

    /// A turn begins; it reads events if `reads_events`.
    pub(crate) fn begin_turn(&mut self, now: Instant, reads_events: bool) {
        self.turn = Turn::new(now, reads_events);
        self.read.clear();
        let began = *self.began.get_or_insert(now);
        self.is_filling &= now.since(began) < FILLING_MAX;
    }

    /// True if the turn has read nothing of the dump that is under way.
    pub(crate) fn waits_for_dump(&self) -> bool {
        self.dump.is_running() && self.dumped.is_empty()
    }

    /// True if the turn has left something unread or unsent.
    pub(crate) fn has_more(&self) -> bool {
        self.turn.has_more
    }

    /// Logs what the core reports, and answers the client whose command is done.
    pub(crate) fn report_event(&mut self, event: Event, cause: Cause) {
        // The core has no link each time that it is asked; `links` logs it once.
        if let Some((level, text)) = wording::of(&event).filter(|_| event != Event::NoLink) {
            let line = Line::new(level, text, Fields::of(&event, self.links.peer));
            match Kind::of(&event).filter(|_| cause == Cause::Anybody) {
                Some(kind) => self.log.limited(kind, line),
                None => self.log.write(line),
            }
        }
        match event {
            Event::ResyncRequested => self.asked_peer_at = Some(self.turn.now),
            Event::PeerBack { .. } => self.has_forgotten_theirs = true,
            Event::PeerRestarted { .. }
            | Event::FlushingCaches(Caches::External | Caches::Both) => {
                self.asked_peer_at = None;
                self.has_forgotten_theirs = true;
            }
            Event::Done(id, answer) => {
                self.commits.note(answer);
                let tail = tail_of(answer);
                self.clients.command_done(id, &tail);
                self.ended.push((id, tail));
            }
            Event::Ended(flow) => {
                if let Some(statistics) = &mut self.statistics {
                    statistics.ended(&flow, self.read.take_ending(&flow.key()));
                }
            }
            _ => {}
        }
    }

    /// Reads what events there are, within the share of the turn.
    fn read_events(&mut self) {
        let Some(socket) = &mut self.events else {
            return;
        };
        let read = socket.read(&mut self.buffer, self.events_per_turn, &mut self.read);
        // So many that a longer pause would fill the buffer are no reason for one.
        if (1..socket.room() / 4).contains(&self.read.len()) {
            self.pace.woken(self.turn.now);
        }
        for session in self.clients.all() {
            session.show(&self.read);
        }
        self.turn.overrun = read == Read::Overrun;
        if self.turn.overrun
            && let Some(bytes) = socket.grow()
        {
            self.log.notice(format!(
                "netlink event socket buffer size has been doubled to {bytes} bytes"
            ));
        }
        self.turn.has_more |= read != Read::Drained;
    }
}

impl Turn {
    fn new(now: Instant, reads_events: bool) -> Turn {
        Turn {
            now,
            os_now: OsInstant::now(),
            reads_events,
            runs: 0,
            overrun: false,
            link: 0,
            received: 0,
            has_retried: false,
            sent: 0,
            has_more: false,
        }
    }
}

impl driver::Host for Host {
    /// Well below a millisecond.
    const ITEMS: usize = 1024;
    const BATCH: usize = BATCH;
    /// One under way for each place in the writer's queue, or the steps of a few requests,
    /// of which each follows from the last one's result.
    const BATCHES: usize = 4;

    fn report(&mut self) -> Option<Report<'_>> {
        if std::mem::take(&mut self.turn.reads_events) {
            self.read_events();
        }
        let n = self.turn.runs;
        self.turn.runs += 1;
        match self.read.run(n) {
            Some(Run::Flows(events)) => Some(Report::Flows(events)),
            Some(Run::Expectation(event)) => Some(Report::Expectation(event)),
            None => std::mem::take(&mut self.turn.overrun).then_some(Report::Overrun),
        }
    }

    fn datagram(&mut self) -> Option<(PeerId, LinkId, &[u8])> {
        if self.is_filling {
            return None;
        }
        loop {
            let n = self.turn.link;
            if n >= self.links.list.len() {
                return None;
            }
            let has_share = self.turn.received < DATAGRAMS_PER_TURN;
            self.turn.has_more |= !has_share;
            let receive = || self.links.receive(n, &mut self.buffer);
            let Some(arrived) = has_share.then(receive).flatten() else {
                self.turn.link += 1;
                self.turn.received = 0;
                continue;
            };
            self.turn.received += 1;
            if let Some(peer) = arrived.peer {
                let bytes = self.links.arrived(n, arrived, &self.buffer);
                return Some((peer, LinkId(n), bytes));
            }
        }
    }

    fn results(&mut self) -> Option<Vec<KernelResult>> {
        self.writer.results()
    }

    fn is_dumping(&self) -> bool {
        self.dump.is_running()
    }

    fn start_dump(&mut self, scope: DumpScope) -> bool {
        let has_started = self.dump.start(scope);
        self.is_filling &= has_started;
        has_started
    }

    fn dumped(&mut self) -> Option<Part<'_>> {
        self.dumped.clear();
        let end = self.dump.read(&mut self.dumped);
        self.is_filling &= end.is_none();
        Some(Part {
            flows: &self.dumped.flows,
            expectations: &self.dumped.expectations,
            end,
        })
    }

    fn may_send(&mut self, link: LinkId) -> bool {
        if self.links.list.is_empty() {
            return false;
        }
        if !std::mem::replace(&mut self.turn.has_retried, true) {
            self.links.send_waiting(link.0, self.turn.os_now);
        }
        if self.links.again_at(link.0).is_some() {
            return false;
        }
        let has_share = self.turn.sent < DATAGRAMS_PER_TURN;
        self.turn.has_more |= !has_share;
        has_share
    }

    fn send(&mut self, link: LinkId, bytes: &[u8]) {
        self.turn.sent += 1;
        self.links.send(link.0, bytes, self.turn.os_now);
    }

    fn listen_to_new(&mut self, joins: bool) {
        let Some(events) = &mut self.events else {
            return;
        };
        let is_followed = self.clients.follow();
        let chosen = [events.hear_new(joins), events.hear_injections(is_followed)];
        for error in chosen.into_iter().filter_map(Result::err) {
            let text = format!("the kernel refuses a choice of events: {error}: it is tried again");
            self.log.limited(Kind::Kernel, (Level::Error, text));
        }
    }

    fn may_write(&self) -> bool {
        self.writer.has_room()
    }

    fn write(&mut self, batch: &mut Vec<KernelRequest>) -> Option<Vec<KernelResult>> {
        let results = self.writer.execute(batch);
        if results.is_none() {
            self.writer.hand_over(std::mem::take(batch));
        }
        results
    }

    fn on_event(&mut self, event: Event) {
        self.report_event(event, Cause::Anybody);
    }
}
