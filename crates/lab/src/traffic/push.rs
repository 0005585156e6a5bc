//! Many TCP connections on which both ends send all the time, numbered messages that nobody
//! asked for: no moment of a failover passes without a segment.
//!
//! Each message is one big-endian u64 counting up from 1, per connection and direction.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::node::Node;

/// Connections that are opened before the server has accepted them.
const OPEN_AHEAD: usize = 100;

/// One end.
#[derive(Debug)]
struct End {
    stream: TcpStream,
    sent: u64,
    received: u64,
    partial: Vec<u8>,
    heard_at: Instant,
    broken: Option<ErrorKind>,
}

impl End {
    fn new(stream: TcpStream) -> Result<End> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(End {
            stream,
            sent: 0,
            received: 0,
            partial: Vec::new(),
            heard_at: Instant::now(),
            broken: None,
        })
    }

    /// Sends one message, unless the buffer is full, and reads what is there.
    fn turn(&mut self) {
        if self.broken.is_some() {
            return;
        }
        match self.stream.write(&(self.sent + 1).to_be_bytes()) {
            Ok(8) => self.sent += 1,
            Ok(_) => self.broken = Some(ErrorKind::WriteZero),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => self.broken = Some(e.kind()),
        }
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.broken = Some(ErrorKind::UnexpectedEof),
                Ok(n) => {
                    self.partial.extend_from_slice(&buffer[..n]);
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => self.broken = Some(e.kind()),
            }
            break;
        }
        while let Some((message, _)) = self.partial.split_first_chunk::<8>() {
            if u64::from_be_bytes(*message) != self.received + 1 {
                self.broken = Some(ErrorKind::InvalidData);
            }
            self.received += 1;
            self.heard_at = Instant::now();
            self.partial.drain(..8);
        }
    }
}

/// What has become of the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Both ends have heard in order, and lately.
    pub alive: usize,
    /// An end was told that there is no such connection (RST).
    pub reset: usize,
    /// Neither: messages are out of order, or nothing has come lately.
    pub lost: usize,
}

/// The connections, both ends of each.
#[derive(Debug)]
pub struct Pushes {
    stop: Arc<AtomicBool>,
    sides: [JoinHandle<Vec<End>>; 2],
    count: usize,
}

impl Pushes {
    /// Opens `count` connections from `client` to `address` at `server`. From then on each end
    /// sends a message `every` so often.
    ///
    /// # Errors
    /// If one cannot be opened within 5 seconds.
    pub fn start(
        client: &Node,
        server: &Node,
        address: SocketAddr,
        count: usize,
        every: Duration,
    ) -> Result<Pushes> {
        let listener = server.inside(move || TcpListener::bind(address))??;
        let (mut here, mut there) = (Vec::new(), Vec::new());
        while here.len() < count {
            let some = OPEN_AHEAD.min(count - here.len());
            let streams = client.inside(move || -> Result<Vec<TcpStream>> {
                let open = |_| TcpStream::connect_timeout(&address, Duration::from_secs(5));
                (0..some).map(|n| open(n).context("connect")).collect()
            })??;
            for stream in streams {
                here.push(End::new(stream)?);
                there.push(End::new(listener.accept()?.0)?);
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let sides = [here, there].map(|ends| run(ends, every, stop.clone()));
        Ok(Pushes { stop, sides, count })
    }

    /// Ends all, and says what has become of them: what has not been heard of for `lately` is
    /// lost.
    ///
    /// # Errors
    /// If a side has panicked.
    pub fn finish(self, lately: Duration) -> Result<Survey> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sides = Vec::new();
        for side in self.sides {
            let ends = side.join();
            sides.push(ends.map_err(|_| anyhow::anyhow!("a side panicked"))?);
        }
        ensure!(sides.iter().all(|s| s.len() == self.count), "all are there");
        let now = Instant::now();
        let mut survey = Survey::default();
        for (here, there) in sides[0].iter().zip(&sides[1]) {
            let both = [here, there];
            let lives = |e: &&End| e.broken.is_none() && now - e.heard_at < lately;
            if both
                .iter()
                .any(|e| e.broken == Some(ErrorKind::ConnectionReset))
            {
                survey.reset += 1;
            } else if both.iter().all(lives) {
                survey.alive += 1;
            } else {
                survey.lost += 1;
            }
        }
        Ok(survey)
    }
}

/// Lets the ends of one side send, evenly spread over each period.
fn run(mut ends: Vec<End>, every: Duration, stop: Arc<AtomicBool>) -> JoinHandle<Vec<End>> {
    const SHARES: usize = 20;
    thread::spawn(move || {
        let share = ends.len().div_ceil(SHARES).max(1);
        let pause = every / SHARES as u32;
        while !stop.load(Ordering::Relaxed) {
            for some in ends.chunks_mut(share) {
                let began = Instant::now();
                some.iter_mut().for_each(End::turn);
                thread::sleep(pause.saturating_sub(began.elapsed()));
            }
        }
        ends
    })
}
