//! Goal: systemd's journal gets every line once, with the fields of docs/journal.md. Method: a
//! socket of ours in the place of the journal's, and the daemons' streams lead to a file that
//! `JOURNAL_STREAM` names, or do not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::daemon::{Daemon, Kind, Mode, Settings};
use lab::node::Process;
use lab::topology::{Lab, Options};
use lab::wait;
use lab::world::World;
use rustix::process::{Pid, Signal, kill_process};

use crate::Scenario;
use crate::pair::SOON;

pub(crate) const SCENARIOS: &[Scenario] = &[("journal/lines_have_fields", fields)];

const SOCKET: &str = "/run/systemd/journal/socket";

/// The fields of a line, by name.
type Entry = BTreeMap<String, String>;

/// The socket of the journal, in the `/run` of this run.
struct Journal(UnixDatagram);

impl Journal {
    fn open() -> Result<Journal> {
        fs::create_dir_all("/run/systemd/journal")?;
        let socket = UnixDatagram::bind(SOCKET)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Journal(socket))
    }

    /// The next entry that has all these fields, with those before it passed over.
    fn wait(&self, wanted: &[(&str, &str)]) -> Result<Entry> {
        let begun = Instant::now();
        let mut passed = Vec::new();
        let mut buffer = [0; 4096];
        while begun.elapsed() < 2 * SOON {
            if let Ok(n) = self.0.recv(&mut buffer) {
                let entry = parse(&buffer[..n]).context("an entry in the journal's protocol")?;
                let has =
                    |(name, value): &(&str, &str)| entry.get(*name).is_some_and(|v| v == value);
                if wanted.iter().all(has) {
                    return Ok(entry);
                }
                passed.push(entry);
            }
        }
        bail!("the journal never has {wanted:?}, but {passed:?}")
    }
}

/// `None` if this is not the journal's protocol.
fn parse(mut bytes: &[u8]) -> Option<Entry> {
    let mut entry = Entry::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|b| matches!(b, b'=' | b'\n'))?;
        let (name, rest) = bytes.split_at(end);
        let (length, rest) = match rest[0] {
            b'=' => (rest.iter().position(|b| *b == b'\n')? - 1, &rest[1..]),
            _ => {
                let (length, rest) = rest[1..].split_first_chunk()?;
                (usize::try_from(u64::from_le_bytes(*length)).ok()?, rest)
            }
        };
        let (value, rest) = rest.split_at_checked(length)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        entry.insert(text(name)?, text(value)?);
        bytes = rest.strip_prefix(b"\n")?;
    }
    Some(entry)
}

fn fields(world: &World) -> Result<()> {
    let lab = Lab::build(Options::default())?;
    let journal = Journal::open()?;
    let settings = Settings::new(Mode::Ftfw);
    let config = Daemon::configure(&lab.fw[0], 0, &settings, world.dir())?;
    let path = world.dir().join("stream");
    let stream = File::create(&path)?;
    let named = stream.metadata()?;
    let mut command = lab.fw[0].command(&Daemon::program()?);
    command.arg("conntrackd").arg("-C").arg(&config);
    command.env("JOURNAL_STREAM", format!("{}:{}", named.dev(), named.ino()));
    command.stdout(stream.try_clone()?).stderr(stream);
    let mut first = Process(command.spawn()?);
    let own = |event| [("SYSLOG_IDENTIFIER", "ftfw"), ("FTFW_EVENT", event)];
    let started = journal.wait(&own("started"))?;
    ensure!(
        started["MESSAGE"] == "initialization completed",
        "{started:?}"
    );
    ensure!(started["PRIORITY"] == "5" && started["MESSAGE_ID"].len() == 32);

    // The streams of the second one lead elsewhere, but `Syslog` is on.
    let settings = Settings {
        general_lines: "Syslog on".into(),
        ..settings
    };
    let second = Daemon::start(Kind::Ftfw, &lab.fw[1], 1, &settings, world.dir())?;
    let second = second.context("a daemon")?;
    let heard = journal.wait(&own("peer-heard"))?;
    ensure!(heard["FTFW_PEER"] == "10.77.9.2", "{heard:?}");
    second.own(&["primary"])?;
    let by_syslog = |event| {
        [
            ("SYSLOG_IDENTIFIER", "conntrack-tools"),
            ("FTFW_EVENT", event),
        ]
    };
    let commit = journal.wait(&by_syslog("commit-ended"))?;
    ensure!(
        commit["MESSAGE"].starts_with("Committed 0 new entries\ncommit has taken "),
        "{commit:?}"
    );
    ensure!(commit["FTFW_FLOWS"] == "0" && commit["FTFW_REFUSED"] == "0");
    ensure!(commit["FTFW_SECONDS"].parse::<f64>().is_ok(), "{commit:?}");
    ensure!(commit["SYSLOG_FACILITY"] == "3", "{commit:?}");
    let changed = journal.wait(&by_syslog("role-changed"))?;
    ensure!(changed["FTFW_INSTANCE"] == "default" && changed["FTFW_ROLE"] == "primary");
    ensure!(second.console().contains("instance `default` is primary"));
    // Each is there once.
    lab.fw[1].run("ip link set eth2 down")?;
    let failed = journal.wait(&by_syslog("link-failed"))?;
    ensure!(failed["FTFW_LINK"] == "eth2" && failed["PRIORITY"] == "4");

    // The reader of keepalived's FIFO has its own name.
    let fifo = world.dir().join("fifo");
    lab.fw[1].run(&format!("mkfifo {}", fifo.display()))?;
    let mut reader = second.own_command(&["keepalived"])?;
    let reader = Process(reader.arg(&fifo).spawn()?);
    fs::write(&fifo, b"\xff\n")?;
    let passed = journal.wait(&[("SYSLOG_IDENTIFIER", "ftfw-keepalived")])?;
    ensure!(passed["MESSAGE"].starts_with("passed over: "), "{passed:?}");
    ensure!(passed["PRIORITY"] == "4" && passed["SYSLOG_FACILITY"] == "3");
    drop(reader);

    // Without a journal the lines go to the stream.
    ensure!(fs::read_to_string(&path)?.is_empty());
    drop(journal);
    let pid = Pid::from_raw(first.0.id().cast_signed()).context("a pid")?;
    kill_process(pid, Signal::HUP)?;
    wait::until("the stream has the line", SOON, || {
        fs::read_to_string(&path).is_ok_and(|text| text.contains("log file opened again"))
    })?;
    kill_process(pid, Signal::TERM)?;
    ensure!(first.0.wait()?.success());
    Ok(())
}
