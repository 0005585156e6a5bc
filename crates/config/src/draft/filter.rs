//! The effects of the words in a filter. The sets of equal kind are pooled when a block ends.

use flow::{Policy, Prefix, Proto, TcpState};

use super::Draft;
use crate::diagnostic::Quote;
use crate::lexer::Token;
use crate::meaning::Family;

impl Draft {
    pub(crate) fn protocols(&mut self, names: &[&Token<'_>]) {
        for token in names {
            let name = Quote(token.text);
            match protocol_by_name(token.text) {
                Some(proto) => self.protocols.push(proto),
                None if token.text.bytes().all(|b| b.is_ascii_digit()) => self.diagnostics.error(
                    token.span.clone(),
                    "protocol by number",
                    "write its name, e.g. TCP",
                ),
                None => self.diagnostics.warn(
                    token.span.clone(),
                    format_args!("unknown protocol {name}, ignored"),
                ),
            }
        }
    }

    pub(crate) fn network(&mut self, token: &Token<'_>, family: Family) {
        match parse_prefix(token.text, family) {
            Some(prefix) => self.networks.push(prefix),
            None => self.diagnostics.warn(
                token.span.clone(),
                format_args!("{} is not a valid network, ignored", Quote(token.text)),
            ),
        }
    }

    pub(crate) fn state(&mut self, state: TcpState) {
        self.state_span = Some(self.here());
        self.states.push(state);
    }

    pub(crate) fn end_state_group(&mut self) {
        self.state_span = None;
    }

    pub(crate) fn end_protocols(&mut self) {
        let found = std::mem::take(&mut self.protocols);
        pool(&mut self.config.filter.protocols, self.policy.take(), found);
    }

    pub(crate) fn end_addresses(&mut self) {
        let found = std::mem::take(&mut self.networks);
        pool(&mut self.config.filter.addresses, self.policy.take(), found);
    }

    pub(crate) fn end_states(&mut self) {
        if let Some(span) = self.state_span.take() {
            let message = "states without their protocol";
            let help = "end them with `for TCP`";
            self.diagnostics.error(span, message, help);
        }
        let found = std::mem::take(&mut self.states);
        let set = &mut self.config.filter.tcp_states;
        pool(set, self.policy.take(), found);
    }
}

/// Entries of several blocks are pooled, and the last policy holds for all.
fn pool<T>(set: &mut Option<(Policy, Vec<T>)>, policy: Option<Policy>, found: Vec<T>) {
    if let Some(policy) = policy {
        let set = set.get_or_insert((policy, vec![]));
        set.0 = policy;
        set.1.extend(found);
    }
}

/// `ADDRESS` or `ADDRESS/LENGTH` of a family.
pub(super) fn parse_prefix(text: &str, family: Family) -> Option<Prefix> {
    let (addr, len) = match text.split_once('/') {
        Some((addr, len)) => (addr, Some(len.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let addr = family.parse(addr)?;
    match len {
        Some(len) => Prefix::new(addr, len),
        None => Some(Prefix::host(addr)),
    }
}

/// The protocols that are tracked, and others in use, by any name that Debian's
/// `/etc/protocols` knows for them.
const PROTOCOLS: &[(&str, u8)] = &[
    ("ip", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("ip-encap", 4),
    ("tcp", 6),
    ("egp", 8),
    ("igp", 9),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ipsec-esp", 50),
    ("ah", 51),
    ("ipsec-ah", 51),
    ("ipv6-icmp", 58),
    ("eigrp", 88),
    ("ospf", 89),
    ("ospfigp", 89),
    ("ipip", 94),
    ("pim", 103),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("udplite", 136),
    ("mpls-in-ip", 137),
];

fn protocol_by_name(text: &str) -> Option<Proto> {
    let found = PROTOCOLS.iter().find(|(n, _)| n.eq_ignore_ascii_case(text));
    found.map(|(_, number)| Proto(*number))
}
