//! `ftfw doctor`: what is broken is found, and what is not broken is not.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings, Transport};
use lab::topology::Options;
use lab::wait;
use lab::world::World;
use serde_json::Value;

use crate::Scenario;
use crate::pair::Pair;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("doctor/a_healthy_pair_has_no_problem", healthy),
    ("doctor/what_is_broken_is_found", broken),
    ("doctor/daemons_and_roles_are_looked_at", daemons),
    ("doctor/facts_of_the_peer_are_judged", peer_facts),
    ("doctor/who_is_not_root_gets_notes", not_root),
];

/// A pair whose links are not tracked.
fn start(world: &World) -> Result<Pair> {
    let pair = Pair::start(world, Settings::new(Mode::Ftfw), Options::default())?;
    for (daemon, fw) in [&pair.fw1, &pair.fw2].into_iter().zip(&pair.lab.fw) {
        let text = daemon.own(&["rules", "link"])?;
        fw.run_with_input("nft -f -", Some(&text))?;
        fw.run("conntrack -F")?;
    }
    Ok(pair)
}

/// A finding: level, check, node, and what is so.
type Found = [String; 4];

/// What the doctor finds on FW1, with these facts of FW2, and its exit status.
fn judged(pair: &Pair, facts: &str) -> Result<(Vec<Found>, i32)> {
    let mut child = (pair.fw1)
        .own_command(&["doctor", "--peer", "-", "-o", "json"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("its input")?;
    stdin.write_all(facts.as_bytes())?;
    drop(stdin);
    let out = child.wait_with_output()?;
    let status = out.status.code().context("a status")?;
    let mut found = Vec::new();
    for line in String::from_utf8(out.stdout)?.lines() {
        let row: Value = serde_json::from_str(line)?;
        found.push(
            ["level", "check", "node", "what"]
                .map(|k| row[k].as_str().unwrap_or_default().to_owned()),
        );
    }
    ensure!(status != 2, "{}", String::from_utf8_lossy(&out.stderr));
    Ok((found, status))
}

fn look(pair: &Pair) -> Result<(Vec<Found>, i32)> {
    judged(pair, &pair.fw2.own(&["doctor", "--facts"])?)
}

fn has(found: &[Found], check: &str, node: &str) -> bool {
    found.iter().any(|f| f[1] == check && f[2] == node)
}

/// Waits until a check finds something, or nothing.
fn wait_found(pair: &Pair, check: &str, node: &str, wanted: bool) -> Result<()> {
    let mut last = Vec::new();
    let what = format!("{check} of {node} is found: {wanted}");
    wait::until(&what, Duration::from_secs(15), || {
        look(pair).is_ok_and(|(found, _)| {
            last = found;
            has(&last, check, node) == wanted
        })
    })
    .with_context(|| format!("{last:?}"))
}

fn healthy(world: &World) -> Result<()> {
    let pair = start(world)?;
    wait_found(&pair, "peer-silent", "here", false)?;
    wait_found(&pair, "peer-silent", "peer", false)?;
    let (found, status) = look(&pair)?;
    ensure!(found.iter().all(|f| f[0] == "note"), "{found:?}");
    ensure!(status == 0, "status {status}");
    let text = pair.fw1.own(&["doctor"])?;
    ensure!(
        text.starts_with("this node is fit for a takeover: 0 problems, 0 warnings"),
        "{text}"
    );
    Ok(())
}

/// What to run on firewall `n` to break something, and to mend it. `FILE A => B` edits its
/// configuration, `NFT` loads a text, `SYSCTL` sets.
struct Case {
    check: &'static str,
    node: &'static str,
    n: usize,
    breaks: &'static [&'static str],
    mends: &'static [&'static str],
}

const fn case(
    check: &'static str,
    node: &'static str,
    n: usize,
    breaks: &'static [&'static str],
    mends: &'static [&'static str],
) -> Case {
    Case {
        check,
        node,
        n,
        breaks,
        mends,
    }
}

const OPEN_INPUT: &[&str] = &[
    "iptables -P INPUT ACCEPT",
    "iptables -D INPUT -m state --state INVALID -j DROP",
];

const CASES: &[Case] = &[
    // The gate mends it on the primary, which has the virtual addresses, and on the backup.
    case("invalid-accepted", "here", 0, OPEN_INPUT, &["GATE"]),
    case("invalid-accepted", "peer", 1, OPEN_INPUT, &["GATE"]),
    case(
        "invalid-accepted",
        "here",
        0,
        &["nft delete table inet ftfw_static_gate"],
        &[
            "iptables -I INPUT -m state --state INVALID -j DROP",
            "iptables -P INPUT DROP",
        ],
    ),
    case(
        "invalid-accepted",
        "peer",
        1,
        &["nft delete table inet ftfw_static_gate"],
        &[
            "iptables -I INPUT -m state --state INVALID -j DROP",
            "iptables -P INPUT DROP",
        ],
    ),
    case(
        "tcp-loose",
        "here",
        0,
        &["SYSCTL net/netfilter/nf_conntrack_tcp_loose 1"],
        &["SYSCTL net/netfilter/nf_conntrack_tcp_loose 0"],
    ),
    case(
        "sysctl",
        "pair",
        1,
        &["SYSCTL net/netfilter/nf_conntrack_udp_timeout 17"],
        &["SYSCTL net/netfilter/nf_conntrack_udp_timeout 30"],
    ),
    case(
        "events-off",
        "peer",
        1,
        &["SYSCTL net/netfilter/nf_conntrack_events 0"],
        &["SYSCTL net/netfilter/nf_conntrack_events 1"],
    ),
    case(
        "invalid-accepted",
        "here",
        0,
        &[
            "iptables -P INPUT ACCEPT",
            "iptables -D INPUT -m state --state INVALID -j DROP",
        ],
        &[
            "iptables -I INPUT -m state --state INVALID -j DROP",
            "iptables -P INPUT DROP",
        ],
    ),
    case(
        "invalid-rejected",
        "here",
        0,
        &[
            "iptables -I FORWARD -p tcp -m conntrack --ctstate INVALID -j REJECT --reject-with tcp-reset",
        ],
        &[
            "iptables -D FORWARD -p tcp -m conntrack --ctstate INVALID -j REJECT --reject-with tcp-reset",
        ],
    ),
    case(
        "invalid-rejected",
        "here",
        0,
        &[
            "NFT table inet x {\nchain c {\ntype filter hook input priority -5;\niifname eth0 ct state invalid reject with tcp reset\n}\n}",
        ],
        &["nft delete table inet x"],
    ),
    case(
        "invalid-forwarded",
        "peer",
        1,
        &["iptables -P FORWARD ACCEPT"],
        &["iptables -P FORWARD DROP"],
    ),
    case(
        "link-dropped",
        "here",
        0,
        &["iptables -D INPUT -i eth2 -j ACCEPT"],
        &["iptables -I INPUT -i eth2 -j ACCEPT"],
    ),
    case(
        "link-dropped",
        "here",
        0,
        &[
            "NFT table inet x {\nchain c {\ntype filter hook output priority 0;\nudp dport 3780 drop\n}\n}",
        ],
        &["nft delete table inet x"],
    ),
    case(
        "mtu",
        "pair",
        0,
        &["ip link set eth2 mtu 1400"],
        &["ip link set eth2 mtu 1500"],
    ),
    case(
        "link-address",
        "here",
        0,
        &["ip addr del 10.77.9.1/24 dev eth2"],
        &["ip addr add 10.77.9.1/24 dev eth2"],
    ),
    case(
        "link-down",
        "here",
        0,
        &["ip link set eth2 down"],
        &["ip link set eth2 up"],
    ),
    // The other end has lost its carrier.
    case(
        "link-down",
        "peer",
        0,
        &["ip link set eth2 down"],
        &["ip link set eth2 up"],
    ),
    case(
        "nat",
        "pair",
        1,
        &["iptables -t nat -A POSTROUTING -s 10.1.1.1 -j SNAT --to 192.168.1.100"],
        &["iptables -t nat -D POSTROUTING -s 10.1.1.1 -j SNAT --to 192.168.1.100"],
    ),
    case(
        "nat",
        "pair",
        0,
        &[
            "NFT table ip y {\nchain c {\ntype nat hook postrouting priority 100;\nip saddr 10.1.1.1 masquerade\n}\n}",
        ],
        &["nft delete table ip y"],
    ),
    case(
        "hash-limit",
        "here",
        0,
        &["FILE HashLimit 1048576 => HashLimit 100"],
        &["FILE HashLimit 100 => HashLimit 1048576"],
    ),
    case(
        "event-buffer",
        "here",
        0,
        &["FILE NetlinkBufferSize 8388608 => NetlinkBufferSize 80000"],
        &["FILE NetlinkBufferSize 80000 => NetlinkBufferSize 8388608"],
    ),
    case(
        "config-error",
        "here",
        0,
        &["FILE General { => General { Nonsense"],
        &["FILE General { Nonsense => General {"],
    ),
    case(
        "mode",
        "pair",
        1,
        &["FILE Mode FTFW => Mode NOTRACK"],
        &["FILE Mode NOTRACK => Mode FTFW"],
    ),
    case(
        "port",
        "pair",
        1,
        &["FILE Port 3780 => Port 3781"],
        &["FILE Port 3781 => Port 3780"],
    ),
    case(
        "destination",
        "pair",
        0,
        &["FILE Destination_Address 10.77.9.2 => Destination_Address 10.77.9.3"],
        &["FILE Destination_Address 10.77.9.3 => Destination_Address 10.77.9.2"],
    ),
    case(
        "link-tracked",
        "here",
        0,
        &["nft delete table inet ftfw_link"],
        &["LOAD", "conntrack -D -p udp --orig-port-dst 3780"],
    ),
];

fn execute(pair: &Pair, n: usize, line: &str) -> Result<()> {
    let fw = &pair.lab.fw[n];
    let daemon = if n == 0 { &pair.fw1 } else { &pair.fw2 };
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "SYSCTL" => {
            let (key, value) = rest.split_once(' ').context("a value")?;
            fw.sysctl(key, value)
        }
        "NFT" => fw.run_with_input("nft -f -", Some(rest)).map(drop),
        "GATE" => {
            let words = ["rules", "static-gate", "--virtual", "192.168.1.100"];
            let more = [
                "--virtual",
                "192.168.0.100",
                "--virtual",
                "fd00::100",
                "--virtual",
                "fd00:1::100",
            ];
            let text = daemon.own(&[words.as_slice(), &more].concat())?;
            fw.run_with_input("nft -f -", Some(&text)).map(drop)
        }
        "LOAD" => {
            let text = daemon.own(&["rules", "link"])?;
            fw.run_with_input("nft -f -", Some(&text)).map(drop)
        }
        "FILE" => {
            let (old, new) = rest.split_once(" => ").context("a replacement")?;
            let text = fs::read_to_string(daemon.config())?;
            ensure!(text.contains(old), "no {old} in {text}");
            Ok(fs::write(daemon.config(), text.replacen(old, new, 1))?)
        }
        _ => fw.run(line).map(drop),
    }
}

/// Goal: each thing that is broken is found, where it is, and only then.
fn broken(world: &World) -> Result<()> {
    let pair = start(world)?;
    for case in CASES {
        let Case { check, node, .. } = case;
        let step = |lines: &[&str], wanted| -> Result<()> {
            for line in lines {
                execute(&pair, case.n, line).with_context(|| (*line).to_owned())?;
            }
            wait_found(&pair, check, node, wanted).with_context(|| format!("{:?}", case.breaks))
        };
        step(&[], false)?;
        step(case.breaks, true)?;
        step(case.mends, false)?;
    }
    let (found, _) = look(&pair)?;
    ensure!(found.iter().all(|f| f[0] == "note"), "{found:?}");
    Ok(())
}

fn daemons(world: &World) -> Result<()> {
    let mut pair = start(world)?;
    wait_found(&pair, "roles", "pair", false)?;
    pair.fw1.become_backup()?;
    pair.fw2.become_backup()?;
    wait_found(&pair, "roles", "pair", true)?;
    pair.fw1.become_primary()?;
    wait_found(&pair, "roles", "pair", false)?;
    pair.fw2.become_primary()?;
    wait_found(&pair, "roles", "pair", true)?;

    // A second daemon in the same namespace.
    wait_found(&pair, "daemon-other", "here", false)?;
    let settings = Settings {
        transport: Transport::Blocks(
            "UDP { IPv4_address 10.77.9.OWN\nIPv4_Destination_Address 10.77.9.PEER\nPort 3799\nInterface eth2\n}",
        ),
        ..Settings::new(Mode::Ftfw)
    };
    let folder = world.dir().join("second");
    for kind in [Kind::Ftfw, Kind::Conntrackd] {
        let second = Daemon::start(kind, &pair.lab.fw[0], 0, &settings, &folder)?;
        let second = second.context("no daemon")?;
        wait_found(&pair, "daemon-other", "here", true)?;
        second.stop()?;
        wait_found(&pair, "daemon-other", "here", false)?;
    }

    // A socket of the firewall itself.
    wait_found(&pair, "local-connections", "here", false)?;
    pair.lab.fw[0].run("iptables -I INPUT -p tcp --dport 22 -j ACCEPT")?;
    let listener = pair.lab.fw[0].inside(|| TcpListener::bind("192.168.0.11:22"))??;
    let client = pair
        .lab
        .a
        .inside(|| TcpStream::connect("192.168.0.11:22"))??;
    let accepted = listener.accept()?;
    wait_found(&pair, "local-connections", "here", true)?;
    drop((client, accepted));

    let facts = pair.fw2.own(&["doctor", "--facts"])?;
    pair.kill(1);
    wait_found(&pair, "daemon", "peer", true)?;
    wait_found(&pair, "peer-silent", "here", true)?;
    pair.restart(1)?;
    wait_found(&pair, "daemon", "peer", false)?;
    wait_found(&pair, "peer-silent", "here", false)?;
    pair.kill(0);
    let (found, status) = judged(&pair, &facts)?;
    ensure!(has(&found, "daemon", "here") && status == 1, "{found:?}");
    Ok(())
}

/// A change of facts.
type Edit = fn(&mut Value);

/// Goal: what cannot be broken here is judged from facts that a peer might send.
fn peer_facts(world: &World) -> Result<()> {
    let pair = start(world)?;
    wait_found(&pair, "peer-silent", "here", false)?;
    let facts: Value = serde_json::from_str(&pair.fw2.own(&["doctor", "--facts"])?)?;
    ensure!(
        facts["helpers"].as_array().is_some_and(|h| !h.is_empty()),
        "{facts}"
    );
    let edits: [(&str, &str, Edit); 4] = [
        ("helper", "pair", |f| {
            f["helpers_used"] = serde_json::json!(["ftp", "no-such"])
        }),
        ("clock", "pair", |f| {
            f["time"] = (f["time"].as_u64().unwrap_or(0) + 60_000).into()
        }),
        ("version", "pair", |f| f["version"] = "0.0.0".into()),
        ("facts-version", "pair", |f| f["facts"] = 99.into()),
    ];
    for (check, node, edit) in edits {
        let fresh: Value = serde_json::from_str(&pair.fw2.own(&["doctor", "--facts"])?)?;
        let (found, _) = judged(&pair, &fresh.to_string())?;
        ensure!(!has(&found, check, node), "{check} before: {found:?}");
        let mut edited = fresh;
        edit(&mut edited);
        let (found, _) = judged(&pair, &edited.to_string())?;
        ensure!(has(&found, check, node), "{check}: {found:?}");
        ensure!(
            !found.iter().any(|f| f[3].contains("helper ftp")),
            "{found:?}"
        );
    }
    // What are no facts is refused.
    for text in ["", "{}", "[1]", "ftfw: not found\n"] {
        let path = world.dir().join("facts");
        fs::write(&path, text)?;
        let path = path.to_string_lossy().into_owned();
        let out = pair
            .fw1
            .own_command(&["doctor", "--peer", &path])?
            .output()?;
        ensure!(out.status.code() == Some(2), "{text:?}: {out:?}");
    }
    Ok(())
}

/// Goal: without rights the doctor reports what it could not see, and finds no problem in that.
fn not_root(world: &World) -> Result<()> {
    let pair = start(world)?;
    let program = world.dir().join("ftfw");
    fs::copy(Daemon::program()?, &program)?;
    let mut command = pair.lab.fw[0].command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command
        .arg(&program)
        .arg("-C")
        .arg(readable(pair.fw1.config())?);
    let out = command.args(["doctor", "-o", "json"]).output()?;
    let text = String::from_utf8(out.stdout)?;
    for check in ["root", "rules-unread"] {
        ensure!(
            text.contains(&format!("\"check\":\"{check}\"")),
            "{check}: {text}"
        );
    }
    for check in ["invalid-accepted", "link-dropped"] {
        ensure!(
            !text.contains(&format!("\"check\":\"{check}\"")),
            "{check}: {text}"
        );
    }
    Ok(())
}

/// The configuration, where everybody can read it.
fn readable(path: &Path) -> Result<&Path> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    Ok(path)
}
