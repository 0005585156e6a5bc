//! Messages of a kernel that is not there: captured ones, in which addresses, ports and the id
//! are those of flow number `n`.
//!
//! All flows are TCP over IPv4 with source NAT. A flow's number decides its tuples: 50 000 ports
//! of each source address, and likewise of each address that it is translated to.

use std::net::Ipv4Addr;

use ctnetlink::{Message, decode, messages};
use flow::{Addrs, Flow, FlowKey, L4};

/// What happens to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// NEW: the first SYN.
    New,
    /// UPDATE: the handshake is over.
    Established,
    /// DESTROY.
    Destroy,
}

impl Step {
    /// Seconds that a flow lives after it without another packet.
    pub fn timeout(self) -> u32 {
        match self {
            Step::New => 120,
            Step::Established => 432_000,
            Step::Destroy => 0,
        }
    }
}

const CAPTURED: &str = include_str!("../../ctnetlink/testdata/events.tsv");
const PORTS: u32 = 50_000;
const FIRST_PORT: u16 = 1024;
const SOURCES: u32 = u32::from_be_bytes([10, 0, 0, 0]);
const TRANSLATED: u32 = u32::from_be_bytes([172, 16, 0, 0]);

/// One captured message, and where in it stands what differs from flow to flow.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    source: usize,
    source_port: usize,
    translated: usize,
    translated_port: usize,
    /// A DESTROY has none.
    timeout: Option<usize>,
    id: usize,
}

impl Template {
    /// The captured message on a line, counted from 0.
    fn on_line(n: usize) -> Template {
        let line = CAPTURED.lines().nth(n).expect("a captured event");
        let hex = line.split('\t').next().unwrap_or_default();
        let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hexadecimal");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let find = |attribute: &[u8]| bytes.windows(attribute.len()).position(|w| w == attribute);
        let behind = |header: [u8; 4], value: &[u8]| {
            find(&[&header, value].concat()).expect("the attribute") + header.len()
        };
        Template {
            source: behind([8, 0, 1, 0], &[192, 168, 0, 3]),
            source_port: behind([6, 0, 2, 0], &5000_u16.to_be_bytes()),
            translated: behind([8, 0, 2, 0], &[192, 168, 1, 1]),
            translated_port: behind([6, 0, 3, 0], &40037_u16.to_be_bytes()),
            timeout: find(&[8, 0, 7, 0]).map(|at| at + 4),
            id: behind([8, 0, 12, 0], &4_020_974_414_u32.to_be_bytes()),
            bytes,
        }
    }

    fn put(&self, out: &mut Vec<u8>, n: u32, timeout: u32) {
        let begin = out.len();
        out.extend_from_slice(&self.bytes);
        let message = &mut out[begin..];
        let mut set = |at: usize, value: &[u8]| {
            message[at..at + value.len()].copy_from_slice(value);
        };
        set(self.source, &(SOURCES + n / PORTS).to_be_bytes());
        set(self.source_port, &port(n).to_be_bytes());
        set(self.translated, &(TRANSLATED + n / PORTS).to_be_bytes());
        set(self.translated_port, &(!port(n)).to_be_bytes());
        set(self.id, &n.to_be_bytes());
        if let Some(at) = self.timeout {
            set(at, &timeout.to_be_bytes());
        }
    }
}

fn port(n: u32) -> u16 {
    FIRST_PORT + (n % PORTS) as u16
}

/// Writes messages of any flow.
#[derive(Debug)]
pub struct Events {
    new: Template,
    established: Template,
    destroy: Template,
}

impl Default for Events {
    fn default() -> Events {
        Events {
            new: Template::on_line(0),
            established: Template::on_line(2),
            destroy: Template::on_line(9),
        }
    }
}

impl Events {
    /// Appends the event of one step of flow `n`, which is below 50 000 times 2^20.
    pub fn put(&self, out: &mut Vec<u8>, step: Step, n: u32) {
        let template = match step {
            Step::New => &self.new,
            Step::Established => &self.established,
            Step::Destroy => &self.destroy,
        };
        template.put(out, n, step.timeout());
    }

    /// Appends what a dump shows of flow `n`, which is established and has `timeout` seconds left.
    pub fn put_dumped(&self, out: &mut Vec<u8>, n: u32, timeout: u32) {
        self.established.put(out, n, timeout);
    }

    /// Flow `n` as its established event reports it.
    pub fn established(&self, n: u32) -> Flow {
        self.with_timeout(n, Step::Established.timeout())
    }

    /// The same with another timeout.
    pub fn with_timeout(&self, n: u32, timeout: u32) -> Flow {
        let mut bytes = Vec::new();
        self.put_dumped(&mut bytes, n, timeout);
        let message = messages(&bytes).next().and_then(Result::ok);
        match message.map(|message| decode(&message)) {
            Some(Ok(Message::Flow { flow, .. })) => flow,
            other => panic!("a captured event is a flow: {other:?}"),
        }
    }
}

/// The number of a flow; `None` if no event of ours can have reported it.
pub fn number_of(key: &FlowKey) -> Option<u32> {
    let (Addrs::V4 { src, .. }, L4::Ports { src: port, .. }) = (key.orig.addrs, key.orig.l4) else {
        return None;
    };
    let address = Ipv4Addr::to_bits(src).checked_sub(SOURCES)?;
    let port = u32::from(port.checked_sub(FIRST_PORT)?);
    (port < PORTS).then(|| address.saturating_mul(PORTS).saturating_add(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_has_tuples_of_its_own_and_is_known_by_them() {
        let events = Events::default();
        for n in [0, 1, 49_999, 50_000, 9_999_999] {
            let flow = events.established(n);
            assert_eq!(number_of(&flow.key()), Some(n));
            assert_eq!(flow.id, Some(n));
            assert!(flow.source_translated());
        }
        assert_ne!(
            events.established(1).reply,
            events.established(50_001).reply
        );
    }

    #[test]
    fn an_event_is_of_its_step() {
        let events = Events::default();
        let kinds = [Step::New, Step::Established, Step::Destroy].map(|step| {
            let mut bytes = Vec::new();
            events.put(&mut bytes, step, 7);
            let message = messages(&bytes)
                .next()
                .expect("one message")
                .expect("whole");
            match decode(&message) {
                Ok(Message::Flow { kind, .. }) => kind,
                other => panic!("{other:?}"),
            }
        });
        use ctnetlink::EventKind;
        let wanted = [EventKind::New, EventKind::Update, EventKind::Destroy];
        assert_eq!(kinds, wanted);
    }
}
