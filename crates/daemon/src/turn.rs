//! The loop: wait, read what is there within budgets, let the replica decide, write
//! what it owes.
//!
//! Events come first, because their buffer is the one that loses data. When they
//! come fast, the loop lets a millisecond of them gather: waking up is what they
//! cost, not reading.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant as OsInstant};

use anyhow::{Context, Result};
use replica::{DumpEnd, Event, Instant, Level, LinkId, Progress, Replica, Which};
use rustix::event::epoll::{self, EventData, EventFlags};
use sys::netlink::{Netlink, RECEIVE_BYTES};
use sys::signal::{Signal, Signals};

use crate::admission::{ClientStats, Door, Listings};
use crate::fullness::Fullness;
use crate::kernel::{DumpSocket, Dumped, EventSocket, Events, Read, Run};
use crate::limit::Kind;
use crate::links::Links;
use crate::log::Log;
use crate::session::Session;
use crate::writer::{BATCH, Writer};

const EVENTS: u64 = 0;
const DUMP: u64 = 1;
const WRITER: u64 = 2;
const SIGNALS: u64 = 3;
const WATCH: u64 = 4;
pub(crate) const CONTROL: u64 = 5;
const LINKS: u64 = 16;
const SESSIONS: u64 = 64;

/// Events read in one turn, unless `EventIterationLimit` says otherwise.
const EVENTS_PER_TURN: usize = 512;
/// Datagrams read from each link, and sent, in one turn.
const DATAGRAMS_PER_TURN: usize = 64;
/// Entries that long work moves on by in one turn: well below a millisecond.
const ITEMS_PER_TURN: usize = 1024;
/// How long events gather when they come fast.
const GATHER: Duration = Duration::from_millis(1);

/// Everything the core thread owns.
pub(crate) struct Core {
    pub(crate) replica: Replica,
    pub(crate) log: Log,
    pub(crate) links: Links,
    pub(crate) writer: Writer,
    pub(crate) events: Option<EventSocket>,
    pub(crate) dump: DumpSocket,
    pub(crate) signals: Signals,
    pub(crate) watch: Netlink,
    pub(crate) control: Option<Door>,
    pub(crate) watchdog: Option<Duration>,
    pub(crate) event_limit: Option<u32>,
    pub(crate) start: OsInstant,
}

/// The core and what of it lasts from turn to turn.
pub(crate) struct Loop {
    pub(crate) core: Core,
    pub(crate) epoll: std::os::fd::OwnedFd,
    pub(crate) sessions: BTreeMap<u64, Session>,
    pub(crate) next_session: u64,
    pub(crate) next_command: u64,
    /// Events of this turn.
    pub(crate) events: Events,
    dumped: Dumped,
    buffer: Vec<u8>,
    events_at: OsInstant,
    watchdog_at: OsInstant,
    /// Of the internal and the external cache, and when to look again.
    fullness: [Fullness; 2],
    caches_at: Instant,
    pub(crate) local_read_failed: u64,
    pub(crate) local_unknown: u64,
    pub(crate) clients: ClientStats,
    pub(crate) listings: Listings,
    pub(crate) stopping: bool,
}

/// Runs until told to stop.
pub(crate) fn run(core: Core) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
    let mut l = Loop {
        core,
        epoll,
        sessions: BTreeMap::new(),
        next_session: SESSIONS,
        next_command: 0,
        events: Events::default(),
        dumped: Dumped::default(),
        buffer: vec![0; RECEIVE_BYTES],
        events_at: OsInstant::now(),
        watchdog_at: OsInstant::now(),
        fullness: [
            Fullness::new("internal cache"),
            Fullness::new("external cache"),
        ],
        caches_at: Instant::START,
        local_read_failed: 0,
        local_unknown: 0,
        clients: ClientStats::default(),
        listings: Listings::default(),
        stopping: false,
    };
    l.register()?;
    let mut busy = true;
    while !l.stopping {
        busy = l.turn(busy)?;
    }
    l.core.log.say_all_left_out();
    l.core.log.notice("---- shutdown received ----");
    Ok(())
}

impl Loop {
    fn register(&self) -> Result<()> {
        let core = &self.core;
        if let Some(events) = &core.events {
            self.add(events, EVENTS)?;
        }
        self.add(&core.dump, DUMP)?;
        self.add(&core.writer, WRITER)?;
        self.add(&core.signals, SIGNALS)?;
        self.add(&core.watch, WATCH)?;
        if let Some(control) = &core.control {
            self.add(control, CONTROL)?;
        }
        for (n, link) in (LINKS..).zip(&core.links.list) {
            self.add(&link.pair.receiver, n)?;
        }
        Ok(())
    }

    pub(crate) fn add(&self, source: impl AsFd, token: u64) -> Result<()> {
        epoll::add(
            &self.epoll,
            source,
            EventData::new_u64(token),
            EventFlags::IN,
        )
        .context("epoll")?;
        Ok(())
    }

    fn now(&self) -> Instant {
        let nanos = self.core.start.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// One turn; returns whether the next should not wait.
    fn turn(&mut self, busy: bool) -> Result<bool> {
        let ready = self.wait(busy)?;
        let now = self.now();
        let mut more = self.read_events(now, ready.contains(&EVENTS));
        for token in ready {
            match token {
                DUMP => {}
                WRITER => self.core.writer.clear_wake(),
                SIGNALS => self.read_signals(),
                WATCH => self.read_watch(now),
                CONTROL => self.accept(),
                n if n >= SESSIONS => self.serve(n, now),
                _ => {}
            }
        }
        more |= self.read_links(now);
        while let Some(results) = self.core.writer.results() {
            self.core.replica.handle_results(now, &results);
        }
        self.read_dump(now);
        self.core.replica.handle_timeout(now);
        more |= self.core.replica.advance(now, ITEMS_PER_TURN) == Progress::More;
        more |= self.transmit();
        self.write_kernel(now);
        self.hear(Cause::Anybody);
        self.dump_to_clients();
        self.close_sessions();
        self.end_pause();
        self.feed_watchdog();
        self.say_links();
        self.say_caches(now);
        self.core.log.say_left_out();
        let dump_waits = self.core.dump.is_running() && self.core.replica.is_dump_congested();
        if dump_waits || self.core.replica.is_congested() {
            // What waits in the sockets keeps them ready: without a pause the loop
            // would spin, and on one CPU at real-time priority starve the writer.
            thread::sleep(GATHER);
        }
        Ok(more || self.sessions.values().any(Session::wants_more))
    }

    /// Waits for something to do; yields the tokens of what is ready.
    fn wait(&mut self, busy: bool) -> Result<Vec<u64>> {
        let timeout = if busy {
            Duration::ZERO
        } else {
            self.time_to_wait()
        };
        let timeout = rustix::time::Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut list: Vec<epoll::Event> = Vec::with_capacity(64);
        let spare = rustix::buffer::spare_capacity(&mut list);
        match epoll::wait(&self.epoll, spare, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("epoll"),
        }
        Ok(list.iter().map(|e| e.data.u64()).collect())
    }

    fn time_to_wait(&self) -> Duration {
        let mut wait = Duration::from_secs(1);
        if let Some(at) = self.core.replica.poll_timeout() {
            wait = wait.min(at.since(self.now()));
        }
        if let Some(interval) = self.core.watchdog {
            wait = wait.min(interval.saturating_sub(self.watchdog_at.elapsed()));
        }
        if let Some(at) = self.core.links.again_at() {
            // Nothing can be sent before, so what the replica wants to send can wait.
            wait = at.saturating_duration_since(OsInstant::now());
        }
        let paused = self.core.control.as_ref().and_then(Door::paused_until);
        if let Some(at) = paused {
            wait = wait.min(at.saturating_duration_since(OsInstant::now()));
        }
        wait
    }

    // ---- inputs ----

    fn read_events(&mut self, now: Instant, ready: bool) -> bool {
        let Some(socket) = &mut self.core.events else {
            return false;
        };
        if !ready {
            return false;
        }
        let limit = self
            .core
            .event_limit
            .map_or(EVENTS_PER_TURN, |n| n as usize);
        // Fast: another batch came within a millisecond. Let more gather; what is in
        // the socket meanwhile is in order, and nothing else is urgent to a millisecond.
        if self.events_at.elapsed() < GATHER {
            thread::sleep(GATHER);
        }
        self.events.clear();
        let read = socket.read(&mut self.buffer, limit, &mut self.events);
        self.events_at = OsInstant::now();
        for run in self.events.runs() {
            match run {
                Run::Flows(events) => self.core.replica.handle_events(now, events),
                Run::Expectation(event) => self.core.replica.handle_expectation(now, event),
            }
        }
        self.show_events();
        let Some(socket) = &mut self.core.events else {
            return false;
        };
        if read == Read::Overrun {
            self.core.replica.handle_overrun(now);
            if let Some(bytes) = socket.grow() {
                self.core.log.notice(format!(
                    "netlink event socket buffer size has been doubled to {bytes} bytes"
                ));
            }
        }
        read != Read::Drained
    }

    fn read_links(&mut self, now: Instant) -> bool {
        let mut more = false;
        for n in 0..self.core.links.list.len() {
            for count in 0.. {
                // Left in the socket, the peer's messages are lost where it is counted.
                if self.core.replica.is_congested() {
                    break;
                }
                if count == DATAGRAMS_PER_TURN {
                    more = true;
                    break;
                }
                let Some(bytes) = self.core.links.list[n].receive(&mut self.buffer) else {
                    break;
                };
                self.core.replica.handle_datagram(now, LinkId(n), bytes);
                // A datagram may hold thousands of messages: none of what is said about
                // them is kept until the end of the turn.
                self.hear(Cause::Anybody);
            }
        }
        more
    }

    fn read_dump(&mut self, now: Instant) {
        if !self.core.dump.is_running() {
            match self.core.replica.poll_dump() {
                Some(scope) => {
                    if self.core.dump.start(scope).is_err() {
                        self.core.replica.handle_dump_end(now, DumpEnd::Failed);
                        return;
                    }
                }
                None => return,
            }
        }
        if self.core.replica.is_dump_congested() {
            return;
        }
        self.dumped.clear();
        let end = self.core.dump.read(&mut self.buffer, &mut self.dumped);
        let replica = &mut self.core.replica;
        replica.handle_dump(now, &self.dumped.flows);
        replica.handle_dumped_expectations(now, &self.dumped.expectations);
        if let Some(end) = end {
            self.core.replica.handle_dump_end(now, end);
        }
    }

    fn read_signals(&mut self) {
        while let Some(signal) = self.core.signals.next() {
            match signal {
                Signal::Terminate => self.stopping = true,
                Signal::Hangup => match self.core.log.reopen() {
                    Ok(()) => self.core.log.notice("SIGHUP: log file opened again"),
                    Err(e) => self.core.log.error(format!("log file: {e}")),
                },
            }
        }
    }

    fn read_watch(&mut self, now: Instant) {
        while self.core.watch.receive(&mut self.buffer).is_ok() {}
        for (n, usable) in self.core.links.refresh().into_iter().enumerate() {
            self.core.replica.handle_link(now, LinkId(n), usable);
        }
    }

    // ---- outputs ----

    /// Sends what is owed; true if there is more.
    fn transmit(&mut self) -> bool {
        let Core { replica, links, .. } = &mut self.core;
        let LinkId(current) = replica.current_link();
        links.send_waiting(current);
        for _ in 0..DATAGRAMS_PER_TURN {
            if links.again_at().is_some() {
                return false;
            }
            let Some((LinkId(n), bytes)) = replica.poll_transmit() else {
                return false;
            };
            links.send(n, bytes);
        }
        true
    }

    fn write_kernel(&mut self, now: Instant) {
        let Core {
            replica,
            writer,
            events,
            log,
            ..
        } = &mut self.core;
        if let Some(events) = events
            && let Err(e) = events.hear_new(!replica.is_deaf_to_new())
        {
            let text = format!("group of new flows: {e}");
            log.limited(Kind::Kernel, Level::Error, text);
        }
        while writer.has_room() {
            let mut batch = Vec::with_capacity(BATCH);
            replica.poll_kernel(BATCH, &mut batch);
            if batch.is_empty() {
                break;
            }
            writer.hand_over(batch);
            // Room in the queue of requests: the cursors may go on.
            replica.advance(now, BATCH);
        }
    }

    /// Log lines, and clients whose command is done. `cause` is who caused what the
    /// replica has to say.
    pub(crate) fn hear(&mut self, cause: Cause) {
        let mut last = None;
        while let Some(event) = self.core.replica.poll_event() {
            if let Event::Done(id) = &event {
                self.command_done(*id, last.as_ref());
            } else if event != Event::NoLink {
                // The replica has no link each time that it is asked; `links` says it once.
                let log = &mut self.core.log;
                match strangers_kind(&event).filter(|_| cause == Cause::Anybody) {
                    Some(kind) => log.limited(kind, event.level(), &event),
                    None => log.line(event.level(), &event.to_string()),
                }
            }
            last = Some(event);
        }
    }

    fn say_links(&mut self) {
        for (level, line) in self.core.links.lines() {
            self.core.log.limited(Kind::Link, level, line);
        }
    }

    /// Says once that a cache is full, and once that it has room again. Looks once a second.
    fn say_caches(&mut self, now: Instant) {
        if now < self.caches_at {
            return;
        }
        self.caches_at = now + Duration::from_secs(1);
        let replica = &self.core.replica;
        let (stats, settings) = (replica.stats(), replica.settings());
        let caches = [
            (settings.internal_cache, Which::Internal, stats.internal),
            (settings.external_cache, Which::External, stats.external),
        ];
        for ((is_on, which, counters), fullness) in caches.into_iter().zip(&mut self.fullness) {
            // Without a cache the counters are those of the kernel.
            if !is_on {
                continue;
            }
            let line = fullness.look(
                now,
                counters.create_failed,
                replica.len(which),
                settings.limit,
            );
            if let Some((level, line)) = line {
                self.core.log.limited(Kind::Cache, level, line);
            }
        }
    }

    fn feed_watchdog(&mut self) {
        if let Some(interval) = self.core.watchdog
            && self.watchdog_at.elapsed() >= interval
        {
            self.watchdog_at = OsInstant::now();
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

/// Who caused what the replica has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The operator: a command is always answered in full.
    Command,
    /// Perhaps a stranger.
    Anybody,
}

/// The kind of an event that a datagram, a packet or the kernel can cause as often as it
/// likes; `None` for one that only commands and timers cause.
fn strangers_kind(event: &Event) -> Option<Kind> {
    match event {
        Event::Clash(_)
        | Event::Refused { .. }
        | Event::ExpectationRefused { .. }
        | Event::WithoutHelper(_) => Some(Kind::Refused),
        Event::PeerRestarted { .. }
        | Event::PeerHeard
        | Event::PeerLost
        | Event::PeerBack { .. } => Some(Kind::Peer),
        Event::ResyncByPeer
        | Event::Bulk
        | Event::ResyncRequested
        | Event::Lacking { .. }
        | Event::HoldsMore { .. } => Some(Kind::Bulk),
        Event::LinkChosen(_) | Event::NoLink => Some(Kind::Link),
        Event::Overrun(_) | Event::Repaired { .. } => Some(Kind::Overrun),
        Event::DumpFailed => Some(Kind::Kernel),
        Event::Done(_)
        | Event::CommitStarted
        | Event::CommitRunning
        | Event::Committed { .. }
        | Event::FlushingCaches(_)
        | Event::FlushRefused
        | Event::FlushingKernel { .. }
        | Event::FlushScheduled(_)
        | Event::Purged { .. }
        | Event::FlushIncomplete { .. }
        | Event::Resync
        | Event::ResyncUnsupported => None,
    }
}
