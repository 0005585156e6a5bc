//! Settings of replicas, pairs in a known state, and what both hold.

use std::collections::BTreeMap;
use std::time::Duration;

use flow::{Filter, Flow, FlowKey};
use replica::{Answer, Epoch, Event, LinkSettings, Mode, Seq, Settings, TableId, Which};

use crate::flows::tcp;
use crate::world::World;
use crate::{FW1, FW2};

pub(crate) fn settings() -> Settings {
    let link = |name: &str| LinkSettings {
        name: name.into(),
        mtu: 1500,
        allowance: 28,
    };
    Settings {
        mode: Mode::Notrack,
        internal_cache: true,
        external_cache: true,
        limit: 10_000,
        ack_window: 300,
        resend_queue: 1000,
        refresh_time: Duration::from_secs(10),
        cache_timeout: Duration::from_secs(30),
        commit_timeout: None,
        purge_timeout: Duration::from_secs(60),
        window_tracking: false,
        startup_resync: false,
        overrun_resync: Some(Duration::from_secs(2)),
        expectations: None,
        filter: Filter::default(),
        links: vec![link("sync0"), link("sync1")],
        first_link: 0,
        sweep_short: Duration::from_secs(5),
        sweep_full: Duration::from_secs(15),
        sweep_leisurely: Duration::from_secs(15),
        first_seq: Seq(u32::MAX - 3),
        epoch: Epoch(1),
        table: TableId(1),
        trailer: true,
    }
}

pub(crate) fn injecting() -> Settings {
    Settings {
        external_cache: false,
        ..settings()
    }
}

pub(crate) fn ftfw() -> Settings {
    Settings {
        mode: Mode::Ftfw,
        ..settings()
    }
}

/// A new run of node 0.
pub(crate) fn reborn(mode: Mode, epoch: u32) -> Settings {
    Settings {
        mode,
        epoch: Epoch(epoch),
        first_seq: Seq(5),
        ..settings()
    }
}

pub(crate) fn replicated(count: u16) -> World {
    let mut w = World::new();
    for n in 1..=count {
        w.traffic(FW1, &tcp(n));
    }
    w.run(0.3);
    w
}

/// A pair in `mode` whose second replica has learned `count` flows of the first.
pub(crate) fn learned(mode: Mode, count: u16) -> World {
    let own = |epoch| Settings {
        mode,
        epoch: Epoch(epoch),
        ..settings()
    };
    let mut w = World::with(own(1), own(2));
    w.run(1.5);
    for n in 1..=count {
        w.traffic(FW1, &tcp(n));
    }
    w.run(1.5);
    assert_eq!(w.nodes[FW2].replica.confirmed(), usize::from(count));
    w
}

pub(crate) fn committed(world: &World, n: usize) -> Option<(u64, u64, u64)> {
    world.nodes[n].heard.iter().find_map(|e| match e {
        Event::Done(
            _,
            Answer::Committed {
                created,
                updated,
                failed,
                ..
            },
        ) => Some((*created, *updated, *failed)),
        _ => None,
    })
}

/// The backup's cache holds exactly the primary's flows, field by field.
pub(crate) fn equal(w: &World) -> bool {
    let plain = |flows: BTreeMap<FlowKey, Flow>| {
        let strip = |f: Flow| Flow {
            timeout: None,
            id: None,
            ..f
        };
        flows
            .into_iter()
            .map(|(k, f)| (k, format!("{:?}", strip(f))))
            .collect::<Vec<_>>()
    };
    plain(w.nodes[FW1].flows(Which::Internal)) == plain(w.nodes[FW2].flows(Which::External))
}
