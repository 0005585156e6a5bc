//! Delays what a machine receives: its rules queue each segment to user space (NFQUEUE), and it
//! is let go when its time has come. There is no netem on every kernel, and the kernel that
//! answers a SYN does so late only if the SYN comes late.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use sys::netlink::{Netlink, RECEIVE_BYTES};

use crate::node::Node;

/// `NFNL_SUBSYS_QUEUE`.
const SUBSYSTEM: u16 = 3;
const NFQNL_MSG_PACKET: u16 = 0;
const NFQNL_MSG_VERDICT: u16 = 1;
const NFQNL_MSG_CONFIG: u16 = 2;
const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_COPY_META: u8 = 1;
const NF_ACCEPT: u32 = 1;
const NLM_F_REQUEST: u16 = 1;
const BUFFER_BYTES: usize = 16 << 20;
/// Segments that may wait.
const QUEUE_MAX: u32 = 65_536;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER_LEN: usize = 20;

/// From now on, and until the run ends, TCP segments reach `node` later by this time.
///
/// # Errors
/// If the kernel has no such queues.
pub fn delay(node: &Node, by: Duration) -> Result<()> {
    node.run("iptables -t mangle -A INPUT -i eth0 -p tcp -j NFQUEUE --queue-num 0")?;
    let socket = node.inside(|| -> Result<Netlink> {
        let socket = Netlink::open(true)?;
        socket.set_receive_buffer(BUFFER_BYTES)?;
        socket.send(&message(
            NFQNL_MSG_CONFIG,
            NFQA_CFG_CMD,
            &[NFQNL_CFG_CMD_BIND, 0, 0, 0],
        ))?;
        // A copy of nothing but the header.
        socket.send(&message(
            NFQNL_MSG_CONFIG,
            NFQA_CFG_PARAMS,
            &[0, 0, 0, 0, NFQNL_COPY_META],
        ))?;
        let most = QUEUE_MAX.to_be_bytes();
        socket.send(&message(NFQNL_MSG_CONFIG, NFQA_CFG_QUEUE_MAXLEN, &most))?;
        Ok(socket)
    })??;
    std::thread::spawn(move || {
        if let Err(e) = run(&socket, by) {
            eprintln!("the delay has ended: {e:#}");
        }
    });
    Ok(())
}

fn run(socket: &Netlink, by: Duration) -> Result<()> {
    let mut buffer = vec![0; RECEIVE_BYTES];
    let mut waiting: VecDeque<(Instant, u32)> = VecDeque::new();
    loop {
        let now = Instant::now();
        let mut verdicts = Vec::new();
        while waiting.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, id)) = waiting.pop_front() {
                let verdict = [NF_ACCEPT.to_be_bytes(), id.to_be_bytes()].concat();
                verdicts.extend(message(NFQNL_MSG_VERDICT, NFQA_VERDICT_HDR, &verdict));
            }
        }
        if !verdicts.is_empty() {
            socket.send(&verdicts)?;
        }
        let next = waiting.front().map(|(due, _)| due.duration_since(now));
        let timeout = next.map(|wait| rustix::time::Timespec {
            tv_sec: wait.as_secs().cast_signed(),
            tv_nsec: wait.subsec_nanos().into(),
        });
        let mut descriptors = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
        if let Err(e) = poll(&mut descriptors, timeout.as_ref())
            && e != rustix::io::Errno::INTR
        {
            return Err(e.into());
        }
        loop {
            match socket.receive(&mut buffer) {
                Ok(bytes) => waiting.push_back((Instant::now() + by, packet_id(bytes)?)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e).context("receive"),
            }
        }
    }
}

/// The number of a queued packet; each comes in a datagram of its own.
fn packet_id(bytes: &[u8]) -> Result<u32> {
    let kind = bytes.get(4..6).context("short")?;
    let kind = u16::from_ne_bytes([kind[0], kind[1]]);
    ensure!(kind == SUBSYSTEM << 8 | NFQNL_MSG_PACKET, "message {kind}");
    let attributes = bytes.get(HEADER_LEN..).context("short")?;
    // The header of the packet is always the first attribute.
    let (first, rest) = attributes.split_at_checked(4).context("no attribute")?;
    ensure!(u16::from_ne_bytes([first[2], first[3]]) == NFQA_PACKET_HDR);
    let (id, _) = rest.split_first_chunk().context("no number")?;
    Ok(u32::from_be_bytes(*id))
}

/// A message to queue 0 with one attribute.
fn message(kind: u16, attribute: u16, value: &[u8]) -> Vec<u8> {
    let padded = value.len().next_multiple_of(4);
    let len = HEADER_LEN + 4 + padded;
    let mut out = Vec::with_capacity(len);
    out.extend((len as u32).to_ne_bytes());
    out.extend((SUBSYSTEM << 8 | kind).to_ne_bytes());
    out.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number, port; family, version, queue.
    out.extend([0; 8]);
    out.extend([0; 4]);
    out.extend((4 + value.len() as u16).to_ne_bytes());
    out.extend(attribute.to_ne_bytes());
    out.extend(value);
    out.resize(len, 0);
    out
}
