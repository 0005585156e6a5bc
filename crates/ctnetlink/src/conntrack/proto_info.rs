//! `CTA_PROTOINFO`: protocol state.
//!
//! Source: `enum ctattr_protoinfo_tcp`, `_sctp`, `_dccp`; flags in
//! `include/uapi/linux/netfilter/nf_conntrack_tcp.h`.

use flow::{DccpInfo, ProtoInfo, SctpInfo, TcpInfo, TcpState};

use crate::DecodeError;
use crate::attr::{Attr, put, put_be32, put_nest, put_u8};
use crate::request::TcpOptions;

const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_DCCP: u16 = 2;
const CTA_PROTOINFO_SCTP: u16 = 3;

const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_PROTOINFO_TCP_WSCALE_ORIGINAL: u16 = 2;
const CTA_PROTOINFO_TCP_WSCALE_REPLY: u16 = 3;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;

const CTA_PROTOINFO_SCTP_STATE: u16 = 1;
const CTA_PROTOINFO_SCTP_VTAG_ORIGINAL: u16 = 2;
const CTA_PROTOINFO_SCTP_VTAG_REPLY: u16 = 3;

const CTA_PROTOINFO_DCCP_STATE: u16 = 1;
const CTA_PROTOINFO_DCCP_ROLE: u16 = 2;

const IP_CT_TCP_FLAG_WINDOW_SCALE: u8 = 0x01;
pub(crate) const IP_CT_TCP_FLAG_BE_LIBERAL: u8 = 0x08;

/// `None` for a protocol that this version does not know.
pub(super) fn decode(a: Attr<'_>) -> Result<Option<ProtoInfo>, DecodeError> {
    let mut nest = a.nest("CTA_PROTOINFO");
    while let Some(a) = nest.next()? {
        match a.number {
            CTA_PROTOINFO_TCP => return decode_tcp(a),
            CTA_PROTOINFO_SCTP => return decode_sctp(a),
            CTA_PROTOINFO_DCCP => return decode_dccp(a),
            _ => {}
        }
    }
    Ok(None)
}

fn decode_tcp(a: Attr<'_>) -> Result<Option<ProtoInfo>, DecodeError> {
    let mut state = None;
    let (mut orig, mut reply) = (None, None);
    let mut nest = a.nest("CTA_PROTOINFO_TCP");
    while let Some(a) = nest.next()? {
        match a.number {
            CTA_PROTOINFO_TCP_STATE => state = Some(TcpState(a.u8()?)),
            CTA_PROTOINFO_TCP_WSCALE_ORIGINAL => orig = Some(a.u8()?),
            CTA_PROTOINFO_TCP_WSCALE_REPLY => reply = Some(a.u8()?),
            _ => {}
        }
    }
    Ok(state.map(|state| {
        ProtoInfo::Tcp(TcpInfo {
            state,
            window_scale: orig.zip(reply),
        })
    }))
}

fn decode_sctp(a: Attr<'_>) -> Result<Option<ProtoInfo>, DecodeError> {
    let mut state = None;
    let (mut vtag_orig, mut vtag_reply) = (0, 0);
    let mut nest = a.nest("CTA_PROTOINFO_SCTP");
    while let Some(a) = nest.next()? {
        match a.number {
            CTA_PROTOINFO_SCTP_STATE => state = Some(a.u8()?),
            CTA_PROTOINFO_SCTP_VTAG_ORIGINAL => vtag_orig = a.be32()?,
            CTA_PROTOINFO_SCTP_VTAG_REPLY => vtag_reply = a.be32()?,
            _ => {}
        }
    }
    Ok(state.map(|state| {
        ProtoInfo::Sctp(SctpInfo {
            state,
            vtag_orig,
            vtag_reply,
        })
    }))
}

fn decode_dccp(a: Attr<'_>) -> Result<Option<ProtoInfo>, DecodeError> {
    let mut state = None;
    let mut role = 0;
    let mut nest = a.nest("CTA_PROTOINFO_DCCP");
    while let Some(a) = nest.next()? {
        match a.number {
            CTA_PROTOINFO_DCCP_STATE => state = Some(a.u8()?),
            CTA_PROTOINFO_DCCP_ROLE => role = a.u8()?,
            _ => {}
        }
    }
    Ok(state.map(|state| ProtoInfo::Dccp(DccpInfo { state, role })))
}

/// Appends the attributes inside `CTA_PROTOINFO`.
///
/// The kernel accepts window scales only together with the flag that marks them as valid.
///
/// Every TCP flow gets `IP_CT_TCP_FLAG_BE_LIBERAL`: what is outside the window passes. No request
/// can give the kernel the sequence numbers of a flow whose packets it has not seen. It takes them
/// from the first packet, and if that is a retransmission, the acknowledgement of what the receiver
/// has already got behind the gap is "ACKed data not seen yet": a strict kernel drops it for ever.
pub(crate) fn put_proto_info(out: &mut Vec<u8>, info: &ProtoInfo, options: TcpOptions) {
    match info {
        ProtoInfo::Tcp(tcp) => put_nest(out, CTA_PROTOINFO_TCP, |out| {
            put_u8(out, CTA_PROTOINFO_TCP_STATE, tcp.state.0);
            let mut flags = IP_CT_TCP_FLAG_BE_LIBERAL;
            if let Some((orig, reply)) = tcp.window_scale.filter(|_| options.window_scale) {
                flags |= IP_CT_TCP_FLAG_WINDOW_SCALE;
                put_u8(out, CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, orig);
                put_u8(out, CTA_PROTOINFO_TCP_WSCALE_REPLY, reply);
            }
            // Value and mask.
            put(out, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &[flags, flags]);
            put(out, CTA_PROTOINFO_TCP_FLAGS_REPLY, &[flags, flags]);
        }),
        ProtoInfo::Sctp(sctp) => put_nest(out, CTA_PROTOINFO_SCTP, |out| {
            put_u8(out, CTA_PROTOINFO_SCTP_STATE, sctp.state);
            put_be32(out, CTA_PROTOINFO_SCTP_VTAG_ORIGINAL, sctp.vtag_orig);
            put_be32(out, CTA_PROTOINFO_SCTP_VTAG_REPLY, sctp.vtag_reply);
        }),
        ProtoInfo::Dccp(dccp) => put_nest(out, CTA_PROTOINFO_DCCP, |out| {
            put_u8(out, CTA_PROTOINFO_DCCP_STATE, dccp.state);
            put_u8(out, CTA_PROTOINFO_DCCP_ROLE, dccp.role);
        }),
    }
}
