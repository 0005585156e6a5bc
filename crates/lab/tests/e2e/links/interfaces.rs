//! Interfaces and addresses that come and go.

use super::*;

fn start(world: &World, lab: Lab, kinds: [Kind; 2], transport: Transport) -> Result<Ends> {
    let settings = Settings {
        transport,
        ..Settings::new(Mode::Ftfw)
    };
    Ends::start(world, lab, kinds, settings)
}

/// Goal: an interface that is deleted and made again, with another number, carries again.
pub(super) fn comes_back(world: &World, transport: Transport) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let mut ends = start(world, lab, [Kind::Ftfw; 2], transport)?;
    ends.make(0, 50)?;
    ends.make(1, 50)?;
    ends.agree()?;
    ends.lab.fw[0].run("ip link del eth2")?;
    for n in 0..2 {
        wait::until("the loss is seen", SETTLED, || {
            let text = ends.daemons[n].ask(&["-s", "link"]);
            text.is_ok_and(|t| t.contains("device=eth2 status=DOWN"))
        })?;
        ends.make(n, 50)?;
    }
    ends.lab.renew_link()?;
    ends.agree()
}

/// Goal: a daemon starts before its link has its address, and uses it when it is there.
pub(super) fn late_address(world: &World, transport: Transport, address: &str) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    lab.fw[0].run(&format!("ip addr del {address} dev eth2"))?;
    let mut ends = start(world, lab, [Kind::Ftfw; 2], transport)?;
    let log = ends.daemons[0].log();
    ensure!(log.contains("it is tried again"), "{log}");
    ends.make(0, 50)?;
    ends.make(1, 50)?;
    let nodad = if address.contains(':') { "nodad" } else { "" };
    ends.lab.fw[0].run(&format!("ip addr add {address} dev eth2 {nodad}"))?;
    ends.agree()
}

/// Goal: link-local addresses get their scope from `Interface`.
pub(super) fn link_local(world: &World) -> Result<()> {
    const BLOCKS: &str = "
UDP {
    IPv6_address fe80::9:OWN
    IPv6_Destination_Address fe80::9:PEER
    Port 3780
    Interface eth2
}";
    let lab = Lab::build(Options::default())?;
    for (n, fw) in (1..).zip(&lab.fw) {
        fw.run(&format!("ip addr add fe80::9:{n}/64 dev eth2 nodad"))?;
    }
    let kinds = [Kind::Ftfw, Kind::Conntrackd];
    let mut ends = start(world, lab, kinds, Transport::Blocks(BLOCKS))?;
    ends.make(0, 50)?;
    ends.make(1, 50)?;
    ends.agree()
}

/// Goal: ours and the original replicate over such a link.
pub(super) fn agrees(world: &World, transport: Transport) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let mut ends = start(world, lab, [Kind::Conntrackd, Kind::Ftfw], transport)?;
    ends.make(0, 50)?;
    ends.make(1, 50)?;
    ends.agree()
}

const CHECKSUM_ON: &str = "
UDP {
    IPv4_address 10.77.9.OWN
    IPv4_Destination_Address 10.77.9.PEER
    Port 3780
    Interface eth2
    Checksum on
}";
const CHECKSUM_OFF: &str = "
UDP {
    IPv4_address 10.77.9.OWN
    IPv4_Destination_Address 10.77.9.PEER
    Port 3780
    Interface eth2
    Checksum off
}";

/// Goal: `Checksum` decides whether datagrams have one, and nothing else. Method: FW2 counts those
/// that have none (0) and those that have one.
pub(super) fn checksums(world: &World, on: bool) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let fw2 = lab.fw[1].clone();
    // The checksum stands behind the length, in the second word of the header of UDP.
    for (n, checksum) in ["0", "1:0xffff"].into_iter().enumerate() {
        fw2.run(&format!(
            "iptables -I INPUT {} -p udp --dport 3780 -m u32 --u32 0>>22&0x3C@4&0xFFFF={checksum}",
            n + 1
        ))?;
    }
    let blocks = if on { CHECKSUM_ON } else { CHECKSUM_OFF };
    let transport = Transport::Blocks(blocks);
    let mut ends = start(world, lab, [Kind::Ftfw, Kind::Conntrackd], transport)?;
    for n in 0..2 {
        ends.make(n, 100)?;
    }
    ends.agree()?;
    let rules = fw2.run("iptables -L INPUT -v -x -n")?;
    let counted: Vec<u64> = (rules.lines().skip(2))
        .filter_map(|l| l.split_whitespace().next()?.parse().ok())
        .collect();
    ensure!(counted.len() >= 2, "{rules}");
    let (without, with) = (counted[0], counted[1]);
    ensure!((with > 0, without > 0) == (on, !on), "{rules}");
    Ok(())
}
