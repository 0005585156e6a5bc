use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener};

use rustix::fs::{CWD, Mode};

use super::*;

const ALL: [Place; 4] = [Place::Lock, Place::Socket, Place::Log, Place::Metrics];

/// A folder of its own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("ftfw-place-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the daemon does at a path: it opens its file, and ends at once.
fn use_it(place: Place, path: &Path) -> io::Result<()> {
    match place {
        Place::Lock => open_lock(path).and_then(|_| OwnFile::at(place, path).map(drop)),
        Place::Socket => bind(path).map(drop),
        Place::Log => open_log(path).map(drop),
        Place::Metrics => place.check(path),
    }
}

/// Makes something at a path; what is returned keeps it alive.
type Make = fn(&Path) -> Option<OwnedFd>;

fn write(path: &Path, text: &str) -> Option<OwnedFd> {
    fs::write(path, text).unwrap();
    None
}

fn link(target: &Path, path: &Path) -> Option<OwnedFd> {
    symlink(target, path).unwrap();
    None
}

fn pipe(path: &Path) -> Option<OwnedFd> {
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    None
}

fn dead_socket(path: &Path) -> Option<OwnedFd> {
    UnixListener::bind(path).unwrap();
    None
}

/// What was made, as far as it shows: kind, inode, content, and where a link leads.
fn look(path: &Path) -> (FileType, u64, Option<Vec<u8>>, Option<PathBuf>) {
    let found = fs::symlink_metadata(path).unwrap();
    let content = found.is_file().then(|| fs::read(path).unwrap());
    let target = fs::read_link(path).ok();
    (found.file_type(), found.ino(), content, target)
}

/// Goal: whatever is at a path and is not ours stays as it is, and the message names it and
/// what would be accepted.
/// Method: every kind of thing at each place, used as the daemon uses it.
#[test]
fn what_is_not_ours_stays_as_it_is() {
    use Place::{Lock, Log, Metrics, Socket};
    let kinds: [(&str, Make, &[Place]); 13] = [
        ("a file with content is there", |p| write(p, "mine"), &[Log]),
        (
            "a file with content is there",
            |p| write(p, "# HELP ftfw_x\n"),
            &[Log, Metrics],
        ),
        (
            "an empty file is there",
            |p| write(p, ""),
            &[Lock, Log, Metrics],
        ),
        (
            "a directory is there",
            |p| {
                fs::create_dir(p).unwrap();
                None
            },
            &[],
        ),
        (
            "a symbolic link is there",
            |p| {
                write(&p.with_extension("target"), "mine");
                link(&p.with_extension("target"), p)
            },
            &[Log],
        ),
        (
            "a symbolic link is there",
            |p| link(&p.with_extension("none"), p),
            &[Log],
        ),
        ("symbolic link", |p| link(p, p), &[]),
        (
            "a symbolic link is there",
            |p| {
                dead_socket(&p.with_extension("socket"));
                link(&p.with_extension("socket"), p)
            },
            &[],
        ),
        ("a pipe", pipe, &[]),
        (
            "a pipe is there",
            |p| {
                pipe(p);
                let mut both = OpenOptions::new();
                let reader = both.read(true).write(true).open(p).unwrap();
                Some(reader.into())
            },
            &[Log],
        ),
        ("a socket is there", dead_socket, &[Socket]),
        ("", |p| Some(UnixListener::bind(p).unwrap().into()), &[]),
        ("", |p| Some(UnixDatagram::bind(p).unwrap().into()), &[]),
    ];
    for (n, (found, make, good)) in kinds.into_iter().enumerate() {
        for place in ALL {
            let folder = Folder::new("kinds");
            let path = folder.0.join("path");
            let _alive = make(&path);
            let before = look(&path);
            let result = use_it(place, &path);
            let case = format!("case {n}, {place:?}: {result:?}");
            assert_eq!(result.is_ok(), good.contains(&place), "{case}");
            let Err(error) = result else { continue };
            let text = error.to_string();
            // A link that is followed is described by where it leads.
            assert!(place == Log || text.contains(found), "{case}");
            assert!(text.ends_with(place.accepted()), "{case}");
            assert_eq!(look(&path), before, "{case}");
            let target = path.with_extension("target");
            assert!(
                !target.exists() || fs::read(&target).unwrap() == b"mine",
                "{case}"
            );
        }
    }
}

#[test]
fn an_appended_log_keeps_what_was_in_it() {
    let folder = Folder::new("log");
    let path = folder.0.join("log");
    fs::write(&path, "before\n").unwrap();
    io::Write::write_all(&mut open_log(&path).unwrap(), b"after\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "before\nafter\n");
}

/// In sysfs not even root makes files.
#[test]
fn a_missing_folder_and_a_missing_permission_are_explained() {
    for place in [Place::Lock, Place::Socket, Place::Log] {
        for (path, reason) in [
            ("/no-such-folder/path", "there is no folder /no-such-folder"),
            ("/etc/passwd/path", "accepted: a path"),
            ("/sys/kernel/ftfw", "ermi"),
        ] {
            let text = use_it(place, Path::new(path)).unwrap_err().to_string();
            assert!(text.contains(reason), "{place:?} {path}: {text}");
            assert!(text.ends_with(place.accepted()), "{place:?} {path}: {text}");
        }
    }
}

#[test]
fn our_own_file_goes_and_what_took_its_path_stays() {
    let folder = Folder::new("own");
    let path = folder.0.join("path");
    let own = |place| {
        if place == Place::Socket {
            return bind(&path).unwrap().1;
        }
        open_lock(&path).unwrap();
        OwnFile::at(place, &path).unwrap()
    };
    for place in [Place::Lock, Place::Socket] {
        drop(own(place));
        assert!(!path.exists(), "{place:?}");
        // A file of somebody else, and one of another daemon.
        let makes: [Make; 3] = [|p| write(p, "theirs"), |p| write(p, ""), dead_socket];
        for make in makes {
            let kept = own(place);
            fs::rename(&path, path.with_extension("moved")).unwrap();
            make(&path);
            let before = look(&path);
            drop(kept);
            assert_eq!(look(&path), before, "{place:?}");
            fs::remove_file(&path).unwrap();
        }
    }
    // Somebody has written to the lock.
    let kept = own(Place::Lock);
    fs::write(&path, "theirs").unwrap();
    drop(kept);
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
}

#[test]
fn a_socket_is_answered_as_long_as_somebody_listens() {
    let folder = Folder::new("answered");
    let path = folder.0.join("path");
    assert!(!is_answered(&path).unwrap());
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    for _ in 0..3 {
        // Its backlog is full after the first.
        assert!(is_answered(&path).unwrap());
    }
    drop(listener);
    assert!(!is_answered(&path).unwrap());
    fs::remove_file(&path).unwrap();
    let _datagrams = UnixDatagram::bind(&path).unwrap();
    assert!(is_answered(&path).unwrap());
}

#[test]
fn a_lock_is_taken_once_and_not_with_a_file_that_is_gone() {
    let folder = Folder::new("lock");
    let path = folder.0.join("lock");
    let held = try_lock(&path).unwrap();
    assert!(held.is_some() && try_lock(&path).unwrap().is_none());
    drop(held);
    assert!(try_lock(&path).unwrap().is_some());
    // Somebody opens the file before its holder removes it, and gets the lock behind that.
    let file = open_lock(&path).unwrap();
    let late = identity(&file.metadata().unwrap());
    assert!(is_still_at(&path, late));
    fs::remove_file(&path).unwrap();
    assert!(!is_still_at(&path, late));
    let next = try_lock(&path).unwrap();
    assert!(next.is_some() && !is_still_at(&path, late));
}
