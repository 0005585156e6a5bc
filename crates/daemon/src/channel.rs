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

    /// Receives one datagram, or a row of whole messages; `None` if there is none.
    ///
    /// # Errors
    /// The system's error. What a lost connection means is decided by the channel.
    pub(crate) fn receive<'a>(
        &'a mut self,
        buffer: &'a mut [u8],
    ) -> io::Result<Option<(&'a [u8], SocketAddr)>> {
        match self {
            Channel::Udp(pair) => match pair.receiver.recv_from(buffer) {
                Ok((n, from)) => Ok(Some((&buffer[..n], from))),
                Err(e) if is_would_block(&e) => Ok(None),
                Err(e) => Err(e),
            },
            Channel::Tcp(tcp) => Ok(tcp.receive(buffer)),
        }
    }
}
