//! The control socket: accepts clients, or pauses when that is not possible.
//!
//! A client that cannot be served yet stays in the socket's backlog, where it waits: a
//! connection that is closed without a word means success in the original's protocol.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use replica::Instant;

/// How long nobody is accepted after that has failed: the listening socket stays ready, and
/// without a pause the loop would spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening socket.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    /// Held back, so that a command has a place when the descriptors are used up.
    spare: Option<File>,
    paused_until: Option<Instant>,
}

impl Door {
    /// The socket must not block.
    pub(crate) fn new(listener: UnixListener) -> Door {
        let mut door = Door {
            listener,
            spare: None,
            paused_until: None,
        };
        door.hold_spare();
        door
    }

    /// The next client; it does not block either.
    pub(crate) fn accept(&mut self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept()?;
        self.hold_spare();
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Takes a spare descriptor if there is none and one can be had.
    pub(crate) fn hold_spare(&mut self) {
        if self.spare.is_none() {
            self.spare = File::open("/dev/null").ok();
        }
    }

    pub(crate) fn has_spare(&self) -> bool {
        self.spare.is_some()
    }

    /// Gives the spare descriptor to the next client; false if there is none.
    pub(crate) fn use_spare(&mut self) -> bool {
        self.spare.take().is_some()
    }

    pub(crate) fn pause(&mut self, now: Instant) {
        self.paused_until = Some(now + PAUSE);
    }

    /// When listening goes on; `None` if it is not paused.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// True if a pause ends now.
    pub(crate) fn end_pause(&mut self, now: Instant) -> bool {
        let ends = self.paused_until.take_if(|until| *until <= now).is_some();
        if ends {
            self.hold_spare();
        }
        ends
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// True if the process or the system has no descriptor left (`EMFILE`, `ENFILE`).
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
