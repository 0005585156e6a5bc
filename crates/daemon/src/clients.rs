//! All control clients: their sessions, what is ready of them, who makes room for whom.
//!
//! A failover script must always get a place for its commands. Therefore readers (dumps,
//! listings, events) take only [`READERS_MAX`] of the [`CLIENTS_MAX`] places, and one that
//! reads nothing makes room. When no place or no descriptor is left, the new client waits
//! in the socket's backlog (`door`).
//!
//! Their descriptors have an epoll of their own, which is one descriptor of the loop.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use control::call::{Head, Tail};
use replica::{CommandId, Instant};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::door::{Door, is_exhausted};
use crate::limit::Kind;
use crate::line::Level;
use crate::listing::{Listings, Reserved};
use crate::session::{End, STALL_LIMIT, STALLED, Session, Standing};

/// Clients at a time.
const CLIENTS_MAX: usize = 64;
/// Clients at a time that read. The other places are for commands.
const READERS_MAX: usize = 48;
/// Listings of the kernel's table at a time: each has a thread, and the kernel walks its
/// whole table for it.
const LISTINGS_MAX: usize = 4;
/// What epoll calls the door; clients are numbered from 1.
const DOOR: u64 = 0;

/// Names a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientId(u64);

/// The control socket and everybody who is connected to it.
#[derive(Debug)]
pub(crate) struct Clients {
    epoll: OwnedFd,
    /// `None` without a control socket.
    door: Option<Door>,
    sessions: BTreeMap<ClientId, Session>,
    last: ClientId,
    listings: Listings,
    /// Connections that could not be accepted.
    pub(crate) accept_failed: u64,
    /// Readers and listings that were refused because too many were there.
    pub(crate) refused: u64,
    /// Clients that were disconnected because they read nothing.
    pub(crate) dropped: u64,
    lines: Vec<(Kind, Level, String)>,
}

impl AsFd for Clients {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Clients {
    pub(crate) fn new(door: Option<Door>) -> Result<Clients> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
        if let Some(door) = &door {
            watch(&epoll, door, DOOR)?;
        }
        Ok(Clients {
            epoll,
            door,
            sessions: BTreeMap::new(),
            last: ClientId(DOOR),
            listings: Listings::default(),
            accept_failed: 0,
            refused: 0,
            dropped: 0,
            lines: Vec::new(),
        })
    }

    /// Accepts whoever waits for that, and yields the clients that can be read or written.
    pub(crate) fn ready(&mut self, now: Instant) -> Vec<ClientId> {
        let mut list: Vec<epoll::Event> = Vec::with_capacity(CLIENTS_MAX + 1);
        let spare = rustix::buffer::spare_capacity(&mut list);
        // Nothing is lost by an error: what is ready stays so.
        let _ = epoll::wait(&self.epoll, spare, Some(&Timespec::default()));
        let mut ready = Vec::new();
        for event in &list {
            match event.data.u64() {
                DOOR => self.accept(now),
                n => ready.push(ClientId(n)),
            }
        }
        ready
    }

    pub(crate) fn get(&mut self, id: ClientId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    /// Takes a client out: somebody else goes on with it.
    pub(crate) fn take(&mut self, id: ClientId) -> Option<Session> {
        self.sessions.remove(&id)
    }

    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut Session> {
        self.sessions.values_mut()
    }

    /// True if anybody follows events.
    pub(crate) fn follow(&self) -> bool {
        self.sessions.values().any(Session::follows)
    }

    /// True if a client's dump should go on at once.
    pub(crate) fn want_more(&self) -> bool {
        self.sessions.values().any(Session::wants_more)
    }

    /// A command is over, and `tail` says how.
    pub(crate) fn command_done(&mut self, id: CommandId, tail: &Tail) {
        for session in self.all().filter(|s| s.waits_for(id)) {
            session.command_done(tail);
        }
    }

    /// When [`Clients::settle`] has something to do without anybody being ready.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.door.as_ref().and_then(Door::paused_until)
    }

    /// What is to be logged since the last call.
    pub(crate) fn lines(&mut self) -> Vec<(Kind, Level, String)> {
        std::mem::take(&mut self.lines)
    }

    fn log(&mut self, kind: Kind, level: Level, what: &str) {
        self.lines
            .push((kind, level, format!("control socket: {what}")));
    }

    // ---- who comes ----

    /// Accepts one client.
    fn accept(&mut self, now: Instant) {
        if self.sessions.len() >= CLIENTS_MAX && !self.make_room(now) {
            return self.pause(now, "every client waits for the end of its command");
        }
        let Some(door) = &mut self.door else {
            return;
        };
        match door.accept() {
            Ok(stream) => {
                if let Err(e) = self.welcome(stream, now) {
                    self.fail_accept(&e.to_string());
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => {
                // The client is still in the backlog, and is accepted at the next turn.
                let has_room = is_exhausted(&e) && (self.make_room(now) || self.use_spare());
                self.fail_accept(&match is_exhausted(&e) {
                    true => format!("{e}: raise LimitNOFILE= of the unit"),
                    false => e.to_string(),
                });
                if !has_room {
                    self.pause(now, "it is tried again ten times a second");
                }
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream, now: Instant) -> io::Result<ClientId> {
        let id = ClientId(self.last.0 + 1);
        self.last = id;
        watch(&self.epoll, &stream, id.0)?;
        self.sessions.insert(id, Session::new(stream, now));
        Ok(id)
    }

    fn fail_accept(&mut self, why: &str) {
        self.accept_failed += 1;
        let what = format!("a client cannot be accepted: {why}");
        self.log(Kind::Accept, Level::Error, &what);
    }

    fn use_spare(&mut self) -> bool {
        self.door.as_mut().is_some_and(Door::use_spare)
    }

    fn pause(&mut self, now: Instant, why: &str) {
        let what = format!("clients have to wait: {why}");
        self.log(Kind::Accept, Level::Warning, &what);
        if let Some(door) = &mut self.door {
            door.pause(now);
            listen(&self.epoll, door, false);
        }
    }

    // ---- who makes room ----

    /// Closes the client that can best be spared.
    fn make_room(&mut self, now: Instant) -> bool {
        let standings = self.sessions.iter().map(|(id, s)| (*id, s.standing(now)));
        let Some(id) = dispensable(standings) else {
            return false;
        };
        self.drop_client(id, now);
        true
    }

    fn drop_client(&mut self, id: ClientId, now: Instant) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        if let Standing::Reading { stalled } = session.standing(now) {
            self.dropped += 1;
            let secs = stalled.as_secs();
            let what = format!("a client that has read nothing for {secs} s makes room");
            self.log(Kind::Clients, Level::Warning, &what);
        }
    }

    /// Makes sure that a client may become a reader.
    ///
    /// # Errors
    /// The answer to a client for which there is no room.
    pub(crate) fn admit_reader(&mut self, id: ClientId, now: Instant) -> Result<(), Head> {
        if !self.door.as_ref().is_none_or(Door::has_spare) {
            // It has the descriptor that is held back for commands.
            return Err(self.refuse_reader("the daemon has no descriptor left"));
        }
        let readers = self.sessions.values().filter(|s| s.is_reader()).count();
        if readers + self.listings.running() < READERS_MAX {
            return Ok(());
        }
        let others = self.sessions.iter().filter(|(n, _)| **n != id);
        let others = others.map(|(n, s)| (*n, s.standing(now)));
        let readers = others.filter(|(_, s)| matches!(s, Standing::Reading { .. }));
        match dispensable(readers) {
            Some(other) => {
                self.drop_client(other, now);
                Ok(())
            }
            None => Err(self.refuse_reader(&format!("{READERS_MAX} clients are reading"))),
        }
    }

    /// Takes a thread for a listing of the kernel's table.
    ///
    /// # Errors
    /// The answer to a client for which there is none.
    pub(crate) fn admit_listing(&mut self, id: ClientId, now: Instant) -> Result<Reserved, Head> {
        self.admit_reader(id, now)?;
        if self.listings.running() >= LISTINGS_MAX {
            let why = format!("{LISTINGS_MAX} clients are listing the kernel's table");
            return Err(self.refuse_reader(&why));
        }
        let reserved = self.listings.reserve();
        reserved.map_err(|e| self.refuse_reader(&format!("no thread for a listing: {e}")))
    }

    /// Counts and logs the refusal; in the original's protocol the client cannot be told.
    pub(crate) fn refuse_reader(&mut self, why: &str) -> Head {
        self.refused += 1;
        let what = format!("a reader is refused: {why}");
        self.log(Kind::Clients, Level::Warning, &what);
        Head::error(why, "try again when one of them has ended")
    }

    // ---- who leaves ----

    /// Writes what clients are owed, closes those that are done with, and ends a pause.
    pub(crate) fn settle(&mut self, now: Instant) {
        let mut closed = Vec::new();
        for (id, session) in &mut self.sessions {
            session.write(now);
            let is_watched = session.watch().is_none_or(|flags| {
                let data = EventData::new_u64(id.0);
                epoll::modify(&self.epoll, &session.stream, data, flags).is_ok()
            });
            let end = session.end(now).or((!is_watched).then_some(End::Gone));
            closed.extend(end.map(|end| (*id, end)));
        }
        for (id, end) in &closed {
            self.sessions.remove(id);
            if *end == End::Stalled {
                self.dropped += 1;
                let secs = STALL_LIMIT.as_secs();
                let what = format!("a client that has read nothing for {secs} s is disconnected");
                self.log(Kind::Clients, Level::Warning, &what);
            }
        }
        if let Some(door) = &mut self.door {
            if !closed.is_empty() {
                door.hold_spare();
            }
            if door.end_pause(now) {
                listen(&self.epoll, door, true);
            }
        }
    }
}

fn watch(epoll: &OwnedFd, source: impl AsFd, token: u64) -> io::Result<()> {
    epoll::add(epoll, source, EventData::new_u64(token), EventFlags::IN)?;
    Ok(())
}

/// Watches the listening socket, or does not. The kernel has no reason to refuse that; if it
/// does, the loop spins but works.
fn listen(epoll: &OwnedFd, door: &Door, on: bool) {
    let flags = if on {
        EventFlags::IN
    } else {
        EventFlags::empty()
    };
    let _ = epoll::modify(epoll, door, EventData::new_u64(DOOR), flags);
}

/// The client that can best be spared: the one that has been silent longest without a
/// request, otherwise the reader that has been stalled longest. A client that waits for the
/// end of its command is never chosen.
fn dispensable<Id>(clients: impl Iterator<Item = (Id, Standing)>) -> Option<Id> {
    let ranked = clients.filter_map(|(id, standing)| match standing {
        Standing::Asking { silent } => Some(((1, silent), id)),
        Standing::Reading { stalled } if stalled >= STALLED => Some(((0, stalled), id)),
        Standing::Reading { .. } | Standing::Waiting | Standing::Content => None,
    });
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, id)| id)
}

#[cfg(test)]
mod tests;
