//! A table of flows in place of a kernel's: events, dumps, and answers to requests.

use std::mem;

use ctnetlink::{Request, TcpOptions};
use replica::{Found, KernelError, KernelRequest, KernelResult, Op, Outcome};

use crate::events::{Events, Step, number_of};

/// Bytes that one read of a dump brings, at most.
const DUMP_BYTES: usize = 32 << 10;

/// A flow, living or not.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Where it stands in `alive`, plus 1; 0 if it does not live.
    place: u32,
    /// When its timeout has run down.
    expires: u32,
}

/// The flows of one machine, by number.
#[derive(Debug, Default)]
pub struct Kernel {
    events: Events,
    /// The living, in no order.
    alive: Vec<u32>,
    /// By number.
    entries: Vec<Entry>,
    /// Seconds on the virtual clock.
    pub(crate) now_secs: u32,
    /// Messages that nobody has read yet.
    pub(crate) waiting: Vec<u8>,
    requests: Vec<u8>,
}

impl Kernel {
    /// Number of flows.
    pub fn len(&self) -> usize {
        self.alive.len()
    }

    /// True without any flow.
    pub fn is_empty(&self) -> bool {
        self.alive.is_empty()
    }

    /// Number of a living flow; `n` chooses it, whatever it is.
    pub fn any(&self, n: u64) -> Option<u32> {
        let at = n.checked_rem(self.alive.len() as u64)?;
        self.alive.get(at as usize).copied()
    }

    /// One step of a flow, and its event.
    pub fn step(&mut self, step: Step, n: u32) {
        match step {
            Step::New | Step::Established => self.insert(n, step.timeout()),
            Step::Destroy => _ = self.remove(n),
        }
        self.events.put(&mut self.waiting, step, n);
    }

    /// Bytes of memory that stand for the kernel's.
    pub fn bytes(&self) -> usize {
        size_of_val(self.alive.as_slice()) + size_of_val(self.entries.as_slice())
    }

    fn insert(&mut self, n: u32, timeout: u32) {
        if self.entries.len() <= n as usize {
            self.entries.resize(n as usize + 1, Entry::default());
        }
        let entry = &mut self.entries[n as usize];
        entry.expires = self.now_secs + timeout;
        if entry.place == 0 {
            self.alive.push(n);
            entry.place = self.alive.len() as u32;
        }
    }

    fn remove(&mut self, n: u32) -> bool {
        let Some(entry) = self.entries.get_mut(n as usize).filter(|e| e.place > 0) else {
            return false;
        };
        let at = mem::take(&mut entry.place) as usize - 1;
        self.alive.swap_remove(at);
        if let Some(moved) = self.alive.get(at) {
            self.entries[*moved as usize].place = at as u32 + 1;
        }
        true
    }

    fn holds(&self, n: u32) -> bool {
        self.entries.get(n as usize).is_some_and(|e| e.place > 0)
    }

    /// Seconds that a living flow has left.
    fn left(&self, n: u32) -> u32 {
        self.entries[n as usize]
            .expires
            .saturating_sub(self.now_secs)
    }

    /// Writes the next part of a dump, of the first `left` living flows, the last of them first:
    /// so one that ends meanwhile hides no other. Returns how many are left.
    pub(crate) fn dump(&self, left: usize, out: &mut Vec<u8>) -> usize {
        let mut left = left.min(self.alive.len());
        while left > 0 && out.len() < DUMP_BYTES {
            left -= 1;
            let n = self.alive[left];
            self.events.put_dumped(out, n, self.left(n));
        }
        left
    }

    /// Encodes a request as the kernel's writer does, and answers it.
    pub(crate) fn execute(&mut self, request: KernelRequest) -> KernelResult {
        let outcome = self.outcome(&request.op);
        KernelResult { request, outcome }
    }

    fn outcome(&mut self, op: &Op) -> Outcome {
        self.requests.clear();
        let request = Request::new(&mut self.requests, 1, false);
        let tcp = TcpOptions {
            window_scale: false,
        };
        let key = match op {
            Op::Create(flow) => {
                request.create(flow, tcp);
                flow.key()
            }
            Op::Update(flow) => {
                request.update(flow, tcp);
                flow.key()
            }
            Op::Get(key) => {
                request.get(key);
                *key
            }
            Op::Delete(key, id) => {
                request.delete(key, *id);
                *key
            }
            // No expectations are replicated here.
            _ => return Outcome::Failed(KernelError::Unsupported),
        };
        let Some(n) = number_of(&key) else {
            return Outcome::Failed(KernelError::NotFound);
        };
        match op {
            Op::Create(_) if self.holds(n) => Outcome::Failed(KernelError::Exists),
            Op::Create(flow) => {
                self.insert(n, flow.timeout.unwrap_or(0));
                Outcome::Done
            }
            _ if !self.holds(n) => Outcome::Failed(KernelError::NotFound),
            Op::Get(_) => Outcome::Found(Box::new(Found {
                flow: self.events.with_timeout(n, self.left(n)),
                is_liberal: true,
            })),
            Op::Delete(..) => {
                self.remove(n);
                Outcome::Done
            }
            Op::Update(flow) => {
                if let Some(timeout) = flow.timeout {
                    self.insert(n, timeout);
                }
                Outcome::Done
            }
            _ => Outcome::Failed(KernelError::Unsupported),
        }
    }
}
