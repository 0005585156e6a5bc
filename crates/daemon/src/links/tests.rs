use std::net::{Ipv4Addr, UdpSocket};

use sys::interface::InterfaceState;

use super::link::{REFUSED_LONG, REFUSED_PAUSE, REFUSED_REST};
use super::*;

const RUNNING: InterfaceState = InterfaceState {
    up: true,
    running: true,
};

/// A link to a socket of this host, or one that sends nothing.
fn link(to: &UdpSocket, refuses: bool) -> Link {
    let to = to.local_addr().unwrap();
    let path = Path {
        listen: Some(Ipv4Addr::LOCALHOST.into()),
        // The system refuses to send to a broadcast address unless it is told to.
        to: if refuses {
            Ipv4Addr::BROADCAST.into()
        } else {
            to.ip()
        },
        port: 0,
        interface: 0,
        interface_v4: None,
    };
    let place = Place {
        transport: Transport::Udp,
        path,
        options: Options::default(),
        device: "eth0".to_owned(),
    };
    let now = Instant::now();
    let mut link = Link::new(place, None, now);
    link.open(&Ready::new().unwrap(), now).unwrap();
    link.set_peers_port(to.port());
    link
}

fn links(list: Vec<Link>) -> Links {
    Links {
        told: vec![true; list.len()],
        list,
        queue_length: QUEUE_LENGTH,
        interfaces: Interfaces::open().unwrap(),
        ready: Ready::new().unwrap(),
        sources: Sources::new([]),
        opened: Instant::now(),
        none_logged: false,
        lines: Vec::new(),
        peer: None,
    }
}

fn received(peer: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 16];
    let n = peer.recv(&mut buffer).unwrap();
    buffer[..n].to_vec()
}

#[test]
fn what_a_link_refuses_waits_there_and_goes_first_when_another_link_is_used() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut links = links(vec![link(&peer, true), link(&peer, false)]);
    let now = Instant::now();
    links.send(0, b"first", now);
    assert_eq!(links.again_at(0), Some(now + REFUSED_PAUSE));
    assert_eq!(links.again_at(1), None);
    // It is refused again, and counted; only the first time is logged.
    links.send_waiting(0, now);
    links.send_waiting(0, now + REFUSED_PAUSE);
    assert_eq!(links.list[0].report(false).errors.0, 2);
    assert_eq!(links.lines.len(), 1, "{:?}", links.lines);
    links.send_waiting(1, now + REFUSED_PAUSE);
    links.send(1, b"second", now + REFUSED_PAUSE);
    assert_eq!((links.again_at(0), links.again_at(1)), (None, None));
    assert_eq!(
        (received(&peer), received(&peer)),
        (b"first".into(), b"second".into())
    );
    assert_eq!(links.list[1].report(true).packets.0, 2);
}

#[test]
fn links_that_refuse_for_seconds_are_left_and_rest_before_they_are_chosen_again() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let refuses = [true, true, false];
    let mut links = links(refuses.map(|refuses| link(&peer, refuses)).into());
    links.list.iter_mut().for_each(|l| l.state = Some(RUNNING));
    let mut now = Instant::now();
    for n in [0, 1] {
        links.send(n, b"x", now);
        let later = now + REFUSED_LONG;
        links.send_waiting(n, later - REFUSED_PAUSE);
        assert_eq!(links.go_on(later - REFUSED_PAUSE), []);
        links.send_waiting(n, later);
        assert_eq!(links.go_on(later), [(n, false)]);
        now = later;
    }
    // What waits goes over the third one, and the first one is not tried at once.
    links.send_waiting(2, now);
    assert_eq!(links.go_on(now), []);
    assert_eq!(links.go_on(now + REFUSED_REST), [(0, true), (1, true)]);
}

#[test]
fn a_link_that_has_refused_is_chosen_at_once_when_no_other_has_a_carrier() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut links = links(vec![link(&peer, true), link(&peer, false)]);
    links.list.iter_mut().for_each(|l| l.state = Some(RUNNING));
    let now = Instant::now();
    links.send(0, b"x", now);
    let later = now + REFUSED_LONG;
    links.send_waiting(0, later);
    assert_eq!(links.go_on(later), [(0, false)]);
    links.list[1].state = None;
    assert_eq!(links.go_on(later), [(0, true), (1, false)]);
    links.list[1].state = Some(RUNNING);
    assert_eq!(links.go_on(later), [(0, false), (1, true)]);
}

#[test]
fn a_single_link_that_refuses_is_kept() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut links = links(vec![link(&peer, true)]);
    links.list[0].state = Some(RUNNING);
    let now = Instant::now();
    links.send(0, b"x", now);
    links.send_waiting(0, now + REFUSED_LONG);
    assert_eq!(links.go_on(now + REFUSED_LONG), []);
}

#[test]
fn a_datagram_that_is_too_long_does_not_wait() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut links = links(vec![link(&peer, false)]);
    links.send(0, &[0; 70_000], Instant::now());
    assert_eq!(links.again_at(0), None);
    assert_eq!(links.list[0].report(false).errors.0, 1);
}
