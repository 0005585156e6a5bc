//! Is it safe to fail over now, what would be lost, and what needs attention.
//!
//! Pure: `report` collects the facts ([`Facts`]), and once a second they are sampled
//! ([`Health::sample`]). Counts of two firewalls are never of the same moment, so flows count
//! as unprotected, or as lost, only if they have been so in each of the last samples.
//!
//! The hard case is a peer that falls silent. If it has died, this firewall must take over, and
//! what was last heard is all that there is. If only the link is cut, the peer makes flows that
//! nobody here knows. Both look the same, so what was last heard stands for [`KEPT`], in which
//! the HA manager makes this firewall primary if the peer has died; then it stands no more.

use std::time::Duration;

use control::call::Step;
use control::rows::{Attention, Readiness};
use replica::{Instant, LOST_AFTER, PeerId, Reported, Role};

use crate::change::short;
use crate::roles::Late;

/// Samples of which the least counts: a flow is announced within a second, and the peer
/// reports a second later.
const SAMPLES: usize = 4;
/// Between two samples.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);
/// A daemon that has just started has not been heard, and hears nobody.
const START: Duration = Duration::from_secs(5);
/// What was last heard of a peer says whether this firewall may take over from it for so long.
/// keepalived takes 3 s to find out that the peer has died, a slow Pacemaker 20 s.
const KEPT: Duration = Duration::from_secs(30);
/// Before the first message that is heard of a peer it may have been there for this long: each
/// program sends once a second.
const UNHEARD: Duration = Duration::from_secs(2);
/// A peer that reports no counts has sent all its flows so long after it was asked for them.
const ANSWERED_AFTER: Duration = Duration::from_secs(5);
/// Firewalls that change places are both backup, or both primary, for less than this.
const CHANGING: Duration = Duration::from_secs(5);
/// Tenths of the kernel's table that may be full.
const TABLE_FULL: u64 = 9;

/// What is known of a dedicated link.
#[derive(Clone, Debug)]
pub(crate) struct LinkFacts {
    pub(crate) name: String,
    /// `None` if it is usable; otherwise what is wrong.
    pub(crate) trouble: Option<&'static str>,
}

/// What is known of an instance.
#[derive(Clone, Debug)]
pub(crate) struct InstanceFacts {
    pub(crate) name: String,
    pub(crate) role: Option<control::call::Role>,
    /// How long it has had that role.
    pub(crate) since: Duration,
    /// A virtual address of it is here; `None` if none is known.
    pub(crate) is_here: Option<bool>,
    /// The gate has opened by itself.
    pub(crate) opened_late: Option<Late>,
    /// Of the change to that role: the first step that was not done.
    pub(crate) failed: Option<Step>,
}

/// What the peer's protocol lets us know of its flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Theirs {
    /// An ftfw reports its counts.
    Reported(Reported),
    /// It has not done so since it was heard first, or again.
    Unreported,
    /// Another program: when it was last asked for everything.
    Asked(Option<Instant>),
    /// ALARM: it repeats everything within this time.
    Repeated(Duration),
}

/// What is known of a peer, as far as it shows by which peer this firewall is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) peer: PeerId,
    /// It has been heard, and is not lost.
    pub(crate) lives: bool,
    pub(crate) role: Role,
    /// Flows that it reports to have.
    pub(crate) flows: usize,
    /// How many of our flows it reports to hold.
    pub(crate) held: usize,
}

/// The peer by which a firewall of this role is judged, the first one if nothing tells them
/// apart: a primary's is the one that would take over best, a backup's the one from which it
/// would take over.
pub(crate) fn judged(own: Role, candidates: impl Iterator<Item = Candidate>) -> PeerId {
    let rank = |c: &Candidate| {
        let is_primary = c.role == Role::Primary;
        match own {
            Role::Primary => (c.lives, is_primary, c.held, 0),
            // If the primary has died, it is still the one to take over from.
            Role::Backup | Role::Unknown => (
                c.lives && is_primary,
                is_primary,
                usize::from(c.lives),
                c.flows,
            ),
        }
    };
    let better = |best: Candidate, c: Candidate| if rank(&c) > rank(&best) { c } else { best };
    candidates
        .reduce(better)
        .map_or(PeerId::FIRST, |best| best.peer)
}

/// What is known of this firewall and its peer now.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) now: Instant,
    pub(crate) uptime: Duration,
    pub(crate) role: Role,
    /// Mode ALARM: silence means nothing.
    pub(crate) is_quiet_mode: bool,
    /// The peer by which this firewall is judged; the next fields are about it.
    pub(crate) peer: PeerId,
    /// Time since the last message of the peer.
    pub(crate) silence: Option<Duration>,
    pub(crate) is_lost: bool,
    pub(crate) peer_role: Role,
    pub(crate) theirs: Theirs,
    /// How many of our flows the peer holds, and should hold.
    pub(crate) ours: Option<(usize, usize)>,
    /// How many other peers there are, and how many of them are lost.
    pub(crate) others: (usize, usize),
    pub(crate) links: Vec<LinkFacts>,
    /// The cache of our flows, and that of the peer's, has no room.
    pub(crate) full: [bool; 2],
    /// Flows of the peer that are known here, and are not in the kernel where they should be.
    pub(crate) not_in_kernel: usize,
    /// Entries of the kernel's table, and how many there may be.
    pub(crate) table: Option<(u64, u64)>,
    pub(crate) instances: Vec<InstanceFacts>,
    /// Why a gate that is to be closed may be open.
    pub(crate) gate_trouble: Option<String>,
}

impl Facts {
    /// True if nothing is left to take over.
    fn is_primary_of_all(&self) -> bool {
        let is_primary = |i: &InstanceFacts| i.role == Some(control::call::Role::Primary);
        self.role == Role::Primary && self.instances.iter().all(is_primary)
    }
}

/// What is remembered of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Our flows that the peer did not hold.
    unprotected: Lately,
    /// Flows of the peer that were not held here.
    lacking: Lately,
    heard: Option<Heard>,
    /// When, and how many flows of the peer were held then, while we catch up.
    began: Option<(Instant, usize)>,
    /// Since when both have had the same role.
    same_since: Option<Instant>,
    /// Our role at the last sample.
    role: Role,
}

/// A number in the last samples, the newest first.
#[derive(Debug, Default)]
struct Lately(Vec<usize>);

impl Lately {
    /// Notes the number of now, or that it is not known.
    fn note(&mut self, number: Option<usize>) {
        match number {
            Some(number) => {
                self.0.truncate(SAMPLES - 1);
                self.0.insert(0, number);
            }
            None => self.0.clear(),
        }
    }

    /// The least of them and of `now`.
    fn least(&self, now: usize) -> usize {
        self.0.iter().copied().fold(now, usize::min)
    }
}

/// When a peer was heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    peer: PeerId,
    /// The first message behind which there was no long silence.
    since: Instant,
    last: Instant,
}

/// All that is to be said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// Nothing would be lost if the primary died now.
    pub(crate) is_safe: bool,
    /// How this firewall stands as the one that takes over.
    pub(crate) ready: Readiness,
    /// Our flows that nobody else holds; `None` if the peer does not report it.
    pub(crate) unprotected: Option<u64>,
    pub(crate) attention: Vec<Attention>,
}

impl Verdict {
    /// Without replication: nothing can be lost that was to be kept.
    pub(crate) fn alone() -> Verdict {
        Verdict {
            is_safe: true,
            ready: in_sync("nothing is replicated".to_owned()),
            unprotected: None,
            attention: Vec::new(),
        }
    }
}

impl Health {
    /// Notes the facts of this second.
    pub(crate) fn sample(&mut self, facts: &Facts) {
        if std::mem::replace(&mut self.role, facts.role) != facts.role {
            // What was unprotected before says nothing of the flows that have become ours.
            self.unprotected.note(None);
        }
        let lacks = facts.ours.map(|(held, all)| all.saturating_sub(held));
        self.unprotected.note(lacks);
        self.note_heard(facts);
        self.note_roles(facts);
        let Theirs::Reported(reported) = facts.theirs else {
            self.lacking.note(None);
            self.began = None;
            return;
        };
        self.lacking.note(Some(reported.flows - reported.held));
        match self.began {
            _ if reported.held >= reported.flows => self.began = None,
            // It may have been forgotten meanwhile.
            Some((_, held)) if held <= reported.held => {}
            _ => self.began = Some((facts.now, reported.held)),
        }
    }

    /// What is held of the peer's flows has been forgotten, or the peer has.
    pub(crate) fn forget_theirs(&mut self) {
        self.lacking.note(None);
    }

    fn note_heard(&mut self, facts: &Facts) {
        let Some(silence) = facts.silence else {
            self.heard = None;
            return;
        };
        let long = match facts.theirs {
            // With flows it would have sent something.
            Theirs::Repeated(within) => within,
            Theirs::Reported(_) | Theirs::Unreported | Theirs::Asked(_) => LOST_AFTER,
        };
        let last = facts.now.before(silence);
        match &mut self.heard {
            Some(heard) if heard.peer == facts.peer && last.since(heard.last) < long => {
                heard.last = last;
            }
            _ => {
                self.heard = Some(Heard {
                    peer: facts.peer,
                    since: last,
                    last,
                });
            }
        }
    }

    /// True if a peer that was asked for everything was silent since then: whether it has got
    /// the request, and whether all has come that it sent, is not known.
    pub(crate) fn must_ask_again(&self, asked: Instant) -> bool {
        (self.heard).is_some_and(|heard| heard.since.since(asked) > UNHEARD)
    }

    fn note_roles(&mut self, facts: &Facts) {
        let is_same = facts.role != Role::Unknown && facts.role == facts.peer_role;
        match is_same && !facts.is_lost {
            true => _ = self.same_since.get_or_insert(facts.now),
            false => self.same_since = None,
        }
    }

    /// What the facts, and those of the last seconds, come to.
    pub(crate) fn verdict(&self, facts: &Facts) -> Verdict {
        let ready = self.ready(facts);
        let mut attention = self.attention(facts);
        let unprotected = self.unprotected(facts);
        let mut is_safe = facts.silence.is_some() && !facts.is_lost;
        if facts.role == Role::Primary {
            let lacks = unprotected.unwrap_or(0);
            if lacks > 0 && attention.is_empty() {
                attention.push(say(
                    format!("the peer does not hold {lacks} of our flows"),
                    "they are being sent; if the number stays, look at `HashLimit` and at the log of the peer, and whether its kernel has room",
                ));
            }
            is_safe &= lacks == 0;
        }
        Verdict {
            is_safe: is_safe && ready.is_ready,
            ready,
            unprotected,
            attention,
        }
    }

    fn unprotected(&self, facts: &Facts) -> Option<u64> {
        let (held, all) = facts.ours?;
        let now = all.saturating_sub(held);
        let lacks = match facts.is_lost {
            true => all,
            false => self.unprotected.least(now),
        };
        Some(lacks as u64)
    }

    fn ready(&self, facts: &Facts) -> Readiness {
        if facts.is_primary_of_all() {
            return in_sync("this firewall is primary".to_owned());
        }
        let Some(silence) = facts.silence else {
            return not(match facts.links.iter().all(|l| l.trouble.is_some()) {
                true => "no dedicated link is usable, and the peer has not been heard".to_owned(),
                false => "the peer has not been heard since the start".to_owned(),
            });
        };
        if facts.is_lost && silence >= KEPT {
            let secs = silence.as_secs();
            return not(format!(
                "the peer has been silent for {secs} s: flows that it has made since are unknown"
            ));
        }
        match facts.theirs {
            Theirs::Unreported => not("the peer has not said yet how many flows it has".to_owned()),
            Theirs::Asked(asked) => self.ready_if_asked(facts.now, asked),
            Theirs::Repeated(within) => {
                let heard = self.heard.map(|heard| facts.now.since(heard.since));
                match heard.is_some_and(|time| time >= within) {
                    true => in_sync(AS_FAR_AS_KNOWN.to_owned()),
                    false => not(format!(
                        "the peer repeats everything within {} s, and has not been heard for so long",
                        within.as_secs()
                    )),
                }
            }
            Theirs::Reported(reported) => self.ready_by_counts(facts, silence, reported),
        }
    }

    fn ready_if_asked(&self, now: Instant, asked: Option<Instant>) -> Readiness {
        let is_answered = |at: Instant| now.since(at) >= ANSWERED_AFTER && !self.must_ask_again(at);
        match asked.is_some_and(is_answered) {
            true => in_sync(AS_FAR_AS_KNOWN.to_owned()),
            false => not(
                "the peer has not been asked for its flows (`ftfw resync peer`), or its answer may \
                 not be complete"
                    .to_owned(),
            ),
        }
    }

    fn ready_by_counts(&self, facts: &Facts, silence: Duration, theirs: Reported) -> Readiness {
        let Reported {
            flows,
            held,
            is_in_bulk,
        } = theirs;
        let lost = self.lacking.least(flows - held);
        if lost == 0 && facts.full[1] && !facts.is_lost {
            // Counts say nothing then: what fills it may be flows that the peer does not have,
            // announced by somebody in its name.
            return not(format!(
                "the external cache is full: new flows of the peer are not kept, and which of its \
                 {flows} flows are missing is not known"
            ));
        }
        let kept = flows - lost;
        let with_counts = |readiness| Readiness {
            lost: Some(lost as u64),
            percent: Some((kept * 100).checked_div(flows).unwrap_or(100) as u64),
            ..readiness
        };
        let secs = silence.as_secs();
        with_counts(match (lost, facts.is_lost) {
            (0, true) => in_sync(format!(
                "{kept} flows of the peer were held when it was last heard, {secs} s ago, and none \
                 was missing"
            )),
            (0, false) => in_sync(format!(
                "{kept} flows of the peer are held; none would be lost if it died now"
            )),
            (_, true) => not(format!(
                "{lost} of {flows} flows of the peer were missing when it was last heard, {secs} s \
                 ago"
            )),
            (_, false) if facts.full[1] => not(format!(
                "the external cache is full: {lost} of {flows} flows of the peer would be lost if \
                 it died now"
            )),
            (_, false) => {
                let what = match is_in_bulk {
                    true => "the peer sends everything",
                    false if facts.not_in_kernel > 0 => {
                        "this firewall's kernel had no room for flows, or they were deleted in it, \
                         and they are tried again"
                    }
                    false => "flows are on their way",
                };
                Readiness {
                    verdict: "catching up",
                    reason: format!(
                        "{what}: {lost} of {flows} flows of the peer would be lost if it died now"
                    ),
                    seconds_left: self.seconds_left(facts.now, lost, held),
                    ..Readiness::default()
                }
            }
        })
    }

    /// From how fast it went so far; `None` before there is anything to tell by.
    fn seconds_left(&self, now: Instant, lost: usize, held: usize) -> Option<u64> {
        let (at, before) = self.began?;
        let took = now.since(at).as_secs_f64();
        let rate = (held - before.min(held)) as f64 / took;
        (took >= 1.0 && rate > 0.0).then(|| (lost as f64 / rate).ceil() as u64)
    }

    fn attention(&self, facts: &Facts) -> Vec<Attention> {
        let mut list = Vec::new();
        for link in &facts.links {
            if let Some(trouble) = link.trouble {
                list.push(say(
                    format!("link {}: {trouble}", link.name),
                    "look at the cable, at `ip link`, and at this firewall's own rules for the link",
                ));
            }
        }
        match facts.silence {
            Some(silence) if facts.is_lost => list.push(say(
                format!("the peer is lost: nothing has come from it for {} s", silence.as_secs()),
                "look at its daemon (`systemctl status`), and at the dedicated link at both ends",
            )),
            None if facts.uptime >= START && !facts.is_quiet_mode => list.push(say(
                "the peer has not been heard since the start".to_owned(),
                "start its daemon; compare addresses, port and `Mode` of both files; do rules drop the link's messages?",
            )),
            _ => {}
        }
        if let (others, lost @ 1..) = facts.others {
            list.push(say(
                format!("another peer is lost: {lost} of {others}, without which this firewall is judged"),
                "look at its daemon and its link; a peer that has been taken away is forgotten when this daemon starts again",
            ));
        }
        let is_long = |since: Instant| facts.now.since(since) >= CHANGING;
        if self.same_since.is_some_and(is_long) && facts.instances.len() < 2 {
            list.push(match facts.role {
                Role::Primary => say(
                    "both firewalls are primary".to_owned(),
                    "look at the HA manager: does each hear the other one's advertisements? Then `ftfw backup` on the one without the virtual addresses",
                ),
                _ => say(
                    "both firewalls are backup".to_owned(),
                    "look at the HA manager: the one that has the virtual addresses must call `ftfw primary`",
                ),
            });
        }
        for (is_full, name) in facts.full.iter().zip(["internal", "external"]) {
            if *is_full {
                list.push(say(
                    format!("the {name} cache is full: new flows are not replicated"),
                    "raise `HashLimit` in both files, and start the daemons again",
                ));
            }
        }
        if let Some((flows, max)) = facts.table
            && max > 0
            && flows * 10 >= max * TABLE_FULL
        {
            list.push(say(
                format!("the kernel's table is nearly full: {flows} of {max} flows"),
                "raise net.netfilter.nf_conntrack_max on both firewalls",
            ));
        }
        if let Some(trouble) = &facts.gate_trouble {
            list.push(say(
                format!("the gate is not closed: {trouble}"),
                "`nft list table inet ftfw_gate`; is the package `nftables` there? It is tried again three times in a `Timeout`",
            ));
        }
        for instance in &facts.instances {
            list.extend(of_instance(instance));
        }
        list
    }
}

fn of_instance(instance: &InstanceFacts) -> Option<Attention> {
    use control::call::Role;
    let name = &instance.name;
    if let Some(late) = instance.opened_late {
        let (why, help) = match late {
            Late::NoCommit => (
                "no commit had ended",
                "the HA manager must call `ftfw primary` when it has moved the addresses",
            ),
            Late::CommitRuns => (
                "the commit took too long",
                "raise `Timeout` in `Gate`; `ftfw status` shows how long a change takes",
            ),
        };
        let what = format!("the gate of instance `{name}` has opened by itself: {why}");
        return Some(say(what, help));
    }
    if let (Some(step), Some(role)) = (instance.failed, instance.role) {
        let (step, role) = (short(step), role.name());
        return Some(say(
            format!("instance `{name}` is {role}, but the {step} failed"),
            &format!("the log says why; `ftfw {role} --instance {name}` does it again"),
        ));
    }
    if instance.since < CHANGING {
        return None;
    }
    match (instance.role, instance.is_here) {
        (None, Some(_)) => Some(say(
            format!("instance `{name}` has no role since the start, and its gate is open"),
            &format!(
                "`ftfw primary --instance {name}` where the virtual addresses are, `ftfw backup` \
                 elsewhere; `ftfw keepalived` does this by itself"
            ),
        )),
        (Some(Role::Primary), Some(false)) => Some(say(
            format!("instance `{name}` is primary here, and its virtual addresses are not here"),
            "look at the HA manager, then `ftfw backup`",
        )),
        (Some(Role::Backup | Role::Fault), Some(true)) => Some(say(
            format!("instance `{name}` is no primary here, and its virtual address is here"),
            "look at the HA manager, then `ftfw primary`",
        )),
        _ => None,
    }
}

/// What is said of a peer whose flows cannot be counted.
const AS_FAR_AS_KNOWN: &str = "as far as the peer's protocol shows; it reports no counts";

fn in_sync(reason: String) -> Readiness {
    Readiness {
        verdict: "in sync",
        is_ready: true,
        reason,
        ..Readiness::default()
    }
}

fn not(reason: String) -> Readiness {
    Readiness {
        verdict: "not",
        reason,
        ..Readiness::default()
    }
}

fn say(what: String, help: &str) -> Attention {
    Attention {
        what,
        help: help.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::START + Duration::from_secs(secs)
    }

    fn reported(flows: usize, held: usize) -> Theirs {
        Theirs::Reported(Reported {
            flows,
            held,
            is_in_bulk: false,
        })
    }

    /// A healthy backup.
    fn facts() -> Facts {
        Facts {
            now: at(100),
            uptime: Duration::from_secs(100),
            role: Role::Backup,
            is_quiet_mode: false,
            peer: PeerId::FIRST,
            silence: Some(Duration::from_millis(300)),
            is_lost: false,
            peer_role: Role::Primary,
            theirs: reported(50, 50),
            ours: Some((0, 0)),
            others: (0, 0),
            links: vec![LinkFacts {
                name: "eth2".to_owned(),
                trouble: None,
            }],
            full: [false; 2],
            not_in_kernel: 0,
            table: Some((10, 100)),
            instances: Vec::new(),
            gate_trouble: None,
        }
    }

    fn whats(verdict: &Verdict) -> Vec<&str> {
        verdict.attention.iter().map(|a| a.what.as_str()).collect()
    }

    #[test]
    fn a_healthy_pair_needs_nothing() {
        let verdict = Health::default().verdict(&facts());
        assert!(verdict.is_safe && verdict.ready.is_ready);
        assert_eq!(verdict.ready.verdict, "in sync");
        assert_eq!(verdict.ready.lost, Some(0));
        assert_eq!(whats(&verdict), Vec::<&str>::new());
        let primary = Facts {
            role: Role::Primary,
            peer_role: Role::Backup,
            ours: Some((50, 50)),
            ..facts()
        };
        assert!(Health::default().verdict(&primary).is_safe);
    }

    #[test]
    fn a_backup_that_lacks_flows_is_not_ready_and_says_how_long_it_takes() {
        let mut health = Health::default();
        for (secs, held) in [(100, 0), (101, 10), (102, 20)] {
            let facts = Facts {
                now: at(secs),
                theirs: reported(50, held),
                ..facts()
            };
            health.sample(&facts);
        }
        let now = Facts {
            now: at(102),
            theirs: reported(50, 20),
            ..facts()
        };
        let verdict = health.verdict(&now);
        assert_eq!(verdict.ready.verdict, "catching up");
        assert_eq!(
            (verdict.ready.lost, verdict.ready.percent),
            (Some(30), Some(40))
        );
        assert_eq!(verdict.ready.seconds_left, Some(3));
        assert!(!verdict.is_safe && !verdict.ready.is_ready);
        let refused = Facts {
            not_in_kernel: 5,
            ..now.clone()
        };
        let verdict = health.verdict(&refused);
        assert_eq!(verdict.ready.verdict, "catching up");
        assert!(verdict.ready.reason.contains("no room"));
        let full = Facts {
            full: [false, true],
            ..now
        };
        let verdict = health.verdict(&full);
        assert_eq!(verdict.ready.verdict, "not");
        assert!(verdict.ready.reason.contains("full"));
    }

    /// Goal: flows that somebody else has announced in the peer's name do not stand for its own.
    #[test]
    fn a_full_cache_is_not_ready_though_the_counts_agree() {
        let full = Facts {
            full: [false, true],
            ..facts()
        };
        let verdict = Health::default().verdict(&full);
        assert_eq!((verdict.ready.verdict, verdict.ready.lost), ("not", None));
        assert!(!verdict.is_safe, "{:?}", verdict.ready);
        // It may have died: otherwise nobody takes over.
        let lost = Facts {
            is_lost: true,
            silence: Some(Duration::from_secs(6)),
            ..full
        };
        assert!(Health::default().verdict(&lost).ready.is_ready);
    }

    #[test]
    fn a_backup_stays_ready_for_a_time_when_the_peer_falls_silent() {
        let silent_for = |secs| Facts {
            is_lost: secs >= 5,
            silence: Some(Duration::from_secs(secs)),
            ..facts()
        };
        let of = |facts: &Facts| Health::default().verdict(facts);
        assert!(of(&silent_for(4)).is_safe);
        for secs in [5, 29] {
            let verdict = of(&silent_for(secs));
            let Readiness {
                is_ready, reason, ..
            } = &verdict.ready;
            assert!(is_ready, "it may have died: otherwise nobody takes over");
            assert!(!verdict.is_safe, "its flows since then are unknown");
            let when = format!("when it was last heard, {secs} s ago");
            assert!(reason.contains(&when), "{reason}");
            assert!(whats(&verdict)[0].starts_with("the peer is lost"));
        }
        for theirs in [reported(50, 50), Theirs::Asked(Some(at(0)))] {
            let verdict = of(&Facts {
                theirs,
                ..silent_for(30)
            });
            assert_eq!(verdict.ready.verdict, "not");
            assert!(!verdict.ready.is_ready && !verdict.is_safe);
            let reason = &verdict.ready.reason;
            assert!(reason.starts_with("the peer has been silent for 30 s"));
        }
        // It has taken over.
        let primary = Facts {
            role: Role::Primary,
            ..silent_for(60)
        };
        assert!(of(&primary).ready.is_ready);
    }

    #[test]
    fn nothing_is_on_its_way_from_a_peer_that_is_lost() {
        let lost = Facts {
            is_lost: true,
            silence: Some(Duration::from_secs(7)),
            theirs: reported(50, 20),
            ..facts()
        };
        let ready = Health::default().verdict(&lost).ready;
        assert_eq!((ready.verdict, ready.lost), ("not", Some(30)));
        assert_eq!(
            ready.reason,
            "30 of 50 flows of the peer were missing when it was last heard, 7 s ago"
        );
    }

    #[test]
    fn flows_are_lost_if_every_sample_shows_it() {
        let holds = |held| Facts {
            theirs: reported(1000, held),
            ..facts()
        };
        let mut health = Health::default();
        health.sample(&holds(1000));
        let ready = health.verdict(&holds(990)).ready;
        assert_eq!((ready.verdict, ready.lost), ("in sync", Some(0)));
        for _ in 0..SAMPLES {
            health.sample(&holds(990));
        }
        let ready = health.verdict(&holds(900)).ready;
        assert_eq!((ready.verdict, ready.lost), ("catching up", Some(10)));
        let unreported = Facts {
            theirs: Theirs::Unreported,
            ..facts()
        };
        assert_eq!(health.verdict(&unreported).ready.verdict, "not");
        // What was held before it was forgotten does not count.
        health.sample(&holds(1000));
        health.forget_theirs();
        assert_eq!(health.verdict(&holds(0)).ready.lost, Some(1000));
    }

    #[test]
    fn a_new_primary_is_not_safe_before_the_peer_holds_its_flows() {
        let mut health = Health::default();
        let facts = |role, ours| Facts {
            role,
            ours: Some(ours),
            ..facts()
        };
        let backup = facts(Role::Backup, (0, 0));
        for _ in 0..SAMPLES {
            health.sample(&backup);
        }
        let primary = facts(Role::Primary, (0, 200));
        health.sample(&primary);
        let verdict = health.verdict(&primary);
        assert_eq!((verdict.is_safe, verdict.unprotected), (false, Some(200)));
    }

    #[test]
    fn who_is_primary_for_a_part_is_judged_by_the_rest() {
        let instance = |role| InstanceFacts {
            name: "A".to_owned(),
            role: Some(role),
            since: Duration::from_secs(1),
            is_here: None,
            opened_late: None,
            failed: None,
        };
        use control::call::Role as R;
        let of = |roles: [R; 2], theirs| {
            Health::default().verdict(&Facts {
                role: Role::Primary,
                theirs,
                instances: roles.map(instance).to_vec(),
                ..facts()
            })
        };
        let part = of([R::Primary, R::Backup], reported(50, 20));
        assert!(!part.ready.is_ready && !part.is_safe, "{part:?}");
        let part = of([R::Primary, R::Backup], reported(50, 50));
        assert!(part.ready.is_ready && part.is_safe, "{part:?}");
        let all = of([R::Primary, R::Primary], reported(50, 20));
        assert!(all.ready.is_ready && all.is_safe, "{all:?}");
    }

    #[test]
    fn of_several_peers_the_one_counts_that_would_take_over_or_be_taken_over_from() {
        let peer = |n: u8, lives, role, flows, held| Candidate {
            peer: PeerId(n),
            lives,
            role,
            flows,
            held,
        };
        let (primary, backup) = (Role::Primary, Role::Backup);
        let of = |own, all: &[Candidate]| judged(own, all.iter().copied()).0;
        assert_eq!(of(backup, &[]), 0);
        let pair = [
            peer(0, false, backup, 0, 900),
            peer(1, true, primary, 1000, 0),
        ];
        assert_eq!(of(backup, &pair), 1, "the third node is off");
        assert_eq!(of(primary, &pair), 1);
        let died = [
            peer(0, true, backup, 0, 0),
            peer(1, false, primary, 1000, 0),
        ];
        assert_eq!(of(backup, &died), 1, "its flows are to be taken over");
        let backups = [
            peer(0, true, backup, 0, 10),
            peer(1, true, backup, 0, 1000),
            peer(2, false, backup, 0, 2000),
        ];
        assert_eq!(of(primary, &backups), 1, "it lives, and holds most");
        let same = [peer(0, true, backup, 5, 5), peer(1, true, backup, 5, 5)];
        assert_eq!((of(primary, &same), of(backup, &same)), (0, 0));
    }

    #[test]
    fn another_peer_that_is_lost_is_named_and_changes_nothing() {
        let verdict = Health::default().verdict(&Facts {
            others: (2, 1),
            ..facts()
        });
        assert!(verdict.is_safe);
        assert!(whats(&verdict)[0].starts_with("another peer is lost: 1 of 2"));
    }

    #[test]
    fn who_has_heard_nobody_is_not_ready_unless_primary() {
        let alone = Facts {
            silence: None,
            theirs: Theirs::Asked(None),
            ..facts()
        };
        let verdict = Health::default().verdict(&alone);
        assert_eq!(
            (verdict.ready.verdict, verdict.ready.is_ready),
            ("not", false)
        );
        assert_eq!(
            whats(&verdict),
            ["the peer has not been heard since the start"]
        );
        let primary = Facts {
            role: Role::Primary,
            ..alone
        };
        let verdict = Health::default().verdict(&primary);
        assert!(verdict.ready.is_ready, "it must not give up its role");
        assert!(!verdict.is_safe);
    }

    #[test]
    fn flows_are_unprotected_if_every_sample_shows_it() {
        let primary = |held, all| Facts {
            role: Role::Primary,
            peer_role: Role::Backup,
            ours: Some((held, all)),
            ..facts()
        };
        let mut health = Health::default();
        for (held, all) in [(900, 1000), (1000, 1000), (950, 1000), (940, 1000)] {
            health.sample(&primary(held, all));
        }
        let verdict = health.verdict(&primary(900, 1000));
        assert_eq!((verdict.unprotected, verdict.is_safe), (Some(0), true));
        for _ in 0..SAMPLES {
            health.sample(&primary(990, 1000));
        }
        let verdict = health.verdict(&primary(900, 1000));
        assert_eq!((verdict.unprotected, verdict.is_safe), (Some(10), false));
        assert_eq!(whats(&verdict), ["the peer does not hold 10 of our flows"]);
        let lost = Facts {
            is_lost: true,
            ..primary(990, 1000)
        };
        assert_eq!(health.verdict(&lost).unprotected, Some(1000));
    }

    #[test]
    fn an_original_is_believed_once_it_has_been_asked() {
        let original = |now, asked, silence| Facts {
            now: at(now),
            theirs: Theirs::Asked(asked),
            silence: Some(Duration::from_secs(silence)),
            is_lost: silence >= 5,
            ..facts()
        };
        let mut health = Health::default();
        // It is asked before its first message, which comes within a second.
        let asked = Some(at(100));
        health.sample(&original(101, asked, 0));
        let is_ready = |health: &Health, facts| health.verdict(&facts).ready.is_ready;
        assert!(!is_ready(&health, original(101, None, 0)));
        assert!(!is_ready(&health, original(104, asked, 0)));
        let ready = health.verdict(&original(105, asked, 0)).ready;
        assert_eq!((ready.is_ready, ready.lost), (true, None));
        // It falls silent, and comes back: what it made meanwhile is not known.
        for (now, silence) in [(105, 1), (109, 5), (114, 10)] {
            health.sample(&original(now, asked, silence));
            assert!(
                is_ready(&health, original(now, asked, silence)),
                "it may have died"
            );
        }
        assert!(!health.must_ask_again(at(100)));
        health.sample(&original(115, asked, 0));
        assert!(!is_ready(&health, original(115, asked, 0)));
        assert!(health.must_ask_again(at(100)));
        let asked = Some(at(115));
        assert!(!health.must_ask_again(at(115)));
        assert!(is_ready(&health, original(120, asked, 0)));
    }

    #[test]
    fn in_alarm_everything_has_been_repeated_since_the_peer_was_heard_again() {
        let within = Duration::from_secs(15);
        let facts = |now, silence| Facts {
            now: at(now),
            is_quiet_mode: true,
            theirs: Theirs::Repeated(within),
            silence: Some(Duration::from_secs(silence)),
            ..facts()
        };
        let mut health = Health::default();
        let mut is_ready = |now, silence| {
            health.sample(&facts(now, silence));
            health.verdict(&facts(now, silence)).ready.is_ready
        };
        assert!(!is_ready(100, 0), "however long this daemon runs");
        assert!(!is_ready(114, 0));
        assert!(is_ready(115, 0));
        assert!(is_ready(125, 10));
        assert!(is_ready(140, 25), "silence means nothing");
        assert!(!is_ready(141, 0));
        assert!(!is_ready(150, 0));
        assert!(is_ready(156, 0));
    }

    #[test]
    fn an_instance_without_addresses_may_have_no_role() {
        // No gate follows it, and the HA manager may never name it.
        let of = |is_here| {
            let instance = InstanceFacts {
                name: "A".to_owned(),
                role: None,
                since: Duration::from_secs(60),
                is_here,
                opened_late: None,
                failed: None,
            };
            let facts = Facts {
                instances: vec![instance],
                ..facts()
            };
            Health::default().verdict(&facts).attention.len()
        };
        assert_eq!((of(None), of(Some(false))), (0, 1));
    }

    #[test]
    fn each_trouble_is_named_with_what_to_do() {
        let instance = |role, is_here, opened_late| InstanceFacts {
            name: "A".to_owned(),
            role: Some(role),
            since: Duration::from_secs(60),
            is_here: Some(is_here),
            opened_late,
            failed: None,
        };
        use control::call::Role as R;
        let of = |facts: Facts| {
            let mut health = Health::default();
            health.sample(&facts);
            let later = Facts {
                now: facts.now + Duration::from_secs(10),
                ..facts
            };
            health.verdict(&later)
        };
        let broken = vec![LinkFacts {
            name: "eth3".to_owned(),
            trouble: Some("no carrier"),
        }];
        let cases = [
            (
                Facts {
                    links: broken,
                    ..facts()
                },
                "link eth3: no carrier",
            ),
            (
                Facts {
                    role: Role::Primary,
                    ..facts()
                },
                "both firewalls are primary",
            ),
            (
                Facts {
                    peer_role: Role::Backup,
                    ..facts()
                },
                "both firewalls are backup",
            ),
            (
                Facts {
                    full: [true, false],
                    ..facts()
                },
                "the internal cache is full",
            ),
            (
                Facts {
                    table: Some((90, 100)),
                    ..facts()
                },
                "the kernel's table is nearly full: 90 of 100 flows",
            ),
            (
                Facts {
                    instances: vec![instance(R::Primary, false, None)],
                    ..facts()
                },
                "instance `A` is primary here",
            ),
            (
                Facts {
                    instances: vec![instance(R::Backup, true, None)],
                    ..facts()
                },
                "instance `A` is no primary here",
            ),
            (
                Facts {
                    instances: vec![instance(R::Backup, true, Some(Late::NoCommit))],
                    ..facts()
                },
                "the gate of instance `A` has opened by itself: no commit had ended",
            ),
            (
                Facts {
                    instances: vec![instance(R::Primary, true, Some(Late::CommitRuns))],
                    ..facts()
                },
                "the gate of instance `A` has opened by itself: the commit took too long",
            ),
            (
                Facts {
                    gate_trouble: Some("no nft".to_owned()),
                    ..facts()
                },
                "the gate is not closed: no nft",
            ),
            (
                Facts {
                    instances: vec![InstanceFacts {
                        failed: Some(Step::Commit),
                        ..instance(R::Primary, true, None)
                    }],
                    ..facts()
                },
                "instance `A` is primary, but the commit failed",
            ),
            (
                Facts {
                    instances: vec![InstanceFacts {
                        role: None,
                        ..instance(R::Backup, true, None)
                    }],
                    ..facts()
                },
                "instance `A` has no role since the start",
            ),
        ];
        for (facts, what) in cases {
            let verdict = of(facts);
            assert_eq!(verdict.attention.len(), 1, "{what}: {verdict:?}");
            assert!(verdict.attention[0].what.starts_with(what), "{verdict:?}");
            assert!(verdict.attention[0].help.len() > 10);
        }
    }
}
