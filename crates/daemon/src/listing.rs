//! Rows of flows and expectations, and listings of the kernel's tables.
//!
//! The kernel's table is read by a thread of its own for each client, on a socket of its
//! own: it may be large, and the client slow. `clients` bounds their number.

use std::io::{self, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::{Result, bail};
use control::Query;
use control::call::Tail;
use control::reply;
use control::rows::{Beside, CountersRow, ExpectationRow, FlowRow};
use ctnetlink::{Counters, DumpFilter, Message, Request, decode, decode_details, messages};
use flow::{Expectation, Flow};
use replica::DumpScope;
use sys::netlink::{Netlink, RECEIVE_BYTES};

use crate::kernel::{DumpSocket, Dumped};
use crate::session::STALL_LIMIT;

/// What a client gets of each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// A line for people.
    Text,
    /// An object.
    Json,
    /// Nothing: it wants to know how many there are.
    Count,
}

impl Rows {
    pub(crate) fn new(json: bool, count: bool) -> Rows {
        match (count, json) {
            (true, _) => Rows::Count,
            (false, true) => Rows::Json,
            (false, false) => Rows::Text,
        }
    }
}

/// Appends the row of a flow. `beside` is asked only if there is one.
pub(crate) fn flow_row(
    out: &mut Vec<u8>,
    rows: Rows,
    flow: &Flow,
    beside: impl FnOnce() -> Beside,
) {
    match rows {
        Rows::Count => {}
        Rows::Json => json_line(out, &FlowRow::new(flow, beside())),
        Rows::Text => {
            let mut text = String::new();
            // Writing to a string cannot fail.
            let _ = flow.fmt_line(&mut text, flow::LineForm::WithTimeout);
            out.extend_from_slice(text.as_bytes());
            text_beside(out, &beside());
        }
    }
}

/// Appends the row of an expectation.
pub(crate) fn expectation_row(out: &mut Vec<u8>, rows: Rows, e: &Expectation, beside: Beside) {
    match rows {
        Rows::Count => {}
        Rows::Json => json_line(out, &ExpectationRow::new(e, beside)),
        Rows::Text => {
            let timeout = e.timeout.unwrap_or(0);
            out.extend_from_slice(format!("{timeout} {e}").as_bytes());
            text_beside(out, &beside);
        }
    }
}

fn text_beside(out: &mut Vec<u8>, b: &Beside) {
    let mut text = String::new();
    if let Some(counters) = b.counters {
        text += &format!(" packets={} bytes={}", counters.packets, counters.bytes);
    }
    if let Some(counters) = b.reply_counters {
        text += &format!(" reply-packets={}", counters.packets);
        text += &format!(" reply-bytes={}", counters.bytes);
    }
    if let Some(secs) = b.expires {
        text += &format!(" [expires in {secs}s]");
    }
    if let Some(secs) = b.age {
        text += &format!(" [active since {secs}s]");
    }
    if b.announced == Some(false) {
        text += " [not announced]";
    }
    if b.confirmed == Some(false) {
        text += " [unconfirmed]";
    }
    text += "\n";
    out.extend_from_slice(text.as_bytes());
}

/// Appends a line of JSON.
pub(crate) fn json_line(out: &mut Vec<u8>, row: &impl serde::Serialize) {
    // Rows hold nothing that JSON cannot say, and a vector takes everything.
    let _ = serde_json::to_writer(&mut *out, row);
    out.push(b'\n');
}

/// A listing of a table of the kernel.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) is_expectations: bool,
    pub(crate) rows: Rows,
    pub(crate) query: Query,
}

impl Listing {
    /// Writes rows and tail to a client that has got its head.
    pub(crate) fn write_to(&self, stream: &UnixStream) {
        let Ok(mut out) = blocking(stream) else {
            return;
        };
        let tail = match self.write_rows(&mut out) {
            Ok(rows) => Tail::ok(rows),
            Err(e) => Tail::error(
                format!("the kernel's table: {e:#}"),
                "try again; reading it needs CAP_NET_ADMIN",
            ),
        };
        let mut last = vec![b'\n'];
        json_line(&mut last, &tail);
        // The client may have gone.
        let _ = out.write_all(&last).and_then(|()| out.flush());
    }

    fn write_rows(&self, out: &mut impl Write) -> Result<u64> {
        let socket = Netlink::open(false)?;
        let mut request = Vec::new();
        let writer = Request::new(&mut request, 1, false);
        if self.is_expectations {
            writer.dump_expectations();
        } else {
            writer.dump(DumpFilter::All);
        }
        socket.send(&request)?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        let (mut text, mut rows) = (Vec::new(), 0);
        loop {
            text.clear();
            for message in messages(socket.receive(&mut buffer)?) {
                let message = message?;
                // One that cannot be read must not hide the others.
                let Ok(decoded) = decode(&message) else {
                    continue;
                };
                match decoded {
                    Message::Flow { flow, .. } if self.query.holds(&flow) => {
                        rows += 1;
                        flow_row(&mut text, self.rows, &flow, || details(message.payload));
                    }
                    Message::Expectation { expectation, .. }
                        if self.query.holds_expectation(&expectation) =>
                    {
                        rows += 1;
                        expectation_row(&mut text, self.rows, &expectation, Beside::default());
                    }
                    Message::Done { error: 0, .. } => {
                        out.write_all(&text)?;
                        return Ok(rows);
                    }
                    Message::Done { error, .. } | Message::Ack { error } => {
                        bail!("{}", io::Error::from_raw_os_error(-error));
                    }
                    _ => {}
                }
            }
            out.write_all(&text)?;
        }
    }
}

/// What the kernel says beside a flow, of a message's payload.
fn details(payload: &[u8]) -> Beside {
    let details = payload.get(4..).and_then(|a| decode_details(a).ok());
    let Some(details) = details else {
        return Beside::default();
    };
    let row = |c: Counters| CountersRow {
        packets: c.packets,
        bytes: c.bytes,
    };
    Beside {
        counters: details.counters.0.map(row),
        reply_counters: details.counters.1.map(row),
        began: details.timestamps.0,
        secctx: details.secctx.map(std::borrow::Cow::into_owned),
        ..Beside::default()
    }
}

fn blocking(stream: &UnixStream) -> io::Result<BufWriter<&UnixStream>> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(STALL_LIMIT))?;
    Ok(BufWriter::with_capacity(1 << 16, stream))
}

/// Writes a table of the kernel as the original's daemon without an internal cache does.
pub(crate) fn as_the_original(stream: &UnixStream, socket: DumpSocket, scope: DumpScope) {
    // The client may go away in the middle; nobody is told.
    let _ = try_as_the_original(stream, socket, scope);
}

fn try_as_the_original(
    stream: &UnixStream,
    mut socket: DumpSocket,
    scope: DumpScope,
) -> Result<()> {
    let mut out = blocking(stream)?;
    socket.start(scope)?;
    let mut buffer = vec![0; RECEIVE_BYTES];
    let (mut dumped, mut text) = (Dumped::default(), String::new());
    while socket.is_running() {
        dumped.clear();
        socket.read(&mut buffer, &mut dumped);
        text.clear();
        for flow in &dumped.flows {
            reply::kernel_line(&mut text, flow);
        }
        for expectation in &dumped.expectations {
            reply::kernel_expectation_line(&mut text, expectation);
        }
        out.write_all(text.as_bytes())?;
    }
    out.flush()?;
    Ok(())
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads that list the kernel's table for clients.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    /// Each thread holds another one of it.
    running: Arc<()>,
}

/// A thread that waits for what it is to do, and ends without it.
#[derive(Debug)]
pub(crate) struct Reserved(SyncSender<Job>);

impl Listings {
    pub(crate) fn running(&self) -> usize {
        Arc::strong_count(&self.running) - 1
    }

    pub(crate) fn reserve(&self) -> io::Result<Reserved> {
        let running = Arc::clone(&self.running);
        // Room for the one job, so that handing it over never waits.
        let (jobs, from_core) = sync_channel::<Job>(1);
        thread::Builder::new()
            .name("listing".to_owned())
            .spawn(move || {
                let _running = running;
                if let Ok(job) = from_core.recv() {
                    job();
                }
            })?;
        Ok(Reserved(jobs))
    }
}

impl Reserved {
    pub(crate) fn start(self, job: impl FnOnce() + Send + 'static) {
        // The thread waits for it.
        let _ = self.0.send(Box::new(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_counted_until_its_thread_has_ended() {
        let listings = Listings::default();
        let reserved = listings.reserve().unwrap();
        let (tx, rx) = std::sync::mpsc::channel();
        assert_eq!(listings.running(), 1);
        // A thread without a job ends, too.
        drop(listings.reserve().unwrap());
        reserved.start(move || tx.send(()).unwrap());
        rx.recv().unwrap();
        while listings.running() > 0 {
            thread::yield_now();
        }
    }
}
