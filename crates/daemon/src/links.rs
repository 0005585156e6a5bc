//! Sockets of the dedicated links, and the state of their interfaces.
//!
//! A link that cannot be used, or over which nothing can be sent, is logged when that begins
//! and when it ends: [`Links::lines`].

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use config::Sync;
use control::reply::LinkReport;
use replica::{Event, LinkSettings};
use sys::interface::{InterfaceState, Interfaces};
use sys::udp::{Options, Path};

use crate::channel::Channel;
use crate::log::Level;
use crate::wording;

/// IPv6 header and UDP header; the original allows 28 and relies on fragments.
const ALLOWANCE_V6: usize = 48;
const ALLOWANCE_V4: usize = 28;

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    bytes: u64,
    packets: u64,
    errors: u64,
}

/// One link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) channel: Channel,
    device: String,
    state: Option<InterfaceState>,
    /// Since when it is not usable, once that is logged.
    unusable: Option<Instant>,
    failing: Option<Failing>,
    /// A datagram that the system did not take; nothing else is sent before it.
    waiting: Option<Waiting>,
    sent: Counters,
    received: Counters,
}

/// A link over which the system does not send.
#[derive(Clone, Copy, Debug)]
struct Failing {
    since: Instant,
    last: Instant,
}

/// All links in file order.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) list: Vec<Link>,
    interfaces: Interfaces,
    opened: Instant,
    /// That no link is usable is logged.
    none_logged: bool,
    lines: Vec<(Level, String)>,
}

/// A datagram, and when it is tried again.
#[derive(Debug)]
struct Waiting {
    datagram: Vec<u8>,
    again_at: Instant,
}

/// Pause before a datagram is tried again that did not fit into a full socket.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// The same when the link refuses it: no address yet, no carrier, no route.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// A link that fails no more for this long is mended. Refusals may alternate with successes.
const MENDED_AFTER: Duration = Duration::from_secs(1);
/// How long after the start nothing is logged about interfaces. At boot a carrier is seen
/// seconds after the interface is switched on, in a virtual machine up to one second.
const START_PAUSE: Duration = Duration::from_secs(5);

impl Links {
    /// Opens the sockets of every configured link.
    pub(crate) fn open(sync: &Sync) -> Result<(Links, Vec<LinkSettings>)> {
        let interfaces = Interfaces::open()?;
        let mut list = Vec::new();
        let mut settings = Vec::new();
        for link in &sync.links {
            let device = link.interface.clone().context("a link has an interface")?;
            let to = link.destination.context("a link has a destination")?;
            let place = || format!("can't open channel socket: link of line {}", link.line);
            let path = Path {
                listen: link.address,
                to,
                port: link.port,
                interface: interfaces
                    .index(&device)
                    .with_context(|| format!("{}: interface {device}", place()))?,
                interface_v4: link.interface_address,
            };
            // A link's address is shared with other daemons if it is a group, as the original
            // does. To share a host's own address would let one daemon take what is sent to
            // the other. Two links of one file may name the same address, or none.
            let same = |l: &&config::Link| (l.address, l.port) == (link.address, link.port);
            let is_named_twice = sync.links.iter().filter(same).count() > 1;
            let options = Options {
                shared: to.is_multicast() || is_named_twice,
                send_buffer: link.send_buffer,
                receive_buffer: link.receive_buffer,
                checksum: link.checksum,
            };
            let channel = Channel::open_udp(&path, &options)
                .with_context(|| format!("{}: {}", place(), describe(&path)))?;
            settings.push(LinkSettings {
                name: device.clone(),
                mtu: interfaces.mtu(&device)?,
                allowance: if to.is_ipv4() {
                    ALLOWANCE_V4
                } else {
                    ALLOWANCE_V6
                },
            });
            let state = interfaces.state(&device).ok();
            list.push(Link::new(channel, device, state));
        }
        let links = Links {
            list,
            interfaces,
            opened: Instant::now(),
            none_logged: false,
            lines: Vec::new(),
        };
        Ok((links, settings))
    }

    /// Of a daemon without a peer.
    pub(crate) fn none() -> Result<Links> {
        Ok(Links {
            list: Vec::new(),
            interfaces: Interfaces::open()?,
            opened: Instant::now(),
            none_logged: false,
            lines: Vec::new(),
        })
    }

    /// Reads the interfaces again; yields each link with whether it is usable.
    pub(crate) fn refresh(&mut self) -> Vec<bool> {
        for link in &mut self.list {
            link.state = self.interfaces.state(&link.device).ok();
        }
        self.list.iter().map(Link::is_usable).collect()
    }

    /// What is to be logged about the links since the last call.
    pub(crate) fn lines(&mut self) -> Vec<(Level, String)> {
        let now = Instant::now();
        if now.duration_since(self.opened) >= START_PAUSE {
            self.look_at_interfaces(now);
        }
        std::mem::take(&mut self.lines)
    }

    fn look_at_interfaces(&mut self, now: Instant) {
        for link in &mut self.list {
            let name = &link.device;
            match (link.is_usable(), link.unusable) {
                (false, None) => {
                    let why = link.state.map_or("the interface is gone", |state| {
                        if state.up { "no carrier" } else { "down" }
                    });
                    let line = format!("link {name}: {why}");
                    self.lines.push((Level::Warning, line));
                    link.unusable = Some(now);
                }
                (true, Some(since)) => {
                    let secs = now.duration_since(since).as_secs_f32();
                    let line = format!("link {name}: usable again after {secs:.1} s");
                    self.lines.push((Level::Notice, line));
                    link.unusable = None;
                }
                _ => {}
            }
        }
        let is_usable = self.list.is_empty() || self.list.iter().any(Link::is_usable);
        if !is_usable && !self.none_logged {
            self.lines.extend(wording::of(&Event::NoLink));
        }
        self.none_logged = !is_usable;
    }
}

fn describe(path: &Path) -> String {
    let any: IpAddr = if path.to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    format!("{} port {}", path.listen.unwrap_or(any), path.port)
}

impl Links {
    /// Sends a datagram over link `n`, or keeps it until the system takes it: what
    /// waits is no more than what changes meanwhile, and nothing is lost here.
    pub(crate) fn send(&mut self, n: usize, datagram: &[u8], now: Instant) {
        // That another link is used now is logged where it is chosen.
        for (_, other) in self.list.iter_mut().enumerate().filter(|(m, _)| *m != n) {
            other.failing = None;
        }
        let line = self.list[n].send(datagram, now);
        self.lines.extend(line);
    }

    /// When the datagram that waits at link `n` is due; `None` if none waits.
    pub(crate) fn again_at(&self, n: usize) -> Option<Instant> {
        let waiting = self.list.get(n)?.waiting.as_ref();
        waiting.map(|w| w.again_at)
    }

    /// Sends what waits at link `n` and is due, or at a link that is not used any more.
    pub(crate) fn send_waiting(&mut self, n: usize, now: Instant) {
        for m in 0..self.list.len() {
            let is_due = |w: &mut Waiting| w.again_at <= now || m != n;
            if self.again_at(n).is_some() && m != n {
                continue;
            }
            if let Some(waiting) = self.list[m].waiting.take_if(is_due) {
                self.send(n, &waiting.datagram, now);
            }
        }
    }
}

const EMSGSIZE: i32 = 90;

impl Link {
    fn new(channel: Channel, device: String, state: Option<InterfaceState>) -> Link {
        Link {
            channel,
            device,
            state,
            unusable: None,
            failing: None,
            waiting: None,
            sent: Counters::default(),
            received: Counters::default(),
        }
    }

    /// Sends a datagram or lets it wait. Yields what is to be logged.
    fn send(&mut self, datagram: &[u8], now: Instant) -> Option<(Level, String)> {
        let error = match self.channel.send(datagram) {
            Ok(bytes) => {
                self.sent.bytes += bytes as u64;
                self.sent.packets += 1;
                return self.on_sent(now);
            }
            Err(error) => error,
        };
        // Trying again would not make it smaller.
        let is_too_long = error.raw_os_error() == Some(EMSGSIZE);
        let (pause, line) = if is_would_block(&error) {
            (FULL_PAUSE, None)
        } else {
            self.sent.errors += 1;
            (REFUSED_PAUSE, self.on_refused(&error, now))
        };
        if !is_too_long {
            self.waiting = Some(Waiting {
                datagram: datagram.to_vec(),
                again_at: now + pause,
            });
        }
        line
    }

    /// Switched on and with a carrier. The original takes one of the two as enough.
    pub(crate) fn is_usable(&self) -> bool {
        self.state.is_some_and(|s| s.up && s.running)
    }

    fn on_refused(&mut self, error: &io::Error, now: Instant) -> Option<(Level, String)> {
        if let Some(failing) = &mut self.failing {
            failing.last = now;
            return None;
        }
        self.failing = Some(Failing {
            since: now,
            last: now,
        });
        let line = format!("link {}: cannot send: {error}", self.device);
        Some((Level::Warning, line))
    }

    fn on_sent(&mut self, now: Instant) -> Option<(Level, String)> {
        let is_mended = |f: &mut Failing| now.duration_since(f.last) >= MENDED_AFTER;
        let failing = self.failing.take_if(is_mended)?;
        let secs = failing.last.duration_since(failing.since).as_secs_f32();
        let line = format!(
            "link {}: sends again, after {secs:.1} s without",
            self.device
        );
        Some((Level::Notice, line))
    }

    /// Receives one datagram; yields its length, `None` if there is none.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match self.channel.receive(buffer) {
            Ok(n) => {
                self.received.bytes += n as u64;
                self.received.packets += 1;
                Some(n)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => None,
            Err(_) => {
                self.received.errors += 1;
                None
            }
        }
    }

    pub(crate) fn report(&self, active: bool) -> LinkReport {
        LinkReport {
            transport: self.channel.transport(),
            device: self.device.clone(),
            status: match self.state {
                Some(InterfaceState { up: true, running }) => {
                    if running {
                        "RUNNING"
                    } else {
                        "NO-CARRIER"
                    }
                }
                _ => "DOWN",
            },
            active,
            bytes: (self.sent.bytes, self.received.bytes),
            packets: (self.sent.packets, self.received.packets),
            errors: (self.sent.errors, self.received.errors),
        }
    }
}

/// The error of a socket that has none is no error.
pub(crate) fn is_would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// A link to a socket of this host, or one that sends nothing.
    fn link(to: &UdpSocket, refuses: bool) -> Link {
        let to = to.local_addr().unwrap();
        let path = Path {
            listen: Some(Ipv4Addr::LOCALHOST.into()),
            // The system refuses to send to a broadcast address unless it is told to.
            to: if refuses {
                Ipv4Addr::BROADCAST.into()
            } else {
                to.ip()
            },
            port: 0,
            interface: 0,
            interface_v4: None,
        };
        let mut channel = Channel::open_udp(&path, &Options::default()).unwrap();
        let Channel::Udp(pair) = &mut channel;
        pair.to.set_port(to.port());
        Link::new(channel, "eth0".to_owned(), None)
    }

    fn links(list: Vec<Link>) -> Links {
        Links {
            list,
            interfaces: Interfaces::open().unwrap(),
            opened: Instant::now(),
            none_logged: false,
            lines: Vec::new(),
        }
    }

    fn received(peer: &UdpSocket) -> Vec<u8> {
        let mut buffer = [0; 16];
        let n = peer.recv(&mut buffer).unwrap();
        buffer[..n].to_vec()
    }

    #[test]
    fn what_a_link_refuses_waits_there_and_goes_first_when_another_link_is_used() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut links = links(vec![link(&peer, true), link(&peer, false)]);
        let now = Instant::now();
        links.send(0, b"first", now);
        assert_eq!(links.again_at(0), Some(now + REFUSED_PAUSE));
        assert_eq!(links.again_at(1), None);
        // It is refused again, and counted; only the first time is logged.
        links.send_waiting(0, now);
        links.send_waiting(0, now + REFUSED_PAUSE);
        assert_eq!(links.list[0].sent.errors, 2);
        assert_eq!(links.lines.len(), 1, "{:?}", links.lines);
        links.send_waiting(1, now + REFUSED_PAUSE);
        links.send(1, b"second", now + REFUSED_PAUSE);
        assert_eq!((links.again_at(0), links.again_at(1)), (None, None));
        assert_eq!(
            (received(&peer), received(&peer)),
            (b"first".into(), b"second".into())
        );
        assert_eq!(links.list[1].sent.packets, 2);
    }

    #[test]
    fn a_datagram_that_is_too_long_does_not_wait() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut links = links(vec![link(&peer, false)]);
        links.send(0, &[0; 70_000], Instant::now());
        assert_eq!(links.again_at(0), None);
        assert_eq!(links.list[0].sent.errors, 1);
    }
}
