//! A whole flow: both tuples, zone, status and what else the kernel keeps for it.

use std::fmt;

use crate::{L4, ProtoInfo, SeqAdjPair, SynProxy, TcpInfo, TcpState, Tuple};

/// Conntrack zone; 0 is the default zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Zone(pub u16);

/// Conntrack mark (`CTA_MARK`), all 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(pub u32);

/// Conntrack status bits, `IPS_*`; unknown bits survive. 0 means not known: every
/// flow in a kernel table has at least [`Status::CONFIRMED`].
///
/// Source: `include/uapi/linux/netfilter/nf_conntrack_common.h`, `enum ip_conntrack_status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// `IPS_EXPECTED`: the flow came from an expectation.
    pub const EXPECTED: Status = Status(1);
    /// `IPS_SEEN_REPLY`.
    pub const SEEN_REPLY: Status = Status(1 << 1);
    /// `IPS_ASSURED`: never expired early.
    pub const ASSURED: Status = Status(1 << 2);
    /// `IPS_CONFIRMED`.
    pub const CONFIRMED: Status = Status(1 << 3);
    /// `IPS_SRC_NAT`: the source is translated.
    pub const SRC_NAT: Status = Status(1 << 4);
    /// `IPS_DST_NAT`: the destination is translated.
    pub const DST_NAT: Status = Status(1 << 5);
    /// `IPS_SEQ_ADJUST`.
    pub const SEQ_ADJUST: Status = Status(1 << 6);
    /// `IPS_SRC_NAT_DONE`: source translation is decided, maybe to none.
    pub const SRC_NAT_DONE: Status = Status(1 << 7);
    /// `IPS_DST_NAT_DONE`.
    pub const DST_NAT_DONE: Status = Status(1 << 8);
    /// `IPS_DYING`.
    pub const DYING: Status = Status(1 << 9);
    /// `IPS_FIXED_TIMEOUT`.
    pub const FIXED_TIMEOUT: Status = Status(1 << 10);
    /// `IPS_HELPER`.
    pub const HELPER: Status = Status(1 << 13);

    /// True if all bits of `other` are set.
    pub fn contains(self, other: Status) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the bits of `other` set.
    pub fn with(self, other: Status) -> Status {
        Status(self.0 | other.0)
    }

    /// With the bits of `other` cleared.
    pub fn without(self, other: Status) -> Status {
        Status(self.0 & !other.0)
    }
}

/// A short name of the kernel (helper, expectation function): at most 23 bytes, no NUL.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    len: u8,
    bytes: [u8; Name::MAX],
}

impl Name {
    /// Longest name in bytes: what the original keeps of an expectation function.
    pub const MAX: usize = 23;

    /// `None` if empty, longer than [`Name::MAX`], or not printable ASCII.
    pub fn new(text: &[u8]) -> Option<Name> {
        let printable = text.iter().all(|b| b.is_ascii_graphic());
        if text.is_empty() || text.len() > Self::MAX || !printable {
            return None;
        }
        let mut bytes = [0; Self::MAX];
        bytes[..text.len()].copy_from_slice(text);
        Some(Name {
            len: text.len() as u8,
            bytes,
        })
    }

    /// The name as bytes, without a terminator.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("names are checked to be ASCII when made")
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Connection labels: label n is bit `n % 32` of word `n / 32`.
///
/// Source: `include/net/netfilter/nf_conntrack_labels.h`, `NF_CT_LABELS_MAX_SIZE` (16 bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Labels(pub [u32; 4]);

impl Labels {
    /// True if no label is set.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }
}

/// What identifies a flow in our tables: original tuple and zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Original tuple.
    pub orig: Tuple,
    /// Zone.
    pub zone: Zone,
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.orig.proto.name() {
            Some(name) => write!(f, "{name} {}", self.orig)?,
            None => write!(f, "proto={} {}", self.orig.proto.0, self.orig)?,
        }
        if self.zone != Zone(0) {
            write!(f, " zone={}", self.zone.0)?;
        }
        Ok(())
    }
}

/// One connection-tracking entry. `None` means that the source did not report it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    /// Original tuple.
    pub orig: Tuple,
    /// Reply tuple; it differs from [`Tuple::inverted`] of the original where NAT translates.
    pub reply: Tuple,
    /// Zone, of the original direction if they differ.
    pub zone: Zone,
    /// Zone of the reply direction, if it differs.
    pub reply_zone: Option<Zone>,
    /// Status bits; 0 means not known.
    pub status: Status,
    /// Seconds until the entry expires.
    pub timeout: Option<u32>,
    /// Mark. The kernel leaves out mark 0 in events.
    pub mark: Option<Mark>,
    /// The kernel's id of the entry (`CTA_ID`), the same in all its messages until it ends.
    pub id: Option<u32>,
    /// Protocol state.
    pub proto_info: Option<ProtoInfo>,
    /// Sequence adjustment.
    pub seq_adj: Option<SeqAdjPair>,
    /// Original tuple of the master, for a flow that came from an expectation.
    pub master: Option<Tuple>,
    /// Name of the helper.
    pub helper: Option<Name>,
    /// Labels.
    pub labels: Option<Labels>,
    /// SYNPROXY data.
    pub synproxy: Option<SynProxy>,
    /// Packets and bytes of both directions together, if the kernel accounts.
    pub traffic: Option<(u64, u64)>,
}

impl Flow {
    /// A flow of which only its original tuple is known; nothing is translated.
    pub fn new(orig: Tuple) -> Flow {
        Flow {
            orig,
            reply: orig.inverted(),
            zone: Zone(0),
            reply_zone: None,
            status: Status(0),
            timeout: None,
            mark: None,
            id: None,
            proto_info: None,
            seq_adj: None,
            master: None,
            helper: None,
            labels: None,
            synproxy: None,
            traffic: None,
        }
    }

    /// What identifies the flow.
    pub fn key(&self) -> FlowKey {
        FlowKey {
            orig: self.orig,
            zone: self.zone,
        }
    }

    /// TCP's part, if this is a TCP flow whose state is known.
    pub fn tcp(&self) -> Option<TcpInfo> {
        match self.proto_info {
            Some(ProtoInfo::Tcp(tcp)) => Some(tcp),
            _ => None,
        }
    }

    /// State of a TCP flow, if known.
    pub fn tcp_state(&self) -> Option<TcpState> {
        self.tcp().map(|t| t.state)
    }

    /// Takes over every field that `newer` has; the others stay.
    ///
    /// The tuples and zone must be those of the same flow; the reply tuple is
    /// taken from `newer`, because both kernel and peer always report it.
    pub fn merge(&mut self, newer: &Flow) {
        debug_assert_eq!(self.key(), newer.key());
        self.reply = newer.reply;
        if newer.status != Status(0) {
            self.status = newer.status;
        }
        self.proto_info = match (self.proto_info, newer.proto_info) {
            (Some(ProtoInfo::Tcp(old)), Some(ProtoInfo::Tcp(new))) => {
                Some(ProtoInfo::Tcp(TcpInfo {
                    state: new.state,
                    window_scale: new.window_scale.or(old.window_scale),
                }))
            }
            (old, new) => new.or(old),
        };
        self.timeout = newer.timeout.or(self.timeout);
        self.mark = newer.mark.or(self.mark);
        self.id = newer.id.or(self.id);
        self.seq_adj = newer.seq_adj.or(self.seq_adj);
        self.master = newer.master.or(self.master);
        self.helper = newer.helper.or(self.helper);
        self.labels = newer.labels.or(self.labels);
        self.synproxy = newer.synproxy.or(self.synproxy);
        self.traffic = newer.traffic.or(self.traffic);
    }

    /// True if the kernel's ids show that this and `other` are two entries; false if one has none.
    pub fn is_other_entry(&self, other: &Flow) -> bool {
        self.id.zip(other.id).is_some_and(|(a, b)| a != b)
    }

    /// True if `newer` has nothing that this has not, but for what the kernel counts: timeout,
    /// traffic and the entry's id.
    pub fn is_unchanged_by(&self, newer: &Flow) -> bool {
        let mut merged = *self;
        merged.merge(newer);
        merged.timeout = self.timeout;
        merged.id = self.id;
        merged.traffic = self.traffic;
        merged == *self
    }

    /// True if the source address or port is translated, judged by the tuples.
    pub fn source_translated(&self) -> bool {
        let plain = self.orig.inverted();
        self.reply.addrs.dst() != plain.addrs.dst() || l4_dst(&self.reply) != l4_dst(&plain)
    }

    /// True if the destination address or port is translated, judged by the tuples.
    pub fn destination_translated(&self) -> bool {
        let plain = self.orig.inverted();
        self.reply.addrs.src() != plain.addrs.src() || l4_src(&self.reply) != l4_src(&plain)
    }
}

fn l4_src(t: &Tuple) -> u16 {
    match t.l4 {
        L4::Ports { src, .. } => src,
        L4::Gre { src_key, .. } => src_key,
        L4::Icmp { .. } | L4::None => 0,
    }
}

fn l4_dst(t: &Tuple) -> u16 {
    match t.l4 {
        L4::Ports { dst, .. } => dst,
        L4::Gre { dst_key, .. } => dst_key,
        // A query has one identifier; translation of the source may change it.
        L4::Icmp { id, .. } => id,
        L4::None => 0,
    }
}

/// What a listing line shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineForm {
    /// Both tuples.
    Both,
    /// The original tuple alone: a peer does not send the other.
    OriginalOnly,
    /// Both tuples and the timeout.
    WithTimeout,
    /// Both tuples, each with packets and bytes of its direction, where they are known.
    WithCounters([Option<(u64, u64)>; 2]),
}

/// The form of `conntrack -L` without timeout, e.g.
/// `tcp      6 ESTABLISHED src=... [ASSURED] mark=0 zone=5`.
impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_line(f, LineForm::Both)
    }
}

impl Flow {
    /// Writes the listing line.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn fmt_line(&self, f: &mut dyn fmt::Write, form: LineForm) -> fmt::Result {
        let proto = self.orig.proto;
        write!(f, "{:<8} {} ", proto.name().unwrap_or("unknown"), proto.0)?;
        if form == LineForm::WithTimeout {
            write!(f, "{} ", self.timeout.unwrap_or(0))?;
        }
        if let Some(info) = &self.proto_info {
            match info.state_name() {
                Some(name) => write!(f, "{name} ")?,
                None => write!(f, "UNKNOWN({}) ", info.state_number())?,
            }
        }
        write!(f, "{}", self.orig)?;
        let counters = |n: usize| match form {
            LineForm::WithCounters(both) => both[n],
            _ => None,
        };
        let put_counters = |f: &mut dyn fmt::Write, counters| match counters {
            Some((packets, bytes)) => write!(f, " packets={packets} bytes={bytes}"),
            None => Ok(()),
        };
        put_counters(f, counters(0))?;
        if self.zone != Zone(0) && self.reply_zone.is_some() {
            write!(f, " zone-orig={}", self.zone.0)?;
        }
        // It may not be known whether a peer's flow has been answered.
        let unreplied = !self.status.contains(Status::SEEN_REPLY);
        if unreplied && (form != LineForm::OriginalOnly || self.status != Status(0)) {
            f.write_str(" [UNREPLIED]")?;
        }
        if form != LineForm::OriginalOnly {
            write!(f, " {}", self.reply)?;
            put_counters(f, counters(1))?;
            if let Some(zone) = self.reply_zone.filter(|z| *z != Zone(0)) {
                write!(f, " zone-reply={}", zone.0)?;
            }
        }
        if self.status.contains(Status::ASSURED) {
            f.write_str(" [ASSURED]")?;
        }
        if let Some(mark) = self.mark {
            write!(f, " mark={}", mark.0)?;
        }
        if self.zone != Zone(0) && self.reply_zone.is_none() {
            write!(f, " zone={}", self.zone.0)?;
        }
        if let Some(helper) = self.helper {
            write!(f, " helper={helper}")?;
        }
        if let Some(labels) = self.labels
            && !labels.is_empty()
        {
            f.write_str(" labels=0x")?;
            for word in labels.0.iter().rev() {
                write!(f, "{word:08x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Addrs, Proto};

    fn tcp() -> Flow {
        Flow::new(Tuple {
            addrs: Addrs::V4 {
                src: [192, 168, 1, 10].into(),
                dst: [198, 51, 100, 5].into(),
            },
            proto: Proto::TCP,
            l4: L4::Ports {
                src: 40000,
                dst: 443,
            },
        })
    }

    #[test]
    fn merge_keeps_what_the_newer_leaves_out() {
        let mut old = tcp();
        old.mark = Some(Mark(7));
        old.timeout = Some(100);
        old.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state: TcpState::SYN_SENT,
            window_scale: Some((7, 8)),
        }));
        let mut new = tcp();
        new.timeout = Some(50);
        new.status = Status::CONFIRMED;
        new.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state: TcpState::ESTABLISHED,
            window_scale: None,
        }));
        old.merge(&new);
        assert_eq!(old.mark, Some(Mark(7)));
        assert_eq!(old.timeout, Some(50));
        assert_eq!(old.status, Status::CONFIRMED);
        assert_eq!(
            old.tcp(),
            Some(TcpInfo {
                state: TcpState::ESTABLISHED,
                window_scale: Some((7, 8))
            })
        );
    }

    #[test]
    fn the_line_is_the_form_of_conntrack() {
        let mut f = tcp();
        f.status = Status::SEEN_REPLY
            .with(Status::ASSURED)
            .with(Status::CONFIRMED);
        f.mark = Some(Mark(0));
        f.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state: TcpState::ESTABLISHED,
            window_scale: None,
        }));
        assert_eq!(
            f.to_string(),
            "tcp      6 ESTABLISHED src=192.168.1.10 dst=198.51.100.5 sport=40000 dport=443 \
             src=198.51.100.5 dst=192.168.1.10 sport=443 dport=40000 [ASSURED] mark=0"
        );
    }

    #[test]
    fn names_are_short_printable_and_not_empty() {
        assert!(Name::new(b"").is_none());
        assert!(Name::new(&[b'a'; 24]).is_none());
        assert!(Name::new(b"a b").is_none());
        assert_eq!(Name::new(b"ftp").unwrap().as_str(), "ftp");
    }
}
