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

/// What the client has met.
#[derive(Clone, Debug)]
pub struct Load {
    /// Requests a second.
    pub rate: f64,
    /// How long each connection took to be set up, in no order.
    pub set_ups: Vec<Duration>,
}

/// Makes `count` requests from `node`, `rate` a second, evenly.
///
/// # Errors
/// If one fails, or the rate is not reached.
pub fn get(node: &Node, server: SocketAddr, count: u32, rate: u32) -> Result<Load> {
    let load = load(node, server, count, Some(rate))?;
    ensure!(
        load.rate >= RATE_MIN * f64::from(rate),
        "{:.0} connections a second instead of {rate}",
        load.rate
    );
    Ok(load)
}

/// Makes `count` requests, each thread one after the other as fast as it goes.
///
/// # Errors
/// If one fails.
pub fn get_fast(node: &Node, server: SocketAddr, count: u32) -> Result<Load> {
    load(node, server, count, None)
}

fn load(node: &Node, server: SocketAddr, count: u32, rate: Option<u32>) -> Result<Load> {
    ensure!(count <= PORTS, "A has {PORTS} ports, not {count}");
    let begun = Instant::now();
    let mut clients = Vec::new();
    for first in 0..THREADS {
        clients.push(node.thread(move || -> Result<Vec<Duration>> {
            let mut set_ups = Vec::new();
            for n in (first..count).step_by(THREADS as usize) {
                if let Some(rate) = rate {
                    let due = Duration::from_secs_f64(f64::from(n) / f64::from(rate));
                    thread::sleep(due.saturating_sub(begun.elapsed()));
                }
                let took = request(server, FIRST_PORT + n as u16);
                set_ups.push(took.with_context(|| format!("request {n}"))?);
            }
            Ok(set_ups)
        })?);
    }
    let mut set_ups = Vec::new();
    for client in clients {
        let done = client.join();
        set_ups.extend(done.map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    Ok(Load {
        rate: f64::from(count) / begun.elapsed().as_secs_f64(),
        set_ups,
    })
}

/// From this port: the kernel would choose one again as soon as it is free, and the flow in the
/// firewall would be another one's. Yields how long the connection took to be set up.
fn request(server: SocketAddr, port: u16) -> Result<Duration> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(LIMIT))?;
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(LIMIT))?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    let begun = Instant::now();
    connect(&socket, &server)?;
    let set_up = begun.elapsed();
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET /4k HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::with_capacity(BODY_BYTES + 100);
    stream.read_to_end(&mut answer)?;
    ensure!(answer.len() > BODY_BYTES, "{} bytes came", answer.len());
    Ok(set_up)
}
