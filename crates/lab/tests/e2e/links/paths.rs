//! Several dedicated links, of which some fail.

use super::*;

pub(super) const TWO_UDP: &str = "
UDP Default {
    IPv4_address 10.77.9.OWN
    IPv4_Destination_Address 10.77.9.PEER
    Port 3780
    Interface eth2
}
UDP {
    IPv4_address 10.77.8.OWN
    IPv4_Destination_Address 10.77.8.PEER
    Port 3780
    Interface eth3
}";

pub(super) const TWO_TCP: &str = "
TCP Default {
    IPv4_address 10.77.9.OWN
    IPv4_Destination_Address 10.77.9.PEER
    Port 3780
    Interface eth2
}
TCP {
    IPv4_address 10.77.8.OWN
    IPv4_Destination_Address 10.77.8.PEER
    Port 3780
    Interface eth3
}";

/// As many as a file may have, of both families.
const FOUR: &str = "
UDP Default {
    IPv4_address 10.77.9.OWN
    IPv4_Destination_Address 10.77.9.PEER
    Port 3780
    Interface eth2
}
UDP {
    IPv6_address fd77:8::OWN
    IPv6_Destination_Address fd77:8::PEER
    Port 3781
    Interface eth3
}
UDP {
    IPv4_address 10.77.7.OWN
    IPv4_Destination_Address 10.77.7.PEER
    Port 3782
    Interface eth4
}
UDP {
    IPv6_address fd77:6::OWN
    IPv6_Destination_Address fd77:6::PEER
    Port 3783
    Interface eth5
}";

/// The control experiment: no second link.
pub(super) const ONE_UDP: &str = "
UDP {
    IPv4_address 10.77.9.OWN
    IPv4_Destination_Address 10.77.9.PEER
    Port 3780
    Interface eth2
}";

fn start(world: &World, kinds: [Kind; 2], blocks: &'static str) -> Result<Ends> {
    let lab = Lab::build(Options::default())?;
    lab.add_links(if blocks == FOUR { 4 } else { 2 })?;
    let settings = Settings {
        transport: Transport::Blocks(blocks),
        ..Settings::new(Mode::Ftfw)
    };
    let mut ends = Ends::start(world, lab, kinds, settings)?;
    for n in 0..2 {
        ends.make(n, 100)?;
    }
    ends.agree()?;
    Ok(ends)
}

/// True if a daemon sends over a link.
fn uses(daemon: &Daemon, device: &str) -> bool {
    let line = |l: &str| l.contains(&format!("device={device} ")) && l.contains("role=ACTIVE");
    daemon
        .ask(&["-s", "link"])
        .is_ok_and(|text| text.lines().any(line))
}

fn both_use(ends: &Ends, device: &str) -> Result<()> {
    for n in 0..2 {
        wait::until("the link is used", SETTLED, || {
            uses(&ends.daemons[n], device)
        })
        .with_context(|| format!("FW{}: {device}\n{}", n + 1, ends.shown(n)))?;
    }
    Ok(())
}

/// Goal: a link without a carrier is left, and not returned to by itself.
pub(super) fn down(world: &World, kinds: [Kind; 2], blocks: &'static str) -> Result<()> {
    let mut ends = start(world, kinds, blocks)?;
    both_use(&ends, "eth2")?;
    ends.lab.fw[0].run("ip link set eth2 down")?;
    both_use(&ends, "eth3")?;
    for n in 0..2 {
        ends.make(n, 100)?;
    }
    ends.agree()?;
    ends.lab.fw[0].run("ip link set eth2 up")?;
    std::thread::sleep(Duration::from_secs(3));
    both_use(&ends, "eth3")
}

/// Goal: a path that drops everything, or what comes from one side, is left by both, and they
/// stay together. Method: rules on one firewall, of these chains: from the second one what
/// FW1 sends is lost on the way, in its own OUTPUT the system refuses it. `is_left`:
/// conntrackd never leaves it.
pub(super) fn broken(
    world: &World,
    kinds: [Kind; 2],
    on: usize,
    chains: &[&str],
    is_left: bool,
) -> Result<()> {
    let mut ends = start(world, kinds, TWO_UDP)?;
    both_use(&ends, "eth2")?;
    for chain in chains {
        let device = if *chain == "INPUT" { "-i" } else { "-o" };
        ends.lab.fw[on].run(&format!("iptables -I {chain} {device} eth2 -j DROP"))?;
    }
    for n in 0..2 {
        ends.make(n, 100)?;
    }
    if !is_left {
        std::thread::sleep(SETTLED);
        both_use(&ends, "eth2")?;
        ensure!(ends.holds(1).is_err(), "nothing passes");
        return Ok(());
    }
    both_use(&ends, "eth3")?;
    ends.agree()?;
    for _ in 0..10 {
        std::thread::sleep(Duration::from_secs(1));
        for (n, daemon) in ends.daemons.iter().enumerate() {
            ensure!(uses(daemon, "eth3"), "FW{}: {}", n + 1, ends.shown(n));
        }
    }
    Ok(())
}

/// Goal: while the system of FW1 refuses to send to the port of the first link, a pair of ours
/// with a second link agrees over that one; a pair without loses nothing, and agrees as soon as
/// the system sends again. Method: a rule in FW1's OUTPUT, under which flows begin and end.
pub(super) fn refused(world: &World, blocks: &'static str) -> Result<()> {
    let mut ends = start(world, [Kind::Ftfw; 2], blocks)?;
    both_use(&ends, "eth2")?;
    let rule = "OUTPUT -o eth2 -p udp --dport 3780 -j DROP";
    ends.lab.fw[0].run(&format!("iptables -I {rule}"))?;
    for n in 0..2 {
        ends.make(n, 100)?;
        ends.end(n, 0..30)?;
    }
    if blocks == ONE_UDP {
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(100));
            let known = ends.daemons[1].external("src=10.1.0.1 ")?.len();
            ensure!(known == 100, "{known} instead of those of before");
        }
    } else {
        both_use(&ends, "eth3")?;
        ends.agree().context("over the second link")?;
    }
    ensure!(errors_sent(&ends.daemons[0])? > 0, "{}", ends.shown(0));
    ends.lab.fw[0].run(&format!("iptables -D {rule}"))?;
    ends.agree().context("without the rule")?;
    for n in 0..2 {
        ends.make(n, 50)?;
        ends.end(n, 30..60)?;
    }
    ends.agree().context("after more flows")?;
    if blocks == TWO_UDP {
        // The first link is as good as before.
        ends.lab.fw[0].run("ip link set eth3 down")?;
        both_use(&ends, "eth2")?;
        for n in 0..2 {
            ends.make(n, 50)?;
        }
        ends.agree().context("over the first link again")?;
    }
    Ok(())
}

/// Datagrams that the system has refused to send over the first link.
fn errors_sent(daemon: &Daemon) -> Result<u64> {
    let text = daemon.ask(&["-s", "link"])?;
    let line = text.lines().find(|l| l.contains("Error send"));
    let number = line.and_then(|l| l.split_whitespace().next());
    Ok(number.context("no line with errors")?.parse()?)
}

/// Goal: of four links one that has a carrier is used, the same by both, and the pair agrees
/// after each change.
pub(super) fn four(world: &World, kinds: [Kind; 2]) -> Result<()> {
    let mut ends = start(world, kinds, FOUR)?;
    let links = ["eth2", "eth3", "eth4", "eth5"];
    for pair in links.windows(2) {
        both_use(&ends, pair[0])?;
        ends.lab.fw[0].run(&format!("ip link set {} down", pair[0]))?;
        both_use(&ends, pair[1])?;
        for n in 0..2 {
            ends.make(n, 50)?;
        }
        ends.agree().with_context(|| format!("over {}", pair[1]))?;
    }
    // Of IPv4: a link that goes down loses its addresses of IPv6.
    ends.lab.fw[0].run("ip link set eth2 up")?;
    wait_carrier(&ends, "eth2")?;
    ends.lab.fw[1].run("ip link set eth5 down")?;
    both_use(&ends, "eth2")?;
    for n in 0..2 {
        ends.make(n, 50)?;
    }
    ends.agree().context("back over eth2")
}

/// Waits until both daemons see that a link has a carrier.
fn wait_carrier(ends: &Ends, device: &str) -> Result<()> {
    for daemon in &ends.daemons {
        let is_up = |l: &str| l.contains(&format!("device={device} ")) && l.contains("RUNNING");
        wait::until("the link has a carrier", SETTLED, || {
            let shown = daemon.ask(&["-s", "link"]);
            shown.is_ok_and(|text| text.lines().any(is_up))
        })?;
    }
    Ok(())
}
