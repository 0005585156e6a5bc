//! What the daemon says of itself: the original's statistics, and our own status.

use std::time::Instant;

use control::StatsKind;
use control::reply::{
    self, CacheReport, NetworkReport, PeerReport, QueueReport, Report, RuntimeReport,
};
use control::rows::{InstanceRow, StatusRow};
use counters::{CacheStats, DaemonStats};
use replica::{Mode, PeerId, Replica, Role, Which};
use wire::v1::{Control, Flags};

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
        let replica = &self.replica;
        let link = self.host.links.list.get(replica.current_link().0);
        let is_usable = || link.is_some_and(|l| l.is_usable(Instant::now()));
        self.service.status(|| status_line(replica, is_usable()));
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
        let (epoch, role) = replica.epoch_and_role_of(PeerId::FIRST);
        let held = replica.held_by(PeerId::FIRST);
        PeerReport {
            epoch: epoch.map(|e| e.0),
            role: role_name(role),
            restarts: stats.peer_restarts,
            confirmed: replica.confirmed() as u64,
            unconfirmed: replica.unconfirmed() as u64,
            held: held.map(|(held, _)| held as u64),
            should_hold: held.map(|(_, all)| all as u64),
            silent: replica.silence_of(PeerId::FIRST).map(|s| s.as_secs()),
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
            gate: (self.changes.has_gate()).then_some(if known.is_closed {
                "closed"
            } else {
                "open"
            }),
        };
        self.changes.roles.list.iter().map(row).collect()
    }

    fn daemon_stats(&self) -> DaemonStats {
        let events = self.host.events.as_ref();
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
        }
    }

    /// Our own status.
    pub(crate) fn status(&self) -> StatusRow {
        let report = self.report();
        let replica = &self.replica;
        let (stats, settings) = (replica.stats(), replica.settings());
        let expectations = self.expectations();
        StatusRow {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime: self.start.elapsed().as_secs(),
            mode: match settings.mode {
                Mode::Statistics => "statistics",
                Mode::Notrack => "NOTRACK",
                Mode::Alarm => "ALARM",
                Mode::Ftfw => "FTFW",
            },
            role: role_name(replica.role()),
            instances: self.instances(),
            owed: replica.owed() as u64,
            unacknowledged: replica.unacknowledged().0 as u64,
            committing: replica.is_committing(),
            kernel_flows: sysctl::flows(),
            kernel_max: sysctl::flows_max().map(|n| n as u64),
            internal: report.internal,
            external: report.external,
            internal_expectations: expectations.map(|(internal, _)| internal),
            external_expectations: expectations.map(|(_, external)| external),
            peer: report.network.peer,
            links: report.links,
            receive: stats.receive,
            stats,
            daemon: self.daemon_stats(),
        }
    }
}

/// E.g. `FTFW, primary; peer there; 812 flows here, 790 of the peer; link eth2`.
fn status_line(replica: &Replica, has_link: bool) -> String {
    let here = replica.len(Which::Internal);
    let mode = match replica.settings().mode {
        Mode::Statistics => return format!("statistics: {here} flows"),
        Mode::Notrack => "NOTRACK",
        Mode::Alarm => "ALARM",
        Mode::Ftfw => "FTFW",
    };
    let role = match replica.role() {
        Role::Unknown => "no role yet",
        Role::Primary => "primary",
        Role::Backup => "backup",
    };
    let peer = match replica.is_lost(PeerId::FIRST) {
        None => "peer never heard",
        Some(true) => "PEER LOST",
        Some(false) => "peer there",
    };
    let link = match replica.settings().links.get(replica.current_link().0) {
        Some(link) if has_link => format!("link {}", link.name),
        _ => "NO LINK".to_owned(),
    };
    let theirs = replica.len(Which::External);
    format!("{mode}, {role}; {peer}; {here} flows here, {theirs} of the peer; {link}")
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
