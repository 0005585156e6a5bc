//! Local users at the control socket, and a daemon from which the system withholds descriptors
//! or address space meanwhile.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use fastrand::Rng;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

use super::{Sent, Stage};
use crate::daemon::Daemon;
use crate::world;

/// `-i` of the original: a listing of the internal cache.
const INTERNAL: i32 = 16;
/// How long clients stay that want nothing.
const STAY: Duration = Duration::from_secs(4);
/// Another user than the daemon's.
const NOBODY: u32 = 65_534;

/// A user without rights connects a hundred times. Who is connected has been obeyed.
pub(super) fn another_user(stage: &Stage<'_>) -> Result<Sent> {
    const COUNT: u64 = 100;
    // There is no other user in the namespace of an ordinary one.
    ensure!(world::is_privileged(), "only root can become another user");
    let path = socket(stage.victim());
    let user = thread::spawn(move || -> Result<usize> {
        // Of this thread alone, which ends as that user.
        let nobody = Uid::from_raw(NOBODY);
        set_thread_res_uid(nobody, nobody, nobody).context("another user")?;
        Ok((0..COUNT)
            .filter(|_| UnixStream::connect(&path).is_ok())
            .count())
    });
    let connected = user.join().map_err(|_| anyhow!("the user panicked"))??;
    Ok(Sent {
        count: COUNT,
        obeyed: Some(connected as u64),
        ..Sent::default()
    })
}

/// Requests of bytes by chance, 100 a second for 4 s, or for one.
pub(super) fn nonsense(stage: &Stage<'_>) -> Result<Sent> {
    let mut random = Rng::with_seed(19);
    let mut sent = Sent::default();
    for _ in 0..stage.extent.pick(100, 400) {
        let mut bytes = vec![0; random.usize(1..4096)];
        random.fill(&mut bytes);
        if let Some(mut client) = client(stage.victim())? {
            // Whoever does not read all of it, or closes, has been asked all the same.
            let _ = client.write_all(&bytes);
            sent.bytes += bytes.len() as u64;
            sent.count += 1;
        }
        thread::sleep(Duration::from_millis(10));
    }
    had_a_place(sent)
}

/// 64 clients ask for a listing, and do not read it.
pub(super) fn hanging(stage: &Stage<'_>) -> Result<Sent> {
    stay(stage, 64, &INTERNAL.to_ne_bytes())
}

/// 40 clients ask nothing, and the daemon has three descriptors left.
pub(super) fn descriptors(stage: &Stage<'_>) -> Result<Sent> {
    let victim = stage.victim();
    victim.limit(&format!("--nofile={}:", victim.descriptors(3)?))?;
    let sent = stay(stage, 40, &[]);
    victim.limit("--nofile=1024:")?;
    sent
}

/// 20 listings, one after the other, and the daemon has one megabyte of address space left: the
/// stack of a thread does not fit.
pub(super) fn address_space(stage: &Stage<'_>) -> Result<Sent> {
    let victim = stage.victim();
    victim.limit_memory(1 << 20)?;
    let mut sent = Sent::default();
    for _ in 0..20 {
        let mut answer = Vec::new();
        if let Some(mut client) = client(victim)? {
            client.write_all(&INTERNAL.to_ne_bytes())?;
            client.set_nonblocking(false)?;
            client.set_read_timeout(Some(STAY))?;
            let _ = client.read_to_end(&mut answer);
            sent.bytes += size_of_val(&INTERNAL) as u64;
            sent.count += 1;
        }
        thread::sleep(Duration::from_millis(100));
    }
    victim.limit("--as=unlimited:")?;
    had_a_place(sent)
}

/// As many clients, if the daemon has a place for them, send that and wait.
fn stay(stage: &Stage<'_>, count: u64, request: &[u8]) -> Result<Sent> {
    let mut clients = Vec::new();
    for _ in 0..count {
        if let Some(mut client) = client(stage.victim())? {
            client.write_all(request)?;
            clients.push(client);
        }
    }
    thread::sleep(STAY);
    let count = clients.len() as u64;
    had_a_place(Sent {
        bytes: request.len() as u64 * count,
        count,
        obeyed: None,
    })
}

/// # Errors
/// If no client had a place.
fn had_a_place(sent: Sent) -> Result<Sent> {
    ensure!(sent.count > 0, "the daemon has a place for no client");
    Ok(sent)
}

fn socket(daemon: &Daemon) -> std::path::PathBuf {
    daemon.dir().join("control")
}

/// A client that never waits; `None` if the daemon has no place for it now.
fn client(daemon: &Daemon) -> Result<Option<UnixStream>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(Path::new(&socket(daemon)))?;
    match connect(&stream, &address) {
        Ok(()) => Ok(Some(stream.into())),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
