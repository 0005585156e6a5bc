//! What a link's datagrams go through.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use sys::udp::Pair;

use crate::links::is_would_block;
use crate::links::tcp::Tcp;

/// An open channel to the peer; it never blocks.
#[derive(Debug)]
pub(crate) enum Channel {
    /// UDP, to one host or to a group.
    Udp(Pair),
    /// TCP, one connection for each direction.
    Tcp(Box<Tcp>),
}

impl Channel {
    /// False if a buffer could not be set as large as asked without privileges.
    pub(crate) fn buffers_granted(&self) -> bool {
        match self {
            Channel::Udp(pair) => pair.buffers_granted,
            Channel::Tcp(tcp) => tcp.buffers_granted,
        }
    }

    /// Sends a datagram, whole or not at all; over TCP it may wait for the connection.
    pub(crate) fn send(&mut self, datagram: &[u8], now: Instant) -> io::Result<()> {
        match self {
            Channel::Udp(pair) => pair.sender.send_to(datagram, pair.to).map(drop),
            Channel::Tcp(tcp) => {
                tcp.send(datagram, now);
                Ok(())
            }
        }
    }

    /// Receives one datagram, or a row of whole messages; [`Channel::arrived`] returns it. Yields
    /// its length and who has sent it; `None` if there is none.
    ///
    /// # Errors
    /// The system's error. What a lost connection means is decided by the channel.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
        match self {
            Channel::Udp(pair) => match pair.receiver.recv_from(buffer) {
                Ok(received) => Ok(Some(received)),
                Err(e) if is_would_block(&e) => Ok(None),
                Err(e) => Err(e),
            },
            Channel::Tcp(tcp) => {
                let received = tcp.receive(buffer);
                Ok(received.map(|(row, from)| (row.len(), from)))
            }
        }
    }

    /// What the last [`Channel::receive`] has brought, of a length, with its buffer.
    pub(crate) fn arrived<'a>(&'a self, length: usize, buffer: &'a [u8]) -> &'a [u8] {
        match self {
            Channel::Udp(_) => &buffer[..length],
            Channel::Tcp(tcp) => tcp.row(),
        }
    }
}
