//! The reference scenario: A and B with two firewalls between them.
//!
//! ```text
//!          192.168.0.0/24                192.168.1.0/24
//!   A .0.3 ------+------ eth1 FW1 eth0 ------+------ B .1.2
//!                |            || eth2        |
//!                +------ eth1 FW2 eth0 ------+
//! ```
//!
//! Virtual gateway 192.168.0.100 inside and 192.168.1.100 outside; for IPv6
//! fd00:0::100 and fd00:1::100. The dedicated link is 10.77.9.1 to 10.77.9.2.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::node::Node;
use crate::wait;

/// Address of B, where the servers are.
pub const SERVER: &str = "192.168.1.2";
/// IPv6 address of B.
pub const SERVER6: &str = "fd00:1::2";
/// Outer virtual address, to which A is translated.
pub const OUTSIDE: &str = "192.168.1.100";
/// Port of the virtual outer address that is translated to a server on A.
pub const DNAT_PORT: u16 = 8080;

/// An idle link: fewer bytes than this in such a time, both directions.
const QUIET_BYTES: u64 = 2000;
const QUIET: Duration = Duration::from_secs(2);
/// How long it may take to become idle.
const QUIET_MAX: Duration = Duration::from_secs(30);

/// What a laboratory has beyond the scenario's own rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// No source NAT: B has a route back through the virtual gateway.
    pub no_snat: bool,
    /// Accept UDP and ICMP from inside too.
    pub datagrams: bool,
    /// Source NAT to ports 40000 to 50000 only, so that ports change too.
    pub translate_ports: bool,
    /// New connections from outside to the virtual address, port 8080, go to A.
    pub dnat: bool,
    /// Traffic from inside is tracked in this zone.
    pub zone: Option<u16>,
    /// The FTP helper watches port 21, the only one to which new connections from inside
    /// may be made; what it predicts may pass both ways.
    pub ftp: bool,
    /// Traffic from inside gets this connection mark.
    pub mark: Option<u32>,
}

/// The four machines.
#[derive(Clone, Debug)]
pub struct Lab {
    /// The client, inside.
    pub a: Node,
    /// The server, outside.
    pub b: Node,
    /// The two firewalls.
    pub fw: [Node; 2],
    options: Options,
}

impl Lab {
    /// Builds machines, wires and rules; FW1 holds the virtual addresses.
    pub fn build(options: Options) -> Result<Lab> {
        let lab = Lab {
            a: Node::new("a")?,
            b: Node::new("b")?,
            fw: [Node::new("fw1")?, Node::new("fw2")?],
            options,
        };
        hub("link add in type bridge")?;
        hub("link add out type bridge")?;
        hub("link set in up")?;
        hub("link set out up")?;
        wire(&lab.a, "eth0", "in")?;
        wire(&lab.b, "eth0", "out")?;
        for fw in &lab.fw {
            wire(fw, "eth1", "in")?;
            wire(fw, "eth0", "out")?;
        }
        hub("link add name eth2 netns fw1 type veth peer name eth2 netns fw2")?;

        address(&lab.a, "eth0", &["192.168.0.3/24", "fd00:0::3/64"])?;
        address(&lab.b, "eth0", &["192.168.1.2/24", "fd00:1::2/64"])?;
        lab.a.run("ip route add default via 192.168.0.100")?;
        lab.a.run("ip -6 route add default via fd00:0::100")?;
        if options.no_snat {
            lab.b.run("ip route add default via 192.168.1.100")?;
        }
        lab.b.run("ip -6 route add default via fd00:1::100")?;
        for (n, fw) in lab.fw.iter().enumerate() {
            firewall(fw, n, options)?;
        }
        lab.wait_link()?;
        lab.take_addresses(0)?;
        Ok(lab)
    }

    /// Dedicated links up to this number, beside the first one. The n-th is eth(n+1), with the
    /// networks 10.77.(10-n).0/24 and fd77:(10-n)::/64.
    pub fn add_links(&self, to: usize) -> Result<()> {
        (2..=to).try_for_each(|n| self.wire_link(n))
    }

    /// The first dedicated link again, after its interfaces have been deleted.
    pub fn renew_link(&self) -> Result<()> {
        self.wire_link(1)
    }

    fn wire_link(&self, number: usize) -> Result<()> {
        let (dev, net) = (format!("eth{}", number + 1), 10 - number);
        let [fw1, fw2] = self.fw.each_ref().map(Node::name);
        hub(&format!(
            "link add name {dev} netns {fw1} type veth peer name {dev} netns {fw2}"
        ))?;
        for (n, fw) in (1..).zip(&self.fw) {
            let addresses = [format!("10.77.{net}.{n}/24"), format!("fd77:{net}::{n}/64")];
            address(fw, &dev, &addresses.each_ref().map(String::as_str))?;
            if dev != "eth2" {
                fw.run(&format!("iptables -I INPUT -i {dev} -j ACCEPT"))?;
                fw.run(&format!("ip6tables -I INPUT -i {dev} -j ACCEPT"))?;
            }
        }
        for fw in &self.fw {
            wait::until("the link is up", Duration::from_secs(5), || {
                fw.run(&format!("ip link show dev {dev}"))
                    .is_ok_and(|text| text.contains("state UP"))
            })?;
        }
        Ok(())
    }

    /// Waits until the dedicated link is up at both ends. The kernel takes up to a second to
    /// see a new wire's carrier, and until then some of what is sent over it is lost, IPv6
    /// multicast first.
    fn wait_link(&self) -> Result<()> {
        for fw in &self.fw {
            wait::until("the dedicated link is up", Duration::from_secs(5), || {
                fw.run("ip link show dev eth2")
                    .is_ok_and(|text| text.contains("state UP"))
            })?;
        }
        Ok(())
    }

    /// Firewall `n`, whose daemon is dead, comes back with an empty table, as after a reboot:
    /// its wires move into a new namespace. It does not take the virtual addresses.
    pub fn reboot(&mut self, n: usize) -> Result<()> {
        let new = Node::new(&format!("{}-rebooted", self.fw[n].name()))?;
        for dev in ["eth0", "eth1", "eth2"] {
            self.fw[n].run(&format!("ip link set {dev} netns {}", new.name()))?;
        }
        hub(&format!("netns del {}", self.fw[n].name()))?;
        firewall(&new, n, self.options)?;
        self.fw[n] = new;
        self.wait_link()
    }

    /// Firewall `n` (0 or 1) takes the virtual addresses and announces them to its neighbours.
    pub fn take_addresses(&self, n: usize) -> Result<()> {
        let fw = &self.fw[n];
        for (dev, net) in [("eth0", 1), ("eth1", 0)] {
            fw.run(&format!("ip addr add 192.168.{net}.100/24 dev {dev}"))?;
            fw.run(&format!("ip addr add fd00:{net}::100/64 dev {dev} nodad"))?;
            // Gratuitous ARP. The packet is out at once, but arping then waits a second.
            let mut arping = fw.command("arping");
            arping.args([
                "-q",
                "-c",
                "1",
                "-U",
                "-I",
                dev,
                &format!("192.168.{net}.100"),
            ]);
            let mut child = arping.spawn()?;
            thread::spawn(move || child.wait());
        }
        // Nothing here sends unsolicited neighbour advertisements: forget instead.
        for host in [&self.a, &self.b] {
            host.run("ip -6 neigh flush dev eth0")?;
        }
        Ok(())
    }

    /// Firewall `n` gives the virtual addresses up in good order.
    pub fn drop_addresses(&self, n: usize) -> Result<()> {
        for (dev, net) in [("eth0", 1), ("eth1", 0)] {
            self.fw[n].run(&format!("ip addr del 192.168.{net}.100/24 dev {dev}"))?;
            self.fw[n].run(&format!("ip addr del fd00:{net}::100/64 dev {dev}"))?;
        }
        Ok(())
    }

    /// Takes all wires of firewall `n` away, as a power failure does.
    pub fn cut(&self, n: usize) -> Result<()> {
        for dev in ["eth0", "eth1", "eth2"] {
            self.fw[n].run(&format!("ip link set {dev} down"))?;
        }
        Ok(())
    }

    /// Rules as most people have them: nothing is refused, nothing is dropped because it is
    /// INVALID, and the kernel follows a connection from any segment on.
    pub fn open_rules(&self) -> Result<()> {
        for fw in &self.fw {
            for chain in ["INPUT", "FORWARD"] {
                fw.run(&format!("iptables -P {chain} ACCEPT"))?;
                fw.run(&format!("iptables -F {chain}"))?;
            }
            fw.sysctl("net/netfilter/nf_conntrack_tcp_loose", "1")?;
        }
        Ok(())
    }

    /// Number of entries in a firewall's kernel table for which the words of `filter` hold,
    /// as `conntrack -L` takes them, e.g. `-p tcp --dport 7`.
    pub fn count_flows(&self, n: usize, filter: &str) -> Result<usize> {
        Ok(self.flows(n, filter)?.len())
    }

    /// Entries of a firewall's kernel table without what differs between two tables
    /// of the same flows: timeouts, counters, use. Sorted.
    pub fn table(&self, n: usize, filter: &str) -> Result<Vec<String>> {
        let mut lines: Vec<String> = (self.flows(n, filter)?.iter())
            .map(|line| {
                let mut words: Vec<&str> = line.split_whitespace().collect();
                // Protocol, its number, timeout.
                words.remove(2);
                words.retain(|w| {
                    !["use=", "packets=", "bytes="]
                        .iter()
                        .any(|p| w.starts_with(p))
                });
                words.join(" ")
            })
            .collect();
        lines.sort();
        Ok(lines)
    }

    /// Bytes that a firewall has received and sent over the dedicated link, headers included.
    pub fn link_bytes(&self, n: usize) -> Result<[u64; 2]> {
        let fields = self.link_counters(n)?;
        Ok([fields[0], fields[8]])
    }

    /// Bytes and packets that a firewall has sent over the dedicated link.
    pub fn link_sent(&self, n: usize) -> Result<[u64; 2]> {
        let fields = self.link_counters(n)?;
        Ok([fields[8], fields[9]])
    }

    /// As `/proc/net/dev` has them: eight of what was received, eight of what was sent.
    fn link_counters(&self, n: usize) -> Result<Vec<u64>> {
        let text = self.fw[n].run("cat /proc/net/dev")?;
        let line = text.lines().find_map(|l| l.trim().strip_prefix("eth2:"));
        let fields = line.context("no eth2")?.split_whitespace();
        Ok(fields.map(str::parse).collect::<Result<_, _>>()?)
    }

    /// Waits until nothing but what keeps the peers alive has passed on the dedicated link
    /// for two seconds.
    pub fn wait_quiet(&self) -> Result<()> {
        let bytes = || Ok::<_, anyhow::Error>(self.link_bytes(0)?.iter().sum::<u64>());
        let (mut before, mut at) = (bytes()?, Instant::now());
        wait::until("the dedicated link is quiet", QUIET_MAX, || {
            if at.elapsed() < QUIET {
                return false;
            }
            let now = bytes().unwrap_or(u64::MAX);
            let passed = now.saturating_sub(before);
            (before, at) = (now, Instant::now());
            passed < QUIET_BYTES
        })
    }

    /// Ended TCP flows leave a firewall's table after a second.
    pub fn forget_ended_soon(&self, n: usize) -> Result<()> {
        for key in ["time_wait", "close", "last_ack", "fin_wait", "close_wait"] {
            let key = format!("net/netfilter/nf_conntrack_tcp_timeout_{key}");
            self.fw[n].sysctl(&key, "1")?;
        }
        Ok(())
    }

    /// Those entries, one line each.
    pub fn flows(&self, n: usize, filter: &str) -> Result<Vec<String>> {
        let text = self.fw[n].run(&format!("conntrack -L {filter}"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// `ip` in the namespace between the machines, which holds the bridges.
pub(crate) fn hub(words: &str) -> Result<()> {
    let out = Command::new("ip").args(words.split_whitespace()).output()?;
    anyhow::ensure!(
        out.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}

pub(crate) fn wire(node: &Node, dev: &str, bridge: &str) -> Result<()> {
    let port = format!("{}-{bridge}", node.name());
    hub(&format!(
        "link add {port} type veth peer name {dev} netns {}",
        node.name()
    ))?;
    hub(&format!("link set {port} master {bridge} up"))
}

pub(crate) fn address(node: &Node, dev: &str, addresses: &[&str]) -> Result<()> {
    for a in addresses {
        let nodad = if a.contains(':') { "nodad" } else { "" };
        node.run(&format!("ip addr add {a} dev {dev} {nodad}"))?;
    }
    node.run(&format!("ip link set {dev} up"))?;
    Ok(())
}

/// Addresses, forwarding and rules of firewall `n`.
fn firewall(fw: &Node, n: usize, options: Options) -> Result<()> {
    let n = n + 1;
    address(
        fw,
        "eth0",
        &[&format!("192.168.1.1{n}/24"), &format!("fd00:1::1{n}/64")],
    )?;
    address(
        fw,
        "eth1",
        &[&format!("192.168.0.1{n}/24"), &format!("fd00:0::1{n}/64")],
    )?;
    address(
        fw,
        "eth2",
        &[&format!("10.77.9.{n}/24"), &format!("fd77:9::{n}/64")],
    )?;
    fw.sysctl("net/ipv4/ip_forward", "1")?;
    fw.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    for v in ["", "6"] {
        let text = rules(options, v == "6");
        fw.run_with_input(&format!("ip{v}tables-restore"), Some(&text))?;
    }
    // After the rules: connection tracking is there only once they use it.
    fw.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")
}

/// The original's rules, as `iptables-restore` reads them.
///
/// INPUT drops what is INVALID and what is not meant for the firewall itself: a
/// segment from B to a virtual address that FW2 holds before it knows the flow
/// must never be answered with a RST.
fn rules(o: Options, v6: bool) -> String {
    let (inside, icmp) = if v6 {
        ("fd00:0::3", "ipv6-icmp")
    } else {
        ("192.168.0.3", "icmp")
    };
    let mut t = String::from("*filter\n:INPUT DROP\n:FORWARD DROP\n:OUTPUT ACCEPT\n");
    for rule in [
        "-A INPUT -i lo -j ACCEPT".to_owned(),
        "-A INPUT -i eth2 -j ACCEPT".to_owned(),
        "-A INPUT -m state --state INVALID -j DROP".to_owned(),
        format!("-A INPUT -p {icmp} -j ACCEPT"),
        "-A FORWARD -j LOG".to_owned(),
        "-A FORWARD -i eth0 -m state --state ESTABLISHED,RELATED -j ACCEPT".to_owned(),
        "-A FORWARD -i eth1 -p tcp --syn -m state --state NEW -j ACCEPT".to_owned(),
        "-A FORWARD -i eth1 -p tcp -m state --state ESTABLISHED -j ACCEPT".to_owned(),
    ] {
        t += &format!("{rule}\n");
    }
    if o.ftp {
        t = t.replace("-p tcp --syn -m state", "-p tcp --dport 21 --syn -m state");
        t += "-A FORWARD -i eth1 -m state --state RELATED -j ACCEPT\n";
    }
    if o.datagrams {
        t += "-N DATAGRAMS\n-A FORWARD -i eth1 -j DATAGRAMS\n";
        t += "-A DATAGRAMS -m state --state ESTABLISHED -j ACCEPT\n";
        t += "-A DATAGRAMS -p udp -m state --state NEW -j ACCEPT\n";
        t += &format!("-A DATAGRAMS -p {icmp} -m state --state NEW -j ACCEPT\n");
    }
    if o.dnat {
        t += "-A FORWARD -i eth0 -p tcp --syn -m conntrack --ctstate NEW,DNAT -j ACCEPT\n";
    }
    t += "COMMIT\n*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n";
    let outside = if v6 { "[fd00:1::100]" } else { OUTSIDE };
    let outside_plain = if v6 { "fd00:1::100" } else { OUTSIDE };
    if !o.no_snat {
        if o.translate_ports {
            for proto in ["tcp", "udp"] {
                t += &format!(
                    "-A POSTROUTING -s {inside} -p {proto} -j SNAT --to {outside}:40000-50000\n"
                );
            }
        }
        t += &format!("-A POSTROUTING -s {inside} -j SNAT --to {outside_plain}\n");
    }
    if o.dnat {
        let to = if v6 {
            "[fd00:0::3]:80"
        } else {
            "192.168.0.3:80"
        };
        t += &format!(
            "-A PREROUTING -i eth0 -d {outside_plain} -p tcp --dport {DNAT_PORT} -j DNAT --to {to}\n"
        );
    }
    t += "COMMIT\n";
    if o.zone.is_some() || o.ftp {
        t += "*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n";
        if let Some(zone) = o.zone {
            t += &format!("-A PREROUTING -i eth1 -j CT --zone {zone}\n");
            t += &format!("-A PREROUTING -i eth0 -j CT --zone {zone}\n");
        }
        if o.ftp {
            t += "-A PREROUTING -i eth1 -p tcp --dport 21 -j CT --helper ftp\n";
        }
        t += "COMMIT\n";
    }
    if let Some(mark) = o.mark {
        t += "*mangle\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n";
        t += &format!("-A FORWARD -i eth1 -m state --state NEW -j CONNMARK --set-mark {mark}\n");
        t += "COMMIT\n";
    }
    t
}
