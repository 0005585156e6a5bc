//! Netlink sockets of the netfilter family.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, recv, send,
    socket_with, sockopt,
};

use crate::{filter, get_option, set_option};

/// `RTMGRP_LINK`: changes of interfaces.
const RTMGRP_LINK: u32 = 1;

/// Size of a receive buffer in bytes. Never receive into a smaller one: the kernel
/// sizes a dump's messages by the largest earlier receive and loses what does not fit.
pub const RECEIVE_BYTES: usize = 64 * 1024;

/// `SO_MEMINFO`: nine numbers, of which these two are read (`include/uapi/linux/sock_diag.h`).
const MEMINFO_BYTES: usize = 9 * 4;
const SK_MEMINFO_RMEM_ALLOC: usize = 0;
const SK_MEMINFO_RCVBUF: usize = 1;

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

    /// Bytes that wait in the receive buffer, and the most that it takes, as the kernel charges
    /// them.
    ///
    /// # Errors
    /// The system's error.
    pub fn waiting(&self) -> io::Result<(u32, u32)> {
        let info: [u8; MEMINFO_BYTES] = get_option(&self.fd, libc::SO_MEMINFO)?;
        let number = |n: usize| {
            let bytes = info.chunks_exact(4).nth(n).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes)
        };
        Ok((number(SK_MEMINFO_RMEM_ALLOC), number(SK_MEMINFO_RCVBUF)))
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

    /// What the kernel delivers no more: messages that somebody has caused, and what a program
    /// for classic BPF drops. An empty program drops nothing.
    ///
    /// A filter sees a datagram as a whole and looks at its first message: the kernel sends
    /// each event in a datagram of its own.
    ///
    /// # Errors
    /// The error that the system reports.
    pub fn filter(
        &self,
        ignored: Option<Ignored>,
        program: &[filter::Instruction],
    ) -> io::Result<()> {
        if ignored.is_none() && program.is_empty() {
            // The value is not looked at.
            return set_option(&self.fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0);
        }
        let mut all = ignored.map_or_else(Vec::new, |ignored| ignored.program().to_vec());
        all.extend_from_slice(program);
        if program.is_empty() {
            all.push(filter::take(u32::MAX));
        }
        filter::attach(&self.fd, &all)
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

/// Messages that are not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Port id in their header (`nlmsg_pid`): that of the socket that caused them.
    pub port: u32,
    /// Their subsystem (`NFNL_SUBSYS_ID`).
    pub subsystem: u8,
}

impl Ignored {
    /// Drops them, and goes on with the others behind its end.
    fn program(self) -> [filter::Instruction; 5] {
        use filter::{load_byte, load_word, skip_unless, take};
        // A filter loads in network byte order what the header has in the machine's.
        const SUBSYSTEM_AT: u32 = if cfg!(target_endian = "little") { 5 } else { 4 };
        const PORT_AT: u32 = 12;
        [
            load_word(PORT_AT),
            skip_unless(u32::from_be_bytes(self.port.to_ne_bytes()), 3),
            load_byte(SUBSYSTEM_AT),
            skip_unless(self.subsystem.into(), 1),
            take(0),
        ]
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
    fn what_another_socket_causes_is_dropped_and_nothing_else() {
        let (sender, receiver) = std::os::unix::net::UnixDatagram::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        let ignored = Ignored {
            port: 0x0102_0304,
            subsystem: 1,
        };
        let mut program = ignored.program().to_vec();
        program.push(filter::take(u32::MAX));
        filter::attach(&receiver, &program).unwrap();
        // What a header is: length, type and flags, sequence number, port.
        let passes = |port: u32, kind: u16| {
            let head = [16u32, u32::from(kind), 7, port];
            let kind = kind.to_ne_bytes();
            let mut bytes = head.map(u32::to_ne_bytes).concat();
            bytes[4..6].copy_from_slice(&kind);
            sender.send(&bytes).unwrap();
            receiver.recv(&mut [0; 32]).is_ok()
        };
        assert!(!passes(ignored.port, 0x0100));
        assert!(!passes(ignored.port, 0x0102));
        assert!(passes(ignored.port, 0x0200));
        assert!(passes(ignored.port.swap_bytes(), 0x0100));
        assert!(passes(0, 0x0100));
    }

    #[test]
    fn a_socket_can_ignore_and_stop_to() {
        let socket = Netlink::open(true).unwrap();
        let ignored = Ignored {
            port: 1,
            subsystem: 1,
        };
        socket.filter(Some(ignored), &[]).unwrap();
        socket.filter(Some(ignored), &[]).unwrap();
        socket.filter(None, &[]).unwrap();
        // Nothing is attached any more.
        let error = socket.filter(None, &[]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
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
