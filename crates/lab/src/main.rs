//! Command line of the laboratory.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use lab::bench::{self, Family, Keeps, Plan};
use lab::daemon::{Kind, Mode, Settings};
use lab::dashboard::{self, Board};
use lab::evaluation;
use lab::faults;
use lab::limits;
use lab::loss;
use lab::setups::{Setup, asymmetric};
use lab::soak;
use lab::topology::Options;
use lab::world::{self, World};

/// The dashboard of the package.
const DASHBOARD: &str = include_str!("../../../packaging/grafana/ftfw.json");

#[derive(Parser)]
#[command(about = "A laboratory for firewall pairs in network namespaces")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Kill a firewall under live connections and see what survives
    Demo {
        /// What runs on both firewalls
        #[arg(long, value_enum, default_value_t = Which::Ftfw)]
        daemon: Which,
        /// What runs on FW2, if something else
        #[arg(long, value_enum)]
        second: Option<Which>,
        /// Replication protocol
        #[arg(long, value_enum, default_value_t = Protocol::Notrack)]
        mode: Protocol,
    },
    /// Let connections come and go while the link loses datagrams, and compare the caches
    Loss {
        /// What runs on both firewalls
        #[arg(long, value_enum, default_value_t = Which::Ftfw)]
        daemon: Which,
        /// What runs on FW2, if something else
        #[arg(long, value_enum)]
        second: Option<Which>,
        /// Replication protocol
        #[arg(long, value_enum, default_value_t = Protocol::Ftfw)]
        mode: Protocol,
        /// Part of the datagrams that is lost, from 0 to 1
        #[arg(long, default_value_t = 0.2)]
        loss: f64,
        /// Connections; half of them are closed
        #[arg(long, default_value_t = 1000)]
        connections: usize,
        /// Chooses what is lost
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Let keepalived fail over while the ends of many connections send, and count who lives
    Failovers {
        /// How the firewalls fail over
        #[arg(value_enum)]
        contender: bench::Contender,
        /// How many connections
        #[arg(long, default_value_t = 1000)]
        connections: usize,
    },
    /// Let FW1 die once, and print for how long no traffic flows and what survives, as JSON
    Recover {
        /// What runs on both firewalls
        #[arg(value_enum)]
        pairing: bench::Pairing,
        /// How many connections
        #[arg(long, default_value_t = 1000)]
        flows: u32,
        /// Under keepalived, with as many seconds between two advertisements: 1, 0.1 or 0.01
        #[arg(long)]
        advert: Option<String>,
    },
    /// Start one of the set-ups of docs/setups, let its firewalls die, and see what survives
    Setup {
        /// Which one
        #[arg(value_enum)]
        name: Setup,
        /// Without ftfw: the control experiment
        #[arg(long)]
        without: bool,
    },
    /// Mixed traffic through a pair, a failover every minute, a fault every ten seconds
    Soak(soak::Options),
    /// Open connections through the set-up `asymmetric`, and print how they come up
    Openings {
        /// `asymmetric` or `asymmetric-notrack`
        #[arg(value_enum)]
        name: Setup,
        /// Answers come back through FW1, too
        #[arg(long)]
        symmetric: bool,
        /// Milliseconds that the ways to the server and to the client take, both together
        #[arg(long, default_value_t = 0.0)]
        round_trip: f64,
        /// Connections
        #[arg(long, default_value_t = 500)]
        count: usize,
        /// Connections a second
        #[arg(long, default_value_t = 100)]
        rate: u32,
    },
    /// Draw the dashboard for Grafana, with what Prometheus has of a pair that fails over
    Dashboard {
        /// Where the picture goes, an SVG
        to: PathBuf,
        /// Seconds
        #[arg(long, default_value_t = 120)]
        length: u64,
    },
    /// Strike a pair with faults, one after the other, and print what became of its flows: 15
    /// to 25 minutes
    Faults {
        /// One of them
        name: Option<String>,
        /// Say what there is, and strike nothing
        #[arg(long)]
        list: bool,
    },
    /// Strike one of them once, and print what came of it as JSON
    Fault {
        /// Which one
        name: String,
        /// What runs on both firewalls
        #[arg(value_enum)]
        daemon: Which,
    },
    /// Measure everything beside conntrackd, and write a report with charts: about 50 minutes
    Evaluation(evaluation::Options),
    /// Measure ftfw beside conntrackd in one run
    Bench {
        /// What to measure
        #[arg(value_enum)]
        what: Measure,
        #[command(flatten)]
        plan: Plan,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Measure {
    /// CPU time per event of a flow's life in FT-FW with external cache
    Events,
    /// The same in NOTRACK without any cache
    EventsWithoutCaches,
    /// The same in FT-FW with direct injection, and the kernel's limit
    Inject,
    /// CPU time per HTTP request, a new connection each, at two rates
    Http,
    /// CPU consumption and set-up of connections at rising rates, NOTRACK, ALARM and FT-FW
    Cpu,
    /// The same with direct injection, NOTRACK and FT-FW
    CpuInject,
    /// CPU time of an idle pair with direct injection, half of the flows UDP
    Idle,
    /// The same, all flows TCP
    IdleTcp,
    /// From a flow's begin in FW1's kernel until FW2's kernel has it, with direct injection
    Lag,
    /// Time of `-c` with flows that have source NAT
    Commit,
    /// Time until a daemon that starts, or is told to resync, knows the kernel's flows, in FT-FW
    Start,
    /// What the kernel alone does: creates in batches, a dump, events
    Kernel,
    /// Growth of resident memory per flow of the external cache
    Memory,
    /// The same for IPv6
    Memory6,
    /// Time of a listing of the external cache, as JSON and as XML
    Listing,
    /// Time of `-n` until the backup knows all flows, and CPU time of both daemons, in FT-FW
    Bulk,
    /// CPU time per TCP connection through the pair, as fast as one client goes, in NOTRACK
    Connections,
    /// The longest turns of our daemons' loops while they do what takes long
    Turns,
    /// Flows lost at 80 % of the highest rate, in NOTRACK without caches
    Capacity,
    /// Flows missing and time to equality at 0, 1, 5 and 20 % loss, in FT-FW
    Loss,
    /// Connections that die in failovers under keepalived, with and without the gate
    Gate,
    /// Time without traffic and share of surviving connections when FW1 dies, by script
    Recovery,
    /// The same under keepalived, at three rates of advertisements, with and without the gate
    Keepalived,
    /// Bytes sent and logged because of forged datagrams, with 50 000 flows
    Hostile,
    /// How connections come up whose two directions pass different firewalls
    Asymmetric,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    None,
    Conntrackd,
    Ftfw,
}

impl From<Which> for Kind {
    fn from(which: Which) -> Kind {
        match which {
            Which::None => Kind::None,
            Which::Conntrackd => Kind::Conntrackd,
            Which::Ftfw => Kind::Ftfw,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Notrack,
    Alarm,
    Ftfw,
}

impl From<Protocol> for Mode {
    fn from(protocol: Protocol) -> Mode {
        match protocol {
            Protocol::Notrack => Mode::Notrack,
            Protocol::Alarm => Mode::Alarm,
            Protocol::Ftfw => Mode::Ftfw,
        }
    }
}

fn main() -> ExitCode {
    run().unwrap_or_else(|e| {
        eprintln!("ftfw-lab: {e:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    // An evaluation blocks some for itself, and its parts are started by it.
    sys::signal::unblock()?;
    let arguments = Arguments::parse();
    if !world::is_inside() {
        if let Some(reason) = world::unavailable() {
            bail!("{reason}");
        }
        match &arguments.action {
            Action::Evaluation(options) => {
                evaluation::run(options)?;
                return Ok(ExitCode::SUCCESS);
            }
            Action::Faults { list: true, .. } => {
                faults::describe();
                return Ok(ExitCode::SUCCESS);
            }
            Action::Faults { name, .. } => {
                faults::all(name.as_deref())?;
                return Ok(ExitCode::SUCCESS);
            }
            Action::Bench { what, plan } => {
                if let Some(flows) = plan.wanted().filter(|_| fills_kernel(*what))
                    && let Some(status) = limits::run_again(flows)?
                {
                    return Ok(ExitCode::from(u8::try_from(world::exit_code(status))?));
                }
                if let Some(measure) = outside(*what) {
                    measure(plan)?;
                    return Ok(ExitCode::SUCCESS);
                }
            }
            _ => {}
        }
        // Ctrl-C reaches the run too, whose end takes everything with it.
        let status = world::command(env::args_os().skip(1))?
            .status()
            .context("unshare")?;
        return Ok(ExitCode::from(u8::try_from(world::exit_code(status))?));
    }
    let world = World::new()?;
    match arguments.action {
        Action::Evaluation(_) => bail!("each part of it wants namespaces of its own"),
        Action::Faults { .. } => bail!("each of them wants namespaces of its own"),
        Action::Fault { name, daemon } => {
            faults::one(&world, &name, daemon.into())?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Bench { what, plan } => {
            measure(&world, what, &plan)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Dashboard { to, length } => {
            let board = Board::parse(DASHBOARD)?;
            let watch = dashboard::Watch {
                length: Duration::from_secs(length),
                scrape: Duration::from_secs(1),
            };
            let shown = dashboard::watch(&world, &board, watch)?;
            fs::write(&to, dashboard::svg(&board, &shown)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Failovers {
            contender,
            connections,
        } => {
            let survey = bench::failovers(&world, contender, connections)?;
            let (alive, reset, lost) = (survey.alive, survey.reset, survey.lost);
            println!("alive={alive} reset={reset} lost={lost}");
            Ok(ExitCode::SUCCESS)
        }
        Action::Recover {
            pairing,
            flows,
            advert,
        } => {
            bench::recover(&world, pairing, flows, advert.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Loss {
            daemon,
            second,
            mode,
            loss,
            connections,
            seed,
        } => {
            let kinds = [daemon.into(), second.unwrap_or(daemon).into()];
            let setup = loss::Setup {
                loss,
                connections,
                limit: Duration::from_secs(10),
                seed,
                ..loss::Setup::new(kinds, mode.into())
            };
            let a = loss::measure(&world, &setup)?;
            print!("flows={} missing={} stale={}", a.flows, a.missing, a.stale);
            print!(" lost={} bytes_per_event={:.1}", a.lost, a.bytes_per_event);
            match a.equal_after {
                Some(after) => println!(" equal_after={:.3}", after.as_secs_f64()),
                None => println!(),
            }
            Ok(ExitCode::SUCCESS)
        }
        Action::Openings {
            name,
            symmetric,
            round_trip,
            count,
            rate,
        } => {
            let openings = asymmetric::measure(&asymmetric::Course {
                setup: name,
                symmetric,
                round_trip: Duration::from_secs_f64(round_trip / 1e3),
                count,
                rate,
            })?;
            println!("{}", bench::asymmetric::line(&openings, count));
            Ok(ExitCode::SUCCESS)
        }
        Action::Soak(options) => {
            let report = soak::run(&options, &mut |line| println!("{line}"))?;
            print!("\n{report}");
            let findings = report.findings();
            findings.iter().for_each(|f| println!("WRONG: {f}"));
            Ok(if findings.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Action::Setup { name, without } => {
            let daemon = if without { "without ftfw" } else { "with ftfw" };
            println!("set-up `{}`, {daemon}", name.name());
            let report = name.run(&world, !without)?;
            print!("{report}");
            Ok(if report.all_lived() != without {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Action::Demo {
            daemon,
            second,
            mode,
        } => {
            let kinds = [daemon.into(), second.unwrap_or(daemon).into()];
            let settings = Settings::new(mode.into());
            println!("ftfw laboratory: {} on FW1, {} on FW2", kinds[0], kinds[1]);
            let outcome = lab::demo::run(&world, kinds, &settings, Options::default(), false)?;
            let good = outcome.as_expected();
            lab::demo::print_table(&[outcome]);
            Ok(if good {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

fn measure(world: &World, what: Measure, plan: &Plan) -> Result<()> {
    let table = match what {
        Measure::Events => bench::events(world, plan),
        Measure::EventsWithoutCaches => bench::events_without_caches(world, plan),
        Measure::Inject => bench::inject(world, plan),
        Measure::Cpu => bench::cpu(world, plan, Keeps::Cache),
        Measure::CpuInject => bench::cpu(world, plan, Keeps::Kernel),
        Measure::Idle => bench::idle(world, plan),
        Measure::IdleTcp => bench::idle_tcp(world, plan),
        Measure::Lag => bench::lag(world, plan),
        Measure::Http => bench::http(world, plan),
        Measure::Commit => bench::commit(world, plan),
        Measure::Start => bench::start(world, plan),
        Measure::Kernel => bench::kernel(plan),
        Measure::Connections => bench::connections(world, plan),
        Measure::Turns => bench::turns(world, plan),
        Measure::Capacity => bench::capacity(world, plan),
        Measure::Bulk => bench::bulk(world, plan),
        Measure::Memory => bench::memory(world, plan, Family::V4),
        Measure::Memory6 => bench::memory(world, plan, Family::V6),
        Measure::Listing => bench::listing(world, plan),
        Measure::Hostile => return bench::hostile(world, plan),
        Measure::Loss
        | Measure::Gate
        | Measure::Asymmetric
        | Measure::Recovery
        | Measure::Keepalived => {
            bail!("each run of it wants namespaces of its own")
        }
    };
    plan.show(table?)
}

/// Whether it puts its flows into a kernel's table.
fn fills_kernel(what: Measure) -> bool {
    !matches!(
        what,
        Measure::Memory | Measure::Memory6 | Measure::Listing | Measure::Hostile
    )
}

/// Measurements each of whose runs has namespaces of its own.
fn outside(what: Measure) -> Option<fn(&Plan) -> Result<()>> {
    match what {
        Measure::Loss => Some(bench::loss),
        Measure::Gate => Some(bench::gate),
        Measure::Recovery => Some(bench::recovery),
        Measure::Keepalived => Some(bench::keepalived),
        Measure::Asymmetric => Some(bench::asymmetric::asymmetric),
        _ => None,
    }
}
