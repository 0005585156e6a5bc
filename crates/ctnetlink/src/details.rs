//! What the kernel reports of a flow and is never replicated: for listings.

use std::borrow::Cow;

use crate::DecodeError;
use crate::attr::Attrs;
use crate::conntrack::proto_info::IP_CT_TCP_FLAG_BE_LIBERAL;
use crate::conntrack::{
    CTA_COUNTERS_ORIG, CTA_COUNTERS_REPLY, CTA_PROTOINFO, CTA_SECCTX, CTA_TIMESTAMP, CTA_USE,
    decode_counters,
};

const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_DCCP: u16 = 2;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;
const CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ: u16 = 3;
const CTA_SECCTX_NAME: u16 = 1;
const CTA_TIMESTAMP_START: u16 = 1;
const CTA_TIMESTAMP_STOP: u16 = 2;

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes from the network layer on.
    pub bytes: u64,
}

/// `struct nf_ct_tcp_flags`: `IP_CT_TCP_FLAG_*`, and which of them are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags {
    /// The flags.
    pub flags: u8,
    /// Those that a request sets or clears.
    pub mask: u8,
}

/// What is never replicated; `None` means that the kernel did not report it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details<'a> {
    /// Of the original and the reply direction, if `nf_conntrack_acct` is on.
    pub counters: (Option<Counters>, Option<Counters>),
    /// Begin and end in nanoseconds since 1970, if `nf_conntrack_timestamp` is on.
    pub timestamps: (Option<u64>, Option<u64>),
    /// References to the entry (`CTA_USE`).
    pub references: Option<u32>,
    /// Security context.
    pub secctx: Option<Cow<'a, str>>,
    /// TCP flags of the original and the reply direction.
    pub tcp_flags: (Option<TcpFlags>, Option<TcpFlags>),
    /// DCCP: sequence number of the handshake, 48 bits.
    pub dccp_handshake_seq: Option<u64>,
}

/// Decodes these attributes of a flow: what follows `nfgenmsg`.
///
/// # Errors
/// An attribute whose size is not the kernel header's.
pub fn decode_details(attributes: &[u8]) -> Result<Details<'_>, DecodeError> {
    let mut d = Details::default();
    let mut attrs = Attrs::new("conntrack", attributes);
    while let Some(a) = attrs.next()? {
        match a.number {
            CTA_COUNTERS_ORIG | CTA_COUNTERS_REPLY => {
                let (packets, bytes) = decode_counters(a)?;
                let counters = Some(Counters { packets, bytes });
                if a.number == CTA_COUNTERS_ORIG {
                    d.counters.0 = counters;
                } else {
                    d.counters.1 = counters;
                }
            }
            CTA_USE => d.references = Some(a.be32()?),
            CTA_TIMESTAMP => {
                let mut nest = a.nest("CTA_TIMESTAMP");
                while let Some(a) = nest.next()? {
                    match a.number {
                        CTA_TIMESTAMP_START => d.timestamps.0 = Some(a.be64()?),
                        CTA_TIMESTAMP_STOP => d.timestamps.1 = Some(a.be64()?),
                        _ => {}
                    }
                }
            }
            CTA_SECCTX => {
                let mut nest = a.nest("CTA_SECCTX");
                while let Some(a) = nest.next()? {
                    if a.number == CTA_SECCTX_NAME {
                        d.secctx = Some(String::from_utf8_lossy(a.text()));
                    }
                }
            }
            CTA_PROTOINFO => {
                let mut nest = a.nest("CTA_PROTOINFO");
                while let Some(a) = nest.next()? {
                    if matches!(a.number, CTA_PROTOINFO_TCP | CTA_PROTOINFO_DCCP) {
                        d.read_proto_info(a.number == CTA_PROTOINFO_TCP, a.nest("protocol"))?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(d)
}

impl Details<'_> {
    /// True if segments outside the window pass in both directions.
    pub fn is_liberal(&self) -> bool {
        let is_set = |flags: Option<TcpFlags>| {
            flags.is_some_and(|f| f.flags & IP_CT_TCP_FLAG_BE_LIBERAL != 0)
        };
        is_set(self.tcp_flags.0) && is_set(self.tcp_flags.1)
    }

    fn read_proto_info(&mut self, is_tcp: bool, mut nest: Attrs<'_>) -> Result<(), DecodeError> {
        while let Some(a) = nest.next()? {
            let flags = || -> Result<Option<TcpFlags>, DecodeError> {
                let [flags, mask] = a.fixed()?;
                Ok(Some(TcpFlags { flags, mask }))
            };
            match (is_tcp, a.number) {
                (true, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL) => self.tcp_flags.0 = flags()?,
                (true, CTA_PROTOINFO_TCP_FLAGS_REPLY) => self.tcp_flags.1 = flags()?,
                (false, CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ) => {
                    self.dccp_handshake_seq = Some(a.be64()?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}
