//! Statistics, column for column as the original prints them.

use std::fmt::Write;

use counters::{CacheStats, DaemonStats, ReceiveStats, Stats};
use serde::Serialize;

use crate::counted;

/// One cache, or what stands in its place.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct CacheReport {
    /// False if the cache is switched off.
    pub enabled: bool,
    /// Entries now.
    #[serde(rename = "entries")]
    pub active: u64,
    /// What has happened to entries.
    #[serde(flatten, serialize_with = "counted::all")]
    pub counters: CacheStats,
}

/// One link.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LinkReport {
    /// `UDP`, `multicast` or `TCP`.
    pub transport: &'static str,
    /// Interface.
    pub device: String,
    /// `RUNNING`, `NO-CARRIER` or `DOWN`.
    pub status: &'static str,
    /// Connections of a TCP link.
    #[serde(flatten)]
    pub connected: Option<Connected>,
    /// Used for sending.
    pub active: bool,
    /// Bytes sent and received.
    pub bytes: (u64, u64),
    /// Datagrams sent and received.
    pub packets: (u64, u64),
    /// Failed sends and receives.
    pub errors: (u64, u64),
}

/// Which connections of a TCP link are there.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Connected {
    /// The peer's, from which we read.
    pub server: bool,
    /// Ours, on which we write.
    pub client: bool,
}

/// The receive path.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkReport {
    /// What has been received.
    pub receive: ReceiveStats,
    /// What is known of the peer.
    pub peer: PeerReport,
}

/// The peer. The original prints no such lines. Ours follow the original's, and `ftfw status` shows them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PeerReport {
    /// The peer's epoch, if it sends one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// The role that the peer reports.
    pub role: &'static str,
    /// Times that the peer has started again.
    pub restarts: u64,
    /// Flows that the peer has announced in its current epoch.
    pub confirmed: u64,
    /// Flows that the peer announced only in an earlier epoch, or only offered.
    pub unconfirmed: u64,
    /// Our flows that the peer reports to hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// Our flows that the peer should hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub should_hold: Option<u64>,
    /// Seconds since the peer's last message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent: Option<u64>,
    /// What we did because of the peer.
    #[serde(flatten, serialize_with = "counted::of_peer")]
    pub stats: Stats,
    /// What has been received.
    #[serde(flatten, serialize_with = "counted::of_peer")]
    pub receive: ReceiveStats,
}

/// The daemon.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuntimeReport {
    /// Since the start.
    pub uptime_secs: u64,
    /// Counters of the replica.
    pub stats: Stats,
    /// Counters of the daemon.
    pub daemon: DaemonStats,
    /// Receive buffer of the event socket in bytes.
    pub buffer_bytes: u64,
}

/// What `-s` shows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Internal cache.
    pub internal: CacheReport,
    /// External cache.
    pub external: CacheReport,
    /// Bytes and packets of ended flows.
    pub traffic: (u64, u64),
    /// Links in file order.
    pub links: Vec<LinkReport>,
    /// Receive path.
    pub network: NetworkReport,
}

/// `-s`
pub fn general(report: &Report) -> String {
    let mut out = String::new();
    internal_block(&mut out, &report.internal);
    external_block(&mut out, &report.external);
    traffic_block(&mut out, report.traffic);
    active_link(&mut out, &report.links);
    let ReceiveStats {
        malformed, lost, ..
    } = report.network.receive;
    let _ = write!(
        out,
        "message tracking:\n{malformed:20} Malformed msgs {lost:20} Lost msgs\n\n"
    );
    out
}

/// `-s` of a daemon that keeps statistics.
pub fn statistics(cache: &CacheReport, traffic: (u64, u64)) -> String {
    let mut out = String::new();
    cache_block(&mut out, "cache stats:", cache);
    traffic_block(&mut out, traffic);
    out
}

/// `-s cache` of a daemon that keeps statistics.
pub fn statistics_cache(cache: &CacheReport) -> String {
    let mut out = String::new();
    cache_detail(&mut out, "stats", cache);
    out
}

fn traffic_block(out: &mut String, (bytes, packets): (u64, u64)) {
    let _ = write!(
        out,
        "traffic processed:\n{bytes:20} Bytes      {packets:20} Pckts\n\n"
    );
}

fn internal_block(out: &mut String, c: &CacheReport) {
    if c.enabled {
        return cache_block(out, "cache internal:", c);
    }
    let c = &c.counters;
    let _ = write!(
        out,
        "internal bypass:\n\
         connections new:\t\t{:12}\n\
         connections updated:\t\t{:12}\n\
         connections destroyed:\t\t{:12}\n\n",
        c.created, c.updated, c.destroyed
    );
}

fn external_block(out: &mut String, c: &CacheReport) {
    if c.enabled {
        return cache_block(out, "cache external:", c);
    }
    out.push_str("external inject:\n");
    cache_lines(out, &c.counters);
}

fn cache_block(out: &mut String, title: &str, c: &CacheReport) {
    let _ = writeln!(out, "{title}\ncurrent active connections:\t{:12}", c.active);
    cache_lines(out, &c.counters);
}

fn cache_lines(out: &mut String, c: &CacheStats) {
    let _ = write!(
        out,
        "connections created:\t\t{:12}\tfailed:\t{:12}\n\
         connections updated:\t\t{:12}\tfailed:\t{:12}\n\
         connections destroyed:\t\t{:12}\tfailed:\t{:12}\n\n",
        c.created, c.create_failed, c.updated, c.update_failed, c.destroyed, c.destroy_failed
    );
}

fn active_link(out: &mut String, links: &[LinkReport]) {
    if let Some(link) = links.iter().find(|l| l.active) {
        let _ = write!(
            out,
            "{} traffic (active device={})",
            link.transport, link.device
        );
        if let Some(Connected { server, client }) = link.connected {
            let word = |is| if is { "connected" } else { "disconnected" };
            let _ = write!(out, " server={} client={}", word(server), word(client));
        }
        out.push_str(":\n");
        link_lines(out, link);
    }
}

fn link_lines(out: &mut String, link: &LinkReport) {
    let (bytes, packets, errors) = (link.bytes, link.packets, link.errors);
    let _ = write!(
        out,
        "{:20} Bytes sent {:20} Bytes recv\n\
         {:20} Pckts sent {:20} Pckts recv\n\
         {:20} Error send {:20} Error recv\n\n",
        bytes.0, bytes.1, packets.0, packets.1, errors.0, errors.1
    );
}

/// `-s link`
pub fn links(links: &[LinkReport]) -> String {
    let mut out = String::new();
    for link in links {
        let role = if link.active { "ACTIVE" } else { "BACKUP" };
        let _ = writeln!(
            out,
            "{} traffic device={} status={} role={role}:",
            link.transport, link.device, link.status
        );
        link_lines(&mut out, link);
    }
    out
}

/// `-s network`
pub fn network(report: &Report) -> String {
    let n = &report.network.receive;
    let mut out = format!(
        "network statistics:\n\
         \trecv:\n\
         \t\tMalformed messages:\t{:20}\n\
         \t\tWrong protocol version:\t{:20}\n\
         \t\tMalformed header:\t{:20}\n\
         \t\tMalformed payload:\t{:20}\n\
         \t\tBad message type:\t{:20}\n\
         \t\tTruncated message:\t{:20}\n\
         \t\tBad message size:\t{:20}\n\
         \tsend:\n\
         \t\tMalformed messages:\t{:20}\n\n\
         sequence tracking statistics:\n\
         \trecv:\n\
         \t\tPackets lost:\t\t{:20}\n\
         \t\tPackets before:\t\t{:20}\n\n",
        n.malformed,
        n.wrong_version,
        n.bad_header,
        n.bad_payload,
        n.bad_type,
        n.truncated,
        n.bad_size,
        0,
        n.lost,
        n.before
    );
    active_link(&mut out, &report.links);
    peer_block(&mut out, &report.network.peer);
    out
}

fn peer_block(out: &mut String, p: &PeerReport) {
    let program = match p.epoch {
        Some(epoch) => format!("ftfw epoch={epoch:08x} role={}", p.role),
        None => "without trailer".to_owned(),
    };
    let _ = write!(
        out,
        "peer: {program}\n\
         \tRestarts:\t\t{:20}\n\
         \tFlows confirmed:\t{:20}\n\
         \tFlows unconfirmed:\t{:20}\n\
         \tOur flows held there:\t{:20}\n\
         \tOur flows to be held:\t{:20}\n\
         \tAsked for what it had:\t{:20}\n\
         \tSpared by flushes:\t{:20}\n\
         \tFlows absent from bulk:\t{:20}\n\
         \tLate messages used:\t{:20}\n\
         \tMalformed trailers:\t{:20}\n\n",
        p.restarts,
        p.confirmed,
        p.unconfirmed,
        p.held.unwrap_or(0),
        p.should_hold.unwrap_or(0),
        p.stats.lacks_found,
        p.stats.purge_spared,
        p.stats.external_absent,
        p.receive.late_used,
        p.receive.bad_trailers
    );
}

/// `-s cache`
pub fn cache_stats(report: &Report) -> String {
    let mut out = String::new();
    if report.internal.enabled {
        cache_detail(&mut out, "internal", &report.internal);
    } else {
        internal_block(&mut out, &report.internal);
    }
    if report.external.enabled {
        cache_detail(&mut out, "external", &report.external);
    } else {
        external_block(&mut out, &report.external);
    }
    out
}

fn cache_detail(out: &mut String, name: &str, report: &CacheReport) {
    let (active, c) = (report.active, &report.counters);
    let _ = write!(
        out,
        "cache:{name}\tactive objects:\t\t{:12}\n\
         \tactive/total entries:\t\t{:12}/{:12}\n\
         \tcreation OK/failed:\t\t{:12}/{:12}\n\
         \t\tno memory available:\t{:12}\n\
         \t\tno space left in cache:\t{:12}\n\
         \tupdate OK/failed:\t\t{:12}/{:12}\n\
         \t\tentry not found:\t{:12}\n\
         \tdeletion created/failed:\t{:12}/{:12}\n\
         \t\tentry not found:\t{:12}\n\n",
        active,
        active,
        active,
        c.created,
        c.create_failed,
        0,
        c.create_failed,
        c.updated,
        c.update_failed,
        c.update_failed,
        c.destroyed,
        c.destroy_failed,
        c.destroy_failed
    );
}

/// `-s runtime`
pub fn runtime(r: &RuntimeReport) -> String {
    let (stats, daemon) = (&r.stats, &r.daemon);
    format!(
        "daemon uptime: {}\n\n\
         netlink stats:\n\
         \tevents received:\t{:20}\n\
         \tevents filtered:\t{:20}\n\
         \tevents unknown type:\t\t{:12}\n\
         \tcatch event failed:\t\t{:12}\n\
         \tdump unknown type:\t\t{:12}\n\
         \tnetlink overrun:\t\t{:12}\n\
         \tflush kernel table:\t\t{:12}\n\
         \tresync with kernel table:\t{:12}\n\
         \tcurrent buffer size (in bytes):\t{:12}\n\n\
         runtime stats:\n\
         \tchild process failed:\t\t{:12}\n\
         \t\tchild process segfault:\t{:12}\n\
         \t\tchild process termsig:\t{:12}\n\
         \tselect failed:\t\t\t{:12}\n\
         \twait failed:\t\t\t{:12}\n\
         \tlocal read failed:\t\t{:12}\n\
         \tlocal unknown request:\t\t{:12}\n\n",
        uptime(r.uptime_secs),
        stats.events_received,
        stats.events_filtered,
        daemon.events_unknown,
        daemon.events_failed,
        0,
        stats.overruns,
        stats.kernel_flushes,
        stats.resyncs,
        r.buffer_bytes,
        0,
        0,
        0,
        0,
        0,
        daemon.local_read_failed,
        daemon.local_unknown
    )
}

/// `5 min`, `3 h 5 min`, `2 days 3 h 5 min`, `1 day 7 min`.
fn uptime(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    let mut out = String::new();
    if days > 0 {
        let _ = write!(out, "{days} day{} ", if days > 1 { "s" } else { "" });
    }
    if hours > 0 {
        let _ = write!(out, "{hours} h ");
    }
    let _ = write!(out, "{minutes} min");
    out
}

/// What `-s queue` shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueReport {
    /// Objects that the peer has not been sent yet.
    pub waiting: u64,
    /// Datagrams that the link has not taken yet, and `ErrorQueueLength`.
    pub unsent: (u64, u64),
    /// FT-FW: objects and control messages that the peer has not acknowledged, and how many
    /// there may be.
    pub unacknowledged: Option<(u64, u64)>,
}

/// `-s queue`
pub fn queues(report: &QueueReport) -> String {
    let mut out = String::new();
    let waiting = report.waiting;
    let unacknowledged = report.unacknowledged.map_or(0, |(n, _)| n);
    let _ = writeln!(
        out,
        "allocated queue nodes:\t\t{:12}\n",
        waiting + report.unsent.0 + unacknowledged
    );
    queue(&mut out, "txqueue", waiting, i32::MAX.unsigned_abs().into());
    let (unsent, max) = report.unsent;
    queue(&mut out, "errorq", unsent, max);
    if let Some((unacknowledged, max)) = report.unacknowledged {
        queue(&mut out, "rsqueue", unacknowledged, max);
    }
    out
}

fn queue(out: &mut String, name: &str, elements: u64, max: u64) {
    let _ = write!(
        out,
        "queue {name}:\n\
         current elements:\t\t{elements:12}\n\
         maximum elements:\t\t{max:12}\n\
         not enough space errors:\t{:12}\n\n",
        0
    );
}

/// `-s rsqueue`: what is not acknowledged. Control messages as sequence number and flags.
pub fn resend_queue(flows: u64, controls: impl ExactSizeIterator<Item = (u32, u8)>) -> String {
    let mut out = format!("resent queue (len={})\n", flows + controls.len() as u64);
    for (seq, flags) in controls {
        let _ = writeln!(out, "control -> seq:{seq} flags:{flags}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_general_report_has_the_originals_columns() {
        let report = Report {
            internal: CacheReport {
                enabled: true,
                active: 7,
                counters: CacheStats {
                    created: 7,
                    ..CacheStats::default()
                },
            },
            external: CacheReport {
                enabled: true,
                ..CacheReport::default()
            },
            links: vec![LinkReport {
                transport: "multicast",
                device: "eth0".into(),
                active: true,
                bytes: (732, 48),
                packets: (10, 3),
                ..LinkReport::default()
            }],
            ..Report::default()
        };
        let text = general(&report);
        for part in [
            "cache internal:\ncurrent active connections:\t           7\n\
             connections created:\t\t           7\tfailed:\t           0\n",
            "traffic processed:\n                   0 Bytes                         0 Pckts\n\n",
            "multicast traffic (active device=eth0):\n\
             \x20                732 Bytes sent                   48 Bytes recv\n\
             \x20                 10 Pckts sent                    3 Pckts recv\n\
             \x20                  0 Error send",
            "message tracking:\n                   0 Malformed msgs                    0 Lost msgs\n",
        ] {
            assert!(text.contains(part), "{part}\n--- not in ---\n{text}");
        }
    }

    #[test]
    fn a_tcp_link_shows_its_connections_and_what_waits() {
        let link = LinkReport {
            transport: "TCP",
            device: "eth2".into(),
            connected: Some(Connected {
                server: true,
                client: false,
            }),
            active: true,
            ..LinkReport::default()
        };
        let text = general(&Report {
            links: vec![link],
            ..Report::default()
        });
        let line = "\nTCP traffic (active device=eth2) server=connected client=disconnected:\n";
        assert!(text.contains(line), "{text}");
        let queues = queues(&QueueReport {
            unsent: (1, 77),
            ..QueueReport::default()
        });
        let lines = "queue errorq:\ncurrent elements:\t\t           1\n\
                     maximum elements:\t\t          77\n";
        assert!(queues.contains(lines), "{queues}");
    }

    #[test]
    fn uptime_leaves_out_what_is_zero() {
        assert_eq!(uptime(300), "5 min");
        assert_eq!(uptime(3 * 3600 + 300), "3 h 5 min");
        assert_eq!(uptime(86_400 + 420), "1 day 7 min");
        assert_eq!(uptime(2 * 86_400 + 3 * 3600 + 300), "2 days 3 h 5 min");
    }
}
