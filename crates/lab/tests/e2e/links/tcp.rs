//! Links over TCP.

use super::*;

fn is_connected(daemon: &Daemon) -> bool {
    let line = "TCP traffic (active device=eth2) server=connected client=connected:";
    daemon.ask(&["-s"]).is_ok_and(|text| text.contains(line))
}

fn wait_connected(ends: &Ends) -> Result<()> {
    for n in 0..2 {
        wait::until("both connections are there", SETTLED, || {
            is_connected(&ends.daemons[n])
        })
        .with_context(|| ends.shown(n))?;
    }
    Ok(())
}

/// Goal: what changes on either side is known on the other one, also after either was killed
/// and has started again.
pub(super) fn carries(
    world: &World,
    kinds: [Kind; 2],
    mode: Mode,
    transport: Transport,
) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let settings = Settings {
        transport,
        ..Settings::new(mode)
    };
    let mut ends = Ends::start(world, lab, kinds, settings)?;
    wait_connected(&ends)?;
    for n in 0..2 {
        ends.make(n, 200)?;
    }
    ends.agree()?;
    for n in 0..2 {
        ends.restart(n)?;
        wait_connected(&ends)?;
        // The original asks for nothing by itself, and forgets what was sent before.
        ends.daemons[n].ask(&["-n"])?;
        ends.daemons[n].ask(&["-B"])?;
        ends.agree()?;
        ends.make(n, 50)?;
        ends.make(1 - n, 50)?;
        ends.agree()?;
    }
    let malformed = |n: usize| ends.daemons[n].ask(&["-s", "network"]);
    for n in 0..2 {
        let text = malformed(n)?;
        let line = text.lines().find(|l| l.contains("Malformed messages"));
        ensure!(line.is_some_and(|l| l.ends_with(" 0")), "{text}");
    }
    Ok(())
}
