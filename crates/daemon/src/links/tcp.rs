//! A link over TCP: a connection that we write on, and one that we read from.
//!
//! ```text
//!   client:  Idle ──(pause over)──▶ Connecting ──▶ Connected ──(error, closed)──▶ Idle
//!   server:  listener ──▶ next ──(the one before is read to its end)──▶ accepted
//! ```
//!
//! A datagram is taken whole. What the connection did not take of it waits; a connection that
//! is lost loses no part of it: the next one begins with the whole datagram.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use control::reply::Connected;
use sys::udp::{Options, Path};
use wire::v1::Stream;

use super::ready::Ready;
use crate::line::Level;

/// Pause before the first new attempt to connect; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The original's pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// An attempt that takes longer is given up, so that a restarted peer is found soon.
const CONNECTING_MAX: Duration = Duration::from_secs(3);
/// A link that has no connection for this long counts as broken.
const BROKEN_AFTER: Duration = Duration::from_secs(2);
/// How soon a link is looked at again that takes nothing: the loop is also woken when it does.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The connection on which we write.
#[derive(Debug)]
enum Client {
    Idle { again_at: Instant },
    Connecting { stream: TcpStream, since: Instant },
    Connected(TcpStream),
}

/// A connection from which we read.
#[derive(Debug)]
struct Accepted {
    stream: TcpStream,
    from: SocketAddr,
    assembly: Stream,
}

/// A datagram of which the connection has taken `written` bytes.
#[derive(Debug)]
struct Unsent {
    datagram: Vec<u8>,
    written: usize,
}

/// What has happened, for counters and log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Troubles {
    /// Connections that could not be made, or were lost while we wrote.
    pub(crate) sends: u64,
    /// Connections that failed while we read.
    pub(crate) receives: u64,
    /// Connections closed because the boundaries of the messages were lost.
    pub(crate) streams: u64,
}

/// An open link.
#[derive(Debug)]
pub(crate) struct Tcp {
    path: Path,
    options: Options,
    device: String,
    ready: Ready,
    listener: TcpListener,
    accepted: Option<Accepted>,
    next: Option<Accepted>,
    client: Client,
    pause: Duration,
    unsent: Option<Unsent>,
    /// Since when there is no connection on which we write.
    broken_since: Option<Instant>,
    /// That there is none is logged.
    is_logged: bool,
    pub(crate) buffers_granted: bool,
    pub(crate) troubles: Troubles,
    pub(crate) lines: VecDeque<(Level, String)>,
}

impl Tcp {
    /// Listens, and will connect.
    pub(crate) fn open(
        path: &Path,
        options: &Options,
        device: &str,
        ready: &Ready,
        now: Instant,
    ) -> io::Result<Tcp> {
        let (listener, buffers_granted) = sys::tcp::listener(path, options)?;
        ready.add(&listener)?;
        Ok(Tcp {
            path: *path,
            options: *options,
            device: device.to_owned(),
            ready: ready.clone(),
            listener,
            accepted: None,
            next: None,
            client: Client::Idle { again_at: now },
            pause: PAUSE_MIN,
            unsent: None,
            broken_since: Some(now),
            is_logged: false,
            buffers_granted,
            troubles: Troubles::default(),
            lines: VecDeque::new(),
        })
    }

    /// Which connections are there.
    pub(crate) fn connected(&self) -> Connected {
        Connected {
            server: self.accepted.is_some(),
            client: matches!(self.client, Client::Connected(_)),
        }
    }

    /// False if there has been no connection on which we write for a while.
    pub(crate) fn is_usable(&self, now: Instant) -> bool {
        let is_long = |since| now.saturating_duration_since(since) >= BROKEN_AFTER;
        !self.broken_since.is_some_and(is_long)
    }

    /// When to look again whether the link takes a datagram; `None` if it takes one now.
    pub(crate) fn again_at(&self, now: Instant) -> Option<Instant> {
        match &self.client {
            Client::Connected(_) if self.unsent.is_none() => None,
            Client::Idle { again_at } => Some((*again_at).min(now + LOOK_AGAIN)),
            Client::Connecting { .. } | Client::Connected(_) => Some(now + LOOK_AGAIN),
        }
    }

    /// Datagrams that wait.
    pub(crate) fn waiting(&self) -> u64 {
        u64::from(self.unsent.is_some())
    }

    // ---- the connection on which we write ----

    /// Takes a datagram, which is sent now or when the connection takes it.
    pub(crate) fn send(&mut self, datagram: &[u8], now: Instant) {
        debug_assert!(self.unsent.is_none(), "`again_at` is asked first");
        self.unsent = Some(Unsent {
            datagram: datagram.to_vec(),
            written: 0,
        });
        self.write(now);
    }

    /// Takes back the datagram that waits, for another link. A connection that has a part of
    /// it is given up.
    pub(crate) fn take_waiting(&mut self, now: Instant) -> Option<Vec<u8>> {
        let unsent = self.unsent.take()?;
        if unsent.written > 0 {
            self.fail("another link is used", now);
        }
        Some(unsent.datagram)
    }

    /// Accepts, connects, and writes what waits.
    pub(crate) fn go_on(&mut self, mut admits: impl FnMut(SocketAddr, bool) -> bool, now: Instant) {
        while let Ok((stream, from)) = sys::tcp::accept(&self.listener) {
            let is_served = self.accepted.is_some();
            if admits(from, is_served) && self.ready.add(&stream).is_ok() {
                self.next = Some(Accepted {
                    stream,
                    from,
                    assembly: Stream::new(),
                });
            }
        }
        match &self.client {
            Client::Idle { again_at } if *again_at <= now => self.connect(now),
            Client::Idle { .. } => {}
            Client::Connecting { stream, since } => match sys::tcp::is_connected(stream) {
                Ok(true) => self.on_connected(now),
                Ok(false) if now.duration_since(*since) < CONNECTING_MAX => {}
                Ok(false) => self.fail("cannot connect: no answer", now),
                Err(e) => self.fail(&format!("cannot connect: {e}"), now),
            },
            Client::Connected(_) => {
                self.look_for_end(now);
                if self.unsent.is_some() {
                    self.write(now);
                }
            }
        }
    }

    fn connect(&mut self, now: Instant) {
        let begun = sys::tcp::begin_connect(&self.path, &self.options);
        let begun = begun.and_then(|(stream, granted)| {
            self.ready.add(&stream)?;
            self.ready.writes(&stream, true)?;
            self.buffers_granted &= granted;
            Ok(stream)
        });
        match begun {
            Ok(stream) => self.client = Client::Connecting { stream, since: now },
            Err(e) => self.fail(&format!("cannot connect: {e}"), now),
        }
    }

    fn on_connected(&mut self, now: Instant) {
        let idle = Client::Idle { again_at: now };
        let Client::Connecting { stream, .. } = std::mem::replace(&mut self.client, idle) else {
            return;
        };
        if let Err(e) = self.ready.writes(&stream, false) {
            return self.fail(&format!("cannot connect: {e}"), now);
        }
        self.client = Client::Connected(stream);
        self.pause = PAUSE_MIN;
        let broken = self.broken_since.take();
        if std::mem::take(&mut self.is_logged)
            && let Some(since) = broken
        {
            let secs = now.duration_since(since).as_secs_f32();
            let line = format!("link {}: connected, after {secs:.1} s without", self.device);
            self.lines.push_back((Level::Notice, line));
        }
        self.write(now);
    }

    /// The peer never writes here: what can be read is the end.
    fn look_for_end(&mut self, now: Instant) {
        let Client::Connected(stream) = &mut self.client else {
            return;
        };
        match stream.read(&mut [0; 64]) {
            Err(e) if is_pause(&e) => {}
            Err(e) => self.fail(&format!("the connection is lost: {e}"), now),
            Ok(0) => self.fail("the peer has closed the connection", now),
            Ok(_) => self.fail(
                "the peer writes on the connection that it has accepted",
                now,
            ),
        }
    }

    fn write(&mut self, now: Instant) {
        let (Client::Connected(stream), Some(unsent)) = (&mut self.client, &mut self.unsent) else {
            return;
        };
        while unsent.written < unsent.datagram.len() {
            match stream.write(&unsent.datagram[unsent.written..]) {
                Ok(n) => unsent.written += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if let Err(e) = self.ready.writes(&*stream, true) {
                        self.fail(&format!("the connection is lost: {e}"), now);
                    }
                    return;
                }
                Err(e) => return self.fail(&format!("the connection is lost: {e}"), now),
            }
        }
        self.unsent = None;
        if let Err(e) = self.ready.writes(&*stream, false) {
            self.fail(&format!("the connection is lost: {e}"), now);
        }
    }

    /// There is no connection on which we write, or not any more.
    fn fail(&mut self, why: &str, now: Instant) {
        self.troubles.sends += 1;
        self.broken_since.get_or_insert(now);
        if let Some(unsent) = &mut self.unsent {
            unsent.written = 0;
        }
        self.client = Client::Idle {
            again_at: now + self.pause,
        };
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        if !std::mem::replace(&mut self.is_logged, true) {
            let line = format!("link {}: {why}", self.device);
            self.lines.push_back((Level::Warning, line));
        }
    }

    // ---- the connection from which we read ----

    /// Reads whole messages; `None` if there are none now. A connection is read to its end
    /// before the one that follows it.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Option<(&[u8], SocketAddr)> {
        while !self.read(buffer) {
            self.accepted = Some(self.next.take()?);
        }
        let accepted = self.accepted.as_ref()?;
        Some((accepted.assembly.row(), accepted.from))
    }

    /// The whole messages that the last [`Tcp::receive`] has returned.
    pub(crate) fn row(&self) -> &[u8] {
        let accepted = self.accepted.as_ref();
        accepted.map_or(&[], |a| a.assembly.row())
    }

    /// True if there are whole messages. False if there are none now, or never again.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        let Some(accepted) = &mut self.accepted else {
            return false;
        };
        // A wrong header behind the last row.
        let mut pushed = accepted.assembly.push(&[]);
        loop {
            match pushed {
                Ok(true) => return true,
                Ok(false) => {}
                Err(e) => {
                    self.troubles.streams += 1;
                    let line = format!(
                        "link {}: closed the connection of {}: {e}",
                        self.device, accepted.from
                    );
                    self.lines.push_back((Level::Warning, line));
                    self.accepted = None;
                    return false;
                }
            }
            match accepted.stream.read(buffer) {
                Ok(0) => {
                    self.accepted = None;
                    return false;
                }
                Ok(n) => pushed = accepted.assembly.push(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => {
                    self.troubles.receives += 1;
                    self.accepted = None;
                    return false;
                }
            }
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
