//! How long no traffic flows when FW1 dies, and which share of the connections survives: by the
//! original's script at once, without any detection, and under keepalived.
//!
//! At most a thousand connections are real, and a message must pass both ways on each. All others
//! are entries of FW1's kernel, and survive if FW2's kernel has them, established. The silence is
//! that of a few UDP flows beside them, on which the server sends every 2 ms: the longest of any.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::gate::GATE;
use super::load::{Action, Load};
use super::pair::{Pair, Place, established};
use super::{Figure, Measurement, NONE, Plan, Program, Table, alternate};
use crate::daemon::{Kind, Mode, Settings};
use crate::keepalived::{Calls, Keepalived, State, Way};
use crate::topology::{Lab, Options, SERVER};
use crate::traffic::numbered::{self, Connections};
use crate::traffic::tickers::Tickers;
use crate::world::{self, World};

/// Flows, unless the user asks for another number.
const FLOWS: u32 = 1000;
/// Connections that are real.
const REAL_MAX: u32 = 1000;
/// UDP flows whose silence is taken: half of them from before the connections, half from after.
const TICKERS: usize = 10;
const NUMBERED_PORT: u16 = 7;
const TICKER_PORT: u16 = 9000;
/// Entries a second that are made in FW1's kernel.
const RATE: u32 = 20_000;
/// Longest time until traffic flows again, and what is waited for without a daemon.
const LIVES: Duration = Duration::from_secs(15);
const DEAD: Duration = Duration::from_secs(4);
/// Seconds between two advertisements of keepalived.
const ADVERTS: [&str; 3] = ["1", "0.1", "0.01"];

/// Names of figures.
pub(crate) const TAKEOVER: &str = "take-over";
pub(crate) const SILENCE: &str = "no traffic for";
pub(crate) const SURVIVE: &str = "connections that survive";

/// What runs on both firewalls, and where FW2 has the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pairing {
    /// No daemon: the control.
    None,
    /// The original's external cache is committed.
    ConntrackdCommit,
    /// The original injects.
    ConntrackdInjection,
    /// Our external cache is committed.
    FtfwCommit,
    /// The same behind the gate.
    FtfwCommitGate,
    /// Ours injects.
    FtfwInjection,
    /// The same behind the gate.
    FtfwInjectionGate,
}

impl Pairing {
    fn name(self) -> &'static str {
        match self {
            Pairing::None => NONE,
            Pairing::ConntrackdCommit => "conntrackd commit",
            Pairing::ConntrackdInjection => "conntrackd injection",
            Pairing::FtfwCommit => "ftfw commit",
            Pairing::FtfwCommitGate => "ftfw commit, gate",
            Pairing::FtfwInjection => "ftfw injection",
            Pairing::FtfwInjectionGate => "ftfw injection, gate",
        }
    }

    fn has_gate(self) -> bool {
        matches!(self, Pairing::FtfwCommitGate | Pairing::FtfwInjectionGate)
    }

    fn injects(self) -> bool {
        matches!(
            self,
            Pairing::ConntrackdInjection | Pairing::FtfwInjection | Pairing::FtfwInjectionGate
        )
    }

    fn kind(self) -> Kind {
        match self {
            Pairing::None => Kind::None,
            Pairing::ConntrackdCommit | Pairing::ConntrackdInjection => Kind::Conntrackd,
            _ => Kind::Ftfw,
        }
    }

    /// FT-FW, as both programs read it.
    fn settings(self) -> Settings {
        let mut settings = Settings::new(Mode::Ftfw);
        if self.injects() {
            settings.mode_lines = "DisableExternalCache on".into();
        }
        if self.has_gate() {
            settings.sync_lines = GATE.into();
        }
        settings
    }

    /// Where FW2 has the flows.
    fn place(self) -> Place {
        if self.injects() {
            Place::KernelOf(1)
        } else {
            Place::ExternalCache
        }
    }

    fn calls(self) -> Calls {
        match self.kind() {
            Kind::Ftfw => Calls::Roles,
            _ => Calls::Script,
        }
    }
}

/// By script. Each measurement has namespaces of its own: this is called outside of any.
pub fn recovery(plan: &Plan) -> Result<()> {
    let all = Pairing::value_variants().iter();
    let pairings: Vec<_> = all.copied().filter(|p| !p.has_gate()).collect();
    let count = plan.flows(FLOWS);
    let title = format!("FW1 dies, {count} connections, by script: no detection");
    plan.show(survey(&title, plan, &pairings, count, None)?)
}

/// Under keepalived, with and without the gate. Each measurement has namespaces of its own: this
/// is called outside of any.
pub fn keepalived(plan: &Plan) -> Result<()> {
    let count = plan.flows(FLOWS);
    for advert in ADVERTS {
        let title = format!("FW1 dies, {count} connections, under keepalived, advert_int {advert}");
        let table = survey(&title, plan, Pairing::value_variants(), count, Some(advert))?;
        plan.show(table.at(advert.parse()?))?;
    }
    Ok(())
}

fn survey(
    title: &str,
    plan: &Plan,
    pairings: &[Pairing],
    count: u32,
    advert: Option<&'static str>,
) -> Result<Table> {
    plan.installed_programs()?;
    let contenders: Vec<_> = pairings.iter().map(|p| (p.name(), *p)).collect();
    alternate(title, plan, &contenders, &[], |pairing, _| {
        let value = pairing.to_possible_value().context("no name")?;
        let mut words = format!("recover {} --flows {count}", value.get_name());
        if let Some(advert) = advert {
            words += &format!(" --advert {advert}");
        }
        let out = world::command(words.split(' ').map(Into::into))?.output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        let error = || format!("{text}{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_str::<Measurement>(&text).with_context(error)
    })
}

/// FW1 dies once, and FW2 takes over: by script, or under keepalived with these seconds between two
/// advertisements. Prints what was measured, for [`recovery`] and [`keepalived`].
///
/// # Errors
/// If FW2 does not have what it should have before, or does not take over.
pub fn recover(world: &World, pairing: Pairing, count: u32, advert: Option<&str>) -> Result<()> {
    let lab = Lab::build(Options {
        datagrams: true,
        ..Options::default()
    })?;
    for fw in &lab.fw {
        // Logging every packet would take longer than forwarding it.
        fw.run("iptables -D FORWARD -j LOG")?;
    }
    let mut pair = match pairing.kind() {
        Kind::None => None,
        kind => {
            let program = Program { kind, path: None };
            Some(Pair::start(world, &lab, &program, &pairing.settings())?)
        }
    };
    let managers = match advert {
        Some(advert) => Some(managers(&lab, pair.as_ref(), pairing, advert)?),
        None => None,
    };
    let mut traffic = Traffic::open(&lab, count)?;
    if let Some(pair) = &pair {
        let all = count + TICKERS as u32;
        pair.wait_for(Place::InternalCache, all)?;
        pair.wait_for(pairing.place(), all)?;
        pair.wait_equal(pairing.place(), "tcp")?;
    }

    traffic.tickers.reset()?;
    let died = Instant::now();
    lab.cut(0)?;
    if let Some(pair) = &mut pair {
        pair.daemons[0].kill();
    }
    match &managers {
        Some([_, second]) => second.wait(State::Primary)?,
        None => {
            lab.take_addresses(1)?;
            if let Some(pair) = &pair {
                pair.daemons[1].become_primary()?;
            }
        }
    }
    let takeover = died.elapsed();
    let limit = if pair.is_some() { LIVES } else { DEAD };
    let silences = traffic.tickers.silences(Instant::now(), limit);
    let survivors = traffic.survivors(&lab, limit)?;

    let mut measured = Measurement::from(vec![
        Figure::new(TAKEOVER, "ms", ms(takeover)),
        Figure::new(SURVIVE, "%", 100.0 * survivors as f64 / f64::from(count)),
    ]);
    // If not all of them are heard again, no time is the longest.
    if let Some(longest) = silences.iter().max().filter(|_| silences.len() == TICKERS) {
        measured
            .figures
            .push(Figure::new(SILENCE, "ms", ms(*longest)));
    }
    if let Some(pair) = &pair {
        let setup = format!(
            "FT-FW, {:?}{}",
            pairing.place(),
            if pairing.has_gate() { ", gate" } else { "" }
        );
        measured.configurations = pair.configurations(&setup)?;
    }
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// keepalived on both firewalls, FW1 primary.
fn managers(
    lab: &Lab,
    pair: Option<&Pair>,
    pairing: Pairing,
    advert: &str,
) -> Result<[Keepalived; 2]> {
    lab.drop_addresses(0)?;
    let advert = ADVERTS.into_iter().find(|a| *a == advert);
    let way = Way {
        calls: pairing.calls(),
        advert: advert.with_context(|| format!("--advert: {}", ADVERTS.join(", ")))?,
    };
    let start = |n: usize, state| {
        let daemon = pair.map(|pair| &pair.daemons[n]);
        Keepalived::start_with(lab, n, daemon, state, way)
    };
    let first = start(0, State::Primary)?;
    let mut second = start(1, State::Backup)?;
    second.expect_change()?;
    Ok([first, second])
}

/// What passes through FW1.
struct Traffic {
    tickers: Tickers,
    connections: Connections,
    /// Entries that no traffic made.
    entries: u32,
}

impl Traffic {
    fn open(lab: &Lab, count: u32) -> Result<Traffic> {
        let address = |port| -> Result<SocketAddr> { Ok(SocketAddr::new(SERVER.parse()?, port)) };
        let tickers = Tickers::start(&lab.a, &lab.b, address(TICKER_PORT)?)?;
        tickers.add(TICKERS / 2)?;
        let real = count.min(REAL_MAX);
        numbered::serve(&lab.b, address(NUMBERED_PORT)?)?;
        let mut connections = Connections::open(&lab.a, address(NUMBERED_PORT)?, real as usize)?;
        let works = connections.round(LIVES);
        ensure!(works == real as usize, "{works} of {real} connections work");
        let entries = count - real;
        if entries > 0 {
            for action in [Action::Create, Action::Update] {
                let load = Load {
                    flow: super::flow,
                    first: 0,
                    count: entries,
                    group: 64,
                    rate: Some(RATE),
                };
                load.run(&lab.fw[0], action)?;
            }
        }
        tickers.add(TICKERS - TICKERS / 2)?;
        Ok(Traffic {
            tickers,
            connections,
            entries,
        })
    }

    /// Connections on which a message passes both ways, and entries that FW2's kernel has.
    fn survivors(&mut self, lab: &Lab, limit: Duration) -> Result<u32> {
        // A second round proves that the first was no accident of buffers.
        let mut alive = self.connections.round(limit);
        if alive > 0 {
            thread::sleep(Duration::from_millis(100));
            alive = self.connections.round(limit);
        }
        let mut survivors = alive as u32;
        if self.entries > 0 {
            survivors += established(lab, 1, self.entries)?;
        }
        Ok(survivors)
    }
}
