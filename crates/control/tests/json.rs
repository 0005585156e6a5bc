//! Goal: the program prints what docs/json.md documents, field by field and type by type.
//! Method: rows with every field there can be, compared with the tables of that page.

use std::collections::{BTreeMap, BTreeSet};

use control::call::{Committed, Outcome, Step, StepRow};
use control::facts::{
    ConfigFacts, Facts, Fate, Finding, InterfaceFacts, Level, LinkFacts, ProcessFacts, RulesFacts,
    SocketsFacts,
};
use control::findings::{
    DiffRow, DifferenceRow, FieldRow, ReasonRow, RefusedRow, RehearsalRow, WhyRow,
};
use control::reply::{CacheReport, Connected, LinkReport, PeerReport};
use control::rows::{
    Attention, Beside, CountersRow, EventRow, ExpectationRow, FlowRow, InstanceRow, ListenerRow,
    StatusRow,
};
use control::top::{Lag, LinkRates, LinkRow, Queues, Rates, Tables, Talker, Talkers, TopRow};
use counters::{CacheStats, Counter, Counters, DaemonStats, ReceiveStats, Shown, Stats};
use flow::{
    Addrs, Direction, ExpectNat, Expectation, Flow, L4, Labels, Mark, Name, Proto, ProtoInfo,
    SctpInfo, SeqAdjPair, Status, SynProxy, TcpInfo, TcpState, Tuple, Zone,
};
use serde_json::Value;

type Table = BTreeMap<String, String>;

const PAGE: &str = include_str!("../../../docs/json.md");

/// The tables of the page: field → type, by section.
fn documented() -> BTreeMap<String, Table> {
    let mut sections: BTreeMap<String, Table> = BTreeMap::new();
    let mut section = String::new();
    for line in PAGE.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            section = name.to_owned();
        } else if let Some(row) = line.strip_prefix("| `") {
            let (field, rest) = row.split_once("` | ").unwrap();
            let (kind, _) = rest.split_once(" | ").unwrap();
            let table = sections.entry(section.clone()).or_default();
            let old = table.insert(field.to_owned(), kind.to_owned());
            assert_eq!(old, None, "{section}: {field} twice");
        }
    }
    sections
}

/// Checks an object against a section, and what is in it; returns the fields seen.
fn check(tables: &BTreeMap<String, Table>, section: &str, value: &Value) -> BTreeSet<String> {
    let table = &tables[section];
    let object = value.as_object().unwrap();
    for (field, kind) in table {
        let required = !kind.contains("if known");
        assert!(
            !required || object.contains_key(field),
            "{section}: no {field}"
        );
    }
    for (field, value) in object {
        let kind = table.get(field);
        let kind = kind.unwrap_or_else(|| panic!("{section}: {field} is not documented"));
        let all_are = |test: fn(&Value) -> bool| value.as_array().unwrap().iter().all(test);
        let good = match kind.trim_end_matches(", if known") {
            "number" => value.is_u64(),
            "number or null" => value.is_u64() || value.is_null(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "object" => value.is_object(),
            "array of strings" => all_are(Value::is_string),
            "array of numbers" => all_are(Value::is_u64),
            "array of objects" => all_are(Value::is_object),
            list if list.starts_with("array of ") => {
                let (all, of) = (value.as_array().unwrap(), &list["array of ".len()..]);
                all.iter().for_each(|row| drop(check(tables, of, row)));
                // Each entry is checked; a list may be empty.
                true
            }
            "number with a fraction" => value.is_f64(),
            "number with a fraction or null" => value.is_f64() || value.is_null(),
            "string or null" => value.is_string() || value.is_null(),
            section => !check(tables, section, value).is_empty(),
        };
        assert!(good, "{section}: {field} is {value}, not {kind}");
    }
    object.keys().cloned().collect()
}

fn to_json(row: &impl serde::Serialize) -> Value {
    serde_json::from_str(&serde_json::to_string(row).unwrap()).unwrap()
}

fn tuple(proto: Proto, l4: L4) -> Tuple {
    Tuple {
        addrs: Addrs::V4 {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
        },
        proto,
        l4,
    }
}

fn full(proto: Proto, l4: L4) -> Flow {
    let mut flow = Flow::new(tuple(proto, l4));
    flow.zone = Zone(1);
    flow.reply_zone = Some(Zone(2));
    flow.status = Status(0xffff);
    flow.timeout = Some(1);
    flow.mark = Some(Mark(1));
    flow.id = Some(1);
    flow.helper = Name::new(b"quote\"d");
    flow.labels = Some(Labels([1, 0, 0, 1 << 31]));
    flow.master = Some(tuple(proto, l4));
    flow.seq_adj = Some(SeqAdjPair::default());
    flow.synproxy = Some(SynProxy::default());
    flow.proto_info = Some(match proto {
        Proto::SCTP => ProtoInfo::Sctp(SctpInfo {
            state: 4,
            vtag_orig: 1,
            vtag_reply: 2,
        }),
        _ => ProtoInfo::Tcp(TcpInfo {
            state: TcpState::ESTABLISHED,
            window_scale: Some((7, 8)),
        }),
    });
    flow
}

fn all_beside() -> Beside {
    let counters = CountersRow {
        packets: 1,
        bytes: 2,
    };
    Beside {
        age: Some(1),
        expires: Some(2),
        announced: Some(true),
        confirmed: Some(false),
        taken: Some(false),
        counters: Some(counters),
        reply_counters: Some(counters),
        began: Some(1),
        secctx: Some("a\"b".to_owned()),
    }
}

fn ports() -> L4 {
    L4::Ports { src: 1, dst: 2 }
}

#[test]
fn flows() {
    let tables = documented();
    let icmp = L4::Icmp {
        id: 1,
        kind: 8,
        code: 0,
    };
    let gre = L4::Gre {
        src_key: 1,
        dst_key: 2,
    };
    let kinds = [
        (Proto::TCP, ports()),
        (Proto::SCTP, ports()),
        (Proto::ICMP, icmp),
        (Proto::GRE, gre),
        (Proto(50), L4::None),
    ];
    let (mut seen, mut tuple_seen) = (BTreeSet::new(), BTreeSet::new());
    for (proto, l4) in kinds {
        let row = to_json(&FlowRow::new(&full(proto, l4), all_beside()));
        seen.extend(check(&tables, "Flow", &row));
        tuple_seen.extend(check(&tables, "Tuple", &row["orig"]));
        // With nothing beside the tuples, too.
        let bare = FlowRow::new(&Flow::new(tuple(proto, l4)), Beside::default());
        check(&tables, "Flow", &to_json(&bare));
    }
    assert!(seen.iter().eq(tables["Flow"].keys()));
    assert!(tuple_seen.iter().eq(tables["Tuple"].keys()));
}

#[test]
fn values_are_what_the_page_says() {
    let row = to_json(&FlowRow::new(&full(Proto::TCP, ports()), all_beside()));
    assert_eq!(row["labels"], serde_json::json!([0, 127]));
    assert_eq!(row["state"], "ESTABLISHED");
    assert_eq!(row["helper"], "quote\"d");
    assert_eq!(row["status"].as_array().unwrap().len(), 12);
    assert_eq!(row["orig"]["src"], "10.0.0.1");
}

fn expectation() -> Expectation {
    let tuple = tuple(Proto::TCP, ports());
    Expectation {
        master: tuple,
        tuple,
        mask: tuple,
        zone: Zone(3),
        timeout: Some(1),
        flags: 1,
        class: Some(1),
        nat: Some(ExpectNat {
            tuple,
            dir: Direction::Reply,
        }),
        helper: Name::new(b"ftp"),
        function: Name::new(b"nat-follow-master"),
        id: Some(1),
    }
}

#[test]
fn expectations_and_events() {
    let tables = documented();
    let of_cache = Beside {
        age: Some(1),
        announced: Some(true),
        confirmed: Some(true),
        ..Beside::default()
    };
    let row = ExpectationRow::new(&expectation(), of_cache);
    let seen = check(&tables, "Expectation", &to_json(&row));
    assert!(seen.iter().eq(tables["Expectation"].keys()));
    let flow = full(Proto::TCP, ports());
    let event = EventRow {
        event: "new",
        origin: "traffic",
        flow: Some(FlowRow::new(&flow, Beside::default())),
        expectation: Some(row),
    };
    let seen = check(&tables, "Event", &to_json(&event));
    assert!(seen.iter().eq(tables["Event"].keys()));
}

#[test]
fn steps() {
    let tables = documented();
    let row = StepRow {
        step: Step::Commit,
        status: Outcome::Partial,
        seconds: 0.5,
        error: Some("no".to_owned()),
        commit: Some(Committed {
            created: 1,
            updated: 2,
            failed: 3,
            seconds: 0.25,
        }),
    };
    let seen = check(&tables, "Step", &to_json(&row));
    assert!(seen.iter().eq(tables["Step"].keys()));
}

#[test]
fn what_diff_finds() {
    let tables = documented();
    let flow = FlowRow::new(&full(Proto::TCP, ports()), Beside::default());
    let field = FieldRow {
        field: "mark",
        here: "1".to_owned(),
        there: "2".to_owned(),
    };
    let row = DiffRow {
        equal: false,
        with: "peer",
        sample: 1,
        same: 1,
        only_here: 0,
        only_there: 0,
        different: 1,
        settled: 0,
        changing: 0,
        left_out: 0,
        examples: vec![DifferenceRow {
            found: "different",
            flow,
            fields: vec![field],
        }],
    };
    let row = to_json(&row);
    let example = &row["examples"][0];
    for (section, value) in [
        ("Diff", &row),
        ("Difference", example),
        ("Field", &example["fields"][0]),
    ] {
        let seen = check(&tables, section, value);
        assert!(seen.iter().eq(tables[section].keys()), "{section}");
    }
}

#[test]
fn what_rehearse_foretells() {
    let tables = documented();
    let flow = || FlowRow::new(&full(Proto::TCP, ports()), Beside::default());
    let why = WhyRow {
        reason: "taken-here",
        refused: true,
        count: 1,
        why: "a reason".to_owned(),
        help: "what to do".to_owned(),
    };
    let row = RehearsalRow {
        good: false,
        flows: 2,
        created: 1,
        updated: 0,
        refused: 1,
        lessened: 0,
        room: Some(7),
        expectations: 0,
        not_considered: 0,
        reasons: vec![ReasonRow {
            why,
            examples: vec![RefusedRow {
                flow: flow(),
                holder: Some(flow()),
            }],
        }],
        seconds: 0.5,
    };
    let row = to_json(&row);
    let reason = &row["reasons"][0];
    for (section, value) in [
        ("Rehearsal", &row),
        ("Reason", reason),
        ("Refused", &reason["examples"][0]),
    ] {
        let seen = check(&tables, section, value);
        assert!(seen.iter().eq(tables[section].keys()), "{section}");
    }
}

#[test]
fn what_top_shows() {
    let tables = documented();
    let peer = PeerReport {
        epoch: Some(1),
        held: Some(1),
        should_hold: Some(1),
        silent: Some(0),
        ..PeerReport::default()
    };
    let row = TopRow {
        time: 1,
        verdict: "SAFE".to_owned(),
        safe: true,
        restarted: false,
        uptime: 1,
        role: "primary".to_owned(),
        seconds: Some(1.0),
        rates: Some(Rates::default()),
        queues: Queues {
            event_buffer: Some((1, 2)),
            ..Queues::default()
        },
        lag: Lag::default(),
        tables: Tables::default(),
        peer: to_json(&peer),
        links: vec![LinkRow {
            device: "eth2".to_owned(),
            transport: "UDP".to_owned(),
            status: "RUNNING".to_owned(),
            active: true,
            rates: Some(LinkRates::default()),
        }],
        talkers: Some(Talkers {
            by: "bytes",
            flows: 1,
            seconds: 0.5,
            list: vec![Talker {
                address: [10, 0, 0, 1].into(),
                flows: 1,
                bytes: Some(1),
                bytes_per_second: Some(0.5),
            }],
        }),
        no_talkers: Some("why".to_owned()),
    };
    let row = to_json(&row);
    for (section, value) in [
        ("Top", &row),
        ("Rates", &row["rates"]),
        ("LinkRates", &row["links"][0]["rates"]),
        ("Queues", &row["queues"]),
        ("Lag", &row["lag"]),
        ("Tables", &row["tables"]),
        ("TopLink", &row["links"][0]),
        ("Talkers", &row["talkers"]),
        ("Talker", &row["talkers"]["list"][0]),
    ] {
        let seen = check(&tables, section, value);
        assert!(seen.iter().eq(tables[section].keys()), "{section}");
    }
}

#[test]
fn status() {
    let tables = documented();
    let row = StatusRow {
        kernel_flows: Some(1),
        event_buffer: Some((1, 2)),
        internal_expectations: Some(CacheReport::default()),
        external_expectations: Some(CacheReport::default()),
        peer: PeerReport {
            epoch: Some(1),
            held: Some(1),
            should_hold: Some(1),
            silent: Some(1),
            ..PeerReport::default()
        },
        attention: vec![Attention {
            what: "it".to_owned(),
            help: "do".to_owned(),
        }],
        instances: vec![InstanceRow {
            name: "VI_1".to_owned(),
            role: "backup",
            since: 1,
            took: Some(0.5),
            gate: Some("closed"),
        }],
        links: vec![LinkReport {
            connected: Some(Connected::default()),
            ..LinkReport::default()
        }],
        listeners: vec![ListenerRow {
            pid: 1,
            program: "conntrack".to_owned(),
            is_here: true,
        }],
        ..StatusRow::default()
    };
    let row = to_json(&row);
    let seen = check(&tables, "Status", &row);
    assert!(seen.iter().eq(tables["Status"].keys()));
    for (section, value) in [
        ("Peer", &row["peer"]),
        ("Link", &row["links"][0]),
        ("Instance", &row["instances"][0]),
        ("Attention", &row["attention"][0]),
        ("Listener", &row["listeners"][0]),
        ("Readiness", &row["ready"]),
        ("Cache", &row["internal"]),
    ] {
        let seen = check(&tables, section, value);
        assert!(seen.iter().eq(tables[section].keys()), "{section}");
    }
}

#[test]
fn facts_and_findings() {
    let tables = documented();
    let fate = Fate::default();
    let interface = InterfaceFacts::default();
    let text = || Some(String::new());
    let facts = Facts {
        status: Some(to_json(&StatusRow {
            links: vec![LinkReport::default()],
            ..StatusRow::default()
        })),
        config: ConfigFacts {
            mode: text(),
            transport: text(),
            hash_limit: Some(1),
            netlink_buffer: Some(1),
            ..ConfigFacts::default()
        },
        daemons: vec![ProcessFacts::default()],
        links: vec![LinkFacts {
            address: text(),
            destination: text(),
            interface: Some(interface),
            ..LinkFacts::default()
        }],
        ctnetlink: Some(true),
        helpers: Some(Vec::new()),
        link_flows: Some(1),
        local_connections: vec![SocketsFacts::default()],
        rules: RulesFacts {
            invalid: vec![fate.clone()],
            link: vec![fate],
            ..RulesFacts::default()
        },
        ..Facts::default()
    };
    let row = to_json(&facts);
    for (section, value) in [
        ("Facts", &row),
        ("ConfigFacts", &row["config"]),
        ("ProcessFacts", &row["daemons"][0]),
        ("LinkFacts", &row["links"][0]),
        ("InterfaceFacts", &row["links"][0]["interface"]),
        ("SocketsFacts", &row["local_connections"][0]),
        ("RulesFacts", &row["rules"]),
        ("Fate", &row["rules"]["link"][0]),
    ] {
        let seen = check(&tables, section, value);
        assert!(seen.iter().eq(tables[section].keys()), "{section}");
    }
    // What is written is read.
    let again: Facts = serde_json::from_value(row.clone()).unwrap();
    assert_eq!(to_json(&again), row);
    let finding = Finding {
        level: Level::Problem,
        check: "mtu",
        node: "pair",
        what: String::new(),
        why: "",
        mend: text(),
    };
    let seen = check(&tables, "Finding", &to_json(&finding));
    assert!(seen.iter().eq(tables["Finding"].keys()));
}

/// The row of the page on a counter, as its declaration has it.
fn documented_as(name: &str, counter: &Counter) -> String {
    let (first, rest) = counter.help.split_at(1);
    let help = first.to_lowercase() + rest.trim_end_matches('.');
    format!("| `{name}` | number | {help} |\n")
}

#[test]
fn a_counter_means_what_its_declaration_says() {
    let mut shown = 0;
    let cache = CacheStats::ALL.iter().map(|c| (c.name, c));
    let others = [ReceiveStats::ALL, Stats::ALL, DaemonStats::ALL].concat();
    let others = others.iter().filter_map(|c| match c.shown {
        Shown::Statistics => None,
        Shown::Peer(name) => Some((name, c)),
        Shown::Status | Shown::Note(_) => Some((c.name, c)),
    });
    for (name, counter) in cache.chain(others) {
        let row = documented_as(name, counter);
        assert!(PAGE.contains(&row), "{row}");
        shown += 1;
    }
    assert!(shown > 20);
}
