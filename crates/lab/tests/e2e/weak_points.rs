//! Known weak points of conntrackd 1.4.7, by the numbers of docs/compatibility.md: the same
//! probe finds each one in the original and does not find it in ours.
//!
//! A probe makes sure that what it looks at has happened, and then returns whether the
//! weakness has shown. Weak points of which other groups have a test are not repeated here.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use flow::{L4, Proto, Status};
use lab::daemon::{Daemon, Kind, Mode, Settings, Transport};
use lab::hostile;
use lab::kernel;
use lab::topology::{Lab, Options, SERVER, SERVER6};
use lab::traffic::ftp::{self, Client, Way};
use lab::wait;
use lab::world::World;
use rustix::process::{Pid, Signal, kill_process};
use wire::v1::{Control, Flags, FlowOptions, encode_control, encode_flow};
use wire::{Seq, StateKind};

use crate::Scenario;
use crate::pair::{PORT, Pair, SOON, notrack};

/// Returns whether the weakness shows.
type Probe = fn(&World, Kind) -> Result<bool>;

/// Two scenarios for each probe.
macro_rules! probes {
    ($($name:literal: $probe:path,)*) => {
        &[$(
            (concat!("weak_points/", $name, "_in_conntrackd"), |w| {
                shows(w, Kind::Conntrackd, $probe, true)
            }),
            (concat!("weak_points/", $name, "_not_in_ftfw"), |w| {
                shows(w, Kind::Ftfw, $probe, false)
            }),
        )*]
    };
}

pub(crate) const SCENARIOS: &[Scenario] = probes! {
    "1_it_dies_of_an_ended_flow": dies,
    "2_acknowledgements_cause_acknowledgements": storms,
    "3_nothing_is_flushed_after_a_commit": flush_is_refused,
    "5_a_second_commit_makes_flows_again": commits_destructively,
    "6_flows_of_a_zone_end_in_a_repair": repairs_destructively,
    "6_flows_of_a_zone_end_at_each_poll": polls_destructively,
    "7_an_update_makes_an_ipv6_flow_again": updates_destructively,
    "8_no_expectation_without_internal_cache": loses_expectations,
    "11_too_many_are_counted_as_lost": miscounts,
    "12_an_empty_message_breaks_listings": breaks_listings,
    "13_a_long_helper_name_loses_the_flow": refuses_long_names,
    "14_an_unknown_attribute_loses_the_flow": refuses_attributes,
    "16_events_wait_in_the_buffer": delays,
    "17_flows_with_keys_become_one": confuses_keys,
    "20_one_byte_is_a_request": obeys_a_byte,
    "26_what_ended_while_the_peer_was_dead_stays": keeps_the_dead,
    "30_datagrams_over_ipv6_are_fragmented": fragments,
    "34_a_silent_client_stops_it": stops_for_a_client,
    "35_polling_reads_no_expectations": polls_flows_alone,
    "41_a_lost_end_is_never_made_good": loses_ends,
};

fn shows(world: &World, kind: Kind, probe: Probe, expected: bool) -> Result<()> {
    let shown = probe(world, kind)?;
    ensure!(
        shown == expected,
        "the weakness shows in {kind}: {shown}, expected {expected}"
    );
    Ok(())
}

fn settings(mode: Mode, mode_lines: &str) -> Settings {
    Settings {
        mode_lines: mode_lines.into(),
        ..Settings::new(mode)
    }
}

/// A daemon on FW2 alone, for forged datagrams in FW1's name.
fn lonely(world: &World, kind: Kind) -> Result<(Lab, Daemon)> {
    let lab = Lab::build(Options::default())?;
    let fw2 = Daemon::start(kind, &lab.fw[1], 1, &notrack(), world.dir())?;
    Ok((lab, fw2.context("no daemon")?))
}

fn send(lab: &Lab, datagrams: Vec<Vec<u8>>) -> Result<()> {
    hostile::send(lab, 0, datagrams, Duration::from_millis(10))?;
    Ok(())
}

/// A message about flow `n`, and what `edit` makes of it.
fn forged(n: u32, edit: fn(&mut Vec<u8>)) -> Result<Vec<u8>> {
    let options = FlowOptions {
        timeout: true,
        window_scale: false,
    };
    let seq = Seq(hostile::first_number()?.wrapping_add(n));
    let mut out = Vec::new();
    let flow = lab::bench::flow(n);
    encode_flow(&mut out, StateKind::New, Flags::NONE, seq, &flow, options);
    edit(&mut out);
    let length = u16::try_from(out.len())?;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}

/// An attribute of the wire format: length without padding, number, value, padding.
fn attribute(out: &mut Vec<u8>, number: u16, value: &[u8]) {
    out.extend((4 + value.len() as u16).to_be_bytes());
    out.extend(number.to_be_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// How many flows of the numbered server end in FW2's kernel meanwhile.
fn ended_during(pair: &Pair, action: impl FnOnce() -> Result<()>) -> Result<usize> {
    let mut command = pair.lab.fw[1].command("conntrack");
    command.args([
        "-E",
        "-e",
        "DESTROY",
        "-p",
        "tcp",
        "--dport",
        &PORT.to_string(),
    ]);
    let listener = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // It prints nothing when it has begun to listen.
    thread::sleep(Duration::from_millis(500));
    action()?;
    thread::sleep(Duration::from_millis(500));
    kill_process(Pid::from_child(&listener), Signal::INT)?;
    let out = listener.wait_with_output()?.stdout;
    Ok(String::from_utf8_lossy(&out).matches("[DESTROY]").count())
}

fn committed(pair: &Pair, family: &str) -> Result<usize> {
    pair.lab
        .count_flows(1, &format!("-f {family} -p tcp --dport {PORT}"))
}

// ---- probes ----

/// The DESTROY event of a TCP flow has a state but no window scale.
fn dies(world: &World, kind: Kind) -> Result<bool> {
    let settings = Settings {
        sync_lines: "Options { TCPWindowTracking On }".into(),
        ..settings(Mode::Notrack, "DisableInternalCache On")
    };
    let pair = Pair::of(world, kind, settings, Options::default())?;
    pair.lab.forget_ended_soon(0)?;
    drop(pair.connect(SERVER, 1)?);
    wait::until("the flow has ended", SOON, || {
        pair.lab
            .count_flows(0, &format!("-p tcp --dport {PORT}"))
            .is_ok_and(|n| n == 0)
    })?;
    let is_dead = || !pair.fw1.output(&["-s"]).is_ok_and(|o| o.status.success());
    if wait::until("it is dead", Duration::from_secs(1), is_dead).is_ok() {
        return Ok(true);
    }
    pair.wait_external(&format!("dport={PORT} "), 0)?;
    Ok(false)
}

/// With a window of one message each acknowledgement is acknowledged.
fn storms(world: &World, kind: Kind) -> Result<bool> {
    let pair = Pair::of(
        world,
        kind,
        settings(Mode::Ftfw, "ACKWindowSize 1"),
        Options::default(),
    )?;
    let _open = pair.connect(SERVER, 1)?;
    pair.wait_external(&format!("dport={PORT} "), 1)?;
    thread::sleep(Duration::from_secs(2));
    let before = pair.lab.link_bytes(0)?[1];
    thread::sleep(Duration::from_secs(1));
    Ok(pair.lab.link_bytes(0)?[1] - before > 100_000)
}

/// With a `HashSize` of up to 8192 the mark of a running commit stays.
fn flush_is_refused(world: &World, kind: Kind) -> Result<bool> {
    let settings = Settings {
        general_lines: "HashSize 8192".into(),
        ..settings(Mode::Ftfw, "")
    };
    let pair = Pair::of(world, kind, settings, Options::default())?;
    let _open = pair.connect(SERVER, 5)?;
    pair.wait_external(&format!("dport={PORT} "), 5)?;
    pair.fw2.ask(&["-c"])?;
    ensure!(committed(&pair, "ipv4")? == 5, "not committed");
    pair.fw2.ask(&["-f", "external"])?;
    Ok(pair
        .wait_external_for(&format!("dport={PORT} "), 0, Duration::from_secs(2))
        .is_err())
}

/// What is in the kernel already is deleted first.
fn commits_destructively(world: &World, kind: Kind) -> Result<bool> {
    let pair = Pair::of(world, kind, notrack(), Options::default())?;
    let _open = pair.connect(SERVER, 5)?;
    pair.wait_external(&format!("dport={PORT} "), 5)?;
    pair.fw2.ask(&["-c"])?;
    ensure!(committed(&pair, "ipv4")? == 5, "not committed");
    let ended = ended_during(&pair, || pair.fw2.ask(&["-c"]).map(|_| ()))?;
    ensure!(committed(&pair, "ipv4")? == 5, "lost by the second commit");
    Ok(ended > 0)
}

/// After lost events each flow is asked for without its zone, and is taken as gone.
fn repairs_destructively(world: &World, kind: Kind) -> Result<bool> {
    const COUNT: usize = 3000;
    let settings = Settings {
        general_lines:
            "NetlinkBufferSize 65536\nNetlinkBufferSizeMaxGrowth 65536\nNetlinkOverrunResync 1"
                .into(),
        ..notrack()
    };
    let pair = Pair::of(world, kind, settings, Options::default())?;
    let line = |n: usize| {
        format!(
            "-I -p udp -w 5 -s 10.9.0.1 -d 10.8.0.1 --sport {} --dport 9 -t 600 -u SEEN_REPLY\n",
            1000 + n
        )
    };
    let file = world.dir().join("flows");
    fs::write(&file, (0..COUNT).map(line).collect::<String>())?;
    let pid = Pid::from_raw(pair.fw1.pid().cast_signed()).context("a process id")?;
    kill_process(pid, Signal::STOP)?;
    pair.lab.fw[0].run(&format!("conntrack -R {}", file.display()))?;
    kill_process(pid, Signal::CONT)?;
    wait::until("lost events are counted", SOON, || {
        Pair::counter(&pair.fw1, &["-s", "runtime"], "netlink overrun:").is_ok_and(|n| n > 0)
    })?;
    // The repair begins a second after the loss, and takes less than another one.
    let repaired = pair.wait_external("dport=9 ", COUNT);
    let held = pair.lab.count_flows(0, "-p udp --orig-port-dst 9")?;
    ensure!(held == COUNT, "FW1's kernel has {held}");
    let ended = external(&pair.fw2, "connections destroyed:").context("no counter")?;
    Ok(repaired.is_err() || ended > 0)
}

/// The same at each poll, though nothing is lost.
fn polls_destructively(world: &World, kind: Kind) -> Result<bool> {
    let settings = Settings {
        general_lines: "PollSecs 1".into(),
        ..notrack()
    };
    let options = Options {
        zone: Some(5),
        ..Options::default()
    };
    let pair = Pair::of(world, kind, settings, options)?;
    let _open = pair.connect(SERVER, 5)?;
    wait::until("FW2 has learnt of the flows", SOON, || {
        external(&pair.fw2, "connections created:").is_some_and(|n| n >= 5)
    })?;
    thread::sleep(Duration::from_secs(4));
    let held = pair
        .lab
        .count_flows(0, &format!("-p tcp --dport {PORT} -w 5"))?;
    ensure!(held == 5, "FW1's kernel has {held}");
    Ok(external(&pair.fw2, "connections destroyed:").context("no counter")? > 0)
}

/// IPv6 addresses of a translation stay in the update request, which the kernel refuses.
fn updates_destructively(world: &World, kind: Kind) -> Result<bool> {
    let settings = settings(Mode::Notrack, "DisableExternalCache on");
    let pair = Pair::of(world, kind, settings, Options::default())?;
    let _open = pair.connect(SERVER6, 1)?;
    let words = format!("-f ipv6 -p tcp --dport {PORT}");
    pair.wait_kernel(&format!("{words} --state ESTABLISHED"), 1)?;
    let ended = ended_during(&pair, || {
        pair.lab.fw[0].run(&format!("conntrack -U {words} --mark 5"))?;
        pair.wait_kernel(&format!("{words} --mark 5"), 1)
    })?;
    Ok(ended > 0)
}

/// The test whether an expectation's master is known is inverted.
fn loses_expectations(world: &World, kind: Kind) -> Result<bool> {
    let settings = Settings {
        sync_lines: "Options { ExpectationSync { ftp } }".into(),
        ..settings(Mode::Notrack, "DisableInternalCache on")
    };
    let options = Options {
        ftp: true,
        ..Options::default()
    };
    let pair = Pair::of(world, kind, settings, options)?;
    ftp::serve(&pair.lab.b, SERVER)?;
    let mut client = Client::open(&pair.lab.a, SERVER, Way::Passive)?;
    client.agree()?;
    let expected = pair.lab.fw[0].run("conntrack -L expect")?;
    ensure!(expected.lines().count() == 1, "{expected}");
    pair.wait_external("dport=21 ", 1)?;
    let is_known = || (pair.fw2.ask(&["-e", "expect"])).is_ok_and(|t| t.lines().count() == 1);
    Ok(wait::until(
        "FW2 knows the expectation",
        Duration::from_secs(3),
        is_known,
    )
    .is_err())
}

/// Only the table of flows is read.
fn polls_flows_alone(world: &World, kind: Kind) -> Result<bool> {
    let settings = Settings {
        general_lines: "PollSecs 1".into(),
        sync_lines: "Options { ExpectationSync { ftp } }".into(),
        ..notrack()
    };
    let options = Options {
        ftp: true,
        ..Options::default()
    };
    let pair = Pair::of(world, kind, settings, options)?;
    ftp::serve(&pair.lab.b, SERVER)?;
    let mut client = Client::open(&pair.lab.a, SERVER, Way::Passive)?;
    client.agree()?;
    let expected = pair.lab.fw[0].run("conntrack -L expect")?;
    ensure!(expected.lines().count() == 1, "{expected}");
    pair.wait_external("dport=21 ", 1)?;
    let is_known = || (pair.fw2.ask(&["-e", "expect"])).is_ok_and(|t| t.lines().count() == 1);
    Ok(wait::until("FW2 knows the expectation", SOON, is_known).is_err())
}

/// Three numbers are left out; the original counts five messages.
fn miscounts(world: &World, kind: Kind) -> Result<bool> {
    let (lab, fw2) = lonely(world, kind)?;
    let first = hostile::first_number()?;
    let alive = |n: u32| {
        let mut out = Vec::new();
        encode_control(
            &mut out,
            Control::Alive,
            Flags::NONE,
            Seq(first.wrapping_add(n)),
        );
        out
    };
    send(&lab, [0, 1, 5, 6].map(alive).to_vec())?;
    let lost = || Pair::counter(&fw2, &["-s", "network"], "Packets lost:");
    wait::until("a loss is counted", SOON, || lost().is_ok_and(|n| n > 0))?;
    let lost = lost()?;
    ensure!(lost == 3 || lost == 5, "{lost}");
    Ok(lost != 3)
}

/// A state message without attributes is kept, and the process that lists it crashes.
fn breaks_listings(world: &World, kind: Kind) -> Result<bool> {
    let (lab, fw2) = lonely(world, kind)?;
    send(
        &lab,
        vec![forged(1, |out| out.truncate(8))?, forged(2, |_| {})?],
    )?;
    let held = || external(&fw2, "connections created:").is_some_and(|n| n > 0);
    wait::until("the second one is known", SOON, held)?;
    fw2.ask(&["-e"])?;
    thread::sleep(Duration::from_millis(300));
    let crashed = Pair::counter(&fw2, &["-s", "runtime"], "child process segfault:")?;
    Ok(crashed > 0)
}

/// The first number of a line about the external cache, of the answer to `-s`.
fn external(daemon: &Daemon, line: &str) -> Option<u64> {
    let text = daemon.ask(&["-s"]).ok()?;
    let block = text.split("cache external:").nth(1)?;
    let line = block.lines().find(|l| l.starts_with(line))?;
    line.split_whitespace().find_map(|w| w.parse().ok())
}

/// Number of the attribute that names a flow's helper.
const HELPER_NAME: u16 = 27;

fn refuses_long_names(world: &World, kind: Kind) -> Result<bool> {
    refuses(world, kind, |out| {
        attribute(out, HELPER_NAME, b"netbios-ns-long\0")
    })
}

fn refuses_attributes(world: &World, kind: Kind) -> Result<bool> {
    refuses(world, kind, |out| attribute(out, 200, &[0; 4]))
}

/// Whether a message is refused for what `edit` adds; the one after it is not.
fn refuses(world: &World, kind: Kind, edit: fn(&mut Vec<u8>)) -> Result<bool> {
    let (lab, fw2) = lonely(world, kind)?;
    send(&lab, vec![forged(1, edit)?, forged(2, |_| {})?])?;
    let lists = |n: u32| fw2.external(&format!("sport={} ", 1024 + n));
    wait::until("the second one is known", SOON, || {
        lists(2).is_ok_and(|l| l.len() == 1)
    })?;
    Ok(lists(1)?.is_empty())
}

/// Without an internal cache events wait for a full datagram or the next ALIVE.
fn delays(world: &World, kind: Kind) -> Result<bool> {
    let settings = settings(Mode::Notrack, "DisableInternalCache on");
    let pair = Pair::of(world, kind, settings, Options::default())?;
    let mut waits = Vec::new();
    let mut open = Vec::new();
    for n in 1..=7 {
        open.push(pair.connect(SERVER, 1)?);
        let begun = Instant::now();
        pair.wait_external(&format!("dport={PORT} "), n)?;
        waits.push(begun.elapsed());
        // Not in step with the second in which ALIVE is sent.
        thread::sleep(Duration::from_millis(130));
    }
    waits.sort();
    Ok(waits[3] > Duration::from_millis(250))
}

/// The keys of GRE are not sent: two flows of the same hosts are one for the peer. Ours sends
/// none of them and counts that.
fn confuses_keys(world: &World, kind: Kind) -> Result<bool> {
    let pair = Pair::of(world, kind, notrack(), Options::default())?;
    let flow = |key: u16| {
        let mut flow = lab::bench::flow(1);
        for (tuple, key) in [(&mut flow.orig, key), (&mut flow.reply, key + 1)] {
            tuple.proto = Proto::GRE;
            tuple.l4 = L4::Gre {
                src_key: 0,
                dst_key: key,
            };
        }
        flow.reply.addrs = flow.orig.addrs.swapped();
        flow.status = Status::SEEN_REPLY.with(Status::CONFIRMED);
        flow.proto_info = None;
        flow
    };
    kernel::create(&pair.lab.fw[0], &[flow(1), flow(5)])?;
    // What is sent after them has come.
    let _open = pair.connect(SERVER, 1)?;
    pair.wait_external(&format!("dport={PORT} "), 1)?;
    let known = pair.fw2.external("gre ")?.len();
    ensure!(known < 2, "{known} of two flows");
    Ok(known == 1)
}

/// Nothing shows the backup which flows have ended while the primary's daemon was dead.
fn keeps_the_dead(world: &World, kind: Kind) -> Result<bool> {
    let mut pair = Pair::of(world, kind, settings(Mode::Ftfw, ""), Options::default())?;
    pair.lab.forget_ended_soon(0)?;
    let ends = pair.connect(SERVER, 3)?;
    let _open = pair.connect(SERVER, 2)?;
    pair.wait_external(&format!("dport={PORT} "), 5)?;
    pair.kill(0);
    drop(ends);
    wait::until("three flows have ended", SOON, || {
        (pair.lab.count_flows(0, &format!("-p tcp --dport {PORT}"))).is_ok_and(|n| n == 2)
    })?;
    pair.restart(0)?;
    pair.fw1.ask(&["-B"])?;
    Ok(pair.wait_external(&format!("dport={PORT} "), 2).is_err())
}

/// The allowance for headers is that of IPv4, so a datagram that is nearly full is too long.
/// Messages about TCP flows are 8 bytes longer than about UDP: mixed in all proportions
/// they make datagrams of every length.
fn fragments(world: &World, kind: Kind) -> Result<bool> {
    const COUNT: usize = 2000;
    let settings = Settings {
        transport: Transport::Udp6,
        // The original fills its datagrams where it keeps no flows.
        ..settings(Mode::Notrack, "DisableInternalCache on")
    };
    let pair = Pair::of(world, kind, settings, Options::default())?;
    let line = |n: usize| {
        let (proto, state) =
            [("tcp", "--state ESTABLISHED"), ("udp", "")][usize::from((n / 20) % 20 > n % 20)];
        format!(
            "-I -p {proto} -s 10.9.0.1 -d 10.8.0.1 --sport {} --dport 9 {state} -t 600 -u SEEN_REPLY\n",
            1000 + n
        )
    };
    let file = world.dir().join("flows");
    fs::write(&file, (0..COUNT).map(line).collect::<String>())?;
    pair.lab.fw[0].run(&format!("conntrack -R {}", file.display()))?;
    pair.wait_external("dport=9 ", COUNT)?;
    let text = pair.lab.fw[0].run("cat /proc/net/snmp6")?;
    let line = text.lines().find(|l| l.starts_with("Ip6FragCreates"));
    let count = line.and_then(|l| l.split_whitespace().nth(1));
    Ok(count.context("Ip6FragCreates")?.parse::<u64>()? > 0)
}

/// A client connects, sends one byte less than a request, and waits.
fn stops_for_a_client(world: &World, kind: Kind) -> Result<bool> {
    let (_lab, fw2) = lonely(world, kind)?;
    let mut silent = UnixStream::connect(fw2.dir().join("control"))?;
    thread::sleep(Duration::from_millis(100));
    let mut asked = fw2.command(&["-s"])?.stdout(Stdio::null()).spawn()?;
    let is_answered = || asked.try_wait().is_ok_and(|s| s.is_some());
    let stops = wait::until(
        "it answers another one",
        Duration::from_secs(3),
        is_answered,
    )
    .is_err();
    // A code that does nothing: it answers again.
    silent.write_all(&27i32.to_ne_bytes())?;
    drop(silent);
    asked.wait()?;
    Ok(stops)
}

/// A client sends the first byte of `-f external`, and goes.
fn obeys_a_byte(world: &World, kind: Kind) -> Result<bool> {
    let pair = Pair::of(world, kind, notrack(), Options::default())?;
    let _open = pair.connect(SERVER, 3)?;
    let pattern = format!("dport={PORT} ");
    pair.wait_external(&pattern, 3)?;
    let mut client = UnixStream::connect(pair.fw2.dir().join("control"))?;
    client.write_all(&[34])?;
    drop(client);
    thread::sleep(Duration::from_millis(500));
    Ok(pair.fw2.external(&pattern)?.is_empty())
}

/// The link is out while a flow ends; then everything is sent again.
fn loses_ends(world: &World, kind: Kind) -> Result<bool> {
    let pair = Pair::of(world, kind, notrack(), Options::default())?;
    pair.lab.forget_ended_soon(0)?;
    let ends = pair.connect(SERVER, 1)?;
    let _open = pair.connect(SERVER, 2)?;
    pair.wait_external(&format!("dport={PORT} "), 3)?;
    pair.lab.fw[1].run("iptables -I INPUT -i eth2 -j DROP")?;
    drop(ends);
    wait::until("a flow has ended", SOON, || {
        (pair.lab.count_flows(0, &format!("-p tcp --dport {PORT}"))).is_ok_and(|n| n == 2)
    })?;
    thread::sleep(Duration::from_secs(1));
    pair.lab.fw[1].run("iptables -D INPUT -i eth2 -j DROP")?;
    pair.fw2.ask(&["-n"])?;
    Ok(pair
        .wait_external_for(&format!("dport={PORT} "), 2, Duration::from_secs(15))
        .is_err())
}
