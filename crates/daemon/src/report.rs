//! What the daemon says of itself: the original's statistics, and our own status.

use std::fmt;

use control::StatsKind;
use control::reply::{
    self, CacheReport, NetworkReport, PeerReport, QueueReport, Report, RuntimeReport,
};
use control::rows::{InstanceRow, StatusRow};
use counters::{CacheStats, DaemonStats};
use replica::{Mode, PeerId, Role, Which};
use wire::v1::{Control, Flags};

use crate::health::{Candidate, Facts, InstanceFacts, LinkFacts, Theirs, Verdict, judged};
use crate::kernel::EventSocket;
use crate::metrics::Metrics;
use crate::roles::Known;
use crate::sysctl;
use crate::turn::Loop;

impl Loop<'_> {
    pub(crate) fn stats(&self, kind: StatsKind) -> String {
        if self.host.statistics.is_some() {
            let report = self.report();
            match kind {
                StatsKind::General => return reply::statistics(&report.internal, report.traffic),
                StatsKind::Cache => return reply::statistics_cache(&report.internal),
                _ => {}
            }
        }
        match kind {
            StatsKind::General => reply::general(&self.report()),
            StatsKind::Network => reply::network(&self.report()),
            StatsKind::Cache => reply::cache_stats(&self.report()),
            StatsKind::Link => reply::links(&self.report().links),
            StatsKind::Runtime => reply::runtime(&self.runtime()),
            StatsKind::Queue => reply::queues(&self.queues()),
            StatsKind::ResendQueue => self.resend_queue(),
            StatsKind::Process => String::new(),
            StatsKind::Expectations => self.expectations().map_or_else(String::new, |caches| {
                reply::general(&Report {
                    internal: caches.0,
                    external: caches.1,
                    ..self.report()
                })
            }),
        }
    }

    /// One line for the service manager.
    pub(crate) fn report_status(&mut self) {
        if !self.service.wants_status() {
            return;
        }
        let line = self.status_line().to_string();
        self.service.status(line);
    }

    fn status_line(&self) -> StatusLine {
        let replica = &self.replica;
        let facts = self.facts();
        let link = facts.links.get(replica.current_link().0);
        let link = link.filter(|link| link.trouble.is_none());
        let attention = self.health.verdict(&facts).attention;
        StatusLine {
            mode: mode_name(replica.settings().mode),
            role: replica.role(),
            peer: replica.is_lost(facts.peer),
            is_quiet_mode: facts.is_quiet_mode,
            flows: [Which::Internal, Which::External].map(|which| replica.len(which)),
            link: link.map(|link| link.name.clone()),
            attention: attention.first().map(|first| first.what.clone()),
        }
    }

    /// How things stand now, also in the kernel.
    pub(crate) fn facts(&self) -> Facts {
        // If the addresses cannot be read, nothing is claimed about them.
        let mut known = self.changes.roles.list.iter();
        let has_addresses = known.any(|known| !known.of.addresses.is_empty());
        let here = has_addresses.then(|| sys::interface::addresses().ok());
        let here = here.flatten();
        let is_here = |known: &Known| here.as_ref().and_then(|here| known.is_at(here));
        let table = sysctl::flows().zip(sysctl::flows_max().map(|n| n as u64));
        self.facts_with(table, is_here)
    }

    /// The same without what the kernel would have to be asked for.
    pub(crate) fn facts_of_the_replica(&self) -> Facts {
        self.facts_with(None, |_| None)
    }

    fn facts_with(
        &self,
        table: Option<(u64, u64)>,
        is_here: impl Fn(&Known) -> Option<bool>,
    ) -> Facts {
        let replica = &self.replica;
        let settings = replica.settings();
        let peer = self.judged_peer();
        let (epoch, peer_role) = replica.epoch_and_role_of(peer);
        let is_full = |is_on: bool, which| is_on && replica.len(which) >= settings.limit;
        let links = self.host.links.list.iter().map(|link| LinkFacts {
            name: link.device().to_owned(),
            trouble: link.trouble(),
        });
        let now = self.now();
        let instances = self.changes.roles.list.iter().map(|known| InstanceFacts {
            name: known.of.name.clone(),
            role: known.role,
            since: now.since(known.since),
            is_here: is_here(known),
            opened_late: known.opened_late,
            failed: known.failed.first().copied(),
        });
        let theirs = match (epoch, replica.reported_by(peer)) {
            (Some(_), Some(reported)) => Theirs::Reported(reported),
            _ if settings.mode == Mode::Alarm => Theirs::Repeated(settings.refresh_time),
            (Some(_), None) => Theirs::Unreported,
            (None, _) => Theirs::Asked(self.host.asked_peer_at),
        };
        let others = replica.peer_ids().filter(|other| *other != peer);
        let lost: Vec<bool> = others.filter_map(|other| replica.is_lost(other)).collect();
        Facts {
            now,
            uptime: self.start.elapsed(),
            role: replica.role(),
            is_quiet_mode: settings.mode == Mode::Alarm,
            peer,
            silence: replica.silence_of(peer),
            is_lost: replica.is_lost(peer) == Some(true),
            peer_role,
            theirs,
            ours: replica.held_by(peer),
            others: (lost.len(), lost.iter().filter(|is_lost| **is_lost).count()),
            links: links.collect(),
            full: [
                is_full(settings.internal_cache, Which::Internal),
                is_full(true, Which::External),
            ],
            not_in_kernel: replica.lacking(),
            table,
            instances: instances.collect(),
            gate_trouble: self.changes.gate_trouble().map(str::to_owned),
        }
    }

    /// The peer that is shown, and by which this firewall is judged.
    pub(crate) fn judged_peer(&self) -> PeerId {
        let replica = &self.replica;
        let candidates = replica.peer_ids().map(|peer| Candidate {
            peer,
            lives: replica.is_lost(peer) == Some(false),
            role: replica.epoch_and_role_of(peer).1,
            flows: replica.reported_by(peer).map_or(0, |r| r.flows),
            held: replica.held_by(peer).map_or(0, |(held, _)| held),
        });
        judged(replica.role(), candidates)
    }

    fn report(&self) -> Report {
        let replica = &self.replica;
        let stats = replica.stats();
        let settings = replica.settings();
        let cache =
            |enabled, which, counters| cache_report(enabled, replica.len(which) as u64, counters);
        let current = replica.current_link().0;
        Report {
            internal: cache(settings.internal_cache, Which::Internal, stats.internal),
            external: cache(settings.external_cache, Which::External, stats.external),
            traffic: (stats.traffic_bytes, stats.traffic_packets),
            links: (self.host.links.list.iter().enumerate())
                .map(|(n, link)| link.report(n == current))
                .collect(),
            network: NetworkReport {
                receive: stats.receive,
                peer: self.peer(),
            },
        }
    }

    /// The caches of expectations, if they are replicated.
    fn expectations(&self) -> Option<(CacheReport, CacheReport)> {
        let replica = &self.replica;
        let (internal, external) = replica.expectation_stats()?;
        let settings = replica.settings();
        let active = |which| replica.expectations_len(which) as u64;
        Some((
            cache_report(settings.internal_cache, active(Which::Internal), internal),
            cache_report(settings.external_cache, active(Which::External), external),
        ))
    }

    fn peer(&self) -> PeerReport {
        let replica = &self.replica;
        let stats = replica.stats();
        let peer = self.judged_peer();
        let (epoch, role) = replica.epoch_and_role_of(peer);
        let held = replica.held_by(peer);
        PeerReport {
            epoch: epoch.map(|e| e.0),
            role: role_name(role),
            restarts: stats.peer_restarts,
            confirmed: replica.confirmed() as u64,
            unconfirmed: replica.unconfirmed() as u64,
            held: held.map(|(held, _)| held as u64),
            should_hold: held.map(|(_, all)| all as u64),
            silent: replica.silence_of(peer).map(|s| s.as_secs()),
            stats,
            receive: stats.receive,
        }
    }

    fn queues(&self) -> QueueReport {
        let replica = &self.replica;
        let settings = replica.settings();
        let (flows, controls) = replica.unacknowledged();
        let unacknowledged = (
            flows as u64 + controls.len() as u64,
            settings.resend_queue as u64,
        );
        QueueReport {
            waiting: replica.owed() as u64,
            unsent: (
                self.host.links.waiting(),
                self.host.links.queue_length.into(),
            ),
            unacknowledged: (settings.mode == Mode::Ftfw).then_some(unacknowledged),
        }
    }

    /// Only FT-FW has one. The flows in it are counted, not listed: they may be millions.
    fn resend_queue(&self) -> String {
        if self.replica.settings().mode != replica::Mode::Ftfw {
            return String::new();
        }
        let (flows, controls) = self.replica.unacknowledged();
        let controls = controls.iter().map(|(seq, control)| {
            let flags = match control {
                Control::Resync => Flags::RESYNC,
                Control::Nack(..) => Flags::NACK,
                Control::Ack(..) => Flags::ACK,
                Control::Alive => Flags::ALIVE,
            };
            (seq.0, flags.0)
        });
        reply::resend_queue(flows as u64, controls)
    }

    fn runtime(&self) -> RuntimeReport {
        let events = self.host.events.as_ref();
        RuntimeReport {
            uptime_secs: self.start.elapsed().as_secs(),
            stats: self.replica.stats(),
            daemon: self.daemon_stats(),
            buffer_bytes: events.map_or(0, |e| e.buffer_bytes() as u64),
        }
    }

    fn instances(&self) -> Vec<InstanceRow> {
        let row = |known: &Known| InstanceRow {
            name: known.of.name.clone(),
            role: known.role.map_or("unknown", control::call::Role::name),
            since: self.now().since(known.since).as_secs(),
            took: known.took.map(|took| took.as_secs_f64()),
            gate: (self.changes.has_gate()).then_some(match known.is_closed {
                true if self.changes.gate_trouble().is_some() => "failed",
                true => "closed",
                false => "open",
            }),
        };
        self.changes.roles.list.iter().map(row).collect()
    }

    fn daemon_stats(&self) -> DaemonStats {
        let events = self.host.events.as_ref();
        let metrics = self.host.metrics.as_ref().map(Metrics::counted);
        let metrics = metrics.unwrap_or_default();
        DaemonStats {
            events_unknown: events.map_or(0, |e| e.unknown),
            events_failed: events.map_or(0, |e| e.failed),
            sources_unknown: self.host.links.sources_dropped().0,
            peers_refused: self.host.links.sources_dropped().1,
            streams_broken: self.host.links.streams_broken(),
            local_read_failed: self.local_read_failed,
            local_unknown: self.local_unknown,
            accept_failed: self.host.clients.accept_failed,
            clients_refused: self.host.clients.refused,
            clients_dropped: self.host.clients.dropped,
            commits: self.host.commits.count,
            commit_refused: self.host.commits.refused,
            scrapes: metrics.scrapes,
            scrapes_refused: metrics.refused,
            scrapers_dropped: metrics.dropped,
            metrics_file_failed: metrics.file_failed,
        }
    }

    /// Our own status.
    pub(crate) fn status(&self) -> StatusRow {
        let report = self.report();
        let replica = &self.replica;
        let (stats, settings) = (replica.stats(), replica.settings());
        let expectations = self.expectations();
        let verdict = match settings.mode {
            Mode::Statistics => Verdict::alone(),
            _ => self.health.verdict(&self.facts()),
        };
        StatusRow {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime: self.start.elapsed().as_secs(),
            mode: mode_name(settings.mode),
            role: role_name(replica.role()),
            safe: verdict.is_safe,
            ready: verdict.ready,
            unprotected: verdict.unprotected,
            attention: verdict.attention,
            instances: self.instances(),
            owed: replica.owed() as u64,
            unacknowledged: replica.unacknowledged().0 as u64,
            unsent: self.host.links.waiting(),
            event_buffer: (self.host.events.as_ref()).and_then(EventSocket::waiting),
            committing: replica.is_committing(),
            kernel_flows: sysctl::flows(),
            kernel_max: sysctl::flows_max().map(|n| n as u64),
            internal: report.internal,
            external: report.external,
            internal_expectations: expectations.map(|(internal, _)| internal),
            external_expectations: expectations.map(|(_, external)| external),
            peer: report.network.peer,
            links: report.links,
            listeners: Vec::new(),
            receive: stats.receive,
            stats,
            daemon: self.daemon_stats(),
        }
    }
}

/// The line of the service manager, e.g.
/// `FTFW, primary; peer there; 812 flows here, 790 of the peer; link eth2`.
#[derive(Clone, Debug)]
struct StatusLine {
    mode: &'static str,
    role: Role,
    /// The peer is lost; `None` if it has never been heard.
    peer: Option<bool>,
    /// Silence of the peer means nothing.
    is_quiet_mode: bool,
    /// Here, and of the peer.
    flows: [usize; 2],
    /// The link that is used, if it is usable.
    link: Option<String>,
    /// The first thing that somebody must do something about.
    attention: Option<String>,
}

impl fmt::Display for StatusLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [here, theirs] = self.flows;
        if self.mode == mode_name(Mode::Statistics) {
            return write!(f, "statistics: {here} flows");
        }
        let role = match self.role {
            Role::Unknown => "no role yet",
            Role::Primary => "primary",
            Role::Backup => "backup",
        };
        let peer = match self.peer {
            None => "peer never heard",
            Some(true) => "PEER LOST",
            Some(false) if self.is_quiet_mode => "peer heard",
            Some(false) => "peer there",
        };
        let link = match &self.link {
            Some(link) => format!("link {link}"),
            None => "NO LINK".to_owned(),
        };
        let mode = self.mode;
        write!(
            f,
            "{mode}, {role}; {peer}; {here} flows here, {theirs} of the peer; {link}"
        )?;
        match &self.attention {
            Some(what) => write!(f, "; ATTENTION: {what}"),
            None => Ok(()),
        }
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Statistics => "statistics",
        Mode::Notrack => "NOTRACK",
        Mode::Alarm => "ALARM",
        Mode::Ftfw => "FTFW",
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Unknown => "unknown",
        Role::Primary => "primary",
        Role::Backup => "backup",
    }
}

fn cache_report(enabled: bool, active: u64, counters: CacheStats) -> CacheReport {
    CacheReport {
        enabled,
        active,
        counters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_service_manager_has_these_forms() {
        let good = StatusLine {
            mode: "FTFW",
            role: Role::Primary,
            peer: Some(false),
            is_quiet_mode: false,
            flows: [812, 790],
            link: Some("eth2".to_owned()),
            attention: None,
        };
        let is = |line: StatusLine, text: &str| assert_eq!(line.to_string(), text);
        is(
            good.clone(),
            "FTFW, primary; peer there; 812 flows here, 790 of the peer; link eth2",
        );
        is(
            StatusLine {
                role: Role::Backup,
                peer: Some(true),
                attention: Some("the peer is lost: ...".to_owned()),
                ..good.clone()
            },
            "FTFW, backup; PEER LOST; 812 flows here, 790 of the peer; link eth2; \
             ATTENTION: the peer is lost: ...",
        );
        is(
            StatusLine {
                role: Role::Unknown,
                peer: None,
                link: None,
                ..good.clone()
            },
            "FTFW, no role yet; peer never heard; 812 flows here, 790 of the peer; NO LINK",
        );
        is(
            StatusLine {
                mode: "ALARM",
                is_quiet_mode: true,
                ..good.clone()
            },
            "ALARM, primary; peer heard; 812 flows here, 790 of the peer; link eth2",
        );
        is(
            StatusLine {
                mode: "statistics",
                ..good
            },
            "statistics: 812 flows",
        );
    }
}
