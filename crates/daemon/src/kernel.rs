//! The two sockets on which the kernel talks to the core: events and dumps.
//!
//! The event socket is opened, and buffers, before the first dump is asked for, so
//! there is no gap between the two.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use ctnetlink::{DumpFilter, EventKind, Message, Request, decode_details, group};
use flow::{Expectation, Filter, Flow, FlowKey};
use replica::{Change, DumpEnd, DumpScope, ExpectationEvent, KernelEvent, Origin};
use sys::filter::{Instruction, instruction_of};
use sys::netlink::{Ignored, Netlink, RECEIVE_BYTES, is_overrun};

use crate::links::is_would_block;

/// What an event takes of the receive buffer.
const EVENT_BYTES: usize = 1280;
/// Receive buffer when the file names none: it holds a quarter of a second at 100 000 events
/// a second.
const EVENT_BUFFER_BYTES: usize = 32 << 20;

/// Messages about flows (`include/uapi/linux/netfilter/nfnetlink.h`).
const NFNL_SUBSYS_CTNETLINK: u8 = 1;

/// Events.
#[derive(Debug)]
pub(crate) struct EventSocket {
    socket: Netlink,
    buffer_bytes: usize,
    growth_max: usize,
    hears_new: bool,
    /// Counters and times of flows that end are read, too.
    reads_endings: bool,
    hears_injections: bool,
    commit_port: u32,
    inject_port: u32,
    /// The filter, as far as the kernel applies it.
    program: Vec<Instruction>,
    /// Messages of an unknown type.
    pub(crate) unknown: u64,
    /// Messages that could not be decoded.
    pub(crate) failed: u64,
}

/// What reading events came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// All that was there.
    Drained,
    /// As much as the budget allows.
    Budget,
    /// The kernel dropped events.
    Overrun,
}

impl EventSocket {
    /// Opens the socket and joins the groups of flows and, if they are replicated, of
    /// expectations.
    ///
    /// `ports` are those of the writer, by which our own changes are known. Returns
    /// a warning if the buffer could not be made as large as it should be.
    pub(crate) fn open(
        config: &config::Config,
        ports: (u32, u32),
    ) -> Result<(EventSocket, Option<String>)> {
        let socket = Netlink::open(true).context("netlink socket for events")?;
        if config.events_reliable {
            socket.set_reliable()?;
        }
        let wanted = config.netlink_buffer.unwrap_or(EVENT_BUFFER_BYTES);
        let (buffer_bytes, forced) = socket.set_receive_buffer(wanted)?;
        let mut groups = vec![
            group::CONNTRACK_NEW,
            group::CONNTRACK_UPDATE,
            group::CONNTRACK_DESTROY,
        ];
        let sync = config.sync.as_ref();
        if sync.is_some_and(|s| s.expectation_sync.is_some()) {
            groups.extend([
                group::EXPECT_NEW,
                group::EXPECT_UPDATE,
                group::EXPECT_DESTROY,
            ]);
        }
        let program = match config.filter_in_kernel {
            true => in_kernel(&config.filter),
            false => None,
        };
        if let Some(program) = &program {
            socket.filter(None, program).context("filter of events")?;
        }
        for g in groups {
            socket
                .join(g)
                .context("listen to connection tracking (CAP_NET_ADMIN is needed)")?;
        }
        let warning = (!forced && buffer_bytes < wanted).then(|| {
            format!(
                "netlink event socket buffer is {buffer_bytes} instead of {wanted} bytes: \
                 raise net.core.rmem_max, or start the daemon as root outside user namespaces"
            )
        });
        Ok((
            EventSocket {
                socket,
                buffer_bytes,
                growth_max: config.netlink_buffer_max,
                hears_new: true,
                reads_endings: config.stats.is_some(),
                hears_injections: true,
                commit_port: ports.0,
                inject_port: ports.1,
                program: program.unwrap_or_default(),
                unknown: 0,
                failed: 0,
            },
            warning,
        ))
    }

    /// Size of the receive buffer.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Bytes of events that wait, and how many may, as the kernel charges them.
    pub(crate) fn waiting(&self) -> Option<(u32, u32)> {
        self.socket.waiting().ok()
    }

    /// True if the kernel applies the filter.
    pub(crate) fn filters_in_kernel(&self) -> bool {
        !self.program.is_empty()
    }

    /// How many events the receive buffer holds.
    pub(crate) fn room(&self) -> usize {
        self.buffer_bytes / EVENT_BYTES
    }

    /// Joins or leaves the group of NEW events.
    pub(crate) fn hear_new(&mut self, on: bool) -> io::Result<()> {
        if on != self.hears_new {
            if on {
                self.socket.join(group::CONNTRACK_NEW)?;
            } else {
                self.socket.leave(group::CONNTRACK_NEW)?;
            }
            self.hears_new = on;
        }
        Ok(())
    }

    /// Hears events about flows that our own injections cause, or does not: their results
    /// have the same contents, and each event costs as much as one of traffic.
    pub(crate) fn hear_injections(&mut self, on: bool) -> io::Result<()> {
        if on != self.hears_injections {
            let ignored = Ignored {
                port: self.inject_port,
                subsystem: NFNL_SUBSYS_CTNETLINK,
            };
            self.socket
                .filter((!on).then_some(ignored), &self.program)?;
            self.hears_injections = on;
        }
        Ok(())
    }

    /// Doubles the buffer after an overrun, within the configured limit.
    /// Returns the new size if it grew.
    pub(crate) fn grow(&mut self) -> Option<usize> {
        let double = self.buffer_bytes * 2;
        if double > self.growth_max {
            return None;
        }
        let (now, _) = self.socket.set_receive_buffer(double).ok()?;
        let grew = now > self.buffer_bytes;
        self.buffer_bytes = now;
        grew.then_some(now)
    }

    /// Reads up to about `budget` events into `out`.
    pub(crate) fn read(&mut self, buffer: &mut [u8], budget: usize, out: &mut Events) -> Read {
        while out.len() < budget {
            let bytes = match self.socket.receive(buffer) {
                Ok(bytes) => bytes,
                Err(e) if is_would_block(&e) => return Read::Drained,
                Err(e) if is_overrun(&e) => return Read::Overrun,
                Err(e) => {
                    self.failed += 1;
                    if e.kind() == io::ErrorKind::InvalidData {
                        continue;
                    }
                    return Read::Drained;
                }
            };
            for message in ctnetlink::messages(bytes) {
                let Ok(message) = message else {
                    self.failed += 1;
                    break;
                };
                match ctnetlink::decode(&message) {
                    Ok(Message::Flow { kind, flow, .. }) => {
                        if self.reads_endings && kind == EventKind::Destroy {
                            let ending = Ending::of(message.payload);
                            out.endings.push_back((flow.key(), ending));
                        }
                        out.flows.push(KernelEvent {
                            change: change(kind),
                            origin: self.origin(message.port),
                            flow,
                        });
                    }
                    Ok(Message::Expectation { kind, expectation }) => {
                        let event = ExpectationEvent {
                            change: change(kind),
                            origin: self.origin(message.port),
                            expectation,
                        };
                        out.expectations.push((out.flows.len(), event));
                    }
                    Ok(_) => self.unknown += 1,
                    Err(_) => self.failed += 1,
                }
            }
        }
        Read::Budget
    }

    fn origin(&self, port: u32) -> Origin {
        match port {
            0 => Origin::Traffic,
            p if p == self.commit_port => Origin::Commit,
            p if p == self.inject_port => Origin::Inject,
            _ => Origin::Traffic,
        }
    }
}

/// Events of one turn. Flows are many and expectations few: they lie apart, and
/// [`Events::runs`] gives them back in the order in which the kernel sent them.
#[derive(Debug, Default)]
pub(crate) struct Events {
    flows: Vec<KernelEvent>,
    /// Each with the number of events about flows before it.
    expectations: Vec<(usize, ExpectationEvent)>,
    /// How the flows have ended that have, in the same order.
    endings: VecDeque<(FlowKey, Ending)>,
}

/// What an event reports of a flow's end beside the flow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ending {
    /// Packets and bytes of each direction, with `nf_conntrack_acct`.
    pub(crate) counters: [Option<(u64, u64)>; 2],
    /// How long it has lived, with `nf_conntrack_timestamp`.
    pub(crate) seconds: Option<u64>,
}

impl Ending {
    /// Of a message's payload.
    fn of(payload: &[u8]) -> Ending {
        let details = payload.get(4..).and_then(|a| decode_details(a).ok());
        let Some(details) = details else {
            return Ending::default();
        };
        let both = [details.counters.0, details.counters.1];
        let (began, ended) = details.timestamps;
        Ending {
            counters: both.map(|c| c.map(|c| (c.packets, c.bytes))),
            seconds: began
                .zip(ended)
                .map(|(began, ended)| ended.saturating_sub(began) / 1_000_000_000),
        }
    }
}

/// Events of one sort that follow one another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run<'a> {
    Flows(&'a [KernelEvent]),
    Expectation(&'a ExpectationEvent),
}

impl Events {
    pub(crate) fn clear(&mut self) {
        self.flows.clear();
        self.expectations.clear();
        self.endings.clear();
    }

    /// How a flow has ended. To be asked in the order of the events.
    pub(crate) fn take_ending(&mut self, flow: &FlowKey) -> Option<Ending> {
        let at = self.endings.iter().position(|(key, _)| key == flow)?;
        // Those before it are of flows that nobody asks for.
        self.endings
            .drain(..=at)
            .next_back()
            .map(|(_, ending)| ending)
    }

    pub(crate) fn len(&self) -> usize {
        self.flows.len() + self.expectations.len()
    }

    #[cfg(test)]
    pub(crate) fn of(event: KernelEvent) -> Events {
        Events {
            flows: vec![event],
            ..Events::default()
        }
    }

    /// All events in the kernel's order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        (0..).map_while(|n| self.run(n))
    }

    /// The run with a number: runs of flows, which may be empty, and expectations take turns.
    pub(crate) fn run(&self, n: usize) -> Option<Run<'_>> {
        let at = |n: usize| self.expectations.get(n).map(|(at, _)| *at);
        let nth = n / 2;
        if n % 2 == 1 {
            let (_, event) = self.expectations.get(nth)?;
            return Some(Run::Expectation(event));
        }
        let begin = match nth.checked_sub(1) {
            Some(before) => at(before)?,
            None => 0,
        };
        let end = at(nth).unwrap_or(self.flows.len());
        Some(Run::Flows(&self.flows[begin..end]))
    }
}

/// A filter for the kernel; `None` if it is too long for that.
fn in_kernel(filter: &Filter) -> Option<Vec<Instruction>> {
    let program = ctnetlink::program(filter)?.into_iter();
    let all = program.map(|i| instruction_of(i.code, i.jt, i.jf, i.k));
    Some(all.collect())
}

fn change(kind: EventKind) -> Change {
    match kind {
        EventKind::New => Change::New,
        EventKind::Update => Change::Update,
        EventKind::Destroy => Change::Destroy,
    }
}

impl AsFd for EventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Entries of a dump.
#[derive(Debug, Default)]
pub(crate) struct Dumped {
    pub(crate) flows: Vec<Flow>,
    pub(crate) expectations: Vec<Expectation>,
}

impl Dumped {
    pub(crate) fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.expectations.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.flows.clear();
        self.expectations.clear();
    }
}

/// Dumps of the tables, one at a time.
#[derive(Debug)]
pub(crate) struct DumpSocket {
    socket: Netlink,
    seq: u32,
    running: bool,
    /// The kernel cannot filter: everything is read, and `scope` is applied here.
    scope: DumpScope,
}

impl DumpSocket {
    /// Opens the socket. Reading from it waits.
    pub(crate) fn open() -> Result<DumpSocket> {
        let socket = Netlink::open(false).context("netlink socket for dumps")?;
        Ok(DumpSocket {
            socket,
            seq: 0,
            running: false,
            scope: DumpScope::All,
        })
    }

    /// Asks for a dump; an error is an end that failed.
    pub(crate) fn start(&mut self, scope: DumpScope) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        self.scope = scope;
        let mut out = Vec::new();
        let request = Request::new(&mut out, self.seq, false);
        match scope {
            DumpScope::All => request.dump(DumpFilter::All),
            DumpScope::Protocol { v6, proto } => request.dump(DumpFilter::Protocol { v6, proto }),
            DumpScope::Expectations => request.dump_expectations(),
        }
        self.socket.send(&out)?;
        self.running = true;
        Ok(())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Reads one buffer of entries; says when the dump is over.
    pub(crate) fn read(&mut self, buffer: &mut [u8], out: &mut Dumped) -> Option<DumpEnd> {
        debug_assert!(buffer.len() >= RECEIVE_BYTES);
        let bytes = match self.socket.receive(buffer) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return None,
            Err(_) => {
                self.running = false;
                return Some(DumpEnd::Failed);
            }
        };
        for message in ctnetlink::messages(bytes).flatten() {
            if message.seq != self.seq {
                continue;
            }
            match ctnetlink::decode(&message) {
                Ok(Message::Flow { flow, .. }) if covers(self.scope, &flow) => {
                    out.flows.push(flow);
                }
                Ok(Message::Expectation { expectation, .. }) => out.expectations.push(expectation),
                Ok(Message::Done { error: 0, .. }) => {
                    self.running = false;
                    return Some(DumpEnd::Complete);
                }
                Ok(Message::Done { .. } | Message::Ack { .. }) => {
                    self.running = false;
                    return Some(DumpEnd::Failed);
                }
                _ => {}
            }
        }
        None
    }
}

/// Kernels before 5.8 ignore the filter.
fn covers(scope: DumpScope, flow: &Flow) -> bool {
    match scope {
        DumpScope::All => true,
        DumpScope::Expectations => false,
        DumpScope::Protocol { v6, proto } => {
            flow.orig.proto == proto && flow.orig.addrs.is_v4() != v6
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A master that ends and begins again, with an expectation of each life: the order
    /// decides which life the replica takes it for.
    #[test]
    fn events_of_flows_and_expectations_keep_their_order() {
        let captured: [&[Change]; 4] = [
            &[Change::New],
            &[],
            &[Change::Destroy, Change::New],
            &[Change::Update],
        ];
        let tuple = flow::Tuple {
            addrs: flow::Addrs::V4 {
                src: [10, 0, 0, 1].into(),
                dst: [10, 0, 0, 2].into(),
            },
            proto: flow::Proto::TCP,
            l4: flow::L4::Ports { src: 1, dst: 21 },
        };
        let expectation = Expectation {
            master: tuple,
            tuple,
            mask: tuple,
            zone: flow::Zone(0),
            timeout: None,
            flags: 0,
            class: None,
            nat: None,
            helper: None,
            function: None,
            id: None,
        };
        let mut events = Events::default();
        let mut expected = String::new();
        for changes in captured {
            for &change in changes {
                expected += &format!("{change:?} ");
                events.flows.push(KernelEvent {
                    change,
                    origin: Origin::Traffic,
                    flow: Flow::new(tuple),
                });
            }
            expected += "expectation ";
            let event = ExpectationEvent {
                change: Change::New,
                origin: Origin::Traffic,
                expectation,
            };
            events.expectations.push((events.flows.len(), event));
        }
        let mut seen = String::new();
        for run in events.runs() {
            match run {
                Run::Flows(flows) => {
                    for event in flows {
                        seen += &format!("{:?} ", event.change);
                    }
                }
                Run::Expectation(_) => seen += "expectation ",
            }
        }
        assert_eq!(seen, expected);
        events.clear();
        assert_eq!(events.len(), 0);
    }
}

#[cfg(test)]
mod program_tests;
