//! What befalls a mixed pair between its first flows and the next ones, and what must be true
//! right after it.

use super::*;

impl Run {
    pub(super) fn befall(&self, ends: &mut Ends) -> Result<()> {
        match self.trouble {
            Trouble::BothKilled => {
                ends.daemons.iter_mut().for_each(|d| d.kill());
                make(ends, 50)?;
                ends.begin(1)?;
                ends.begin(0)?;
                self.greet();
                ask_both(ends, "-n")
            }
            Trouble::Killed => {
                ends.daemons[0].kill();
                make(ends, 50)?;
                ends.begin(0)?;
                self.greet();
                ask_both(ends, "-n")
            }
            Trouble::Asked => {
                self.lose(ends)?;
                ask_both(ends, "-n")
            }
            Trouble::Bulk => {
                self.lose(ends)?;
                ask_both(ends, "-B")
            }
            Trouble::Purged if self.ours == 0 => self.purge_ours(ends),
            Trouble::Purged => self.purge_conntrackd(ends),
            Trouble::None
            | Trouble::Loss(_)
            | Trouble::Reordered
            | Trouble::Doubled
            | Trouble::Wrapped => Ok(()),
        }
    }

    /// NOTRACK repairs nothing by itself: flows begin and end while the link spoils what passes,
    /// and when it does so no longer, both daemons are asked. Ends are not repeated by any request,
    /// so each daemon first loses what it knows.
    pub(super) fn repair(&self, ends: &mut Ends, relay: &Relay) -> Result<()> {
        for n in 0..2 {
            ends.end(n, 0..30)?;
        }
        // Until what was sent has passed.
        thread::sleep(Duration::from_secs(1));
        relay.set(Faults::default());
        if self.trouble == Trouble::Loss(20) {
            let lost = relay
                .passed
                .each_ref()
                .map(|p| p.lost.load(Ordering::Relaxed));
            ensure!(lost.iter().all(|lost| *lost > 0), "{lost:?} were lost");
        }
        self.lose(ends)?;
        ask_both(ends, "-n")
    }

    /// Both daemons lose the flows of the other firewall.
    ///
    /// With injection these are in the kernel alone, and there another program deletes them: the
    /// original's own flush would take the flows of the firewall itself, too. Neither daemon
    /// announces these ends: an injected flow that has not changed since is not its own. An end
    /// that was announced would delete the live flow in the other kernel, and that is checked.
    fn lose(&self, ends: &Ends) -> Result<()> {
        for (n, daemon) in ends.daemons.iter().enumerate() {
            if self.external {
                daemon.ask(&["-f", "external"])?;
                let left = daemon.external("src=10.")?.len();
                // In ALARM some flows may have been repeated since.
                let most = if self.mode == Mode::Alarm { 50 } else { 0 };
                ensure!(left <= most, "{left} flows are left after a flush");
            } else {
                ends.delete_copies(n)?;
                ensure!(ends.in_kernel(n, 1 - n)? == 0, "they are deleted");
            }
        }
        if !self.external {
            thread::sleep(Duration::from_millis(500));
            for n in 0..2 {
                let mut wanted = [0; 2];
                wanted[n] = ends.live(n);
                kernel_has(ends, n, wanted).context("after deletes of copies")?;
            }
        }
        Ok(())
    }

    /// The scheduled flush of ours, on the first firewall: it spares the firewall's own flows, and
    /// copies that were injected or that nothing else there holds.
    fn purge_ours(&self, ends: &Ends) -> Result<()> {
        let [own, copies] = [ends.live(0), ends.live(1)];
        let daemon = &ends.daemons[0];
        let purge = |deleted: usize| -> Result<()> {
            daemon.ask(&["-t"])?;
            let spared = own + copies - deleted;
            let line = format!("{deleted} copies deleted, {spared} flows spared");
            wait::until(&line, SETTLED, || daemon.log().contains(&line))
                .with_context(|| daemon.log())?;
            kernel_has(ends, 0, [own, copies - deleted]).context("after the scheduled flush")
        };
        if !self.external {
            return purge(0);
        }
        daemon.ask(&["-c"])?;
        kernel_has(ends, 0, [own, copies]).context("after a commit")?;
        // In ALARM the peer repeats the flows before the time has passed.
        if self.mode != Mode::Alarm {
            daemon.ask(&["-f", "external"])?;
            purge(0).context("of copies that nothing else holds")?;
            daemon.ask(&["-n"])?;
            ends.holds(0)?;
        }
        purge(copies)
    }

    /// The scheduled flush of the original, on the first firewall: it deletes all flows in its
    /// kernel and announces none of these ends, so ours holds on to the flows of that firewall,
    /// also when it asks and gets none. Packets then make the flows again.
    fn purge_conntrackd(&self, ends: &Ends) -> Result<()> {
        let [lost, kept] = [ends.live(0), ends.live(1)];
        if self.external {
            ends.daemons[0].ask(&["-c"])?;
        }
        kernel_has(ends, 0, [lost, kept])?;
        ends.daemons[0].become_backup()?;
        kernel_has(ends, 0, [0, 0]).context("after the scheduled flush")?;
        ends.daemons[0].ask(&["-R"])?;
        ask_both(ends, "-n")?;
        ends.agree().context("after the scheduled flush")?;
        let copies = if self.external { 0 } else { lost };
        kernel_has(ends, 1, [copies, kept]).context("the other firewall")?;
        ends.make_again(0)
    }
}
