//! Netlink sockets of the netfilter family.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, recv, send,
    socket_with, sockopt,
};

use crate::set_option;

/// `RTMGRP_LINK`: changes of interfaces.
const RTMGRP_LINK: u32 = 1;

/// Size of a receive buffer in bytes. Never receive into a smaller one: the kernel
/// sizes a dump's messages by the largest earlier receive and loses what does not fit.
pub const RECEIVE_BYTES: usize = 64 * 1024;

/// A netlink socket.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    port: u32,
}

impl Netlink {
    /// Opens a socket for connection tracking.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(nonblocking: bool) -> io::Result<Netlink> {
        Netlink::open_family(nonblocking, Some(NETFILTER), 0)
    }

    /// Opens a non-blocking socket that reports changes of interfaces.
    ///
    /// # Errors
    /// The system's error.
    pub fn open_link_watch() -> io::Result<Netlink> {
        // NETLINK_ROUTE is protocol 0.
        Netlink::open_family(true, None, RTMGRP_LINK)
    }

    fn open_family(
        nonblocking: bool,
        family: Option<rustix::net::Protocol>,
        groups: u32,
    ) -> io::Result<Netlink> {
        let mut flags = SocketFlags::CLOEXEC;
        if nonblocking {
            flags |= SocketFlags::NONBLOCK;
        }
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, family)?;
        bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        let address = SocketAddrNetlink::try_from(getsockname(&fd)?)?;
        Ok(Netlink {
            port: address.pid(),
            fd,
        })
    }

    /// The port id by which the kernel names this socket in events that it caused.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Joins a multicast group by its number.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`.
    pub fn join(&self, group: u32) -> io::Result<()> {
        let group = group.cast_signed();
        set_option(
            &self.fd,
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            group,
        )
    }

    /// Leaves a multicast group.
    ///
    /// # Errors
    /// The system's error.
    pub fn leave(&self, group: u32) -> io::Result<()> {
        let group = group.cast_signed();
        set_option(
            &self.fd,
            libc::SOL_NETLINK,
            libc::NETLINK_DROP_MEMBERSHIP,
            group,
        )
    }

    /// Reliable events: the kernel reports what it could not deliver to the sender
    /// of a packet instead of to us (`NETLINK_BROADCAST_ERROR`, `NETLINK_NO_ENOBUFS`).
    ///
    /// # Errors
    /// The system's error.
    pub fn set_reliable(&self) -> io::Result<()> {
        set_option(
            &self.fd,
            libc::SOL_NETLINK,
            libc::NETLINK_BROADCAST_ERROR,
            1,
        )?;
        set_option(&self.fd, libc::SOL_NETLINK, libc::NETLINK_NO_ENOBUFS, 1)
    }

    /// Short answers: an error without a copy of the request (`NETLINK_CAP_ACK`).
    ///
    /// # Errors
    /// The system's error.
    pub fn set_short_answers(&self) -> io::Result<()> {
        set_option(&self.fd, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)
    }

    /// Sets the receive buffer to `bytes` as the kernel counts them, and returns
    /// what it is now and whether the system's limit could be passed.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<(usize, bool)> {
        // The kernel doubles what it is given.
        let half = bytes / 2;
        let forced = sockopt::set_socket_recv_buffer_size_force(&self.fd, half).is_ok();
        if !forced {
            sockopt::set_socket_recv_buffer_size(&self.fd, half)?;
        }
        Ok((sockopt::socket_recv_buffer_size(&self.fd)?, forced))
    }

    /// Sends requests to the kernel; one call takes them all or none.
    ///
    /// # Errors
    /// The system's error.
    pub fn send(&self, requests: &[u8]) -> io::Result<()> {
        send(&self.fd, requests, SendFlags::empty())?;
        Ok(())
    }

    /// Receives one datagram; `buffer` should have [`RECEIVE_BYTES`].
    ///
    /// # Errors
    /// `WouldBlock` if there is none; `ENOBUFS` after an overrun; `InvalidData`
    /// if it was longer than the buffer.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let (kept, whole) = recv(&self.fd, &mut *buffer, RecvFlags::TRUNC)?;
        if whole > kept {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("netlink message of {whole} bytes cut to {kept}"),
            ));
        }
        Ok(&buffer[..kept])
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// True for the error by which the kernel reports that it dropped messages for us.
pub fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_has_a_port_of_its_own_and_waits_for_nothing() {
        let (one, other) = (Netlink::open(true).unwrap(), Netlink::open(true).unwrap());
        assert_ne!(one.port(), 0);
        assert_ne!(one.port(), other.port());
        let error = one.receive(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(!is_overrun(&error));
    }

    #[test]
    fn an_answer_that_does_not_fit_is_an_error() {
        let socket = Netlink::open(false).unwrap();
        // A header alone: 16 bytes, no such type, with the flags REQUEST and ACK.
        let request: Vec<u8> = [16u32, 0x0005_0001, 7, 0]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        socket.send(&request).unwrap();
        let error = socket.receive(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
