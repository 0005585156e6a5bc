//! Which clients are served, and which make room for others.
//!
//! A failover script must always get a place for its commands. Therefore readers (dumps,
//! listings, events) take only [`READERS_MAX`] of the [`CLIENTS_MAX`] places, and one that
//! reads nothing makes room. When no place or no descriptor is left, the new client stays
//! in the socket's backlog, where it waits: a connection that is closed without a word
//! means success in the original's protocol.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant as OsInstant};

use control::call::Head;
use replica::Level;
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::limit::Kind;
use crate::session::{End, STALL_LIMIT, Session, Standing};
use crate::turn::{CONTROL, Loop};

/// Clients at a time.
pub(crate) const CLIENTS_MAX: usize = 64;
/// Clients at a time that read. The other places are for commands.
pub(crate) const READERS_MAX: usize = 48;
/// Listings of the kernel's table at a time: each has a thread, and the kernel walks its
/// whole table for it.
pub(crate) const LISTINGS_MAX: usize = 4;
/// A reader that has read nothing for this long makes room when its place is needed. One
/// that reads is back in less.
const STALLED: Duration = Duration::from_secs(1);
/// How long nobody is accepted after that has failed: the listening socket stays ready, and
/// without a pause the loop would spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The control socket.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    /// Held back, so that a command has a place when the descriptors are used up.
    spare: Option<File>,
    paused_until: Option<OsInstant>,
}

impl Door {
    pub(crate) fn new(listener: UnixListener) -> Door {
        let mut door = Door {
            listener,
            spare: None,
            paused_until: None,
        };
        door.hold_spare();
        door
    }

    /// When listening goes on; `None` if it is not paused.
    pub(crate) fn paused_until(&self) -> Option<OsInstant> {
        self.paused_until
    }

    /// Takes a spare descriptor if there is none and one can be had.
    fn hold_spare(&mut self) {
        if self.spare.is_none() {
            self.spare = File::open("/dev/null").ok();
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// What clients have met with since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientStats {
    /// Connections that could not be accepted.
    pub(crate) accept_failed: u64,
    /// Readers and listings that were refused because too many were there.
    pub(crate) refused: u64,
    /// Clients that were disconnected because they read nothing.
    pub(crate) dropped: u64,
}

impl Loop {
    /// Accepts one client.
    pub(crate) fn accept(&mut self) {
        if self.sessions.len() >= CLIENTS_MAX && !self.make_room() {
            return self.pause("every client waits for the end of its command");
        }
        let Some(door) = &mut self.core.control else {
            return;
        };
        match door.listener.accept() {
            Ok((stream, _)) => {
                door.hold_spare();
                if let Err(e) = self.welcome(stream) {
                    self.fail_accept(&e.to_string());
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => {
                // The client is still in the backlog, and is accepted at the next turn.
                let has_room = is_exhausted(&e) && (self.make_room() || self.use_spare());
                self.fail_accept(&e.to_string());
                if !has_room {
                    self.pause("it is tried again ten times a second");
                }
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream) -> anyhow::Result<()> {
        let token = self.next_session;
        self.next_session += 1;
        let session = Session::new(stream)?;
        self.add(&session.stream, token)?;
        self.sessions.insert(token, session);
        Ok(())
    }

    fn fail_accept(&mut self, why: &str) {
        self.clients.accept_failed += 1;
        let text = format!("control socket: a client cannot be accepted: {why}");
        self.core.log.limited(Kind::Accept, Level::Error, text);
    }

    /// Gives the spare descriptor to the next client.
    fn use_spare(&mut self) -> bool {
        let door = self.core.control.as_mut();
        door.is_some_and(|d| d.spare.take().is_some())
    }

    /// Closes the client that can best be spared.
    fn make_room(&mut self) -> bool {
        let now = OsInstant::now();
        let standings = self.sessions.iter().map(|(n, s)| (*n, s.standing(now)));
        let Some(token) = dispensable(standings) else {
            return false;
        };
        self.drop_client(token, now);
        true
    }

    fn drop_client(&mut self, token: u64, now: OsInstant) {
        let Some(session) = self.sessions.remove(&token) else {
            return;
        };
        if let Standing::Reading { stalled } = session.standing(now) {
            self.clients.dropped += 1;
            let secs = stalled.as_secs();
            let text =
                format!("control socket: a client that has read nothing for {secs} s makes room");
            self.core.log.limited(Kind::Clients, Level::Warning, text);
        }
    }

    fn pause(&mut self, why: &str) {
        let text = format!("control socket: clients have to wait: {why}");
        self.core.log.limited(Kind::Accept, Level::Warning, text);
        if let Some(door) = &mut self.core.control {
            door.paused_until = Some(OsInstant::now() + PAUSE);
            listen(&self.epoll, door, false);
        }
    }

    /// Listens again after a pause.
    pub(crate) fn end_pause(&mut self) {
        if let Some(door) = &mut self.core.control
            && let Some(until) = door.paused_until
            && until <= OsInstant::now()
        {
            door.paused_until = None;
            door.hold_spare();
            listen(&self.epoll, door, true);
        }
    }

    /// Makes sure that a client may become a reader.
    ///
    /// # Errors
    /// The answer to a client for which there is no room.
    pub(crate) fn admit_reader(&mut self, token: u64) -> Result<(), Head> {
        let now = OsInstant::now();
        let has_spare = |d: &Door| d.spare.is_some();
        if !self.core.control.as_ref().is_none_or(has_spare) {
            // It has the descriptor that is held back for commands.
            return Err(self.refuse_reader("the daemon has no descriptor left"));
        }
        let readers = self.sessions.values().filter(|s| s.is_reader()).count();
        if readers + self.listings.running() < READERS_MAX {
            return Ok(());
        }
        let others = self.sessions.iter().filter(|(n, _)| **n != token);
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
    pub(crate) fn admit_listing(&mut self, token: u64) -> Result<Reserved, Head> {
        self.admit_reader(token)?;
        if self.listings.running() >= LISTINGS_MAX {
            let why = format!("{LISTINGS_MAX} clients are listing the kernel's table");
            return Err(self.refuse_reader(&why));
        }
        let reserved = self.listings.reserve();
        reserved.map_err(|e| self.refuse_reader(&format!("no thread for a listing: {e}")))
    }

    /// Counts and logs the refusal; in the original's protocol the client cannot be told.
    pub(crate) fn refuse_reader(&mut self, why: &str) -> Head {
        self.clients.refused += 1;
        let text = format!("control socket: a reader is refused: {why}");
        self.core.log.limited(Kind::Clients, Level::Warning, text);
        Head::error(why, "try again when one of them has ended")
    }

    /// Writes what clients are owed, and closes those that are done with.
    pub(crate) fn close_sessions(&mut self) {
        let now = OsInstant::now();
        let mut closed = Vec::new();
        for (token, session) in &mut self.sessions {
            session.write();
            if let Some(flags) = session.watch() {
                let data = EventData::new_u64(*token);
                if epoll::modify(&self.epoll, &session.stream, data, flags).is_err() {
                    closed.push((*token, End::Gone));
                    continue;
                }
            }
            if let Some(end) = session.end(now) {
                closed.push((*token, end));
            }
        }
        for (token, end) in &closed {
            self.sessions.remove(token);
            if *end == End::Stalled {
                self.clients.dropped += 1;
                let secs = STALL_LIMIT.as_secs();
                let text = format!(
                    "control socket: a client that has read nothing for {secs} s is disconnected"
                );
                self.core.log.limited(Kind::Clients, Level::Warning, text);
            }
        }
        if let Some(door) = &mut self.core.control
            && !closed.is_empty()
        {
            door.hold_spare();
        }
    }
}

/// Watches the listening socket, or does not. The kernel has no reason to refuse that; if it
/// does, the loop spins but works.
fn listen(epoll: &impl AsFd, door: &Door, on: bool) {
    let flags = if on {
        EventFlags::IN
    } else {
        EventFlags::empty()
    };
    let _ = epoll::modify(epoll, door, EventData::new_u64(CONTROL), flags);
}

/// The client that can best be spared: the one that has been silent longest without a
/// request, otherwise the reader that has been stalled longest. A client that waits for the
/// end of its command is never chosen.
fn dispensable(clients: impl Iterator<Item = (u64, Standing)>) -> Option<u64> {
    let ranked = clients.filter_map(|(token, standing)| match standing {
        Standing::Asking { silent } => Some(((1, silent), token)),
        Standing::Reading { stalled } if stalled >= STALLED => Some(((0, stalled), token)),
        Standing::Reading { .. } | Standing::Waiting | Standing::Content => None,
    });
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, token)| token)
}

/// The process or the system has no descriptor left (`EMFILE`, `ENFILE`).
fn is_exhausted(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads that list the kernel's table for clients.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    /// Each thread holds another one of it.
    running: Arc<()>,
}

/// A thread that waits for what it is to do, and ends without it.
#[derive(Debug)]
pub(crate) struct Reserved(SyncSender<Job>);

impl Listings {
    pub(crate) fn running(&self) -> usize {
        Arc::strong_count(&self.running) - 1
    }

    fn reserve(&self) -> io::Result<Reserved> {
        let running = Arc::clone(&self.running);
        // Room for the one job, so that handing it over never waits.
        let (jobs, from_core) = sync_channel::<Job>(1);
        thread::Builder::new()
            .name("listing".to_owned())
            .spawn(move || {
                let _running = running;
                if let Ok(job) = from_core.recv() {
                    job();
                }
            })?;
        Ok(Reserved(jobs))
    }
}

impl Reserved {
    pub(crate) fn start(self, job: impl FnOnce() + Send + 'static) {
        // The thread waits for it.
        let _ = self.0.send(Box::new(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(secs: u64) -> Standing {
        Standing::Reading {
            stalled: Duration::from_secs(secs),
        }
    }

    fn asking(secs: u64) -> Standing {
        Standing::Asking {
            silent: Duration::from_secs(secs),
        }
    }

    fn chosen(standings: &[Standing]) -> Option<u64> {
        dispensable((0..).zip(standings.iter().copied()))
    }

    #[test]
    fn whoever_has_asked_nothing_goes_first_then_the_longest_stalled_reader() {
        let standings = [reading(20), asking(3), asking(5), Standing::Waiting];
        assert_eq!(chosen(&standings), Some(2));
        let standings = [reading(2), Standing::Content, reading(20), reading(0)];
        assert_eq!(chosen(&standings), Some(2));
    }

    #[test]
    fn who_waits_for_a_command_or_reads_well_stays() {
        let standings = [Standing::Waiting, Standing::Content, reading(0)];
        assert_eq!(chosen(&standings), None);
    }

    #[test]
    fn a_listing_is_counted_until_its_thread_has_ended() {
        let listings = Listings::default();
        let reserved = listings.reserve().unwrap();
        let (tx, rx) = std::sync::mpsc::channel();
        assert_eq!(listings.running(), 1);
        // A thread without a job ends, too.
        drop(listings.reserve().unwrap());
        reserved.start(move || tx.send(()).unwrap());
        rx.recv().unwrap();
        while listings.running() > 0 {
            thread::yield_now();
        }
    }
}
