//! Netlink attributes: a walker that borrows, and a writer that nests.
//!
//! Source: `include/uapi/linux/netlink.h`, `struct nlattr`.

use crate::DecodeError;

pub(crate) const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLA_HDRLEN: usize = 4;

/// Walks the attributes of one nest, `name` for error messages.
pub(crate) struct Attrs<'a> {
    rest: &'a [u8],
    name: &'static str,
}

/// One attribute.
#[derive(Clone, Copy)]
pub(crate) struct Attr<'a> {
    pub(crate) number: u16,
    pub(crate) payload: &'a [u8],
    nest: &'static str,
}

impl<'a> Attrs<'a> {
    pub(crate) fn new(name: &'static str, bytes: &'a [u8]) -> Attrs<'a> {
        Attrs { rest: bytes, name }
    }

    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<Attr<'a>>, DecodeError> {
        let have = self.rest.len();
        if have < NLA_HDRLEN {
            return Ok(None);
        }
        let len = usize::from(u16::from_ne_bytes([self.rest[0], self.rest[1]]));
        let kind = u16::from_ne_bytes([self.rest[2], self.rest[3]]);
        if len < NLA_HDRLEN || len > have {
            return Err(DecodeError::Truncated {
                what: self.name,
                need: len.max(NLA_HDRLEN),
                have,
            });
        }
        let payload = &self.rest[NLA_HDRLEN..len];
        self.rest = &self.rest[len.next_multiple_of(4).min(have)..];
        Ok(Some(Attr {
            number: kind & NLA_TYPE_MASK,
            payload,
            nest: self.name,
        }))
    }
}

impl<'a> Attr<'a> {
    pub(crate) fn nest(&self, name: &'static str) -> Attrs<'a> {
        Attrs::new(name, self.payload)
    }

    #[inline]
    pub(crate) fn fixed<const N: usize>(&self) -> Result<[u8; N], DecodeError> {
        self.payload.try_into().map_err(|_| DecodeError::BadLength {
            nest: self.nest,
            attr: self.number,
            len: self.payload.len(),
        })
    }

    pub(crate) fn u8(&self) -> Result<u8, DecodeError> {
        Ok(self.fixed::<1>()?[0])
    }

    pub(crate) fn be16(&self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn be32(&self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn be64(&self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.fixed()?))
    }

    /// Text up to its NUL.
    pub(crate) fn text(&self) -> &'a [u8] {
        let end = self.payload.iter().position(|&b| b == 0);
        &self.payload[..end.unwrap_or(self.payload.len())]
    }
}

/// Appends an attribute with its padding.
pub(crate) fn put(out: &mut Vec<u8>, number: u16, payload: &[u8]) {
    let len = u16::try_from(NLA_HDRLEN + payload.len()).expect("attributes are small");
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&number.to_ne_bytes());
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(4), 0);
}

pub(crate) fn put_u8(out: &mut Vec<u8>, number: u16, value: u8) {
    put(out, number, &[value]);
}

/// Appends text with its NUL.
pub(crate) fn put_text(out: &mut Vec<u8>, number: u16, text: &[u8]) {
    let len = u16::try_from(NLA_HDRLEN + text.len() + 1).expect("names are short");
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&number.to_ne_bytes());
    out.extend_from_slice(text);
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
}

pub(crate) fn put_be16(out: &mut Vec<u8>, number: u16, value: u16) {
    put(out, number, &value.to_be_bytes());
}

pub(crate) fn put_be32(out: &mut Vec<u8>, number: u16, value: u32) {
    put(out, number, &value.to_be_bytes());
}

/// Appends a nest whose attributes `fill` writes.
pub(crate) fn put_nest(out: &mut Vec<u8>, number: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(number | NLA_F_NESTED).to_ne_bytes());
    fill(out);
    let len = u16::try_from(out.len() - at).expect("nests are small");
    out[at..at + 2].copy_from_slice(&len.to_ne_bytes());
}
