//! `config::Config` → `replica::Settings`, and what this version cannot do yet.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::{Config, Mode, Sync};
use replica::{Epoch, LinkSettings, Seq, Settings, TableId};

use crate::sysctl;

/// The original's default, and the least bound of a table.
const LIMIT_DEFAULT: usize = 262_144;

/// Shortest interval of sweeps over the whole table.
const SWEEP_FULL: Duration = Duration::from_secs(15);

/// The mode; a file that names none means FTFW.
fn mode(sync: &Sync) -> replica::Mode {
    match sync.mode {
        Some(Mode::Notrack) => replica::Mode::Notrack,
        Some(Mode::Alarm) => replica::Mode::Alarm,
        Some(Mode::Ftfw) | None => replica::Mode::Ftfw,
    }
}

/// Settings of a replica without a peer.
pub(crate) fn statistics(config: &Config) -> Settings {
    let alone = Sync {
        alive_trailer: false,
        ..Sync::default()
    };
    Settings {
        mode: replica::Mode::Statistics,
        ..settings(config, &alone, Vec::new())
    }
}

/// Settings of the replica; `links` have been opened in the file's order.
pub(crate) fn settings(config: &Config, sync: &Sync, links: Vec<LinkSettings>) -> Settings {
    let seconds = |n: u32| Duration::from_secs(n.into());
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    let poll = config.poll_secs.map(seconds);
    Settings {
        mode: mode(sync),
        ack_window: sync.ack_window_size,
        resend_queue: sync.resend_queue_size as usize,
        refresh_time: seconds(sync.refresh_time),
        cache_timeout: seconds(sync.cache_timeout),
        internal_cache: !sync.disable_internal_cache,
        external_cache: !sync.disable_external_cache,
        limit: config
            .hash_limit
            .unwrap_or_else(|| sysctl::flows_max().unwrap_or(0).max(LIMIT_DEFAULT)),
        commit_timeout: sync.commit_timeout,
        purge_timeout: seconds(sync.purge_timeout),
        window_tracking: sync.window_tracking,
        startup_resync: sync.startup_resync,
        overrun_resync: config.overrun_resync.map(seconds),
        expectations: sync.expectation_sync.clone(),
        filter: config.replicated(sync),
        first_link: sync.links.iter().position(|l| l.default).unwrap_or(0),
        links,
        sweep_short: sysctl::short_sweep(),
        sweep_full: poll.unwrap_or(SWEEP_FULL),
        sweep_leisurely: sysctl::leisurely_sweep().max(SWEEP_FULL),
        // The original's choice: a restart then nearly always goes forward.
        first_seq: Seq(unix.map_or(1, |d| d.as_secs() as u32)),
        // The key of a hash is the system's randomness.
        epoch: Epoch(RandomState::new().build_hasher().finish() as u32),
        table: sys::netns::table_id().map_or(TableId(0), TableId),
        trailer: sync.alive_trailer,
    }
}
