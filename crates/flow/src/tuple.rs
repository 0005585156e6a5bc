//! One direction of a flow: addresses, protocol and the protocol's own fields.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The two directions of a flow, as the kernel names them.
///
/// Source: `include/uapi/linux/netfilter/nf_conntrack_tuple_common.h`, `enum ip_conntrack_dir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The direction of the first packet.
    Original,
    /// The direction of the answer.
    Reply,
}

/// Source and destination of one direction, always of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Addrs {
    /// IPv4 addresses.
    V4 {
        /// Source.
        src: Ipv4Addr,
        /// Destination.
        dst: Ipv4Addr,
    },
    /// IPv6 addresses.
    V6 {
        /// Source.
        src: Ipv6Addr,
        /// Destination.
        dst: Ipv6Addr,
    },
}

impl Addrs {
    /// The source address.
    pub fn src(&self) -> IpAddr {
        match *self {
            Addrs::V4 { src, .. } => IpAddr::V4(src),
            Addrs::V6 { src, .. } => IpAddr::V6(src),
        }
    }

    /// The destination address.
    pub fn dst(&self) -> IpAddr {
        match *self {
            Addrs::V4 { dst, .. } => IpAddr::V4(dst),
            Addrs::V6 { dst, .. } => IpAddr::V6(dst),
        }
    }

    /// True for IPv4.
    pub fn is_v4(&self) -> bool {
        matches!(self, Addrs::V4 { .. })
    }

    /// The same pair seen from the other side.
    pub fn swapped(&self) -> Addrs {
        match *self {
            Addrs::V4 { src, dst } => Addrs::V4 { src: dst, dst: src },
            Addrs::V6 { src, dst } => Addrs::V6 { src: dst, dst: src },
        }
    }

    /// The pair with another source; `None` if `addr` is of the other family.
    pub fn with_src(&self, addr: IpAddr) -> Option<Addrs> {
        match (*self, addr) {
            (Addrs::V4 { dst, .. }, IpAddr::V4(src)) => Some(Addrs::V4 { src, dst }),
            (Addrs::V6 { dst, .. }, IpAddr::V6(src)) => Some(Addrs::V6 { src, dst }),
            _ => None,
        }
    }

    /// The pair with another destination; `None` if `addr` is of the other family.
    pub fn with_dst(&self, addr: IpAddr) -> Option<Addrs> {
        Some(self.swapped().with_src(addr)?.swapped())
    }
}

/// Layer 4 protocol number (IANA "Assigned Internet Protocol Numbers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proto(pub u8);

impl Proto {
    /// Internet Control Message Protocol, RFC 792.
    pub const ICMP: Proto = Proto(1);
    /// Transmission Control Protocol, RFC 9293.
    pub const TCP: Proto = Proto(6);
    /// User Datagram Protocol, RFC 768.
    pub const UDP: Proto = Proto(17);
    /// Datagram Congestion Control Protocol, RFC 4340.
    pub const DCCP: Proto = Proto(33);
    /// Generic Routing Encapsulation, RFC 2784.
    pub const GRE: Proto = Proto(47);
    /// ICMP for IPv6, RFC 4443.
    pub const ICMPV6: Proto = Proto(58);
    /// Stream Control Transmission Protocol, RFC 9260.
    pub const SCTP: Proto = Proto(132);
    /// Lightweight UDP, RFC 3828.
    pub const UDPLITE: Proto = Proto(136);

    /// The kernel's lower-case name, or `None` for protocols it tracks generically.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Proto::ICMP => "icmp",
            Proto::TCP => "tcp",
            Proto::UDP => "udp",
            Proto::DCCP => "dccp",
            Proto::GRE => "gre",
            Proto::ICMPV6 => "icmpv6",
            Proto::SCTP => "sctp",
            Proto::UDPLITE => "udplite",
            _ => return None,
        })
    }

    /// True for the protocols whose tuples hold two port numbers.
    pub fn has_ports(self) -> bool {
        matches!(
            self,
            Proto::TCP | Proto::UDP | Proto::SCTP | Proto::DCCP | Proto::UDPLITE
        )
    }

    /// True for ICMP and ICMPv6.
    pub fn is_icmp(self) -> bool {
        matches!(self, Proto::ICMP | Proto::ICMPV6)
    }
}

/// What a protocol adds to the addresses of a tuple. Numbers are in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum L4 {
    /// Nothing: the protocol is tracked by its addresses alone.
    None,
    /// Two ports (TCP, UDP, SCTP, DCCP, UDPLITE).
    Ports {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// An ICMP or ICMPv6 query.
    Icmp {
        /// Identifier of the query.
        id: u16,
        /// Type, e.g. 8 for an ICMP echo request.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// The two keys of GRE as the kernel's PPTP tracking knows them; 0 for plain GRE.
    Gre {
        /// Key of the sender.
        src_key: u16,
        /// Key of the receiver.
        dst_key: u16,
    },
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Source and destination address.
    pub addrs: Addrs,
    /// Layer 4 protocol.
    pub proto: Proto,
    /// The protocol's own fields.
    pub l4: L4,
}

impl Tuple {
    /// The tuple of the answer if nothing is translated.
    ///
    /// ICMP types change to the type of the answer, and unknown ones stay.
    /// Source: `net/netfilter/nf_conntrack_core.c`, `nf_ct_invert_tuple`.
    pub fn inverted(&self) -> Tuple {
        let l4 = match self.l4 {
            L4::None => L4::None,
            L4::Ports { src, dst } => L4::Ports { src: dst, dst: src },
            L4::Icmp { id, kind, code } => L4::Icmp {
                id,
                kind: icmp_answer(self.proto, kind),
                code,
            },
            L4::Gre { src_key, dst_key } => L4::Gre {
                src_key: dst_key,
                dst_key: src_key,
            },
        };
        Tuple {
            addrs: self.addrs.swapped(),
            proto: self.proto,
            l4,
        }
    }

    /// Source and destination port, 0 and 0 for protocols without ports.
    pub fn ports(&self) -> (u16, u16) {
        match self.l4 {
            L4::Ports { src, dst } => (src, dst),
            _ => (0, 0),
        }
    }
}

/// The type that answers an ICMP query; other types answer themselves.
///
/// Source: `net/netfilter/nf_conntrack_proto_icmp.c`, `invmap`, and the IPv6 twin.
fn icmp_answer(proto: Proto, kind: u8) -> u8 {
    match (proto, kind) {
        (Proto::ICMP, 8) => 0,
        (Proto::ICMP, 0) => 8,
        (Proto::ICMP, 13) => 14,
        (Proto::ICMP, 14) => 13,
        (Proto::ICMP, 15) => 16,
        (Proto::ICMP, 16) => 15,
        (Proto::ICMP, 17) => 18,
        (Proto::ICMP, 18) => 17,
        (Proto::ICMPV6, 128) => 129,
        (Proto::ICMPV6, 129) => 128,
        (Proto::ICMPV6, 139) => 140,
        (Proto::ICMPV6, 140) => 139,
        (_, other) => other,
    }
}

impl fmt::Display for Tuple {
    /// The form of conntrack's listings: `src=... dst=... sport=... dport=...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src={} dst={}", self.addrs.src(), self.addrs.dst())?;
        match self.l4 {
            L4::None => Ok(()),
            L4::Ports { src, dst } => write!(f, " sport={src} dport={dst}"),
            L4::Icmp { id, kind, code } => write!(f, " type={kind} code={code} id={id}"),
            L4::Gre { src_key, dst_key } => write!(f, " srckey=0x{src_key:x} dstkey=0x{dst_key:x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverting_twice_gives_the_tuple_back() {
        let addrs = Addrs::V4 {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
        };
        for (proto, l4) in [
            (Proto::TCP, L4::Ports { src: 1, dst: 2 }),
            (
                Proto::ICMP,
                L4::Icmp {
                    id: 7,
                    kind: 8,
                    code: 0,
                },
            ),
            (
                Proto::GRE,
                L4::Gre {
                    src_key: 1,
                    dst_key: 2,
                },
            ),
            (Proto(50), L4::None),
        ] {
            let t = Tuple { addrs, proto, l4 };
            assert_ne!(t.inverted(), t);
            assert_eq!(t.inverted().inverted(), t);
        }
    }

    #[test]
    fn an_address_of_the_other_family_does_not_fit() {
        let addrs = Addrs::V4 {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
        };
        assert_eq!(addrs.with_src("::1".parse().unwrap()), None);
        assert_eq!(
            addrs.with_dst("10.0.0.9".parse().unwrap()),
            Some(Addrs::V4 {
                src: [10, 0, 0, 1].into(),
                dst: [10, 0, 0, 9].into()
            })
        );
    }
}
