//! Traffic: flows begin, change and end, packets refresh timers, and helpers predict.

use flow::{Addrs, Flow, FlowKey, L4, Name, Proto, ProtoInfo, Status, TcpInfo, TcpState, Tuple};

use crate::plan::Fault;
use crate::random::Random;

use super::{KEYS, STEP, World};

/// Packets in a step that only refresh a timer.
const PACKETS: usize = 2;
/// Every so many keys one is of a flow that a helper looks after.
const HELPED: u16 = 7;

impl World {
    pub(super) fn make_traffic(&mut self) {
        let mut actions = 0;
        let part = self.plan.rate as f64 * STEP.as_secs_f64();
        if self.workload.chance(part.fract()) {
            actions += 1;
        }
        actions += part as u64;
        if self.plan.has(Fault::Overrun) && self.workload.chance(0.002) {
            actions += 400;
        }
        for _ in 0..actions {
            self.act();
        }
        if self.plan.has(Fault::Silence) && self.workload.chance(0.05) {
            self.refresh_silently();
        }
        if self.plan.has_manager() {
            self.pass_packets();
        }
        for n in 0..self.nodes.len() {
            // What has expired lives no more.
            for key in self.nodes[n].kernel.expire(self.now) {
                if self.lives.get(&key) == Some(&n) {
                    self.on_end(n, key);
                }
            }
        }
        let nodes = &self.nodes;
        let removals = nodes.iter().map(|node| node.kernel.removals).sum();
        if self.removals != removals {
            self.removals = removals;
            self.lives
                .retain(|key, n| nodes[*n].kernel.get(key).is_some());
        }
    }

    fn act(&mut self) {
        let number = self.workload.below(KEYS);
        let mut flow = plain_flow(number as u16);
        if self.plan.expectations && is_helped(number as u16) {
            flow.helper = Name::new(b"ftp");
        }
        let key = flow.key();
        let home = if self.plan.spread {
            number as usize % 2
        } else {
            self.primary
        };
        let n = self.lives.get(&key).copied().unwrap_or(home);
        let what = self.workload.below(10);
        let known = self.nodes[n].kernel.get(&key).copied();
        match known {
            Some(_) if !self.lives.contains_key(&key) => {
                // A copy, or what a failed takeover left: packets of it would hang.
            }
            Some(_) if what < 3 => {
                self.nodes[n].kernel.end(&key);
                self.on_end(n, key);
            }
            Some(flow) => {
                let flow = self.truth.note(advanced(&flow, &mut self.workload));
                self.truth.on_traffic(n, &key);
                self.nodes[n].kernel.traffic(self.now, &flow);
            }
            None if !self.nodes[n].kernel.is_full => {
                self.begin(n, flow);
            }
            None => {}
        }
    }

    /// A flow begins at replica `n`.
    pub(super) fn begin(&mut self, n: usize, flow: Flow) {
        let flow = self.truth.note(flow);
        let key = flow.key();
        self.kept.on_born(&flow);
        self.truth.on_traffic(n, &key);
        self.nodes[n].kernel.traffic(self.now, &flow);
        self.lives.insert(key, n);
        self.over.remove(&key);
    }

    /// A flow has ended at replica `n`, which owned it.
    pub(super) fn on_end(&mut self, n: usize, key: FlowKey) {
        self.kept.on_ended(n, key);
        self.lives.remove(&key);
        self.over.insert(key);
    }

    fn refresh_silently(&mut self) {
        let all: Vec<_> = self.lives.iter().map(|(k, n)| (*k, *n)).collect();
        if all.is_empty() {
            return;
        }
        let (key, n) = *self.workload.pick(&all);
        let held = self.nodes[n].kernel.get(&key).and_then(|f| f.timeout);
        if let Some(timeout) = held {
            self.truth.on_traffic(n, &key);
            self.nodes[n].kernel.refresh(self.now, &key, timeout);
        }
    }

    /// Ordinary packets: each gives its flow the timeout of its state, without any event.
    fn pass_packets(&mut self) {
        for _ in 0..PACKETS {
            let number = self.packets.below(KEYS);
            let key = plain_flow(number as u16).key();
            let Some(&n) = self.lives.get(&key) else {
                continue;
            };
            if let Some(flow) = self.nodes[n].kernel.get(&key) {
                let timeout = timeout_of_state(flow);
                self.truth.on_traffic(n, &key);
                self.nodes[n].kernel.refresh(self.now, &key, timeout);
            }
        }
    }
}

/// True if the flow of a key is one of those that predict others.
pub(super) fn is_helped(number: u16) -> bool {
    number % HELPED == 3 && !number.is_multiple_of(5)
}

/// The flow of a key as it begins: UDP for some, TCP with source NAT for the others.
pub(super) fn plain_flow(number: u16) -> Flow {
    let is_udp = number.is_multiple_of(5);
    let proto = if is_udp { Proto::UDP } else { Proto::TCP };
    let mut flow = Flow::new(Tuple {
        addrs: Addrs::V4 {
            src: [192, 168, 0, 3].into(),
            dst: [192, 168, 1, 2].into(),
        },
        proto,
        l4: L4::Ports {
            src: 1000 + number,
            dst: 80,
        },
    });
    flow.status = Status::CONFIRMED;
    if is_udp {
        flow.timeout = Some(timeout_of_state(&flow));
        return flow;
    }
    let outside = "192.168.1.100".parse().expect("an address");
    flow.reply.addrs = flow.reply.addrs.with_dst(outside).expect("IPv4");
    flow.reply.l4 = L4::Ports {
        src: 80,
        dst: 40_000 + number,
    };
    let nat = [Status::SRC_NAT, Status::SRC_NAT_DONE, Status::DST_NAT_DONE];
    flow.status = nat.into_iter().fold(flow.status, Status::with);
    flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
        state: TcpState::SYN_SENT,
        window_scale: None,
    }));
    flow.timeout = Some(timeout_of_state(&flow));
    flow
}

/// Seconds that a packet gives a flow, by its state.
pub(super) fn timeout_of_state(flow: &Flow) -> u32 {
    match flow.tcp_state() {
        None => 6,
        Some(TcpState::ESTABLISHED) => 432_000,
        Some(_) => 120,
    }
}

/// The flow after some packets.
fn advanced(flow: &Flow, random: &mut Random) -> Flow {
    let mut next = *flow;
    next.status = next.status.with(Status::SEEN_REPLY);
    if let Some(state) = flow.tcp_state() {
        let state = TcpState((state.0 + 1 + random.below(2) as u8).min(TcpState::TIME_WAIT.0));
        next.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state,
            window_scale: None,
        }));
        next.timeout = Some(timeout_of_state(&next));
    }
    next
}
