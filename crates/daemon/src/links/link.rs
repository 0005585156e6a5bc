//! One link: its socket or connections, its interface, and what is logged about it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use config::Transport;
use control::reply::{Connected, LinkReport};
use sys::interface::{InterfaceState, Interfaces};
use sys::udp::{Options, Path};

use super::is_would_block;
use super::ready::Ready;
use super::tcp::{Tcp, Troubles};
use crate::channel::Channel;
use crate::line::Level;

/// Pause before a datagram is tried again that did not fit into a full socket.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// The same when the link refuses it: no address yet, no carrier, no route.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// A link that fails no more for this long is mended. Refusals may alternate with successes.
const MENDED_AFTER: Duration = Duration::from_secs(1);
/// A link that has refused everything for this long is left if there is another one.
pub(super) const REFUSED_LONG: Duration = Duration::from_secs(2);
/// A link that has refused is not chosen for this long: of several that refuse, each gets its
/// turn before the first one comes again.
pub(super) const REFUSED_REST: Duration = Duration::from_secs(30);
/// Pause before a link is opened again that could not be opened.
const OPEN_PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    bytes: u64,
    packets: u64,
    errors: u64,
}

/// A datagram, and when it is tried again.
#[derive(Debug)]
struct Waiting {
    datagram: Vec<u8>,
    again_at: Instant,
}

/// A link over which the system does not send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failing {
    since: Instant,
    last: Instant,
}

/// Where a link goes, and how.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) transport: Transport,
    pub(super) path: Path,
    pub(super) options: Options,
    pub(super) device: String,
}

impl Place {
    fn open(&self, ready: &Ready, now: Instant) -> io::Result<Channel> {
        let Place { path, options, .. } = self;
        if self.transport == Transport::Tcp {
            let tcp = Tcp::open(path, options, &self.device, ready, now)?;
            return Ok(Channel::Tcp(Box::new(tcp)));
        }
        let pair = sys::udp::open(path, options)?;
        ready.add(&pair.receiver)?;
        Ok(Channel::Udp(pair))
    }

    /// Where it listens, for messages.
    pub(super) fn describe(&self) -> String {
        let path = &self.path;
        let any: IpAddr = if path.to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        format!("{} port {}", path.listen.unwrap_or(any), path.port)
    }
}

/// One link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) place: Place,
    /// `None` while it cannot be opened.
    channel: Option<Channel>,
    open_at: Instant,
    pub(super) state: Option<InterfaceState>,
    /// Since when it is not usable, once that is logged.
    unusable: Option<Instant>,
    pub(super) failing: Option<Failing>,
    /// It has refused for long, and is not tried again before then.
    refused_until: Option<Instant>,
    /// A datagram that the system did not take; nothing else is sent before it.
    waiting: Option<Waiting>,
    sent: Counters,
    received: Counters,
    /// What connections met that are closed.
    troubles: Troubles,
}

impl Link {
    pub(super) fn new(place: Place, state: Option<InterfaceState>, now: Instant) -> Link {
        Link {
            place,
            channel: None,
            open_at: now,
            state,
            unusable: None,
            failing: None,
            refused_until: None,
            waiting: None,
            sent: Counters::default(),
            received: Counters::default(),
            troubles: Troubles::default(),
        }
    }

    // ---- its life ----

    /// Opens the link.
    ///
    /// # Errors
    /// The system's error. It is tried again later.
    pub(super) fn open(&mut self, ready: &Ready, now: Instant) -> io::Result<()> {
        self.open_at = now + OPEN_PAUSE;
        self.channel = Some(self.place.open(ready, now)?);
        Ok(())
    }

    /// Reads the interface again. One that comes back with another number needs new sockets.
    pub(super) fn refresh(&mut self, interfaces: &Interfaces, now: Instant) {
        let device = &self.place.device;
        self.state = interfaces.state(device).ok();
        if let Ok(index) = interfaces.index(device)
            && index != self.place.path.interface
        {
            self.place.path.interface = index;
            if let Some(datagram) = self.take_waiting(now) {
                self.wait(&datagram, now);
            }
            self.note_troubles();
            self.channel = None;
            self.open_at = now;
        }
    }

    /// Opens what is not open, accepts, connects, and writes what waits.
    pub(super) fn go_on(
        &mut self,
        ready: &Ready,
        admits: impl FnMut(SocketAddr, bool) -> bool,
        now: Instant,
    ) -> Option<(Level, String)> {
        if self.channel.is_none() && self.open_at <= now && self.state.is_some() {
            let opened = self.open(ready, now);
            return match opened {
                Ok(()) => self.on_sent(now),
                Err(e) => self.on_refused(&format!("cannot be opened: {e}"), now),
            };
        }
        if let Some(Channel::Tcp(tcp)) = &mut self.channel {
            tcp.go_on(admits, now);
        }
        self.note_troubles()
    }

    fn note_troubles(&mut self) -> Option<(Level, String)> {
        let Some(Channel::Tcp(tcp)) = &mut self.channel else {
            return None;
        };
        let new = std::mem::take(&mut tcp.troubles);
        self.sent.errors += new.sends;
        self.received.errors += new.receives + new.streams;
        self.troubles.streams += new.streams;
        tcp.lines.pop_front()
    }

    /// The interface is switched on and has a carrier, and the link is open. The original
    /// takes one of the first two as enough.
    pub(crate) fn is_usable(&self, now: Instant) -> bool {
        self.has_carrier()
            && match &self.channel {
                Some(Channel::Udp(_)) => true,
                Some(Channel::Tcp(tcp)) => tcp.is_usable(now),
                None => false,
            }
    }

    /// Notes if the system has taken nothing for seconds that was sent over it: a rule of our
    /// own firewall, or no route. Without a carrier lost, nothing else tells.
    pub(super) fn note_refusal(&mut self, now: Instant) {
        let lasts = |f: &Failing| f.last.duration_since(f.since) >= REFUSED_LONG;
        if self.waiting.is_some() && self.failing.as_ref().is_some_and(lasts) {
            self.refused_until = Some(now + REFUSED_REST);
        }
        self.refused_until.take_if(|until| *until <= now);
    }

    /// It has refused lately. Whether it still does is known once something is sent over it.
    pub(super) fn refuses(&self) -> bool {
        self.refused_until.is_some()
    }

    pub(super) fn has_carrier(&self) -> bool {
        self.state.is_some_and(|s| s.up && s.running)
    }

    /// False if a buffer could not be set as large as asked without privileges.
    pub(crate) fn buffers_granted(&self) -> bool {
        self.channel.as_ref().is_none_or(Channel::buffers_granted)
    }

    // ---- sending ----

    /// When the link is looked at again that takes no datagram now.
    pub(super) fn again_at(&self, now: Instant) -> Option<Instant> {
        if let Some(waiting) = &self.waiting {
            return Some(waiting.again_at);
        }
        match &self.channel {
            Some(Channel::Udp(_)) => None,
            Some(Channel::Tcp(tcp)) => tcp.again_at(now),
            None => Some(self.open_at),
        }
    }

    /// Datagrams that wait to be sent.
    pub(super) fn waiting(&self) -> u64 {
        let in_channel = match &self.channel {
            Some(Channel::Tcp(tcp)) => tcp.waiting(),
            Some(Channel::Udp(_)) | None => 0,
        };
        u64::from(self.waiting.is_some()) + in_channel
    }

    /// Takes the datagram back that waits, for another link.
    pub(super) fn take_waiting(&mut self, now: Instant) -> Option<Vec<u8>> {
        let in_channel = match &mut self.channel {
            Some(Channel::Tcp(tcp)) => tcp.take_waiting(now),
            Some(Channel::Udp(_)) | None => None,
        };
        self.waiting.take().map(|w| w.datagram).or(in_channel)
    }

    /// Sends the datagram that waits, if it is due. Yields what is to be logged.
    pub(super) fn send_waiting(&mut self, now: Instant) -> Option<(Level, String)> {
        let waiting = self.waiting.take_if(|w| w.again_at <= now)?;
        self.send(&waiting.datagram, now)
    }

    /// Sends a datagram or lets it wait. Yields what is to be logged.
    pub(super) fn send(&mut self, datagram: &[u8], now: Instant) -> Option<(Level, String)> {
        let Some(channel) = &mut self.channel else {
            self.wait(datagram, self.open_at);
            return None;
        };
        let error = match channel.send(datagram, now) {
            Ok(()) => {
                self.sent.bytes += datagram.len() as u64;
                self.sent.packets += 1;
                self.refused_until = None;
                return self.on_sent(now);
            }
            Err(error) => error,
        };
        if is_would_block(&error) {
            self.wait(datagram, now + FULL_PAUSE);
            return None;
        }
        self.sent.errors += 1;
        // Trying again would not make it smaller.
        if error.raw_os_error() != Some(EMSGSIZE) {
            self.wait(datagram, now + REFUSED_PAUSE);
        }
        // What the system answers when the address is gone to which the socket is bound.
        let own = self.place.path.listen;
        let why = match own.filter(|_| error.raw_os_error() == Some(EINVAL)) {
            Some(own) => format!("cannot send: this host has no address {own} now"),
            None => format!("cannot send: {error}"),
        };
        self.on_refused(&why, now)
    }

    fn wait(&mut self, datagram: &[u8], again_at: Instant) {
        self.waiting = Some(Waiting {
            datagram: datagram.to_vec(),
            again_at,
        });
    }

    fn on_refused(&mut self, why: &str, now: Instant) -> Option<(Level, String)> {
        if let Some(failing) = &mut self.failing {
            failing.last = now;
            return None;
        }
        self.failing = Some(Failing {
            since: now,
            last: now,
        });
        let line = format!("link {}: {why}", self.place.device);
        Some((Level::Warning, line))
    }

    fn on_sent(&mut self, now: Instant) -> Option<(Level, String)> {
        let is_mended = |f: &mut Failing| now.duration_since(f.last) >= MENDED_AFTER;
        let failing = self.failing.take_if(is_mended)?;
        let secs = failing.last.duration_since(failing.since).as_secs_f32();
        let line = format!(
            "link {}: sends again, after {secs:.1} s without",
            self.place.device
        );
        Some((Level::Notice, line))
    }

    // ---- receiving ----

    /// Receives one datagram, or a row of whole messages; `None` if there is none. Yields its
    /// length and who has sent it.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        match self.channel.as_mut()?.receive(buffer) {
            Ok(received) => {
                let (length, from) = received?;
                self.received.bytes += length as u64;
                self.received.packets += 1;
                Some((length, from))
            }
            Err(_) => {
                self.received.errors += 1;
                None
            }
        }
    }

    /// What the last [`Link::receive`] has brought.
    pub(super) fn arrived<'a>(&'a self, length: usize, buffer: &'a [u8]) -> &'a [u8] {
        let channel = self.channel.as_ref();
        channel.map_or(&[], |c| c.arrived(length, buffer))
    }

    // ---- what is shown ----

    /// What is to be logged about the state of the interface.
    pub(super) fn line_about_carrier(&mut self, now: Instant) -> Option<(Level, String)> {
        let name = &self.place.device;
        match (self.has_carrier(), self.unusable) {
            (false, None) => {
                let why = self.state.map_or("the interface is gone", |state| {
                    if state.up { "no carrier" } else { "down" }
                });
                self.unusable = Some(now);
                Some((Level::Warning, format!("link {name}: {why}")))
            }
            (true, Some(since)) => {
                let secs = now.duration_since(since).as_secs_f32();
                self.unusable = None;
                let line = format!("link {name}: usable again after {secs:.1} s");
                Some((Level::Notice, line))
            }
            _ => None,
        }
    }

    /// Connections that were closed because their streams could not be followed.
    pub(super) fn streams_broken(&self) -> u64 {
        self.troubles.streams
    }

    /// Its interface.
    pub(crate) fn device(&self) -> &str {
        &self.place.device
    }

    /// What keeps it from carrying messages, as far as this end can tell.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        match self.state {
            None => Some("the interface is gone"),
            Some(InterfaceState { up: false, .. }) => Some("down"),
            Some(InterfaceState { running: false, .. }) => Some("no carrier"),
            Some(_) if self.failing.is_some() => Some("the system refuses to send"),
            Some(_) => match self.report(false).connected {
                Some(c) if !c.server && !c.client => Some("not connected"),
                _ => None,
            },
        }
    }

    pub(crate) fn report(&self, active: bool) -> LinkReport {
        LinkReport {
            transport: match self.place.transport {
                Transport::Multicast => "multicast",
                Transport::Udp => "UDP",
                Transport::Tcp => "TCP",
            },
            device: self.place.device.clone(),
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
            connected: match &self.channel {
                Some(Channel::Tcp(tcp)) => Some(tcp.connected()),
                None if self.place.transport == Transport::Tcp => Some(Connected::default()),
                _ => None,
            },
            active,
            bytes: (self.sent.bytes, self.received.bytes),
            packets: (self.sent.packets, self.received.packets),
            errors: (self.sent.errors, self.received.errors),
        }
    }
}

#[cfg(test)]
impl Link {
    pub(super) fn set_peers_port(&mut self, port: u16) {
        if let Some(Channel::Udp(pair)) = &mut self.channel {
            pair.to.set_port(port);
        }
    }
}

const EINVAL: i32 = 22;
const EMSGSIZE: i32 = 90;
