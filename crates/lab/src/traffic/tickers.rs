//! UDP flows on which the server sends all the time and the client never again: how long nothing
//! came says how long a firewall did not know them.
//!
//! A client that sent, too, would make the flow anew on a firewall that does not know it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::node::Node;
use crate::wait;

/// How often the server sends on each, unless it is told otherwise.
pub const EVERY: Duration = Duration::from_millis(2);
/// A datagram between two machines of the laboratory is there by then.
const SOON: Duration = Duration::from_secs(2);

/// What came on one flow.
#[derive(Clone, Copy, Debug)]
struct Heard {
    last: Instant,
    longest: Duration,
}

/// The flows.
#[derive(Debug)]
pub struct Tickers {
    client: Node,
    address: SocketAddr,
    /// How often the server sends on each.
    every: Duration,
    stop: Arc<AtomicBool>,
    /// Where the server sends.
    targets: Arc<Mutex<Vec<SocketAddr>>>,
    server: UdpSocket,
    flows: Arc<Mutex<Vec<Heard>>>,
}

impl Tickers {
    /// A server at `address`, and no flow yet.
    pub fn start(client: &Node, server: &Node, address: SocketAddr) -> Result<Tickers> {
        Tickers::start_every(client, server, address, EVERY)
    }

    /// The same with a server that sends `every` so often.
    pub fn start_every(
        client: &Node,
        server: &Node,
        address: SocketAddr,
        every: Duration,
    ) -> Result<Tickers> {
        let socket = server.inside(move || UdpSocket::bind(address))??;
        socket.set_read_timeout(Some(SOON))?;
        let tickers = Tickers {
            client: client.clone(),
            address,
            every,
            stop: Arc::default(),
            targets: Arc::default(),
            server: socket.try_clone()?,
            flows: Arc::default(),
        };
        let (stop, targets) = (tickers.stop.clone(), tickers.targets.clone());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for target in lock(&targets).iter() {
                    // What cannot be sent while a wire is out is lost, as on any.
                    let _ = socket.send_to(b"x", target);
                }
                thread::sleep(every);
            }
        });
        Ok(tickers)
    }

    /// Adds flows, and waits until each has been heard.
    ///
    /// # Errors
    /// If one is not heard.
    pub fn add(&self, count: usize) -> Result<()> {
        let any: IpAddr = match self.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        for _ in 0..count {
            let socket = self.client.inside(move || UdpSocket::bind((any, 0)))??;
            socket.set_read_timeout(Some(self.every * 50))?;
            socket.send_to(b"x", self.address)?;
            let mut buffer = [0; 8];
            let (_, from) = self.server.recv_from(&mut buffer)?;
            lock(&self.targets).push(from);
            socket.recv(&mut buffer)?;
            // Two packets each way: the kernel keeps it for longer.
            socket.send_to(b"x", self.address)?;
            self.server.recv_from(&mut buffer)?;
            self.listen(socket);
        }
        Ok(())
    }

    fn listen(&self, socket: UdpSocket) {
        let n = {
            let mut flows = lock(&self.flows);
            flows.push(Heard {
                last: Instant::now(),
                longest: Duration::ZERO,
            });
            flows.len() - 1
        };
        let (stop, flows) = (self.stop.clone(), self.flows.clone());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if socket.recv(&mut [0; 8]).is_ok() {
                    let flow = &mut lock(&flows)[n];
                    flow.longest = flow.longest.max(flow.last.elapsed());
                    flow.last = Instant::now();
                }
            }
        });
    }

    /// Forgets what has been until now. All flows must be heard just now.
    ///
    /// # Errors
    /// If one is not.
    pub fn reset(&self) -> Result<()> {
        let mut flows = lock(&self.flows);
        let silent = flows.iter().filter(|f| f.last.elapsed() > self.every * 50);
        let silent = silent.count();
        ensure!(silent == 0, "{silent} of {} flows are silent", flows.len());
        flows.iter_mut().for_each(|f| f.longest = Duration::ZERO);
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.flows).len()
    }

    /// Waits until all are heard after `since`. Yields the longest silence of each, or, if not all
    /// are heard in time, those of the ones that are.
    pub fn silences(&self, since: Instant, limit: Duration) -> Vec<Duration> {
        let heard = || {
            let flows = lock(&self.flows);
            let heard = flows.iter().filter(|f| f.last > since);
            (heard.map(|f| f.longest).collect::<Vec<_>>(), flows.len())
        };
        let all = || {
            let (heard, count) = heard();
            heard.len() == count
        };
        let _ = wait::until("all are heard", limit, all);
        heard().0
    }
}

impl Drop for Tickers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
