//! Start and end of the daemon.
//!
//! Order of a start: log, lock, control socket, links, kernel sockets (events
//! before the first dump), sandbox, readiness. With `-d` the parent exits 0 only after all
//! of that has worked, so a client can connect as soon as it returns. If it has not, the
//! child hands the reason to the parent, which prints it, and writes it to the log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use config::{Config, SchedulerType};
use ctnetlink::TcpOptions;
use replica::Replica;
use rustix::fs::Mode;
use rustix::pipe::PipeFlags;
use sys::netlink::Netlink;
use sys::place::{self, OwnFile, Place};
use sys::process::{Fork, RealTime};
use sys::signal::Signals;

use crate::app::App;
use crate::change::Changes;
use crate::clients::Clients;
use crate::door::Door;
use crate::dumper::Dumper;
use crate::gate::Gate;
use crate::host::Host;
use crate::idle;
use crate::kernel::EventSocket;
use crate::links::Links;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::sandbox::{self, Files};
use crate::service::Service;
use crate::settings::{self, settings};
use crate::statistics::StatisticsLog;
use crate::sysctl::EventsSetting;
use crate::turn::{self, Core};
use crate::writer::Writer;

/// Whoever looks at the lock, or removes what a dead daemon has left, holds it for less than this.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Between two attempts to take the lock.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it was told to.
    Well,
    /// By an error that has been reported.
    Failed,
}

/// Runs the daemon until it is told to stop.
///
/// `warnings` of the configuration are said once at the start. With `background`
/// the call forks; it returns in the parent, too, when the start is complete.
///
/// # Errors
/// What the caller has to print: what prevented the start, or ended it. It is in the log
/// already, if there is one.
pub fn run(config: &Config, warnings: &[String], background: bool) -> Result<Ended> {
    rustix::process::umask(Mode::from_raw_mode(0o177));
    let log = Log::open(!background, config.log_file.as_deref(), config.syslog)
        .with_context(|| match &config.log_file {
            Some(path) => format!("can't open logfile '{}'", path.display()),
            None => "can't open the log".to_owned(),
        })
        .inspect_err(|e| report(None, config, e))?;
    log_panics(config);
    if !background {
        return serve(config, warnings, log, None);
    }
    match split().inspect_err(|e| report(config.log_file.as_deref(), config, e))? {
        Split::Parent(started) => started,
        // What it returns is for the parent to print.
        Split::Child(parent) => {
            Ok(serve(config, warnings, log, Some(parent)).unwrap_or(Ended::Failed))
        }
    }
}

/// Starts, and runs to the end. A parent that waits is told when the start is complete, or
/// what prevented it.
fn serve(
    config: &Config,
    warnings: &[String],
    mut log: Log,
    parent: Option<File>,
) -> Result<Ended> {
    for warning in warnings {
        log.warning(warning);
    }
    let background = parent.is_some();
    let started = start(config, log, background).and_then(|started| {
        if background {
            leave_terminal()?;
        }
        Ok(started)
    });
    if let Some(mut parent) = parent {
        // The parent may have been killed.
        let _ = match &started {
            Ok(_) => parent.write_all(STARTED),
            Err(e) => parent.write_all(format!("{e:#}").as_bytes()),
        };
    }
    let log_file = config.log_file.as_deref();
    let (started, guards) = started.inspect_err(|e| report(log_file, config, e))?;
    let mut service = Service::new(config.systemd.unwrap_or(true));
    service.ready();
    let result = started
        .run(&mut service)
        .inspect_err(|e| report(log_file, config, e));
    service.stopping();
    drop(guards);
    // The end makes calls of its own.
    if sandbox::has_refused()
        && let Ok(mut log) = Log::open(false, log_file, config.syslog)
    {
        sandbox::report_refused(&mut log);
    }
    result.map(|()| Ended::Well)
}

/// What a parent reads after a complete start; anything else is the reason why there is none.
const STARTED: &[u8] = b"\0";

enum Split {
    /// Has waited for the child, and knows how its start went.
    Parent(Result<Ended>),
    /// Is to tell the parent through this pipe how its start went.
    Child(File),
}

fn split() -> Result<Split> {
    // Programs that the child starts must not hold it: its end is what the parent waits for.
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
    match sys::process::fork().context("fork")? {
        Fork::Child => {
            drop(reader);
            rustix::process::setsid().context("setsid")?;
            Ok(Split::Child(File::from(writer)))
        }
        Fork::Parent(_) => {
            drop(writer);
            let mut told = Vec::new();
            let read = File::from(reader).read_to_end(&mut told);
            Ok(Split::Parent(match told.as_slice() {
                STARTED => Ok(Ended::Well),
                reason if read.is_ok() && !reason.is_empty() => {
                    Err(anyhow!(String::from_utf8_lossy(reason).into_owned()))
                }
                _ => Err(anyhow!("the daemon died before its start was complete")),
            }))
        }
    }
}

/// Whoever waits for the end of our output must not wait for the end of the daemon.
fn leave_terminal() -> Result<()> {
    std::env::set_current_dir("/").context("chdir /")?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Writes to the logs, not to the console, what the caller prints.
fn report(log_file: Option<&Path>, config: &Config, error: &anyhow::Error) {
    if let Ok(mut log) = Log::open(false, log_file, config.syslog) {
        log.error(format!("{error:#}"));
    }
}

/// In the background nobody sees what a panic prints.
fn log_panics(config: &Config) {
    let (log_file, syslog) = (config.log_file.clone(), config.syslog);
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        if let Ok(mut log) = Log::open(false, log_file.as_deref(), syslog) {
            log.error(format!("this is a bug, please report it: {info}"));
        }
    }));
}

/// What must be undone at the end: it is, when this is dropped.
struct Guards {
    events: EventsSetting,
    /// What is left of the system's files.
    files: Files,
    socket: Option<OwnFile>,
    _lock: OwnFile,
    /// Held locked as long as the daemon lives.
    _lock_file: File,
}

/// A daemon that has started, and runs until told to stop.
enum Started {
    /// It replicates, or keeps statistics.
    Core(Box<Core>),
    /// It has nothing to do.
    Idle(Box<Log>, Clients, Signals),
}

impl Started {
    fn run(self, service: &mut Service) -> Result<()> {
        match self {
            Started::Core(core) => turn::run(*core, service),
            Started::Idle(log, clients, signals) => idle::run(*log, clients, &signals, service),
        }
    }
}

fn start(config: &Config, mut log: Log, background: bool) -> Result<(Started, Guards)> {
    log.notice(if background {
        "-- starting in daemon mode --"
    } else {
        "-- starting in console mode --"
    });
    let app = App::of(config);
    let (lock_file, lock) = take_lock(config)?;
    // Before any other thread, so that it has them blocked too.
    let signals = Signals::open().context("signals")?;
    let mut guards = Guards {
        events: EventsSetting::untouched(),
        files: Files::default(),
        socket: None,
        _lock: lock,
        _lock_file: lock_file,
    };
    let started = match app {
        App::Idle => {
            let clients = open_control(config, &mut guards)?;
            guards.files = sandbox::enter(config, &mut log);
            log.started("neither `Sync` nor `Stats` is configured: nothing to do");
            Started::Idle(Box::new(log), clients, signals)
        }
        App::Sync(_) | App::Statistics(_) => {
            Started::Core(Box::new(core(config, app, log, signals, &mut guards)?))
        }
    };
    Ok((started, guards))
}

/// Opens the sockets of a daemon that replicates or keeps statistics.
fn core(
    config: &Config,
    app: App<'_>,
    mut log: Log,
    signals: Signals,
    guards: &mut Guards,
) -> Result<Core> {
    let window_scale = matches!(app, App::Sync(sync) if sync.window_tracking);
    let mut writer = Writer::open(TcpOptions { window_scale })?;
    set_scheduler(config, &mut log);
    let clients = open_control(config, guards)?;
    let (mut links, settings, statistics) = match app {
        App::Sync(sync) => {
            let (links, of_links) = Links::open(sync)?;
            (links, settings(config, sync, of_links), None)
        }
        App::Statistics(stats) => {
            let log = StatisticsLog::open(stats)?;
            (Links::none()?, settings::statistics(config), Some(log))
        }
        App::Idle => bail!("nothing is configured"),
    };
    for link in &links.list {
        if !link.buffers_granted() {
            log.warning(format!(
                "link {}: socket buffers are smaller than configured: start the daemon with \
                 CAP_NET_ADMIN, or raise net.core.rmem_max and net.core.wmem_max",
                link.device()
            ));
        }
    }
    let events = open_events(config, &writer, &mut log, guards)?;
    let mut dump = Dumper::open()?;
    let watch = Netlink::open_link_watch().context("netlink socket for links")?;
    if !settings.internal_cache {
        log.notice("disabling internal cache");
    }
    if !settings.external_cache {
        log.notice("disabling external cache");
    }
    let mut replica = Replica::new(settings);
    if events.is_none() {
        replica = replica.without_events();
    }
    let start = Instant::now();
    for (n, usable) in links.go_on(start) {
        let id = replica::LinkId(n);
        replica.handle_link(replica::Instant::START, id, usable);
    }
    let gate = match app {
        App::Sync(sync) => sync.gate.as_ref(),
        _ => None,
    };
    let loaded = gate.map(|gate| Gate::load(Duration::from_secs(gate.timeout.into())));
    let changes = Changes::new(gate, loaded.transpose()?);
    let metrics = config.metrics.as_ref();
    let metrics = metrics.map(|m| Metrics::open(m, &mut log)).transpose()?;
    guards.files = sandbox::enter(config, &mut log);
    writer.start()?;
    dump.start_thread()?;
    log.started("initialization completed");
    let mut host = Host::new(
        log,
        links,
        writer,
        events,
        dump,
        clients,
        config.event_iteration_limit,
    );
    host.is_filling = replica.settings().internal_cache;
    host.statistics = statistics;
    host.metrics = metrics;
    host.pace = Pace::new(config.gather_events);
    Ok(Core {
        replica,
        host,
        signals,
        watch,
        start,
        changes,
    })
}

/// Takes the lock. A file left by a dead process is no obstacle: what counts is who
/// holds it locked. The original only looks at the file, so it is removed at the end.
fn take_lock(config: &Config) -> Result<(File, OwnFile)> {
    let path = &config.lock_file;
    let taken = retry(LOOK_MAX, || place::try_lock(path));
    let Some(file) = taken.with_context(|| format!("lockfile '{}'", path.display()))? else {
        bail!(
            "lockfile '{}' exists, perhaps conntrackd already running?",
            path.display()
        );
    };
    // The original holds no lock on its file; it answers on its socket.
    if let Some(control) = &config.control_path {
        place::check_socket(control).with_context(|| no_socket(control))?;
    }
    Ok((file, OwnFile::at(Place::Lock, path)?))
}

/// Tries until there is something, or an error, or the time is over.
fn retry<T>(
    limit: Duration,
    mut attempt: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let begun = Instant::now();
    loop {
        let got = attempt()?;
        if got.is_some() || begun.elapsed() >= limit {
            return Ok(got);
        }
        thread::sleep(LOOK_PAUSE);
    }
}

fn open_control(config: &Config, guards: &mut Guards) -> Result<Clients> {
    let Some(path) = &config.control_path else {
        return Clients::new(None);
    };
    let (listener, own) = place::bind(path).with_context(|| no_socket(path))?;
    guards.socket = Some(own);
    listener.set_nonblocking(true)?;
    Clients::new(Some(Door::new(listener)))
}

fn no_socket(path: &Path) -> String {
    format!("can't open unix socket! {}", path.display())
}

fn set_scheduler(config: &Config, log: &mut Log) {
    let (class, priority) = config.scheduler.unwrap_or((SchedulerType::RoundRobin, 99));
    let class = match class {
        SchedulerType::RoundRobin => RealTime::RoundRobin,
        SchedulerType::Fifo => RealTime::Fifo,
    };
    if let Err(e) = sys::process::set_real_time(class, priority) {
        log.warning(format!(
            "scheduler configuration failed: {e}. Going on under the normal scheduler: another one \
             needs CAP_SYS_NICE."
        ));
    }
}

fn open_events(
    config: &Config,
    writer: &Writer,
    log: &mut Log,
    guards: &mut Guards,
) -> Result<Option<EventSocket>> {
    if config.poll_secs.is_some() {
        log.notice("running in polling mode");
        return Ok(None);
    }
    let (socket, warning) = EventSocket::open(config, writer.ports())?;
    if socket.filters_in_kernel() {
        log.notice("using kernel-space event filtering");
    } else {
        log.notice("using user-space event filtering");
        if config.filter_in_kernel {
            log.warning("the filter is too long for the kernel: it is applied in user space alone");
        }
    }
    if let Some(warning) = warning {
        log.warning(warning);
    }
    log.notice(format!(
        "netlink event socket buffer size has been set to {} bytes",
        socket.buffer_bytes()
    ));
    if config.events_reliable {
        log.notice("reliable ctnetlink event delivery is ENABLED.");
    }
    if config.conntrack_events {
        match EventsSetting::all_flows() {
            Ok(setting) => guards.events = setting,
            Err(why) => log.warning(why),
        }
    }
    Ok(Some(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_somebody_looks_at_is_taken_when_it_is_free() {
        let mut answers = [Ok(None), Ok(None), Ok(Some(7)), Ok(Some(8))].into_iter();
        let got = retry(Duration::MAX, || answers.next().unwrap());
        assert_eq!((got.unwrap(), answers.len()), (Some(7), 1));
        let mut answers = [Ok(None), Err(io::Error::other("a directory"))].into_iter();
        let got: io::Result<Option<u8>> = retry(Duration::MAX, || answers.next().unwrap());
        assert!(got.is_err());
        let mut attempts = 0;
        let got: io::Result<Option<u8>> = retry(Duration::ZERO, || {
            attempts += 1;
            Ok(None)
        });
        assert_eq!((got.unwrap(), attempts), (None, 1));
    }
}
