//! The configuration while a file is read: what the effects of words change, what is
//! checked when a block ends, and the rules across sections.

mod filter;
mod gate;
mod helper;
mod link;
mod metrics;

use std::path::PathBuf;

use flow::{Policy, Prefix, Proto, TcpState};

use crate::diagnostic::{Diagnostics, Quote, Span, line_number};
use crate::lexer::Token;
use crate::{Config, Facility, Link, Mode, SchedulerType, Stats, Sync};

pub(crate) const OVERRUN_RESYNC_DEFAULT: u32 = 30;
const LOG_FILE_DEFAULT: &str = "/var/log/conntrackd.log";
const STATS_FILE_DEFAULT: &str = "/var/log/conntrackd-stats.log";

/// A number of which 0 means that the default is wanted.
pub(crate) fn given(n: u32) -> Option<u32> {
    (n != 0).then_some(n)
}

/// A word of the table, and where it stands in the file.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) word: &'static str,
    pub(crate) span: Span,
}

/// A configuration that is being read.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) diagnostics: Diagnostics,
    /// The words that are being read, from the section to the value.
    pub(crate) path: Vec<Item>,
    pub(crate) config: Config,
    pub(crate) sync: Sync,
    sync_span: Option<Span>,
    stats_span: Option<Span>,
    /// From `UNIX` to its `Path`.
    control_path_span: Option<Span>,
    /// The link whose block is being read.
    pub(crate) link: Link,
    pub(crate) scheduler_type: Option<SchedulerType>,
    scheduler_priority: Option<i32>,
    /// What has been read of the block `Metrics`.
    pub(crate) metrics: metrics::Metrics,
    /// The helper whose block is being read.
    helper: helper::Helper,
    /// The instance of the gate whose block is being read.
    instance: gate::Open,
    /// The set of the filter whose block is being read.
    pub(crate) policy: Option<Policy>,
    protocols: Vec<Proto>,
    networks: Vec<Prefix>,
    states: Vec<TcpState>,
    /// The last state whose protocol is not known yet.
    state_span: Option<Span>,
}

impl Draft {
    pub(crate) fn new(diagnostics: Diagnostics) -> Draft {
        Draft {
            diagnostics,
            path: Vec::new(),
            config: config(),
            sync: Sync::default(),
            sync_span: None,
            stats_span: None,
            control_path_span: None,
            link: link::empty(),
            scheduler_type: None,
            scheduler_priority: None,
            metrics: metrics::Metrics::default(),
            helper: helper::Helper::default(),
            instance: None,
            policy: None,
            protocols: Vec::new(),
            networks: Vec::new(),
            states: Vec::new(),
            state_span: None,
        }
    }

    /// The configuration, after the rules across sections. Links get their lines here.
    pub(crate) fn finish(mut self, text: &str) -> (Config, Diagnostics) {
        self.check_combinations();
        if let Some(span) = self.control_path_span.take()
            && line_number(text, span.start) == line_number(text, span.end)
        {
            let message = "Pacemaker's agent finds the socket only if `UNIX {`, `Path` and `}` have a line each";
            self.diagnostics.warn(span, message);
        }
        for link in &mut self.sync.links {
            link.line = line_number(text, link.line);
        }
        let sync = self.sync;
        self.config.sync = self.sync_span.map(|_| sync);
        (self.config, self.diagnostics)
    }

    /// Where the word stands that is being read.
    fn here(&self) -> Span {
        self.path.last().map_or(0..0, |item| item.span.clone())
    }

    fn error_here(&mut self, message: impl std::fmt::Display, help: impl std::fmt::Display) {
        self.diagnostics.error(self.here(), message, help);
    }

    fn warn_here(&mut self, message: impl std::fmt::Display) {
        self.diagnostics.warn(self.here(), message);
    }

    // ---- General ----

    pub(crate) fn hash_limit(&mut self, n: u32) {
        if n == 0 {
            return self.warn_here("`HashLimit 0` means the default");
        }
        self.config.hash_limit = Some(n as usize);
    }

    /// `off` does not take a path back.
    pub(crate) fn log_switch(&mut self, on: bool) {
        if on {
            self.config.log_file = Some(PathBuf::from(LOG_FILE_DEFAULT));
        }
    }

    pub(crate) fn control_path(&mut self, path: PathBuf) {
        self.config.control_path = Some(path);
        // From the block's word to the one that is being read.
        let block = self.path.iter().rev().nth(1).map(|item| item.span.start);
        self.control_path_span = block.map(|start| start..self.here().start);
    }

    pub(crate) fn syslog(&mut self, token: &Token<'_>) {
        if let Some(facility) = self.facility(token) {
            self.config.syslog = Some(facility);
        }
    }

    pub(crate) fn facility(&mut self, token: &Token<'_>) -> Option<Facility> {
        let local = token.text.strip_prefix("local");
        let facility = match local.and_then(|n| n.parse::<u8>().ok()) {
            Some(n) if n < 8 => Some(Facility(16 + n)),
            _ => (token.text == "daemon").then_some(Facility::DAEMON),
        };
        if facility.is_none() {
            let name = Quote(token.text);
            let message = format_args!("{name} is no known syslog facility, ignored");
            self.diagnostics.warn(token.span.clone(), message);
        }
        facility
    }

    pub(crate) fn poll_secs(&mut self, n: u32) {
        if n == 0 {
            let help = "at least 1; leave it out to listen to events";
            self.error_here("`PollSecs` is 0", help);
        }
        self.config.poll_secs = Some(n);
    }

    pub(crate) fn nice(&mut self, token: &Token<'_>) {
        if token.text.parse::<i32>().is_err() {
            self.diagnostics.error(
                token.span.clone(),
                format_args!("{} is no value of `Nice`", Quote(token.text)),
                "accepted: a number with its sign",
            );
        }
    }

    pub(crate) fn priority(&mut self, n: u32) {
        if n > 99 {
            self.error_here(format_args!("priority {n}"), "accepted: 0 to 99");
        }
        self.scheduler_priority = Some(n as i32);
    }

    pub(crate) fn end_scheduler(&mut self) {
        match (self.scheduler_type.take(), self.scheduler_priority.take()) {
            (Some(class), priority) => {
                self.config.scheduler = Some((class, priority.unwrap_or(0)));
            }
            (None, Some(_)) => self.warn_here("`Priority` has no effect without `Type`"),
            (None, None) => {}
        }
    }

    // ---- Sync ----

    pub(crate) fn begin_sync(&mut self) {
        self.sync_span = Some(self.here());
    }

    // ---- Stats ----

    pub(crate) fn begin_stats(&mut self) {
        self.stats_span = Some(self.here());
        self.stats();
    }

    pub(crate) fn stats(&mut self) -> &mut Stats {
        self.config.stats.get_or_insert_default()
    }

    /// `off` does not take a path back.
    pub(crate) fn stats_log_switch(&mut self, on: bool) {
        if on {
            self.stats().log_file = Some(PathBuf::from(STATS_FILE_DEFAULT));
        }
    }

    pub(crate) fn stats_syslog(&mut self, token: &Token<'_>) {
        if let Some(facility) = self.facility(token) {
            self.stats().syslog = Some(facility);
        }
    }

    // ---- modes of Sync ----

    /// Of several modes FTFW beats ALARM beats NOTRACK; the settings of all apply.
    pub(crate) fn mode(&mut self, mode: Mode) {
        self.sync.mode = self.sync.mode.max(Some(mode));
    }

    pub(crate) fn helpers(&mut self, names: &[&Token<'_>]) {
        let names = names.iter().map(|t| t.text.to_owned());
        self.sync.expectation_sync = Some(names.collect());
    }

    /// Reports a text of more than `max` bytes.
    pub(crate) fn check_length(&mut self, what: &str, token: &Token<'_>, max: usize) -> bool {
        let length = token.text.len();
        if length > max {
            self.diagnostics.error(
                token.span.clone(),
                format_args!("{what} of {length} characters"),
                format_args!("at most {max} characters"),
            );
        }
        length <= max
    }

    // ---- rules across sections ----

    fn check_combinations(&mut self) {
        self.check_facilities();
        self.check_metrics();
        let Some(span) = self.sync_span.clone() else {
            return;
        };
        if let Some(stats) = self.stats_span.clone() {
            let later = if stats.start > span.start {
                stats
            } else {
                span.clone()
            };
            self.diagnostics.error(
                later,
                "`Sync` and `Stats` in one file",
                "a daemon either replicates or logs statistics",
            );
        }
        let sync = &mut self.sync;
        if sync.mode.is_none() {
            self.diagnostics.warn(
                span.clone(),
                "No synchronization mode specified. Defaulting to FT-FW mode.",
            );
        }
        if sync.links.is_empty() {
            self.diagnostics.error(
                span.clone(),
                "`Sync` without a link",
                "add a `UDP { ... }` or `Multicast { ... }` block",
            );
        }
        if sync.mode == Some(Mode::Alarm) && sync.refresh_time >= sync.cache_timeout {
            self.diagnostics.warn(
                span.clone(),
                "`CacheTimeout` is not longer than `RefreshTime`: entries expire before they are sent again",
            );
        }
        if sync.disable_external_cache && sync.commit_timeout.take().is_some() {
            self.diagnostics.warn(
                span,
                "`CommitTimeout` cannot be combined with `DisableExternalCache`: ignored",
            );
        }
    }
}

impl Draft {
    fn check_facilities(&mut self) {
        let general = self.config.syslog;
        if let Some(span) = self.stats_span.clone()
            && let Some(stats) = &mut self.config.stats
            && let (Some(in_general), Some(in_stats)) = (general, stats.syslog)
            && in_general != in_stats
        {
            stats.syslog = general;
            let message = "conflicting Syslog facility values, defaulting to General";
            self.diagnostics.warn(span, message);
        }
    }
}

fn config() -> Config {
    Config {
        hash_limit: None,
        log_file: None,
        syslog: None,
        lock_file: PathBuf::from("/var/lock/conntrackd.lock"),
        control_path: None,
        netlink_buffer: None,
        netlink_buffer_max: 0,
        overrun_resync: Some(OVERRUN_RESYNC_DEFAULT),
        events_reliable: false,
        event_iteration_limit: None,
        conntrack_events: true,
        gather_events: true,
        poll_secs: None,
        scheduler: None,
        systemd: None,
        metrics: None,
        sandbox: crate::Sandbox::default(),
        filter: flow::Filter::default(),
        filter_in_kernel: false,
        sync: None,
        stats: None,
        helpers: Vec::new(),
    }
}

/// What holds for a section that names nothing.
impl Default for Sync {
    fn default() -> Sync {
        Sync {
            mode: None,
            refresh_time: 60,
            cache_timeout: 180,
            commit_timeout: None,
            purge_timeout: 60,
            resend_queue_size: 131_072,
            error_queue_length: None,
            ack_window_size: 300,
            disable_internal_cache: false,
            disable_external_cache: false,
            startup_resync: false,
            transport: None,
            links: Vec::new(),
            window_tracking: false,
            alive_trailer: true,
            expectation_sync: None,
            gate: None,
        }
    }
}
