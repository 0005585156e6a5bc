//! Changes of role, as the loop carries them out: it starts each step (`roles`), reports what
//! became of it to whoever asked, and moves the gate.

use std::time::Duration;

use config::gate::TABLE;
use control::call::{Head, Outcome, Role, Step, StepRow, Tail};
use replica::{Command, CommandId, Instant, Mode};

use crate::clients::ClientId;
use crate::gate::Gate;
use crate::host::Cause;
use crate::limit::Kind;
use crate::line::{Field, Fields, Level, Line, Occasion};
use crate::roles::{Change, Course, Late, Next, Roles, Summary, Surroundings};
use crate::session::State;
use crate::turn::Loop;

/// While a commit runs, a gate stays closed for so many of its timeouts: what would come
/// through before its end meets a kernel without its flow.
const COMMIT_TIMEOUTS: u32 = 6;

/// How long a change of role, and a look at the gate, wait for `nft`, if the gate's rules are
/// gone: everything else waits meanwhile.
const NFT_IN_CHANGE: Duration = Duration::from_secs(1);
const NFT_IN_LOOK: Duration = Duration::from_millis(50);

/// The roles, the gate that follows them, and what they wait for.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) roles: Roles,
    gate: Option<Gate>,
    timeout: Duration,
    /// When the sets of the gate are to be written again.
    due: Option<Instant>,
    /// Why the last write of them has failed, if it has.
    gate_error: Option<String>,
    /// Commits that were asked for without naming an instance.
    commits: Vec<CommandId>,
}

impl Changes {
    /// `settings`: those of the gate, whose rules are loaded.
    pub(crate) fn new(settings: Option<&config::Gate>, gate: Option<Gate>) -> Changes {
        let timeout = settings.map_or(Duration::ZERO, |s| Duration::from_secs(s.timeout.into()));
        Changes {
            roles: Roles::new(settings.map_or(&[], |s| &s.instances)),
            gate,
            timeout,
            due: None,
            gate_error: None,
            commits: Vec::new(),
        }
    }

    /// When the gate is to be looked at again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// True if there is a gate.
    pub(crate) fn has_gate(&self) -> bool {
        self.gate.is_some()
    }

    /// Why a gate that is to be closed may be open.
    pub(crate) fn gate_trouble(&self) -> Option<&str> {
        let is_closed = self.roles.list.iter().any(|known| known.is_closed);
        self.gate_error.as_deref().filter(|_| is_closed)
    }
}

impl Loop<'_> {
    /// Takes on a change of role that a client asks for.
    pub(crate) fn ask_role(
        &mut self,
        client: ClientId,
        role: Role,
        instance: Option<&str>,
        json: bool,
    ) -> Result<(), Head> {
        let roles = &mut self.changes.roles;
        let instance = roles
            .find(instance)
            .map_err(|(error, help)| Head::error(error, help))?;
        let id = self.new_command_id();
        let change = Change {
            role,
            instance,
            id,
            json,
        };
        if !self.changes.roles.ask(change) {
            return Err(Head::error(
                "too many changes of role wait",
                "wait for the end of the one that is under way: `ftfw status` shows it",
            ));
        }
        if role != Role::Primary {
            // The HA manager's word counts, not the end of a commit from before it.
            self.changes.commits.clear();
        }
        if let Some(session) = self.host.clients.get(client) {
            session.reply_json(&Head::ok());
            session.state = State::Waiting { id, is_call: true };
        }
        Ok(())
    }

    /// A client asks for something that changes the role of the whole firewall.
    pub(crate) fn note_command(&mut self, id: CommandId, command: Command, now: Instant) {
        match command {
            Command::Commit(objects) if objects.has_flows() => self.changes.commits.push(id),
            Command::ScheduleFlush => {
                self.changes.commits.clear();
                self.all_are(Role::Backup, now);
            }
            _ => {}
        }
    }

    fn all_are(&mut self, role: Role, now: Instant) {
        for name in self.changes.roles.all_are(role, now) {
            self.log_role(&name, role, Course::New);
        }
        self.move_gate(now, NFT_IN_CHANGE);
    }

    /// Logs the role of an instance, and what the change came to. Returns the text.
    fn log_role(&mut self, name: &str, role: Role, course: Course) -> String {
        let role = role.name();
        let (text, fields): (_, Fields) = match course {
            Course::New | Course::Owed => (
                format!("instance `{name}` is {role}"),
                Occasion::RoleChanged.into(),
            ),
            Course::Again(step) => (
                format!(
                    "instance `{name}` has been {role} before, but the {} failed: done again",
                    short(step)
                ),
                Fields::default(),
            ),
            Course::Same => (
                format!("instance `{name}` has been {role} before: nothing to do"),
                Fields::default(),
            ),
        };
        let fields = (fields.with(Field::Instance, name)).with(Field::Role, role);
        (self.host.log).write(Line::new(Level::Notice, text.as_str(), fields));
        text
    }

    /// Goes on with the changes of role, as far as nothing has to be waited for.
    pub(crate) fn go_on_with_roles(&mut self, now: Instant) {
        loop {
            for (id, tail) in std::mem::take(&mut self.host.ended) {
                self.command_ended(id, &tail, now);
            }
            let change = self.changes.roles.current();
            let around = self.surroundings();
            match self.changes.roles.next(now, around) {
                Next::Start(step, command) => {
                    let id = self.new_command_id();
                    self.changes.roles.started(step, id, now);
                    self.report_events(Cause::Anybody);
                    self.replica.handle_command(now, id, command);
                    self.report_events(Cause::Command);
                }
                Next::MoveGate(step) => {
                    let began = std::time::Instant::now();
                    let error = self.move_gate(now, NFT_IN_CHANGE);
                    if let Some(change) = change.or(self.changes.roles.current()) {
                        let row = StepRow {
                            step,
                            status: error.as_ref().map_or(Outcome::Ok, |_| Outcome::Error),
                            seconds: began.elapsed().as_secs_f64(),
                            error,
                            commit: None,
                        };
                        self.report_step(&change, &row);
                    }
                }
                Next::Over(summary) => self.change_over(&summary),
                Next::Claimed(change) => {
                    let name = self.changes.roles.name(change.instance);
                    let text = format!(
                        "the peer is primary for nothing: its flows are ours since instance \
                         `{name}` is primary"
                    );
                    let fields = Fields::from(Occasion::FlowsClaimed).with(Field::Instance, name);
                    self.host.log.write(Line::new(Level::Notice, text, fields));
                }
                Next::Nothing => return,
            }
        }
    }

    fn surroundings(&self) -> Surroundings {
        let replica = &self.replica;
        let settings = replica.settings();
        let is_primary = |peer| {
            let (_, role) = replica.epoch_and_role_of(peer);
            role == replica::Role::Primary && replica.is_lost(peer) == Some(false)
        };
        Surroundings {
            has_internal_cache: settings.internal_cache,
            has_control: settings.mode != Mode::Alarm,
            peer_is_primary: replica.peer_ids().any(is_primary),
            commit_runs: replica.is_committing(),
        }
    }

    fn command_ended(&mut self, id: CommandId, tail: &Tail, now: Instant) {
        let commits = &mut self.changes.commits;
        if let Some(at) = commits.iter().position(|commit| *commit == id) {
            commits.swap_remove(at);
            if tail.status != Outcome::Error {
                self.all_are(Role::Primary, now);
            }
        }
        let Some(change) = self.changes.roles.current() else {
            return;
        };
        let Some((step, took)) = self.changes.roles.ended(id, now) else {
            return;
        };
        let row = StepRow {
            step,
            status: tail.status,
            seconds: took.as_secs_f64(),
            error: tail.error.clone(),
            commit: tail.commit,
        };
        self.report_step(&change, &row);
    }

    /// Tells who has asked for a change what a step came to, and the log what went wrong.
    fn report_step(&mut self, change: &Change, row: &StepRow) {
        let text = words(row);
        let role = change.role.name();
        if row.status != Outcome::Ok {
            let name = self.changes.roles.name(change.instance).to_owned();
            let line = format!("instance `{name}` becomes {role}: {text}");
            let fields = Fields::from(Occasion::StepFailed)
                .with(Field::Instance, name)
                .with(Field::Role, role)
                .with(Field::Seconds, format_args!("{:.3}", row.seconds));
            self.host.log.write(Line::new(Level::Error, line, fields));
        }
        self.changes.roles.note(row.step, row.status);
        for session in self.host.clients.all().filter(|s| s.waits_for(change.id)) {
            match change.json {
                true => session.reply_json(row),
                false => session.reply(format!("{text}\n").as_bytes()),
            }
        }
    }

    fn change_over(&mut self, summary: &Summary) {
        let change = &summary.change;
        let name = self.changes.roles.name(change.instance).to_owned();
        let text = self.log_role(&name, change.role, summary.course);
        for session in self.host.clients.all().filter(|s| s.waits_for(change.id)) {
            if !change.json {
                session.reply(format!("{text}\n").as_bytes());
            }
        }
        let tail = Tail {
            status: match summary.worst {
                Outcome::Ok => Outcome::Ok,
                // The role has changed, whatever a step came to.
                Outcome::Partial | Outcome::Error => Outcome::Partial,
            },
            ..Tail::ok(summary.steps)
        };
        self.host.clients.command_done(change.id, &tail);
    }

    /// Writes the sets of the gate as the roles want them; `nft` may take so long. Returns what is
    /// wrong.
    fn move_gate(&mut self, now: Instant, nft: Duration) -> Option<String> {
        let changes = &mut self.changes;
        let gate = changes.gate.as_mut()?;
        let (closed, all_forwarded) = changes.roles.closed();
        // What is in the sets expires: it is written three times before that.
        changes.due = (!closed.is_empty()).then(|| now + changes.timeout / 3);
        let written = gate.keep_out(&closed, all_forwarded, nft);
        let line = match &written {
            Ok(false) => None,
            Ok(true) => Some(Line::new(
                Level::Notice,
                "the table of the gate or its rules were gone, and it has been loaded again: has \
                 somebody flushed the rules?"
                    .to_owned(),
                Fields::default(),
            )),
            Err(error) => Some(Line::new(
                Level::Error,
                format!("{error:#}; it is as before, see `nft list table inet {TABLE}`"),
                Occasion::GateFailed.into(),
            )),
        };
        if let Some(line) = line {
            self.host.log.limited(Kind::Kernel, line);
        }
        if written.is_ok() {
            changes.roles.gate_moved();
        }
        changes.gate_error = written.err().map(|error| format!("{error:#}"));
        changes.gate_error.clone()
    }

    /// Keeps a closed gate closed, and opens one that has been closed for too long.
    pub(crate) fn look_at_gate(&mut self, now: Instant) {
        if self.changes.due.is_none_or(|due| due > now) {
            return;
        }
        let here = sys::interface::addresses().ok();
        let changes = &mut self.changes;
        let (limit, late) = patience(changes.timeout, self.replica.is_committing());
        let opened = changes
            .roles
            .open_overdue(now, limit, here.as_deref(), late);
        for name in opened {
            let secs = limit.as_secs();
            let why = match late {
                Late::CommitRuns => "the commit still runs",
                Late::NoCommit => "no commit has ended. Does the HA manager call `ftfw primary`?",
            };
            let text = format!(
                "the gate of instance `{name}` opens: its virtual address has been here for \
                 {secs} s, and {why}"
            );
            let fields = Fields::from(Occasion::GateOpenedLate)
                .with(Field::Instance, name)
                .with(Field::Seconds, secs);
            self.host.log.write(Line::new(Level::Error, text, fields));
        }
        self.move_gate(now, NFT_IN_LOOK);
    }
}

/// Name of a step in a sentence: `the commit failed`.
pub(crate) fn short(step: Step) -> &'static str {
    match step {
        Step::Commit => "commit",
        Step::OpenGate => "opening of the gate",
        Step::FlushCaches => "flush of the caches",
        Step::ReadKernel => "resync from the kernel",
        Step::Bulk => "bulk update",
        Step::CloseGate => "closing of the gate",
        Step::ScheduleFlush => "scheduling of the flush",
        Step::AskPeer => "resync from the peer",
    }
}

/// How long a gate stays closed though a virtual address is here, and what it waits for.
fn patience(timeout: Duration, is_committing: bool) -> (Duration, Late) {
    match is_committing {
        true => (timeout * COMMIT_TIMEOUTS, Late::CommitRuns),
        false => (timeout, Late::NoCommit),
    }
}

/// A step in words: `commit: 1000 created, 5 were there already, in 0.012 s`.
fn words(row: &StepRow) -> String {
    let what = match row.step {
        Step::Commit => "commit",
        Step::OpenGate => "gate opened",
        Step::FlushCaches => "caches emptied",
        Step::ReadKernel => "kernel's flows read",
        Step::Bulk => "bulk update begun",
        Step::CloseGate => "gate closed",
        Step::ScheduleFlush => "flush scheduled",
        Step::AskPeer => "peer asked for its flows",
    };
    let mut text = what.to_owned();
    if let Some(c) = &row.commit {
        text += &format!(": {} created", c.created);
        if c.updated > 0 {
            text += &format!(", {} were there already", c.updated);
        }
        if c.failed > 0 {
            text += &format!(", {} refused by the kernel (see the log)", c.failed);
        }
    }
    if let Some(error) = &row.error {
        text += &format!(": NOT DONE: {error}");
    }
    text + &format!(", in {:.3} s", row.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_runs_keeps_the_gate_closed_for_longer() {
        let secs = Duration::from_secs;
        assert_eq!(patience(secs(10), false), (secs(10), Late::NoCommit));
        assert_eq!(patience(secs(10), true), (secs(60), Late::CommitRuns));
    }
}
