//! Filter rules as data, and the one meaning of a filter: [`Filter::keeps`].
//!
//! Three independent sets (protocol, address, TCP state); a flow is kept only if
//! every configured set lets it pass, and if it is not one of the dedicated links' own. The meaning is that of the original's
//! user-space filter (configuration reference, section 7) wherever it is applied.

use std::net::IpAddr;

use crate::{Flow, L4, Proto, TcpState, Tuple};

/// What happens to a flow that matches an entry of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Only what matches is kept.
    Accept,
    /// Everything but what matches is kept.
    Ignore,
}

impl Policy {
    fn keeps(self, matched: bool) -> bool {
        matched == (self == Policy::Accept)
    }
}

/// A network, or a host if the length is that of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// `None` if `len` is longer than an address of the family (32 or 128 bits).
    pub fn new(addr: IpAddr, len: u8) -> Option<Prefix> {
        let max = if addr.is_ipv4() { 32 } else { 128 };
        (len <= max).then_some(Prefix { addr, len })
    }

    /// The prefix that holds one address.
    pub fn host(addr: IpAddr) -> Prefix {
        let len = if addr.is_ipv4() { 32 } else { 128 };
        Prefix { addr, len }
    }

    /// An address inside; bits behind the length may be set.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Length in bits, at most that of an address of the family.
    #[allow(
        clippy::len_without_is_empty,
        reason = "a prefix has a length and no contents"
    )]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// True if it is a single address.
    pub fn is_host(&self) -> bool {
        *self == Prefix::host(self.addr)
    }

    /// True if `addr` is of the same family and inside.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(net), IpAddr::V4(addr)) => {
                let shift = 32 - u32::from(self.len);
                let differing = u32::from(net) ^ u32::from(addr);
                differing.checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(addr)) => {
                let shift = 128 - u32::from(self.len);
                let differing = u128::from(net) ^ u128::from(addr);
                differing.checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The configured sets; `None` means that the criterion is not applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Layer 4 protocols.
    pub protocols: Option<(Policy, Vec<Proto>)>,
    /// Addresses, matched on the original source and the reply source.
    pub addresses: Option<(Policy, Vec<Prefix>)>,
    /// TCP states; flows without a TCP state always pass.
    pub tcp_states: Option<(Policy, Vec<TcpState>)>,
    /// Where the dedicated links' own messages go: protocol, address and port. A flow to
    /// there is never replicated, whatever the sets say.
    pub links: Vec<(Proto, IpAddr, u16)>,
}

impl Filter {
    /// True if the flow is replicated, and so also what a selective flush covers.
    ///
    /// An address set looks only at entries of the flow's own family: a flow of
    /// a family without entries matches nothing.
    pub fn keeps(&self, flow: &Flow) -> bool {
        if self.is_of_a_link(&flow.orig) {
            return false;
        }
        if let Some((policy, protos)) = &self.protocols
            && !policy.keeps(protos.contains(&flow.orig.proto))
        {
            return false;
        }
        if let Some((policy, prefixes)) = &self.addresses {
            let client = flow.orig.addrs.src();
            let server = flow.reply.addrs.src();
            let matched = prefixes
                .iter()
                .any(|p| p.contains(client) || p.contains(server));
            if !policy.keeps(matched) {
                return false;
            }
        }
        if let (Some((policy, states)), Some(state)) = (&self.tcp_states, flow.tcp_state())
            && !policy.keeps(states.contains(&state))
        {
            return false;
        }
        true
    }

    /// True if a flow with this original tuple carries messages of a dedicated link.
    pub fn is_of_a_link(&self, orig: &Tuple) -> bool {
        let L4::Ports { src, dst } = orig.l4 else {
            return false;
        };
        // The kernel that begins to track a connection in its middle may take the server
        // for the client.
        let ports = match orig.proto {
            Proto::TCP => [dst, src],
            _ => [dst, dst],
        };
        // A link may have no address of its own: either end identifies it.
        let ends = [orig.addrs.dst(), orig.addrs.src()];
        (self.links.iter()).any(|(proto, addr, port)| {
            *proto == orig.proto && ends.contains(addr) && ports.contains(port)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Addrs, ProtoInfo, TcpInfo};

    fn flow(proto: Proto, src: [u8; 4], dst: [u8; 4]) -> Flow {
        Flow::new(Tuple {
            addrs: Addrs::V4 {
                src: src.into(),
                dst: dst.into(),
            },
            proto,
            l4: L4::Ports { src: 1, dst: 2 },
        })
    }

    fn addresses(policy: Policy, text: &[(&str, u8)]) -> Filter {
        let list = text
            .iter()
            .map(|(a, l)| Prefix::new(a.parse().unwrap(), *l).unwrap());
        Filter {
            addresses: Some((policy, list.collect())),
            ..Filter::default()
        }
    }

    #[test]
    fn no_set_keeps_everything() {
        assert!(Filter::default().keeps(&flow(Proto(99), [1, 2, 3, 4], [5, 6, 7, 8])));
    }

    #[test]
    fn an_address_matches_at_either_end() {
        let ignore = addresses(Policy::Ignore, &[("10.0.0.0", 8)]);
        assert!(!ignore.keeps(&flow(Proto::TCP, [10, 1, 1, 1], [1, 1, 1, 1])));
        assert!(!ignore.keeps(&flow(Proto::TCP, [1, 1, 1, 1], [10, 1, 1, 1])));
        assert!(ignore.keeps(&flow(Proto::TCP, [1, 1, 1, 1], [2, 2, 2, 2])));
        let accept = addresses(Policy::Accept, &[("10.0.0.0", 8)]);
        assert!(accept.keeps(&flow(Proto::TCP, [1, 1, 1, 1], [10, 1, 1, 1])));
        assert!(!accept.keeps(&flow(Proto::TCP, [1, 1, 1, 1], [2, 2, 2, 2])));
    }

    #[test]
    fn an_address_looks_at_the_real_server_behind_dnat() {
        let ignore = addresses(Policy::Ignore, &[("10.9.9.9", 32)]);
        let mut f = flow(Proto::TCP, [1, 1, 1, 1], [2, 2, 2, 2]);
        assert!(ignore.keeps(&f));
        f.reply.addrs = f.reply.addrs.with_src("10.9.9.9".parse().unwrap()).unwrap();
        assert!(!ignore.keeps(&f));
    }

    #[test]
    fn everything_of_one_family_says_nothing_of_the_other() {
        let ignore = addresses(Policy::Ignore, &[("::", 0)]);
        assert!(ignore.keeps(&flow(Proto::TCP, [1, 1, 1, 1], [2, 2, 2, 2])));
        let ignore = addresses(Policy::Ignore, &[("0.0.0.0", 0)]);
        assert!(!ignore.keeps(&flow(Proto::TCP, [1, 1, 1, 1], [2, 2, 2, 2])));
    }

    #[test]
    fn states_apply_to_tcp_only() {
        let filter = Filter {
            tcp_states: Some((Policy::Accept, vec![TcpState::ESTABLISHED])),
            ..Filter::default()
        };
        let mut f = flow(Proto::UDP, [1, 1, 1, 1], [2, 2, 2, 2]);
        assert!(filter.keeps(&f));
        f.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state: TcpState::SYN_SENT,
            window_scale: None,
        }));
        assert!(!filter.keeps(&f));
    }

    #[test]
    fn an_empty_accept_keeps_nothing() {
        let filter = Filter {
            protocols: Some((Policy::Accept, vec![])),
            ..Filter::default()
        };
        assert!(!filter.keeps(&flow(Proto::TCP, [1, 1, 1, 1], [2, 2, 2, 2])));
    }

    #[test]
    fn a_link_is_known_by_protocol_address_and_port() {
        let filter = Filter {
            links: vec![(Proto::UDP, "10.9.9.1".parse().unwrap(), 2)],
            ..Filter::default()
        };
        assert!(!filter.keeps(&flow(Proto::UDP, [1, 1, 1, 1], [10, 9, 9, 1])));
        assert!(filter.keeps(&flow(Proto::TCP, [1, 1, 1, 1], [10, 9, 9, 1])));
        // From this end: the other one may have no address that is known here.
        assert!(!filter.keeps(&flow(Proto::UDP, [10, 9, 9, 1], [10, 9, 9, 2])));
        assert!(filter.keeps(&flow(Proto::UDP, [10, 9, 9, 3], [10, 9, 9, 2])));
        let mut other = flow(Proto::UDP, [1, 1, 1, 1], [10, 9, 9, 1]);
        other.orig.l4 = L4::Ports { src: 2, dst: 3 };
        assert!(filter.keeps(&other));
        // A connection of TCP may be tracked from its middle on, from the server's side.
        let filter = Filter {
            links: vec![(Proto::TCP, "10.9.9.1".parse().unwrap(), 2)],
            ..Filter::default()
        };
        other.orig.proto = Proto::TCP;
        assert!(!filter.keeps(&other));
        other.orig.l4 = L4::Ports { src: 3, dst: 4 };
        assert!(filter.keeps(&other));
    }

    #[test]
    fn prefixes_reject_lengths_beyond_the_family() {
        assert!(Prefix::new("1.2.3.4".parse().unwrap(), 33).is_none());
        assert!(Prefix::new("::1".parse().unwrap(), 129).is_none());
    }
}
