//! Expectations: flows that a helper predicts.

use crate::{Direction, Name, Tuple, Zone};

/// Translation that the predicted flow will get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectNat {
    /// Saved address and port (`CTA_EXPECT_NAT_TUPLE`).
    pub tuple: Tuple,
    /// Direction of the master in which the prediction was made (`CTA_EXPECT_NAT_DIR`).
    pub dir: Direction,
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
