//! Operators: commands at any moment, and the scripts in which commands wait for each other.

use flow::Flow;
use replica::{Command, CommandId, Mode, Objects, Which};

use crate::kept::Subject;
use crate::plan::Fault;

use super::World;
use super::node::Core;

impl World {
    pub(super) fn operate(&mut self) {
        if self.plan.has(Fault::Operator) && self.operator.chance(0.003) {
            let n = self.operator.below(self.nodes.len() as u64) as usize;
            let scripts: [&[Command]; 6] = [
                &[Command::Commit(Objects::All)],
                &[Command::Commit(Objects::All), Command::Commit(Objects::All)],
                // Whoever empties the external cache asks for it again.
                &[Command::FlushExternal, Command::RequestResync],
                &[Command::Resync(Objects::All)],
                &[Command::Bulk, Command::Bulk],
                &[Command::RequestResync],
            ];
            let script = *self.operator.pick(&scripts);
            self.script(n, script);
        }
    }

    pub(super) fn script(&mut self, n: usize, commands: &[Command]) {
        self.trace.line(self.now, format_args!("{n}: {commands:?}"));
        self.may_hold_more |= self.is_safety;
        if !self.nodes[n].is_dead {
            self.nodes[n].script.extend(commands);
        }
    }

    pub(super) fn next_command(&mut self, n: usize) {
        while self.nodes[n].waits_for.is_none()
            && let Some(command) = self.nodes[n].script.pop_front()
        {
            self.commands += 1;
            for load in &mut self.loads {
                load.commands += 1;
            }
            let id = CommandId(self.commands);
            if matches!(
                command,
                Command::Resync(_) | Command::Commit(_) | Command::Bulk
            ) {
                self.claims(n);
            }
            if matches!(command, Command::FlushCaches | Command::FlushExternal) {
                self.truth.on_flush(n);
                self.was_emptied = true;
            }
            match command {
                Command::FlushExternal => self.kept.on_flush(n),
                Command::FlushCaches => {
                    let node = &self.nodes[n];
                    let flows = node.external(|_| true).into_keys();
                    let flows = flows.filter(|key| node.kernel.get(key).is_none());
                    let all = node.expectations(Which::External, |_| true).into_keys();
                    // In the kernel of a replica that is primary beside the primary they end
                    // with its scheduled flush: that is sooner here than its request is answered.
                    let may_be_beside = self.plan.has(Fault::Beside) && n != self.primary;
                    let expectations =
                        all.filter(|key| may_be_beside || node.kernel.expectation(key).is_none());
                    let lost = flows.map(Subject::Flow);
                    let lost: Vec<_> = lost.chain(expectations.map(Subject::Expectation)).collect();
                    self.kept.on_scripted_flush(n, &lost);
                }
                _ => {}
            }
            if matches!(command, Command::FlushCaches | Command::FlushInternal) {
                self.may_hold_more = true;
            }
            let node = &mut self.nodes[n];
            if matches!(command, Command::Resync(_)) {
                node.on_resync();
            }
            match &mut node.core {
                Core::Ours(replica) => {
                    replica.handle_command(self.now, id, command);
                    node.waits_for = Some(id);
                }
                Core::Original(original) => {
                    original.handle_command(self.now, command, &mut node.kernel);
                }
            }
            // A committed flow sees packets again where it now is.
            if command == Command::FlushCaches && self.primary == n && !self.plan.spread {
                let flows = node.kernel.flows(self.now);
                // No packets come for a copy of what had ended before.
                for flow in flows.iter().filter(|f| !self.over.contains(&f.key())) {
                    self.kept.on_born(flow);
                    self.lives.insert(flow.key(), n);
                }
                for e in &node.kernel.expectations(self.now) {
                    self.kept.on_born(e);
                }
            }
        }
    }

    /// Replica `n` makes what it has its own.
    pub(super) fn claims(&mut self, n: usize) {
        let node = &self.nodes[n];
        let held = node.kernel.flows(self.now);
        let held = held.iter().map(Flow::key);
        let keys = held.chain(node.external(|_| true).into_keys());
        self.truth.on_claim(n, keys);
    }

    /// All replicas get everything from each other.
    pub(super) fn ask_for_all(&mut self) {
        let command = match self.plan.mode {
            Mode::Ftfw => Command::RequestResync,
            _ => Command::Bulk,
        };
        for n in 0..self.nodes.len() {
            self.script(n, &[command]);
        }
    }
}
