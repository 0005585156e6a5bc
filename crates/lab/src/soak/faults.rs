//! How each trouble is made, and undone.
//!
//! The dedicated link goes over a bridge between the firewalls, whose rules lose and double what
//! passes: neither kernel of a firewall knows of it.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::plan::Trouble;
use super::{Course, HEALED, HOLD, kernel_flows};
use crate::setups::primary_backup::{
    carrier, kill_daemon, start_daemon, start_keepalived, status, stop_keepalived, unheld,
    wait_primary,
};
use crate::topology::SERVER;
use crate::traffic::datagrams;

/// How long nothing passes in a direction.
const CUT: Duration = Duration::from_secs(3);
/// How long the link is down, or a daemon stopped.
const OUT: Duration = Duration::from_secs(2);
/// How long the other firewall is primary at least, once it is.
const AWAY: Duration = Duration::from_secs(1);
/// Flows whose events do not fit into the buffer that is too small.
const BURST: usize = 300;
/// The configuration with that buffer, on each firewall.
const SMALL: &str = "/etc/conntrackd/small.conf";
/// Where the gate is.
const GATE: &str = "ftfw_gate";
/// A daemon has seen by then what it was to see.
const SEEN: Duration = Duration::from_secs(5);

/// Lines of the shell that make the file with the buffer that is too small.
pub(super) fn small_buffer() -> String {
    format!(
        "sed 's/^General {{/&\\nNetlinkBufferSize 4096\\nNetlinkBufferSizeMaxGrowth 4096/' \
         conntrackd.conf >{SMALL}\n"
    )
}

/// Rules of the bridge, which count what they touch; they go when this is dropped.
struct Rules {
    /// Family and name of their table.
    table: &'static str,
}

impl Rules {
    /// Executes `rule` for what passes the bridge.
    fn passing(rule: &str) -> Result<Rules> {
        nft(&format!(
            "table bridge soak {{\nchain pass {{\n\
             type filter hook forward priority filter;\n{rule}\n}}\n}}\n"
        ))?;
        Ok(Rules {
            table: "bridge soak",
        })
    }

    /// A fifth of what each firewall sends over the link comes twice.
    fn doubling() -> Result<Rules> {
        let side = |from: usize, to: usize| {
            format!(
                "chain from{from} {{\n\
                 type filter hook ingress device \"fw{from}-sync\" priority filter;\n\
                 numgen random mod 100 < 20 counter dup to \"fw{to}-sync\"\n}}\n"
            )
        };
        nft(&format!(
            "table netdev soak {{\n{}{}}}\n",
            side(1, 2),
            side(2, 1)
        ))?;
        Ok(Rules {
            table: "netdev soak",
        })
    }

    /// They go, after they have touched something.
    fn end(self) -> Result<()> {
        let output = Command::new("nft")
            .args(["list", "table"])
            .args(self.table.split(' '))
            .output()
            .context("nft")?;
        let text = String::from_utf8(output.stdout)?;
        let counts = text.split("counter packets ").skip(1);
        let touched = counts.map(|rest| rest.split(' ').next().and_then(|n| n.parse::<u64>().ok()));
        let touched = touched.sum::<Option<u64>>().unwrap_or(0);
        ensure!(touched > 0, "the rules have touched nothing: {text}");
        Ok(())
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        // Without a complaint about the one that is not there.
        let _ = nft(
            "table bridge soak\ndelete table bridge soak\ntable netdev soak\ndelete table netdev soak\n",
        );
    }
}

/// Executes commands of nft between the machines.
fn nft(text: &str) -> Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped());
    let mut child = command.spawn().context("nft")?;
    let mut stdin = child.stdin.take().context("its input")?;
    stdin.write_all(text.as_bytes())?;
    drop(stdin);
    ensure!(child.wait()?.success(), "nft: {text}");
    Ok(())
}

impl Course<'_> {
    /// Makes a fault, waits as long as it lasts, and undoes it.
    pub(super) fn fault(&mut self, fault: Trouble) -> Result<()> {
        self.watch.note(fault);
        match fault {
            Trouble::Loss | Trouble::Duplicates => {
                let rules = spoil(fault)?;
                thread::sleep(HOLD);
                rules.end()?;
            }
            Trouble::CutFromFw1 => cut("fw1-sync")?,
            Trouble::CutFromFw2 => cut("fw2-sync")?,
            Trouble::LinkDown => {
                carrier("fw2-sync", false)?;
                thread::sleep(OUT);
                carrier("fw2-sync", true)?;
            }
            Trouble::PrimaryStopped => self.stopped(0, || thread::sleep(OUT))?,
            Trouble::BackupStopped => self.stopped(1, || thread::sleep(OUT))?,
            Trouble::PrimaryRestarted => self.restarted(0)?,
            Trouble::BackupRestarted => self.restarted(1)?,
            Trouble::BackupFlushed => self.flushed()?,
            Trouble::Overrun => self.overrun()?,
            Trouble::GateFlushed => {
                let backup = self.site.fw(1)?;
                backup.sh(&format!("nft delete table inet {GATE}"))?;
                self.site.wait("the gate is loaded again", HEALED, || {
                    backup.sh(&format!("nft list table inet {GATE}")).is_ok()
                })?;
            }
            Trouble::Planned
            | Trouble::CarrierLost
            | Trouble::DaemonKilled
            | Trouble::PowerLost => self.failover(fault)?,
        }
        Ok(())
    }

    /// A failover and the way back, with a fault of the link laid over it.
    pub(super) fn failover_over(&mut self, failover: Trouble, fault: Trouble) -> Result<()> {
        self.watch.note(fault);
        let rules = spoil(fault)?;
        self.fault(failover)?;
        rules.end()
    }

    /// Somebody empties the backup's table. With direct injection the peer's flows are in it again
    /// without anybody's help.
    fn flushed(&self) -> Result<()> {
        let (primary, backup) = (self.site.fw(0)?, self.site.fw(1)?);
        let all = kernel_flows(primary)?;
        backup.node().run("conntrack -F")?;
        let left = kernel_flows(backup)?;
        ensure!(left < all / 2, "{left} of {all} flows are left by a flush");
        if self.held == "kernel" {
            self.site
                .wait("the backup's table is full again", HEALED, || {
                    let is_back =
                        |there: u64| kernel_flows(primary).is_ok_and(|n| there > n / 10 * 9);
                    kernel_flows(backup).is_ok_and(is_back)
                })?;
        }
        Ok(())
    }

    fn failover(&mut self, failover: Trouble) -> Result<()> {
        match failover {
            Trouble::CarrierLost => carrier("fw1-in", false)?,
            Trouble::DaemonKilled => self.kill(0)?,
            Trouble::PowerLost => {
                self.look_at(0)?;
                self.site.power_off(0)?;
                self.watch.forget(0);
            }
            _ => stop_keepalived(&self.site, 0)?,
        }
        wait_primary(&self.site, 1).context("FW2 takes over")?;
        thread::sleep(AWAY);
        if matches!(failover, Trouble::Planned | Trouble::CarrierLost) {
            self.wait_ready().context("FW1 is ready to take over")?;
        }
        match failover {
            Trouble::CarrierLost => carrier("fw1-in", true)?,
            Trouble::DaemonKilled => start_daemon(self.site.fw(0)?)?,
            Trouble::PowerLost => self.site.power_on(0)?,
            _ => start_keepalived(&self.site, 0)?,
        }
        wait_primary(&self.site, 0).context("FW1 takes over again")
    }

    /// Waits until FW1 has what FW2 has, so that it may be primary again. One that has been
    /// started again is waited for by keepalived itself.
    fn wait_ready(&self) -> Result<()> {
        let (back, primary) = (self.site.fw(0)?, self.site.fw(1)?);
        self.site.wait("FW1 is ready", HEALED, || {
            // Of new flows a few are always on their way.
            let is_held = status(primary).is_ok_and(|status| {
                let should_hold = status["peer"]["should_hold"].as_u64().unwrap_or(0);
                unheld(&status).is_some_and(|n| n <= should_hold / 20)
            });
            is_held && back.sh("ftfw ready").is_ok()
        })
    }

    /// Does something while the daemon of firewall `n` is stopped.
    fn stopped(&self, n: usize, meanwhile: impl FnOnce()) -> Result<()> {
        let fw = self.site.fw(n)?;
        let pid = &status(fw)?["pid"];
        fw.sh(&format!("kill -STOP {pid}"))?;
        meanwhile();
        fw.sh(&format!("kill -CONT {pid}")).map(drop)
    }

    fn restarted(&mut self, n: usize) -> Result<()> {
        self.kill(n)?;
        start_daemon(self.site.fw(n)?)
    }

    /// Kills the daemon of firewall `n`, after a last look at its counters.
    fn kill(&mut self, n: usize) -> Result<()> {
        self.look_at(n)?;
        kill_daemon(self.site.fw(n)?)?;
        self.watch.forget(n);
        Ok(())
    }

    /// The primary's daemon runs with the buffer that is too small while a burst of flows begins.
    fn overrun(&mut self) -> Result<()> {
        self.kill(0)?;
        self.site.fw(0)?.sh(&format!("conntrackd -d -C {SMALL}"))?;
        wait_primary(&self.site, 0)?;
        let client = self.site.clients[0].clone();
        let mut sent = Ok(());
        // What it reads only later does not fit, however fast the machine is.
        self.stopped(0, || sent = datagrams::send(&client, SERVER, BURST))?;
        sent?;
        let begun = std::time::Instant::now();
        while self.watch.value(0, "ftfw_overruns_total") == 0 {
            ensure!(begun.elapsed() < SEEN, "{BURST} flows make no overrun");
            self.look_at(0)?;
        }
        self.restarted(0)
    }
}

fn spoil(fault: Trouble) -> Result<Rules> {
    match fault {
        // The same chain sees what passes inside and outside, which is not to be spoiled.
        Trouble::Loss => Rules::passing(
            "iifname { \"fw1-sync\", \"fw2-sync\" } numgen random mod 100 < 20 counter drop",
        ),
        _ => Rules::doubling(),
    }
}

/// Nothing arrives of what a firewall sends.
fn cut(port: &str) -> Result<()> {
    let rules = Rules::passing(&format!("iifname \"{port}\" counter drop"))?;
    thread::sleep(CUT);
    rules.end()
}
