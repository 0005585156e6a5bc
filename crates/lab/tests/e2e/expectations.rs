//! RELATED: FTP through source NAT. The control connection and what was agreed on are
//! older than the failover, the data connection is younger.

use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::topology::{Lab, Options, SERVER, SERVER6};
use lab::traffic::ftp::{self, Client, Way};
use lab::wait;
use lab::world::World;

use crate::Scenario;
use crate::pair::SOON;

const OURS: [Kind; 2] = [Kind::Ftfw; 2];

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("expectations/no_daemon_and_no_data_connection", nothing),
    ("expectations/ftp_in_notrack", |w| {
        survives(w, &settings(Mode::Notrack))
    }),
    ("expectations/ftp_in_alarm", |w| {
        survives(w, &settings(Mode::Alarm))
    }),
    ("expectations/ftp_in_ftfw", |w| {
        survives(w, &settings(Mode::Ftfw))
    }),
    ("expectations/ftp_with_injection", |w| {
        survives(w, &with_mode_lines("DisableExternalCache on"))
    }),
    ("expectations/ftp_without_any_cache", |w| {
        let lines = "DisableInternalCache on\nDisableExternalCache on";
        let settings = Settings {
            mode: Mode::Notrack,
            ..with_mode_lines(lines)
        };
        survives(w, &settings)
    }),
    ("expectations/active_ftp_after_a_failback", |w| {
        comes_back(w, &settings(Mode::Ftfw))
    }),
    ("expectations/active_ftp_after_a_failback_injected", |w| {
        comes_back(w, &with_mode_lines("DisableExternalCache on"))
    }),
    ("expectations/passive_ftp_from_conntrackd_to_ftfw", |w| {
        mixed(w, [Kind::Conntrackd, Kind::Ftfw])
    }),
    ("expectations/passive_ftp_from_ftfw_to_conntrackd", |w| {
        mixed(w, [Kind::Ftfw, Kind::Conntrackd])
    }),
    ("expectations/two_conntrackd_lose_active_ftp", originals),
];

fn settings(mode: Mode) -> Settings {
    Settings {
        sync_lines: "Options { ExpectationSync { ftp } }".into(),
        ..Settings::new(mode)
    }
}

fn with_mode_lines(lines: &str) -> Settings {
    Settings {
        mode_lines: lines.into(),
        ..settings(Mode::Ftfw)
    }
}

/// A client, its name, and whether it retrieved two files after the failover: one agreed
/// on before, one after.
type Outcome = Vec<(String, Result<()>)>;

/// Both ways over both families, as far as `wanted` asks; FW1 dies in between.
fn failover(world: &World, kinds: [Kind; 2], settings: &Settings, ways: &[Way]) -> Result<Outcome> {
    let lab = Lab::build(Options {
        ftp: true,
        ..Options::default()
    })?;
    let start = |n: usize| Daemon::start(kinds[n], &lab.fw[n], n, settings, world.dir());
    let (mut fw1, fw2) = (start(0)?, start(1)?);
    let mut clients = Vec::new();
    for ip in [SERVER, SERVER6] {
        ftp::serve(&lab.b, ip)?;
        for &way in ways {
            let name = format!("{way:?} to {ip}");
            let mut client = Client::open(&lab.a, ip, way).context(name.clone())?;
            client.agree().context(name.clone())?;
            client.retrieve().context("before the failover")?;
            client.agree()?;
            clients.push((name, client));
        }
    }
    if let Some(fw2) = &fw2 {
        wait_for(fw2, settings, &lab, clients.len())?;
    }
    lab.cut(0)?;
    if let Some(fw1) = &mut fw1 {
        fw1.kill();
    }
    lab.take_addresses(1)?;
    if let Some(fw2) = &fw2 {
        fw2.become_primary()?;
    }
    let retrieve = |(name, mut client): (String, Client)| {
        let outcome = (client.retrieve().context("agreed on before"))
            .and_then(|()| client.agree().and_then(|()| client.retrieve()));
        (name, outcome)
    };
    // Side by side: where nothing works, each waits for its limit.
    let running: Vec<_> = (clients.into_iter())
        .map(|client| thread::spawn(move || retrieve(client)))
        .collect();
    let done = running.into_iter().map(thread::JoinHandle::join);
    done.map(|d| d.map_err(|_| anyhow!("a client panicked")))
        .collect()
}

/// Waits until FW2 knows what is predicted, in its cache or its kernel.
fn wait_for(fw2: &Daemon, settings: &Settings, lab: &Lab, count: usize) -> Result<()> {
    let injects = settings.mode_lines.contains("DisableExternalCache");
    let mut last = 0;
    wait::until("FW2 knows the expectations", SOON, || {
        let asked = if injects {
            let family = |f| lab.fw[1].run(&format!("conntrack -f {f} -L expect"));
            vec![family("ipv4"), family("ipv6")]
        } else {
            vec![fw2.ask(&["-e", "expect"])]
        };
        let lines = |text: Result<String>| text.map_or(0, |t| t.lines().count());
        last = asked.into_iter().map(lines).sum();
        last == count
    })
    .with_context(|| format!("it knows {last} of {count}"))?;
    if !injects && fw2.kind() == Kind::Ftfw {
        let counted = |filter: &str| fw2.own(&["expectations", "external", filter, "--count"]);
        ensure!(counted("helper=ftp")? == format!("{count}\n"));
        ensure!(counted("proto=udp")? == "0\n");
    }
    Ok(())
}

const BOTH: &[Way] = &[Way::Active, Way::Passive];

fn survives(world: &World, settings: &Settings) -> Result<()> {
    let outcome = failover(world, OURS, settings, BOTH)?;
    ensure!(outcome.len() == 4);
    for (name, outcome) in outcome {
        outcome.context(name)?;
    }
    Ok(())
}

/// Goal: the helper of the firewall that is primary again follows a control connection that has
/// gone on meanwhile. Method: the first file after each change, which the helper must see.
fn comes_back(world: &World, settings: &Settings) -> Result<()> {
    let lab = Lab::build(Options {
        ftp: true,
        ..Options::default()
    })?;
    let start = |n: usize| -> Result<Daemon> {
        let daemon = Daemon::start(Kind::Ftfw, &lab.fw[n], n, settings, world.dir())?;
        daemon.context("no daemon")
    };
    let daemons = [start(0)?, start(1)?];
    let mut clients = Vec::new();
    for ip in [SERVER, SERVER6] {
        ftp::serve(&lab.b, ip)?;
        clients.push(Client::open(&lab.a, ip, Way::Active)?);
    }
    let mut retrieve = |what: &str| {
        clients.iter_mut().try_for_each(|client| {
            client.agree()?;
            client.retrieve().context(what.to_owned())
        })
    };
    retrieve("through FW1")?;
    for to in [1, 0] {
        lab.drop_addresses(1 - to)?;
        lab.take_addresses(to)?;
        daemons[to].become_primary()?;
        daemons[1 - to].become_backup()?;
        let what = format!("FW{} is primary", to + 1);
        retrieve(&what)?;
        retrieve(&what)?;
    }
    Ok(())
}

/// The control experiment.
fn nothing(world: &World) -> Result<()> {
    let outcome = failover(world, [Kind::None; 2], &settings(Mode::Ftfw), BOTH)?;
    for (name, outcome) in outcome {
        ensure!(outcome.is_err(), "{name} works without any replication");
    }
    Ok(())
}

/// What is not translated needs nothing that the original loses.
fn mixed(world: &World, kinds: [Kind; 2]) -> Result<()> {
    let outcome = failover(world, kinds, &settings(Mode::Ftfw), &[Way::Passive])?;
    for (name, outcome) in outcome {
        outcome.context(name)?;
    }
    Ok(())
}

/// Why active FTP is not required of mixed pairs: the original loses the translation of the
/// data connection and the sequence adjustment of the control connection.
fn originals(world: &World) -> Result<()> {
    let kinds = [Kind::Conntrackd; 2];
    let outcome = failover(world, kinds, &settings(Mode::Ftfw), &[Way::Active])?;
    for (name, outcome) in outcome {
        ensure!(outcome.is_err(), "{name} works with two originals");
    }
    Ok(())
}
