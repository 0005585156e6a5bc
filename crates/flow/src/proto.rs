//! Protocol state of a flow, as the kernel keeps it per protocol.

/// A TCP flow's state, `TCP_CONNTRACK_*`. Unknown numbers survive a round trip.
///
/// Source: `include/uapi/linux/netfilter/nf_conntrack_tcp.h`, `enum tcp_conntrack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TcpState(pub u8);

impl TcpState {
    /// No packet seen yet.
    pub const NONE: TcpState = TcpState(0);
    /// First SYN seen.
    pub const SYN_SENT: TcpState = TcpState(1);
    /// SYN and SYN/ACK seen.
    pub const SYN_RECV: TcpState = TcpState(2);
    /// Handshake finished.
    pub const ESTABLISHED: TcpState = TcpState(3);
    /// First FIN seen.
    pub const FIN_WAIT: TcpState = TcpState(4);
    /// FIN acknowledged.
    pub const CLOSE_WAIT: TcpState = TcpState(5);
    /// Second FIN seen.
    pub const LAST_ACK: TcpState = TcpState(6);
    /// Both FINs acknowledged.
    pub const TIME_WAIT: TcpState = TcpState(7);
    /// RST seen.
    pub const CLOSE: TcpState = TcpState(8);
    /// Simultaneous open. Older kernels used the number for LISTEN.
    pub const SYN_SENT2: TcpState = TcpState(9);

    const NAMES: [&'static str; 10] = [
        "NONE",
        "SYN_SENT",
        "SYN_RECV",
        "ESTABLISHED",
        "FIN_WAIT",
        "CLOSE_WAIT",
        "LAST_ACK",
        "TIME_WAIT",
        "CLOSE",
        "SYN_SENT2",
    ];

    /// The kernel's name, `None` for numbers this kernel header does not have.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.get(usize::from(self.0)).copied()
    }

    /// How far a connection has come: never goes down during one connection.
    ///
    /// `SYN_SENT2` stands beside `SYN_SENT`; unknown numbers count as newest.
    pub fn progress(self) -> u8 {
        match self {
            TcpState::SYN_SENT2 => TcpState::SYN_SENT.0,
            TcpState(n) => n,
        }
    }
}

/// TCP's part of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// State of the connection.
    pub state: TcpState,
    /// Window scale (RFC 7323, 0 to 14) of the original and the reply direction.
    pub window_scale: Option<(u8, u8)>,
}

/// SCTP's part of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SctpInfo {
    /// `SCTP_CONNTRACK_*` of `include/uapi/linux/netfilter/nf_conntrack_sctp.h`.
    pub state: u8,
    /// Verification tag of the original direction, 0 if unknown.
    pub vtag_orig: u32,
    /// Verification tag of the reply direction, 0 if unknown.
    pub vtag_reply: u32,
}

impl SctpInfo {
    /// Source: `enum sctp_conntrack` of the header named above.
    const NAMES: [&'static str; 10] = [
        "NONE",
        "CLOSED",
        "COOKIE_WAIT",
        "COOKIE_ECHOED",
        "ESTABLISHED",
        "SHUTDOWN_SENT",
        "SHUTDOWN_RECD",
        "SHUTDOWN_ACK_SENT",
        "HEARTBEAT_SENT",
        "HEARTBEAT_ACKED",
    ];

    /// The kernel's name of the state, `None` for numbers that its header does not have.
    pub fn name(&self) -> Option<&'static str> {
        Self::NAMES.get(usize::from(self.state)).copied()
    }
}

/// DCCP's part of a flow (kernels up to 6.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DccpInfo {
    /// `CT_DCCP_*`.
    pub state: u8,
    /// Role of the original direction: 0 client, 1 server.
    pub role: u8,
}

impl DccpInfo {
    /// Source: `enum ct_dccp_states` of `include/linux/netfilter/nf_conntrack_dccp.h`.
    const NAMES: [&'static str; 10] = [
        "NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN", "CLOSEREQ", "CLOSING", "TIMEWAIT",
        "IGNORE", "INVALID",
    ];

    /// The kernel's name of the state, `None` for numbers that its header does not have.
    pub fn name(&self) -> Option<&'static str> {
        Self::NAMES.get(usize::from(self.state)).copied()
    }
}

/// Protocol state, for the protocols that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtoInfo {
    /// TCP.
    Tcp(TcpInfo),
    /// SCTP.
    Sctp(SctpInfo),
    /// DCCP.
    Dccp(DccpInfo),
}

impl ProtoInfo {
    /// The kernel's name of the state; `None` for numbers that this version does not know.
    pub fn state_name(&self) -> Option<&'static str> {
        match self {
            ProtoInfo::Tcp(tcp) => tcp.state.name(),
            ProtoInfo::Sctp(sctp) => sctp.name(),
            ProtoInfo::Dccp(dccp) => dccp.name(),
        }
    }

    /// Its number.
    pub fn state_number(&self) -> u8 {
        match self {
            ProtoInfo::Tcp(tcp) => tcp.state.0,
            ProtoInfo::Sctp(sctp) => sctp.state,
            ProtoInfo::Dccp(dccp) => dccp.state,
        }
    }
}
