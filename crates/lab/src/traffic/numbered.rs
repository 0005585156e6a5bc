//! Many idle TCP connections whose survival is then proven by numbered messages.
//!
//! Each message is one big-endian u64 counting up from 1, per connection and
//! direction. The server answers every message with one of its own. A connection
//! survives a round if its answer came, with the right number, before the limit.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::epoll;

use crate::node::Node;

/// One end of a connection.
#[derive(Debug)]
struct End {
    stream: TcpStream,
    sent: u64,
    received: u64,
    partial: Vec<u8>,
    broken: bool,
}

impl End {
    fn new(stream: TcpStream) -> std::io::Result<End> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(End {
            stream,
            sent: 0,
            received: 0,
            partial: Vec::new(),
            broken: false,
        })
    }

    fn send(&mut self) {
        let message = (self.sent + 1).to_be_bytes();
        // Eight bytes always fit into the buffer of an idle connection.
        match self.stream.write(&message) {
            Ok(8) => self.sent += 1,
            _ => self.broken = true,
        }
    }

    /// Reads what is there; returns the number of messages in order.
    fn receive(&mut self) -> u64 {
        let before = self.received;
        let mut buffer = [0; 256];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.broken = true;
                    break;
                }
                Ok(n) => self.partial.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.broken = true;
                    break;
                }
            }
        }
        while let Some((message, _)) = self.partial.split_first_chunk::<8>() {
            if u64::from_be_bytes(*message) == self.received + 1 {
                self.received += 1;
            } else {
                self.broken = true;
            }
            self.partial.drain(..8);
        }
        self.received - before
    }
}

/// Readiness of many ends.
#[derive(Debug)]
struct Readiness(std::os::fd::OwnedFd);

impl Readiness {
    fn new() -> Result<Readiness> {
        Ok(Readiness(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    fn add(&self, source: impl std::os::fd::AsFd, token: u64) -> Result<()> {
        let data = epoll::EventData::new_u64(token);
        epoll::add(&self.0, source, data, epoll::EventFlags::IN)?;
        Ok(())
    }

    /// Tokens of what can be read; empty after `wait`.
    fn wait(&self, wait: Duration) -> Vec<u64> {
        let mut events = Vec::with_capacity(256);
        let timeout = rustix::time::Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let spare = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.0, spare, Some(&timeout)) {
            Ok(_) => events.iter().map(|e| e.data.u64()).collect(),
            Err(_) => Vec::new(),
        }
    }
}

/// Starts a server on `node` that answers numbered messages until the run ends.
pub fn serve(node: &Node, address: SocketAddr) -> Result<()> {
    let listener = node.inside(move || TcpListener::bind(address))??;
    listener.set_nonblocking(true)?;
    std::thread::spawn(move || -> Result<()> {
        const LISTENER: u64 = u64::MAX;
        let readiness = Readiness::new()?;
        readiness.add(&listener, LISTENER)?;
        let mut ends = Vec::new();
        loop {
            for token in readiness.wait(Duration::from_secs(1)) {
                if token == LISTENER {
                    while let Ok((stream, _)) = listener.accept() {
                        readiness.add(&stream, ends.len() as u64)?;
                        ends.push(Some(End::new(stream)?));
                    }
                    continue;
                }
                let slot = &mut ends[token as usize];
                if let Some(end) = slot {
                    for _ in 0..end.receive() {
                        end.send();
                    }
                    if end.broken {
                        *slot = None;
                    }
                }
            }
        }
    });
    Ok(())
}

/// The clients' ends of many connections.
#[derive(Debug)]
pub struct Connections {
    ends: Vec<End>,
    readiness: Readiness,
}

impl Connections {
    /// Opens `count` connections from `node`, one after the other.
    ///
    /// # Errors
    /// If one cannot be opened within 5 seconds.
    pub fn open(node: &Node, server: SocketAddr, count: usize) -> Result<Connections> {
        let streams = node.inside(move || -> Result<Vec<TcpStream>> {
            let limit = Duration::from_secs(5);
            (0..count)
                .map(|_| TcpStream::connect_timeout(&server, limit).context("connect"))
                .collect()
        })??;
        let readiness = Readiness::new()?;
        let mut ends = Vec::with_capacity(count);
        for stream in streams {
            readiness.add(&stream, ends.len() as u64)?;
            ends.push(End::new(stream)?);
        }
        Ok(Connections { ends, readiness })
    }

    /// Sends one message on every connection and waits for the answers.
    /// Returns the number of connections on which all answers came in order.
    pub fn round(&mut self, limit: Duration) -> usize {
        for end in &mut self.ends {
            end.send();
        }
        let end = Instant::now() + limit;
        loop {
            let good = self.ends.iter().filter(|e| is_answered(e)).count();
            let open = self.ends.iter().filter(|e| !e.broken && !is_answered(e));
            let left = end.saturating_duration_since(Instant::now());
            if open.count() == 0 || left.is_zero() {
                return good;
            }
            for token in self.readiness.wait(left.min(Duration::from_millis(50))) {
                self.ends[token as usize].receive();
            }
        }
    }

    /// How many were opened.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Closes all connections in good order.
    pub fn close(self) {}
}

fn is_answered(end: &End) -> bool {
    !end.broken && end.received == end.sent
}
