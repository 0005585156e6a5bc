//! The packed form of a flow: what every flow has in one record, the rest in an [`Extra`].
//!
//! An IPv4 record takes 80 bytes with its note; a flow in passing takes 300.

use std::net::{Ipv4Addr, Ipv6Addr};

use flow::{
    Addrs, Flow, FlowKey, L4, Labels, Mark, Name, Proto, ProtoInfo, SeqAdjPair, Status, SynProxy,
    TcpInfo, TcpState, Tuple, Zone,
};

use crate::Slot;

/// Time in tenths of a second since the replica started: 13 years in 4 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u32);

impl Tick {
    /// Whole seconds since `earlier`.
    pub fn seconds_since(self, earlier: Tick) -> u32 {
        self.0.saturating_sub(earlier.0) / 10
    }
}

/// The lists that an entry can be in, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum List {
    /// Announced to the peer, in the order of versions.
    Ledger,
    /// Found in the kernel and not announced.
    Adopted,
    /// Owed to the kernel.
    Unwritten,
    /// In the order in which they were last stored, oldest first.
    Aged,
    /// Not in the kernel, where the peer counts on it: its table was full, or somebody has deleted
    /// it there.
    Lacking,
}

impl List {
    pub(crate) const COUNT: usize = 5;
}

/// What the owner of a cache notes about each entry.
pub trait Note: Copy + Default + std::fmt::Debug {
    /// The classes that an entry with this note belongs to, one bit each. The cache counts
    /// the members of every class.
    fn classes(&self) -> u16;
}

/// When an entry was inserted and last stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When it was inserted.
    pub created: Tick,
    /// When it was last stored; its timeout counts from here.
    pub updated: Tick,
}

/// The neighbours of an entry in its list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) prev: u32,
    pub(crate) next: u32,
}

/// Presence bits of a record.
mod has {
    pub(super) const TIMEOUT: u8 = 1;
    pub(super) const MARK: u8 = 2;
    pub(super) const ID: u8 = 4;
    pub(super) const TCP: u8 = 8;
    pub(super) const WINDOW_SCALE: u8 = 16;
}

/// What identifies a flow, packed; this is what is hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key<const A: usize> {
    src: [u8; A],
    dst: [u8; A],
    l4: [u16; 2],
    zone: u16,
    proto: u8,
}

impl<const A: usize> Key<A> {
    pub(crate) fn of(key: &FlowKey) -> Key<A> {
        let (src, dst) = pack_addrs(&key.orig.addrs);
        Key {
            src,
            dst,
            l4: pack_l4(key.orig.l4),
            zone: key.zone.0,
            proto: key.orig.proto.0,
        }
    }
}

/// A flow whose addresses have `A` bytes, and the note about it.
#[derive(Debug)]
pub(crate) struct Record<const A: usize, N> {
    orig_src: [u8; A],
    orig_dst: [u8; A],
    reply_src: [u8; A],
    reply_dst: [u8; A],
    orig_l4: [u16; 2],
    reply_l4: [u16; 2],
    status: u32,
    timeout: u32,
    mark: u32,
    id: u32,
    pub(crate) extra: u32,
    pub(crate) times: Times,
    pub(crate) note: N,
    pub(crate) links: Links,
    pub(crate) list: Option<List>,
    zone: u16,
    proto: u8,
    has: u8,
    tcp_state: u8,
    /// Original in the low, reply in the high four bits: both are at most 14.
    window_scale: u8,
}

impl<const A: usize, N: Note> Record<A, N> {
    pub(crate) fn new(flow: &Flow, extra: u32, now: Tick) -> Record<A, N> {
        let (orig_src, orig_dst) = pack_addrs(&flow.orig.addrs);
        let mut record = Record {
            orig_src,
            orig_dst,
            reply_src: [0; A],
            reply_dst: [0; A],
            orig_l4: pack_l4(flow.orig.l4),
            reply_l4: [0; 2],
            status: 0,
            timeout: 0,
            mark: 0,
            id: 0,
            extra,
            times: Times {
                created: now,
                updated: now,
            },
            note: N::default(),
            list: None,
            links: Links {
                prev: Slot::NONE,
                next: Slot::NONE,
            },
            zone: flow.zone.0,
            proto: flow.orig.proto.0,
            has: 0,
            tcp_state: 0,
            window_scale: 0,
        };
        record.set(flow, extra);
        record
    }

    /// Takes over everything but the key.
    pub(crate) fn set(&mut self, flow: &Flow, extra: u32) {
        (self.reply_src, self.reply_dst) = pack_addrs(&flow.reply.addrs);
        self.reply_l4 = pack_l4(flow.reply.l4);
        self.status = flow.status.0;
        self.extra = extra;
        self.has = 0;
        let mut note = |bit, value: Option<u32>| {
            self.has |= if value.is_some() { bit } else { 0 };
            value.unwrap_or(0)
        };
        self.timeout = note(has::TIMEOUT, flow.timeout);
        self.mark = note(has::MARK, flow.mark.map(|m| m.0));
        self.id = note(has::ID, flow.id);
        if let Some(tcp) = flow.tcp() {
            self.has |= has::TCP;
            self.tcp_state = tcp.state.0;
            if let Some((orig, reply)) = tcp.window_scale {
                self.has |= has::WINDOW_SCALE;
                self.window_scale = orig.min(15) | reply.min(15) << 4;
            }
        }
    }

    pub(crate) fn flow(&self, extra: Option<&Extra>) -> Flow {
        let proto = Proto(self.proto);
        let known = |bit, value: u32| (self.has & bit != 0).then_some(value);
        let mut proto_info = extra.and_then(|e| e.proto_info);
        if self.has & has::TCP != 0 {
            proto_info = Some(ProtoInfo::Tcp(TcpInfo {
                state: TcpState(self.tcp_state),
                window_scale: known(has::WINDOW_SCALE, u32::from(self.window_scale))
                    .map(|_| (self.window_scale & 15, self.window_scale >> 4)),
            }));
        }
        Flow {
            orig: Tuple {
                addrs: unpack_addrs(&self.orig_src, &self.orig_dst),
                proto,
                l4: unpack_l4(proto, self.orig_l4),
            },
            reply: Tuple {
                addrs: unpack_addrs(&self.reply_src, &self.reply_dst),
                proto,
                l4: unpack_l4(proto, self.reply_l4),
            },
            zone: Zone(self.zone),
            status: Status(self.status),
            timeout: known(has::TIMEOUT, self.timeout),
            mark: known(has::MARK, self.mark).map(Mark),
            id: known(has::ID, self.id),
            proto_info,
            seq_adj: extra.and_then(|e| e.seq_adj),
            master: extra.and_then(|e| e.master),
            helper: extra.and_then(|e| e.helper),
            labels: extra.and_then(|e| e.labels),
            synproxy: extra.and_then(|e| e.synproxy),
            traffic: None,
            // Version 1 cannot carry it, so such a flow is in no cache.
            reply_zone: None,
        }
    }

    pub(crate) fn own_key(&self) -> Key<A> {
        Key {
            src: self.orig_src,
            dst: self.orig_dst,
            l4: self.orig_l4,
            zone: self.zone,
            proto: self.proto,
        }
    }

    pub(crate) fn has_key(&self, key: &Key<A>) -> bool {
        self.own_key() == *key
    }
}

fn pack_addrs<const A: usize>(addrs: &Addrs) -> ([u8; A], [u8; A]) {
    let (mut src, mut dst) = ([0; A], [0; A]);
    match addrs {
        Addrs::V4 { src: s, dst: d } => {
            src.copy_from_slice(&s.octets());
            dst.copy_from_slice(&d.octets());
        }
        Addrs::V6 { src: s, dst: d } => {
            src.copy_from_slice(&s.octets());
            dst.copy_from_slice(&d.octets());
        }
    }
    (src, dst)
}

fn unpack_addrs(src: &[u8], dst: &[u8]) -> Addrs {
    if let (Ok(src), Ok(dst)) = (<[u8; 4]>::try_from(src), <[u8; 4]>::try_from(dst)) {
        return Addrs::V4 {
            src: Ipv4Addr::from(src),
            dst: Ipv4Addr::from(dst),
        };
    }
    let whole = |a: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(a).expect("4 or 16 bytes"));
    Addrs::V6 {
        src: whole(src),
        dst: whole(dst),
    }
}

fn pack_l4(l4: L4) -> [u16; 2] {
    match l4 {
        L4::None => [0, 0],
        L4::Ports { src, dst } => [src, dst],
        L4::Icmp { id, kind, code } => [id, u16::from_be_bytes([kind, code])],
        L4::Gre { src_key, dst_key } => [src_key, dst_key],
    }
}

/// Which form it is follows from the protocol.
fn unpack_l4(proto: Proto, [a, b]: [u16; 2]) -> L4 {
    if proto.has_ports() {
        L4::Ports { src: a, dst: b }
    } else if proto.is_icmp() {
        let [kind, code] = b.to_be_bytes();
        L4::Icmp { id: a, kind, code }
    } else if proto == Proto::GRE {
        L4::Gre {
            src_key: a,
            dst_key: b,
        }
    } else {
        L4::None
    }
}

/// Attributes that few flows have.
#[derive(Debug)]
pub(crate) struct Extra {
    proto_info: Option<ProtoInfo>,
    seq_adj: Option<SeqAdjPair>,
    master: Option<Tuple>,
    helper: Option<Name>,
    labels: Option<Labels>,
    synproxy: Option<SynProxy>,
}

impl Extra {
    /// `None` if the flow has none of them.
    pub(crate) fn of(flow: &Flow) -> Option<Extra> {
        let proto_info = flow
            .proto_info
            .filter(|info| !matches!(info, ProtoInfo::Tcp(_)));
        let extra = Extra {
            proto_info,
            seq_adj: flow.seq_adj,
            master: flow.master,
            helper: flow.helper,
            labels: flow.labels,
            synproxy: flow.synproxy,
        };
        let any = extra.proto_info.is_some()
            || extra.seq_adj.is_some()
            || extra.master.is_some()
            || extra.helper.is_some()
            || extra.labels.is_some()
            || extra.synproxy.is_some();
        any.then_some(extra)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As large as the largest note in use.
    #[derive(Clone, Copy, Debug, Default)]
    struct Twelve {
        _bytes: [u32; 3],
    }

    impl Note for Twelve {
        fn classes(&self) -> u16 {
            0
        }
    }

    #[test]
    fn an_ipv4_record_stays_small() {
        let size = size_of::<Record<4, Twelve>>();
        assert!(size <= 80, "{size}");
    }
}
