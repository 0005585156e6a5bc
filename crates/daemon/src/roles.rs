//! Whether this firewall is primary or backup, for each instance, and what a change of role
//! does: the steps of the original's failover script, in their order, one after the other.
//!
//! An instance is what moves from one firewall to the other as a whole: a `vrrp_instance` or a
//! `vrrp_sync_group` of keepalived. Most firewalls have one. With several, each of two
//! firewalls may be primary for some of them. While one is primary here, no flush is
//! scheduled: our kernel's flows may be its own.
//!
//! While an instance is a backup its gate is closed (`gate`). It opens at the end of the
//! commit, and by itself if a virtual address of the instance has been here for the gate's
//! timeout (while a commit runs, for several of them).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use config::Instance;
use control::call::{Outcome, Role, Step};
use replica::{Command, CommandId, Instant, Objects};

/// Changes of role that may wait for one that is under way.
const WAITING_MAX: usize = 64;

/// One instance.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) of: Instance,
    /// `None` until the HA manager has said one.
    pub(crate) role: Option<Role>,
    pub(crate) since: Instant,
    /// How long the change to that role took.
    pub(crate) took: Option<Duration>,
    /// The steps of that change that were not done.
    pub(crate) failed: Vec<Step>,
    pub(crate) is_closed: bool,
    /// It has opened because it was closed for too long; until the next change.
    pub(crate) opened_late: Option<Late>,
    /// Since when a virtual address is here while the gate is closed.
    here_since: Option<Instant>,
}

/// What a gate that has opened by itself had waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// No commit had been asked for, or none had succeeded.
    NoCommit,
    /// One was under way.
    CommitRuns,
}

/// A change of role that somebody has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) role: Role,
    /// Its place in the list.
    pub(crate) instance: usize,
    /// What the client waits for that has asked for it.
    pub(crate) id: CommandId,
    /// The client reads JSON.
    pub(crate) json: bool,
}

/// What the steps of a change are done for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// The role becomes another one.
    New,
    /// The role is the same; the steps from this one on, which had failed, are done again.
    Again(Step),
    /// The role is the same, and all its steps were done: there are none.
    Same,
    /// An earlier change owes them, and nobody waits for them.
    Owed,
}

/// A change, and what it came to so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) change: Change,
    pub(crate) course: Course,
    /// The worst outcome of its steps.
    pub(crate) worst: Outcome,
    /// How many there were.
    pub(crate) steps: u64,
}

/// A change that is under way.
#[derive(Debug)]
struct Running {
    summary: Summary,
    left: VecDeque<Step>,
    /// The step whose end is awaited, and since when.
    at: Option<(Step, CommandId, Instant)>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This command is to be started under the number of the step.
    Start(Step, Command),
    /// The sets of the gate are to be written.
    MoveGate(Step),
    /// The change is over.
    Over(Summary),
    /// What a change owed is over: the flows here are announced as ours.
    Claimed(Change),
    /// Nothing, or nothing before a command has ended.
    Nothing,
}

/// What of the original's steps the configuration allows, and what the peer does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    /// There is an internal cache to be read again.
    pub(crate) has_internal_cache: bool,
    /// The peer can be asked, and sent everything.
    pub(crate) has_control: bool,
    /// The peer lives and is primary for something.
    pub(crate) peer_is_primary: bool,
    /// A commit runs, ours or one that somebody has asked for.
    pub(crate) commit_runs: bool,
}

/// All instances, and the changes of their roles.
#[derive(Debug)]
pub(crate) struct Roles {
    pub(crate) list: Vec<Known>,
    /// Instances stand in the configuration; no others are known.
    are_configured: bool,
    running: Option<Running>,
    waiting: VecDeque<Change>,
    /// A change to primary that left the peer's flows the peer's, because the peer was
    /// primary for something. They are claimed when it no longer is.
    owed: Option<Change>,
}

impl Roles {
    /// The instances of the configuration, if it has any.
    pub(crate) fn new(configured: &[Instance]) -> Roles {
        let known = configured.iter().cloned().map(Known::new);
        Roles {
            list: known.collect(),
            are_configured: !configured.is_empty(),
            running: None,
            waiting: VecDeque::new(),
            owed: None,
        }
    }

    /// A step of the change that is under way has come to this.
    pub(crate) fn note(&mut self, step: Step, outcome: Outcome) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let summary = &mut running.summary;
        summary.steps += 1;
        if outcome != Outcome::Ok && summary.worst != Outcome::Error {
            summary.worst = outcome;
        }
        if outcome == Outcome::Error {
            let failed = &mut self.list[summary.change.instance].failed;
            failed.push(step);
            if step == Step::Commit {
                // What is in no kernel stays in the cache.
                running.left.retain(|step| *step != Step::FlushCaches);
            }
        }
    }

    /// The place of an instance; without a name that of the only one, or of `default`. If none is
    /// configured, one that is not known is from now on.
    ///
    /// # Errors
    /// What is wrong with the name, and what helps.
    pub(crate) fn find(&mut self, name: Option<&str>) -> Result<usize, (String, String)> {
        if name.is_none() && self.list.len() == 1 {
            return Ok(0);
        }
        let wanted = name.unwrap_or(Instance::DEFAULT);
        if let Some(place) = self.list.iter().position(|known| known.of.name == wanted) {
            return Ok(place);
        }
        if self.are_configured {
            let error = match name {
                Some(name) => format!("no instance `{name}` in `Gate`"),
                None => "there are several instances".to_owned(),
            };
            return Err((error, self.names()));
        }
        if self.list.len() >= WAITING_MAX {
            let error = format!("{WAITING_MAX} instances are known already");
            let help = "use the names of the HA manager; `ftfw forget` removes others";
            return Err((error, help.to_owned()));
        }
        self.list.push(Known::new(Instance {
            name: wanted.to_owned(),
            addresses: Vec::new(),
        }));
        Ok(self.list.len() - 1)
    }

    /// Forgets an instance that is known from a call alone.
    ///
    /// # Errors
    /// Why it is not forgotten, and what helps.
    pub(crate) fn forget(&mut self, name: &str) -> Result<(), (String, String)> {
        if self.are_configured {
            let error = "the instances stand in `Gate`".to_owned();
            let help = "remove it from the configuration file, and start the daemon again";
            return Err((error, help.to_owned()));
        }
        let Some(place) = self.list.iter().position(|known| known.of.name == name) else {
            return Err((format!("no instance `{name}` is known"), self.names()));
        };
        // These name instances by their places.
        if self.running.is_some() || !self.waiting.is_empty() {
            let error = "a change of role is under way".to_owned();
            return Err((error, "wait for its end".to_owned()));
        }
        self.list.remove(place);
        self.owed = self.owed.filter(|change| change.instance != place);
        if let Some(change) = &mut self.owed
            && change.instance > place
        {
            change.instance -= 1;
        }
        Ok(())
    }

    /// Which names are accepted.
    fn names(&self) -> String {
        let names: Vec<&str> = self.list.iter().map(|k| k.of.name.as_str()).collect();
        match names.is_empty() {
            true => "none is known before the first change of role".to_owned(),
            false => format!("--instance: one of {}", names.join(", ")),
        }
    }

    /// Takes a change on, after those that wait. False if too many do.
    pub(crate) fn ask(&mut self, change: Change) -> bool {
        let has_room = self.waiting.len() < WAITING_MAX;
        if has_room {
            self.waiting.push_back(change);
        }
        has_room
    }

    /// The change that is under way.
    pub(crate) fn current(&self) -> Option<Change> {
        self.running.as_ref().map(|running| running.summary.change)
    }

    /// Name of an instance.
    pub(crate) fn name(&self, instance: usize) -> &str {
        &self.list[instance].of.name
    }

    /// What is to be done next.
    pub(crate) fn next(&mut self, now: Instant, around: Surroundings) -> Next {
        let Some(running) = &mut self.running else {
            return self.begin(now, around);
        };
        if running.at.is_some() {
            return Next::Nothing;
        }
        // A commit that somebody else has asked for is waited for, and followed by ours: it may
        // have begun with fewer flows.
        let waits = |step: &Step| matches!(step, Step::Commit | Step::FlushCaches);
        if around.commit_runs && running.left.front().is_some_and(waits) {
            return Next::Nothing;
        }
        let summary = running.summary;
        let known = &mut self.list[summary.change.instance];
        let Some(step) = running.left.pop_front() else {
            self.running = None;
            if summary.course == Course::New {
                known.took = Some(now.since(known.since));
            }
            return match summary.course {
                Course::Owed => Next::Claimed(summary.change),
                _ => Next::Over(summary),
            };
        };
        match step {
            Step::CloseGate | Step::OpenGate => {
                // Somebody may have made it a backup by the original's commands meanwhile.
                known.set_closed(known.role != Some(Role::Primary));
                Next::MoveGate(step)
            }
            _ => Next::Start(step, command(step)),
        }
    }

    /// Begins the next change, if it changes anything.
    fn begin(&mut self, now: Instant, around: Surroundings) -> Next {
        let Some(change) = self.waiting.pop_front() else {
            return self.claim(now, around);
        };
        let mut left = self.steps(&change, around);
        let is_shared = change.role == Role::Primary && !self.is_alone(around);
        let known = &mut self.list[change.instance];
        let failed = std::mem::take(&mut known.failed);
        let is_new = known.role != Some(change.role);
        if is_new || !failed.is_empty() {
            self.owed = is_shared.then_some(change);
        }
        // What belongs to it no more, as the peer has become primary, is owed.
        let again = failed.into_iter().find(|step| left.contains(step));
        let course = match again {
            _ if is_new => Course::New,
            Some(step) => Course::Again(step),
            None => Course::Same,
        };
        match course {
            Course::New => {
                known.role = Some(change.role);
                known.since = now;
                known.took = None;
            }
            // Those behind it rest on it.
            Course::Again(first) => left = left.into_iter().skip_while(|s| *s != first).collect(),
            _ => left.clear(),
        }
        self.run(change, course, left);
        self.next(now, around)
    }

    fn run(&mut self, change: Change, course: Course, left: VecDeque<Step>) {
        let summary = Summary {
            change,
            course,
            worst: Outcome::Ok,
            steps: 0,
        };
        self.running = Some(Running {
            summary,
            left,
            at: None,
        });
    }

    /// False if the peer's own flows are among ours; it must not take them for taken.
    fn is_alone(&self, around: Surroundings) -> bool {
        self.list.len() < 2 || !around.peer_is_primary
    }

    /// The steps of a change, in their order.
    fn steps(&self, change: &Change, around: Surroundings) -> VecDeque<Step> {
        let primary_beside = (self.list.iter().enumerate())
            .any(|(n, k)| n != change.instance && k.role == Some(Role::Primary));
        let has_gate = !self.list[change.instance].of.addresses.is_empty();
        let is_alone = self.is_alone(around);
        let steps = match change.role {
            Role::Primary => vec![
                (Step::Commit, true),
                (Step::OpenGate, has_gate),
                (Step::FlushCaches, is_alone && !primary_beside),
                (Step::ReadKernel, is_alone && around.has_internal_cache),
                (Step::Bulk, is_alone && around.has_control),
            ],
            Role::Backup | Role::Fault => {
                let asks = around.has_control && change.role == Role::Backup;
                vec![
                    (Step::CloseGate, has_gate),
                    (Step::ScheduleFlush, !primary_beside),
                    (Step::AskPeer, asks),
                ]
            }
        };
        let wanted = steps.into_iter().filter(|(_, is_wanted)| *is_wanted);
        wanted.map(|(step, _)| step).collect()
    }

    /// Claims the flows here, if a change owes that: this replica is primary for everything, and
    /// the peer for nothing any more. Otherwise a peer that has started again would not get its
    /// idle flows back, because only traffic shows whose a flow is.
    fn claim(&mut self, now: Instant, around: Surroundings) -> Next {
        let is_alone = !around.peer_is_primary
            && (self.list.iter()).all(|known| known.role == Some(Role::Primary));
        let Some(change) = self.owed.take_if(|_| is_alone) else {
            return Next::Nothing;
        };
        let mut left = VecDeque::new();
        if around.has_internal_cache {
            left.push_back(Step::ReadKernel);
        }
        if around.has_control {
            left.push_back(Step::Bulk);
        }
        self.run(change, Course::Owed, left);
        self.next(now, around)
    }

    /// A step has been started under this number.
    pub(crate) fn started(&mut self, step: Step, id: CommandId, now: Instant) {
        if let Some(running) = &mut self.running {
            running.at = Some((step, id, now));
        }
    }

    /// A command has ended. `None` if it is not the step that is awaited.
    pub(crate) fn ended(&mut self, id: CommandId, now: Instant) -> Option<(Step, Duration)> {
        let running = self.running.as_mut()?;
        let (step, _, began) = running.at.take_if(|(_, awaited, _)| *awaited == id)?;
        Some((step, now.since(began)))
    }

    /// Somebody has used the original's commands: they are about all instances. Returns the names
    /// of those that had another role.
    pub(crate) fn all_are(&mut self, role: Role, now: Instant) -> Vec<String> {
        self.owed = None;
        let mut changed = Vec::new();
        for known in &mut self.list {
            if known.role != Some(role) {
                known.role = Some(role);
                known.since = now;
                known.took = None;
                changed.push(known.of.name.clone());
            }
            known.failed.clear();
            known.set_closed(role != Role::Primary);
        }
        changed
    }

    /// The sets of the gate are as the roles want them: what failed before is done.
    pub(crate) fn gate_moved(&mut self) {
        let is_gate = |step: &Step| matches!(step, Step::CloseGate | Step::OpenGate);
        for known in &mut self.list {
            known.failed.retain(|step| !is_gate(step));
        }
    }

    /// The instances whose gate is closed, and whether nothing at all is to be forwarded.
    pub(crate) fn closed(&self) -> (Vec<&Instance>, bool) {
        let closed = self.list.iter().filter(|known| known.is_closed);
        let closed: Vec<_> = closed.map(|known| &known.of).collect();
        let all = !closed.is_empty() && closed.len() == self.list.len();
        (closed, all)
    }

    /// Opens each gate that has been closed for `timeout` though a virtual address of its
    /// instance is here; returns the instances. If it cannot be told which addresses are here,
    /// those are that were. `late` is what they have waited for.
    pub(crate) fn open_overdue(
        &mut self,
        now: Instant,
        timeout: Duration,
        here: Option<&[IpAddr]>,
        late: Late,
    ) -> Vec<String> {
        let mut opened = Vec::new();
        for known in self.list.iter_mut().filter(|known| known.is_closed) {
            match here.map(|here| known.is_at(here) == Some(true)) {
                Some(true) => _ = known.here_since.get_or_insert(now),
                Some(false) => known.here_since = None,
                None => {}
            }
            if known.here_since.is_some_and(|at| now.since(at) >= timeout) {
                known.set_closed(false);
                known.opened_late = Some(late);
                opened.push(known.of.name.clone());
            }
        }
        opened
    }
}

impl Known {
    /// True if a virtual address of it is among these; `None` if none is known.
    pub(crate) fn is_at(&self, here: &[IpAddr]) -> Option<bool> {
        let mut hosts = self.of.addresses.iter().filter(|p| p.is_host()).peekable();
        hosts.peek()?;
        Some(hosts.any(|p| here.contains(&p.addr())))
    }

    fn new(of: Instance) -> Known {
        Known {
            of,
            role: None,
            since: Instant::START,
            took: None,
            failed: Vec::new(),
            is_closed: false,
            opened_late: None,
            here_since: None,
        }
    }

    fn set_closed(&mut self, closed: bool) {
        self.is_closed = closed && !self.of.addresses.is_empty();
        self.opened_late = None;
        self.here_since = None;
    }
}

/// What the core does for a step; the gate's are not the core's.
fn command(step: Step) -> Command {
    match step {
        Step::FlushCaches => Command::FlushCaches,
        Step::ReadKernel => Command::Resync(Objects::All),
        Step::Bulk => Command::Bulk,
        Step::ScheduleFlush => Command::ScheduleFlush,
        Step::AskPeer => Command::RequestResync,
        Step::Commit | Step::OpenGate | Step::CloseGate => Command::Commit(Objects::All),
    }
}

#[cfg(test)]
mod tests {
    use flow::Prefix;

    use super::*;

    const AROUND: Surroundings = Surroundings {
        has_internal_cache: true,
        has_control: true,
        peer_is_primary: false,
        commit_runs: false,
    };

    fn at(secs: u64) -> Instant {
        Instant::START + Duration::from_secs(secs)
    }

    fn instance(name: &str, addr: &str) -> Instance {
        Instance {
            name: name.to_owned(),
            addresses: vec![Prefix::host(addr.parse().unwrap())],
        }
    }

    fn two() -> Roles {
        Roles::new(&[instance("A", "10.0.0.1"), instance("B", "10.0.0.2")])
    }

    fn asked(role: Role, instance: usize) -> Change {
        Change {
            role,
            instance,
            id: CommandId(0),
            json: false,
        }
    }

    /// Asks for a role, and carries all steps out; returns them.
    fn change(roles: &mut Roles, role: Role, name: &str, around: Surroundings) -> Vec<Step> {
        let change = asked(role, roles.find(Some(name)).unwrap());
        assert!(roles.ask(change));
        let mut steps = Vec::new();
        for n in 1.. {
            match roles.next(at(n), around) {
                Next::Start(step, _) => {
                    roles.started(step, CommandId(n), at(n));
                    assert_eq!(roles.next(at(n), around), Next::Nothing, "it waits");
                    assert_eq!(roles.ended(CommandId(n + 1000), at(n)), None);
                    assert_eq!(roles.ended(CommandId(n), at(n)).map(|e| e.0), Some(step));
                    steps.push(step);
                }
                Next::MoveGate(step) => steps.push(step),
                Next::Over(over) => {
                    assert_eq!(over.change, change);
                    return steps;
                }
                other => panic!("{other:?} after {steps:?}"),
            }
        }
        steps
    }

    #[test]
    fn one_instance_gets_the_steps_of_the_original() {
        use Step::*;
        let mut roles = Roles::new(&[]);
        let mut one = |role, around| change(&mut roles, role, "X", around);
        assert_eq!(one(Role::Backup, AROUND), [ScheduleFlush, AskPeer]);
        assert_eq!(one(Role::Backup, AROUND), [], "it is backup already");
        assert_eq!(one(Role::Fault, AROUND), [ScheduleFlush]);
        let all = [Commit, FlushCaches, ReadKernel, Bulk];
        let peer_is_primary = true;
        let around = Surroundings {
            peer_is_primary,
            ..AROUND
        };
        assert_eq!(one(Role::Primary, around), all);
        one(Role::Backup, AROUND);
        let around = Surroundings {
            has_internal_cache: false,
            has_control: false,
            ..AROUND
        };
        assert_eq!(one(Role::Primary, around), [Commit, FlushCaches]);
    }

    #[test]
    fn the_gate_opens_behind_the_commit_and_closes_before_everything_else() {
        use Step::*;
        let mut roles = Roles::new(&[instance("default", "10.0.0.1")]);
        let steps = change(&mut roles, Role::Backup, "default", AROUND);
        assert_eq!(steps, [CloseGate, ScheduleFlush, AskPeer]);
        assert_eq!(roles.closed().0.len(), 1);
        let steps = change(&mut roles, Role::Primary, "default", AROUND);
        assert_eq!(steps[..2], [Commit, OpenGate]);
        assert!(roles.closed().0.is_empty());
    }

    #[test]
    fn while_an_instance_is_primary_nothing_is_flushed_for_another() {
        use Step::*;
        let mut roles = two();
        change(&mut roles, Role::Backup, "A", AROUND);
        change(&mut roles, Role::Backup, "B", AROUND);
        assert!(roles.closed().1, "nothing is forwarded");
        let around = Surroundings {
            peer_is_primary: true,
            ..AROUND
        };
        let steps = change(&mut roles, Role::Primary, "A", around);
        assert_eq!(
            steps,
            [Commit, OpenGate],
            "the peer's flows stay the peer's"
        );
        let (closed, all) = roles.closed();
        assert_eq!((closed[0].name.as_str(), all), ("B", false));
        let steps = change(&mut roles, Role::Primary, "B", AROUND);
        assert_eq!(steps, [Commit, OpenGate, ReadKernel, Bulk]);
        let steps = change(&mut roles, Role::Backup, "A", AROUND);
        assert_eq!(steps, [CloseGate, AskPeer]);
    }

    /// Goes on while nobody asks for anything; returns the steps.
    fn idle(roles: &mut Roles, around: Surroundings) -> Vec<Step> {
        let mut steps = Vec::new();
        for n in 100.. {
            match roles.next(at(n), around) {
                Next::Start(step, _) => {
                    roles.started(step, CommandId(n), at(n));
                    roles.ended(CommandId(n), at(n));
                    steps.push(step);
                }
                Next::Claimed(_) => {}
                Next::Nothing => return steps,
                other => panic!("{other:?}"),
            }
        }
        steps
    }

    #[test]
    fn the_peers_flows_are_claimed_when_it_is_primary_for_nothing_any_more() {
        use Step::*;
        let around = Surroundings {
            peer_is_primary: true,
            ..AROUND
        };
        let mut roles = two();
        change(&mut roles, Role::Primary, "A", around);
        assert_eq!(idle(&mut roles, AROUND), [], "B is not ours");
        let steps = change(&mut roles, Role::Primary, "B", around);
        assert_eq!(steps, [Commit, OpenGate]);
        assert_eq!(idle(&mut roles, around), []);
        let took = roles.list[1].took;
        assert!(took.is_some());
        assert_eq!(idle(&mut roles, AROUND), [ReadKernel, Bulk]);
        assert_eq!(roles.list[1].took, took, "that is no part of the failover");
        assert_eq!(idle(&mut roles, AROUND), [], "once");
        // A half that has gone back in the meantime is the peer's.
        change(&mut roles, Role::Backup, "B", around);
        change(&mut roles, Role::Primary, "B", around);
        change(&mut roles, Role::Backup, "B", around);
        assert_eq!(idle(&mut roles, AROUND), []);
    }

    #[test]
    fn a_gate_opens_late_only_where_a_virtual_address_is() {
        let mut roles = two();
        assert_eq!(roles.all_are(Role::Backup, at(0)), ["A", "B"]);
        assert!(roles.all_are(Role::Backup, at(0)).is_empty());
        let here = ["10.0.0.2".parse().unwrap()];
        let mut opened = |secs, here| {
            let limit = Duration::from_secs(3);
            roles.open_overdue(at(secs), limit, here, Late::NoCommit)
        };
        assert!(opened(10, Some(&[])).is_empty());
        assert!(opened(11, Some(&here)).is_empty());
        // It went, and came back.
        assert!(opened(12, Some(&[])).is_empty());
        assert!(opened(13, Some(&here)).is_empty());
        assert!(opened(15, Some(&here)).is_empty());
        assert_eq!(opened(16, Some(&here)), ["B"]);
        assert_eq!(roles.closed().0.len(), 1);
        assert_eq!(roles.list[1].opened_late, Some(Late::NoCommit));
    }

    #[test]
    fn addresses_that_cannot_be_read_are_where_they_were() {
        let mut roles = two();
        roles.all_are(Role::Backup, at(0));
        let here = ["10.0.0.2".parse().unwrap()];
        let mut opened = |secs, here| {
            let limit = Duration::from_secs(3);
            roles.open_overdue(at(secs), limit, here, Late::CommitRuns)
        };
        assert!(opened(10, None).is_empty());
        assert!(opened(14, None).is_empty(), "none has ever been seen");
        assert!(opened(15, Some(&here)).is_empty());
        assert!(opened(17, None).is_empty());
        assert_eq!(opened(18, None), ["B"]);
        assert_eq!(roles.list[1].opened_late, Some(Late::CommitRuns));
    }

    #[test]
    fn an_instance_is_found_by_name_or_because_there_is_one() {
        assert_eq!(two().find(Some("B")), Ok(1));
        assert!(two().find(None).unwrap_err().1.contains("A, B"));
        assert!(two().find(Some("C")).unwrap_err().0.contains("`C`"));
        let mut free = Roles::new(&[]);
        assert_eq!(free.find(None), Ok(0));
        assert_eq!(free.name(0), "default");
        assert_eq!(free.find(Some("B")), Ok(1));
        assert_eq!(
            free.find(None),
            Ok(0),
            "a slip breaks no call without a name"
        );
        let mixed = [instance("A", "10.0.0.1"), instance("default", "10.0.0.2")];
        assert_eq!(Roles::new(&mixed).find(None), Ok(1));
    }

    #[test]
    fn a_name_that_was_a_slip_is_forgotten() {
        let mut roles = Roles::new(&[]);
        change(&mut roles, Role::Backup, "VI_11", AROUND);
        assert_eq!(roles.find(None), Ok(0), "it is the only one");
        let around = Surroundings {
            peer_is_primary: true,
            ..AROUND
        };
        change(&mut roles, Role::Primary, "VI_1", around);
        assert_eq!(idle(&mut roles, AROUND), [], "the other one is a backup");
        assert!(roles.forget("VI_2").unwrap_err().1.contains("VI_11, VI_1"));
        roles.forget("VI_11").unwrap();
        assert_eq!(roles.name(0), "VI_1");
        use Step::*;
        assert_eq!(idle(&mut roles, AROUND), [ReadKernel, Bulk], "it was owed");
        assert!(two().forget("A").unwrap_err().1.contains("configuration"));
        assert!(roles.ask(asked(Role::Backup, 0)));
        assert!(roles.forget("VI_1").unwrap_err().0.contains("under way"));
    }

    #[test]
    fn the_gate_stays_closed_until_a_commit_of_somebody_else_is_over_and_ours_has_followed() {
        use Step::*;
        let mut roles = Roles::new(&[instance("default", "10.0.0.1")]);
        change(&mut roles, Role::Backup, "default", AROUND);
        assert!(roles.ask(asked(Role::Primary, 0)));
        let commit_runs = true;
        let around = Surroundings {
            commit_runs,
            ..AROUND
        };
        assert_eq!(roles.next(at(1), around), Next::Nothing);
        assert_eq!(roles.closed().0.len(), 1);
        let Next::Start(Commit, _) = roles.next(at(2), AROUND) else {
            panic!("ours follows");
        };
        roles.started(Commit, CommandId(1), at(2));
        roles.ended(CommandId(1), at(3));
        assert_eq!(roles.next(at(3), around), Next::MoveGate(OpenGate));
        assert!(roles.closed().0.is_empty());
        assert_eq!(
            roles.next(at(3), around),
            Next::Nothing,
            "it reads the cache"
        );
        assert!(matches!(
            roles.next(at(4), AROUND),
            Next::Start(FlushCaches, _)
        ));
    }

    /// Becomes primary, and lets one step fail; returns the steps, and what they were for.
    fn fail(roles: &mut Roles, which: Step, around: Surroundings) -> (Vec<Step>, Course) {
        assert!(roles.ask(asked(Role::Primary, 0)));
        let mut steps = Vec::new();
        for n in 1.. {
            let step = match roles.next(at(n), around) {
                Next::Start(step, _) => {
                    roles.started(step, CommandId(n), at(n));
                    roles.ended(CommandId(n), at(n));
                    step
                }
                Next::MoveGate(step) => step,
                Next::Over(over) => return (steps, over.course),
                other => panic!("{other:?}"),
            };
            let outcome = match step == which {
                true => Outcome::Error,
                false => Outcome::Ok,
            };
            roles.note(step, outcome);
            steps.push(step);
        }
        unreachable!()
    }

    #[test]
    fn the_same_command_again_repeats_what_has_failed() {
        use Step::*;
        let mut roles = Roles::new(&[instance("default", "10.0.0.1")]);
        let (steps, course) = fail(&mut roles, Commit, AROUND);
        assert_eq!(
            steps,
            [Commit, OpenGate, ReadKernel, Bulk],
            "nothing is forgotten"
        );
        assert_eq!(
            (course, &roles.list[0].failed[..]),
            (Course::New, &[Commit][..])
        );
        let took = roles.list[0].took;
        let (steps, course) = fail(&mut roles, ReadKernel, AROUND);
        assert_eq!(steps, [Commit, OpenGate, FlushCaches, ReadKernel, Bulk]);
        assert_eq!(course, Course::Again(Commit));
        assert_eq!(roles.list[0].took, took, "the role is as old as before");
        let (steps, _) = fail(&mut roles, CloseGate, AROUND);
        assert_eq!(steps, [ReadKernel, Bulk]);
        assert!(roles.list[0].failed.is_empty());
        assert_eq!(fail(&mut roles, CloseGate, AROUND), (vec![], Course::Same));
        change(&mut roles, Role::Backup, "default", AROUND);
        fail(&mut roles, OpenGate, AROUND);
        roles.gate_moved();
        assert!(
            roles.list[0].failed.is_empty(),
            "it is written again by itself"
        );
    }

    #[test]
    fn what_has_failed_and_is_the_peers_by_now_is_owed() {
        use Step::*;
        let mut roles = two();
        change(&mut roles, Role::Primary, "B", AROUND);
        fail(&mut roles, Bulk, AROUND);
        let around = Surroundings {
            peer_is_primary: true,
            ..AROUND
        };
        let (steps, course) = fail(&mut roles, CloseGate, around);
        assert_eq!((&steps[..], course), (&[][..], Course::Same));
        assert_eq!(idle(&mut roles, around), []);
        assert_eq!(idle(&mut roles, AROUND), [ReadKernel, Bulk]);
    }

    #[test]
    fn a_flush_by_the_original_meanwhile_leaves_the_gate_closed() {
        let mut roles = Roles::new(&[instance("default", "10.0.0.1")]);
        assert!(roles.ask(asked(Role::Primary, 0)));
        assert!(matches!(
            roles.next(at(1), AROUND),
            Next::Start(Step::Commit, _)
        ));
        roles.started(Step::Commit, CommandId(1), at(1));
        roles.all_are(Role::Backup, at(2));
        roles.ended(CommandId(1), at(3));
        assert_eq!(roles.next(at(3), AROUND), Next::MoveGate(Step::OpenGate));
        assert_eq!(roles.closed().0.len(), 1);
    }

    #[test]
    fn changes_wait_for_each_other() {
        let mut roles = Roles::new(&[]);
        let place = roles.find(None).unwrap();
        let change = |role| asked(role, place);
        assert!(roles.ask(change(Role::Primary)));
        assert!(roles.ask(change(Role::Backup)));
        let Next::Start(step, _) = roles.next(at(0), AROUND) else {
            panic!("the first one begins");
        };
        assert_eq!(step, Step::Commit);
        roles.started(step, CommandId(1), at(0));
        assert_eq!(roles.next(at(1), AROUND), Next::Nothing);
        assert_eq!(roles.current().map(|c| c.role), Some(Role::Primary));
        for _ in 2..WAITING_MAX + 1 {
            assert!(roles.ask(change(Role::Fault)));
        }
        assert!(!roles.ask(change(Role::Fault)), "there is a bound");
    }
}
