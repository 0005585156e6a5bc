//! The loop: wait, read what is there within budgets, let the replica decide, write
//! what it owes.
//!
//! Events come first, because their buffer is the one that loses data. When they come fast,
//! they do not wake the loop, but are read once a period (`pace`); everything else wakes it
//! still.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant as OsInstant};

use anyhow::{Context, Result};
use replica::{DumpEnd, Event, Instant, KernelRequest, LinkId, Progress, Replica, Which};
use rustix::event::epoll::{self, EventData, EventFlags};
use sys::netlink::{Netlink, RECEIVE_BYTES};
use sys::signal::{Signal, Signals};

use crate::clients::Clients;
use crate::fullness::Fullness;
use crate::kernel::{DumpSocket, Dumped, EventSocket, Events, Read, Run};
use crate::limit::Kind;
use crate::links::Links;
use crate::log::{Level, Log};
use crate::pace::Pace;
use crate::serve::tail_of;
use crate::wording;
use crate::writer::{BATCH, Writer};

/// Events read in one turn, unless `EventIterationLimit` says otherwise.
const EVENTS_PER_TURN: usize = 512;
/// Datagrams read from each link, and sent, in one turn.
const DATAGRAMS_PER_TURN: usize = 64;
/// Batches of kernel requests in one turn: one under way for each place in the writer's
/// queue, or the steps of a few requests, of which each follows from the last one's result.
const BATCHES_PER_TURN: usize = 4;
/// Entries that long work moves on by in one turn: well below a millisecond.
const ITEMS_PER_TURN: usize = 1024;
/// Pause of a loop that cannot go on before another thread has.
const CONGESTED: Duration = Duration::from_millis(1);

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
    pub(crate) watchdog: Option<Duration>,
    pub(crate) event_limit: Option<u32>,
    pub(crate) start: OsInstant,
}

/// What can be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Events,
    Dump,
    Writer,
    Signals,
    Watch,
    Clients,
    /// All of them: each is looked at.
    Links,
}

impl Token {
    fn to_data(self) -> EventData {
        EventData::new_u64(match self {
            Token::Events => 0,
            Token::Dump => 1,
            Token::Writer => 2,
            Token::Signals => 3,
            Token::Watch => 4,
            Token::Clients => 5,
            Token::Links => 6,
        })
    }

    /// `None` for what no token becomes.
    fn from_data(data: EventData) -> Option<Token> {
        Some(match data.u64() {
            0 => Token::Events,
            1 => Token::Dump,
            2 => Token::Writer,
            3 => Token::Signals,
            4 => Token::Watch,
            5 => Token::Clients,
            6 => Token::Links,
            _ => return None,
        })
    }
}

/// The core, its clients, and what lasts from turn to turn.
pub(crate) struct Loop {
    pub(crate) core: Core,
    pub(crate) clients: Clients,
    epoll: OwnedFd,
    pub(crate) next_command: u64,
    /// Events of this turn.
    events: Events,
    dumped: Dumped,
    buffer: Vec<u8>,
    /// What is ready, and the batch that is being made, kept for their memory.
    ready: Vec<epoll::Event>,
    batch: Vec<KernelRequest>,
    pace: Pace,
    /// Events gather, and do not wake the loop.
    gathers: bool,
    watchdog_at: OsInstant,
    /// Of the internal and the external cache, and when to look again.
    fullness: [Fullness; 2],
    caches_at: Instant,
    pub(crate) local_read_failed: u64,
    pub(crate) local_unknown: u64,
    pub(crate) stopping: bool,
}

/// Runs until told to stop.
pub(crate) fn run(core: Core, clients: Clients) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
    let mut l = Loop {
        core,
        clients,
        epoll,
        next_command: 0,
        events: Events::default(),
        dumped: Dumped::default(),
        buffer: vec![0; RECEIVE_BYTES],
        ready: Vec::with_capacity(64),
        batch: Vec::with_capacity(BATCH),
        pace: Pace::default(),
        gathers: false,
        watchdog_at: OsInstant::now(),
        fullness: [
            Fullness::new("internal cache"),
            Fullness::new("external cache"),
        ],
        caches_at: Instant::START,
        local_read_failed: 0,
        local_unknown: 0,
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
            self.add(events, Token::Events)?;
        }
        self.add(&core.dump, Token::Dump)?;
        self.add(&core.writer, Token::Writer)?;
        self.add(&core.signals, Token::Signals)?;
        self.add(&core.watch, Token::Watch)?;
        self.add(&self.clients, Token::Clients)?;
        self.add(&core.links, Token::Links)
    }

    fn add(&self, source: impl AsFd, token: Token) -> Result<()> {
        epoll::add(&self.epoll, source, token.to_data(), EventFlags::IN).context("epoll")
    }

    fn now(&self) -> Instant {
        let nanos = self.core.start.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// One turn; returns whether the next should not wait.
    fn turn(&mut self, busy: bool) -> Result<bool> {
        let pause = self.pace.pause(self.now());
        self.gather(!busy && !pause.is_zero())?;
        let timeout = if busy {
            Duration::ZERO
        } else if self.gathers {
            // A timer is not urgent to a period.
            pause
        } else {
            self.time_to_wait()
        };
        self.wait(timeout)?;
        let now = self.now();
        let has_gathered = self.gathers && self.pace.pause(now).is_zero();
        let ready = std::mem::take(&mut self.ready);
        let tokens = || ready.iter().filter_map(|e| Token::from_data(e.data));
        let is_due = has_gathered || tokens().any(|t| t == Token::Events);
        let mut more = is_due && self.read_events(now);
        for token in tokens() {
            match token {
                // These are looked at in every turn, in an order of their own.
                Token::Events | Token::Dump | Token::Links => {}
                Token::Writer => self.core.writer.clear_wake(),
                Token::Signals => self.read_signals(),
                Token::Watch => self.read_watch(),
                Token::Clients => {
                    for id in self.clients.ready(now) {
                        self.serve(id, now);
                    }
                }
            }
        }
        self.ready = ready;
        more |= self.read_links(now);
        while let Some(results) = self.core.writer.results() {
            self.core.replica.handle_results(now, &results);
        }
        self.read_dump(now);
        self.core.replica.handle_timeout(now);
        more |= self.core.replica.advance(now, ITEMS_PER_TURN) == Progress::More;
        self.choose_events();
        // What it changes is sent, too.
        more |= self.write_kernel(now);
        more |= self.transmit();
        self.hear(Cause::Anybody);
        for session in self.clients.all() {
            session.go_on(&self.core.replica);
        }
        self.clients.settle(now);
        self.feed_watchdog();
        self.log_what_clients_met();
        self.say_links();
        self.say_caches(now);
        self.core.log.say_left_out();
        let dump_waits = self.core.dump.is_running() && self.core.replica.is_dump_congested();
        if dump_waits || self.core.replica.is_congested() {
            // What waits in the sockets keeps them ready: without a pause the loop
            // would spin, and on one CPU at real-time priority starve the writer.
            thread::sleep(CONGESTED);
        }
        Ok(more || self.clients.want_more())
    }

    /// Lets events gather, or lets them wake the loop.
    fn gather(&mut self, on: bool) -> Result<()> {
        if let Some(events) = &self.core.events
            && on != self.gathers
        {
            let flags = if on {
                EventFlags::empty()
            } else {
                EventFlags::IN
            };
            epoll::modify(&self.epoll, events, Token::Events.to_data(), flags).context("epoll")?;
            self.gathers = on;
        }
        Ok(())
    }

    /// Waits for something to do; `ready` then holds what there is.
    fn wait(&mut self, timeout: Duration) -> Result<()> {
        let timeout = rustix::time::Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        self.ready.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.ready);
        match epoll::wait(&self.epoll, spare, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e).context("epoll"),
        }
    }

    fn time_to_wait(&self) -> Duration {
        let mut wait = Duration::from_secs(1);
        if let Some(at) = self.core.replica.poll_timeout() {
            wait = wait.min(at.since(self.now()));
        }
        if let Some(interval) = self.core.watchdog {
            wait = wait.min(interval.saturating_sub(self.watchdog_at.elapsed()));
        }
        let LinkId(current) = self.core.replica.current_link();
        if let Some(at) = self.core.links.again_at(current) {
            // Nothing can be sent before, so what the replica wants to send can wait.
            wait = at.saturating_duration_since(OsInstant::now());
        }
        if let Some(at) = self.clients.next_due() {
            wait = wait.min(at.since(self.now()));
        }
        wait
    }

    // ---- inputs ----

    /// Reads what events there are, within the budget; true if there may be more.
    fn read_events(&mut self, now: Instant) -> bool {
        let Some(socket) = &mut self.core.events else {
            return false;
        };
        let limit = self
            .core
            .event_limit
            .map_or(EVENTS_PER_TURN, |n| n as usize);
        self.events.clear();
        let read = socket.read(&mut self.buffer, limit, &mut self.events);
        // So many that a longer pause would fill the buffer are no reason for one.
        if (1..socket.room() / 4).contains(&self.events.len()) {
            self.pace.woken(now);
        }
        for run in self.events.runs() {
            match run {
                Run::Flows(events) => self.core.replica.handle_events(now, events),
                Run::Expectation(event) => self.core.replica.handle_expectation(now, event),
            }
        }
        for session in self.clients.all() {
            session.show(&self.events);
        }
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
        for (n, usable) in self.core.links.go_on(OsInstant::now()) {
            self.core.replica.handle_link(now, LinkId(n), usable);
        }
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
                let Some(arrived) = self.core.links.receive(n, &mut self.buffer) else {
                    break;
                };
                let Some(from) = arrived.peer else {
                    continue;
                };
                self.core
                    .replica
                    .handle_datagram(now, from, LinkId(n), arrived.bytes);
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

    fn read_watch(&mut self) {
        while self.core.watch.receive(&mut self.buffer).is_ok() {}
        self.core.links.refresh();
    }

    // ---- outputs ----

    /// Sends what is owed; true if there is more.
    fn transmit(&mut self) -> bool {
        let Core { replica, links, .. } = &mut self.core;
        let LinkId(current) = replica.current_link();
        let now = OsInstant::now();
        links.send_waiting(current, now);
        for _ in 0..DATAGRAMS_PER_TURN {
            if links.again_at(current).is_some() {
                return false;
            }
            let Some((LinkId(n), bytes)) = replica.poll_transmit() else {
                return false;
            };
            links.send(n, bytes, now);
        }
        true
    }

    /// Chooses what the event socket hears.
    fn choose_events(&mut self) {
        let Core {
            replica,
            events: Some(events),
            log,
            ..
        } = &mut self.core
        else {
            return;
        };
        let followed = self.clients.follow();
        let chosen = [
            events.hear_new(!replica.is_deaf_to_new()),
            events.hear_injections(followed),
        ];
        for error in chosen.into_iter().filter_map(Result::err) {
            let text = format!("choice of events: {error}");
            log.limited(Kind::Kernel, Level::Error, text);
        }
    }

    /// Has the kernel's requests executed or hands them over; true if there may be more.
    fn write_kernel(&mut self, now: Instant) -> bool {
        let Core {
            replica, writer, ..
        } = &mut self.core;
        for _ in 0..BATCHES_PER_TURN {
            self.batch.clear();
            if writer.has_room() {
                replica.poll_kernel(BATCH, &mut self.batch);
            }
            if self.batch.is_empty() {
                return false;
            }
            match writer.execute(&self.batch) {
                Some(results) => replica.handle_results(now, &results),
                None => {
                    let next = Vec::with_capacity(BATCH);
                    writer.hand_over(std::mem::replace(&mut self.batch, next));
                }
            }
            // Room in the queue of requests: the cursors may go on.
            replica.advance(now, BATCH);
        }
        true
    }

    /// Log lines, and clients whose command is done. `cause` is who caused what the
    /// replica has to say.
    pub(crate) fn hear(&mut self, cause: Cause) {
        while let Some(event) = self.core.replica.poll_event() {
            // The replica has no link each time that it is asked; `links` logs it once.
            if let Some((level, text)) = wording::of(&event).filter(|_| event != Event::NoLink) {
                let log = &mut self.core.log;
                match Kind::of(&event).filter(|_| cause == Cause::Anybody) {
                    Some(kind) => log.limited(kind, level, text),
                    None => log.line(level, &text),
                }
            }
            if let Event::Done(id, answer) = event {
                self.clients.command_done(id, &tail_of(answer));
            }
        }
    }

    fn log_what_clients_met(&mut self) {
        for (kind, level, line) in self.clients.lines() {
            self.core.log.limited(kind, level, line);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_epoll_returns_is_the_token_that_was_registered() {
        let all = [
            Token::Events,
            Token::Dump,
            Token::Writer,
            Token::Signals,
            Token::Watch,
            Token::Clients,
            Token::Links,
        ];
        for token in all {
            assert_eq!(Token::from_data(token.to_data()), Some(token));
        }
        assert_eq!(Token::from_data(EventData::new_u64(7)), None);
    }
}
