//! What breaks: links, tables, daemons and machines, and how they come back.

use std::time::Duration;

use replica::LinkId;

use crate::host::Sockets;
use crate::plan::Fault;
use crate::random::Random;

use super::World;
use super::node::Core;

/// The longest that a link takes no datagrams: a queue has drained by then.
const BLOCKED_MAX: Duration = Duration::from_millis(300);

impl World {
    pub(super) fn break_things(&mut self) {
        let strength = self.plan.strength;
        let now = self.now;
        let nodes = self.nodes.len() as u64;
        let long = |random: &mut Random, secs| random.within(Duration::from_secs(secs));
        if self.plan.has(Fault::OneWay) && self.faults.chance(0.002 * strength) {
            let edge = *self.faults.pick(self.edges.all());
            let is_cut = !self.network.cut.remove(&edge);
            if is_cut {
                self.network.cut.insert(edge);
            }
            let what = format_args!("from {} to {} cut: {is_cut}", edge.from, edge.to);
            self.trace.line(now, what);
        }
        if self.plan.has(Fault::Flap) && self.faults.chance(0.002 * strength) {
            let down = !self.network.down[0];
            self.network.down[0] = down;
            self.link_state(0, !down);
        }
        if self.plan.has(Fault::Full) && self.faults.chance(0.002 * strength) {
            let n = self.faults.below(nodes) as usize;
            let is_full = !self.nodes[n].kernel.is_full;
            self.nodes[n].kernel.is_full = is_full;
            self.trace
                .line(now, format_args!("table of {n} full: {is_full}"));
        }
        if self.plan.has(Fault::Blocked) && self.faults.chance(0.005 * strength) {
            let n = self.faults.below(nodes) as usize;
            let until = now + self.faults.within(BLOCKED_MAX);
            self.nodes[n].blocked_until = until;
            self.trace.line(now, format_args!("links of {n} blocked"));
        }
        if self.plan.has(Fault::Overrun) {
            for node in &mut self.nodes {
                node.kernel.events_max = 200;
            }
        }
        for (fault, part) in [
            (Fault::Pause, 0.002),
            (Fault::Crash, 0.0007),
            (Fault::Reboot, 0.0003),
        ] {
            if !self.plan.has(fault) || !self.faults.chance(part * strength) {
                continue;
            }
            let n = self.faults.below(nodes) as usize;
            if self.nodes[n].back_at.is_some() {
                continue;
            }
            let back = now + long(&mut self.faults, 3);
            self.nodes[n].back_at = Some(back);
            self.trace.line(now, format_args!("{n}: {fault}"));
            if fault != Fault::Pause {
                self.kill(n, fault == Fault::Reboot);
            }
        }
    }

    fn link_state(&mut self, link: usize, usable: bool) {
        let now = self.now;
        self.trace
            .line(now, format_args!("link {link} usable: {usable}"));
        for node in &mut self.nodes {
            if let Core::Ours(replica) = &mut node.core {
                replica.handle_link(now, LinkId(link), usable);
            }
        }
    }

    pub(super) fn kill(&mut self, n: usize, reboot: bool) {
        self.may_hold_more = true;
        self.kept.on_death(n, reboot);
        let node = &mut self.nodes[n];
        node.is_dead = true;
        node.kernel.deaf = true;
        node.sockets = Sockets::default();
        node.script.clear();
        node.waits_for = None;
        node.claimed_at = None;
        if reboot {
            node.kernel = std::mem::take(&mut node.kernel).rebooted();
            node.kernel.deaf = true;
            self.lives.retain(|_, owner| *owner != n);
        }
    }

    pub(super) fn bring_back(&mut self) {
        for n in 0..self.nodes.len() {
            if self.nodes[n].back_at.is_none_or(|at| at > self.now) {
                continue;
            }
            self.nodes[n].back_at = None;
            if !std::mem::take(&mut self.nodes[n].is_dead) {
                continue;
            }
            let node = &mut self.nodes[n];
            node.run += 1;
            node.kernel.deaf = false;
            node.kernel.deaf_to_new = false;
            node.kernel.take_reports();
            node.core = Core::new(&self.plan, n, node.run, self.now, &node.kernel);
            self.truth.on_restart(n);
            self.trace.line(
                self.now,
                format_args!("{n}: back, run {}", self.nodes[n].run),
            );
            if self.network.down[0]
                && let Core::Ours(replica) = &mut self.nodes[n].core
            {
                replica.handle_link(self.now, LinkId(0), false);
            }
        }
    }

    /// Everything that was broken is whole again, and nothing more is broken.
    pub(super) fn heal(&mut self) {
        self.is_safety = false;
        self.trace.line(self.now, format_args!("healed"));
        self.network.heal();
        if std::mem::take(&mut self.network.down[0]) {
            self.link_state(0, true);
        }
        for node in &mut self.nodes {
            node.kernel.is_full = false;
            node.kernel.events_max = 0;
            node.blocked_until = self.now;
            if let Some(at) = &mut node.back_at {
                *at = self.now;
            }
        }
        self.bring_back();
        self.end_beside();
    }
}
