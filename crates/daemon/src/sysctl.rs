//! Settings of the kernel that the daemon reads or changes while it runs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Where they are.
pub(crate) const BASE: &str = "/proc/sys/net/netfilter/";

fn read(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("{BASE}{name}")).ok()?;
    text.trim().parse().ok()
}

/// Flows in the kernel table now; `None` if there is no connection tracking yet.
pub(crate) fn flows() -> Option<u64> {
    read("nf_conntrack_count")
}

/// Most flows of the kernel table; `None` if there is no connection tracking yet.
pub(crate) fn flows_max() -> Option<usize> {
    read("nf_conntrack_max").map(|n| n as usize)
}

/// A quarter of the shortest timeout that packets refresh without an event, from 1 to 30 s.
pub(crate) fn short_sweep() -> Duration {
    let shortest = [
        "nf_conntrack_udp_timeout",
        "nf_conntrack_udp_timeout_stream",
        "nf_conntrack_icmp_timeout",
        "nf_conntrack_icmpv6_timeout",
    ]
    .into_iter()
    .filter_map(read)
    .min()
    .unwrap_or(30);
    Duration::from_millis(shortest * 1000 / 4)
        .clamp(Duration::from_secs(1), Duration::from_secs(30))
}

/// The time between two dumps of an empty table in which they take half a thousandth of a
/// core: the kernel walks through all buckets, at 0.1 to 0.2 µs each. At most ten minutes.
pub(crate) fn leisurely_sweep() -> Duration {
    let buckets = read("nf_conntrack_buckets").unwrap_or(0);
    Duration::from_micros(buckets.saturating_mul(300)).min(Duration::from_secs(600))
}

/// `nf_conntrack_events` as it was, when the daemon has changed it.
///
/// At the kernel's default 2 a flow that was created while nobody listened never
/// emits an event; at 1 every flow does.
#[derive(Debug)]
pub(crate) struct EventsSetting {
    /// It stays open, because the daemon may not open it any more (`sandbox`).
    changed: Option<(File, u64)>,
}

impl EventsSetting {
    const NAME: &str = "nf_conntrack_events";

    /// Sets it to 1; says why if that is not possible.
    pub(crate) fn all_flows() -> Result<EventsSetting, String> {
        let before = read(Self::NAME);
        if before == Some(1) {
            return Ok(EventsSetting::untouched());
        }
        match Self::set() {
            Ok(file) => Ok(EventsSetting {
                changed: before.map(|before| (file, before)),
            }),
            Err(e) => Err(format!(
                "{} stays {}: {e}; flows older than this daemon may stay silent: set it to 1",
                Self::NAME,
                before.map_or("unknown".to_owned(), |n| n.to_string())
            )),
        }
    }

    fn set() -> io::Result<File> {
        let path = format!("{BASE}{}", Self::NAME);
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(b"1", 0)?;
        Ok(file)
    }

    /// Leaves it alone.
    pub(crate) fn untouched() -> EventsSetting {
        EventsSetting { changed: None }
    }
}

impl Drop for EventsSetting {
    fn drop(&mut self) {
        if let Some((file, before)) = &self.changed {
            let _ = file.write_all_at(before.to_string().as_bytes(), 0);
        }
    }
}
