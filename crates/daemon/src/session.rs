//! One control client: reads its request, owes it a reply, never waits for it.
//!
//! A dump is a cursor: it fills the client's buffer to a high mark and goes on when
//! the client has read, so a slow client delays nobody and costs little memory.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use control::call::{self, Tail};
use control::{Query, Request};
use replica::CommandId;
use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::listing::json_line;

/// A client that has not said what it wants after this long is shown out.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// A client that has read nothing of its reply for this long is disconnected. An operator
/// may stop a pager for a while; who has gone away must not hold a place for ever.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(30);
/// A reply is filled up to this many bytes.
pub(crate) const HIGH_MARK: usize = 64 * 1024;

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

/// A dump under way.
#[derive(Debug)]
pub(crate) struct Dump {
    pub(crate) which: replica::Which,
    pub(crate) form: Form,
    pub(crate) at: At,
    pub(crate) rows: u64,
}

/// Form of a dump's entries.
#[derive(Debug)]
pub(crate) enum Form {
    /// The original's lines.
    Line,
    /// The original's XML.
    Xml,
    /// Our rows, of what the query chooses.
    Ours { json: bool, query: Query },
}

/// A client that follows events.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) query: Query,
    /// It has no query: expectations are shown, too.
    pub(crate) everything: bool,
    pub(crate) backlog: Backlog,
}

/// How its events are written.
#[derive(Debug)]
pub(crate) struct Backlog {
    pub(crate) json: bool,
    /// Events that it was too slow for, since the last line about such.
    pub(crate) lost: u64,
}

/// How far a dump has come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    Flows(cache::Position),
    /// Behind this one.
    Expectations(Option<flow::ExpectKey>),
}

/// A client.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) stream: UnixStream,
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

impl Session {
    pub(crate) fn new(stream: UnixStream) -> std::io::Result<Session> {
        stream.set_nonblocking(true)?;
        Ok(Session {
            stream,
            state: State::Reading(Vec::new()),
            out: Vec::new(),
            since: Instant::now(),
            progress: Instant::now(),
            broken: false,
            finished: false,
            watched: EventFlags::IN,
        })
    }

    /// Reads on; a request is complete with its fourth byte, a call with the end of its line.
    pub(crate) fn read(&mut self) -> Asked {
        if let State::Calling(_) = self.state {
            return self.read_call();
        }
        let State::Reading(have) = &mut self.state else {
            // What a client says after its request means nothing; that it has gone does.
            let mut rest = [0; 64];
            match (&self.stream).read(&mut rest) {
                // Nobody would tell a follower's end from its silence.
                Ok(0) if matches!(self.state, State::Following(_)) => self.broken = true,
                // Its socket would stay ready, and the loop spin, until its command ends.
                Ok(0) if has_hung_up(&self.stream) => self.broken = true,
                // It may still read: a reply under way goes on.
                Ok(0) => self.finished = true,
                Err(e) if e.kind() != ErrorKind::WouldBlock => self.broken = true,
                _ => {}
            }
            return Asked::Nothing;
        };
        let mut buffer = [0; 4];
        let want = 4 - have.len();
        match (&self.stream).read(&mut buffer[..want]) {
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
            match (&self.stream).read(&mut buffer) {
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

    /// Bytes of the reply that the client has not read.
    pub(crate) fn unread(&self) -> usize {
        self.out.len()
    }

    /// True if a dump should go on.
    pub(crate) fn wants_more(&self) -> bool {
        matches!(self.state, State::Dumping(_)) && self.out.len() < HIGH_MARK / 2
    }

    /// Writes as much as the client takes.
    pub(crate) fn write(&mut self) {
        while !self.out.is_empty() {
            match (&self.stream).write(&self.out) {
                Ok(0) => {
                    self.broken = true;
                    return;
                }
                Ok(n) => {
                    self.progress = Instant::now();
                    self.out.drain(..n);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
        self.progress = Instant::now();
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
                silent: now.duration_since(self.since),
            },
            State::Waiting { .. } => Standing::Waiting,
            _ if self.out.is_empty() => Standing::Content,
            _ => Standing::Reading {
                stalled: now.duration_since(self.progress),
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

/// True if the client has closed its socket, rather than its writing half.
fn has_hung_up(stream: &UnixStream) -> bool {
    let mut list = [PollFd::new(stream, PollFlags::empty())];
    let _ = poll(&mut list, Some(&Timespec::default()));
    list[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that has been sent more than its socket takes.
    fn stalled() -> (Session, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut session = Session::new(ours).unwrap();
        session.state = State::Replying;
        session.reply(&vec![b'x'; 4 << 20]);
        session.write();
        assert!(session.unread() > 0);
        (session, theirs)
    }

    #[test]
    fn a_client_that_reads_nothing_is_disconnected_after_the_limit() {
        let (session, _client) = stalled();
        let after = |secs| session.end(session.progress + Duration::from_secs(secs));
        assert_eq!(after(30), None);
        assert_eq!(after(31), Some(End::Stalled));
    }

    #[test]
    fn a_client_that_reads_slowly_stays() {
        let (mut session, mut client) = stalled();
        let before = session.progress;
        client.read_exact(&mut [0; 1 << 16]).unwrap();
        session.write();
        assert!(session.progress > before && session.unread() > 0);
    }

    #[test]
    fn a_client_that_waits_for_its_command_is_never_disconnected() {
        let (mut session, _client) = stalled();
        session.state = State::Waiting {
            id: CommandId(1),
            is_call: true,
        };
        let late = session.progress + Duration::from_secs(1000);
        assert_eq!(session.end(late), None);
        assert_eq!(session.standing(late), Standing::Waiting);
    }

    #[test]
    fn who_has_left_while_its_command_runs_is_forgotten_and_who_has_finished_asking_is_not() {
        let waiting = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut session = Session::new(ours).unwrap();
            session.state = State::Waiting {
                id: CommandId(1),
                is_call: false,
            };
            (session, theirs)
        };
        let (mut session, client) = waiting();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        session.read();
        assert_eq!(session.end(Instant::now()), None);
        let (mut session, client) = waiting();
        drop(client);
        session.read();
        assert_eq!(session.end(Instant::now()), Some(End::Gone));
    }
}
