//! As much of FTP (RFC 959, RFC 2428) as makes the kernel's helper predict data
//! connections: one file, retrieved actively or passively.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::node::Node;

/// Port of control connections.
pub const PORT: u16 = 21;
/// The longest that an answer, or a data connection, may take.
const LIMIT: Duration = Duration::from_secs(8);
const FILE_BYTES: usize = 100_000;

/// The file: bytes that differ by position.
fn file() -> Vec<u8> {
    (0..FILE_BYTES).map(|n| ((n * n) >> 3) as u8).collect()
}

/// Starts a server on `node` that runs until the test ends.
pub fn serve(node: &Node, ip: &str) -> Result<()> {
    let address = SocketAddr::new(ip.parse()?, PORT);
    let listener = node.inside(move || TcpListener::bind(address))??;
    let node = node.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Data connections are made from inside the machine, too.
            drop(node.thread(move || talk(stream)));
        }
    });
    Ok(())
}

/// Where the next file goes.
enum Data {
    Active(SocketAddr),
    Passive(TcpListener),
}

fn talk(stream: TcpStream) -> Result<()> {
    let local = stream.local_addr()?;
    let mut out = stream.try_clone()?;
    let mut data = None;
    say(&mut out, "220 ready")?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "PORT" => {
                data = Some(Data::Active(from_port(argument)?));
                say(&mut out, "200 ok")?;
            }
            "EPRT" => {
                data = Some(Data::Active(from_eprt(argument)?));
                say(&mut out, "200 ok")?;
            }
            "PASV" | "EPSV" => {
                let listener = TcpListener::bind((local.ip(), 0))?;
                let address = listener.local_addr()?;
                if command == "PASV" {
                    say(
                        &mut out,
                        &format!("227 Entering Passive Mode ({}).", to_port(address)?),
                    )?;
                } else {
                    let port = address.port();
                    say(
                        &mut out,
                        &format!("229 Entering Extended Passive Mode (|||{port}|)"),
                    )?;
                }
                data = Some(Data::Passive(listener));
            }
            "RETR" => {
                say(&mut out, "150 here it comes")?;
                let mut stream = match data.take().context("RETR without a place")? {
                    Data::Active(to) => TcpStream::connect_timeout(&to, LIMIT)?,
                    Data::Passive(listener) => accept(&listener)?,
                };
                stream.set_write_timeout(Some(LIMIT))?;
                stream.write_all(&file())?;
                drop(stream);
                say(&mut out, "226 done")?;
            }
            _ => say(&mut out, "200 ok")?,
        }
    }
    Ok(())
}

/// In one segment: the helper does not put answers together.
fn say(out: &mut TcpStream, line: &str) -> Result<()> {
    out.write_all(format!("{line}\r\n").as_bytes())?;
    Ok(())
}

/// `h1,h2,h3,h4,p1,p2`
fn to_port(address: SocketAddr) -> Result<String> {
    let IpAddr::V4(ip) = address.ip() else {
        bail!("{address} does not fit into PORT");
    };
    let [a, b, c, d] = ip.octets();
    let [high, low] = address.port().to_be_bytes();
    Ok(format!("{a},{b},{c},{d},{high},{low}"))
}

fn from_port(text: &str) -> Result<SocketAddr> {
    let bytes: Vec<u8> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let [a, b, c, d, high, low] = bytes[..] else {
        bail!("{text} is no argument of PORT");
    };
    Ok(SocketAddr::from((
        [a, b, c, d],
        u16::from_be_bytes([high, low]),
    )))
}

/// `|2|address|port|`
fn from_eprt(text: &str) -> Result<SocketAddr> {
    let parts: Vec<&str> = text.split('|').collect();
    let [_, _, ip, port, _] = parts[..] else {
        bail!("{text} is no argument of EPRT");
    };
    Ok(SocketAddr::new(ip.parse()?, port.parse()?))
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + LIMIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
            Err(e) => return Err(e).context("no data connection came"),
        }
    }
}

/// Who opens the data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The server: PORT, EPRT.
    Active,
    /// The client: PASV, EPSV.
    Passive,
}

/// A client's control connection.
#[derive(Debug)]
pub struct Client {
    node: Node,
    control: BufReader<TcpStream>,
    way: Way,
    agreed: Option<Agreed>,
}

/// What has been agreed on for the next file.
#[derive(Debug)]
enum Agreed {
    Active(TcpListener),
    Passive(SocketAddr),
}

impl Client {
    /// Opens a control connection.
    pub fn open(node: &Node, ip: &str, way: Way) -> Result<Client> {
        let server = SocketAddr::new(ip.parse()?, PORT);
        let stream = node.inside(move || TcpStream::connect_timeout(&server, LIMIT))??;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut client = Client {
            node: node.clone(),
            control: BufReader::new(stream),
            way,
            agreed: None,
        };
        client.answer("220")?;
        client.ask("NOOP", "200")?;
        Ok(client)
    }

    fn answer(&mut self, code: &str) -> Result<String> {
        let mut line = String::new();
        self.control.read_line(&mut line).context("no answer")?;
        ensure!(line.starts_with(code), "{line:?} instead of {code}");
        Ok(line)
    }

    fn ask(&mut self, command: &str, code: &str) -> Result<String> {
        say(self.control.get_mut(), command)?;
        self.answer(code)
    }

    /// Agrees on the next data connection: from now on the kernel predicts it.
    pub fn agree(&mut self) -> Result<()> {
        let local = self.control.get_ref().local_addr()?;
        let server = self.control.get_ref().peer_addr()?;
        self.agreed = Some(if self.way == Way::Active {
            let ip = local.ip();
            let listener = self.node.inside(move || TcpListener::bind((ip, 0)))??;
            let here = listener.local_addr()?;
            if ip.is_ipv4() {
                self.ask(&format!("PORT {}", to_port(here)?), "200")?;
            } else {
                self.ask(&format!("EPRT |2|{ip}|{}|", here.port()), "200")?;
            }
            Agreed::Active(listener)
        } else if server.is_ipv4() {
            let line = self.ask("PASV", "227")?;
            let inner = line.split(['(', ')']).nth(1).context("no address")?;
            Agreed::Passive(from_port(inner)?)
        } else {
            let line = self.ask("EPSV", "229")?;
            let port = line.split('|').nth(3).context("no port")?;
            Agreed::Passive(SocketAddr::new(server.ip(), port.parse()?))
        });
        Ok(())
    }

    /// Retrieves the file over the data connection that has been agreed on.
    pub fn retrieve(&mut self) -> Result<()> {
        self.ask("RETR file", "150")?;
        let mut stream = match self.agreed.take().context("nothing agreed on")? {
            Agreed::Active(listener) => accept(&listener)?,
            Agreed::Passive(to) => {
                let connect = move || TcpStream::connect_timeout(&to, LIMIT);
                self.node.inside(connect)?.context("data connection")?
            }
        };
        stream.set_read_timeout(Some(LIMIT))?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).context("the file")?;
        ensure!(bytes == file(), "{} bytes came, or wrong ones", bytes.len());
        self.answer("226")?;
        Ok(())
    }
}
