//! A relay between the two daemons that loses, doubles, delays and reorders datagrams.
//!
//! Each daemon sends to an address on its own firewall, where the relay listens; the
//! relay passes the payload on inside the other firewall. So faults are those of a
//! link, chosen by a seed, and every message can be counted.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use wire::v1::{MessageType, Trailer, messages};

use crate::topology::Lab;

/// Port of the daemons and of the relay.
pub const PORT: u16 = 3780;

/// What goes wrong, each with a probability from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A datagram is lost.
    pub loss: f64,
    /// It comes twice.
    pub duplicate: f64,
    /// It is late by up to `late_max`, and so out of order.
    pub late: f64,
    /// See `late`.
    pub late_max: Duration,
    /// Nothing passes in the direction from FW1, from FW2.
    pub cut: [bool; 2],
}

/// What has passed in one direction, as it was sent.
#[derive(Debug, Default)]
pub struct Passed {
    /// Datagrams.
    pub datagrams: AtomicU64,
    /// Bytes of payload.
    pub bytes: AtomicU64,
    /// State messages.
    pub states: AtomicU64,
    /// ALIVE with a trailer.
    pub trailers: AtomicU64,
    /// Datagrams lost.
    pub lost: AtomicU64,
    /// Messages whose numbers, as the receiver sees them, have begun at 0 again.
    pub wrapped: AtomicU64,
}

/// A running relay.
#[derive(Clone, Debug)]
pub struct Relay {
    faults: Arc<Mutex<Faults>>,
    /// What is added to the numbers of FW1's messages; `None` until the first one shows them.
    shift: Arc<Mutex<Option<u32>>>,
    /// By direction: from FW1, from FW2.
    pub passed: [Arc<Passed>; 2],
}

/// The address to which the daemon of firewall `n` (0 or 1) sends when relayed.
pub fn address(n: usize) -> String {
    format!("10.77.9.10{}", n + 1)
}

impl Relay {
    /// Starts it without faults; it runs until the process ends.
    pub fn start(lab: &Lab, seed: u64) -> Result<Relay> {
        let relay = Relay {
            faults: Arc::default(),
            shift: Arc::new(Mutex::new(Some(0))),
            passed: [Arc::default(), Arc::default()],
        };
        for (n, fw) in lab.fw.iter().enumerate() {
            fw.run(&format!("ip addr add {}/32 dev eth2", address(n)))?;
        }
        for from in 0..2 {
            let own: SocketAddr = format!("{}:{PORT}", address(from)).parse()?;
            let input = lab.fw[from].inside(move || UdpSocket::bind(own))??;
            // The other daemon sends to this address, and so knows its peer by it.
            let answers_to = format!("{}:0", address(1 - from));
            let output = lab.fw[1 - from].inside(move || UdpSocket::bind(answers_to))??;
            let direction = Direction {
                from,
                input,
                output,
                to: format!("10.77.9.{}:{PORT}", 2 - from).parse()?,
                faults: Arc::clone(&relay.faults),
                shift: Arc::clone(&relay.shift),
                passed: Arc::clone(&relay.passed[from]),
                random: fastrand::Rng::with_seed(2 * seed + from as u64),
            };
            thread::spawn(move || {
                if let Err(e) = direction.run() {
                    eprintln!("the relay from FW{} has ended: {e:#}", from + 1);
                }
            });
        }
        Ok(relay)
    }

    /// FW1's sequence numbers, as FW2 sees them, begin 40 before the wrap. To be called
    /// before FW1's daemon is started.
    pub fn wrap_soon(&self) {
        *self.shift.lock().expect("no thread panics with it") = None;
    }

    /// What goes wrong from now on.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().expect("no thread panics with it") = faults;
    }
}

/// A relay of TCP links that passes the streams on in pieces of one to seven bytes. It runs
/// until the process ends.
pub fn in_pieces(lab: &Lab) -> Result<()> {
    for (n, fw) in lab.fw.iter().enumerate() {
        fw.run(&format!("ip addr add {}/32 dev eth2", address(n)))?;
    }
    for from in 0..2 {
        let own = format!("{}:{PORT}", address(from));
        let listener = lab.fw[from].inside(move || TcpListener::bind(own))??;
        let source: SocketAddr = format!("{}:0", address(1 - from)).parse()?;
        let to: SocketAddr = format!("10.77.9.{}:{PORT}", 2 - from).parse()?;
        lab.fw[1 - from].thread(move || {
            // A daemon that is not there yet is tried again by the other one.
            for input in listener.incoming().flatten() {
                if let Ok(output) = connect(source, to) {
                    thread::spawn(move || pass_in_pieces(input, output));
                }
            }
        })?;
    }
    Ok(())
}

/// A connection from an address of one's own.
///
/// # Errors
/// The system's error.
pub fn connect(from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let flags = SocketFlags::CLOEXEC;
    let fd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&fd, &from)?;
    connect(&fd, &to)?;
    Ok(TcpStream::from(fd))
}

fn pass_in_pieces(mut input: TcpStream, mut output: TcpStream) -> std::io::Result<()> {
    // Each piece is a segment of its own.
    output.set_nodelay(true)?;
    let mut random = fastrand::Rng::with_seed(7);
    loop {
        let mut piece = [0; 7];
        let n = input.read(&mut piece[..random.usize(1..=7)])?;
        if n == 0 {
            return Ok(());
        }
        output.write_all(&piece[..n])?;
    }
}

/// One direction.
struct Direction {
    from: usize,
    input: UdpSocket,
    output: UdpSocket,
    to: SocketAddr,
    faults: Arc<Mutex<Faults>>,
    shift: Arc<Mutex<Option<u32>>>,
    passed: Arc<Passed>,
    random: fastrand::Rng,
}

impl Direction {
    fn run(mut self) -> Result<()> {
        let mut buffer = vec![0; 65_536];
        // By the time when they are due, and the order in which they came.
        let mut waiting: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
        let mut number = 0;
        loop {
            let now = Instant::now();
            while let Some(entry) = waiting.first_entry() {
                if entry.key().0 > now {
                    break;
                }
                self.send(&entry.remove());
            }
            let next = waiting.first_key_value().map(|((at, _), _)| *at);
            let wait = next.map_or(Duration::from_secs(1), |at| at.duration_since(now));
            // Zero would mean for ever.
            self.input
                .set_read_timeout(Some(wait.max(Duration::from_micros(100))))?;
            let len = match self.input.recv(&mut buffer) {
                Ok(len) => len,
                // A wait with a time limit is not resumed after a signal.
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                // The daemon behind it is down just now.
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => continue,
                Err(e) => return Err(e.into()),
            };
            self.renumber(&mut buffer[..len]);
            let bytes = &buffer[..len];
            self.count(bytes);
            let faults = *self.faults.lock().expect("no thread panics with it");
            if faults.cut[self.from] || self.chance(faults.loss) {
                self.passed.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let copies = 1 + usize::from(self.chance(faults.duplicate));
            for _ in 0..copies {
                if self.chance(faults.late) {
                    let late = faults.late_max.mul_f64(self.random.f64());
                    number += 1;
                    waiting.insert((Instant::now() + late, number), bytes.to_vec());
                } else {
                    self.send(bytes);
                }
            }
        }
    }

    /// Shifts the numbers of FW1's messages, and back again in FW2's acknowledgements of them.
    fn renumber(&self, bytes: &mut [u8]) {
        let mut shift = self.shift.lock().expect("no thread panics with it");
        let mut at = 0;
        while let Some(message) = bytes.get_mut(at..)
            && message.len() >= 8
        {
            let len = usize::from(u16::from_be_bytes([message[2], message[3]]));
            let speaks_of_others = message[0] & 15 == 10 && message[1] & (ACK | NACK) != 0;
            if self.from == 0 {
                let first = word(message, 4);
                let by = *shift.get_or_insert((u32::MAX - 40).wrapping_sub(first));
                add(message, 4, by);
                if by != 0 && word(message, 4) < u32::MAX / 2 {
                    self.passed.wrapped.fetch_add(1, Ordering::Relaxed);
                }
            } else if speaks_of_others && message.len() >= 16 {
                let back = shift.unwrap_or(0).wrapping_neg();
                add(message, 8, back);
                add(message, 12, back);
            }
            at += len.max(8);
        }
    }

    fn send(&self, bytes: &[u8]) {
        // A daemon that is down loses it, as on a link.
        let _ = self.output.send_to(bytes, self.to);
    }

    fn count(&self, bytes: &[u8]) {
        let add = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        add(&self.passed.datagrams, 1);
        add(&self.passed.bytes, bytes.len());
        for message in messages(bytes).flatten() {
            match message.header.kind {
                MessageType::State(..) => add(&self.passed.states, 1),
                _ if matches!(Trailer::decode(message.body), Ok(Some(_))) => {
                    add(&self.passed.trailers, 1)
                }
                _ => continue,
            };
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.f64() < probability
    }
}

/// Flag bits of a control message about the other end's numbers.
const ACK: u8 = 0x08;
const NACK: u8 = 0x04;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn add(bytes: &mut [u8], at: usize, by: u32) {
    let sum = word(bytes, at).wrapping_add(by);
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
}
