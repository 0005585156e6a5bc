//! State messages about expectations (types 3 to 5): [`Expectation`] ↔ attributes.
//!
//! | No       | Name                     | Payload                           |
//! |---------:|--------------------------|-----------------------------------|
//! | 0..3     | MASTER_IPV4/6, L4PROTO, PORT | the master's original tuple   |
//! | 4..7     | EXPECT_*                 | the predicted tuple               |
//! | 8..11    | MASK_*                   | its mask                          |
//! | 12       | TIMEOUT                  | u32 seconds                       |
//! | 13, 14   | FLAGS, CLASS             | u32                               |
//! | 15..18   | NAT_IPV4, PORT, L4PROTO, DIR | saved address and port; direction |
//! | 19, 20   | HELPER_NAME, FN          | NUL-terminated                    |
//!
//! Source: wire protocol specification, section 4.3. There is no IPv6 NAT attribute: of
//! a translation of IPv6 the saved port is sent, and the saved address must be none.

use std::net::Ipv6Addr;

use flow::{Addrs, Direction, ExpectNat, Expectation, L4, Tuple, Zone};

use super::Decoded;
use super::attr::{
    Attrs, PayloadError, TupleParts, put_addrs, put_name, put_ports, put_u8, put_u32,
};
use super::flow::{NotCarried, sends_ports};
use super::header::{Flags, MessageType, finish, start};
use crate::{ObjectKind, Seq, StateKind};

/// Longest names with their NUL; see `flow.rs` for the helper's.
const HELPER_NAME_MAX: usize = 16;
const HELPER_NAME_MAX_SENT: usize = 12;
const FUNCTION_MAX: usize = 28;

/// Checks whether version 1 can carry an expectation.
///
/// # Errors
/// The reason why it cannot; such an expectation must not be replicated at all.
pub fn check_expectation_carried(exp: &Expectation) -> Result<(), NotCarried> {
    for tuple in [&exp.master, &exp.tuple] {
        match tuple.l4 {
            L4::Gre { .. } => return Err(NotCarried::GreKeys),
            L4::Ports { .. } if !sends_ports(tuple.proto) => {
                return Err(NotCarried::Ports(tuple.proto));
            }
            _ => {}
        }
    }
    if exp.nat.is_some_and(|nat| has_address6(&nat)) {
        return Err(NotCarried::ExpectNat6);
    }
    if exp.zone != Zone(0) {
        return Err(NotCarried::ExpectZone);
    }
    Ok(())
}

/// A saved IPv6 address has no attribute. FTP's helper saves the port alone.
fn has_address6(nat: &ExpectNat) -> bool {
    matches!(nat.tuple.addrs, Addrs::V6 { src, .. } if !src.is_unspecified())
}

/// Appends a state message about an expectation, at most 300 bytes.
///
/// `timeout` is off if the sender has a `CommitTimeout`. The expectation should have
/// passed [`check_expectation_carried`]; what has no attribute is left out.
pub fn encode_expectation(
    out: &mut Vec<u8>,
    kind: StateKind,
    flags: Flags,
    seq: Seq,
    exp: &Expectation,
    timeout: bool,
) {
    let kind = MessageType::State(ObjectKind::Expectation, kind);
    let at = start(out, kind, flags, seq);
    put_tuple(out, 0, &exp.master);
    put_tuple(out, 4, &exp.tuple);
    put_tuple(out, 8, &exp.mask);
    if let Some(seconds) = exp.timeout.filter(|_| timeout) {
        put_u32(out, 12, seconds);
    }
    put_u32(out, 13, exp.flags);
    if let Some(class) = exp.class {
        put_u32(out, 14, class);
    }
    if let Some(ExpectNat { tuple, dir }) = &exp.nat {
        if tuple.addrs.is_v4() {
            put_addrs(out, 15, 15, &tuple.addrs);
        }
        put_u8(out, 17, tuple.proto.0);
        put_ports(out, 16, tuple.ports());
        put_u32(out, 18, u32::from(*dir == Direction::Reply));
    }
    if let Some(helper) = &exp.helper {
        put_name(out, 19, helper, HELPER_NAME_MAX_SENT);
    }
    if let Some(function) = &exp.function {
        put_name(out, 20, function, FUNCTION_MAX);
    }
    finish(out, at);
}

/// One of the three tuples: addresses, protocol, ports at `base` to `base + 3`.
fn put_tuple(out: &mut Vec<u8>, base: u16, tuple: &Tuple) {
    put_addrs(out, base, base + 1, &tuple.addrs);
    put_u8(out, base + 2, tuple.proto.0);
    if let L4::Ports { src, dst } = tuple.l4 {
        put_ports(out, base + 3, (src, dst));
    }
}

/// Decodes the attributes of an expectation message (the body after the header).
///
/// # Errors
/// What is wrong; the message must then be counted as a malformed payload.
pub fn decode_expectation(body: &[u8]) -> Result<Decoded<Expectation>, PayloadError> {
    let mut tuples = [TupleParts::default(); 3];
    let mut nat = TupleParts::default();
    let mut nat_dir = None;
    let (mut timeout, mut flags, mut class) = (None, 0, None);
    let (mut helper, mut function) = (None, None);
    let mut unknown_attrs = 0;
    let mut attrs = Attrs::new(body);
    while let Some(a) = attrs.next()? {
        match a.number {
            0..=11 => {
                let parts = &mut tuples[usize::from(a.number / 4)];
                match a.number % 4 {
                    0 => parts.addrs = Some(a.v4_pair()?),
                    1 => parts.addrs = Some(a.v6_pair()?),
                    2 => parts.proto = Some(a.u8()?),
                    _ => parts.ports = Some(a.ports()?),
                }
            }
            12 => timeout = Some(a.u32()?),
            13 => flags = a.u32()?,
            14 => class = Some(a.u32()?),
            15 => nat.addrs = Some(a.v4_pair()?),
            16 => nat.ports = Some(a.ports()?),
            17 => nat.proto = Some(a.u8()?),
            18 => nat_dir = Some(a.u32()?),
            19 => helper = Some(a.name(HELPER_NAME_MAX)?),
            20 => function = Some(a.name(FUNCTION_MAX)?),
            _ => unknown_attrs += 1,
        }
    }
    let [master, tuple, mask] = tuples;
    let (master, tuple, mask) = (
        master.build_lenient()?,
        tuple.build_lenient()?,
        mask.build_lenient()?,
    );
    let family = |t: &Tuple| matches!(t.addrs, Addrs::V4 { .. });
    if family(&tuple) != family(&mask) {
        return Err(PayloadError::TwoFamilies);
    }
    if nat.addrs.is_none() && nat.proto.is_some() && !family(&tuple) {
        nat.addrs = Some(Addrs::V6 {
            src: Ipv6Addr::UNSPECIFIED,
            dst: Ipv6Addr::UNSPECIFIED,
        });
    }
    let nat = if nat.addrs.is_some() {
        Some(ExpectNat {
            tuple: nat.build_lenient()?,
            dir: match nat_dir {
                Some(0) | None => Direction::Original,
                Some(_) => Direction::Reply,
            },
        })
    } else {
        None
    };
    Ok(Decoded {
        object: Expectation {
            master,
            tuple,
            mask,
            zone: Zone(0),
            timeout,
            flags,
            class,
            nat,
            helper,
            function,
            id: None,
        },
        unknown_attrs,
    })
}
