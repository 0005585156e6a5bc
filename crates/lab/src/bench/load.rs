//! Requests to the kernel at a given rate, in groups of a given size: on FW1 they are the load,
//! and on FW2, where nothing else runs, their CPU time is the limit that the kernel sets.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ctnetlink::{Message, Request, TcpOptions, decode, group, messages};
use flow::{Flow, ProtoInfo, TcpInfo, TcpState};
use rustix::time::{ClockId, clock_gettime};
use sys::netlink::{Netlink, RECEIVE_BYTES};

use crate::node::Node;
use crate::topology::Lab;

/// `include/uapi/linux/netlink.h`
const NLMSG_ERROR: u16 = 2;
/// Answers to one group of requests fit.
const ANSWER_BYTES: usize = 1 << 20;
/// A load that reaches less than this part of its rate is another load.
const RATE_MIN: f64 = 0.9;

/// What is done with each flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It begins, with half a handshake.
    Create,
    /// It is established.
    Update,
    /// It ends.
    Delete,
    /// It is looked up, and it ends: what a replica does that deletes only what is its own.
    GetAndDelete,
}

/// Requests, and how they are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Flow of a number.
    pub(crate) flow: fn(u32) -> Flow,
    /// The first number.
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Requests in one `send`.
    pub(crate) group: u32,
    /// Requests a second; `None`: as many as possible.
    pub(crate) rate: Option<u32>,
}

/// What a load took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// CPU time of the thread that sent it.
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
}

/// Requests in one `send`: more gain nothing.
const GROUP: u32 = 64;

impl Load {
    /// The first `count` flows, as fast as the kernel takes them.
    pub(crate) fn of_first(count: u32) -> Load {
        Load {
            flow: super::flow,
            first: 0,
            count,
            group: GROUP,
            rate: None,
        }
    }

    /// Does it in the namespace of `node`. Every request must succeed.
    pub(crate) fn run(self, node: &Node, action: Action) -> Result<Spent> {
        node.inside(move || self.run_here(action))?
            .with_context(|| format!("{action:?} on {}", node.name()))
    }

    fn run_here(self, action: Action) -> Result<Spent> {
        let socket = Netlink::open(true)?;
        socket.set_short_answers()?;
        socket.set_receive_buffer(ANSWER_BYTES)?;
        let mut out = Vec::new();
        let mut buffer = vec![0; RECEIVE_BYTES];
        let (begun, cpu) = (Instant::now(), thread_cpu());
        for done in (0..self.count).step_by(self.group as usize) {
            if let Some(rate) = self.rate {
                let due = Duration::from_secs_f64(f64::from(done) / f64::from(rate));
                thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            let first = self.first + done;
            let end = self.first + (done + self.group).min(self.count);
            if action == Action::GetAndDelete {
                out.clear();
                for n in first..end {
                    let key = (self.flow)(n).key();
                    Request::new(&mut out, n, n + 1 == end).get(&key);
                }
                exchange(&socket, &out, &mut buffer, end - first)?;
            }
            out.clear();
            for n in first..end {
                write(
                    Request::new(&mut out, n, n + 1 == end),
                    action,
                    &(self.flow)(n),
                );
            }
            exchange(&socket, &out, &mut buffer, 0)?;
        }
        let spent = Spent {
            cpu: thread_cpu().saturating_sub(cpu),
            wall: begun.elapsed(),
        };
        if let Some(rate) = self.rate {
            let reached = f64::from(self.count) / spent.wall.as_secs_f64();
            ensure!(
                reached >= RATE_MIN * f64::from(rate),
                "{reached:.0} requests a second instead of {rate}"
            );
        }
        Ok(spent)
    }
}

impl Spent {
    /// CPU time of one of `count` requests in microseconds.
    pub(super) fn cpu_us(&self, count: u32) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / f64::from(count)
    }
}

fn write(request: Request<'_>, action: Action, flow: &Flow) {
    let options = TcpOptions {
        window_scale: false,
    };
    match action {
        Action::Create => request.create(&half_open(flow), options),
        Action::Update => request.update(flow, options),
        Action::Delete | Action::GetAndDelete => request.delete(&flow.key(), None),
    }
}

/// The same flow before its handshake has ended, so that an update has something to change.
fn half_open(flow: &Flow) -> Flow {
    let mut flow = *flow;
    if let Some(ProtoInfo::Tcp(_)) = flow.proto_info {
        flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state: TcpState::SYN_RECV,
            window_scale: None,
        }));
    }
    flow
}

/// Sends requests of which the last asks for an answer, and reads the answers: `flows`
/// entries, and nothing that failed. The kernel has executed all when `send` returns.
fn exchange(socket: &Netlink, out: &[u8], buffer: &mut [u8], flows: u32) -> Result<()> {
    socket.send(out)?;
    let mut found = 0;
    loop {
        for message in messages(socket.receive(buffer)?) {
            let message = message?;
            if message.kind != NLMSG_ERROR {
                found += 1;
                continue;
            }
            match decode(&message)? {
                Message::Ack { error: 0 } if found == flows => return Ok(()),
                Message::Ack { error: 0 } => bail!("{found} of {flows} entries found"),
                other => bail!("request {}: {other:?}", message.seq),
            }
        }
    }
}

fn thread_cpu() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        t.tv_sec.try_into().unwrap_or(0),
        t.tv_nsec.try_into().unwrap_or(0),
    )
}

/// Whether the kernel makes events of what happens in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Events {
    /// It makes none: nobody listens.
    None,
    /// It makes each, and nobody receives it: so it is on a firewall whose daemon does not
    /// listen, if another namespace of the machine does.
    Unreceived,
}

/// Runs a load on FW2, where no daemon runs, with or without events.
pub(super) fn alone<T>(lab: &Lab, events: Events, work: impl FnOnce() -> Result<T>) -> Result<T> {
    lab.fw[1].run("conntrack -F")?;
    let listener = match events {
        Events::None => None,
        Events::Unreceived => {
            lab.fw[1].sysctl(EVENTS, EVENTS_ALWAYS)?;
            Some(listen(&lab.fw[0], ANSWER_BYTES)?)
        }
    };
    let result = work();
    drop(listener);
    lab.fw[1].sysctl(EVENTS, EVENTS_DEFAULT)?;
    lab.fw[1].run("conntrack -F")?;
    result
}

/// The key that chooses for which flows there are events, and its values: for all, and for
/// those that begin while somebody listens.
pub(super) const EVENTS: &str = "net/netfilter/nf_conntrack_events";
const EVENTS_ALWAYS: &str = "1";
pub(super) const EVENTS_DEFAULT: &str = "2";

/// A socket in the namespace of `node` that listens to all events of flows, with a buffer of so
/// many bytes.
pub(super) fn listen(node: &Node, buffer: usize) -> Result<Netlink> {
    node.inside(move || -> Result<Netlink> {
        let socket = Netlink::open(true)?;
        socket.set_receive_buffer(buffer)?;
        for number in [
            group::CONNTRACK_NEW,
            group::CONNTRACK_UPDATE,
            group::CONNTRACK_DESTROY,
        ] {
            socket.join(number)?;
        }
        Ok(socket)
    })?
}
