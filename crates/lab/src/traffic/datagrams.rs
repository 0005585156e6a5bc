//! Many UDP flows, one datagram each, or none.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::node::Node;
use crate::topology::{Lab, Options};

/// Flows of one socket: destination ports 1024 and above.
const PER_SOCKET: usize = 50_000;

/// A laboratory whose firewalls pass such flows, fast, and remember them for ten minutes.
pub fn lab() -> Result<Lab> {
    let lab = Lab::build(Options {
        datagrams: true,
        no_snat: true,
        ..Options::default()
    })?;
    for fw in &lab.fw {
        fw.sysctl("net/netfilter/nf_conntrack_udp_timeout", "600")?;
        // Logging every packet would take longer than forwarding it.
        fw.run("iptables -D FORWARD -j LOG")?;
    }
    // B answers nothing: each flow is one datagram.
    lab.b.run("iptables -P INPUT DROP")?;
    Ok(lab)
}

/// Sends `count` datagrams from `node` to as many ports of `server`, at most 30 000 a
/// second, so that each makes a flow and no queue of the kernel is too short.
pub fn send(node: &Node, server: &str, count: usize) -> Result<()> {
    let server = server.parse()?;
    node.inside(move || -> Result<()> {
        let mut socket = UdpSocket::bind("0.0.0.0:0")?;
        for n in 0..count {
            if n > 0 && n % PER_SOCKET == 0 {
                socket = UdpSocket::bind("0.0.0.0:0")?;
            }
            let port = 1024 + (n % PER_SOCKET) as u16;
            // An earlier datagram's ICMP answer is reported here once; it was sent.
            let to = SocketAddr::new(server, port);
            if socket.send_to(b"x", to).is_err() {
                socket.send_to(b"x", to)?;
            }
            if n % 30 == 29 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    })?
}

/// Puts `count` flows of ten minutes to port 9 into a machine's table, without a datagram.
/// `dir` is for the file that `conntrack -R` reads.
pub fn create(node: &Node, dir: &Path, count: usize) -> Result<()> {
    let line = |n: usize| {
        format!(
            "-I -p udp -s 10.9.{}.{} -d 10.8.0.1 --sport {} --dport 9 -t 600 -u SEEN_REPLY\n",
            n >> 8 & 255,
            n & 255,
            1000 + n % 30_000
        )
    };
    let file = dir.join("flows");
    std::fs::write(&file, (0..count).map(line).collect::<String>())?;
    node.run(&format!("conntrack -R {}", file.display()))?;
    Ok(())
}
