//! What the service manager is told: that the daemon is ready, lives, reloads and stops, and one
//! line about it (`systemctl status`). See `sd_notify(3)`.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The line about the daemon is not changed more often.
const STATUS_PAUSE: Duration = Duration::from_secs(5);

/// The connection to the service manager. Without one, or with `Systemd off`, nothing is sent.
#[derive(Debug)]
pub(crate) struct Service {
    is_on: bool,
    /// It is to hear from us at this interval.
    watchdog: Option<Duration>,
    fed_at: Instant,
    status: String,
    status_at: Option<Instant>,
}

impl Service {
    pub(crate) fn new(is_on: bool) -> Service {
        let is_on = is_on && std::env::var_os("NOTIFY_SOCKET").is_some();
        Service {
            is_on,
            watchdog: sd_notify::watchdog_enabled()
                .filter(|_| is_on)
                .map(|interval| interval / 2),
            fed_at: Instant::now(),
            status: String::new(),
            status_at: None,
        }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if self.is_on {
            // A manager that is gone restarts us, or nobody does.
            let _ = sd_notify::notify(states);
        }
    }

    pub(crate) fn ready(&self) {
        self.tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
    }

    pub(crate) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Does what a reload asks for, and tells when it begins and ends.
    pub(crate) fn reload(&self, work: impl FnOnce()) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
        work();
        self.tell(&[NotifyState::Ready]);
    }

    /// Feeds the watchdog, if it is time.
    pub(crate) fn feed(&mut self) {
        if self.until_feed().is_some_and(|left| left.is_zero()) {
            self.fed_at = Instant::now();
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    /// How long the watchdog still waits for us; `None` without one.
    pub(crate) fn until_feed(&self) -> Option<Duration> {
        Some(self.watchdog?.saturating_sub(self.fed_at.elapsed()))
    }

    /// True if it is time for the line about the daemon.
    pub(crate) fn wants_status(&self) -> bool {
        let is_early = |at: Instant| at.elapsed() < STATUS_PAUSE;
        self.is_on && !self.status_at.is_some_and(is_early)
    }

    /// Tells the line about the daemon, if it has changed.
    pub(crate) fn status(&mut self, line: String) {
        self.status_at = Some(Instant::now());
        if line != self.status {
            self.tell(&[NotifyState::Status(&line)]);
            self.status = line;
        }
    }
}
