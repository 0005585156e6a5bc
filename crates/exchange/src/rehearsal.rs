//! What would a commit come to? The same requests, in the same conversation, with the empty table
//! of a new network namespace, into which the flows of the live table that matter are copied.
//!
//! What the kernel refuses for what a flow is, for a helper or a module that is not there, or for
//! another flow with one of its tuples, it refuses here as well. The number of entries that the
//! live table has room for is counted here: the new table has its own.
//!
//! The live table is not touched. As in a commit, the kernel may load modules that it lacks.

mod foreseen;
mod touched;

pub use foreseen::{EXAMPLES_MAX, Example, Foreseen, Group, Reason};
pub use touched::Touched;

use std::collections::{HashSet, VecDeque};
use std::io;

use ctnetlink::TcpOptions;
use flow::{Flow, FlowKey};
use replica::conversation::{self, Attempt, Next};
use replica::{KernelError, KernelRequest, KernelResult, Op, Outcome, Purpose, Subject};
use sys::netlink::Netlink;

use crate::{Exchange, SEND, open};

/// Flows under way at a time, as in the daemon.
const QUEUE_MAX: usize = 4096;

/// A flow that a commit would put into the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The flow, with the timeout that it would get.
    pub flow: Flow,
    /// The peer has announced it since our kernel last saw traffic of it.
    pub is_taken: bool,
}

/// The empty table, and what is copied into it.
#[derive(Debug)]
pub struct Rehearsal {
    socket: Netlink,
    exchange: Exchange,
    /// Flows of the live table that are in it.
    copied: HashSet<FlowKey>,
    not_copied: u64,
}

/// A request, and the place of its flow in the list of all.
type Step = (usize, KernelRequest);

impl Rehearsal {
    /// Moves the calling thread into a new network namespace (see [`sys::netns::enter_new`]).
    ///
    /// # Errors
    /// The system's error: `EPERM` without `CAP_SYS_ADMIN`.
    pub fn enter(tcp: TcpOptions) -> io::Result<Rehearsal> {
        sys::netns::enter_new()?;
        Ok(Rehearsal {
            socket: open()?,
            exchange: Exchange::new(tcp),
            copied: HashSet::new(),
            not_copied: 0,
        })
    }

    /// Copies flows of the live table.
    pub fn copy(&mut self, live: &[Flow]) {
        let requests: Vec<_> = live
            .iter()
            .map(|flow| Flow {
                // They decide nothing here, and the master may not be there.
                helper: None,
                master: None,
                timeout: flow.timeout.map(|secs| secs.max(1)),
                ..*flow
            })
            .map(|flow| request(0, Op::Create(flow)))
            .collect();
        for result in self.execute(&requests) {
            match (result.request.op, result.outcome) {
                (Op::Create(flow), Outcome::Done) => drop(self.copied.insert(flow.key())),
                _ => self.not_copied += 1,
            }
        }
    }

    /// Flows of the live table that could not be copied.
    pub fn not_copied(&self) -> u64 {
        self.not_copied
    }

    /// Commits `wanted`: first what has no master, as a commit does. `room` is the number of
    /// entries that the live table can take.
    pub fn commit(&mut self, wanted: &[Wanted], room: u64) -> Foreseen {
        let mut commit = Commit {
            wanted,
            room,
            queue: VecDeque::new(),
            foreseen: Foreseen::default(),
        };
        for has_master in [false, true] {
            let of_pass = |n: &usize| wanted[*n].flow.master.is_some() == has_master;
            let mut rest = (0..wanted.len()).filter(of_pass).peekable();
            while rest.peek().is_some() || !commit.queue.is_empty() {
                let free = QUEUE_MAX.saturating_sub(commit.queue.len());
                let first = |n: usize| (n, request(0, Op::Create(wanted[n].flow)));
                commit.queue.extend(rest.by_ref().take(free).map(first));
                self.go_on(&mut commit);
            }
        }
        commit.foreseen
    }

    /// Holds the next part of the conversation.
    fn go_on(&mut self, commit: &mut Commit) {
        let part = commit.queue.len().min(SEND);
        let (places, requests): (Vec<usize>, Vec<_>) = commit.queue.drain(..part).unzip();
        let mut undone = Vec::new();
        for (place, result) in places.into_iter().zip(self.execute(&requests)) {
            match commit.after(place, &result) {
                After::Nothing => {}
                After::Undo(key) => undone.push(request(0, Op::Delete(key, None))),
                After::Clash => {
                    let holder = self.holder(&result, &commit.wanted[place].flow);
                    let is_here = holder.is_some_and(|h| self.copied.contains(&h.key()));
                    commit.refuse(place, Reason::clash(is_here), holder);
                }
            }
        }
        self.execute(&undone);
    }

    /// The flow that has a tuple of `wanted`, after the answer that showed that there is one.
    fn holder(&mut self, result: &KernelResult, wanted: &Flow) -> Option<Flow> {
        if let Outcome::Found(found) = &result.outcome {
            return Some(found.flow);
        }
        let key = FlowKey {
            orig: wanted.reply,
            zone: wanted.reply_zone.unwrap_or(wanted.zone),
        };
        match self.execute(&[request(0, Op::Get(key))]).pop()?.outcome {
            Outcome::Found(found) => Some(found.flow),
            _ => None,
        }
    }

    fn execute(&mut self, requests: &[KernelRequest]) -> Vec<KernelResult> {
        let mut results = Vec::with_capacity(requests.len());
        for part in requests.chunks(SEND) {
            self.exchange.hold(&self.socket, part, &mut results);
        }
        results
    }
}

/// A commit under way.
#[derive(Debug)]
struct Commit<'a> {
    wanted: &'a [Wanted],
    /// Entries that the live table can still take.
    room: u64,
    queue: VecDeque<Step>,
    foreseen: Foreseen,
}

/// What has to be asked at once after a result.
#[derive(Debug, PartialEq)]
enum After {
    Nothing,
    /// The live table has no room for this flow.
    Undo(FlowKey),
    /// Somebody else has a tuple of it.
    Clash,
}

impl Commit<'_> {
    fn after(&mut self, place: usize, result: &KernelResult) -> After {
        let asked = &result.request;
        let wanted = self.wanted[place];
        let attempt = Attempt {
            wanted: wanted.flow,
            step: asked.step,
            is_taken: wanted.is_taken,
            is_our_copy: false,
        };
        match conversation::next(&attempt, &asked.op, &result.outcome) {
            Next::Ask(op) | Next::AskForLess(op) => {
                // What is deleted leaves its room to what takes its place.
                self.room += u64::from(matches!(op, Op::Delete(..)));
                self.queue.push_back((place, request(asked.step + 1, op)));
            }
            Next::Created(flow) if self.room == 0 => {
                self.refuse(place, Reason::Full, None);
                return After::Undo(flow.key());
            }
            Next::Created(flow) => {
                self.room -= 1;
                self.foreseen.created += 1;
                self.note_what_lacks(&wanted.flow, &flow);
            }
            Next::Updated(_) | Next::Kept(_) => self.foreseen.updated += 1,
            Next::Clash => return After::Clash,
            Next::Refused(KernelError::TableFull) => self.refuse(place, Reason::Full, None),
            Next::Refused(error) => self.refuse(place, Reason::Kernel(error), None),
            Next::GivenUp => self.refuse(place, Reason::Changing, None),
        }
        After::Nothing
    }

    fn refuse(&mut self, place: usize, reason: Reason, holder: Option<Flow>) {
        self.foreseen.refused += 1;
        let flow = self.wanted[place].flow;
        self.foreseen.note(reason, Example { flow, holder });
    }

    /// The kernel has taken a flow without its helper, or without its master.
    fn note_what_lacks(&mut self, wanted: &Flow, made: &Flow) {
        let lacks = [
            (wanted.helper != made.helper, Reason::NoHelper),
            (wanted.master != made.master, Reason::NoMaster),
        ];
        self.foreseen.lessened += u64::from(lacks.iter().any(|(lacks, _)| *lacks));
        for (_, reason) in lacks.into_iter().filter(|(lacks, _)| *lacks) {
            let example = Example {
                flow: *wanted,
                holder: None,
            };
            self.foreseen.note(reason, example);
        }
    }
}

fn request(step: u8, op: Op) -> KernelRequest {
    KernelRequest {
        purpose: Purpose::Commit,
        subject: Subject::Table,
        step,
        op,
    }
}

#[cfg(test)]
mod tests;
