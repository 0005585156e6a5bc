//! `CTA_TUPLE_*`: one direction of a flow.
//!
//! Source: `enum ctattr_tuple`, `enum ctattr_ip`, `enum ctattr_l4proto`.

use std::net::{Ipv4Addr, Ipv6Addr};

use flow::{Addrs, L4, Proto, Tuple, Zone};

use crate::DecodeError;
use crate::attr::{Attr, NLA_F_NESTED, put, put_be16, put_nest, put_u8};

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;

const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;

const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;

/// The numbers of ICMP's three attributes: id, type, code.
fn icmp_numbers(proto: Proto) -> [u16; 3] {
    if proto == Proto::ICMP {
        [CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE]
    } else {
        [
            CTA_PROTO_ICMPV6_ID,
            CTA_PROTO_ICMPV6_TYPE,
            CTA_PROTO_ICMPV6_CODE,
        ]
    }
}

/// Headers of the tuple of an IPv4 flow with ports, as every kernel writes them:
/// where they stand in the 48 bytes, and what they are (length, type).
const USUAL: [(usize, u16, u16); 7] = [
    (0, 20, NLA_F_NESTED | CTA_TUPLE_IP),
    (4, 8, CTA_IP_V4_SRC),
    (12, 8, CTA_IP_V4_DST),
    (20, 28, NLA_F_NESTED | CTA_TUPLE_PROTO),
    (24, 5, CTA_PROTO_NUM),
    (32, 6, CTA_PROTO_SRC_PORT),
    (40, 6, CTA_PROTO_DST_PORT),
];

/// Reads a tuple of that usual form without walking it: half of all decoding time
/// would go into the two tuples. `None` for any other form.
#[inline]
fn decode_usual(payload: &[u8]) -> Option<Tuple> {
    let bytes: &[u8; 48] = payload.try_into().ok()?;
    for (at, len, kind) in USUAL {
        let ([l0, l1], [k0, k1]) = (len.to_ne_bytes(), kind.to_ne_bytes());
        if bytes[at..at + 4] != [l0, l1, k0, k1] {
            return None;
        }
    }
    let proto = Proto(bytes[28]);
    if !proto.has_ports() {
        return None;
    }
    let addr = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    Some(Tuple {
        addrs: Addrs::V4 {
            src: addr(8),
            dst: addr(16),
        },
        proto,
        l4: L4::Ports {
            src: port(36),
            dst: port(44),
        },
    })
}

#[inline]
pub(crate) fn decode(a: Attr<'_>) -> Result<Tuple, DecodeError> {
    Ok(decode_zoned(a)?.0)
}

/// A tuple, and the zone of this direction if the flow has one for it alone.
#[inline]
pub(crate) fn decode_zoned(a: Attr<'_>) -> Result<(Tuple, Option<Zone>), DecodeError> {
    match decode_usual(a.payload) {
        Some(tuple) => Ok((tuple, None)),
        None => decode_any(a),
    }
}

fn decode_any(a: Attr<'_>) -> Result<(Tuple, Option<Zone>), DecodeError> {
    let (mut addrs, mut zone) = (None, None);
    let (mut proto, mut ports, mut icmp) = (None, (0, 0), (0, 0, 0));
    let mut nest = a.nest("CTA_TUPLE");
    while let Some(a) = nest.next()? {
        match a.number {
            CTA_TUPLE_IP => addrs = Some(decode_ip(a)?),
            CTA_TUPLE_PROTO => {
                let mut nest = a.nest("CTA_TUPLE_PROTO");
                while let Some(a) = nest.next()? {
                    match a.number {
                        CTA_PROTO_NUM => proto = Some(Proto(a.u8()?)),
                        CTA_PROTO_SRC_PORT => ports.0 = a.be16()?,
                        CTA_PROTO_DST_PORT => ports.1 = a.be16()?,
                        CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => icmp.0 = a.be16()?,
                        CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => icmp.1 = a.u8()?,
                        CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => icmp.2 = a.u8()?,
                        _ => {}
                    }
                }
            }
            CTA_TUPLE_ZONE => zone = Some(Zone(a.be16()?)),
            _ => {}
        }
    }
    let proto = proto.ok_or(DecodeError::Missing("CTA_PROTO_NUM"))?;
    let l4 = if proto.has_ports() {
        L4::Ports {
            src: ports.0,
            dst: ports.1,
        }
    } else if proto.is_icmp() {
        let (id, kind, code) = icmp;
        L4::Icmp { id, kind, code }
    } else if proto == Proto::GRE {
        L4::Gre {
            src_key: ports.0,
            dst_key: ports.1,
        }
    } else {
        L4::None
    };
    let tuple = Tuple {
        addrs: addrs.ok_or(DecodeError::Missing("CTA_TUPLE_IP"))?,
        proto,
        l4,
    };
    Ok((tuple, zone))
}

fn decode_ip(a: Attr<'_>) -> Result<Addrs, DecodeError> {
    let (mut src4, mut dst4) = (None, None);
    let (mut src6, mut dst6) = (None, None);
    let mut nest = a.nest("CTA_TUPLE_IP");
    while let Some(a) = nest.next()? {
        match a.number {
            CTA_IP_V4_SRC => src4 = Some(Ipv4Addr::from(a.fixed::<4>()?)),
            CTA_IP_V4_DST => dst4 = Some(Ipv4Addr::from(a.fixed::<4>()?)),
            CTA_IP_V6_SRC => src6 = Some(Ipv6Addr::from(a.fixed::<16>()?)),
            CTA_IP_V6_DST => dst6 = Some(Ipv6Addr::from(a.fixed::<16>()?)),
            _ => {}
        }
    }
    if let (Some(src), Some(dst)) = (src4, dst4) {
        return Ok(Addrs::V4 { src, dst });
    }
    if let (Some(src), Some(dst)) = (src6, dst6) {
        return Ok(Addrs::V6 { src, dst });
    }
    Err(DecodeError::Missing("addresses in CTA_TUPLE_IP"))
}

/// Appends a tuple under `number`.
pub(crate) fn put_tuple(out: &mut Vec<u8>, number: u16, tuple: &Tuple) {
    put_zoned_tuple(out, number, tuple, None);
}

/// The same, with the zone of this direction.
pub(crate) fn put_zoned_tuple(out: &mut Vec<u8>, number: u16, tuple: &Tuple, zone: Option<Zone>) {
    put_nest(out, number, |out| {
        if let Some(zone) = zone {
            put_be16(out, CTA_TUPLE_ZONE, zone.0);
        }
        put_nest(out, CTA_TUPLE_IP, |out| match tuple.addrs {
            Addrs::V4 { src, dst } => {
                put(out, CTA_IP_V4_SRC, &src.octets());
                put(out, CTA_IP_V4_DST, &dst.octets());
            }
            Addrs::V6 { src, dst } => {
                put(out, CTA_IP_V6_SRC, &src.octets());
                put(out, CTA_IP_V6_DST, &dst.octets());
            }
        });
        put_nest(out, CTA_TUPLE_PROTO, |out| {
            put_u8(out, CTA_PROTO_NUM, tuple.proto.0);
            match tuple.l4 {
                L4::None => {}
                L4::Ports { src: a, dst: b }
                | L4::Gre {
                    src_key: a,
                    dst_key: b,
                } => {
                    put_be16(out, CTA_PROTO_SRC_PORT, a);
                    put_be16(out, CTA_PROTO_DST_PORT, b);
                }
                L4::Icmp { id, kind, code } => {
                    let numbers = icmp_numbers(tuple.proto);
                    put_be16(out, numbers[0], id);
                    put_u8(out, numbers[1], kind);
                    put_u8(out, numbers[2], code);
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;

    #[test]
    fn the_short_way_reads_what_the_long_way_reads() {
        let tuple = Tuple {
            addrs: Addrs::V4 {
                src: [192, 168, 0, 3].into(),
                dst: [192, 168, 1, 2].into(),
            },
            proto: Proto::TCP,
            l4: L4::Ports { src: 5000, dst: 80 },
        };
        let mut out = Vec::new();
        put_tuple(&mut out, 1, &tuple);
        let attr = Attrs::new("test", &out).next().unwrap().unwrap();
        assert_eq!(decode_usual(attr.payload), Some(tuple));
        assert_eq!(decode_any(attr), Ok((tuple, None)));
    }
}
