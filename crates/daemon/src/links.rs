//! Sockets of the dedicated links, and the state of their interfaces.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use config::{Sync, Transport};
use control::reply::LinkReport;
use replica::LinkSettings;
use sys::interface::{InterfaceState, Interfaces};
use sys::udp::{Options, Pair, Path};

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
    pub(crate) pair: Pair,
    device: String,
    transport: &'static str,
    state: Option<InterfaceState>,
    sent: Counters,
    received: Counters,
}

/// All links in file order.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) list: Vec<Link>,
    interfaces: Interfaces,
    /// A datagram that the system did not take; nothing else is sent before it.
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    datagram: Vec<u8>,
    again_at: Instant,
}

/// Pause before a datagram is tried again that did not fit into a full socket.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// The same when the link refuses it: no address yet, no carrier, no route.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

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
            let pair = sys::udp::open(&path, &options)
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
            list.push(Link {
                pair,
                state: interfaces.state(&device).ok(),
                device,
                transport: match sync.transport {
                    Some(Transport::Multicast) => "multicast",
                    _ => "UDP",
                },
                sent: Counters::default(),
                received: Counters::default(),
            });
        }
        let links = Links {
            list,
            interfaces,
            waiting: None,
        };
        Ok((links, settings))
    }

    /// Reads the interfaces again; yields each link with whether it is usable.
    pub(crate) fn refresh(&mut self) -> Vec<bool> {
        for link in &mut self.list {
            link.state = self.interfaces.state(&link.device).ok();
        }
        self.list.iter().map(Link::is_usable).collect()
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
    ///
    /// # Errors
    /// Why the system refused it, for the log.
    pub(crate) fn send(&mut self, n: usize, datagram: &[u8]) -> io::Result<()> {
        let link = &mut self.list[n];
        let error = match link.pair.sender.send_to(datagram, link.pair.to) {
            Ok(bytes) => {
                link.sent.bytes += bytes as u64;
                link.sent.packets += 1;
                return Ok(());
            }
            Err(error) => error,
        };
        let full = is_would_block(&error);
        if !full {
            link.sent.errors += 1;
        }
        // Trying again would not make it smaller.
        if error.raw_os_error() != Some(EMSGSIZE) {
            let pause = if full { FULL_PAUSE } else { REFUSED_PAUSE };
            self.waiting = Some(Waiting {
                datagram: datagram.to_vec(),
                again_at: Instant::now() + pause,
            });
        }
        if full { Ok(()) } else { Err(error) }
    }

    /// When the datagram that waits is due; `None` if none waits.
    pub(crate) fn again_at(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|w| w.again_at)
    }

    /// Tries the datagram that waits, over link `n`, if it is due.
    pub(crate) fn send_waiting(&mut self, n: usize) -> io::Result<()> {
        match self.waiting.take_if(|w| w.again_at <= Instant::now()) {
            Some(waiting) => self.send(n, &waiting.datagram),
            None => Ok(()),
        }
    }
}

const EMSGSIZE: i32 = 90;

impl Link {
    /// Switched on and with a carrier. The original takes one of the two as enough.
    pub(crate) fn is_usable(&self) -> bool {
        self.state.is_some_and(|s| s.up && s.running)
    }

    /// Receives one datagram; `None` if there is none.
    pub(crate) fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        match self.pair.receiver.recv(buffer) {
            Ok(n) => {
                self.received.bytes += n as u64;
                self.received.packets += 1;
                Some(&buffer[..n])
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
            transport: self.transport,
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
