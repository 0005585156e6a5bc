//! The loop: wait, drive the core (`host`), serve signals and clients.
//!
//! Events come first, because their buffer is the one that loses data. When they come fast,
//! they do not wake the loop, but are read once a period (`pace`); everything else wakes it
//! still. Commands are served between two turns of the core.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant as OsInstant};

use anyhow::{Context, Result};
use replica::{Command, CommandId, Instant, LinkId, Progress, Replica, Role, Which, driver};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{self, PollFd, PollFlags};
use rustix::io::Errno;
use rustix::time::Timespec;
use sys::netlink::Netlink;
use sys::signal::{Signal, Signals};

use crate::change::Changes;
use crate::fullness::Fullness;
use crate::health::{self, Health, Theirs};
use crate::host::{Cause, Host};
use crate::limit::Kind;
use crate::sandbox;
use crate::service::Service;
use crate::turns::Turns;

/// Pause of a loop that cannot go on before another thread has.
const CONGESTED: Duration = Duration::from_millis(1);
/// Longest message about interfaces.
const WATCH_BYTES: usize = 64 << 10;

/// What the core thread owns from the start.
pub(crate) struct Core {
    pub(crate) replica: Replica,
    pub(crate) host: Host,
    pub(crate) signals: Signals,
    pub(crate) watch: Netlink,
    pub(crate) start: OsInstant,
    pub(crate) changes: Changes,
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
    Links,
    Metrics,
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
            Token::Metrics => 7,
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
            7 => Token::Metrics,
            _ => return None,
        })
    }
}

/// The core, what drives it, and what lasts from turn to turn.
pub(crate) struct Loop<'a> {
    pub(crate) replica: Replica,
    pub(crate) host: Host,
    signals: Signals,
    watch: Netlink,
    pub(crate) start: OsInstant,
    epoll: OwnedFd,
    /// What is ready, kept for its memory.
    ready: Vec<epoll::Event>,
    watch_buffer: Vec<u8>,
    next_command: u64,
    pub(crate) changes: Changes,
    pub(crate) health: Health,
    health_at: Instant,
    /// Events gather, and do not wake the loop.
    gathers: bool,
    pub(crate) service: &'a mut Service,
    pub(crate) turns: Turns,
    /// Of the internal and the external cache, and when to look again.
    fullness: [Fullness; 2],
    caches_at: Instant,
    pub(crate) local_read_failed: u64,
    pub(crate) local_unknown: u64,
    pub(crate) stopping: bool,
}

/// Runs until told to stop.
pub(crate) fn run(core: Core, service: &mut Service) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
    let mut l = Loop {
        replica: core.replica,
        host: core.host,
        signals: core.signals,
        watch: core.watch,
        start: core.start,
        epoll,
        ready: Vec::with_capacity(64),
        watch_buffer: vec![0; WATCH_BYTES],
        next_command: 0,
        changes: core.changes,
        health: Health::default(),
        health_at: Instant::START,
        gathers: false,
        service,
        turns: Turns::default(),
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
    l.host.log.report_all_left_out();
    l.host.log.stopping();
    Ok(())
}

impl Loop<'_> {
    fn register(&self) -> Result<()> {
        let host = &self.host;
        if let Some(events) = &host.events {
            self.add(events, Token::Events)?;
        }
        self.add(&host.dump, Token::Dump)?;
        self.add(&host.writer, Token::Writer)?;
        self.add(&self.signals, Token::Signals)?;
        self.add(&self.watch, Token::Watch)?;
        self.add(&host.clients, Token::Clients)?;
        if let Some(metrics) = &host.metrics {
            self.add(metrics, Token::Metrics)?;
        }
        self.add(&host.links, Token::Links)
    }

    fn add(&self, source: impl AsFd, token: Token) -> Result<()> {
        epoll::add(&self.epoll, source, token.to_data(), EventFlags::IN).context("epoll")
    }

    /// A number for a command that has none yet.
    pub(crate) fn new_command_id(&mut self) -> CommandId {
        self.next_command += 1;
        CommandId(self.next_command)
    }

    pub(crate) fn now(&self) -> Instant {
        let nanos = self.start.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// One turn; returns whether the next should not wait.
    fn turn(&mut self, busy: bool) -> Result<bool> {
        let pause = self.host.pace.pause(self.now());
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
        let has_gathered = self.gathers && self.host.pace.pause(now).is_zero();
        let ready = std::mem::take(&mut self.ready);
        let is_ready = |token| {
            ready
                .iter()
                .any(|e| Token::from_data(e.data) == Some(token))
        };
        if is_ready(Token::Writer) {
            self.host.writer.clear_wake();
        }
        for (n, usable) in self.host.links.go_on(OsInstant::now()) {
            self.replica.handle_link(now, LinkId(n), usable);
        }
        self.host
            .begin_turn(now, has_gathered || is_ready(Token::Events));
        let progress = driver::turn(&mut self.replica, &mut self.host, now);
        let mut more = progress == Progress::More || self.host.has_more();
        if is_ready(Token::Signals) {
            self.read_signals();
        }
        if is_ready(Token::Watch) {
            self.read_watch();
            more = true;
        }
        if is_ready(Token::Clients) && !self.host.is_filling {
            for id in self.host.clients.ready(now) {
                self.serve(id, now);
            }
            more = true;
        }
        self.go_on_with_roles(now);
        self.look_at_gate(now);
        self.export_metrics(now, is_ready(Token::Metrics));
        let others_wait = is_ready(Token::Clients) || is_ready(Token::Links);
        self.ready = ready;
        for session in self.host.clients.all() {
            session.go_on(&self.replica);
        }
        self.host.clients.settle(now);
        self.sample_health(now);
        self.service.feed();
        self.report_status();
        self.log_what_clients_met();
        self.report_links();
        self.report_caches(now);
        self.host.log.report_left_out();
        more |= self.host.clients.want_more();
        self.turns.end(self.now().since(now), more);
        let dump_waits = self.host.dump.is_running() && self.replica.is_dump_congested();
        let filling_waits = self.host.is_filling && self.host.waits_for_dump() && others_wait;
        if dump_waits || filling_waits || self.replica.is_congested() {
            // What waits in the sockets keeps them ready: without a pause the loop
            // would spin, and on one CPU at real-time priority starve the writer.
            thread::sleep(CONGESTED);
        }
        Ok(more)
    }

    /// Lets events gather, or lets them wake the loop.
    fn gather(&mut self, on: bool) -> Result<()> {
        if let Some(events) = &self.host.events
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
        let timeout = Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        self.ready.clear();
        if !self.gathers {
            return self.collect(&timeout);
        }
        // epoll_pwait counts whole milliseconds, and epoll_pwait2 is younger than Linux 5.10.
        let mut whole = [PollFd::new(&self.epoll, PollFlags::IN)];
        match event::poll(&mut whole, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => Ok(()),
            Ok(_) => self.collect(&Timespec::default()),
            Err(e) => Err(e).context("poll"),
        }
    }

    fn collect(&mut self, timeout: &Timespec) -> Result<()> {
        let spare = rustix::buffer::spare_capacity(&mut self.ready);
        match epoll::wait(&self.epoll, spare, Some(timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e).context("epoll"),
        }
    }

    fn time_to_wait(&self) -> Duration {
        let mut wait = Duration::from_secs(1);
        if let Some(at) = self.replica.poll_timeout() {
            wait = wait.min(at.since(self.now()));
        }
        if let Some(left) = self.service.until_feed() {
            wait = wait.min(left);
        }
        let LinkId(current) = self.replica.current_link();
        if let Some(at) = self.host.links.again_at(current) {
            // Nothing can be sent before, so what the replica wants to send can wait.
            wait = at.saturating_duration_since(OsInstant::now());
        }
        if let Some(at) = self.changes.next_due() {
            wait = wait.min(at.since(self.now()));
        }
        if let Some(at) = self.host.clients.next_due() {
            wait = wait.min(at.since(self.now()));
        }
        wait
    }

    /// Notes once a second how things stand.
    fn sample_health(&mut self, now: Instant) {
        if std::mem::take(&mut self.host.has_forgotten_theirs) {
            self.health.forget_theirs();
        }
        if now < self.health_at {
            return;
        }
        self.health_at = now + health::PERIOD;
        sandbox::report_refused(&mut self.host.log);
        let facts = self.facts_of_the_replica();
        self.health.sample(&facts);
        let Theirs::Asked(Some(asked)) = facts.theirs else {
            return;
        };
        // A backup that has asked wants what the peer has: also after a silence.
        if facts.role == Role::Backup && !facts.is_lost && self.health.must_ask_again(asked) {
            let id = self.new_command_id();
            self.replica.handle_command(now, id, Command::RequestResync);
            self.report_events(Cause::Anybody);
        }
    }

    fn read_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::Terminate => self.stopping = true,
                Signal::Hangup => {
                    let host = &mut self.host;
                    self.service.reload(|| {
                        host.log.reopen_after_hangup();
                        if let Some(statistics) = &mut host.statistics
                            && let Err(e) = statistics.reopen()
                        {
                            host.log.error(format!(
                                "the statistics log cannot be opened again: {e}: the lines go \
                                 on into the old one until the next SIGHUP"
                            ));
                        }
                    });
                }
            }
        }
    }

    fn read_watch(&mut self) {
        while self.watch.receive(&mut self.watch_buffer).is_ok() {}
        self.host.links.refresh();
    }

    /// Logs and answers what the core has to report. `cause` is who caused it.
    pub(crate) fn report_events(&mut self, cause: Cause) {
        while let Some(event) = self.replica.poll_event() {
            self.host.report_event(event, cause);
        }
    }

    fn log_what_clients_met(&mut self) {
        for (kind, level, line) in self.host.clients.lines() {
            self.host.log.limited(kind, (level, line));
        }
    }

    fn report_links(&mut self) {
        for line in self.host.links.lines() {
            self.host.log.limited(Kind::Link, line);
        }
    }

    /// Logs once that a cache is full, and once that it has room again. Looks once a second.
    fn report_caches(&mut self, now: Instant) {
        if now < self.caches_at {
            return;
        }
        self.caches_at = now + Duration::from_secs(1);
        let replica = &self.replica;
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
            if let Some(line) = line {
                self.host.log.limited(Kind::Cache, line);
            }
        }
    }
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
            Token::Metrics,
        ];
        for token in all {
            assert_eq!(Token::from_data(token.to_data()), Some(token));
        }
        assert_eq!(Token::from_data(EventData::new_u64(8)), None);
    }
}
