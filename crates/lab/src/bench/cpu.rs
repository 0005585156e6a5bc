//! CPU consumption and time of connection set-up against connections a second, for each
//! replication protocol: GET requests of 4 KB from A to B through FW1, at rising rates.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::http;
use super::pair::{Pair, Place, table_count};
use super::{CONNTRACKD, Figure, Measurement, NONE, Plan, Program, Table, alternate};
use crate::daemon::{Mode, Settings};
use crate::topology::Lab;
use crate::traffic::http::{Requests, Served};
use crate::wait;
use crate::world::World;

/// Connections at each rate, unless the user asks for another number.
const CONNECTIONS: u32 = 4000;
/// Connections a second; after these as many as the machine carries.
const RATES: [u32; 4] = [500, 1000, 2500, 5000];
/// After the last connection: whoever gathers or acknowledges has done so by then.
const SETTLE: Duration = Duration::from_millis(500);

/// Names of figures.
pub(crate) const HIGHEST: &str = "highest rate";
pub(crate) const SET_UP: &str = "connection set-up";
/// At the highest rate, instead of a rate.
pub(crate) const AT_HIGHEST: &str = " at the highest rate";

/// Where the backup keeps the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// In its external cache.
    Cache,
    /// In its kernel. The original has that in NOTRACK and FT-FW only.
    Kernel,
}

/// A pair; `None`: the firewall alone.
type Contender = Option<(Program, Settings)>;

/// At all rates, one after the other.
pub fn cpu(world: &World, plan: &Plan, keeps: Keeps) -> Result<Table> {
    let count = plan.flows(CONNECTIONS);
    let (title, modes): (_, &[_]) = match keeps {
        Keeps::Cache => ("external cache", &[Mode::Notrack, Mode::Alarm, Mode::Ftfw]),
        Keeps::Kernel => ("direct injection", &[Mode::Notrack, Mode::Ftfw]),
    };
    let title = format!("HTTP, {title}: GET of 4 KB, {count} connections at each rate");
    let mut contenders: Vec<(_, Contender)> = vec![(NONE, None)];
    for &mode in modes {
        let mut settings = Settings::new(mode);
        if keeps == Keeps::Kernel {
            settings.mode_lines = "DisableExternalCache on".into();
        }
        for (name, program) in plan.installed_programs()? {
            contenders.push((name_of(name, mode), Some((program, settings.clone()))));
        }
    }
    let place = match keeps {
        Keeps::Cache => Place::ExternalCache,
        Keeps::Kernel => Place::KernelOf(1),
    };
    let (lab, server) = http::lab()?;
    let mut table = alternate(&title, plan, &contenders, &[], |contender, _| {
        let ramp = |pair| {
            Ramp {
                lab: &lab,
                server,
                pair,
                place,
                measured: Measurement::default(),
            }
            .climb(count)
        };
        let Some((program, settings)) = contender else {
            lab.fw[0].run("conntrack -F")?;
            return ramp(None);
        };
        let pair = Pair::start(world, &lab, program, settings)?;
        let mut measured = ramp(Some(&pair))?;
        let setup = format!("{}, {place:?}", settings.mode);
        measured.configurations = pair.configurations(&setup)?;
        pair.stop()?;
        Ok(measured)
    })?;
    table.add_differences(SET_UP, NONE);
    Ok(table)
}

fn name_of(program: &str, mode: Mode) -> &'static str {
    match (program == CONNTRACKD, mode) {
        (true, Mode::Notrack) => "conntrackd NOTRACK",
        (true, Mode::Alarm) => "conntrackd ALARM",
        (true, Mode::Ftfw) => "conntrackd FT-FW",
        (false, Mode::Notrack) => "ftfw NOTRACK",
        (false, Mode::Alarm) => "ftfw ALARM",
        (false, Mode::Ftfw) => "ftfw FT-FW",
    }
}

/// A pair, or the firewall alone, under rising load.
struct Ramp<'a> {
    lab: &'a Lab,
    server: SocketAddr,
    pair: Option<&'a Pair>,
    /// Where FW2 has the flows.
    place: Place,
    measured: Measurement,
}

impl Ramp<'_> {
    /// The flows stay in TIME_WAIT for longer than all this takes, so that both firewalls hold
    /// those of all rates in the end.
    fn climb(mut self, count: u32) -> Result<Measurement> {
        let mut after = 0;
        for rate in RATES.map(Some).into_iter().chain([None]) {
            let requests = Requests { after, count, rate };
            after += count;
            if let Err(e) = self.step(requests) {
                let at = rate.map_or("the highest rate".into(), |rate| format!("{rate}/s"));
                self.measured.refused.push(format!("{at}: {e:#}"));
            }
        }
        Ok(self.measured)
    }

    /// # Errors
    /// If the load was not what it should be, or the pair did not hold what it should.
    fn step(&mut self, requests: Requests) -> Result<()> {
        let before = self.pair.map(Pair::cpu_ns).transpose()?;
        let served = requests.run(&self.lab.a, self.server)?;
        thread::sleep(SETTLE);
        let held = requests.after + requests.count;
        let Some((pair, before)) = self.pair.zip(before) else {
            wait::until("FW1 holds the flows", Duration::from_secs(5), || {
                table_count(self.lab, 0).is_ok_and(|n| n >= u64::from(held))
            })?;
            requests.check(&served)?;
            self.add_set_up(requests, &served);
            return Ok(());
        };
        for place in [Place::InternalCache, self.place] {
            pair.wait_for(place, held)?;
        }
        let used = pair.cpu_us_since(before, requests.count)?;
        pair.wait_equal(self.place, "tcp")?;
        requests.check(&served)?;
        for (end, us) in ["sender", "receiver"].into_iter().zip(used) {
            let share = us * served.rate / 1e4;
            self.add(requests, end, "% of a CPU", share);
            let each = format!("{end}, per connection");
            self.add(requests, &each, "µs", us);
        }
        self.add_set_up(requests, &served);
        Ok(())
    }

    fn add_set_up(&mut self, requests: Requests, served: &Served) {
        if requests.rate.is_none() {
            let figure = Figure::new(HIGHEST, "connections/s", served.rate);
            self.measured.figures.push(figure);
        }
        for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
            let n = served.connected.len().saturating_sub(1) as f64 * part;
            let Some(took) = served.connected.get(n as usize) else {
                continue;
            };
            let name = format!("{SET_UP}, {name}");
            self.add(requests, &name, "µs", took.as_secs_f64() * 1e6);
        }
    }

    fn add(&mut self, requests: Requests, name: &str, unit: &str, value: f64) {
        let figure = match requests.rate {
            Some(rate) => Figure::new(name, unit, value).at(rate.into()),
            None => Figure::new(format!("{name}{AT_HIGHEST}"), unit, value),
        };
        self.measured.figures.push(figure);
    }
}
