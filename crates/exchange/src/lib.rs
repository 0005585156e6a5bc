//! Requests of `replica` put to the kernel over a netlink socket, and their results.
//!
//! The daemon's writer holds such an exchange with the kernel's table. [`rehearsal`] holds it
//! with the empty table of a new network namespace, to learn what a commit would come to.

pub mod rehearsal;

use std::io::{self, ErrorKind};

use ctnetlink::{Message, Request, TcpOptions, decode_details};
use replica::{Found, KernelError, KernelRequest, KernelResult, Op, Outcome};
use sys::netlink::{Netlink, RECEIVE_BYTES, is_overrun};

/// Most requests of one [`Exchange::hold`]; more gain nothing.
pub const SEND: usize = 64;
/// Room for the answers to one `send`, all of them failures.
const ANSWER_BYTES: usize = 1 << 20;

/// Opens a socket for requests in the network namespace of the calling thread.
///
/// # Errors
/// The system's error.
pub fn open() -> io::Result<Netlink> {
    let socket = Netlink::open(true)?;
    socket.set_short_answers()?;
    socket.set_receive_buffer(ANSWER_BYTES)?;
    Ok(socket)
}

/// Numbers and buffers of the requests.
#[derive(Debug)]
pub struct Exchange {
    tcp: TcpOptions,
    seq: u32,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl Exchange {
    /// One whose TCP flows are created like this.
    pub fn new(tcp: TcpOptions) -> Exchange {
        Exchange {
            tcp,
            seq: 0,
            out: Vec::new(),
            buffer: vec![0; RECEIVE_BYTES],
        }
    }

    /// Sends 1 to [`SEND`] requests in one go and appends one result for each, in their order.
    pub fn hold(
        &mut self,
        socket: &Netlink,
        requests: &[KernelRequest],
        results: &mut Vec<KernelResult>,
    ) {
        let first = self.seq;
        self.out.clear();
        for (n, request) in requests.iter().enumerate() {
            let last = n + 1 == requests.len();
            let writer = Request::new(&mut self.out, first.wrapping_add(n as u32), last);
            match &request.op {
                Op::Create(flow) => writer.create(flow, self.tcp),
                Op::Update(flow) => writer.update(flow, self.tcp),
                Op::Delete(key, id) => writer.delete(key, *id),
                Op::Get(key) => writer.get(key),
                Op::CreateExpectation(e) => writer.create_expectation(e),
                Op::UpdateExpectation(e) => writer.update_expectation(e),
                Op::DeleteExpectation(key) => writer.delete_expectation(key, None),
                Op::FlushExpectations => writer.flush_expectations(),
            }
        }
        self.seq = first.wrapping_add(requests.len() as u32);
        let begin = results.len();
        results.extend(requests.iter().map(|&request| KernelResult {
            request,
            // Only failures answer, and gets: the others have succeeded by silence.
            outcome: match request.op {
                Op::Get(_) => Outcome::Failed(KernelError::NotFound),
                _ => Outcome::Done,
            },
        }));
        let results = &mut results[begin..];
        if let Err(e) = socket.send(&self.out) {
            let error = kernel_error(e.raw_os_error().unwrap_or(0));
            for result in results {
                result.outcome = Outcome::Failed(error);
            }
            return;
        }
        read_answers(socket, &mut self.buffer, first, results);
    }
}

/// The kernel has executed everything when `send` returns, so all answers are there.
fn read_answers(socket: &Netlink, buffer: &mut [u8], first: u32, results: &mut [KernelResult]) {
    let mut ended = false;
    // The answer to the last request is the last one.
    while !ended {
        let bytes = match socket.receive(buffer) {
            Ok(bytes) => bytes,
            // After an overrun there may still be answers.
            Err(e) if is_overrun(&e) || e.kind() == ErrorKind::InvalidData => continue,
            Err(_) => break,
        };
        for message in ctnetlink::messages(bytes).flatten() {
            let n = message.seq.wrapping_sub(first) as usize;
            let last = n + 1 == results.len();
            let Some(result) = results.get_mut(n) else {
                continue;
            };
            match ctnetlink::decode(&message) {
                Ok(Message::Flow { flow, .. }) => {
                    let attributes = message.payload.get(4..).filter(|_| flow.tcp().is_some());
                    let details = attributes.and_then(|a| decode_details(a).ok());
                    let is_liberal = details.is_some_and(|d| d.is_liberal());
                    result.outcome = Outcome::Found(Box::new(Found { flow, is_liberal }));
                }
                Ok(Message::Ack { error: 0 }) => ended |= last,
                Ok(Message::Ack { error }) => {
                    result.outcome = Outcome::Failed(kernel_error(-error));
                    ended |= last;
                }
                _ => {}
            }
        }
    }
    if !ended {
        // Answers were lost, which the size of the buffer should exclude: nothing is known.
        for result in results {
            result.outcome = Outcome::Failed(KernelError::Os(ENOBUFS));
        }
    }
}

const ENOENT: i32 = 2;
const ENOMEM: i32 = 12;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENOSPC: i32 = 28;
const EOPNOTSUPP: i32 = 95;
const ENOBUFS: i32 = 105;

fn kernel_error(number: i32) -> KernelError {
    match number {
        ENOENT => KernelError::NotFound,
        EEXIST => KernelError::Exists,
        EBUSY => KernelError::Busy,
        EOPNOTSUPP => KernelError::Unsupported,
        ENOMEM | ENOSPC => KernelError::TableFull,
        other => KernelError::Os(other),
    }
}
