//! The descriptors of all links, as one descriptor for the loop.
//!
//! Connections come and go; the loop waits for this set, and then looks at every link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};

/// Ready when one of its members is. A member that is closed leaves the set.
#[derive(Clone, Debug)]
pub(crate) struct Ready(Arc<OwnedFd>);

impl Ready {
    pub(crate) fn new() -> io::Result<Ready> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Ready(Arc::new(set)))
    }

    /// Adds a descriptor that is ready when there is something to read.
    pub(crate) fn add(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::add(&*self.0, fd, NOBODY, EventFlags::IN)?)
    }

    /// Whether a member is also ready when it can be written to.
    pub(crate) fn writes(&self, fd: impl AsFd, on: bool) -> io::Result<()> {
        let flags = if on {
            EventFlags::IN | EventFlags::OUT
        } else {
            EventFlags::IN
        };
        Ok(epoll::modify(&*self.0, fd, NOBODY, flags)?)
    }
}

/// Which member is ready is not asked.
const NOBODY: EventData = EventData::new_u64(0);

impl AsFd for Ready {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
