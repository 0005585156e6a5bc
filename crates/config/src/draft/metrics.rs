//! The effects of the words in the block `Metrics`, and what is checked when it ends.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::Draft;
use crate::diagnostic::Span;

const INTERVAL_DEFAULT: u32 = 15;

/// What has been read of the block.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    span: Option<Span>,
    pub(crate) address: Option<IpAddr>,
    port: Option<u16>,
    pub(crate) file: Option<PathBuf>,
    interval: Option<u32>,
}

impl Draft {
    pub(crate) fn begin_metrics(&mut self) {
        self.metrics = Metrics {
            span: Some(self.here()),
            ..Metrics::default()
        };
    }

    pub(crate) fn metrics_port(&mut self, n: u32) {
        match u16::try_from(n) {
            Ok(port) if port > 0 => self.metrics.port = Some(port),
            _ => self.error_here(format_args!("port {n}"), "accepted: 1 to 65535"),
        }
    }

    pub(crate) fn metrics_interval(&mut self, n: u32) {
        if n == 0 {
            self.error_here("`Interval` is 0", "at least 1, in seconds");
        }
        self.metrics.interval = Some(n);
    }

    pub(crate) fn end_metrics(&mut self) {
        // What is missing may be what was just found to be bad.
        let is_bad = self.diagnostics.has_error_behind(self.here().start);
        let Metrics {
            address,
            port,
            ref file,
            interval,
            ..
        } = self.metrics;
        let (file, has_file) = (file.clone(), file.is_some());
        if address.is_some() != port.is_some() && !is_bad {
            self.error_here(
                "`Metrics` has an address without a port, or a port without an address",
                "write both, for example `IPv4_address 127.0.0.1` and `Port 9411`",
            );
        } else if address.is_none() && !has_file && !is_bad {
            self.warn_here("`Metrics` without an address and without `File` has no effect");
        }
        if interval.is_some() && !has_file && !is_bad {
            self.warn_here("`Interval` has no effect without `File`");
        }
        let listen = address.zip(port).map(SocketAddr::from);
        self.config.metrics = (listen.is_some() || has_file).then_some(crate::Metrics {
            listen,
            file,
            interval: interval.unwrap_or(INTERVAL_DEFAULT),
        });
    }

    /// A daemon that does nothing has nothing to export.
    pub(super) fn check_metrics(&mut self) {
        if let Some(span) = self.metrics.span.clone()
            && self.sync_span.is_none()
            && self.stats_span.is_none()
            && self.config.metrics.take().is_some()
        {
            let message = "`Metrics` has no effect without `Sync` or `Stats`";
            self.diagnostics.warn(span, message);
        }
    }
}
