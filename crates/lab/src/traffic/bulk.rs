//! A bulk TCP transfer from B to A, paced or as fast as it goes, with a checksum at both ends.

use std::hash::Hasher;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::node::Node;

const CHUNK: usize = 16 * 1024;

/// What the receiver has seen.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Bytes received.
    pub bytes: usize,
    /// When the last came.
    pub at: Option<Instant>,
    /// Longest time without any.
    pub longest_gap: Duration,
    /// Checksum, once all have come.
    pub checksum: Option<u64>,
}

/// A transfer under way.
#[derive(Debug)]
pub struct Transfer {
    total: usize,
    progress: Arc<Mutex<Progress>>,
    sender: JoinHandle<std::io::Result<u64>>,
}

/// Piece `n`: reproducible bytes that differ by position.
fn chunk(n: usize) -> Vec<u8> {
    let mut state = n as u64 + 1;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..CHUNK / 8).flat_map(word).collect()
}

impl Transfer {
    /// Starts `chunks` pieces of 16 KiB, with a pause after each; without one the windows fill.
    pub fn start(
        a: &Node,
        b: &Node,
        server: SocketAddr,
        chunks: usize,
        pause: Duration,
    ) -> Result<Transfer> {
        let listener = b.inside(move || TcpListener::bind(server))??;
        let sender = thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut hash = std::hash::DefaultHasher::new();
            for n in 0..chunks {
                let piece = chunk(n);
                hash.write(&piece);
                stream.write_all(&piece)?;
                if !pause.is_zero() {
                    thread::sleep(pause);
                }
            }
            Ok(hash.finish())
        });
        let connect = move || TcpStream::connect_timeout(&server, Duration::from_secs(5));
        let mut stream = a.inside(connect)?.context("bulk transfer")?;
        let progress = Arc::new(Mutex::new(Progress::default()));
        let shared = Arc::clone(&progress);
        thread::spawn(move || {
            let mut hash = std::hash::DefaultHasher::new();
            let mut piece = vec![0; CHUNK];
            while stream.read_exact(&mut piece).is_ok() {
                hash.write(&piece);
                let now = Instant::now();
                let mut p = shared.lock().expect("nobody panics with it");
                if let Some(before) = p.at {
                    p.longest_gap = p.longest_gap.max(now - before);
                }
                p.bytes += piece.len();
                p.at = Some(now);
                if p.bytes == chunks * CHUNK {
                    p.checksum = Some(hash.finish());
                    return;
                }
            }
        });
        Ok(Transfer {
            total: chunks * CHUNK,
            progress,
            sender,
        })
    }

    /// Bytes of the whole.
    pub fn total(&self) -> usize {
        self.total
    }

    /// What has been received so far.
    pub fn progress(&self) -> Progress {
        self.progress.lock().expect("nobody panics with it").clone()
    }

    /// Waits for the end. True if all bytes came and both checksums are equal.
    pub fn finish(self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.progress().checksum.is_none() {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let received = self.progress();
        let sent = self.sender.join().ok().and_then(Result::ok);
        received.bytes == self.total && received.checksum == sent
    }
}
