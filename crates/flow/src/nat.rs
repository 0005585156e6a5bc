//! What translation adds to a flow beside its reply tuple.

/// Sequence adjustment of one direction: a helper has changed the length of a segment.
///
/// Source: `include/net/netfilter/nf_conntrack_seqadj.h`, `struct nf_ct_seqadj`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeqAdj {
    /// Sequence number of the last change.
    pub correction_pos: u32,
    /// Offset before that position, a signed number in two's complement.
    pub offset_before: u32,
    /// Offset from that position on, a signed number in two's complement.
    pub offset_after: u32,
}

/// Sequence adjustment of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeqAdjPair {
    /// Original direction.
    pub orig: SeqAdj,
    /// Reply direction.
    pub reply: SeqAdj,
}

/// SYNPROXY's part of a flow.
///
/// Source: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`, `enum ctattr_synproxy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynProxy {
    /// Initial sequence number.
    pub isn: u32,
    /// Initial timestamp.
    pub its: u32,
    /// Timestamp offset.
    pub tsoff: u32,
}
