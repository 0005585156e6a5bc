//! Dumps of the kernel's tables, and the thread that reads them.
//!
//! The kernel fills a part of a dump within the reader's `recv`, and walks through its hash table
//! until the part is full: through all buckets if there is little to find, which are 262 144 on a
//! machine with 4 GB and take tens of milliseconds. The thread waits there, so that events,
//! datagrams and clients do not. It owns no state, and reads at most two parts ahead of the core;
//! the kernel has filled a third one then. What they show may have changed since
//! (`replica::sweep`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread;

use anyhow::{Context, Result};
use replica::{DumpEnd, DumpScope};
use rustix::event::{EventfdFlags, eventfd};
use sys::netlink::RECEIVE_BYTES;

use crate::kernel::{DumpSocket, Dumped};

/// Parts that wait for the core; the thread holds another one.
const PARTS_MAX: usize = 1;

/// The core's end.
#[derive(Debug)]
pub(crate) struct Dumper {
    to: Sender<DumpScope>,
    from: Receiver<Part>,
    /// Counts the parts that wait.
    waiting: OwnedFd,
    running: bool,
    /// Until it is started.
    thread: Option<Ends>,
}

/// A part of a dump; the last one has an end.
#[derive(Debug)]
struct Part {
    dumped: Dumped,
    end: Option<DumpEnd>,
}

/// The thread's ends of the two queues, and its socket.
#[derive(Debug)]
struct Ends {
    scopes: Receiver<DumpScope>,
    parts: SyncSender<Part>,
    socket: DumpSocket,
}

impl Dumper {
    /// Opens its socket. [`Dumper::start_thread`] follows.
    pub(crate) fn open() -> Result<Dumper> {
        let socket = DumpSocket::open()?;
        let (to, scopes) = channel();
        let (parts, from) = sync_channel(PARTS_MAX);
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
        Ok(Dumper {
            to,
            from,
            waiting: eventfd(0, flags)?,
            running: false,
            thread: Some(Ends {
                scopes,
                parts,
                socket,
            }),
        })
    }

    /// Starts the thread. It inherits what the calling thread has given up (`sandbox`).
    pub(crate) fn start_thread(&mut self) -> Result<()> {
        let Some(ends) = self.thread.take() else {
            return Ok(());
        };
        let waiting = Waiting(self.waiting.try_clone()?);
        thread::Builder::new()
            .name("kernel-dumper".to_owned())
            .spawn(move || work(ends, &waiting))
            .context("start the thread that reads dumps")?;
        Ok(())
    }

    /// Begins a dump; false if there is no thread any more.
    pub(crate) fn start(&mut self, scope: DumpScope) -> bool {
        self.running = self.to.send(scope).is_ok();
        self.running
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Takes the next part into `out`, if one waits; says when the dump is over.
    pub(crate) fn read(&mut self, out: &mut Dumped) -> Option<DumpEnd> {
        // Whoever counts a part has handed it over before, or has gone.
        rustix::io::read(&self.waiting, &mut [0; 8]).ok()?;
        let end = match self.from.try_recv() {
            Ok(part) => {
                *out = part.dumped;
                part.end
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(DumpEnd::Failed),
        };
        self.running = end.is_none();
        end
    }
}

impl AsFd for Dumper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waiting.as_fd()
    }
}

/// Where the thread counts its parts, and at last its own end.
struct Waiting(OwnedFd);

impl Waiting {
    fn count(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.count();
    }
}

// `waiting` is dropped after the sender of the parts.
fn work(ends: Ends, waiting: &Waiting) {
    let Ends {
        scopes,
        parts,
        mut socket,
    } = ends;
    let mut buffer = vec![0; RECEIVE_BYTES];
    // Ends when the core does.
    while let Ok(scope) = scopes.recv() {
        let mut end = socket.start(scope).is_err().then_some(DumpEnd::Failed);
        loop {
            let mut dumped = Dumped::default();
            if end.is_none() {
                end = socket.read(&mut buffer, &mut dumped);
            }
            if parts.send(Part { dumped, end }).is_err() {
                return;
            }
            waiting.count();
            if end.is_some() {
                break;
            }
        }
    }
}
