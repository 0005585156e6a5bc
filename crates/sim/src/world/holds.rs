//! What a replica must hold of the peer's live flows: at each step, when the primary
//! dies, and in the end after restarts that nobody repaired by a command.

use std::collections::BTreeMap;
use std::time::Duration;

use flow::{Flow, FlowKey};
use replica::{Command, Objects};
use wire::v1::{Control, ObjectKind, Verdict, decode_flow, messages, verdict};

use crate::check::{Check, Violation};
use crate::kept::Told;
use crate::network::Datagram;
use crate::plan::Fault;

use super::{Failure, Finished, World};

/// Time in which the backup must have committed after the primary's death.
const COMMIT_MAX: Duration = Duration::from_secs(10);

/// What is under way in the backup when its commit is over, shows within this time.
const AFTER_COMMIT: Duration = Duration::from_secs(1);

impl World {
    /// Replica `n` has sent a datagram.
    pub(super) fn note_sent(&mut self, n: usize, bytes: &[u8]) {
        for message in messages(bytes).flatten() {
            if let Verdict::Data(ObjectKind::Flow, kind) = verdict(self.plan.mode, &message.header)
                && let Ok(decoded) = decode_flow(message.body)
            {
                let flow = decoded.object;
                let is_own = self.lives.get(&flow.key()) == Some(&n);
                let seq = message.header.seq;
                self.kept.on_sent(self.now, n, kind, &flow, seq, is_own);
            }
        }
    }

    /// Replica `n` reads a datagram of the peer's present run.
    pub(super) fn note_received(&mut self, n: usize, datagram: &Datagram) {
        for message in messages(&datagram.bytes).flatten() {
            match verdict(self.plan.mode, &message.header) {
                Verdict::Control(Control::Ack(from, to)) if !self.nodes[1 - n].is_dead => {
                    self.kept.on_acknowledged(self.now, n, from, to);
                }
                _ => self.kept.on_received(self.now, 1 - n, message.header.seq),
            }
        }
    }

    /// The message on which replica `n`, which owns a flow, may rely. Scripts of the HA
    /// manager claim what is theirs; an operator claims at any moment, also copies.
    fn promise(&self, n: usize, key: &FlowKey) -> Option<&Told> {
        let is_operated = self.plan.has(Fault::Operator);
        let is_claimed = is_operated && self.truth.is_claimed(1 - n, key);
        self.kept.promise(self.now, n, key).filter(|_| !is_claimed)
    }

    /// Acknowledged means kept, given the external caches.
    pub(super) fn check_kept(&self, external: &[BTreeMap<FlowKey, Flow>; 2]) -> Check {
        let mut internal = [None, None];
        for (key, n) in &self.lives {
            let peer = 1 - *n;
            let Some(told) = self.promise(*n, key) else {
                continue;
            };
            let held = |at: usize| self.nodes[at].kernel.get(key).is_some();
            if !held(*n) || held(peer) || external[peer].contains_key(key) {
                continue;
            }
            let internal =
                internal[peer].get_or_insert_with(|| self.nodes[peer].internal(|_| true));
            if !internal.contains_key(key) {
                return Err(Violation {
                    invariant: "acknowledged means kept",
                    what: format!("{key} of {n} is gone at {peer}: {told}"),
                });
            }
        }
        Ok(())
    }

    /// The primary dies, nothing more arrives, and the backup runs the first command of the
    /// script. Its kernel must then hold all that it had acknowledged.
    pub(super) fn kill_primary(&mut self) -> Result<Finished, Failure> {
        let begun = self.now;
        let (dead, backup) = (self.primary, 1 - self.primary);
        self.is_safety = false;
        self.trace.line(begun, format_args!("{dead} dies for good"));
        self.kill(dead, false);
        self.nodes[dead].back_at = Some(begun + Duration::from_secs(3600));
        self.network.lose_all();
        // A paused daemon goes on; a dead one knows nothing, and nothing is asked of it.
        if !self.nodes[backup].is_dead {
            self.nodes[backup].back_at = None;
            self.script(backup, &[Command::Commit(Objects::All)]);
        }
        let mut over = None;
        while over.is_none_or(|at| self.now < at) {
            self.step().map_err(Failure::Safety)?;
            if over.is_none() && self.nodes[backup].is_idle() {
                over = Some(self.now + AFTER_COMMIT);
            }
            if self.now.since(begun) > COMMIT_MAX {
                return Err(Failure::Liveness("the commit does not end".into()));
            }
        }
        let compared = self.check_taken_over(dead).map_err(Failure::Safety)?;
        Ok(Finished {
            digest: self.trace.digest(),
            converged: self.now.since(begun),
            compared,
            exempted: self.kept.exempted,
        })
    }

    /// How many acknowledged flows of a dead primary live on in the backup's kernel.
    fn check_taken_over(&self, dead: usize) -> Result<usize, Violation> {
        let mut compared = 0;
        let violated = |what| Violation {
            invariant: "killed primary",
            what,
        };
        for key in self.lives.keys() {
            let lost = self.nodes[dead].kernel.get(key);
            let told = self.promise(dead, key);
            let (Some(lost), Some(told)) = (lost, told) else {
                continue;
            };
            match self.nodes[1 - dead].kernel.get(key) {
                Some(flow) if flow.reply == lost.reply => compared += 1,
                Some(flow) => {
                    let what = format!("{key} has another translation, {:?}: {told}", flow.reply);
                    return Err(violated(what));
                }
                None => {
                    let what = format!("{key} is not in the kernel of {}: {told}", 1 - dead);
                    return Err(violated(what));
                }
            }
        }
        Ok(compared)
    }

    /// What restarts have left wrong: live flows that the peer does not hold, and flows that
    /// have ended in a kernel whose table survived and that the peer still holds.
    pub(super) fn check_restored(&self) -> Result<(), String> {
        for n in 0..2 {
            let peer = 1 - n;
            let external = self.nodes[peer].external(|_| true);
            let internal = self.nodes[peer].internal(|_| true);
            let in_kernel = |at: usize, key: &FlowKey| self.nodes[at].kernel.get(key).is_some();
            for key in self.lives.iter().filter(|(_, o)| **o == n).map(|(k, _)| k) {
                let is_held = external.contains_key(key)
                    || internal.contains_key(key)
                    || in_kernel(peer, key);
                if in_kernel(n, key) && !is_held {
                    return Err(format!("{key} lives at {n} and {peer} does not know it"));
                }
            }
            for key in self.kept.ended(n) {
                let is_over = !in_kernel(n, key) && !in_kernel(peer, key);
                if is_over && external.contains_key(key) {
                    return Err(format!("{key} has ended at {n} and {peer} still holds it"));
                }
            }
        }
        Ok(())
    }
}
