//! Metrics for Prometheus: a page over HTTP (`server`), or a file (`textfile`).
//!
//! Both are served by the loop, between two turns of the core. Without the block `Metrics` in
//! the configuration there is none of this.

mod http;
mod server;
mod textfile;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::Result;
use control::metrics::{Format, State, page};
use replica::Instant;

use self::server::Server;
use self::textfile::TextFile;
use crate::limit::Kind;
use crate::log::Log;
use crate::turn::Loop;
use crate::turns::Turns;

/// What exports metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    server: Server,
    file: Option<TextFile>,
}

/// What the exporter counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// Pages served over HTTP.
    pub(crate) scrapes: u64,
    /// Requests that were refused.
    pub(crate) refused: u64,
    /// Clients that were disconnected.
    pub(crate) dropped: u64,
    /// Writes of the file that failed.
    pub(crate) file_failed: u64,
}

impl Metrics {
    /// Listens where that is possible. What is not possible yet is tried again: it must not
    /// keep the daemon from replicating.
    pub(crate) fn open(config: &config::Metrics, log: &mut Log) -> Result<Metrics> {
        let server = Server::new(config.listen, log)?;
        let interval = Duration::from_secs(config.interval.into());
        let file = config.file.clone();
        Ok(Metrics {
            server,
            file: file.map(|path| TextFile::new(path, interval)),
        })
    }

    pub(crate) fn counted(&self) -> Counted {
        let file_failed = self.file.as_ref().map_or(0, |f| f.failed);
        Counted {
            file_failed,
            ..self.server.counted
        }
    }
}

/// Ready when an HTTP client is.
impl AsFd for Metrics {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.server.as_fd()
    }
}

impl Loop<'_> {
    /// Serves those who want the metrics. `is_ready` if an HTTP client is.
    pub(crate) fn export_metrics(&mut self, now: Instant, is_ready: bool) {
        let Some(metrics) = &mut self.host.metrics else {
            return;
        };
        let asked = match is_ready {
            true => metrics.server.ready(now),
            false => Vec::new(),
        };
        let is_due = metrics.file.as_ref().is_some_and(|f| f.is_due(now));
        // Several clients of one turn get the same page.
        let state = (is_due || !asked.is_empty()).then(|| self.metrics_state());
        let Some(metrics) = &mut self.host.metrics else {
            return;
        };
        if let Some(state) = state {
            for format in [Format::Text, Format::OpenMetrics] {
                let whose = || asked.iter().filter(|(_, f)| *f == format);
                if whose().next().is_some() {
                    let page = page(&state, format);
                    whose().for_each(|(id, _)| metrics.server.answer(*id, format, &page, now));
                }
            }
            if let Some(file) = metrics.file.as_mut().filter(|_| is_due)
                && let Some((level, line)) = file.write(&page(&state, Format::Text), now)
            {
                self.host.log.limited(Kind::Metrics, (level, line));
            }
        }
        metrics.server.settle(now);
        for (level, line) in metrics.server.lines.drain(..) {
            self.host.log.limited(Kind::Metrics, (level, line));
        }
    }

    fn metrics_state(&self) -> State {
        let replica = &self.replica;
        let has_peer = !self.host.links.list.is_empty();
        let now = std::time::Instant::now();
        State {
            status: self.status(),
            cache_limit: replica.settings().limit as u64,
            is_whole: replica.is_whole(),
            peer_up: has_peer.then(|| replica.is_lost(self.judged_peer()) == Some(false)),
            usable: (self.host.links.list.iter())
                .map(|link| link.is_usable(now))
                .collect(),
            last_commit: self.host.commits.last.map(|took| took.as_secs_f64()),
            event_buffer: (self.host.events.as_ref()).map(|e| e.buffer_bytes() as u64),
            turns: (Turns::LONGER_THAN.iter().zip(self.turns.counts))
                .map(|((bound, _), count)| (*bound, count))
                .collect(),
            longest_turn: self.turns.longest.as_secs_f64(),
            longest_turn_cpu: self.turns.longest_cpu.as_secs_f64(),
        }
    }
}
