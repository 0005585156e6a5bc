use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use control::Request;

use super::*;
use crate::session::{Asked, State};

fn at(secs: u64) -> Instant {
    Instant::START + Duration::from_secs(secs)
}

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

fn chosen(standings: &[Standing]) -> Option<usize> {
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

/// Clients behind a door of which the test knows the address.
fn open(name: &str) -> (Clients, std::path::PathBuf) {
    let name = format!("ftfw-clients-{}-{name}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    (Clients::new(Some(Door::new(listener))).unwrap(), path)
}

#[test]
fn a_client_is_accepted_read_answered_and_closed() {
    let (mut clients, path) = open("served");
    let mut client = UnixStream::connect(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(clients.ready(at(0)), []);
    assert_eq!(clients.ready(at(0)), []);
    client
        .write_all(&Request::Bulk.code().to_ne_bytes())
        .unwrap();
    let ready = clients.ready(at(1));
    let session = clients.get(ready[0]).unwrap();
    assert_eq!(session.read(), Asked::Request(Request::Bulk));
    session.reply(b"done");
    clients.settle(at(1));
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "done");
    assert_eq!(clients.all().count(), 0);
}

/// Connects `count` clients that all are in the state that `make` gives them; yields their ends.
fn crowd(clients: &mut Clients, count: usize, make: impl Fn() -> State) -> Vec<UnixStream> {
    let connect = |_| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let id = clients.welcome(ours, at(0)).unwrap();
        let session = clients.get(id).unwrap();
        session.state = make();
        session.reply(&vec![b'x'; 4 << 20]);
        theirs
    };
    (0..count).map(connect).collect()
}

#[test]
fn the_last_reader_is_refused_until_another_one_has_stalled() {
    let mut clients = Clients::new(None).unwrap();
    let _theirs = crowd(&mut clients, READERS_MAX, || State::Replying);
    clients.settle(at(0));
    let id = clients.last;
    assert!(clients.admit_reader(id, at(0)).is_err());
    assert_eq!((clients.refused, clients.dropped), (1, 0));
    assert_eq!(clients.admit_reader(id, at(1)), Ok(()));
    assert_eq!((clients.refused, clients.dropped), (1, 1));
    assert_eq!(clients.all().count(), READERS_MAX - 1);
    let lines = clients.lines();
    assert!(lines[0].2.contains("48 clients are reading"), "{lines:?}");
    assert!(lines[1].2.contains("nothing for 1 s"), "{lines:?}");
    assert_eq!(clients.lines(), []);
}

#[test]
fn readers_that_have_stalled_for_long_are_closed_and_counted() {
    let mut clients = Clients::new(None).unwrap();
    let _theirs = crowd(&mut clients, 2, || State::Replying);
    clients.settle(at(0));
    clients.settle(at(30));
    assert_eq!((clients.all().count(), clients.dropped), (2, 0));
    clients.settle(at(31));
    assert_eq!((clients.all().count(), clients.dropped), (0, 2));
}

#[test]
fn when_every_client_waits_for_its_command_the_door_pauses() {
    let (mut clients, path) = open("paused");
    let id = CommandId(1);
    let waiting = || State::Waiting { id, is_call: false };
    let _theirs = crowd(&mut clients, CLIENTS_MAX, waiting);
    let _client = UnixStream::connect(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    clients.ready(at(0));
    let until = clients.next_due().unwrap();
    assert_eq!(until, at(0) + Duration::from_millis(100));
    assert_eq!(clients.all().count(), CLIENTS_MAX);
    // It would be ready all the time.
    clients.ready(at(0));
    assert_eq!(clients.lines().len(), 1);
    clients.sessions.pop_last();
    clients.settle(until);
    assert_eq!(clients.next_due(), None);
    clients.ready(until);
    assert_eq!(clients.all().count(), CLIENTS_MAX);
}
