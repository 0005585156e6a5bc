//! One control client: reads its request, owes it a reply, never waits for it.
//!
//! A session has no clock and knows no socket: whoever owns it gives it the time and a
//! stream that does not block. A long reply is a cursor ([`Dump`]) that fills the client's
//! buffer to a high mark and goes on when the client has read, so a slow client delays
//! nobody and costs little memory.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use control::Request;
use control::call::{self, Tail};
use replica::{CommandId, Instant, Replica};
use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::dump::Dump;
use crate::follow::Follow;
use crate::kernel::Events;
use crate::listing::json_line;

/// A client that has not said what it wants after this long is shown out.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// A client that has read nothing of its reply for this long is disconnected. An operator
/// may stop a pager for a while; who has gone away must not hold a place for ever.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(30);
/// A reader that has read nothing for this long makes room when its place is needed. One
/// that reads is back in less.
pub(crate) const STALLED: Duration = Duration::from_secs(1);
/// A reply is filled up to this many bytes.
const HIGH_MARK: usize = 64 * 1024;

/// What a client is owed.
#[derive(Debug)]
pub(crate) enum State {
    /// Its request.
    Reading(Vec<u8>),
    /// The line of a call (`control::call`).
    Calling(Vec<u8>),
    /// The end of a command, and its tail if it came by a call.
    Waiting { id: CommandId, is_call: bool },
    /// A dump, from a position on.
    Dumping(Dump),
    /// Events, as they happen.
    Following(Follow),
    /// Nothing but what is in the buffer.
    Replying,
}

/// What a client's bytes come from and go to, without waiting.
pub(crate) trait Stream: Read + Write {
    /// True if the client has closed its socket, rather than its writing half.
    fn has_hung_up(&self) -> bool;
}

impl Stream for UnixStream {
    fn has_hung_up(&self) -> bool {
        let mut list = [PollFd::new(self, PollFlags::empty())];
        let _ = poll(&mut list, Some(&Timespec::default()));
        list[0].revents().contains(PollFlags::HUP)
    }
}

/// A client.
#[derive(Debug)]
pub(crate) struct Session<S = UnixStream> {
    pub(crate) stream: S,
    pub(crate) state: State,
    out: Vec<u8>,
    since: Instant,
    /// When the client last read something, or had nothing to read.
    progress: Instant,
    broken: bool,
    /// It says nothing more; its socket is always ready to be read.
    finished: bool,
    watched: EventFlags,
}

/// What a client does now; decides who makes room for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has not said yet what it wants.
    Asking { silent: Duration },
    /// It waits for the end of a command.
    Waiting,
    /// It has something to read, and has read nothing for that long.
    Reading { stalled: Duration },
    /// It has read everything so far.
    Content,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It has all that it asked for.
    Served,
    /// It asked for nothing.
    Silent,
    /// It read nothing.
    Stalled,
    /// The client is not there any more.
    Gone,
}

/// What reading brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Not all yet.
    Nothing,
    /// A request.
    Request(Request),
    /// A call, as a line.
    Call(Vec<u8>),
    /// A code that nobody knows.
    Unknown,
    /// The client went away too early.
    Cut,
}

impl<S: Stream> Session<S> {
    /// A client whose stream does not block.
    pub(crate) fn new(stream: S, now: Instant) -> Session<S> {
        Session {
            stream,
            state: State::Reading(Vec::new()),
            out: Vec::new(),
            since: now,
            progress: now,
            broken: false,
            finished: false,
            watched: EventFlags::IN,
        }
    }

    /// Reads on; a request is complete with its fourth byte, a call with the end of its line.
    pub(crate) fn read(&mut self) -> Asked {
        if let State::Calling(_) = self.state {
            return self.read_call();
        }
        let State::Reading(have) = &mut self.state else {
            // What a client says after its request means nothing; that it has gone does.
            let mut rest = [0; 64];
            match self.stream.read(&mut rest) {
                // Nobody would tell a follower's end from its silence.
                Ok(0) if matches!(self.state, State::Following(_)) => self.broken = true,
                // Its socket would stay ready, and the loop spin, until its command ends.
                Ok(0) if self.stream.has_hung_up() => self.broken = true,
                // It may still read: a reply under way goes on.
                Ok(0) => self.finished = true,
                Err(e) if e.kind() != ErrorKind::WouldBlock => self.broken = true,
                _ => {}
            }
            return Asked::Nothing;
        };
        let mut buffer = [0; 4];
        let want = 4 - have.len();
        match self.stream.read(&mut buffer[..want]) {
            Ok(0) => {
                self.broken = true;
                Asked::Cut
            }
            Ok(n) => {
                have.extend_from_slice(&buffer[..n]);
                let Ok(code) = <[u8; 4]>::try_from(have.as_slice()) else {
                    return Asked::Nothing;
                };
                if i32::from_ne_bytes(code) == call::CODE {
                    self.state = State::Calling(Vec::new());
                    return self.read_call();
                }
                self.state = State::Replying;
                match Request::from_code(i32::from_ne_bytes(code)) {
                    Some(request) => Asked::Request(request),
                    None => Asked::Unknown,
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Asked::Nothing,
            Err(_) => {
                self.broken = true;
                Asked::Cut
            }
        }
    }

    fn read_call(&mut self) -> Asked {
        let State::Calling(line) = &mut self.state else {
            return Asked::Nothing;
        };
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.broken = true;
                    return Asked::Cut;
                }
                Ok(n) => line.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Asked::Nothing,
                Err(_) => {
                    self.broken = true;
                    return Asked::Cut;
                }
            }
            let end = line.iter().position(|b| *b == b'\n');
            if end.is_some() || line.len() > call::CALL_MAX_BYTES {
                line.truncate(end.unwrap_or(0));
                let line = std::mem::take(line);
                self.state = State::Replying;
                return Asked::Call(line);
            }
        }
    }

    /// Appends to the reply.
    pub(crate) fn reply(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Appends a line of JSON to the reply.
    pub(crate) fn reply_json(&mut self, row: &impl serde::Serialize) {
        json_line(&mut self.out, row);
    }

    /// Ends the reply to a call.
    pub(crate) fn reply_tail(&mut self, tail: &Tail) {
        self.out.push(b'\n');
        json_line(&mut self.out, tail);
    }

    /// True if the client follows events.
    pub(crate) fn follows(&self) -> bool {
        matches!(self.state, State::Following(_))
    }

    /// Shows a client that follows events those that have just been read.
    pub(crate) fn show(&mut self, events: &Events) {
        if let State::Following(follow) = &mut self.state {
            follow.show(events, &mut self.out);
        }
    }

    /// True if a dump should go on.
    pub(crate) fn wants_more(&self) -> bool {
        matches!(self.state, State::Dumping(_)) && self.out.len() < HIGH_MARK / 2
    }

    /// Goes on with a dump if the client has read enough of it.
    pub(crate) fn go_on(&mut self, replica: &Replica) {
        if self.wants_more()
            && let State::Dumping(dump) = &mut self.state
            && dump.fill(replica, HIGH_MARK, &mut self.out)
        {
            let tail = dump.tail();
            self.state = State::Replying;
            if let Some(tail) = tail {
                self.reply_tail(&tail);
            }
        }
    }

    /// The command that the client waits for is over.
    pub(crate) fn command_done(&mut self, tail: &Tail) {
        let before = std::mem::replace(&mut self.state, State::Replying);
        if matches!(before, State::Waiting { is_call: true, .. }) {
            self.reply_tail(tail);
        }
    }

    /// True if the client waits for the end of this command.
    pub(crate) fn waits_for(&self, command: CommandId) -> bool {
        matches!(self.state, State::Waiting { id, .. } if id == command)
    }

    /// Writes as much as the client takes.
    pub(crate) fn write(&mut self, now: Instant) {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => {
                    self.broken = true;
                    return;
                }
                Ok(n) => {
                    self.progress = now;
                    self.out.drain(..n);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
        self.progress = now;
    }

    /// What the client's socket should be watched for, if that has changed.
    pub(crate) fn watch(&mut self) -> Option<EventFlags> {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, !self.finished);
        flags.set(EventFlags::OUT, !self.out.is_empty());
        (std::mem::replace(&mut self.watched, flags) != flags).then_some(flags)
    }

    /// True for dumps and events: there is more to read than one answer.
    pub(crate) fn is_reader(&self) -> bool {
        match self.state {
            State::Dumping(_) | State::Following(_) => true,
            State::Replying => !self.out.is_empty(),
            State::Reading(_) | State::Calling(_) | State::Waiting { .. } => false,
        }
    }

    /// What the client does at `now`.
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        match self.state {
            State::Reading(_) | State::Calling(_) => Standing::Asking {
                silent: now.since(self.since),
            },
            State::Waiting { .. } => Standing::Waiting,
            _ if self.out.is_empty() => Standing::Content,
            _ => Standing::Reading {
                stalled: now.since(self.progress),
            },
        }
    }

    /// Why the connection is to be closed at `now`, if it is.
    pub(crate) fn end(&self, now: Instant) -> Option<End> {
        match self.standing(now) {
            _ if self.broken => Some(End::Gone),
            Standing::Asking { silent } if silent > REQUEST_LIMIT => Some(End::Silent),
            Standing::Reading { stalled } if stalled > STALL_LIMIT => Some(End::Stalled),
            Standing::Content if matches!(self.state, State::Replying) => Some(End::Served),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
