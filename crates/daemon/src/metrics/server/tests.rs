use super::*;

fn at(millis: u64) -> Instant {
    Instant::START + Duration::from_millis(millis)
}

/// A server on a port that the system chooses, and its address.
fn server() -> (Server, SocketAddr) {
    let mut log = Log::open(false, None, None).unwrap();
    let server = Server::new(Some("127.0.0.1:0".parse().unwrap()), &mut log).unwrap();
    let address = server.listener.as_ref().unwrap().local_addr().unwrap();
    (server, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    let limit = Some(Duration::from_millis(20));
    stream.set_read_timeout(limit).unwrap();
    stream
}

/// One turn of the loop.
fn turn(server: &mut Server, now: Instant, page: &str) {
    std::thread::sleep(Duration::from_millis(2));
    for (id, format) in server.ready(now) {
        server.answer(id, format, page, now);
    }
    server.settle(now);
}

/// What a client has been sent; empty if it has been disconnected without an answer, `None` if
/// it still waits.
fn answer(client: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    match client.read_to_end(&mut text) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => None,
        _ => Some(String::from_utf8(text).unwrap()),
    }
}

#[test]
fn a_client_gets_the_page_or_a_reason() {
    let (mut server, address) = server();
    let cases = [
        ("GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "),
        ("PUT /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 "),
        ("hello\r\n\r\n", "HTTP/1.1 400 "),
    ];
    for (request, begin) in cases {
        let mut client = connect(address);
        client.write_all(request.as_bytes()).unwrap();
        turn(&mut server, at(0), "a 1\n");
        turn(&mut server, at(0), "a 1\n");
        let text = answer(&mut client).unwrap();
        assert!(text.starts_with(begin), "{request}: {text}");
        drop(client);
        turn(&mut server, at(0), "");
        assert!(server.clients.is_empty());
    }
    assert_eq!((server.counted.scrapes, server.counted.refused), (1, 3));
    assert_eq!(server.counted.dropped, 0);
}

/// An answer is not lost because the client has sent more than was read.
#[test]
fn a_request_that_is_too_long_is_answered() {
    let (mut server, address) = server();
    let mut client = connect(address);
    let long = format!("GET /metrics HTTP/1.1\r\na: {}", "x".repeat(30_000));
    client.write_all(long.as_bytes()).unwrap();
    for _ in 0..20 {
        turn(&mut server, at(0), "");
    }
    assert!(answer(&mut client).unwrap().starts_with("HTTP/1.1 431 "));
}

#[test]
fn silent_clients_make_room_and_are_closed_in_time() {
    let (mut server, address) = server();
    let mut silent: Vec<_> = (0..40).map(|_| connect(address)).collect();
    for _ in 0..10 {
        turn(&mut server, at(0), "");
    }
    assert_eq!(server.clients.len(), CLIENTS_MAX);
    assert_eq!(server.counted.dropped, 40 - CLIENTS_MAX as u64);
    let mut client = connect(address);
    client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    for _ in 0..3 {
        turn(&mut server, at(0), "a 1\n");
    }
    assert!(answer(&mut client).unwrap().ends_with("\r\n\r\na 1\n"));
    turn(&mut server, at(4999), "");
    assert_eq!(answer(&mut silent[39]), None);
    turn(&mut server, at(5000), "");
    assert_eq!(answer(&mut silent[39]).as_deref(), Some(""));
    assert!(server.clients.is_empty());
}

#[test]
fn a_client_that_reads_nothing_is_closed_in_time() {
    let (mut server, address) = server();
    let page = "x".repeat(32 << 20);
    let mut client = connect(address);
    client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    for _ in 0..5 {
        turn(&mut server, at(0), &page);
    }
    assert_eq!(server.clients.len(), 1);
    turn(&mut server, at(9999), &page);
    assert_eq!(server.clients.len(), 1);
    turn(&mut server, at(10_000), &page);
    assert!(server.clients.is_empty());
    assert_eq!(server.counted.dropped, 1);
}

#[test]
fn a_flood_of_clients_is_accepted_at_a_bounded_rate() {
    let (mut server, address) = server();
    let accepted = |server: &mut Server, now: Instant, wanted: usize| -> u64 {
        let before = server.last.0;
        let mut clients = Vec::new();
        for _ in 0..wanted / 4 {
            clients.extend((0..4).map(|_| connect(address)));
            turn(server, now, "");
        }
        server.last.0 - before
    };
    assert_eq!(accepted(&mut server, at(0), 100), 100);
    // One more is in the backlog.
    let mut late = connect(address);
    late.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    for _ in 0..3 {
        turn(&mut server, at(500), "a 1\n");
    }
    assert_eq!(answer(&mut late), None);
    for _ in 0..3 {
        turn(&mut server, at(1000), "a 1\n");
    }
    assert!(answer(&mut late).unwrap().ends_with("a 1\n"));
}

#[test]
fn an_address_that_is_taken_is_tried_again() {
    let (first, address) = server();
    let mut log = Log::open(false, None, None).unwrap();
    let mut second = Server::new(Some(address), &mut log).unwrap();
    assert!(second.listener.is_none());
    second.settle(at(5000));
    assert!(second.listener.is_none());
    drop(first);
    second.settle(at(9999));
    assert!(second.listener.is_none());
    second.settle(at(10_000));
    assert!(second.listener.is_some());
    assert_eq!(second.lines.len(), 1);
}
