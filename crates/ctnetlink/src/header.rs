//! `nlmsghdr` and `nfgenmsg`: splitting a receive buffer into messages, starting requests.
//!
//! Source: `include/uapi/linux/netlink.h`, `struct nlmsghdr` (16 bytes, host byte
//! order); `include/uapi/linux/netfilter/nfnetlink.h`, `struct nfgenmsg` (4 bytes).

use crate::DecodeError;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// In answers: the request is not repeated beyond its header; attributes follow.
pub(crate) const NLM_F_CAPPED: u16 = 0x100;
pub(crate) const NLM_F_ACK_TLVS: u16 = 0x200;

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const NLMSG_OVERRUN: u16 = 4;

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const NFNL_SUBSYS_CTNETLINK_EXP: u16 = 2;
const NFNETLINK_V0: u8 = 0;
const NLMSG_HDRLEN: usize = 16;
pub(crate) const NFGENMSG_LEN: usize = 4;

/// Message type of a conntrack operation, `IPCTNL_MSG_CT_*`.
pub(crate) const fn ct(op: u16) -> u16 {
    NFNL_SUBSYS_CTNETLINK << 8 | op
}

/// Message type of an expectation operation, `IPCTNL_MSG_EXP_*`.
pub(crate) const fn exp(op: u16) -> u16 {
    NFNL_SUBSYS_CTNETLINK_EXP << 8 | op
}

/// One netlink message, borrowed from the receive buffer.
#[derive(Clone, Copy, Debug)]
pub struct NlMessage<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: of the request that this answers; 0 in events.
    pub seq: u32,
    /// `nlmsg_pid`: port id of the socket whose request caused an event; 0 for traffic.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// Iterator over the messages of one receive buffer.
#[derive(Clone, Debug)]
pub struct NlMessages<'a> {
    rest: &'a [u8],
}

/// Splits what one `recv` returned into messages.
pub fn messages(bytes: &[u8]) -> NlMessages<'_> {
    NlMessages { rest: bytes }
}

impl<'a> Iterator for NlMessages<'a> {
    type Item = Result<NlMessage<'a>, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let have = self.rest.len();
        if have == 0 {
            return None;
        }
        let word = |at: usize| -> [u8; 4] { self.rest[at..at + 4].try_into().expect("4 bytes") };
        let len = if have < NLMSG_HDRLEN {
            NLMSG_HDRLEN
        } else {
            u32::from_ne_bytes(word(0)) as usize
        };
        if len < NLMSG_HDRLEN || len > have {
            self.rest = &[];
            return Some(Err(DecodeError::Truncated {
                what: "netlink message",
                need: len.max(NLMSG_HDRLEN),
                have,
            }));
        }
        let kind = word(4);
        let message = NlMessage {
            kind: u16::from_ne_bytes([kind[0], kind[1]]),
            flags: u16::from_ne_bytes([kind[2], kind[3]]),
            seq: u32::from_ne_bytes(word(8)),
            port: u32::from_ne_bytes(word(12)),
            payload: &self.rest[NLMSG_HDRLEN..len],
        };
        self.rest = &self.rest[len.next_multiple_of(4).min(have)..];
        Some(Ok(message))
    }
}

/// Appends a request of message type `kind` whose attributes `fill` writes. `family` is `AF_INET`, `AF_INET6` or 0 for both.
pub(crate) fn put_request(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    seq: u32,
    family: u8,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    put_request_about(out, kind, flags, seq, family, 0, fill);
}

/// The same with a `res_id`, in which batches name their subsystem.
pub(crate) fn put_request_about(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    seq: u32,
    family: u8,
    res_id: u16,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    out.extend_from_slice(&seq.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[family, NFNETLINK_V0]);
    out.extend_from_slice(&res_id.to_be_bytes());
    fill(out);
    let len = u32::try_from(out.len() - at).expect("requests are small");
    out[at..at + 4].copy_from_slice(&len.to_ne_bytes());
}
