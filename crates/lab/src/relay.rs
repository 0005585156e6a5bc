//! A relay between the two daemons that loses, doubles, delays, reorders, spoils and repeats
//! datagrams.
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
use wire::Seq;
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
    /// A byte of it is another one, behind the checksum of UDP, which is right.
    pub corrupt: f64,
    /// Nothing passes in the direction from FW1, from FW2.
    pub cut: [bool; 2],
    /// What a helper is called in FW1's messages, and by what name FW2 reads it.
    pub helper: Option<[&'static [u8; 3]; 2]>,
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
    /// Datagrams of which a byte was changed.
    pub corrupted: AtomicU64,
    /// Datagrams that came twice.
    pub doubled: AtomicU64,
    /// Datagrams that came late.
    pub late: AtomicU64,
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
    exits: [Arc<Exit>; 2],
}

/// Where a direction leaves the relay.
#[derive(Debug)]
struct Exit {
    socket: UdpSocket,
    to: SocketAddr,
    /// What has left it, while that is recorded.
    record: Mutex<Option<Vec<Vec<u8>>>>,
    /// How many state messages still pass.
    left: AtomicU64,
}

impl Exit {
    fn send(&self, bytes: &[u8]) {
        // A daemon that is down loses it, as on a link.
        let _ = self.socket.send_to(bytes, self.to);
    }
}

/// The address to which the daemon of firewall `n` (0 or 1) sends when relayed.
pub fn address(n: usize) -> String {
    format!("10.77.9.10{}", n + 1)
}

impl Relay {
    /// Starts it without faults; it runs until the process ends.
    pub fn start(lab: &Lab, seed: u64) -> Result<Relay> {
        for (n, fw) in lab.fw.iter().enumerate() {
            fw.run(&format!("ip addr add {}/32 dev eth2", address(n)))?;
        }
        let relay = Relay {
            faults: Arc::default(),
            shift: Arc::new(Mutex::new(Some(0))),
            passed: [Arc::default(), Arc::default()],
            exits: [Arc::new(exit(lab, 0)?), Arc::new(exit(lab, 1)?)],
        };
        for from in 0..2 {
            let own: SocketAddr = format!("{}:{PORT}", address(from)).parse()?;
            let input = lab.fw[from].inside(move || UdpSocket::bind(own))??;
            let direction = Direction {
                from,
                input,
                exit: Arc::clone(&relay.exits[from]),
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

    /// FW1's sequence numbers, as FW2 sees them, are higher by this from now on, modulo 2^32: what
    /// FW2 sees of a firewall whose clock was set by so many seconds before its daemon started. To
    /// be called while FW1's daemon is down.
    pub fn shift(&self, by: u32) {
        *self.shift.lock().expect("no thread panics with it") = Some(by);
    }

    /// From firewall `from`, as many more state messages pass, and then no more until this is
    /// called again. Everything else passes.
    pub fn pass_states(&self, from: usize, count: u64) {
        self.exits[from].left.store(count, Ordering::Relaxed);
    }

    /// Whether those have passed.
    pub fn has_passed_states(&self, from: usize) -> bool {
        self.exits[from].left.load(Ordering::Relaxed) == 0
    }

    /// Records what leaves for the peer of firewall `from` from now on.
    pub fn record(&self, from: usize) {
        let mut record = self.exits[from].record.lock();
        *record.as_deref_mut().expect("no thread panics with it") = Some(Vec::new());
    }

    /// Ends that, and yields the datagrams.
    pub fn recorded(&self, from: usize) -> Vec<Vec<u8>> {
        let mut record = self.exits[from].record.lock();
        let record = record.as_deref_mut().expect("no thread panics with it");
        record.take().unwrap_or_default()
    }

    /// Sends datagrams to the peer of firewall `from` as if they had come just now.
    pub fn replay(&self, from: usize, datagrams: &[Vec<u8>]) {
        for (n, datagram) in datagrams.iter().enumerate() {
            self.exits[from].send(datagram);
            // A receive buffer is to hold them.
            if n % 20 == 19 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// What goes wrong from now on.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().expect("no thread panics with it") = faults;
    }
}

/// The way to the peer of firewall `from`. That one sends to the address from which this comes,
/// and so knows its peer by it.
fn exit(lab: &Lab, from: usize) -> Result<Exit> {
    let own = format!("{}:0", address(1 - from));
    Ok(Exit {
        socket: lab.fw[1 - from].inside(move || UdpSocket::bind(own))??,
        to: format!("10.77.9.{}:{PORT}", 2 - from).parse()?,
        record: Mutex::default(),
        left: AtomicU64::new(u64::MAX),
    })
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
    exit: Arc<Exit>,
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
                self.exit.send(&entry.remove());
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
            let bytes = &mut buffer[..len];
            let states = self.count(bytes);
            let faults = *self.faults.lock().expect("no thread panics with it");
            if faults.cut[self.from] || self.chance(faults.loss) || self.is_held_up(states) {
                self.passed.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if let Some([old, new]) = faults.helper {
                rename(bytes, old, new);
            }
            if self.chance(faults.corrupt) {
                let at = self.random.usize(..len.max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= self.random.u8(1..);
                }
                self.passed.corrupted.fetch_add(1, Ordering::Relaxed);
            }
            if let Ok(mut record) = self.exit.record.lock()
                && let Some(record) = record.as_mut()
            {
                record.push(bytes.to_vec());
            }
            let copies = 1 + u64::from(self.chance(faults.duplicate));
            self.passed.doubled.fetch_add(copies - 1, Ordering::Relaxed);
            for _ in 0..copies {
                if self.chance(faults.late) {
                    let late = faults.late_max.mul_f64(self.random.f64());
                    number += 1;
                    waiting.insert((Instant::now() + late, number), bytes.to_vec());
                    self.passed.late.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.exit.send(bytes);
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
                shift_bulk(message, len, by);
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

    /// Whether a datagram with so many state messages is behind those that may pass.
    fn is_held_up(&self, states: u64) -> bool {
        let relaxed = Ordering::Relaxed;
        // In one step: what `pass_states` sets meanwhile stays.
        let less = |left: u64| (left != u64::MAX).then(|| left.saturating_sub(states));
        let left = self.exit.left.fetch_update(relaxed, relaxed, less);
        states > 0 && left.unwrap_or_else(|all| all) < states
    }

    /// Counts it, and yields the number of its state messages.
    fn count(&self, bytes: &[u8]) -> u64 {
        let mut states = 0;
        let add = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        add(&self.passed.datagrams, 1);
        add(&self.passed.bytes, bytes.len());
        for message in messages(bytes).flatten() {
            match message.header.kind {
                MessageType::State(..) => {
                    states += 1;
                    add(&self.passed.states, 1)
                }
                _ if matches!(Trailer::decode(message.body), Ok(Some(_))) => {
                    add(&self.passed.trailers, 1)
                }
                _ => continue,
            };
        }
        states
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.f64() < probability
    }
}

/// Flag bits of a control message about the other end's numbers.
const ACK: u8 = 0x08;
const NACK: u8 = 0x04;

/// A trailer names the number with which a bulk update began.
fn shift_bulk(message: &mut [u8], len: usize, by: u32) {
    let Some(body) = message.get_mut(8..len) else {
        return;
    };
    if let Ok(Some(mut trailer)) = Trailer::decode(body) {
        trailer.bulk.first = Seq(trailer.bulk.first.0.wrapping_add(by));
        let mut out = Vec::new();
        trailer.encode(&mut out);
        if let Some(body) = body.get_mut(..out.len()) {
            body.copy_from_slice(&out);
        }
    }
}

/// Gives a helper another name of as many letters, wherever it stands as a whole.
fn rename(bytes: &mut [u8], old: &[u8; 3], new: &[u8; 3]) {
    for at in 0..bytes.len().saturating_sub(3) {
        if bytes[at..].starts_with(old) && bytes[at + 3] == 0 {
            bytes[at..at + 3].copy_from_slice(new);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn add(bytes: &mut [u8], at: usize, by: u32) {
    let sum = word(bytes, at).wrapping_add(by);
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
}
