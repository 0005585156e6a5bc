//! Goal: the metrics are those of the status, in a form that Prometheus reads, and whoever asks for
//! them delays nobody. Method: scrapes of a daemon in the laboratory, and a strict reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::daemon::{Mode, Settings};
use lab::dashboard::{self, Board, Shown};
use lab::node::Node;
use lab::topology::{Options, SERVER};
use lab::wait;
use lab::world::World;
use serde_json::Value;

use crate::Scenario;
use crate::pair::{Pair, SOON};

mod names;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("metrics/values_are_those_of_the_status", values),
    ("metrics/rules_and_dashboard_name_what_is_exported", named),
    (
        "metrics/every_panel_of_the_dashboard_shows_something",
        panels,
    ),
    ("metrics/hostile_clients_delay_nobody", hostile),
    ("metrics/the_file_is_whole_at_any_time", file),
    ("metrics/nothing_is_exported_unless_configured", off),
];

const ADDRESS: &str = "127.0.0.1:9411";

fn settings(lines: &str) -> Settings {
    Settings {
        general_lines: format!("Metrics {{\n{lines}\n}}"),
        ..Settings::new(Mode::Ftfw)
    }
}

fn over_http() -> Settings {
    settings("IPv4_address 127.0.0.1\nPort 9411")
}

// ---- a client ----

/// Connects to the server of a firewall, from that firewall.
fn connect(node: &Node) -> Result<TcpStream> {
    let stream = node.inside(|| TcpStream::connect(ADDRESS))??;
    stream.set_read_timeout(Some(2 * SOON))?;
    Ok(stream)
}

/// The status and the body of an answer whose head is as it should be.
fn read_answer(stream: &mut TcpStream) -> Result<(u16, String)> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no head")?;
    let status = head.strip_prefix("HTTP/1.1 ").context("no status")?;
    let length = format!("\r\nContent-Length: {}", body.len());
    ensure!(head.contains(&length), "{head}");
    ensure!(head.contains("\r\nConnection: close"), "{head}");
    Ok((status[..3].parse()?, body.to_owned()))
}

/// `GET` with more lines of the head.
pub(crate) fn get(node: &Node, path: &str, lines: &str) -> Result<(u16, String)> {
    let mut stream = connect(node)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: firewall\r\n{lines}\r\n"
    )?;
    read_answer(&mut stream)
}

// ---- a strict reader ----

/// The samples of a page, by name and labels. An error if the page is not what both forms want.
fn read(page: &str, is_open: bool) -> Result<BTreeMap<String, f64>> {
    let mut samples = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut family = String::new();
    let mut kind = String::new();
    let mut is_over = false;
    ensure!(page.ends_with('\n'), "the last line is cut");
    for line in page.lines() {
        ensure!(!is_over, "`{line}` comes after the end");
        if line == "# EOF" {
            is_over = true;
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').context("no help")?;
            ensure!(help.ends_with('.') && !help.contains('\\'), "{line}");
            ensure!(seen.insert(name.to_owned()), "{name} twice");
            family = name.to_owned();
            kind.clear();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, word) = rest.split_once(' ').context("no type")?;
            ensure!(name == family && kind.is_empty(), "{line}");
            ensure!(["counter", "gauge"].contains(&word), "{line}");
            kind = word.to_owned();
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').context("no unit")?;
            ensure!(is_open && name == family, "{line}");
            ensure!(name.ends_with(&format!("_{unit}")), "{line}");
        } else {
            ensure!(!line.starts_with('#'), "{line}");
            let (series, value) = line.rsplit_once(' ').context("no value")?;
            let name = series.split('{').next().unwrap_or_default();
            let of_family = match kind.as_str() {
                "counter" if is_open => format!("{family}_total"),
                "counter" => {
                    ensure!(family.ends_with("_total"), "{line}");
                    family.clone()
                }
                "gauge" => family.clone(),
                _ => bail!("{line} has no type"),
            };
            ensure!(name == of_family, "{line} is not of {family}");
            if let Some(labels) = series.strip_prefix(name).filter(|l| !l.is_empty()) {
                check_labels(labels).with_context(|| line.to_owned())?;
            }
            let old = samples.insert(series.to_owned(), value.parse()?);
            ensure!(old.is_none(), "{series} twice");
        }
    }
    ensure!(is_over == is_open, "the end");
    Ok(samples)
}

/// `{name="value",...}`; the laboratory has no value that must be escaped.
fn check_labels(text: &str) -> Result<()> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
    for pair in inner.context("no braces")?.split(',') {
        let (name, value) = pair.split_once('=').context("no =")?;
        ensure!(name.bytes().all(|b| b.is_ascii_lowercase()), "{name}");
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        ensure!(!value.context("no quotes")?.contains(['"', '\\']));
    }
    Ok(())
}

/// What the reader must not accept.
fn test_the_reader() -> Result<()> {
    let good = "# HELP a_total A.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n";
    ensure!(read(good, false)?.len() == 1);
    for (from, to) in [
        ("a_total{", "a{"),
        ("} 1", "} x"),
        (" 1\n", " 1"),
        ("\"c\"", "c"),
        ("# TYPE a_total counter\n", ""),
        ("a_total{b=\"c\"} 1\n", "a_total 1\na_total 1\n"),
    ] {
        let bad = good.replacen(from, to, 1);
        ensure!(read(&bad, false).is_err(), "accepted:\n{bad}");
    }
    ensure!(read(good, true).is_err());
    Ok(())
}

// ---- the values ----

fn promtool(arguments: &[&str], input: Option<&str>) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(arguments);
    let file = tempfile(input)?;
    if let Some(file) = &file {
        command.stdin(fs::File::open(file)?);
    }
    let out = command.output().context("promtool")?;
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    ensure!(out.status.success(), "promtool {arguments:?}: {text}");
    Ok(())
}

fn tempfile(text: Option<&str>) -> Result<Option<std::path::PathBuf>> {
    let Some(text) = text else {
        return Ok(None);
    };
    // The run's own folder: it has a private /run.
    let path = Path::new("/run").join(format!("page-{}", text.len()));
    fs::write(&path, text)?;
    Ok(Some(path))
}

/// Where the status has what a series has: a pointer into its JSON. Of what goes up and down in a
/// moment two equal looks prove nothing.
const SAME: &[(&str, &str)] = &[
    (
        "ftfw_cache_entries{cache=\"internal\",object=\"flows\"}",
        "/internal/entries",
    ),
    (
        "ftfw_cache_entries{cache=\"external\",object=\"flows\"}",
        "/external/entries",
    ),
    (
        "ftfw_cache_entries_created_total{cache=\"internal\",object=\"flows\"}",
        "/internal/created",
    ),
    (
        "ftfw_cache_entries_updated_total{cache=\"internal\",object=\"flows\"}",
        "/internal/updated",
    ),
    (
        "ftfw_cache_entries_destroyed_total{cache=\"internal\",object=\"flows\"}",
        "/internal/destroyed",
    ),
    (
        "ftfw_cache_creates_failed_total{cache=\"external\",object=\"flows\"}",
        "/external/create_failed",
    ),
    ("ftfw_kernel_flows_max", "/kernel_max"),
    ("ftfw_uptime_seconds", "/uptime"),
    ("ftfw_peer_epoch", "/peer/epoch"),
    ("ftfw_peer_flows_confirmed", "/peer/confirmed"),
    ("ftfw_flows_held_by_peer", "/peer/held"),
    ("ftfw_flows_to_be_held_by_peer", "/peer/should_hold"),
    ("ftfw_peer_restarts_total", "/peer/restarts"),
    (
        "ftfw_link_sent_bytes_total{link=\"eth2\"}",
        "/links/0/bytes/0",
    ),
    (
        "ftfw_link_received_datagrams_total{link=\"eth2\"}",
        "/links/0/packets/1",
    ),
    ("ftfw_messages_lost_total", "/lost"),
    ("ftfw_messages_malformed_total", "/malformed"),
    ("ftfw_overruns_total", "/overruns"),
    ("ftfw_sources_unknown_total", "/sources_unknown"),
];

/// Goal: both forms can be read, and a value is what the status shows. Method: while connections
/// are used, a scrape between two looks at the status; where both looks show the same, so must it.
fn values(world: &World) -> Result<()> {
    test_the_reader()?;
    let pair = Pair::start(world, over_http(), Options::default())?;
    let node = &pair.lab.fw[0];
    let mut open = pair.connect(SERVER, 300)?;
    pair.wait_external("dport=7 ", 300)?;
    pair.fw2.become_backup()?;
    pair.fw1.become_primary()?;
    let status = || -> Result<Value> {
        Ok(serde_json::from_str(
            &pair.fw1.own(&["status", "-o", "json"])?,
        )?)
    };
    wait::until("the peer reports its role", SOON, || {
        status().is_ok_and(|s| s["peer"]["role"] == "backup")
    })?;
    let mut compared = BTreeSet::new();
    let begun = Instant::now();
    let (mut text, mut last) = (String::new(), BTreeMap::new());
    while compared.len() < SAME.len() {
        ensure!(
            begun.elapsed() < 6 * SOON,
            "never equal in two looks: {:?}",
            (SAME
                .iter()
                .map(|(s, _)| *s)
                .filter(|s| !compared.contains(s)))
            .collect::<Vec<_>>()
        );
        open.round(SOON);
        let before = status()?;
        let (code, page) = get(node, "/metrics", "")?;
        let after = status()?;
        ensure!(code == 200);
        text = page;
        last = read(&text, false)?;
        for (series, pointer) in SAME {
            let value = |v: &Value| v.pointer(pointer).and_then(Value::as_f64);
            let (before, after) = (value(&before), value(&after));
            let found = last.get(*series).copied();
            if before.is_some() && before == after {
                ensure!(
                    found == before,
                    "{series} is {found:?}, in the status {before:?}"
                );
                compared.insert(*series);
            }
        }
    }
    for (series, wanted) in [
        ("ftfw_role{role=\"primary\"}", 1.0),
        ("ftfw_role{role=\"backup\"}", 0.0),
        ("ftfw_peer_role{role=\"backup\"}", 1.0),
        ("ftfw_peer_up", 1.0),
        ("ftfw_link_usable{link=\"eth2\"}", 1.0),
        ("ftfw_link_current{link=\"eth2\"}", 1.0),
        ("ftfw_cache_flows_max", 1_048_576.0),
        ("ftfw_internal_cache_whole", 1.0),
        ("ftfw_commits_total", 1.0),
        ("ftfw_commit_refused_total", 0.0),
        ("ftfw_mode_info{mode=\"FTFW\"}", 1.0),
    ] {
        ensure!(
            last.get(series) == Some(&wanted),
            "{series}: {:?}",
            last.get(series)
        );
    }
    for (series, most) in [
        ("ftfw_owed_objects", 300.0),
        ("ftfw_unacknowledged_objects", 300.0),
        ("ftfw_peer_silence_seconds", 3.0),
        ("ftfw_kernel_flows", 1000.0),
    ] {
        let value = last.get(series).with_context(|| format!("no {series}"))?;
        ensure!((0.0..=most).contains(value), "{series}: {value}");
    }
    ensure!(last["ftfw_kernel_flows"] >= 300.0);
    promtool(&["check", "metrics"], Some(&text))?;
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (code, page) = get(node, "/metrics", accept)?;
    ensure!(code == 200);
    let names = |samples: &BTreeMap<String, f64>| samples.keys().cloned().collect::<BTreeSet<_>>();
    ensure!(names(&read(&page, true)?) == names(&last));
    // What changes is seen: the link, the peer.
    pair.lab.fw[0].run("ip link set eth2 down")?;
    wait::until("the link is down and the peer lost", 2 * SOON, || {
        let page = get(node, "/metrics", "").and_then(|(_, page)| read(&page, false));
        page.is_ok_and(|page| {
            let is_0 = |series: &str| page.get(series) == Some(&0.0);
            is_0("ftfw_link_usable{link=\"eth2\"}") && is_0("ftfw_peer_up")
        })
    })
}

/// Goal: no rule and no panel is about a metric that does not exist. Method: the names of all
/// expressions, in a scrape of a pair after a commit; promtool for the rules' grammar and tests.
fn named(world: &World) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let rules = fs::read_to_string(folder.join("prometheus/ftfw.rules.yml"))?;
    let board: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("grafana/ftfw.json"))?)?;
    let pair = Pair::start(world, over_http(), Options::default())?;
    let _open = pair.connect(SERVER, 10)?;
    pair.wait_external("dport=7 ", 10)?;
    // A takeover, so that there is a last commit, and an instance.
    pair.fw2.own(&["primary"])?;
    pair.fw1.own(&["backup"])?;
    let mut exported = BTreeSet::new();
    wait::until("the peer reports what it holds", 2 * SOON, || {
        let page = get(&pair.lab.fw[1], "/metrics", "").and_then(|(_, page)| read(&page, false));
        let page = page.unwrap_or_default();
        exported = (page.keys())
            .map(|series| series.split('{').next().unwrap_or_default().to_owned())
            .collect();
        exported.contains("ftfw_flows_held_by_peer")
    })?;
    let of_rules = names::expressions_of_rules(&rules)?;
    let of_board = names::expressions_of_dashboard(&board);
    ensure!(of_rules.len() > 10 && of_board.len() > 30);
    for expression in of_rules.iter().chain(&of_board) {
        for name in names::metrics_of(expression)? {
            ensure!(
                exported.contains(&name) || names::OTHERS.contains(&name.as_str()),
                "`{name}` is not exported: {expression}"
            );
        }
    }
    // The method finds what it is there to find.
    ensure!(names::metrics_of("rate(ftfw_nosuch{a=\"b\"}[5m]) > 0")? == ["ftfw_nosuch"]);
    ensure!(!exported.contains("ftfw_nosuch"));
    let path = |name: &str| folder.join("prometheus").join(name).display().to_string();
    promtool(&["check", "rules", &path("ftfw.rules.yml")], None)?;
    promtool(&["test", "rules", &path("ftfw.rules.test.yml")], None)?;
    promtool(
        &["check", "config", "--syntax-only", &path("prometheus.yml")],
        None,
    )
}

/// Goal: the dashboard shows a pair as it is. Method: Prometheus scrapes a pair through a takeover,
/// and evaluates the expressions of each panel.
fn panels(world: &World) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/grafana/ftfw.json");
    let board = Board::parse(&fs::read_to_string(path)?)?;
    ensure!(board.panels.len() > 15 && board.rows.len() > 3);
    let watch = dashboard::Watch {
        length: Duration::from_secs(2),
        scrape: Duration::from_millis(100),
    };
    let shown = dashboard::watch(world, &board, watch)?;
    let picture = dashboard::svg(&board, &shown)?;
    for Shown { panel, series } in &shown {
        let title = &panel.title;
        let has_points = series.iter().any(|line| !line.points.is_empty());
        ensure!(has_points, "`{title}` shows nothing");
        ensure!(picture.contains(title.split(['\'', '&']).next().unwrap_or(title)));
    }
    // Half of the time the flows are FW2's own, as the curve shows.
    let curve = |title: &str, legend: &str| {
        let panel = shown.iter().find(|s| s.panel.title == title);
        let line = panel.and_then(|s| s.series.iter().find(|line| line.legend == legend));
        line.map(|line| line.points.iter().map(|p| p.1).collect::<Vec<_>>())
    };
    let own = curve("Flows in caches", "fw2 internal").context("no such curve")?;
    let most = own.iter().copied().fold(0.0, f64::max);
    ensure!(own[0] == 0.0 && most >= 500.0, "{own:?}");
    let roles = curve("Role", "fw2 default primary").context("FW2 has no role")?;
    ensure!(roles == [1.0], "{roles:?}");
    Ok(())
}

/// Goal: clients that misbehave delay neither commands nor scrapes, and what they cost is bounded.
/// Method: all of them at once, each way for some seconds, beside commands that are timed.
fn hostile(world: &World) -> Result<()> {
    let pair = Pair::start(world, over_http(), Options::default())?;
    let node = &pair.lab.fw[0];
    let _open = pair.connect(SERVER, 100)?;
    let resident = pair.fw1.resident_bytes()?;
    let descriptors =
        || -> Result<usize> { Ok(fs::read_dir(format!("/proc/{}/fd", pair.fw1.pid()))?.count()) };
    let before = descriptors()?;

    for (request, wanted) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 404),
        (
            "POST /metrics HTTP/1.1\r\nContent-Length: 1\r\n\r\nx".to_owned(),
            405,
        ),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), 400),
        (
            format!("GET /metrics HTTP/1.1\r\na: {}", "x".repeat(20_000)),
            431,
        ),
        (
            format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100)),
            431,
        ),
    ] {
        let mut stream = connect(node)?;
        stream.write_all(request.as_bytes())?;
        let (status, _) = read_answer(&mut stream)?;
        ensure!(status == wanted, "{status} instead of {wanted}");
    }

    // Two hundred silent ones; some ask and never read; one sends byte by byte.
    let mut clients: Vec<TcpStream> = Vec::new();
    let begun = Instant::now();
    for n in 0..200 {
        let mut stream = connect(node)?;
        if n % 4 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
        }
        clients.push(stream);
        ensure!(begun.elapsed() < 2 * SOON, "only {n} connections");
    }
    let mut slow = connect(node)?;
    let slowly = thread::spawn(move || {
        for byte in b"GET /metrics HTTP/1.1\r\nHost: firewall\r\nX: "
            .iter()
            .chain(&[b'x'; 400])
        {
            if slow.write_all(&[*byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest)
    });
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        pair.fw1.ask(&["-s"])?;
        let (status, page) = get(node, "/metrics", "")?;
        longest = longest.max(begun.elapsed());
        ensure!(status == 200);
        read(&page, false)?;
    }
    ensure!(longest < Duration::from_secs(1), "{longest:?}");
    let now = descriptors()?;
    ensure!(now <= before + 20, "{before} descriptors, then {now}");
    let grown = pair.fw1.resident_bytes()?.saturating_sub(resident);
    ensure!(grown < 4 << 20, "{grown} bytes more");

    // The slow one has lost its place, or is cut after 5 s.
    let begun = Instant::now();
    let cut = slowly.join().map_err(|_| anyhow::anyhow!("a panic"))?;
    ensure!(begun.elapsed() < 2 * SOON);
    let is_cut = |e: &std::io::Error| e.kind() == ErrorKind::ConnectionReset;
    ensure!(
        cut.as_ref().is_ok_and(|n| *n == 0) || cut.as_ref().is_err_and(is_cut),
        "{cut:?}"
    );
    wait::until("all places are free again", 3 * SOON, || {
        descriptors().is_ok_and(|n| n <= before)
    })?;
    let (_, page) = get(node, "/metrics", "")?;
    let samples = read(&page, false)?;
    ensure!(
        samples["ftfw_scrapers_dropped_total"] > 100.0,
        "{samples:?}"
    );
    ensure!(samples["ftfw_scrapes_refused_total"] == 5.0);
    // Replication went on.
    let _more = pair.connect(SERVER, 50)?;
    pair.wait_external("dport=7 ", 150)
}

/// Goal: a reader of the file finds a whole page at any time. Method: it is read all the time while
/// it is written; and its life at the end of the daemon and after a crash.
fn file(world: &World) -> Result<()> {
    let path = world.dir().join("ftfw.prom");
    let lines = format!("File {}\nInterval 1", path.display());
    let mut pair = Pair::start(world, settings(&lines), Options::default())?;
    // Both daemons have the same file; one is enough.
    pair.fw2.kill();
    let _open = pair.connect(SERVER, 200)?;
    wait::until("the file is there", SOON, || path.exists())?;
    let mut versions = BTreeSet::new();
    let begun = Instant::now();
    let mut reads = 0;
    while begun.elapsed() < Duration::from_millis(4500) {
        let page = fs::read_to_string(&path)?;
        let samples = read(&page, false).context("a page that is not whole")?;
        ensure!(samples.contains_key("ftfw_metrics_file_failed_total"));
        versions.insert(samples["ftfw_uptime_seconds"] as u64);
        reads += 1;
    }
    ensure!(
        versions.len() >= 4 && reads > 1000,
        "{versions:?} in {reads} reads"
    );
    ensure!(fs::metadata(&path)?.mode() & 0o777 == 0o644);
    ensure!(!world.dir().join("ftfw.prom.new").exists());
    promtool(&["check", "metrics"], Some(&fs::read_to_string(&path)?))?;

    pair.fw1.kill();
    ensure!(path.exists(), "a killed daemon cannot remove its file");
    pair.restart(0)?;
    let Pair { fw1, lab: _lab, .. } = pair;
    fw1.stop()?;
    ensure!(!path.exists(), "the file outlives the daemon");
    Ok(())
}

/// The control experiment: without the block nothing listens.
fn off(world: &World) -> Result<()> {
    let pair = Pair::start(world, Settings::new(Mode::Ftfw), Options::default())?;
    let node = &pair.lab.fw[0];
    ensure!(connect(node).is_err());
    ensure!(node.run("ss -Hltn")?.trim().is_empty());
    Ok(())
}
