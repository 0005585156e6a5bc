//! The reference scenario with ftfw, and in mixed pairs.

use anyhow::{Result, ensure};
use lab::daemon::{Kind, Mode, Settings, Transport};
use lab::demo;
use lab::topology::Options;
use lab::world::World;

use crate::Scenario;
use crate::control_experiment::failover;
use crate::pair::notrack;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("failover/ftfw_keeps_connections", |w| {
        failover(w, [Kind::Ftfw; 2], Mode::Notrack)
    }),
    ("failover/ftfw_keeps_connections_in_ftfw", |w| {
        failover(w, [Kind::Ftfw; 2], Mode::Ftfw)
    }),
    ("failover/from_conntrackd_to_ftfw_in_ftfw", |w| {
        failover(w, [Kind::Conntrackd, Kind::Ftfw], Mode::Ftfw)
    }),
    ("failover/from_ftfw_to_conntrackd_in_ftfw", |w| {
        failover(w, [Kind::Ftfw, Kind::Conntrackd], Mode::Ftfw)
    }),
    ("failover/ftfw_keeps_connections_in_alarm", |w| {
        failover(w, [Kind::Ftfw; 2], Mode::Alarm)
    }),
    ("failover/from_conntrackd_to_ftfw_in_alarm", |w| {
        failover(w, [Kind::Conntrackd, Kind::Ftfw], Mode::Alarm)
    }),
    ("failover/from_ftfw_to_conntrackd_in_alarm", |w| {
        failover(w, [Kind::Ftfw, Kind::Conntrackd], Mode::Alarm)
    }),
    ("failover/from_conntrackd_to_ftfw", |w| {
        failover(w, [Kind::Conntrackd, Kind::Ftfw], Mode::Notrack)
    }),
    ("failover/from_ftfw_to_conntrackd", |w| {
        failover(w, [Kind::Ftfw, Kind::Conntrackd], Mode::Notrack)
    }),
    ("failover/with_direct_injection", |w| {
        let settings = Settings {
            mode_lines: "DisableExternalCache on".into(),
            ..notrack()
        };
        survives(w, settings, Options::default())
    }),
    ("failover/without_any_cache", |w| {
        let settings = Settings {
            mode_lines: "DisableInternalCache on\nDisableExternalCache on".into(),
            ..notrack()
        };
        survives(w, settings, Options::default())
    }),
    ("failover/over_multicast", |w| over(w, Transport::Multicast)),
    ("failover/over_ipv6", |w| over(w, Transport::Udp6)),
    ("failover/over_ipv6_multicast", |w| {
        over(w, Transport::Multicast6)
    }),
    ("failover/with_window_tracking_and_translated_ports", |w| {
        let settings = Settings {
            sync_lines: "Options {\nTCPWindowTracking on\n}".into(),
            ..notrack()
        };
        let options = Options {
            translate_ports: true,
            ..Options::default()
        };
        survives(w, settings, options)
    }),
];

fn over(world: &World, transport: Transport) -> Result<()> {
    let settings = Settings {
        transport,
        ..notrack()
    };
    survives(world, settings, Options::default())
}

fn survives(world: &World, settings: Settings, options: Options) -> Result<()> {
    let outcome = demo::run(world, [Kind::Ftfw; 2], &settings, options, true)?;
    ensure!(outcome.as_expected(), "{outcome:?}");
    Ok(())
}
