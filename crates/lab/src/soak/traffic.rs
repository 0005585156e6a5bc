//! The mix: connections that must live as long as the run, and short ones that come and go.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::node::Node;
use crate::setups::primary_backup::SERVER6;
use crate::topology::SERVER;
use crate::traffic::ftp::{self, Client, Way};
use crate::traffic::http;
use crate::traffic::numbered::{self, Connections};
use crate::traffic::push::Pushes;
use crate::traffic::tickers::Tickers;

const PUSH_PORT: u16 = 5007;
const IDLE_PORT: u16 = 7;
const TICKER_PORT: u16 = 5009;
const HTTP_PORT: u16 = 80;
const ECHO_PORT: u16 = 5353;
/// How often a server sends on a long UDP flow.
const TICK: Duration = Duration::from_millis(250);
/// A datagram that is not answered by then is sent again, as resolvers do, so many times.
const ANSWER_MAX: Duration = Duration::from_secs(1);
const TRIES: usize = 5;
/// The longest that a long connection may be silent when it is looked at: a takeover, and
/// what TCP waits before it sends again.
const LIVES: Duration = Duration::from_secs(10);

/// How much of everything there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Long TCP connections of each family whose ends send all the time.
    pub(super) pushes: usize,
    /// How often each end sends.
    pub(super) every: Duration,
    /// Long TCP connections of each family that are used once a minute.
    pub(super) idle: usize,
    /// Long UDP flows of each family.
    pub(super) tickers: usize,
    /// Time between two requests of HTTP of each family.
    pub(super) http: Duration,
    /// The same of UDP queries, pings, and files by FTP of each family and way.
    pub(super) queries: Duration,
    pub(super) pings: Duration,
    pub(super) files: Duration,
}

impl Load {
    /// That of the long forms.
    pub(super) const FULL: Load = Load {
        pushes: 100,
        every: Duration::from_millis(250),
        idle: 50,
        tickers: 10,
        http: Duration::from_millis(50),
        queries: Duration::from_millis(100),
        pings: Duration::from_secs(1),
        files: Duration::from_secs(2),
    };
    /// That of the form of one minute, which runs beside other tests.
    pub(super) const LIGHT: Load = Load {
        pushes: 20,
        every: Duration::from_millis(500),
        idle: 10,
        tickers: 4,
        http: Duration::from_millis(250),
        queries: Duration::from_millis(500),
        pings: Duration::from_secs(3),
        files: Duration::from_secs(4),
    };

    /// Long connections of all kinds.
    pub(super) fn long(&self) -> usize {
        2 * (self.pushes + self.idle + self.tickers)
    }
}

/// What short traffic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Short {
    /// A request, a connection each.
    Http,
    /// A datagram and its answer.
    Udp,
    /// An echo and its answer.
    Icmp,
    /// A file over a data connection of its own.
    Ftp,
}

/// All of them, in the order of reports.
pub(super) const SHORT: [Short; 4] = [Short::Http, Short::Ftp, Short::Udp, Short::Icmp];

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Short::Http => "HTTP",
            Short::Udp => "UDP",
            Short::Icmp => "ICMP",
            Short::Ftp => "FTP",
        })
    }
}

/// One that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) begun: Instant,
    pub(super) ended: Instant,
    /// Its kind, family and error.
    pub(super) what: String,
}

/// How many have been done, and the ones that failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) done: u64,
    pub(super) failures: Vec<Failure>,
}

type Tallies = Arc<Mutex<BTreeMap<Short, Tally>>>;

/// How many long connections of each kind live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Alive {
    pub(super) pushes: [usize; 2],
    pub(super) idle: [usize; 2],
    pub(super) tickers: [usize; 2],
    /// Of the first ones those that were told that there is no such connection.
    pub(super) reset: [usize; 2],
}

impl Alive {
    pub(super) fn total(&self) -> usize {
        [self.pushes, self.idle, self.tickers]
            .iter()
            .flatten()
            .sum()
    }
}

/// The running mix.
pub(super) struct Mix {
    load: Load,
    pushes: [Pushes; 2],
    idle: [Connections; 2],
    tickers: [Tickers; 2],
    stop: Arc<AtomicBool>,
    tallies: Tallies,
    threads: Vec<JoinHandle<()>>,
}

impl Mix {
    /// Opens the long connections, and begins with the short ones.
    pub(super) fn start(client: &Node, server: &Node, load: Load) -> Result<Mix> {
        let ips: [IpAddr; 2] = [SERVER.parse()?, SERVER6.parse()?];
        for ip in ips {
            // Each set-up has one for IPv4.
            if ip.is_ipv6() {
                numbered::serve(server, SocketAddr::new(ip, IDLE_PORT))?;
            }
            http::serve(server, SocketAddr::new(ip, HTTP_PORT))?;
            ftp::serve(server, &ip.to_string())?;
            echo(server, SocketAddr::new(ip, ECHO_PORT))?;
        }
        let mut mix = Mix {
            load,
            pushes: both(ips, |ip| {
                let to = SocketAddr::new(ip, PUSH_PORT);
                Pushes::start(client, server, to, load.pushes, load.every)
            })?,
            idle: both(ips, |ip| {
                Connections::open(client, SocketAddr::new(ip, IDLE_PORT), load.idle)
            })?,
            tickers: both(ips, |ip| {
                let at = SocketAddr::new(ip, TICKER_PORT);
                let tickers = Tickers::start_every(client, server, at, TICK)?;
                tickers.add(load.tickers)?;
                Ok(tickers)
            })?,
            stop: Arc::default(),
            tallies: Arc::default(),
            threads: Vec::new(),
        };
        for ip in ips {
            mix.begin_short(client, ip)?;
        }
        Ok(mix)
    }

    fn begin_short(&mut self, client: &Node, ip: IpAddr) -> Result<()> {
        let load = self.load;
        let web = SocketAddr::new(ip, HTTP_PORT);
        self.begin(client, Short::Http, load.http, move || http::fetch(web))?;
        let to = SocketAddr::new(ip, ECHO_PORT);
        self.begin(client, Short::Udp, load.queries, move || query(to))?;
        let node = client.clone();
        self.begin(client, Short::Icmp, load.pings, move || ping(&node, ip))?;
        for way in [Way::Active, Way::Passive] {
            let mut files = Files::new(client, ip, way);
            self.begin(client, Short::Ftp, load.files, move || files.retrieve())?;
        }
        Ok(())
    }

    /// A thread that does it again and again. What takes longer than the time between two delays
    /// the next one: as many are under way as there are threads.
    fn begin(
        &mut self,
        client: &Node,
        short: Short,
        every: Duration,
        mut once: impl FnMut() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (stop, tallies) = (self.stop.clone(), self.tallies.clone());
        let thread = client.thread(move || {
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let result = once();
                let mut tallies = lock(&tallies);
                let tally = tallies.entry(short).or_default();
                match result {
                    Ok(()) => tally.done += 1,
                    Err(e) => tally.failures.push(Failure {
                        begun,
                        ended: Instant::now(),
                        what: format!("{short}: {e:#}"),
                    }),
                }
                drop(tallies);
                thread::sleep(every.saturating_sub(begun.elapsed()));
            }
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Which of the long connections live: each must carry something after now.
    pub(super) fn look(&mut self) -> Result<Alive> {
        // What had been sent before is read within a period.
        let since = Instant::now() + 2 * self.load.every.max(TICK);
        let mut alive = Alive::default();
        for (n, idle) in self.idle.iter_mut().enumerate() {
            alive.idle[n] = idle.round(LIVES);
        }
        for (n, tickers) in self.tickers.iter().enumerate() {
            let count = tickers.count();
            ensure!(count == self.load.tickers, "{count} UDP flows");
            alive.tickers[n] = tickers.silences(since, LIVES).len();
        }
        for (n, pushes) in self.pushes.iter().enumerate() {
            let survey = || pushes.survey(since);
            let _ = crate::wait::until("all are heard", LIVES, || {
                survey().alive == self.load.pushes
            });
            let now = survey();
            let count = now.alive + now.reset + now.lost;
            ensure!(count == self.load.pushes, "{count} long connections");
            alive.pushes[n] = now.alive;
            alive.reset[n] = now.reset;
        }
        Ok(alive)
    }

    /// Longest time for which an end of a long TCP connection has read nothing, since this was
    /// last asked.
    pub(super) fn take_silence(&self) -> Duration {
        let [four, six] = self.pushes.each_ref().map(Pushes::take_silence);
        four.max(six)
    }

    /// What has come of short traffic until now.
    pub(super) fn tallies(&self) -> BTreeMap<Short, Tally> {
        lock(&self.tallies).clone()
    }

    /// Ends the short traffic; the long connections stay.
    pub(super) fn end_short(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a client panicked"))?;
        }
        Ok(())
    }
}

impl Drop for Mix {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of each family.
fn both<T>(ips: [IpAddr; 2], make: impl Fn(IpAddr) -> Result<T>) -> Result<[T; 2]> {
    let [four, six] = ips;
    Ok([make(four)?, make(six)?])
}

/// Answers each datagram with itself until the process ends.
fn echo(node: &Node, address: SocketAddr) -> Result<()> {
    let socket = node.inside(move || UdpSocket::bind(address))??;
    thread::spawn(move || {
        let mut buffer = [0; 512];
        loop {
            // An earlier answer's ICMP error is reported here once.
            if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..len], from);
            }
        }
    });
    Ok(())
}

/// A datagram from a new port, and its answer.
fn query(server: SocketAddr) -> Result<()> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    for _ in 0..TRIES {
        // While no firewall has the gateway's address it cannot be sent.
        if socket.send(b"query").is_err() {
            thread::sleep(ANSWER_MAX);
        } else if socket.recv(&mut [0; 16]).is_ok() {
            return Ok(());
        }
    }
    Err(anyhow!("{server}: no answer to {TRIES} datagrams"))
}

/// An echo with an identifier of its own, repeated each second until one is answered.
fn ping(node: &Node, ip: IpAddr) -> Result<()> {
    let mut command = node.command("ping");
    let limit = (ANSWER_MAX * TRIES as u32).as_secs().to_string();
    command.args(["-n", "-q", "-c", "1", "-w", &limit, &ip.to_string()]);
    let status = command.stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{ip}: no answer");
    Ok(())
}

/// Files over one control connection, which is opened again when something has failed.
struct Files {
    node: Node,
    ip: IpAddr,
    way: Way,
    client: Option<Client>,
}

impl Files {
    fn new(node: &Node, ip: IpAddr, way: Way) -> Files {
        Files {
            node: node.clone(),
            ip,
            way,
            client: None,
        }
    }

    fn retrieve(&mut self) -> Result<()> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::open(&self.node, &self.ip.to_string(), self.way)?,
        };
        client.agree()?;
        client.retrieve()?;
        self.client = Some(client);
        Ok(())
    }
}
