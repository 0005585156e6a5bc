//! Attributes: how they are laid out, walked and appended.
//!
//! | Offset | Size | Field   | Order | Meaning                                 |
//! |-------:|-----:|---------|-------|-----------------------------------------|
//! |      0 |    2 | length  | big   | 4 + payload, without padding            |
//! |      2 |    2 | number  | big   | see `flow.rs` and `expectation.rs`      |
//! |      4 |    n | payload |       |                                         |
//! |    4+n | 0..3 | padding |       | to a multiple of 4; may be missing last |
//!
//! Source: wire protocol specification, section 4.

use std::net::{Ipv4Addr, Ipv6Addr};

use flow::{Addrs, L4, Name, Proto, Tuple};
use thiserror::Error;

/// Why an attribute area was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// An attribute's length is below 4 or beyond the message.
    #[error("attribute length {len}, {have} bytes are left")]
    AttrLength {
        /// The length field.
        len: usize,
        /// Bytes left.
        have: usize,
    },
    /// A known attribute has the wrong size.
    #[error("attribute {attr} has {len} bytes of payload")]
    AttrSize {
        /// Number of the attribute.
        attr: u16,
        /// Bytes of payload.
        len: usize,
    },
    /// A name is empty or not printable.
    #[error("attribute {attr} is not a name")]
    BadName {
        /// Number of the attribute.
        attr: u16,
    },
    /// What identifies the object is missing. The original accepts such a message,
    /// and its cache is poisoned by it.
    #[error("no identity: {missing} missing")]
    NoIdentity {
        /// What is missing.
        missing: &'static str,
    },
    /// Addresses of both families in one object.
    #[error("addresses of two families")]
    TwoFamilies,
}

/// Walks the attributes of one message.
pub(super) struct Attrs<'a> {
    rest: &'a [u8],
}

impl<'a> Attrs<'a> {
    pub(super) fn new(body: &'a [u8]) -> Attrs<'a> {
        Attrs { rest: body }
    }

    /// The next attribute; `None` at the end. Up to 4 trailing bytes are
    /// ignored, as the original ignores them.
    pub(super) fn next(&mut self) -> Result<Option<Attr<'a>>, PayloadError> {
        let have = self.rest.len();
        if have <= 4 {
            return Ok(None);
        }
        let len = usize::from(u16::from_be_bytes([self.rest[0], self.rest[1]]));
        let number = u16::from_be_bytes([self.rest[2], self.rest[3]]);
        if len < 4 || len > have {
            return Err(PayloadError::AttrLength { len, have });
        }
        let payload = &self.rest[4..len];
        self.rest = &self.rest[len.next_multiple_of(4).min(have)..];
        Ok(Some(Attr { number, payload }))
    }
}

/// One attribute. The readers check its size.
#[derive(Clone, Copy)]
pub(super) struct Attr<'a> {
    pub(super) number: u16,
    pub(super) payload: &'a [u8],
}

impl Attr<'_> {
    fn fixed<const N: usize>(&self) -> Result<[u8; N], PayloadError> {
        self.payload.try_into().map_err(|_| self.bad_size())
    }

    pub(super) fn bad_size(&self) -> PayloadError {
        PayloadError::AttrSize {
            attr: self.number,
            len: self.payload.len(),
        }
    }

    pub(super) fn u8(&self) -> Result<u8, PayloadError> {
        Ok(self.fixed::<1>()?[0])
    }

    pub(super) fn u16(&self) -> Result<u16, PayloadError> {
        Ok(u16::from_be_bytes(self.fixed()?))
    }

    /// The three values that the original converts once too often: its senders
    /// on x86-64 and arm64 put them on the wire little-endian (section 4.2).
    pub(super) fn swapped_u16(&self) -> Result<u16, PayloadError> {
        Ok(u16::from_le_bytes(self.fixed()?))
    }

    pub(super) fn u32(&self) -> Result<u32, PayloadError> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    pub(super) fn u32s<const N: usize>(&self) -> Result<[u32; N], PayloadError> {
        if self.payload.len() != 4 * N {
            return Err(self.bad_size());
        }
        let mut out = [0; N];
        for (value, bytes) in out.iter_mut().zip(self.payload.chunks_exact(4)) {
            *value = u32::from_be_bytes(bytes.try_into().expect("chunks of 4"));
        }
        Ok(out)
    }

    pub(super) fn v4(&self) -> Result<Ipv4Addr, PayloadError> {
        Ok(Ipv4Addr::from(self.fixed::<4>()?))
    }

    pub(super) fn v6(&self) -> Result<Ipv6Addr, PayloadError> {
        Ok(Ipv6Addr::from(self.fixed::<16>()?))
    }

    pub(super) fn v4_pair(&self) -> Result<Addrs, PayloadError> {
        let [src, dst] = self.u32s::<2>()?;
        Ok(Addrs::V4 {
            src: src.into(),
            dst: dst.into(),
        })
    }

    pub(super) fn v6_pair(&self) -> Result<Addrs, PayloadError> {
        let bytes = self.fixed::<32>()?;
        let half = |at: usize| -> [u8; 16] { bytes[at..at + 16].try_into().expect("16 bytes") };
        Ok(Addrs::V6 {
            src: half(0).into(),
            dst: half(16).into(),
        })
    }

    pub(super) fn ports(&self) -> Result<(u16, u16), PayloadError> {
        let [a, b, c, d] = self.fixed::<4>()?;
        Ok((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// A NUL-terminated name of at most `max` bytes with its NUL; cut to [`Name::MAX`].
    pub(super) fn name(&self, max: usize) -> Result<Name, PayloadError> {
        if self.payload.is_empty() || self.payload.len() > max {
            return Err(self.bad_size());
        }
        let end = self.payload.iter().position(|&b| b == 0);
        let text = &self.payload[..end.unwrap_or(self.payload.len())];
        Name::new(&text[..text.len().min(Name::MAX)])
            .ok_or(PayloadError::BadName { attr: self.number })
    }
}

/// Parts of a tuple, gathered while attributes are read in any order.
#[derive(Clone, Copy, Default)]
pub(super) struct TupleParts {
    pub(super) addrs: Option<Addrs>,
    pub(super) proto: Option<u8>,
    pub(super) ports: Option<(u16, u16)>,
    pub(super) icmp_kind: Option<u8>,
    pub(super) icmp_code: Option<u8>,
    pub(super) icmp_id: Option<u16>,
}

impl TupleParts {
    /// The tuple, or what is missing.
    pub(super) fn build(&self) -> Result<Tuple, PayloadError> {
        let missing = |missing| PayloadError::NoIdentity { missing };
        let addrs = self.addrs.ok_or(missing("addresses"))?;
        let proto = Proto(self.proto.ok_or(missing("layer 4 protocol"))?);
        let l4 = if proto == Proto::UDPLITE {
            // It has ports, and the original never sends them.
            let (src, dst) = self.ports.ok_or(missing("ports"))?;
            L4::Ports { src, dst }
        } else if proto.has_ports() {
            // Absent ports are 0, as they are to the original.
            let (src, dst) = self.ports.unwrap_or((0, 0));
            L4::Ports { src, dst }
        } else if proto.is_icmp() {
            L4::Icmp {
                id: self.icmp_id.ok_or(missing("ICMP id"))?,
                kind: self.icmp_kind.ok_or(missing("ICMP type"))?,
                code: self.icmp_code.ok_or(missing("ICMP code"))?,
            }
        } else {
            self.portless_l4(proto)
        };
        Ok(Tuple { addrs, proto, l4 })
    }

    /// The tuple of a mask or a master, where ports may be left out.
    pub(super) fn build_lenient(&self) -> Result<Tuple, PayloadError> {
        let missing = |missing| PayloadError::NoIdentity { missing };
        let proto = Proto(self.proto.ok_or(missing("layer 4 protocol"))?);
        Ok(Tuple {
            addrs: self.addrs.ok_or(missing("addresses"))?,
            proto,
            l4: match self.ports {
                Some((src, dst)) => L4::Ports { src, dst },
                None => self.portless_l4(proto),
            },
        })
    }

    fn portless_l4(&self, proto: Proto) -> L4 {
        if proto == Proto::GRE {
            L4::Gre {
                src_key: 0,
                dst_key: 0,
            }
        } else {
            L4::None
        }
    }
}

/// Appends one attribute with its padding.
pub(super) fn put(out: &mut Vec<u8>, number: u16, payload: &[u8]) {
    let len = u16::try_from(4 + payload.len()).expect("attributes are small");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(4), 0);
}

pub(super) fn put_u8(out: &mut Vec<u8>, number: u16, value: u8) {
    put(out, number, &[value]);
}

pub(super) fn put_u16(out: &mut Vec<u8>, number: u16, value: u16) {
    put(out, number, &value.to_be_bytes());
}

/// The inverse of [`Attr::swapped_u16`].
pub(super) fn put_swapped_u16(out: &mut Vec<u8>, number: u16, value: u16) {
    put(out, number, &value.to_le_bytes());
}

pub(super) fn put_u32(out: &mut Vec<u8>, number: u16, value: u32) {
    put(out, number, &value.to_be_bytes());
}

pub(super) fn put_u32s(out: &mut Vec<u8>, number: u16, values: &[u32]) {
    let len = u16::try_from(4 + 4 * values.len()).expect("attributes are small");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
    for value in values {
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Addresses under the number of their family.
pub(super) fn put_addrs(out: &mut Vec<u8>, number_v4: u16, number_v6: u16, addrs: &Addrs) {
    match addrs {
        Addrs::V4 { src, dst } => {
            put_u32s(out, number_v4, &[(*src).into(), (*dst).into()]);
        }
        Addrs::V6 { src, dst } => {
            let mut pair = [0; 32];
            pair[..16].copy_from_slice(&src.octets());
            pair[16..].copy_from_slice(&dst.octets());
            put(out, number_v6, &pair);
        }
    }
}

pub(super) fn put_ports(out: &mut Vec<u8>, number: u16, (src, dst): (u16, u16)) {
    put_u32(out, number, u32::from(src) << 16 | u32::from(dst));
}

/// A name with its NUL, cut to `max` bytes with it.
pub(super) fn put_name(out: &mut Vec<u8>, number: u16, name: &Name, max: usize) {
    let text = name.as_bytes();
    let mut bytes = [0; Name::MAX + 1];
    let len = text.len().min(max - 1);
    bytes[..len].copy_from_slice(&text[..len]);
    put(out, number, &bytes[..=len]);
}
