//! `CTA_*` attributes of a flow.
//!
//! Source: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`; one file per nest
//! of some size, the small ones here.

pub(crate) mod proto_info;
mod tuple;

pub(crate) use proto_info::put_proto_info;
pub(crate) use tuple::{decode as decode_tuple, put_tuple, put_zoned_tuple};

use flow::{Flow, Labels, Mark, Name, SeqAdj, SeqAdjPair, Status, SynProxy, Zone};

use crate::DecodeError;
use crate::attr::{Attr, Attrs};

pub(crate) const CTA_TUPLE_ORIG: u16 = 1;
pub(crate) const CTA_TUPLE_REPLY: u16 = 2;
pub(crate) const CTA_STATUS: u16 = 3;
pub(crate) const CTA_PROTOINFO: u16 = 4;
pub(crate) const CTA_HELP: u16 = 5;
pub(crate) const CTA_NAT_SRC: u16 = 6;
pub(crate) const CTA_TIMEOUT: u16 = 7;
pub(crate) const CTA_MARK: u16 = 8;
pub(crate) const CTA_COUNTERS_ORIG: u16 = 9;
pub(crate) const CTA_COUNTERS_REPLY: u16 = 10;
pub(crate) const CTA_USE: u16 = 11;
pub(crate) const CTA_ID: u16 = 12;
pub(crate) const CTA_NAT_DST: u16 = 13;
pub(crate) const CTA_TUPLE_MASTER: u16 = 14;
pub(crate) const CTA_SEQ_ADJ_ORIG: u16 = 15;
pub(crate) const CTA_SEQ_ADJ_REPLY: u16 = 16;
pub(crate) const CTA_ZONE: u16 = 18;
pub(crate) const CTA_SECCTX: u16 = 19;
pub(crate) const CTA_TIMESTAMP: u16 = 20;
pub(crate) const CTA_MARK_MASK: u16 = 21;
pub(crate) const CTA_LABELS: u16 = 22;
pub(crate) const CTA_LABELS_MASK: u16 = 23;
pub(crate) const CTA_SYNPROXY: u16 = 24;
pub(crate) const CTA_FILTER: u16 = 25;

pub(crate) const CTA_HELP_NAME: u16 = 1;
pub(crate) const CTA_SEQADJ_CORRECTION_POS: u16 = 1;
pub(crate) const CTA_SEQADJ_OFFSET_BEFORE: u16 = 2;
pub(crate) const CTA_SEQADJ_OFFSET_AFTER: u16 = 3;
pub(crate) const CTA_SYNPROXY_ISN: u16 = 1;
pub(crate) const CTA_SYNPROXY_ITS: u16 = 2;
pub(crate) const CTA_SYNPROXY_TSOFF: u16 = 3;
const CTA_COUNTERS_PACKETS: u16 = 1;
const CTA_COUNTERS_BYTES: u16 = 2;

/// Decodes the attributes of a flow: what follows `nfgenmsg`.
///
/// Unknown attributes are passed over; what is never replicated is read by
/// [`crate::decode_details`]. A DESTROY event of current kernels has
/// no window scale, mark or helper: they are then `None`.
///
/// # Errors
/// A missing tuple, or an attribute whose size is not the kernel header's.
pub fn decode_flow(attributes: &[u8]) -> Result<Flow, DecodeError> {
    let mut attrs = Attrs::new("conntrack", attributes);
    // The kernel puts the original tuple first; the flow is then filled in place.
    let first = loop {
        match attrs.next()? {
            Some(a) if a.number == CTA_TUPLE_ORIG => break a,
            Some(_) => {}
            None => return Err(DecodeError::Missing("CTA_TUPLE_ORIG")),
        }
    };
    let (orig, orig_zone) = tuple::decode_zoned(first)?;
    let mut flow = Flow::new(orig);
    flow.zone = orig_zone.unwrap_or_default();
    let (mut has_reply, mut reply_zone) = (false, None);
    let (mut seq_orig, mut seq_reply) = (None, None);
    while let Some(a) = attrs.next()? {
        match a.number {
            CTA_TUPLE_REPLY => {
                (flow.reply, reply_zone) = tuple::decode_zoned(a)?;
                has_reply = true;
            }
            CTA_STATUS => flow.status = Status(a.be32()?),
            CTA_PROTOINFO => flow.proto_info = proto_info::decode(a)?,
            CTA_HELP => flow.helper = decode_helper(a)?,
            CTA_TIMEOUT => flow.timeout = Some(a.be32()?),
            CTA_MARK => flow.mark = Some(Mark(a.be32()?)),
            CTA_ID => flow.id = Some(a.be32()?),
            CTA_TUPLE_MASTER => flow.master = Some(tuple::decode(a)?),
            CTA_SEQ_ADJ_ORIG => seq_orig = Some(decode_seq_adj(a)?),
            CTA_SEQ_ADJ_REPLY => seq_reply = Some(decode_seq_adj(a)?),
            CTA_ZONE => flow.zone = Zone(a.be16()?),
            CTA_LABELS => flow.labels = Some(decode_labels(a.payload)),
            CTA_SYNPROXY => flow.synproxy = decode_synproxy(a)?,
            CTA_COUNTERS_ORIG | CTA_COUNTERS_REPLY => {
                let (packets, bytes) = decode_counters(a)?;
                let (p, b) = flow.traffic.unwrap_or((0u64, 0u64));
                flow.traffic = Some((p.wrapping_add(packets), b.wrapping_add(bytes)));
            }
            _ => {}
        }
    }
    if !has_reply {
        return Err(DecodeError::Missing("CTA_TUPLE_REPLY"));
    }
    if orig_zone.is_some() || reply_zone.is_some() {
        flow.reply_zone = Some(reply_zone.unwrap_or_default()).filter(|z| *z != flow.zone);
    }
    flow.seq_adj = seq_orig
        .zip(seq_reply)
        .map(|(orig, reply)| SeqAdjPair { orig, reply });
    Ok(flow)
}

fn decode_helper(a: Attr<'_>) -> Result<Option<Name>, DecodeError> {
    let mut nest = a.nest("CTA_HELP");
    while let Some(a) = nest.next()? {
        if a.number == CTA_HELP_NAME {
            return Ok(Name::new(a.text()));
        }
    }
    Ok(None)
}

fn decode_seq_adj(a: Attr<'_>) -> Result<SeqAdj, DecodeError> {
    let mut out = SeqAdj::default();
    let mut nest = a.nest("CTA_SEQ_ADJ");
    while let Some(a) = nest.next()? {
        match a.number {
            CTA_SEQADJ_CORRECTION_POS => out.correction_pos = a.be32()?,
            CTA_SEQADJ_OFFSET_BEFORE => out.offset_before = a.be32()?,
            CTA_SEQADJ_OFFSET_AFTER => out.offset_after = a.be32()?,
            _ => {}
        }
    }
    Ok(out)
}

/// The bitmap is one of machine words: label n is bit n of the little-endian bytes
/// on a little-endian machine, and bit `n % 32` of host-order word `n / 32` there.
fn decode_labels(payload: &[u8]) -> Labels {
    let mut labels = Labels::default();
    for (word, bytes) in labels.0.iter_mut().zip(payload.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().expect("chunks of 4"));
    }
    labels
}

/// `None` if all three are 0: every flow made through ctnetlink has such an attribute.
fn decode_synproxy(a: Attr<'_>) -> Result<Option<SynProxy>, DecodeError> {
    let mut out = SynProxy::default();
    let mut nest = a.nest("CTA_SYNPROXY");
    while let Some(a) = nest.next()? {
        match a.number {
            CTA_SYNPROXY_ISN => out.isn = a.be32()?,
            CTA_SYNPROXY_ITS => out.its = a.be32()?,
            CTA_SYNPROXY_TSOFF => out.tsoff = a.be32()?,
            _ => {}
        }
    }
    Ok((out != SynProxy::default()).then_some(out))
}

pub(crate) fn decode_counters(a: Attr<'_>) -> Result<(u64, u64), DecodeError> {
    let (mut packets, mut bytes) = (0, 0);
    let mut nest = a.nest("CTA_COUNTERS");
    while let Some(a) = nest.next()? {
        match a.number {
            CTA_COUNTERS_PACKETS => packets = a.be64()?,
            CTA_COUNTERS_BYTES => bytes = a.be64()?,
            _ => {}
        }
    }
    Ok((packets, bytes))
}
