//! UDP sockets of the dedicated links, unicast and multicast.
//!
//! The original's shape: one socket bound to the own address or the group to
//! receive, another to send. The original's second one is unbound; ours has the own address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::set_option;

/// Where a socket pair listens and where it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Own address, or the group; `None` for any address of the family of `to`.
    pub listen: Option<IpAddr>,
    /// Peer's address, or the group.
    pub to: IpAddr,
    /// Port of both.
    pub port: u16,
    /// Index of the interface: scope of link-local addresses and of groups.
    pub interface: u32,
    /// Local IPv4 address by which a group's interface is chosen.
    pub interface_v4: Option<Ipv4Addr>,
}

/// Sizes and checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Send buffer in bytes; `None` for the system's.
    pub send_buffer: Option<usize>,
    /// Receive buffer in bytes; `None` for the system's.
    pub receive_buffer: Option<usize>,
    /// False to send without UDP checksums (IPv4).
    pub checksum: bool,
    /// Other sockets may receive on the same address and port (`SO_REUSEADDR`). Only one of
    /// them gets a datagram that is sent to a host, each gets one that is sent to a group.
    pub shared: bool,
}

/// A pair of sockets, both non-blocking.
#[derive(Debug)]
pub struct Pair {
    /// Receives.
    pub receiver: UdpSocket,
    /// Sends to `to`. Not connected: when the peer is absent, a connected socket fails the
    /// next datagram and does not send it.
    pub sender: UdpSocket,
    /// The peer or group.
    pub to: SocketAddr,
    /// False if a buffer could not be set as large as asked without privileges.
    pub buffers_granted: bool,
}

/// Opens the sockets of one link.
///
/// # Errors
/// The system's error, e.g. `EADDRNOTAVAIL` for an address that is not ours, or
/// `EADDRINUSE` for one on which another socket receives, unless both are shared.
pub fn open(path: &Path, options: &Options) -> io::Result<Pair> {
    let any: IpAddr = match path.to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let receiver = socket(path.to, SocketType::DGRAM)?;
    sockopt::set_socket_reuseaddr(&receiver, options.shared)?;
    if path.to.is_ipv6() {
        // Otherwise any IPv6 address stands for any IPv4 address, too.
        sockopt::set_ipv6_v6only(&receiver, true)?;
    }
    bind(&receiver, &scoped(path.listen.unwrap_or(any), path))?;
    let sender = socket(path.to, SocketType::DGRAM)?;
    if path.to.is_multicast() {
        join(&receiver, &sender, path)?;
    } else if let Some(own) = path.listen {
        // The peer knows us by the address that it is configured to send to.
        bind(&sender, &any_port(own, path))?;
    }
    if !options.checksum {
        set_option(&sender, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)?;
    }
    let sends = set_send_buffer(&sender, options)?;
    let receives = set_receive_buffer(&receiver, options)?;
    Ok(Pair {
        receiver: UdpSocket::from(receiver),
        sender: UdpSocket::from(sender),
        to: scoped(path.to, path),
        buffers_granted: sends && receives,
    })
}

/// False if the buffer could not be set as large as asked without privileges.
pub(crate) fn set_send_buffer(fd: impl AsFd, options: &Options) -> io::Result<bool> {
    let Some(bytes) = options.send_buffer else {
        return Ok(true);
    };
    if sockopt::set_socket_send_buffer_size_force(&fd, bytes).is_ok() {
        return Ok(true);
    }
    sockopt::set_socket_send_buffer_size(&fd, bytes)?;
    Ok(false)
}

/// The same for the receive buffer.
pub(crate) fn set_receive_buffer(fd: impl AsFd, options: &Options) -> io::Result<bool> {
    let Some(bytes) = options.receive_buffer else {
        return Ok(true);
    };
    if sockopt::set_socket_recv_buffer_size_force(&fd, bytes).is_ok() {
        return Ok(true);
    }
    sockopt::set_socket_recv_buffer_size(&fd, bytes)?;
    Ok(false)
}

pub(crate) fn socket(family_of: IpAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = match family_of {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, kind, flags, None)?)
}

/// The link's address with its port and, where it needs one, the interface as its scope.
pub(crate) fn scoped(addr: IpAddr, path: &Path) -> SocketAddr {
    match addr {
        IpAddr::V4(a) => SocketAddr::new(a.into(), path.port),
        IpAddr::V6(a) => {
            let link_local = a.is_unicast_link_local() || a.is_multicast();
            let scope = if link_local { path.interface } else { 0 };
            SocketAddr::V6(SocketAddrV6::new(a, path.port, 0, scope))
        }
    }
}

/// The same with a port that the system chooses.
pub(crate) fn any_port(addr: IpAddr, path: &Path) -> SocketAddr {
    let mut address = scoped(addr, path);
    address.set_port(0);
    address
}

/// Joins the group; what we send ourselves does not come back.
fn join(receiver: &impl AsFd, sender: &impl AsFd, path: &Path) -> io::Result<()> {
    match path.to {
        IpAddr::V4(group) => {
            let local = path.interface_v4.unwrap_or(Ipv4Addr::UNSPECIFIED);
            sockopt::set_ip_add_membership_with_ifindex(receiver, &group, &local, path.interface)?;
            sockopt::set_ip_multicast_if_with_ifindex(sender, &group, &local, path.interface)?;
            sockopt::set_ip_multicast_loop(sender, false)?;
        }
        IpAddr::V6(group) => {
            sockopt::set_ipv6_add_membership(receiver, &group, path.interface)?;
            let index = path.interface.cast_signed();
            set_option(sender, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index)?;
            sockopt::set_ipv6_multicast_loop(sender, false)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(to: impl Into<IpAddr>, port: u16) -> Path {
        let to = to.into();
        Path {
            listen: (!to.is_multicast()).then_some(to),
            to,
            port,
            interface: 0,
            interface_v4: None,
        }
    }

    /// Lets the system choose a port, for both directions.
    fn open_any(to: impl Into<IpAddr>, options: &Options) -> Pair {
        let mut pair = open(&path(to, 0), options).unwrap();
        pair.to.set_port(pair.receiver.local_addr().unwrap().port());
        pair
    }

    #[test]
    fn what_is_sent_is_received_and_then_there_is_nothing() {
        for checksum in [true, false] {
            let options = Options {
                checksum,
                ..Options::default()
            };
            let pair = open_any(Ipv4Addr::LOCALHOST, &options);
            pair.sender.send_to(b"datagram", pair.to).unwrap();
            let mut buffer = [0; 16];
            assert_eq!(pair.receiver.recv(&mut buffer).unwrap(), 8);
            assert_eq!(&buffer[..8], b"datagram");
            let error = pair.receiver.recv(&mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_port_of_ones_own_cannot_be_shared_and_a_shared_one_can() {
        for shared in [false, true] {
            let options = Options {
                shared,
                ..Options::default()
            };
            let first = open_any(Ipv4Addr::LOCALHOST, &options);
            let second = open(&path(Ipv4Addr::LOCALHOST, first.to.port()), &options);
            match second {
                Ok(_) => assert!(shared),
                Err(e) => {
                    assert!(!shared);
                    assert_eq!(e.kind(), io::ErrorKind::AddrInUse);
                }
            }
        }
    }

    #[test]
    fn only_addresses_that_need_one_get_the_scope_of_the_interface() {
        let scope_of = |to: Ipv6Addr| {
            let path = Path {
                interface: 7,
                ..path(to, 3780)
            };
            match scoped(to.into(), &path) {
                SocketAddr::V6(a) => a.scope_id(),
                SocketAddr::V4(_) => unreachable!("{to}"),
            }
        };
        assert_eq!(scope_of(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)), 7);
        assert_eq!(scope_of(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)), 7);
        assert_eq!(scope_of(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)), 0);
    }
}
