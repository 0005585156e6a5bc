//! What a daemon does, by its configuration: it replicates, keeps statistics, or idles.

use config::{Config, Stats, Sync};
use control::{CacheKind, Object, Request, StatsKind};

/// What the daemon does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum App<'a> {
    /// It replicates.
    Sync(&'a Sync),
    /// It logs the flows that have ended.
    Statistics(&'a Stats),
    /// It answers on its control socket: the file has neither section.
    Idle,
}

impl App<'_> {
    pub(crate) fn of(config: &Config) -> App<'_> {
        match (&config.sync, &config.stats) {
            (Some(sync), _) => App::Sync(sync),
            (None, Some(stats)) => App::Statistics(stats),
            (None, None) => App::Idle,
        }
    }
}

/// True if a daemon that keeps statistics acts on a request. Like the original it answers the
/// others with nothing (command line reference, section 2).
pub(crate) fn statistics_serves(request: Request) -> bool {
    match request {
        Request::Stop
        | Request::FlushCache(Some(CacheKind::Internal))
        | Request::Stats(StatsKind::General | StatsKind::Cache | StatsKind::Runtime) => true,
        Request::FlushKernel(object) | Request::Resync(object) => object != Object::Expectations,
        Request::Dump { cache, object, .. } => {
            cache == CacheKind::Internal && object != Object::Expectations
        }
        Request::Commit(_)
        | Request::FlushCache(_)
        | Request::Stats(_)
        | Request::Bulk
        | Request::RequestResync
        | Request::ScheduleFlush => false,
    }
}
