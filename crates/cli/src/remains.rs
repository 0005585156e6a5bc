//! What a daemon leaves behind that was killed: its control socket, which nobody listens on.
//!
//! A live daemon's own start removes it. HA managers take the socket's file for a daemon,
//! though: Pacemaker's agent stops one until the file is gone, and would try for ever.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use sys::place::{self, OwnFile, Place};

/// Removes the socket of a dead daemon that was to be stopped, if connecting to it has failed
/// because nobody listens. Yields what to add to the message.
pub(crate) fn note(lock: &Path, socket: &Path, error: &io::Error) -> Option<String> {
    if error.kind() != io::ErrorKind::ConnectionRefused {
        return None;
    }
    // A file that is no socket refuses connections, too.
    if let Err(e) = Place::Socket.check(socket) {
        return Some(format!("\nthis is not the socket of a daemon: {e}"));
    }
    let text = match remove_socket(lock, socket) {
        Ok(true) => "\na dead daemon had left this socket: removed".to_owned(),
        Ok(false) => "\na daemon is starting or ending".to_owned(),
        Err(e) => format!("\na dead daemon has left this socket, which cannot be removed: {e}"),
    };
    Some(text)
}

/// True if a daemon holds the lock: it lives, whether it answers or not.
pub(crate) fn is_locked(lock: &Path) -> bool {
    let held = |file| flock(file, FlockOperation::NonBlockingLockShared).is_err();
    fs::File::open(lock).is_ok_and(held)
}

/// Removes the socket of a dead daemon, which refuses connections: false if it may belong to
/// a living one.
///
/// A daemon holds the lock from before it makes its socket until its end, so whoever gets the
/// lock knows that there is none.
pub(crate) fn remove_socket(lock: &Path, socket: &Path) -> io::Result<bool> {
    let taken = place::try_lock(lock)
        .map_err(|e| io::Error::other(format!("lockfile '{}': {e}", lock.display())))?;
    let Some(_held) = taken else {
        return Ok(false);
    };
    // The file of the lock goes, too, while the lock is held.
    let _own = OwnFile::at(Place::Lock, lock)?;
    fs::remove_file(socket)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_dead_daemons_socket_is_removed_and_a_living_ones_is_not() {
        let dir = std::env::temp_dir().join(format!("ftfw-remains-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (lock, socket) = (dir.join("lock"), dir.join("control"));
        drop(UnixListener::bind(&socket).unwrap());
        let held = place::try_lock(&lock).unwrap().unwrap();
        assert!(is_locked(&lock) && !is_locked(&socket));
        assert!(!remove_socket(&lock, &socket).unwrap());
        assert!(socket.exists());
        drop(held);
        assert!(!is_locked(&lock));
        assert!(remove_socket(&lock, &socket).unwrap());
        assert!(!socket.exists() && !lock.exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
