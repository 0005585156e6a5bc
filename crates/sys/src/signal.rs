//! Signals as a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A signal that the daemon acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: end in good order.
    Terminate,
    /// SIGHUP: open the log file again.
    Hangup,
}

/// Delivers signals through a descriptor instead of interrupting.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 for this thread and those that
    /// it starts from now on. SIGPIPE is ignored by every Rust program already.
    ///
    /// # Errors
    /// The system's error.
    pub fn open() -> io::Result<Signals> {
        // SAFETY: `sigset_t` is plain data that `sigemptyset` initialises; the calls
        // get pointers to it while it lives, and the descriptor is ours alone.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [
                libc::SIGTERM,
                libc::SIGINT,
                libc::SIGHUP,
                libc::SIGUSR1,
                libc::SIGUSR2,
            ] {
                libc::sigaddset(&raw mut set, signal);
            }
            let rc = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            if rc != 0 {
                return Err(io::Error::from_raw_os_error(rc));
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Signals(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// The next signal that has come, if any. SIGUSR1 and SIGUSR2 are swallowed.
    pub fn next(&self) -> Option<Signal> {
        loop {
            // SAFETY: `signalfd_siginfo` is plain data; the read gets its address and
            // size, and the kernel writes whole structures only.
            let info = unsafe {
                let mut info: libc::signalfd_siginfo = std::mem::zeroed();
                let size = size_of::<libc::signalfd_siginfo>();
                let got = libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size);
                if got != size.cast_signed() {
                    return None;
                }
                info
            };
            match i32::try_from(info.ssi_signo) {
                Ok(libc::SIGTERM | libc::SIGINT) => return Some(Signal::Terminate),
                Ok(libc::SIGHUP) => return Some(Signal::Hangup),
                _ => {}
            }
        }
    }
}

/// Lets this thread, and the threads and programs that it starts from now on, receive all signals
/// again: a program begins with what its parent has blocked.
///
/// # Errors
/// The system's error.
pub fn unblock() -> io::Result<()> {
    // SAFETY: `sigset_t` is plain data that `sigemptyset` initialises, and the call gets a pointer
    // to it while it lives.
    let rc = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
    };
    match rc {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(signal: i32) {
        // SAFETY: the calling thread exists; the signal goes to it alone.
        let rc = unsafe { libc::pthread_kill(libc::pthread_self(), signal) };
        assert_eq!(rc, 0);
    }

    #[test]
    fn signals_are_read_and_interrupt_nothing() {
        let signals = Signals::open().unwrap();
        assert_eq!(signals.next(), None);
        raise(libc::SIGHUP);
        assert_eq!(signals.next(), Some(Signal::Hangup));
        raise(libc::SIGUSR1);
        raise(libc::SIGTERM);
        assert_eq!(signals.next(), Some(Signal::Terminate));
        assert_eq!(signals.next(), None);
    }
}
