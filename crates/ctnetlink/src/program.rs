//! A filter of flows as a classic BPF program for the event socket: what the kernel need not
//! deliver.
//!
//! The program looks at one event (`struct nlmsghdr`, `struct nfgenmsg`, attributes) and has the
//! meaning of [`Filter::keeps`] for what the event shows. What it cannot see passes: the filter
//! is applied to all that is delivered. An end (DESTROY) passes rules of states, because the
//! flow may have been known in another state.
//!
//! Source: `include/uapi/linux/filter.h`, `include/uapi/linux/bpf_common.h`; the kernel finds
//! attributes by `SKF_AD_NLATTR` and `SKF_AD_NLATTR_NEST` (`net/core/filter.c`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use flow::{Filter, Policy, Prefix};

use crate::request::{AF_INET, AF_INET6};

/// One instruction: `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// Instructions to skip if a condition holds.
    pub jt: u8,
    /// The same if it does not hold.
    pub jf: u8,
    /// Its operand.
    pub k: u32,
}

/// Most instructions of a program; `BPF_MAXINSNS` is 4096, and who attaches it adds a few.
const PROGRAM_MAX: usize = 4000;

// Classes, sizes, modes and operations, joined (`bpf_common.h`).
const LOAD_IMMEDIATE: u16 = 0x00;
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD_AT_X: u16 = 0x40;
const LOAD_BYTE_AT_X: u16 = 0x50;
const LOAD_X_IMMEDIATE: u16 = 0x01;
const COPY_TO_X: u16 = 0x07;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_NLATTR`: from the offset A on, the offset of the attribute X, or 0.
const FIND: u32 = 0xffff_f000 + 12;
/// `SKF_AD_OFF + SKF_AD_NLATTR_NEST`: the same inside the attribute at the offset A.
const FIND_INSIDE: u32 = 0xffff_f000 + 16;

// Offsets in an event. A byte of `nlmsg_type`, which is in the machine's order.
const MESSAGE_AT: u32 = if cfg!(target_endian = "little") { 4 } else { 5 };
const SUBSYSTEM_AT: u32 = if cfg!(target_endian = "little") { 5 } else { 4 };
const FAMILY_AT: u32 = 16;
const ATTRIBUTES_AT: u32 = 20;
/// Of an attribute's value behind its header.
const VALUE_AT: u32 = 4;

// `include/uapi/linux/netfilter/nfnetlink.h`, `nfnetlink_conntrack.h`
const NFNL_SUBSYS_CTNETLINK: u32 = 1;
const IPCTNL_MSG_CT_DELETE: u32 = 2;
const CTA_TUPLE_ORIG: u32 = 1;
const CTA_TUPLE_REPLY: u32 = 2;
const CTA_PROTOINFO: u32 = 4;
const CTA_TUPLE_IP: u32 = 1;
const CTA_TUPLE_PROTO: u32 = 2;
const CTA_IP_V4_SRC: u32 = 1;
const CTA_IP_V6_SRC: u32 = 3;
const CTA_PROTO_NUM: u32 = 1;
const CTA_PROTOINFO_TCP: u32 = 1;
const CTA_PROTOINFO_TCP_STATE: u32 = 1;

/// The program of a filter; `None` if it does not fit.
pub fn program(filter: &Filter) -> Option<Vec<Instruction>> {
    let mut p = Assembler::default();
    p.byte(SUBSYSTEM_AT);
    p.unless_equal(NFNL_SUBSYS_CTNETLINK, To::Accept);
    if let Some((policy, protocols)) = &filter.protocols {
        p.find(&[CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_PROTO_NUM]);
        p.emit(LOAD_BYTE_AT_X, VALUE_AT);
        p.judge(*policy, protocols.iter().map(|proto| proto.0.into()));
    }
    if let Some((policy, prefixes)) = &filter.addresses {
        addresses(&mut p, *policy, prefixes);
    }
    if let Some((policy, states)) = &filter.tcp_states {
        p.byte(MESSAGE_AT);
        p.if_equal(IPCTNL_MSG_CT_DELETE, To::Accept);
        p.find(&[CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE]);
        p.emit(LOAD_BYTE_AT_X, VALUE_AT);
        p.judge(*policy, states.iter().map(|state| state.0.into()));
    }
    p.finish()
}

/// Both families, each with its own prefixes, both sources.
fn addresses(p: &mut Assembler, policy: Policy, prefixes: &[Prefix]) {
    let (matched, missed, v6) = (p.label(), p.label(), p.label());
    p.byte(FAMILY_AT);
    p.if_equal(AF_INET6.into(), To::Label(v6));
    p.unless_equal(AF_INET.into(), To::Accept);
    for tuple in [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY] {
        p.find(&[tuple, CTA_TUPLE_IP, CTA_IP_V4_SRC]);
        v4(p, prefixes, matched);
    }
    p.jump(To::Label(missed));
    p.bind(v6);
    for tuple in [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY] {
        p.find(&[tuple, CTA_TUPLE_IP, CTA_IP_V6_SRC]);
        for prefix in prefixes {
            one_v6(p, prefix, matched);
        }
    }
    p.bind(missed);
    let end = p.label();
    match policy {
        Policy::Accept => p.jump(To::Drop),
        Policy::Ignore => p.jump(To::Label(end)),
    }
    p.bind(matched);
    if policy == Policy::Ignore {
        p.jump(To::Drop);
    }
    p.bind(end);
}

/// Compares the address at X with all networks of a length at a time.
fn v4(p: &mut Assembler, prefixes: &[Prefix], matched: Label) {
    let mut by_length: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
    for prefix in prefixes {
        if let IpAddr::V4(addr) = prefix.addr() {
            by_length.entry(prefix.len()).or_default().push(addr.into());
        }
    }
    for (length, networks) in by_length {
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        p.emit(LOAD_WORD_AT_X, VALUE_AT);
        p.emit(AND, mask);
        for network in networks {
            p.if_equal(network & mask, To::Label(matched));
        }
    }
}

/// Compares the address at X with a network, word by word.
fn one_v6(p: &mut Assembler, prefix: &Prefix, matched: Label) {
    let IpAddr::V6(addr) = prefix.addr() else {
        return;
    };
    let next = p.label();
    let mut left = u32::from(prefix.len());
    for (n, bytes) in addr.octets().chunks_exact(4).enumerate() {
        if left == 0 {
            break;
        }
        let mask = u32::MAX << (32 - left.min(32));
        let word = bytes.iter().fold(0, |word, b| word << 8 | u32::from(*b));
        p.emit(LOAD_WORD_AT_X, VALUE_AT + 4 * n as u32);
        if mask != u32::MAX {
            p.emit(AND, mask);
        }
        p.unless_equal(word & mask, To::Label(next));
        left = left.saturating_sub(32);
    }
    p.jump(To::Label(matched));
    p.bind(next);
}

/// A place in the program.
#[derive(Clone, Copy, Debug)]
struct Label(usize);

/// Where to go on.
#[derive(Clone, Copy, Debug)]
enum To {
    Label(Label),
    /// The event is delivered.
    Accept,
    /// It is not.
    Drop,
}

#[derive(Debug, Default)]
struct Assembler {
    code: Vec<Instruction>,
    /// The place of each label.
    labels: Vec<Option<usize>>,
    /// Jumps, and where they go.
    jumps: Vec<(usize, To)>,
}

impl Assembler {
    fn emit(&mut self, code: u16, k: u32) {
        self.code.push(Instruction {
            code,
            jt: 0,
            jf: 0,
            k,
        });
    }

    fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// A jump of any length; conditions reach 255 instructions only, so each goes over one.
    fn jump(&mut self, to: To) {
        self.jumps.push((self.code.len(), to));
        self.emit(JUMP, 0);
    }

    fn if_equal(&mut self, k: u32, to: To) {
        self.condition(k, (0, 1));
        self.jump(to);
    }

    fn unless_equal(&mut self, k: u32, to: To) {
        self.condition(k, (1, 0));
        self.jump(to);
    }

    fn condition(&mut self, k: u32, (jt, jf): (u8, u8)) {
        self.code.push(Instruction {
            code: JUMP_IF_EQUAL,
            jt,
            jf,
            k,
        });
    }

    fn byte(&mut self, offset: u32) {
        self.emit(LOAD_BYTE, offset);
    }

    /// Makes X the offset of an attribute, by the numbers on the way to it. An event without it
    /// is delivered.
    fn find(&mut self, numbers: &[u32]) {
        self.emit(LOAD_IMMEDIATE, ATTRIBUTES_AT);
        for (n, number) in numbers.iter().enumerate() {
            self.emit(LOAD_X_IMMEDIATE, *number);
            self.emit(LOAD_WORD, if n == 0 { FIND } else { FIND_INSIDE });
            self.if_equal(0, To::Accept);
        }
        self.emit(COPY_TO_X, 0);
    }

    /// Drops by a policy what has been loaded; otherwise the program goes on.
    fn judge(&mut self, policy: Policy, values: impl Iterator<Item = u32>) {
        let end = self.label();
        let to = match policy {
            Policy::Accept => To::Label(end),
            Policy::Ignore => To::Drop,
        };
        for value in values {
            self.if_equal(value, to);
        }
        if policy == Policy::Accept {
            self.jump(To::Drop);
        }
        self.bind(end);
    }

    fn finish(mut self) -> Option<Vec<Instruction>> {
        let accept = self.code.len();
        self.emit(RETURN, u32::MAX);
        let drop = self.code.len();
        self.emit(RETURN, 0);
        for (at, to) in &self.jumps {
            let to = match to {
                To::Accept => accept,
                To::Drop => drop,
                To::Label(label) => self.labels[label.0]?,
            };
            self.code[*at].k = u32::try_from(to - at - 1).ok()?;
        }
        (self.code.len() <= PROGRAM_MAX).then_some(self.code)
    }
}
