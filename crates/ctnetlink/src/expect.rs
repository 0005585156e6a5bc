//! `CTA_EXPECT_*`: expectations, read and written.
//!
//! The kernel's messages name no zone: an expectation is in that of its master. A
//! request may name one.
//!
//! Source: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`, `enum ctattr_expect`,
//! `enum ctattr_expect_nat`; `net/netfilter/nf_conntrack_netlink.c`,
//! `ctnetlink_exp_dump_expect`, `ctnetlink_alloc_expect`.

use flow::{Direction, ExpectKey, ExpectNat, Expectation, Name, Zone};

use crate::DecodeError;
use crate::attr::{Attr, Attrs, put_be16, put_be32, put_nest, put_text};
use crate::conntrack::{decode_tuple, put_tuple};
use crate::header::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, exp};
use crate::request::{AF_INET, AF_INET6, AF_UNSPEC, Request};

pub(crate) const IPCTNL_MSG_EXP_NEW: u16 = 0;
const IPCTNL_MSG_EXP_GET: u16 = 1;
pub(crate) const IPCTNL_MSG_EXP_DELETE: u16 = 2;

const CTA_EXPECT_MASTER: u16 = 1;
const CTA_EXPECT_TUPLE: u16 = 2;
const CTA_EXPECT_MASK: u16 = 3;
const CTA_EXPECT_TIMEOUT: u16 = 4;
const CTA_EXPECT_ID: u16 = 5;
const CTA_EXPECT_HELP_NAME: u16 = 6;
const CTA_EXPECT_ZONE: u16 = 7;
const CTA_EXPECT_FLAGS: u16 = 8;
const CTA_EXPECT_CLASS: u16 = 9;
const CTA_EXPECT_NAT: u16 = 10;
const CTA_EXPECT_FN: u16 = 11;

const CTA_EXPECT_NAT_DIR: u16 = 1;
const CTA_EXPECT_NAT_TUPLE: u16 = 2;

/// Decodes the attributes of an expectation: what follows `nfgenmsg`.
///
/// # Errors
/// A missing tuple, mask or master, or an attribute whose size is not the kernel header's.
pub fn decode_expectation(attributes: &[u8]) -> Result<Expectation, DecodeError> {
    let mut attrs = Attrs::new("expectation", attributes);
    let (mut master, mut tuple, mut mask) = (None, None, None);
    let (mut timeout, mut id, mut class) = (None, None, None);
    let (mut helper, mut function, mut nat) = (None, None, None);
    let (mut zone, mut flags) = (Zone(0), 0);
    while let Some(a) = attrs.next()? {
        match a.number {
            CTA_EXPECT_MASTER => master = Some(decode_tuple(a)?),
            CTA_EXPECT_TUPLE => tuple = Some(decode_tuple(a)?),
            CTA_EXPECT_MASK => mask = Some(decode_tuple(a)?),
            CTA_EXPECT_TIMEOUT => timeout = Some(a.be32()?),
            CTA_EXPECT_ID => id = Some(a.be32()?),
            CTA_EXPECT_HELP_NAME => helper = Name::new(a.text()),
            CTA_EXPECT_ZONE => zone = Zone(a.be16()?),
            CTA_EXPECT_FLAGS => flags = a.be32()?,
            CTA_EXPECT_CLASS => class = Some(a.be32()?),
            CTA_EXPECT_NAT => nat = decode_nat(a)?,
            CTA_EXPECT_FN => function = Name::new(a.text()),
            _ => {}
        }
    }
    Ok(Expectation {
        master: master.ok_or(DecodeError::Missing("CTA_EXPECT_MASTER"))?,
        tuple: tuple.ok_or(DecodeError::Missing("CTA_EXPECT_TUPLE"))?,
        mask: mask.ok_or(DecodeError::Missing("CTA_EXPECT_MASK"))?,
        zone,
        timeout,
        flags,
        class,
        nat,
        helper,
        function,
        id,
    })
}

fn decode_nat(a: Attr<'_>) -> Result<Option<ExpectNat>, DecodeError> {
    let (mut tuple, mut dir) = (None, Direction::Original);
    let mut nest = a.nest("CTA_EXPECT_NAT");
    while let Some(a) = nest.next()? {
        match a.number {
            CTA_EXPECT_NAT_TUPLE => tuple = Some(decode_tuple(a)?),
            CTA_EXPECT_NAT_DIR if a.be32()? != 0 => dir = Direction::Reply,
            _ => {}
        }
    }
    Ok(tuple.map(|tuple| ExpectNat { tuple, dir }))
}

impl Request<'_> {
    /// Create; fails with `EEXIST` if there is one of this tuple, with `ENOENT` if its
    /// master is not there, with `EOPNOTSUPP` if the master or this kernel lacks the helper.
    ///
    /// The kernel takes the timeout from the helper's policy; see
    /// [`Request::update_expectation`].
    pub fn create_expectation(self, e: &Expectation) {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let family = family(&e.key());
        self.write(exp(IPCTNL_MSG_EXP_NEW), flags, family, |out| {
            put_key(out, &e.key());
            put_be32(out, CTA_EXPECT_FLAGS, e.flags);
            if let Some(timeout) = e.timeout {
                put_be32(out, CTA_EXPECT_TIMEOUT, timeout);
            }
            if let Some(helper) = &e.helper {
                put_text(out, CTA_EXPECT_HELP_NAME, helper.as_bytes());
            }
            if let Some(class) = e.class {
                put_be32(out, CTA_EXPECT_CLASS, class);
            }
            if let Some(nat) = &e.nat {
                put_nest(out, CTA_EXPECT_NAT, |out| {
                    put_be32(
                        out,
                        CTA_EXPECT_NAT_DIR,
                        (nat.dir == Direction::Reply).into(),
                    );
                    put_tuple(out, CTA_EXPECT_NAT_TUPLE, &nat.tuple);
                });
            }
            if let Some(function) = &e.function {
                put_text(out, CTA_EXPECT_FN, function.as_bytes());
            }
        });
    }

    /// Sets the timeout, all that can change; fails with `ENOENT` if there is none.
    pub fn update_expectation(self, e: &Expectation) {
        let family = family(&e.key());
        self.write(exp(IPCTNL_MSG_EXP_NEW), 0, family, |out| {
            put_key(out, &e.key());
            if let Some(timeout) = e.timeout {
                put_be32(out, CTA_EXPECT_TIMEOUT, timeout);
            }
        });
    }

    /// Delete; only if it has this kernel id, when one is given.
    pub fn delete_expectation(self, key: &ExpectKey, id: Option<u32>) {
        self.write(exp(IPCTNL_MSG_EXP_DELETE), 0, family(key), |out| {
            put_key(out, key);
            if let Some(id) = id {
                put_be32(out, CTA_EXPECT_ID, id);
            }
        });
    }

    /// Delete all.
    pub fn flush_expectations(self) {
        self.write(exp(IPCTNL_MSG_EXP_DELETE), 0, AF_UNSPEC, |_| {});
    }

    /// Ask for all.
    pub fn dump_expectations(self) {
        self.write(exp(IPCTNL_MSG_EXP_GET), NLM_F_DUMP, AF_UNSPEC, |_| {});
    }
}

fn put_key(out: &mut Vec<u8>, key: &ExpectKey) {
    put_tuple(out, CTA_EXPECT_MASTER, &key.master);
    put_tuple(out, CTA_EXPECT_TUPLE, &key.tuple);
    put_tuple(out, CTA_EXPECT_MASK, &key.mask);
    if key.zone != Zone(0) {
        put_be16(out, CTA_EXPECT_ZONE, key.zone.0);
    }
}

fn family(key: &ExpectKey) -> u8 {
    if key.tuple.addrs.is_v4() {
        AF_INET
    } else {
        AF_INET6
    }
}
