//! Sockets of the dedicated links, and the state of their interfaces.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// A datagram that the socket could not take; nothing else is sent before it.
    waiting: Option<Vec<u8>>,
}

/// All links in file order.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) list: Vec<Link>,
    interfaces: Interfaces,
}

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
            let options = Options {
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
                waiting: None,
            });
        }
        Ok((Links { list, interfaces }, settings))
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

/// What sending did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Sent, or lost and counted.
    Yes,
    /// Kept: the socket is full, wait until it can be written.
    Blocked,
}

impl Link {
    /// Switched on and with a carrier. The original takes one of the two as enough.
    pub(crate) fn is_usable(&self) -> bool {
        self.state.is_some_and(|s| s.up && s.running)
    }

    /// True while a datagram waits for room in the socket.
    pub(crate) fn is_blocked(&self) -> bool {
        self.waiting.is_some()
    }

    /// Sends a datagram; keeps it if the socket is full, so that nothing is lost here.
    pub(crate) fn send(&mut self, datagram: &[u8]) -> Sent {
        match self.pair.sender.send_to(datagram, self.pair.to) {
            Ok(n) => {
                self.sent.bytes += n as u64;
                self.sent.packets += 1;
                Sent::Yes
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.waiting = Some(datagram.to_vec());
                Sent::Blocked
            }
            Err(_) => {
                self.sent.errors += 1;
                Sent::Yes
            }
        }
    }

    /// The socket can be written again.
    pub(crate) fn retry(&mut self) -> Sent {
        match self.waiting.take() {
            Some(datagram) => self.send(&datagram),
            None => Sent::Yes,
        }
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
