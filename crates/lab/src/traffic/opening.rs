//! TCP connections that are opened at a given rate, side by side, and how long each takes until
//! it is there and until its first message is answered.
//!
//! The server is that of numbered messages.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::node::Node;

/// How long the two steps of one connection took; `None`, if it did not come to that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening {
    /// From the SYN to the SYN-ACK.
    pub connected: Option<Duration>,
    /// From the SYN to the answer to the first message.
    pub answered: Option<Duration>,
}

struct Client {
    stream: TcpStream,
    began: Instant,
    of: usize,
}

/// Opens `count` connections from `node`, `rate` a second, and sends a message on each. A
/// connection that is not answered within `limit` is given up.
pub fn open(
    node: &Node,
    server: SocketAddr,
    count: usize,
    rate: u32,
    limit: Duration,
) -> Result<Vec<Opening>> {
    node.inside(move || run(server, count, rate, limit))?
}

fn run(server: SocketAddr, count: usize, rate: u32, limit: Duration) -> Result<Vec<Opening>> {
    let mut openings = vec![Opening::default(); count];
    let mut clients: Vec<Client> = Vec::new();
    let (begun, mut next) = (Instant::now(), 0);
    while next < count || !clients.is_empty() {
        let due = |n: usize| begun + Duration::from_secs_f64(n as f64 / f64::from(rate));
        while next < count && due(next) <= Instant::now() {
            clients.push(Client {
                stream: begin(server)?,
                began: Instant::now(),
                of: next,
            });
            next += 1;
        }
        // The sockets of a busy client are many: a millisecond is short beside a retransmission.
        let wait = match next < count {
            true => due(next).saturating_duration_since(Instant::now()),
            false => Duration::from_millis(5),
        };
        turn(&mut clients, &mut openings, wait)?;
        clients.retain(|c| openings[c.of].answered.is_none() && c.began.elapsed() < limit);
    }
    Ok(openings)
}

fn begin(server: SocketAddr) -> Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(e) => Err(e.into()),
    }
}

/// Waits for at most `wait`, and goes on with what is ready.
fn turn(clients: &mut [Client], openings: &mut [Opening], wait: Duration) -> Result<()> {
    let wanted = |c: &Client| match openings[c.of].connected {
        None => PollFlags::OUT,
        Some(_) => PollFlags::IN,
    };
    let mut descriptors: Vec<_> = (clients.iter())
        .map(|c| PollFd::new(&c.stream, wanted(c)))
        .collect();
    let timeout = rustix::time::Timespec {
        tv_sec: wait.as_secs().cast_signed(),
        tv_nsec: wait.subsec_nanos().into(),
    };
    match poll(&mut descriptors, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let ready: Vec<bool> = (descriptors.iter())
        .map(|d| !d.revents().is_empty())
        .collect();
    for (client, _) in clients.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
        let opening = &mut openings[client.of];
        if opening.connected.is_none() {
            if sockopt::socket_error(&client.stream)?.is_ok() {
                opening.connected = Some(client.began.elapsed());
                client.stream.write_all(&1_u64.to_be_bytes())?;
            }
            continue;
        }
        match client.stream.read(&mut [0; 8]) {
            Ok(8) => opening.answered = Some(client.began.elapsed()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            // Given up at its limit.
            _ => {}
        }
    }
    Ok(())
}
