//! TCP sockets of the dedicated links.
//!
//! The original's shape: one connection for each direction. The end that opened a connection
//! only writes on it, the end that accepted it only reads. All sockets are non-blocking.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::{SocketType, bind, connect, listen, sockopt};

use crate::set_option;
use crate::udp::{Options, Path, any_port, scoped, set_receive_buffer, set_send_buffer, socket};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 8;
/// How long sent data may stay without an acknowledgement, and the peer's window shut, before
/// the system gives the connection up (`TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// Silence after which the system asks whether the other end is still there, and the pause
/// and number of its questions (`TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`).
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 4);
/// Bytes that may wait unsent in a socket (`TCP_NOTSENT_LOWAT`). What waits there grows old;
/// what waits outside is replaced by what is newer.
const UNSENT_BYTES: i32 = 128 * 1024;

/// Opens the socket on which the peer's connection is accepted. False if its buffer is
/// smaller than asked.
///
/// # Errors
/// The system's error, e.g. `EADDRNOTAVAIL` for an address that is not ours, `EADDRINUSE` if
/// another socket listens there.
pub fn listener(path: &Path, options: &Options) -> io::Result<(TcpListener, bool)> {
    let any: IpAddr = match path.to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let fd = socket(path.to, SocketType::STREAM)?;
    // What is left of a former connection does not keep the address; another listener does.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if path.to.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    // An accepted connection inherits it.
    let granted = set_receive_buffer(&fd, options)?;
    bind(&fd, &scoped(path.listen.unwrap_or(any), path))?;
    listen(&fd, BACKLOG)?;
    Ok((TcpListener::from(fd), granted))
}

/// Accepts a connection; `WouldBlock` if there is none.
///
/// # Errors
/// The system's error.
pub fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, from) = listener.accept()?;
    stream.set_nonblocking(true)?;
    keep_alive(&stream)?;
    Ok((stream, from))
}

/// Begins to connect from the own address, if there is one, to the peer's. The connection is
/// there when the socket becomes writable and has no error. False if its buffer is smaller
/// than asked.
///
/// # Errors
/// The system's error, e.g. `EADDRNOTAVAIL`, `ENETUNREACH`.
pub fn begin_connect(path: &Path, options: &Options) -> io::Result<(TcpStream, bool)> {
    let fd = socket(path.to, SocketType::STREAM)?;
    let granted = set_send_buffer(&fd, options)?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    let millis = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&fd, millis)?;
    set_option(
        &fd,
        libc::IPPROTO_TCP,
        libc::TCP_NOTSENT_LOWAT,
        UNSENT_BYTES,
    )?;
    keep_alive(&fd)?;
    if let Some(own) = path.listen {
        bind(&fd, &any_port(own, path))?;
    }
    match connect(&fd, &scoped(path.to, path)) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok((TcpStream::from(fd), granted)),
        Err(e) => Err(e.into()),
    }
}

/// True once a connection that was begun is there.
///
/// # Errors
/// Why there will be none, e.g. `ECONNREFUSED`.
pub fn is_connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(e) => Err(e),
    }
}

fn keep_alive(fd: impl std::os::fd::AsFd) -> io::Result<()> {
    let (idle, pause, count) = KEEPALIVE;
    sockopt::set_socket_keepalive(&fd, true)?;
    sockopt::set_tcp_keepidle(&fd, idle)?;
    sockopt::set_tcp_keepintvl(&fd, pause)?;
    sockopt::set_tcp_keepcnt(&fd, count)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::thread;

    use super::*;

    fn path(port: u16) -> Path {
        Path {
            listen: Some(Ipv4Addr::LOCALHOST.into()),
            to: Ipv4Addr::LOCALHOST.into(),
            port,
            interface: 0,
            interface_v4: None,
        }
    }

    fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
        for _ in 0..5000 {
            if let Some(found) = attempt() {
                return found;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("too late");
    }

    #[test]
    fn what_is_written_is_read_and_a_full_connection_does_not_block() {
        let options = Options::default();
        let (listener, _) = listener(&path(0), &options).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(
            accept(&listener).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let (mut client, granted) = begin_connect(&path(port), &options).unwrap();
        assert!(granted);
        let (mut server, from) = until(|| accept(&listener).ok());
        assert_eq!(from.ip(), Ipv4Addr::LOCALHOST);
        until(|| is_connected(&client).unwrap().then_some(()));
        client.write_all(b"message").unwrap();
        let mut buffer = [0; 16];
        let n = until(|| server.read(&mut buffer).ok());
        assert_eq!(&buffer[..n], b"message");
        let full = until(|| client.write(&[0; 65_536]).err());
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_connection_that_nobody_accepts_is_refused() {
        // A port that was free a moment ago.
        let port = {
            let (listener, _) = listener(&path(0), &Options::default()).unwrap();
            listener.local_addr().unwrap().port()
        };
        let error = match begin_connect(&path(port), &Options::default()) {
            Ok((client, _)) => until(|| is_connected(&client).err()),
            Err(e) => e,
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
