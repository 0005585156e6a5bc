//! Many TCP connections on which both ends send all the time, numbered messages that nobody
//! asked for: no moment of a failover passes without a segment.
//!
//! Each message is one big-endian u64 counting up from 1, per connection and direction.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

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
    /// Longest time between two messages.
    silence: Duration,
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
            silence: Duration::ZERO,
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
            self.silence = self.silence.max(self.heard_at.elapsed());
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
    sides: [Arc<Mutex<Vec<End>>>; 2],
    threads: Vec<JoinHandle<()>>,
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
        let sides = [here, there].map(|ends| Arc::new(Mutex::new(ends)));
        let start = |ends: &Arc<Mutex<Vec<End>>>| {
            let (ends, stop) = (ends.clone(), stop.clone());
            thread::spawn(move || run(&ends, every, &stop))
        };
        let threads = sides.iter().map(start).collect();
        Ok(Pushes {
            stop,
            sides,
            threads,
        })
    }

    /// What has become of them until now: what has not been heard of since `since` is lost.
    pub fn survey(&self, since: Instant) -> Survey {
        let [here, there] = &self.sides;
        let (here, there) = (lock(here), lock(there));
        let mut survey = Survey::default();
        for (here, there) in here.iter().zip(there.iter()) {
            let both = [here, there];
            let lives = |e: &&End| e.broken.is_none() && e.heard_at > since;
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
        survey
    }

    /// Longest time for which an end has read nothing, the last one included, since this was
    /// last asked. An end reads once in a period.
    pub fn take_silence(&self) -> Duration {
        let mut longest = Duration::ZERO;
        for side in &self.sides {
            for end in lock(side).iter_mut() {
                let before = std::mem::take(&mut end.silence);
                longest = longest.max(before).max(end.heard_at.elapsed());
            }
        }
        longest
    }

    /// Ends all, and says what has become of them: what has not been heard of for `lately` is
    /// lost.
    ///
    /// # Errors
    /// If a side has panicked.
    pub fn finish(mut self, lately: Duration) -> Result<Survey> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            let ended = thread.join();
            ended.map_err(|_| anyhow::anyhow!("a side panicked"))?;
        }
        Ok(self.survey(Instant::now() - lately))
    }
}

impl Drop for Pushes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn lock(ends: &Mutex<Vec<End>>) -> MutexGuard<'_, Vec<End>> {
    ends.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the ends of one side send, evenly spread over each period.
fn run(ends: &Mutex<Vec<End>>, every: Duration, stop: &AtomicBool) {
    const SHARES: usize = 20;
    let share = lock(ends).len().div_ceil(SHARES).max(1);
    let pause = every / SHARES as u32;
    while !stop.load(Ordering::Relaxed) {
        for n in 0..SHARES {
            let began = Instant::now();
            let mut ends = lock(ends);
            let some = ends.chunks_mut(share).nth(n).unwrap_or_default();
            some.iter_mut().for_each(End::turn);
            drop(ends);
            thread::sleep(pause.saturating_sub(began.elapsed()));
        }
    }
}
