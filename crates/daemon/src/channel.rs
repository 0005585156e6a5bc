//! What a link's datagrams go through.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use sys::udp::{Options, Pair, Path};

/// An open channel to the peer; it never blocks.
#[derive(Debug)]
pub(crate) enum Channel {
    /// UDP, to one host or to a group.
    Udp(Pair),
}

impl Channel {
    pub(crate) fn open_udp(path: &Path, options: &Options) -> io::Result<Channel> {
        Ok(Channel::Udp(sys::udp::open(path, options)?))
    }

    /// False if a buffer could not be set as large as asked without privileges.
    pub(crate) fn buffers_granted(&self) -> bool {
        let Channel::Udp(pair) = self;
        pair.buffers_granted
    }

    /// Name of the transport in the original's statistics.
    pub(crate) fn transport(&self) -> &'static str {
        let Channel::Udp(pair) = self;
        if pair.to.ip().is_multicast() {
            "multicast"
        } else {
            "UDP"
        }
    }

    /// Sends a datagram, whole or not at all; yields its length.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        let Channel::Udp(pair) = self;
        pair.sender.send_to(datagram, pair.to)
    }

    /// Receives one datagram; yields its length.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Channel::Udp(pair) = self;
        pair.receiver.recv(buffer)
    }
}

/// Ready when there is something to receive.
impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let Channel::Udp(pair) = self;
        pair.receiver.as_fd()
    }
}
