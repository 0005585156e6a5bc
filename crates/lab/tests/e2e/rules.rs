//! `ftfw rules`: what the printed rules do in the kernel.

use std::net::UdpSocket;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings, Transport};
use lab::node::{Node, Process};
use lab::topology::{Lab, Options, SERVER};
use lab::traffic::bulk::Transfer;
use lab::traffic::ftp::{self, Client, Way};
use lab::wait;
use lab::world::World;
use serde_json::Value;

use crate::Scenario;
use crate::pair::{PORT, Pair, SOON, address};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("rules/loading_twice_changes_nothing_else", loading),
    ("rules/link_udp", |w| link(w, Transport::Udp)),
    ("rules/link_udp6", |w| link(w, Transport::Udp6)),
    ("rules/link_tcp", |w| link(w, Transport::Tcp)),
    ("rules/link_tcp6", |w| link(w, Transport::Tcp6)),
    ("rules/link_multicast", |w| link(w, Transport::Multicast)),
    ("rules/link_multicast6", |w| link(w, Transport::Multicast6)),
    ("rules/a_forged_datagram_from_elsewhere_is_dropped", forged),
    ("rules/events_are_fewer_and_flows_complete", events),
    ("rules/events_keep_helpers_labels_and_predictions", kept),
    ("rules/the_static_gate_sends_no_reset", |w| {
        static_gate(w, "0", true)
    }),
    ("rules/the_static_gate_sends_no_reset_though_loose", |w| {
        static_gate(w, "1", true)
    }),
    ("rules/without_the_gate_there_is_a_reset", |w| {
        static_gate(w, "0", false)
    }),
    (
        "rules/without_the_gate_there_is_a_reset_though_loose",
        |w| static_gate(w, "1", false),
    ),
];

const COUNT: usize = 20;
/// How long the daemon may take to find a flow that made no event.
const FOUND: Duration = Duration::from_secs(40);

/// Prints rules for a firewall's configuration and loads them there.
fn load(daemon: &Daemon, node: &Node, words: &[&str]) -> Result<String> {
    let text = daemon.own(&[&["rules"], words].concat())?;
    node.run_with_input("nft -c -f -", Some(&text))?;
    node.run_with_input("nft -f -", Some(&text))?;
    Ok(text)
}

/// Goal: the text of every kind of link loads, twice with the same result, and leaves other
/// tables alone.
fn loading(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let fw = &lab.fw[0];
    let others = || -> Result<String> {
        let tables = fw.run("nft list tables")?;
        let foreign = tables.lines().filter(|t| !t.contains("ftfw_"));
        foreign
            .map(|t| fw.run(&format!("nft -s list {t}")))
            .collect()
    };
    let before = others()?;
    ensure!(before.contains("chain INPUT"), "{before}");
    for transport in [
        Transport::Udp,
        Transport::Udp6,
        Transport::Tcp,
        Transport::Tcp6,
        Transport::Multicast,
        Transport::Multicast6,
    ] {
        let settings = Settings {
            transport,
            ..Settings::new(Mode::Ftfw)
        };
        let config = Daemon::configure(fw, 0, &settings, world.dir())?;
        let mut command = fw.command(Daemon::program()?);
        command.arg("-C").arg(&config);
        command.args(["rules", "link", "events", "static-gate"]);
        command.args(["--virtual", "192.168.1.100", "--virtual", "fd00:1::100"]);
        let out = command.output()?;
        ensure!(out.status.success(), "{out:?}");
        let text = String::from_utf8(out.stdout)?;
        fw.run_with_input("nft -c -f -", Some(&text))
            .with_context(|| text.clone())?;
        fw.run_with_input("nft -f -", Some(&text))?;
        let once = fw.run("nft -s list ruleset")?;
        fw.run_with_input("nft -f -", Some(&text))?;
        let twice = fw.run("nft -s list ruleset")?;
        ensure!(once == twice, "{once}\nis not\n{twice}");
        ensure!(twice.matches("table inet ftfw_").count() == 3, "{twice}");
        ensure!(before == others()?, "other tables have changed");
    }
    Ok(())
}

/// Flows of the dedicated link and of IGMP in a firewall's table.
fn own_flows(lab: &Lab, n: usize) -> Result<Vec<String>> {
    let mut all = lab.flows(n, "")?;
    all.extend(lab.flows(n, "-f ipv6")?);
    all.retain(|l| l.contains("port=3780 ") || l.starts_with("unknown  2 "));
    Ok(all)
}

/// The commands that the comments of a text contain, for the chains of iptables.
fn inserts(text: &str) -> Vec<String> {
    let commands = text.lines().filter_map(|l| l.strip_prefix("#     nft '"));
    let commands = commands.filter_map(|l| l.strip_suffix('\''));
    let input = commands.filter(|l| l.contains("filter input"));
    let here = |line: &str| {
        let is_v6 = line.contains("ip6") || line.contains("icmpv6");
        let family = if is_v6 { "ip6" } else { "ip" };
        line.replace("inet filter input", &format!("{family} filter INPUT"))
    };
    input.map(here).collect()
}

/// Goal: a pair replicates with the part `link`, and its own traffic is not tracked.
/// Method: the firewalls drop all input that no rule accepts, and nothing accepts the link;
/// then the printed commands are executed, and nothing else. Control: until then the pair does
/// not replicate, and its datagrams are tracked.
fn link(world: &World, transport: Transport) -> Result<()> {
    let settings = Settings {
        transport,
        ..Settings::new(Mode::Ftfw)
    };
    let pair = Pair::start(world, settings, Options::default())?;
    let tracked = || Ok::<_, anyhow::Error>([own_flows(&pair.lab, 0)?, own_flows(&pair.lab, 1)?]);
    wait::until("the link is tracked", SOON, || {
        tracked().is_ok_and(|t| t.iter().any(|l| !l.is_empty()))
    })?;
    for fw in &pair.lab.fw {
        for v in ["", "6"] {
            fw.run(&format!("ip{v}tables -D INPUT -i eth2 -j ACCEPT"))?;
        }
        // ICMP is accepted for all by the laboratory: neighbours and group members, too.
        fw.run("ip6tables -D INPUT -p ipv6-icmp -j ACCEPT")?;
        fw.run("ip -6 neigh flush dev eth2")?;
    }
    let mut open = pair.connect(SERVER, COUNT)?;
    let replicated = format!("dport={PORT} ");
    let without = pair.wait_external_for(&replicated, COUNT, Duration::from_secs(2));
    ensure!(without.is_err(), "the link works though nothing accepts it");

    for (n, fw) in pair.lab.fw.iter().enumerate() {
        let daemon = if n == 0 { &pair.fw1 } else { &pair.fw2 };
        let text = load(daemon, fw, &["link"])?;
        let inserts = inserts(&text);
        ensure!(!inserts.is_empty(), "{text}");
        for insert in inserts {
            fw.run_with_input("nft -f -", Some(&insert))
                .with_context(|| insert.clone())?;
        }
        fw.run("conntrack -D -p udp --orig-port-dst 3780").ok();
        fw.run("conntrack -D -f ipv6 -p udp --orig-port-dst 3780")
            .ok();
        fw.run("conntrack -D -p tcp --orig-port-dst 3780").ok();
        fw.run("conntrack -D -f ipv6 -p tcp --orig-port-dst 3780")
            .ok();
        fw.run("conntrack -D -p 2").ok();
    }
    pair.wait_external_for(&replicated, COUNT, Duration::from_secs(20))?;
    let mut more = pair.connect(SERVER, COUNT)?;
    pair.wait_external_for(&replicated, 2 * COUNT, Duration::from_secs(20))?;
    let still = tracked()?;
    ensure!(still.iter().all(Vec::is_empty), "tracked: {still:?}");
    ensure!(open.round(SOON) == COUNT && more.round(SOON) == COUNT);
    Ok(())
}

/// Goal: who is not on the link cannot send in the peer's name.
/// Method: A has the peer's address, and sends to FW1's link address by way of the inner
/// network. Control: without the rules the daemon reads it, and counts it as malformed.
fn forged(world: &World) -> Result<()> {
    let pair = Pair::start(world, Settings::new(Mode::Ftfw), Options::default())?;
    let (a, fw) = (&pair.lab.a, &pair.lab.fw[0]);
    // As if the operator's own rules accepted everything.
    fw.run("iptables -P INPUT ACCEPT")?;
    for device in ["all", "eth1"] {
        fw.sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0")?;
    }
    a.run("ip addr add 10.77.9.2/32 dev eth0")?;
    a.run("ip route add 10.77.9.1 via 192.168.0.11 src 10.77.9.2")?;
    let send = || {
        a.inside(|| {
            let socket = UdpSocket::bind("10.77.9.2:0")?;
            (0..10).try_for_each(|_| socket.send_to(b"forged", "10.77.9.1:3780").map(drop))
        })
    };
    let malformed = || -> Result<u64> {
        let row: Value = serde_json::from_str(&pair.fw1.own(&["status", "-o", "json"])?)?;
        row["malformed"].as_u64().context("a number")
    };
    send()??;
    wait::until("the daemon has read them", SOON, || {
        malformed().is_ok_and(|n| n == 10)
    })?;
    load(&pair.fw1, fw, &["link"])?;
    send()??;
    wait::until("the rule has dropped them", SOON, || {
        fw.run("nft list chain inet ftfw_link incoming")
            .is_ok_and(|t| t.contains("counter packets 10 "))
    })?;
    ensure!(malformed()? == 10, "the daemon has read forged datagrams");
    let _open = pair.connect(SERVER, COUNT)?;
    pair.wait_external(&format!("dport={PORT} "), COUNT)
}

/// What the kernel reports of TCP flows to some port, one line an event.
struct Listener {
    process: Process,
    path: std::path::PathBuf,
}

impl Listener {
    fn start(pair: &Pair, port: u16, name: &str) -> Result<Listener> {
        let path = pair.dir.join(name);
        let mut command = pair.lab.fw[0].command("conntrack");
        command.args(["-E", "-p", "tcp", "--orig-port-dst", &port.to_string()]);
        command.stdout(std::fs::File::create(&path)?);
        let child: Child = command.stderr(Stdio::null()).spawn()?;
        let listener = Listener {
            process: Process(child),
            path,
        };
        std::thread::sleep(Duration::from_millis(300));
        Ok(listener)
    }

    fn lines(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(&self.path)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn end(mut self) -> Result<Vec<String>> {
        std::thread::sleep(Duration::from_millis(300));
        self.process.kill();
        self.lines()
    }
}

/// Events of `COUNT` connections from the SYN to the end, and of as many SYN that nobody answers.
fn events_of_connections(pair: &Pair, name: &str) -> Result<[usize; 2]> {
    let listener = Listener::start(pair, PORT, name)?;
    let open = pair.connect(SERVER, COUNT)?;
    open.close();
    pair.wait_ended(0)?;
    let whole = listener.end()?;
    let destroyed = whole.iter().filter(|l| l.contains("[DESTROY]")).count();
    ensure!(destroyed == COUNT, "{destroyed} ends: {whole:?}");
    let listener = Listener::start(pair, 9, &format!("{name}-syn"))?;
    pair.lab.a.inside(|| {
        for _ in 0..COUNT {
            let _ = std::net::TcpStream::connect_timeout(
                &address(SERVER, 9),
                Duration::from_millis(20),
            );
        }
    })?;
    pair.lab.fw[0].run("conntrack -D -p tcp --orig-port-dst 9")?;
    Ok([whole.len(), listener.end()?.len()])
}

/// Goal: with the part `events` connections cost fewer events, and the peer still knows
/// everything that a takeover needs. The figures are printed. Control: the same without.
fn events(world: &World) -> Result<()> {
    let options = Options {
        translate_ports: true,
        mark: Some(7),
        ..Options::default()
    };
    let pair = Pair::start(world, Settings::new(Mode::Ftfw), options)?;
    pair.lab
        .b
        .run("iptables -A INPUT -p tcp --dport 9 -j DROP")?;
    pair.lab.forget_ended_soon(0)?;
    let before = events_of_connections(&pair, "before")?;
    for (daemon, fw) in [&pair.fw1, &pair.fw2].into_iter().zip(&pair.lab.fw) {
        load(daemon, fw, &["events"])?;
    }
    let after = events_of_connections(&pair, "after")?;
    println!("events of {COUNT} connections, of {COUNT} SYN: {before:?} before, {after:?} after");
    ensure!(
        before[0] >= 7 * COUNT && before[1] >= 2 * COUNT,
        "{before:?}"
    );
    ensure!(after[0] == 4 * COUNT && after[1] == 0, "{after:?}");

    let mut open = pair.connect(SERVER, COUNT)?;
    pair.wait_external(&format!("dport={PORT} "), COUNT)?;
    let rows = pair
        .fw2
        .own(&["flows", "external", &format!("dport={PORT}"), "-o", "json"])?;
    for row in rows.lines() {
        let flow: Value = serde_json::from_str(row)?;
        let port = flow["reply"]["dport"].as_u64().context("a port")?;
        let has = |bit: &str| {
            let mut bits = flow["status"].as_array().into_iter().flatten();
            bits.any(|b| b == bit)
        };
        ensure!(
            flow["state"] == "ESTABLISHED"
                && flow["mark"] == 7
                && flow["reply"]["dst"] == "192.168.1.100"
                && (40000..=50000).contains(&port)
                && has("ASSURED")
                && has("SRC_NAT"),
            "{row}"
        );
    }
    // Half-open connections make no event, but the daemon finds them when it looks.
    pair.lab.a.inside(|| {
        let half = Duration::from_millis(20);
        std::net::TcpStream::connect_timeout(&address(SERVER, 9), half).is_err()
    })?;
    wait::until("a half-open connection is found", FOUND, || {
        pair.fw1.internal("dport=9 ").is_ok_and(|l| l.len() == 1)
    })?;
    // The peer knows of a closing connection that it is closing.
    let mut closing = pair.connect(SERVER, COUNT)?;
    ensure!(closing.round(SOON) == COUNT);
    pair.wait_external(&format!("dport={PORT} "), 2 * COUNT)?;
    pair.lab.fw[0].sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "60")?;
    closing.close();
    wait::until("the peer knows of the FIN", SOON, || {
        pair.fw2
            .own(&["flows", "external", "state=ESTABLISHED", "--count"])
            .is_ok_and(|n| n.trim() == COUNT.to_string())
    })?;
    pair.lab.cut(0)?;
    pair.lab.take_addresses(1)?;
    pair.fw2.become_primary()?;
    ensure!(open.round(SOON) == COUNT, "a connection is lost");
    Ok(())
}

/// Goal: with the part `events` the peer learns the helper and the label of a connection, which
/// the kernel sets with its first packet, the data connection's master, and what is predicted.
fn kept(world: &World) -> Result<()> {
    let lab = Lab::build(Options {
        ftp: true,
        ..Options::default()
    })?;
    let settings = Settings {
        sync_lines: "Options { ExpectationSync { ftp } }".into(),
        ..Settings::new(Mode::Ftfw)
    };
    let start = |n: usize| -> Result<Daemon> {
        Daemon::start(Kind::Ftfw, &lab.fw[n], n, &settings, world.dir())?.context("no daemon")
    };
    let (fw1, fw2) = (start(0)?, start(1)?);
    for (daemon, fw) in [&fw1, &fw2].into_iter().zip(&lab.fw) {
        load(daemon, fw, &["events"])?;
        let label = "table inet labels {\nchain c {\ntype filter hook forward priority -5;\n\
                     tcp dport 21 ct state new ct label set 7\n}\n}\n";
        fw.run_with_input("nft -f -", Some(label))?;
    }
    ftp::serve(&lab.b, SERVER)?;
    let mut client = Client::open(&lab.a, SERVER, Way::Active)?;
    client.agree()?;
    client.retrieve()?;
    client.agree()?;
    let counted = |what: &[&str], wanted: &str| {
        let arguments = [what, &["--count"]].concat();
        wait::until(&format!("{what:?}"), SOON, || {
            fw2.own(&arguments).is_ok_and(|n| n.trim() == wanted)
        })
        .with_context(|| {
            fw2.own(&["flows", "external", "-o", "json"])
                .unwrap_or_default()
        })
    };
    counted(
        &["flows", "external", "dport=21", "helper=ftp", "label=7"],
        "1",
    )?;
    counted(&["expectations", "external", "helper=ftp"], "1")?;
    let rows = fw2.own(&["flows", "external", "dport!=21", "-o", "json"])?;
    ensure!(rows.contains("\"master\":{"), "the data connection: {rows}");
    lab.cut(0)?;
    lab.take_addresses(1)?;
    fw2.become_primary()?;
    client.retrieve().context("agreed on before")?;
    client.agree()?;
    client.retrieve()
}

/// RST that a firewall's own TCP has sent.
fn resets(node: &Node) -> Result<u64> {
    let text = node.run("cat /proc/net/snmp")?;
    let mut lines = text.lines().filter(|l| l.starts_with("Tcp:"));
    let (names, values) = (
        lines.next().context("names")?,
        lines.next().context("values")?,
    );
    let place = names.split_whitespace().position(|w| w == "OutRsts");
    let value = values.split_whitespace().nth(place.context("OutRsts")?);
    Ok(value.context("a value")?.parse()?)
}

/// Goal: a packet of a translated connection that the firewall does not know gets no RST.
/// Method: the flow is deleted during a download, with rules that accept all input, and with
/// both values of `tcp_loose`. The download goes on where the peer's flows are committed.
/// Control: without the gate the firewall answers the server with a RST.
fn static_gate(world: &World, loose: &str, gate: bool) -> Result<()> {
    let pair = Pair::start(world, Settings::new(Mode::Ftfw), Options::default())?;
    let fw = &pair.lab.fw[0];
    fw.sysctl("net/netfilter/nf_conntrack_tcp_loose", loose)?;
    fw.run("iptables -P INPUT ACCEPT")?;
    fw.run("iptables -D INPUT -m state --state INVALID -j DROP")?;
    if gate {
        load(
            &pair.fw1,
            fw,
            &["static-gate", "--virtual", "192.168.1.100"],
        )?;
    }
    let server = address(SERVER, 80);
    let pause = Duration::from_millis(20);
    let transfer = Transfer::start(&pair.lab.a, &pair.lab.b, server, 200, pause)?;
    wait::until("bytes flow", SOON, || transfer.progress().bytes > 0)?;
    pair.wait_external("dport=80 ", 1)?;
    let before = resets(fw)?;
    // The flow ends here and not at the peer, whose daemon stays cut off meanwhile.
    fw.run("ip link set eth2 down")?;
    fw.run("conntrack -D -p tcp --orig-port-dst 80")?;
    if !gate {
        return wait::until("the server gets a RST", SOON, || {
            resets(fw).is_ok_and(|n| n > before)
        });
    }
    let dropped = || fw.run("nft list chain inet ftfw_static_gate unknown");
    wait::until("the gate drops segments", SOON, || {
        dropped().is_ok_and(|t| {
            t.lines()
                .any(|l| l.contains("counter packets") && !l.contains("packets 0 "))
        })
    })?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(resets(fw)? == before, "a RST was sent");
    // The other firewall knows the flow.
    pair.lab.cut(0)?;
    pair.lab.take_addresses(1)?;
    pair.fw2.become_primary()?;
    ensure!(
        transfer.finish(Duration::from_secs(30)),
        "the download is lost"
    );
    Ok(())
}
