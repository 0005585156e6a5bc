//! Is it safe to fail over now, what would be lost, and what needs attention.
//!
//! Pure: `report` collects the facts ([`Facts`]), and once a second they are sampled
//! ([`Health::sample`]). Counts of two firewalls are never of the same moment, so flows count
//! as unprotected only if they have been so in each of the last samples.

use std::time::Duration;

use control::call::Step;
use control::rows::{Attention, Readiness};
use replica::{Instant, Reported, Role};

use crate::change::short;
use crate::roles::Late;

/// Samples of which the least counts: a flow is announced within a second, and the peer
/// reports a second later.
const SAMPLES: usize = 4;
/// Between two samples.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);
/// A daemon that has just started has not been heard, and hears nobody.
const START: Duration = Duration::from_secs(5);
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
    /// Another program, or ALARM: whether we have asked it for everything, or have heard all
    /// repetitions, long enough ago.
    Unknown { is_complete: bool },
}

/// What is known of this firewall and its peer now.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) now: Instant,
    pub(crate) uptime: Duration,
    pub(crate) role: Role,
    /// Mode ALARM: silence means nothing.
    pub(crate) is_quiet_mode: bool,
    /// Time since the last message of the peer.
    pub(crate) silence: Option<Duration>,
    pub(crate) is_lost: bool,
    pub(crate) peer_role: Role,
    pub(crate) theirs: Theirs,
    /// How many of our flows the peer holds, and should hold.
    pub(crate) ours: Option<(usize, usize)>,
    pub(crate) links: Vec<LinkFacts>,
    /// The cache of our flows, and that of the peer's, has no room.
    pub(crate) full: [bool; 2],
    /// Entries of the kernel's table, and how many there may be.
    pub(crate) table: Option<(u64, u64)>,
    pub(crate) instances: Vec<InstanceFacts>,
    /// Why a gate that is to be closed may be open.
    pub(crate) gate_trouble: Option<String>,
}

/// What is remembered of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Our flows that the peer did not hold.
    unprotected: Vec<usize>,
    /// When, and how many flows of the peer were held then, while we catch up.
    began: Option<(Instant, usize)>,
    /// Since when both have had the same role.
    same_since: Option<Instant>,
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
            ready: Readiness {
                verdict: "in sync",
                is_ready: true,
                reason: "nothing is replicated".to_owned(),
                ..Readiness::default()
            },
            unprotected: None,
            attention: Vec::new(),
        }
    }
}

impl Health {
    /// Notes the facts of this second.
    pub(crate) fn sample(&mut self, facts: &Facts) {
        let lacks = facts.ours.map(|(held, all)| all.saturating_sub(held));
        match lacks {
            Some(lacks) => {
                self.unprotected.truncate(SAMPLES - 1);
                self.unprotected.insert(0, lacks);
            }
            None => self.unprotected.clear(),
        }
        let Theirs::Reported(reported) = facts.theirs else {
            self.began = None;
            self.note_roles(facts);
            return;
        };
        match self.began {
            _ if reported.held >= reported.flows => self.began = None,
            // It may have been forgotten meanwhile.
            Some((_, held)) if held <= reported.held => {}
            _ => self.began = Some((facts.now, reported.held)),
        }
        self.note_roles(facts);
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
        let peer_takes_over = facts.silence.is_some() && !facts.is_lost;
        let is_safe = match facts.role {
            Role::Primary => {
                let lacks = unprotected.is_some_and(|n| n > 0);
                if lacks && attention.is_empty() {
                    let n = unprotected.unwrap_or(0);
                    attention.push(say(
                        format!("the peer does not hold {n} of our flows"),
                        "they are being sent; if the number stays, look at `HashLimit` and at the log of the peer",
                    ));
                }
                peer_takes_over && !lacks
            }
            Role::Backup | Role::Unknown => ready.is_ready,
        };
        Verdict {
            is_safe,
            ready,
            unprotected,
            attention,
        }
    }

    fn unprotected(&self, facts: &Facts) -> Option<u64> {
        let (held, all) = facts.ours?;
        let now = all.saturating_sub(held);
        let least = self.unprotected.iter().copied().min().unwrap_or(now);
        Some(if facts.is_lost { all } else { least.min(now) } as u64)
    }

    fn ready(&self, facts: &Facts) -> Readiness {
        let state = |verdict, is_ready, reason: String| Readiness {
            verdict,
            is_ready,
            reason,
            lost: None,
            percent: None,
            seconds_left: None,
        };
        if facts.role == Role::Primary {
            return state("in sync", true, "this firewall is primary".to_owned());
        }
        if facts.silence.is_none() {
            let reason = match facts.links.iter().all(|l| l.trouble.is_some()) {
                true => "no dedicated link is usable, and the peer has not been heard",
                false => "the peer has not been heard since the start",
            };
            return state("not", false, reason.to_owned());
        }
        let died = match facts.is_lost {
            true => "when it was last heard",
            false => "if it died now",
        };
        match facts.theirs {
            Theirs::Unknown { is_complete: false } => state(
                "not",
                false,
                "the peer has not been asked for its flows, or its answer may not be complete"
                    .to_owned(),
            ),
            Theirs::Unknown { is_complete: true } => state(
                "in sync",
                true,
                "as far as the peer's protocol shows; it reports no counts".to_owned(),
            ),
            Theirs::Reported(Reported {
                flows,
                held,
                is_in_bulk,
            }) => {
                let lost = flows - held;
                let counts = Readiness {
                    lost: Some(lost as u64),
                    percent: Some((held * 100).checked_div(flows).unwrap_or(100) as u64),
                    ..state("in sync", true, String::new())
                };
                if lost == 0 {
                    let reason =
                        format!("{held} flows of the peer are held; none would be lost {died}");
                    return Readiness { reason, ..counts };
                }
                let tail = format!("{lost} of {flows} flows of the peer would be lost {died}");
                if facts.full[1] {
                    let reason = format!("the external cache is full: {tail}");
                    return Readiness {
                        verdict: "not",
                        is_ready: false,
                        reason,
                        ..counts
                    };
                }
                let what = if is_in_bulk {
                    "the peer sends everything"
                } else {
                    "flows are on their way"
                };
                Readiness {
                    verdict: "catching up",
                    is_ready: false,
                    reason: format!("{what}: {tail}"),
                    seconds_left: self.seconds_left(facts.now, lost, held),
                    ..counts
                }
            }
        }
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
        (None, _) => Some(say(
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
            silence: Some(Duration::from_millis(300)),
            is_lost: false,
            peer_role: Role::Primary,
            theirs: reported(50, 50),
            ours: Some((0, 0)),
            links: vec![LinkFacts {
                name: "eth2".to_owned(),
                trouble: None,
            }],
            full: [false; 2],
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
        let full = Facts {
            full: [false, true],
            ..now
        };
        let verdict = health.verdict(&full);
        assert_eq!(verdict.ready.verdict, "not");
        assert!(verdict.ready.reason.contains("full"));
    }

    #[test]
    fn a_backup_stays_ready_when_the_peer_dies() {
        let died = Facts {
            is_lost: true,
            silence: Some(Duration::from_secs(60)),
            ..facts()
        };
        let verdict = Health::default().verdict(&died);
        assert!(verdict.ready.is_ready, "otherwise nobody takes over");
        assert!(whats(&verdict)[0].starts_with("the peer is lost"));
    }

    #[test]
    fn who_has_heard_nobody_is_not_ready_unless_primary() {
        let alone = Facts {
            silence: None,
            theirs: Theirs::Unknown { is_complete: false },
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
        let original = |is_complete| Facts {
            theirs: Theirs::Unknown { is_complete },
            ..facts()
        };
        assert!(!Health::default().verdict(&original(false)).ready.is_ready);
        let ready = Health::default().verdict(&original(true)).ready;
        assert_eq!((ready.is_ready, ready.lost), (true, None));
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
