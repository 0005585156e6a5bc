//! The kernel writer: the conversation with the kernel, and a thread that holds it.
//!
//! A request is executed inside the caller's `send`: an insert costs 2 to 5 µs, a
//! commit of a large cache seconds. So that events, datagrams and the control
//! socket go on meanwhile, a thread of its own takes batches of requests and
//! returns their results. It owns no state. To hand a few requests over would cost more
//! than they do: the core executes them itself while the thread has nothing to do.
//!
//! There are two sockets, because the kernel names with every change the port id of
//! the socket that caused it: one for commits and flushes, one for injections.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ctnetlink::TcpOptions;
use exchange::{Exchange, SEND};
use replica::{KernelRequest, KernelResult, Purpose};
use rustix::event::{EventfdFlags, eventfd};
use sys::netlink::Netlink;

/// Requests that the core hands over at once.
pub(crate) const BATCH: usize = 256;
/// Batches under way: one is executed while the next ones wait, so that the writer
/// never idles; more would only delay what comes after them.
const BATCHES_MAX: usize = 4;
/// Most requests that the core executes itself at a time: they take it 0.3 ms.
const FEW: usize = 64;
/// A few requests that take this long have waited for somebody else's, such as a flush of
/// the whole table, and the core with them.
const SLOW: Duration = Duration::from_millis(2);
/// So long the thread then takes all of them.
const SLOW_PAUSE: Duration = Duration::from_secs(1);

/// The core's end.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The thread holds it while it has something to do.
    conversation: Arc<Mutex<Conversation>>,
    slow_until: Option<Instant>,
    to: SyncSender<Vec<KernelRequest>>,
    from: Receiver<Vec<KernelResult>>,
    wake: OwnedFd,
    under_way: usize,
    commit_port: u32,
    inject_port: u32,
    /// Until it is started.
    thread: Option<Ends>,
}

/// The thread's ends of the two queues.
#[derive(Debug)]
struct Ends {
    requests: Receiver<Vec<KernelRequest>>,
    results: Sender<Vec<KernelResult>>,
}

impl Writer {
    /// Opens its sockets. [`Writer::start`] follows.
    pub(crate) fn open(tcp: TcpOptions) -> Result<Writer> {
        let open = || exchange::open().context("netlink socket for requests");
        let commit = open()?;
        let inject = open()?;
        let (commit_port, inject_port) = (commit.port(), inject.port());
        let (to, requests) = sync_channel::<Vec<KernelRequest>>(BATCHES_MAX);
        let (results, from) = channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Writer {
            conversation: Arc::new(Mutex::new(Conversation {
                commit,
                inject,
                exchange: Exchange::new(tcp),
            })),
            slow_until: None,
            to,
            from,
            wake,
            under_way: 0,
            commit_port,
            inject_port,
            thread: Some(Ends { requests, results }),
        })
    }

    /// Starts the thread. It inherits what the calling thread has given up (`sandbox`).
    pub(crate) fn start(&mut self) -> Result<()> {
        let Some(Ends { requests, results }) = self.thread.take() else {
            return Ok(());
        };
        let signal = self.wake.try_clone()?;
        let shared = Arc::clone(&self.conversation);
        thread::Builder::new()
            .name("kernel-writer".to_owned())
            .spawn(move || work(&requests, &results, &signal, &shared))
            .context("start the kernel writer")?;
        Ok(())
    }

    /// Port ids of the two sockets: commit and flush, inject.
    pub(crate) fn ports(&self) -> (u32, u32) {
        (self.commit_port, self.inject_port)
    }

    /// True if another batch can be handed over without waiting.
    pub(crate) fn has_room(&self) -> bool {
        self.under_way < BATCHES_MAX
    }

    /// Executes a batch at once if that takes no longer than to hand it over.
    pub(crate) fn execute(&mut self, batch: &[KernelRequest]) -> Option<Vec<KernelResult>> {
        let begun = Instant::now();
        let is_slow = self.slow_until.is_some_and(|until| begun < until);
        if self.under_way > 0 || batch.len() > FEW || is_slow {
            return None;
        }
        let results = execute(&self.conversation, batch);
        let is_slow = begun.elapsed() > SLOW;
        self.slow_until = is_slow.then(|| begun + SLOW_PAUSE);
        Some(results)
    }

    /// Hands a batch over. Call only with room.
    pub(crate) fn hand_over(&mut self, batch: Vec<KernelRequest>) {
        if self.to.send(batch).is_ok() {
            self.under_way += 1;
        }
    }

    /// Results of the next batch that is done.
    pub(crate) fn results(&mut self) -> Option<Vec<KernelResult>> {
        let results = self.from.try_recv().ok()?;
        self.under_way -= 1;
        Some(results)
    }

    /// The core has seen the wake-up.
    pub(crate) fn clear_wake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }
}

impl AsFd for Writer {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn work(
    requests: &Receiver<Vec<KernelRequest>>,
    results: &Sender<Vec<KernelResult>>,
    wake: &OwnedFd,
    conversation: &Mutex<Conversation>,
) {
    // Ends when the core does.
    while let Ok(batch) = requests.recv() {
        if results.send(execute(conversation, &batch)).is_err() {
            return;
        }
        let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
    }
}

fn execute(conversation: &Mutex<Conversation>, batch: &[KernelRequest]) -> Vec<KernelResult> {
    // Only a panic of the other one could have left it in the middle of something.
    let mut conversation = conversation.lock().unwrap_or_else(PoisonError::into_inner);
    let mut done = Vec::with_capacity(batch.len());
    for run in batch.chunk_by(|a, b| socket_of(a) == socket_of(b)) {
        let Conversation {
            commit,
            inject,
            exchange,
        } = &mut *conversation;
        let socket = if socket_of(&run[0]) { inject } else { commit };
        for part in run.chunks(SEND) {
            exchange.hold(socket, part, &mut done);
        }
    }
    done
}

/// Which socket a request goes through: true for injections.
fn socket_of(request: &KernelRequest) -> bool {
    request.purpose == Purpose::Inject
}

/// The two sockets, and what is said on either.
#[derive(Debug)]
struct Conversation {
    commit: Netlink,
    inject: Netlink,
    exchange: Exchange,
}
