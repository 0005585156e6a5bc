//! The dedicated links: their sockets and connections, and the state of their interfaces.
//!
//! A link that cannot be used, or over which nothing can be sent, is logged when that begins
//! and when it ends: [`Links::lines`].

mod link;
mod ready;
mod sources;
pub(crate) mod tcp;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use config::{Sync, Transport};
use replica::{Event, LinkSettings, PeerId};
use sys::interface::Interfaces;
use sys::udp::{Options, Path};

use self::link::{Link, Place};
use self::ready::Ready;
use self::sources::Sources;
use crate::line::{Field, Fields, Level, Line, Occasion};
use crate::wording;

/// Headers of UDP over IPv4 and IPv6; for the latter the original allows 28, too, and relies
/// on fragments.
const ALLOWANCE_UDP: (usize, usize) = (28, 48);
/// The same of TCP.
const ALLOWANCE_TCP: (usize, usize) = (40, 60);
/// The original's `ErrorQueueLength`.
const QUEUE_LENGTH: u32 = 128;
/// How long after the start nothing is logged about interfaces. At boot a carrier is seen
/// seconds after the interface is switched on, in a virtual machine up to one second.
const START_PAUSE: Duration = Duration::from_secs(5);

/// A datagram, or a row of whole messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    /// `None` if nobody known sent it.
    pub(crate) peer: Option<PeerId>,
    length: usize,
}

/// All links in file order.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) list: Vec<Link>,
    /// `ErrorQueueLength`. No more than one datagram waits at a link.
    pub(crate) queue_length: u32,
    interfaces: Interfaces,
    ready: Ready,
    sources: Sources,
    opened: Instant,
    /// Whether each link was usable when the replica was last told.
    told: Vec<bool>,
    /// That no link is usable is logged.
    none_logged: bool,
    lines: Vec<Line>,
    /// The address from which the first peer was last heard.
    pub(crate) peer: Option<IpAddr>,
}

impl Links {
    /// Opens every configured link. One whose own address is not there yet is opened later.
    ///
    /// # Errors
    /// An interface does not exist, or the system refuses a socket.
    pub(crate) fn open(sync: &Sync) -> Result<(Links, Vec<LinkSettings>)> {
        let now = Instant::now();
        let interfaces = Interfaces::open()?;
        let ready = Ready::new().context("epoll")?;
        let mut lines = Vec::new();
        let mut list = Vec::new();
        let mut settings = Vec::new();
        let transport = sync.transport.context("links have a transport")?;
        for config in &sync.links {
            let line = config.line;
            let context = || format!("can't open channel socket: link of line {line}");
            let place = place(sync, config, transport, &interfaces).with_context(context)?;
            settings.push(LinkSettings {
                name: place.device.clone(),
                mtu: interfaces.mtu(&place.device)?,
                allowance: allowance(transport, place.path.to.is_ipv4()),
            });
            let state = interfaces.state(&place.device).ok();
            let mut link = Link::new(place, state, now);
            match link.open(&ready, now) {
                // It is tried again.
                Err(e) if e.kind() == ErrorKind::AddrNotAvailable => {
                    let place = link.place.describe();
                    let device = &link.place.device;
                    let line = format!("link {device}: {place}: {e}: it is tried again");
                    lines.push(line_about(&link, (Level::Warning, line)));
                }
                opened => {
                    opened.with_context(|| format!("{}: {}", context(), link.place.describe()))?
                }
            }
            list.push(link);
        }
        let to = list.iter().map(|link| link.place.path.to);
        let sources = Sources::new(to);
        let links = Links {
            told: vec![true; list.len()],
            list,
            queue_length: sync.error_queue_length.unwrap_or(QUEUE_LENGTH),
            interfaces,
            ready,
            sources,
            opened: now,
            none_logged: false,
            lines,
            peer: None,
        };
        Ok((links, settings))
    }

    /// Of a daemon without a peer.
    pub(crate) fn none() -> Result<Links> {
        Ok(Links {
            told: Vec::new(),
            list: Vec::new(),
            queue_length: QUEUE_LENGTH,
            interfaces: Interfaces::open()?,
            ready: Ready::new().context("epoll")?,
            sources: Sources::new(std::iter::empty()),
            opened: Instant::now(),
            none_logged: false,
            lines: Vec::new(),
            peer: None,
        })
    }

    /// Reads the interfaces again.
    pub(crate) fn refresh(&mut self) {
        let now = Instant::now();
        for link in &mut self.list {
            link.refresh(&self.interfaces, now);
        }
    }

    /// Opens what is not open, accepts and connects. Yields the links that have become usable
    /// or unusable since the last call.
    pub(crate) fn go_on(&mut self, now: Instant) -> Vec<(usize, bool)> {
        for (n, link) in self.list.iter_mut().enumerate() {
            let sources = &mut self.sources;
            let admits = |from: SocketAddr, is_served| sources.admits(n, from.ip(), is_served, now);
            let line = link.go_on(&self.ready, admits, now);
            self.lines.extend(line.map(|line| line_about(link, line)));
            link.note_refusal(now);
        }
        // One that has refused is better than others without a carrier.
        let could_be_used = self.list.iter().filter(|l| l.is_usable(now)).count();
        let is_usable = |l: &Link| l.is_usable(now) && !(could_be_used > 1 && l.refuses());
        let usable: Vec<bool> = self.list.iter().map(is_usable).collect();
        let told = std::mem::replace(&mut self.told, usable.clone());
        let all = usable.into_iter().zip(told).enumerate();
        all.filter(|(_, (is, was))| is != was)
            .map(|(n, (is, _))| (n, is))
            .collect()
    }

    /// What is to be logged about the links since the last call.
    pub(crate) fn lines(&mut self) -> Vec<Line> {
        let now = Instant::now();
        if now.duration_since(self.opened) >= START_PAUSE {
            self.look_at_interfaces(now);
        }
        std::mem::take(&mut self.lines)
    }

    fn look_at_interfaces(&mut self, now: Instant) {
        for link in &mut self.list {
            let line = link.line_about_carrier(now);
            self.lines.extend(line.map(|line| line_about(link, line)));
        }
        let has_carrier = self.list.is_empty() || self.list.iter().any(Link::has_carrier);
        if !has_carrier && !self.none_logged {
            let fields = Fields::of(&Event::NoLink, None);
            let line = wording::of(&Event::NoLink);
            self.lines
                .extend(line.map(|(level, text)| Line::new(level, text, fields)));
        }
        self.none_logged = !has_carrier;
    }

    fn log(&mut self, n: usize, line: Option<(Level, String)>) {
        let line = line.map(|line| line_about(&self.list[n], line));
        self.lines.extend(line);
    }

    /// Sends a datagram over link `n`, or keeps it until the system takes it: what
    /// waits is no more than what changes meanwhile, and nothing is lost here.
    pub(crate) fn send(&mut self, n: usize, datagram: &[u8], now: Instant) {
        // That another link is used now is logged where it is chosen.
        for (_, other) in self.list.iter_mut().enumerate().filter(|(m, _)| *m != n) {
            other.failing = None;
        }
        let line = self.list[n].send(datagram, now);
        self.log(n, line);
    }

    /// When link `n` is looked at again; `None` if it takes a datagram now.
    pub(crate) fn again_at(&self, n: usize) -> Option<Instant> {
        self.list.get(n)?.again_at(Instant::now())
    }

    /// Datagrams that wait at the links.
    pub(crate) fn waiting(&self) -> u64 {
        self.list.iter().map(Link::waiting).sum()
    }

    /// Sends what waits at link `n` and is due, or at a link that is not used any more.
    pub(crate) fn send_waiting(&mut self, n: usize, now: Instant) {
        let line = self.list[n].send_waiting(now);
        self.log(n, line);
        for m in (0..self.list.len()).filter(|m| *m != n) {
            if self.again_at(n).is_none()
                && let Some(datagram) = self.list[m].take_waiting(now)
            {
                self.send(n, &datagram, now);
            }
        }
    }

    /// Receives what has arrived on link `n`; [`Links::arrived`] returns it. What no known source
    /// has sent is counted.
    pub(crate) fn receive(&mut self, n: usize, buffer: &mut [u8]) -> Option<Arrived> {
        let link = &mut self.list[n];
        let (length, from) = link.receive(buffer)?;
        let bytes = link.arrived(length, buffer);
        let peer = self.sources.peer(n, from.ip(), bytes, Instant::now());
        if peer == Some(PeerId::FIRST) {
            self.peer = Some(from.ip());
        }
        Some(Arrived { peer, length })
    }

    /// What the last [`Links::receive`] has brought on link `n`.
    pub(crate) fn arrived<'a>(&'a self, n: usize, arrived: Arrived, buffer: &'a [u8]) -> &'a [u8] {
        self.list[n].arrived(arrived.length, buffer)
    }

    /// Datagrams and connections from sources that nothing explains, and from more peers
    /// than there may be.
    pub(crate) fn sources_dropped(&self) -> (u64, u64) {
        (self.sources.unknown, self.sources.refused)
    }

    /// Connections that were closed because their streams could not be followed.
    pub(crate) fn streams_broken(&self) -> u64 {
        self.list.iter().map(Link::streams_broken).sum()
    }
}

/// Ready when a link has something to receive, or takes again what is to be sent.
impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

/// A line about a link: a warning when trouble begins, otherwise a notice of its end.
fn line_about(link: &Link, (level, text): (Level, String)) -> Line {
    let occasion = match level {
        Level::Notice => Occasion::LinkWorks,
        Level::Warning | Level::Error => Occasion::LinkFailed,
    };
    let fields = Fields::from(occasion).with(Field::Link, link.device());
    Line::new(level, text, fields)
}

fn place(
    sync: &Sync,
    link: &config::Link,
    transport: Transport,
    interfaces: &Interfaces,
) -> Result<Place> {
    let device = link.interface.clone().context("a link has an interface")?;
    let to = link.destination.context("a link has a destination")?;
    let index = interfaces.index(&device);
    let interface = index.with_context(|| format!("interface {device}"))?;
    // A link's address is shared with other daemons if it is a group, as the original
    // does. To share a host's own address would let one daemon take what is sent to
    // the other. Two links of one file may name the same address, or none.
    let same = |l: &&config::Link| (l.address, l.port) == (link.address, link.port);
    let is_named_twice = sync.links.iter().filter(same).count() > 1;
    Ok(Place {
        transport,
        path: Path {
            listen: link.address,
            to,
            port: link.port,
            interface,
            interface_v4: link.interface_address,
        },
        options: Options {
            shared: to.is_multicast() || is_named_twice,
            send_buffer: link.send_buffer,
            receive_buffer: link.receive_buffer,
            checksum: link.checksum,
        },
        device,
    })
}

fn allowance(transport: Transport, is_v4: bool) -> usize {
    let (v4, v6) = match transport {
        Transport::Tcp => ALLOWANCE_TCP,
        Transport::Udp | Transport::Multicast => ALLOWANCE_UDP,
    };
    if is_v4 { v4 } else { v6 }
}

/// The error of a socket that has none is no error.
pub(crate) fn is_would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests;
