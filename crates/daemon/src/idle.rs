//! A daemon whose file has neither `Sync` nor `Stats`: it opens no socket of the kernel, and every
//! request of a client is answered with nothing, but for the one to stop.

use std::os::fd::AsFd;
use std::time::{Duration, Instant as OsInstant};

use anyhow::{Context, Result};
use control::Request;
use control::call::{Call, Head, Tail, Task};
use replica::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sys::signal::{Signal, Signals};

use crate::clients::{ClientId, Clients};
use crate::log::Log;
use crate::sandbox;
use crate::service::Service;
use crate::session::Asked;

/// The longest wait; the watchdog wants less.
const WAIT: Duration = Duration::from_secs(1);

/// Runs until told to stop.
pub(crate) fn run(
    mut log: Log,
    mut clients: Clients,
    signals: &Signals,
    service: &mut Service,
) -> Result<()> {
    let start = OsInstant::now();
    let mut stopping = false;
    while !stopping {
        let mut list = [
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(clients.as_fd(), PollFlags::IN),
        ];
        let wait = service.until_feed().map_or(WAIT, |left| WAIT.min(left));
        let wait = Timespec::try_from(wait).context("interval of the watchdog")?;
        let _ = poll(&mut list, Some(&wait));
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let now = Instant::from_nanos(nanos);
        for id in clients.ready(now) {
            stopping |= serve(&mut clients, id, now);
        }
        clients.settle(now);
        for (kind, level, line) in clients.lines() {
            log.limited(kind, (level, line));
        }
        log.report_left_out();
        sandbox::report_refused(&mut log);
        while let Some(signal) = signals.next() {
            match signal {
                Signal::Terminate => stopping = true,
                Signal::Hangup => service.reload(|| log.reopen_after_hangup()),
            }
        }
        service.feed();
        if service.wants_status() {
            service.status("idle: the file has neither Sync nor Stats".to_owned());
        }
    }
    log.report_all_left_out();
    log.stopping();
    Ok(())
}

/// Serves a client; true if it stops the daemon.
fn serve(clients: &mut Clients, id: ClientId, now: Instant) -> bool {
    let Some(session) = clients.get(id) else {
        return false;
    };
    match session.read() {
        Asked::Request(request) => request == Request::Stop,
        Asked::Call(line) => {
            let task = Call::parse(&line).map(|call| call.task);
            let stops = matches!(task, Ok(Task::Stop));
            match task {
                Ok(Task::Stop) => {
                    session.reply_json(&Head::ok());
                    session.reply_tail(&Tail::ok(0));
                    session.write(now);
                }
                Ok(_) => session.reply_json(&Head::error(
                    "the daemon does nothing: its file has neither `Sync` nor `Stats`",
                    "configure one of them, and start the daemon again",
                )),
                Err(head) => session.reply_json(&head),
            }
            stops
        }
        Asked::Nothing | Asked::Cut | Asked::Unknown => false,
    }
}
