use std::collections::VecDeque;

use super::*;

/// A stream of which the test plays the other end.
#[derive(Debug, Default)]
struct Pipe {
    asked: VecDeque<u8>,
    /// The client has closed its writing half.
    has_finished: bool,
    /// It has closed its socket.
    has_gone: bool,
    /// Bytes that it is ready to take.
    room: usize,
    taken: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.asked.read(buffer)? {
            0 if !self.has_finished && !self.has_gone => Err(ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = bytes.len().min(self.room);
        if n == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.room -= n;
        self.taken.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Stream for Pipe {
    fn has_hung_up(&self) -> bool {
        self.has_gone
    }
}

fn at(secs: u64) -> Instant {
    Instant::START + Duration::from_secs(secs)
}

fn asking(bytes: &[u8]) -> Session<Pipe> {
    let pipe = Pipe {
        asked: bytes.iter().copied().collect(),
        ..Pipe::default()
    };
    Session::new(pipe, at(0))
}

/// A client that is owed more than it takes.
fn stalled() -> Session<Pipe> {
    let mut session = asking(&[]);
    session.state = State::Replying;
    session.reply(&[b'x'; 100]);
    session.write(at(0));
    session
}

fn waiting(is_call: bool) -> Session<Pipe> {
    let mut session = asking(&[]);
    let id = CommandId(1);
    session.state = State::Waiting { id, is_call };
    session
}

#[test]
fn a_request_may_come_in_pieces() {
    let code = Request::Bulk.code().to_ne_bytes();
    let mut session = asking(&code[..3]);
    assert_eq!(session.read(), Asked::Nothing);
    session.stream.asked.push_back(code[3]);
    assert_eq!(session.read(), Asked::Request(Request::Bulk));
}

#[test]
fn a_call_ends_with_its_line_or_is_too_long() {
    let code = call::CODE.to_ne_bytes();
    let mut session = asking(&[code.as_slice(), b"{\"sta"].concat());
    assert_eq!(session.read(), Asked::Nothing);
    session.stream.asked.extend(b"tus\"}\nrest");
    assert_eq!(session.read(), Asked::Call(b"{\"status\"}".to_vec()));
    let mut session = asking(&[code.as_slice(), &vec![b'x'; 1 << 20]].concat());
    assert_eq!(session.read(), Asked::Call(Vec::new()));
}

#[test]
fn a_code_that_nobody_knows_and_a_code_that_is_cut() {
    assert_eq!(asking(&[0xff; 4]).read(), Asked::Unknown);
    let mut cut = asking(&[0xff; 3]);
    cut.stream.has_finished = true;
    assert_eq!(cut.read(), Asked::Nothing);
    assert_eq!(cut.read(), Asked::Cut);
    assert_eq!(cut.end(at(0)), Some(End::Gone));
}

#[test]
fn a_client_that_asks_nothing_is_shown_out() {
    let session = asking(&[]);
    assert_eq!(session.end(at(10)), None);
    assert_eq!(session.end(at(11)), Some(End::Silent));
}

#[test]
fn a_client_that_reads_nothing_is_disconnected_after_the_limit() {
    let session = stalled();
    assert_eq!(session.end(at(30)), None);
    assert_eq!(session.end(at(31)), Some(End::Stalled));
}

#[test]
fn a_client_that_reads_slowly_stays_and_gets_everything() {
    let mut session = stalled();
    for secs in 1..=9 {
        session.stream.room = 10;
        session.write(at(20 * secs));
        assert_eq!(session.end(at(20 * secs + 30)), None);
    }
    session.stream.room = 11;
    session.write(at(200));
    assert_eq!(session.stream.taken, [b'x'; 100]);
    assert_eq!(session.end(at(200)), Some(End::Served));
}

#[test]
fn a_client_that_waits_for_its_command_is_never_disconnected() {
    let mut session = stalled();
    session.state = waiting(true).state;
    assert_eq!(session.end(at(1000)), None);
    assert_eq!(session.standing(at(1000)), Standing::Waiting);
}

#[test]
fn only_a_call_gets_a_tail_at_the_end_of_its_command() {
    for (is_call, expected) in [(false, ""), (true, "\n{\"status\":\"ok\"")] {
        let mut session = waiting(is_call);
        assert!(session.waits_for(CommandId(1)) && !session.waits_for(CommandId(2)));
        session.command_done(&Tail::ok(0));
        session.stream.room = 1000;
        session.write(at(0));
        let text = String::from_utf8(session.stream.taken.clone()).unwrap();
        assert_eq!(text.is_empty(), expected.is_empty());
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(session.end(at(0)), Some(End::Served));
    }
}

#[test]
fn who_has_left_while_its_command_runs_is_forgotten_and_who_has_finished_asking_is_not() {
    let mut session = waiting(false);
    session.stream.has_finished = true;
    session.read();
    assert_eq!(session.end(at(0)), None);
    // It would be ready for ever.
    assert_eq!(session.watch(), Some(EventFlags::empty()));
    let mut session = waiting(false);
    session.stream.has_gone = true;
    session.read();
    assert_eq!(session.end(at(0)), Some(End::Gone));
}

#[test]
fn a_socket_is_watched_for_room_while_something_is_owed() {
    let mut session = stalled();
    assert_eq!(session.watch(), Some(EventFlags::IN | EventFlags::OUT));
    assert_eq!(session.watch(), None);
    session.stream.room = 100;
    session.write(at(1));
    assert_eq!(session.watch(), Some(EventFlags::IN));
}
