//! Expectations: flows that a helper predicts.

use std::fmt;

use crate::{Direction, FlowKey, L4, Name, Tuple, Zone};

/// Translation that the predicted flow will get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectNat {
    /// Saved address and port (`CTA_EXPECT_NAT_TUPLE`).
    pub tuple: Tuple,
    /// Direction of the master in which the prediction was made (`CTA_EXPECT_NAT_DIR`).
    pub dir: Direction,
}

/// What identifies an expectation: flow that predicted it, and what it predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExpectKey {
    /// Original tuple of the master.
    pub master: Tuple,
    /// Predicted tuple.
    pub tuple: Tuple,
    /// Its mask.
    pub mask: Tuple,
    /// Zone of both.
    pub zone: Zone,
}

/// A predicted flow.
///
/// Source: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`, `enum ctattr_expect`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expectation {
    /// Original tuple of the flow that predicted it.
    pub master: Tuple,
    /// The predicted tuple; a port of 0 whose mask is 0 is a wildcard.
    pub tuple: Tuple,
    /// Which bits of the predicted tuple count. Its protocol is a mask too.
    pub mask: Tuple,
    /// Zone.
    pub zone: Zone,
    /// Seconds until it expires.
    pub timeout: Option<u32>,
    /// `NF_CT_EXPECT_*` bits.
    pub flags: u32,
    /// Class of the helper's policy.
    pub class: Option<u32>,
    /// Translation of the predicted flow.
    pub nat: Option<ExpectNat>,
    /// Helper that made the prediction.
    pub helper: Option<Name>,
    /// Name of the function called when the flow comes, e.g. `nat-follow-master`.
    pub function: Option<Name>,
    /// The kernel's id.
    pub id: Option<u32>,
}

impl Expectation {
    /// What identifies it.
    pub fn key(&self) -> ExpectKey {
        ExpectKey {
            master: self.master,
            tuple: self.tuple,
            mask: self.mask,
            zone: self.zone,
        }
    }
}

impl ExpectKey {
    /// What identifies the flow that predicted it.
    pub fn master(&self) -> FlowKey {
        FlowKey {
            orig: self.master,
            zone: self.zone,
        }
    }
}

/// The form of `conntrack -L expect` without timeout:
/// `proto=6 src=... mask-src=... master-src=... class=0 helper=ftp`.
impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} class={}", self.key(), self.class.unwrap_or(0))?;
        if let Some(helper) = self.helper {
            write!(f, " helper={helper}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ExpectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proto={}", self.tuple.proto.0)?;
        let parts = [
            (&self.tuple, ""),
            (&self.mask, "mask-"),
            (&self.master, "master-"),
        ];
        for (tuple, what) in parts {
            let addrs = &tuple.addrs;
            write!(f, " {what}src={} {what}dst={}", addrs.src(), addrs.dst())?;
            if let L4::Ports { src, dst } = tuple.l4 {
                write!(f, " sport={src} dport={dst}")?;
            }
        }
        if self.zone != Zone(0) {
            write!(f, " zone={}", self.zone.0)?;
        }
        Ok(())
    }
}
