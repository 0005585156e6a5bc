//! GET requests of HTTP/1.0, a new connection for each, at a given rate.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::node::Node;

/// Bytes of the body that every request gets.
const BODY_BYTES: usize = 4096;
/// Threads of the server and of the client: one connection may be slow.
const THREADS: u32 = 4;
/// Ports of the client.
const FIRST_PORT: u16 = 1025;
const PORTS: u32 = 64_000;
/// A load that reaches less than this part of its rate is another load.
const RATE_MIN: f64 = 0.95;
/// The longest that a connection may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Starts a server on `node` that runs until the process ends.
pub fn serve(node: &Node, address: SocketAddr) -> Result<()> {
    let listener = node.inside(move || TcpListener::bind(address))??;
    let answer = [
        format!("HTTP/1.0 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n").as_bytes(),
        &[b'x'; BODY_BYTES],
    ]
    .concat();
    for _ in 0..THREADS {
        let (listener, answer) = (listener.try_clone()?, answer.clone());
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // A client that breaks off notices it by itself.
                let _ = respond(&mut stream, &answer);
            }
        });
    }
    Ok(())
}

/// The request fits into one segment, whatever it asks for. The server closes first.
fn respond(stream: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let _ = stream.read(&mut [0; 512])?;
    stream.write_all(answer)
}

/// Requests, each from a port of its own.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    /// How many the client has made before: their ports are in use for a while.
    pub after: u32,
    /// How many.
    pub count: u32,
    /// How many a second, evenly; `None`: as fast as some clients go that wait for each answer.
    pub rate: Option<u32>,
}

/// What came of them.
#[derive(Clone, Debug)]
pub struct Served {
    /// Requests a second.
    pub rate: f64,
    /// From the SYN to the SYN-ACK of each, the shortest first.
    pub connected: Vec<Duration>,
}

impl Requests {
    /// Makes them from `node`.
    ///
    /// # Errors
    /// If one fails.
    pub fn run(self, node: &Node, server: SocketAddr) -> Result<Served> {
        let end = self.after + self.count;
        ensure!(end <= PORTS, "A has {PORTS} ports, not {end}");
        let begun = Instant::now();
        let mut clients = Vec::new();
        for first in 0..THREADS {
            clients.push(node.thread(move || -> Result<Vec<Duration>> {
                let mut connected = Vec::new();
                for n in (first..self.count).step_by(THREADS as usize) {
                    if let Some(rate) = self.rate {
                        let due = Duration::from_secs_f64(f64::from(n) / f64::from(rate));
                        thread::sleep(due.saturating_sub(begun.elapsed()));
                    }
                    let port = FIRST_PORT + (self.after + n) as u16;
                    let took = request(server, port).with_context(|| format!("request {n}"))?;
                    connected.push(took);
                }
                Ok(connected)
            })?);
        }
        let mut connected = Vec::new();
        for client in clients {
            let done = client.join();
            connected.extend(done.map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        connected.sort_unstable();
        let rate = f64::from(self.count) / begun.elapsed().as_secs_f64();
        Ok(Served { rate, connected })
    }

    /// Whether the load was what it should be.
    ///
    /// # Errors
    /// If the rate was not reached.
    pub fn check(self, served: &Served) -> Result<()> {
        let (reached, wanted) = (served.rate, self.rate.unwrap_or(0));
        ensure!(
            reached >= RATE_MIN * f64::from(wanted),
            "{reached:.0} connections a second instead of {wanted}"
        );
        Ok(())
    }
}

/// Makes `count` requests from `node`, `rate` a second, evenly.
///
/// # Errors
/// If one fails, or the rate is not reached.
pub fn get(node: &Node, server: SocketAddr, count: u32, rate: u32) -> Result<()> {
    let requests = Requests {
        after: 0,
        count,
        rate: Some(rate),
    };
    requests.check(&requests.run(node, server)?)
}

/// Makes one request from a port that the kernel chooses, in the namespace of this thread.
///
/// # Errors
/// If it is not answered, or not wholly, within a few seconds.
pub fn fetch(server: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect_timeout(&server, LIMIT).context("connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    ask(stream)
}

/// From this port: the kernel would choose one again as soon as it is free, and the flow in the
/// firewall would be another one's. Yields how long the connection took to be there.
fn request(server: SocketAddr, port: u16) -> Result<Duration> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(LIMIT))?;
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(LIMIT))?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    let begun = Instant::now();
    connect(&socket, &server)?;
    let connected = begun.elapsed();
    ask(TcpStream::from(socket))?;
    Ok(connected)
}

/// Asks on a new connection, and reads the whole answer.
fn ask(mut stream: TcpStream) -> Result<()> {
    stream.write_all(b"GET /4k HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::with_capacity(BODY_BYTES + 100);
    stream.read_to_end(&mut answer)?;
    ensure!(answer.len() > BODY_BYTES, "{} bytes came", answer.len());
    Ok(())
}
