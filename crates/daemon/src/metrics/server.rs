//! The HTTP server: a few clients at a time, none of whom is waited for.
//!
//! A client that is slow loses its place to one that comes later, so that silent clients keep
//! nobody out. What strangers can cause is bounded: [`CLIENTS_MAX`] clients, each for a few
//! seconds, with a short request and one page; and [`ACCEPTS_PER_SECOND`] new ones.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use control::metrics::Format;
use replica::Instant;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use sys::tcp;
use sys::udp::{Options, Path};

use super::Counted;
use super::http::{self, Asked, REQUEST_MAX};
use crate::line::Level;
use crate::log::Log;

/// Clients at a time.
const CLIENTS_MAX: usize = 16;
/// Clients that may wait to be accepted.
const BACKLOG: i32 = 64;
/// Clients accepted in one turn.
const ACCEPTS_PER_TURN: usize = 8;
/// Clients accepted in one second; the others wait in the socket's backlog.
const ACCEPTS_PER_SECOND: usize = 100;
/// How long a client may take for its request, for reading the page, and to close.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
const PAGE_LIMIT: Duration = Duration::from_secs(10);
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// What a client may send after its request.
const REST_MAX: usize = 64 << 10;
/// How long until an address that cannot be listened on is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long nobody is accepted after that has failed: the socket stays ready.
const PAUSE: Duration = Duration::from_millis(100);
/// What epoll calls the listening socket; clients are numbered from 1.
const DOOR: u64 = 0;

/// Names a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ScraperId(u64);

/// The server and everybody who is connected to it.
#[derive(Debug)]
pub(super) struct Server {
    epoll: OwnedFd,
    /// `None` if there is only a file.
    address: Option<SocketAddr>,
    /// `None` while the address cannot be listened on.
    listener: Option<TcpListener>,
    retry_at: Instant,
    /// In the order in which they came.
    clients: BTreeMap<ScraperId, Client>,
    last: ScraperId,
    /// When the present second began, and clients accepted in it.
    second: (Instant, usize),
    paused_until: Option<Instant>,
    pub(super) counted: Counted,
    pub(super) lines: Vec<(Level, String)>,
}

/// What a client does.
#[derive(Debug)]
enum State {
    /// It sends its request.
    Asking(Vec<u8>),
    /// It is given its page this turn.
    Waiting,
    /// It reads its answer, from this byte on.
    Reading(Vec<u8>, usize),
    /// It has its answer. What it still sends is thrown away: if the socket were closed before,
    /// the client could lose the answer. So many bytes have been thrown away.
    Leaving(usize),
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    state: State,
    until: Instant,
}

/// What is to become of a client.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Stays,
    IsGone,
    Wants(Format),
    IsRefused,
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Server {
    pub(super) fn new(address: Option<SocketAddr>, log: &mut Log) -> Result<Server> {
        let mut server = Server {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?,
            address,
            listener: None,
            retry_at: Instant::START + RETRY,
            clients: BTreeMap::new(),
            last: ScraperId(DOOR),
            second: (Instant::START, 0),
            paused_until: None,
            counted: Counted::default(),
            lines: Vec::new(),
        };
        if let Some(address) = address {
            match server.listen(address) {
                Ok(()) => log.notice(format!("metrics: served at http://{address}/metrics")),
                Err(e) => log.warning(format!(
                    "metrics: cannot listen on {address}: {e}: it is tried again"
                )),
            }
        }
        Ok(server)
    }

    fn listen(&mut self, address: SocketAddr) -> io::Result<()> {
        let path = Path {
            listen: Some(address.ip()),
            to: address.ip(),
            port: address.port(),
            interface: 0,
            interface_v4: None,
        };
        let (listener, _) = tcp::listener(&path, &Options::default())?;
        // A link's backlog is for one peer.
        rustix::net::listen(&listener, BACKLOG)?;
        epoll::add(
            &self.epoll,
            &listener,
            EventData::new_u64(DOOR),
            EventFlags::IN,
        )?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Accepts, reads and writes. Yields who is to be given the page.
    pub(super) fn ready(&mut self, now: Instant) -> Vec<(ScraperId, Format)> {
        let mut list: Vec<epoll::Event> = Vec::with_capacity(CLIENTS_MAX + 1);
        let spare = rustix::buffer::spare_capacity(&mut list);
        // Nothing is lost by an error: what is ready stays so.
        let _ = epoll::wait(&self.epoll, spare, Some(&Timespec::default()));
        let mut asked = Vec::new();
        for event in &list {
            let id = ScraperId(event.data.u64());
            if id.0 == DOOR {
                self.accept(now);
                continue;
            }
            let Some(client) = self.clients.get_mut(&id) else {
                continue;
            };
            if matches!(client.state, State::Reading(..)) {
                self.write(id, now);
                continue;
            }
            match client.read(now) {
                Next::Stays => {}
                Next::Wants(format) => asked.push((id, format)),
                Next::IsRefused => {
                    self.counted.refused += 1;
                    self.write(id, now);
                }
                Next::IsGone => drop(self.clients.remove(&id)),
            }
        }
        asked
    }

    /// Gives a client the page.
    pub(super) fn answer(&mut self, id: ScraperId, format: Format, page: &str, now: Instant) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.begin_answer(http::page(format, page), now);
            self.counted.scrapes += 1;
            self.write(id, now);
        }
    }

    /// Closes clients whose time is over, listens again where that is due.
    pub(super) fn settle(&mut self, now: Instant) {
        let is_late = |c: &Client| c.until <= now;
        let late = self.clients.values().filter(|c| is_late(c));
        // Who has its answer and does not close has lost nothing.
        let dropped = late
            .filter(|c| !matches!(c.state, State::Leaving(_)))
            .count();
        self.counted.dropped += dropped as u64;
        self.clients.retain(|_, c| !is_late(c));
        if self.paused_until.take_if(|until| *until <= now).is_some() {
            self.hear(true);
        }
        if let Some(address) = self.address.filter(|_| self.listener.is_none())
            && self.retry_at <= now
        {
            self.retry_at = now + RETRY;
            if self.listen(address).is_ok() {
                let line = format!("metrics: served at http://{address}/metrics");
                self.lines.push((Level::Notice, line));
            }
        }
    }

    // ---- who comes ----

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.listener else {
                return;
            };
            if now.since(self.second.0) >= Duration::from_secs(1) {
                self.second = (now, 0);
            }
            if self.second.1 >= ACCEPTS_PER_SECOND {
                return self.pause(self.second.0 + Duration::from_secs(1));
            }
            let accepted = listener.accept();
            let accepted = accepted.and_then(|(s, _)| s.set_nonblocking(true).map(|()| s));
            let stream = match accepted {
                Ok(stream) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // It may have gone already; or no descriptor is left.
                Err(_) => return self.pause(now + PAUSE),
            };
            self.second.1 += 1;
            self.welcome(stream, now);
        }
    }

    fn welcome(&mut self, stream: TcpStream, now: Instant) {
        if self.clients.len() >= CLIENTS_MAX {
            self.clients.pop_first();
            self.counted.dropped += 1;
        }
        self.last = ScraperId(self.last.0 + 1);
        let data = EventData::new_u64(self.last.0);
        if epoll::add(&self.epoll, &stream, data, EventFlags::IN).is_ok() {
            let client = Client {
                stream,
                state: State::Asking(Vec::new()),
                until: now + REQUEST_LIMIT,
            };
            self.clients.insert(self.last, client);
        }
    }

    fn pause(&mut self, until: Instant) {
        self.paused_until = Some(until);
        self.hear(false);
    }

    /// Watches the listening socket, or does not.
    fn hear(&self, on: bool) {
        if let Some(listener) = &self.listener {
            let flags = if on {
                EventFlags::IN
            } else {
                EventFlags::empty()
            };
            let _ = epoll::modify(&self.epoll, listener, EventData::new_u64(DOOR), flags);
        }
    }

    /// Writes what the client takes, and watches it for what comes next.
    fn write(&mut self, id: ScraperId, now: Instant) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let is_there = client.write(now) != Next::IsGone;
        let flags = match client.state {
            State::Reading(..) => EventFlags::OUT,
            _ => EventFlags::IN,
        };
        let data = EventData::new_u64(id.0);
        if !is_there || epoll::modify(&self.epoll, &client.stream, data, flags).is_err() {
            self.clients.remove(&id);
        }
    }
}

impl Client {
    fn begin_answer(&mut self, answer: Vec<u8>, now: Instant) {
        self.state = State::Reading(answer, 0);
        self.until = now + PAGE_LIMIT;
    }

    /// Reads on.
    fn read(&mut self, now: Instant) -> Next {
        let mut buffer = [0; 2048];
        let read = match self.stream.read(&mut buffer) {
            Ok(0) => return Next::IsGone,
            Ok(n) => &buffer[..n],
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Next::Stays,
            Err(_) => return Next::IsGone,
        };
        let request = match &mut self.state {
            State::Asking(request) => request,
            State::Leaving(rest) if *rest < REST_MAX => {
                *rest += read.len();
                return Next::Stays;
            }
            _ => return Next::IsGone,
        };
        request.extend_from_slice(read);
        request.truncate(REQUEST_MAX);
        match http::asked(request) {
            Asked::Nothing => Next::Stays,
            Asked::Page(format) => {
                self.state = State::Waiting;
                Next::Wants(format)
            }
            Asked::Refused(status, text) => {
                self.begin_answer(http::refusal(status, text), now);
                Next::IsRefused
            }
        }
    }

    /// Writes as much as the client takes; then it may close.
    fn write(&mut self, now: Instant) -> Next {
        let State::Reading(answer, from) = &mut self.state else {
            return Next::Stays;
        };
        while *from < answer.len() {
            match self.stream.write(&answer[*from..]) {
                Ok(0) => return Next::IsGone,
                Ok(n) => *from += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Next::Stays,
                Err(_) => return Next::IsGone,
            }
        }
        self.state = State::Leaving(0);
        self.until = now + CLOSE_LIMIT;
        match self.stream.shutdown(Shutdown::Write) {
            Ok(()) => Next::Stays,
            Err(_) => Next::IsGone,
        }
    }
}

#[cfg(test)]
mod tests;
