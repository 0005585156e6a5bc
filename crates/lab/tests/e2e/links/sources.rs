//! Datagrams whose source is not the configured peer.

use std::net::UdpSocket;

use lab::hostile;

use super::*;

/// A number of the status of one of ours.
pub(super) fn status(daemon: &Daemon, name: &str) -> Result<u64> {
    let text = daemon.own(&["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_str(&text)?;
    status[name].as_u64().context("a counter")
}

/// Goal: what a stranger sends beside a peer that lives is counted and not obeyed. Method: 20
/// flows from another address; `obeyed`: how many of them FW1 takes.
pub(super) fn stranger(world: &World, kind: Kind, obeyed: usize) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let mut ends = Ends::start(world, lab, [kind; 2], Settings::new(Mode::Ftfw))?;
    ends.make(1, 10)?;
    ends.agree()?;
    ends.lab.fw[1].run("ip addr add 10.77.9.77/24 dev eth2")?;
    let datagrams = hostile::flows_without_timeout(20)?;
    ends.lab.fw[1].inside(move || -> Result<()> {
        let socket = UdpSocket::bind("10.77.9.77:0")?;
        for datagram in datagrams {
            socket.send_to(&datagram, "10.77.9.1:3780")?;
        }
        Ok(())
    })??;
    if kind == Kind::Ftfw {
        wait::until("they are counted", SETTLED, || {
            status(&ends.daemons[0], "sources_unknown").is_ok_and(|n| n == 20)
        })?;
    }
    let known = |ends: &Ends| ends.daemons[0].external("src=").map_or(0, |l| l.len());
    let _ = wait::until("FW1 takes them", Duration::from_secs(2), || {
        known(&ends) == 10 + obeyed && obeyed > 0
    });
    ensure!(
        known(&ends) == 10 + obeyed,
        "FW1 knows {} flows",
        known(&ends)
    );
    if kind == Kind::Conntrackd {
        // The stranger's numbers are ahead: what the peer sends now is late to the original.
        return Ok(());
    }
    ends.make(1, 10)?;
    wait::until("the peer is still obeyed", SETTLED, || {
        known(&ends) == 20 + obeyed
    })
}

/// Goal: conntrackd, which sends unbound, is the peer though its host has two addresses and
/// the configured one is not the one that it sends from.
pub(super) fn two_addresses(world: &World) -> Result<()> {
    const BLOCKS: &str = "
UDP {
    IPv4_Destination_Address 10.77.9.PEERPEER
    Port 3780
    Interface eth2
}";
    let lab = Lab::build(Options::default())?;
    for (n, fw) in (1..).zip(&lab.fw) {
        fw.run(&format!("ip addr add 10.77.9.{n}{n}/24 dev eth2"))?;
    }
    let settings = Settings {
        transport: Transport::Blocks(BLOCKS),
        ..Settings::new(Mode::Ftfw)
    };
    let kinds = [Kind::Ftfw, Kind::Conntrackd];
    let mut ends = Ends::start(world, lab, kinds, settings)?;
    for n in 0..2 {
        ends.make(n, 100)?;
    }
    ends.agree()?;
    ends.restart(1)?;
    ends.daemons[1].ask(&["-n"])?;
    ends.make(1, 100)?;
    ends.agree()
}
