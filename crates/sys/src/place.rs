//! What is at a path that a configuration names, and whether the daemon may keep its file there.
//!
//! A path may be mistaken. What is not the daemon's is neither removed nor written to.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// What the daemon keeps at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An empty file, which it holds locked and removes at its end.
    Lock,
    /// A socket, which it makes at its start and removes at its end.
    Socket,
    /// A log, to which it appends.
    Log,
    /// A page of metrics, which it replaces often and removes at its end.
    Metrics,
}

/// How every page of metrics begins.
const METRICS_BEGIN: &[u8] = b"# HELP ftfw_";

impl Place {
    /// What may be at the path, for messages.
    #[must_use]
    pub const fn accepted(self) -> &'static str {
        match self {
            Place::Lock => "a path where nothing is, or an empty file",
            Place::Socket => "a path where nothing is, or a socket that nobody listens on",
            Place::Log => {
                "a path where nothing is, a regular file, a character device, or a pipe that is read"
            }
            Place::Metrics => "a path where nothing is, or a page of metrics of ftfw",
        }
    }

    /// Looks at what is at `path`, and changes nothing. A symbolic link is followed for a log
    /// only. Whether somebody listens on a socket is the question of [`check_socket`].
    ///
    /// # Errors
    /// What is there and what would be accepted, if the daemon's file may not be there. The
    /// message lacks the path.
    pub fn check(self, path: &Path) -> io::Result<()> {
        let found = match self {
            Place::Log => fs::metadata(path),
            _ => fs::symlink_metadata(path),
        };
        let found = match found {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NotFound => return self.check_folder(path),
            Err(e) => return Err(self.explain(e)),
        };
        match self.takes(path, &found) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.explain(format_args!("{} is there", describe(&found)))),
            Err(e) => Err(self.explain(e)),
        }
    }

    fn check_folder(self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(folder) if !folder.is_dir() => {
                Err(self.explain(format_args!("there is no folder {}", folder.display())))
            }
            _ => Ok(()),
        }
    }

    fn takes(self, path: &Path, found: &Metadata) -> io::Result<bool> {
        let kind = found.file_type();
        Ok(match self {
            Place::Lock => is_empty_file(found),
            Place::Socket => kind.is_socket(),
            Place::Log => kind.is_file() || kind.is_char_device() || kind.is_fifo(),
            Place::Metrics => is_empty_file(found) || kind.is_file() && is_metrics_page(path)?,
        })
    }

    /// An error with what would be accepted.
    pub fn explain(self, why: impl std::fmt::Display) -> io::Error {
        io::Error::other(format!("{why}; accepted: {}", self.accepted()))
    }
}

fn is_empty_file(found: &Metadata) -> bool {
    found.is_file() && found.len() == 0
}

fn is_metrics_page(path: &Path) -> io::Result<bool> {
    let mut begin = Vec::new();
    let file = File::open(path)?;
    file.take(METRICS_BEGIN.len() as u64)
        .read_to_end(&mut begin)?;
    Ok(begin == METRICS_BEGIN)
}

fn describe(found: &Metadata) -> &'static str {
    let is = |kind: fn(&FileType) -> bool| kind(&found.file_type());
    match () {
        () if is(FileType::is_symlink) => "a symbolic link",
        () if is(FileType::is_dir) => "a directory",
        () if is(FileTypeExt::is_fifo) => "a pipe",
        () if is(FileTypeExt::is_socket) => "a socket",
        () if is(FileTypeExt::is_block_device) => "a block device",
        () if is(FileTypeExt::is_char_device) => "a character device",
        () if found.len() == 0 => "an empty file",
        () => "a file with content",
    }
}

/// Opens a log to append to it. A log is made if there is none, and only its owner reads it.
///
/// # Errors
/// What is there and what would be accepted.
pub fn open_log(path: &Path) -> io::Result<File> {
    Place::Log.check(path)?;
    // Nobody may read a pipe, and a reader may be slow: neither may stop the daemon.
    let mut options = OpenOptions::new();
    let options = options.create(true).append(true).mode(0o600);
    let opened = options.custom_flags(flags(OFlags::NONBLOCK)).open(path);
    opened.map_err(|e| match Errno::from_io_error(&e) {
        Some(Errno::NXIO) => Place::Log.explain("a pipe that nobody reads is there"),
        _ => Place::Log.explain(e),
    })
}

/// Takes the lock at `path`, and makes its file if there is none. The lock is held as long as the
/// file is open. `None` if somebody else holds it, or has just removed the file.
///
/// # Errors
/// What is there and what would be accepted.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = open_lock(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        locked => locked.map_err(|e| Place::Lock.explain(io::Error::from(e)))?,
    }
    // Whoever held the lock removes the file at its end, and the next one makes another.
    let is_ours = is_still_at(path, identity(&file.metadata()?));
    Ok(is_ours.then_some(file))
}

/// Opens a lock file, and makes one if there is none. It is not locked yet.
fn open_lock(path: &Path) -> io::Result<File> {
    Place::Lock.check(path)?;
    let mut options = OpenOptions::new();
    let options = options.create(true).append(true).mode(0o600);
    let flags = flags(OFlags::NOFOLLOW | OFlags::NONBLOCK);
    let file = options.custom_flags(flags).open(path);
    let file = file.map_err(|e| Place::Lock.explain(e))?;
    let found = file.metadata()?;
    match is_empty_file(&found) {
        true => Ok(file),
        false => Err(Place::Lock.explain(format_args!("{} is there", describe(&found)))),
    }
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// True if somebody listens on the socket at `path`; false if nobody does, or nothing is there.
fn is_answered(path: &Path) -> io::Result<bool> {
    let address = SocketAddrUnix::new(path)?;
    let (kind, flags) = (SocketType::STREAM, SocketFlags::NONBLOCK);
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Err(Errno::CONNREFUSED | Errno::NOENT | Errno::NOTDIR) => Ok(false),
        // Its backlog is full, or it is of another type.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// Listens on a path where a dead daemon's socket may be, which is removed first.
///
/// # Errors
/// What is there and what would be accepted, or that somebody listens already.
pub fn bind(path: &Path) -> io::Result<(UnixListener, OwnFile)> {
    check_socket(path)?;
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(Place::Socket.explain(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|e| Place::Socket.explain(e))?;
    let own = OwnFile::at(Place::Socket, path)?;
    Ok((listener, own))
}

/// Looks whether [`bind`] can succeed, and changes nothing.
///
/// # Errors
/// Those of [`bind`].
pub fn check_socket(path: &Path) -> io::Result<()> {
    Place::Socket.check(path)?;
    match is_answered(path) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Place::Socket.explain("another daemon answers")),
        Err(e) => Err(Place::Socket.explain(e)),
    }
}

/// A file of ours, which is removed when this is dropped.
#[derive(Debug)]
pub struct OwnFile {
    place: Place,
    path: PathBuf,
    /// Device and inode: another file may have taken the path meanwhile.
    identity: (u64, u64),
}

impl OwnFile {
    /// The file that is now at `path`.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn at(place: Place, path: &Path) -> io::Result<OwnFile> {
        Ok(OwnFile {
            place,
            path: path.to_owned(),
            identity: identity(&fs::symlink_metadata(path)?),
        })
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if is_still_at(&self.path, self.identity) && self.place.check(&self.path).is_ok() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_still_at(path: &Path, file: (u64, u64)) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| identity(&found) == file)
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

#[cfg(test)]
mod tests;
