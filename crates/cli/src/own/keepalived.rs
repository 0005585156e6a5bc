//! `ftfw keepalived FIFO`: roles as keepalived writes them to a notify FIFO.
//!
//! keepalived starts this program (`vrrp_notify_fifo_script`) and writes one line for each
//! change: `INSTANCE "VI_1" MASTER 100`, `GROUP "G" BACKUP 100`. Unlike scripts that run side
//! by side, the changes stay in order, and of several that wait only the last one counts.
//! Once a second the daemon's roles are compared with keepalived's, so a daemon that was
//! started again learns its role.
//!
//! keepalived sends SIGTERM when it stops, and writes the lines with STOP some milliseconds
//! later. It also sends it when it reads its configuration again, and has then started the next
//! reader on the same FIFO. So after SIGTERM the lines are only looked at, and taken if there is
//! a STOP among them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use config::{Facility, Instance};
use control::call::{Call, Role, Task};
use control::journal::{Entry, Field, SOCKET};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};
use rustix::process::getppid;
use serde_json::Value;
use sys::signal::{Signal, Signals};

use super::client::{self, Failure};
use super::{ask_status, print};
use crate::Outcome;
use crate::load::load;

/// How often the daemon's roles are compared with keepalived's.
const PERIOD: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// So long after SIGTERM the lines with STOP are waited for.
const STOP_MAX: Duration = Duration::from_secs(1);
/// keepalived writes a line with STOP for each instance, then one for each group: nothing comes
/// any more when nothing has come for so long.
const QUIET: Duration = Duration::from_millis(100);
/// Between two looks for them.
const PAUSE: Duration = Duration::from_millis(10);
/// The longest line in bytes: names of keepalived are far shorter.
const LINE_MAX: usize = 4096;
/// So much of a line that is passed over is shown, in bytes.
const SHOWN_MAX: usize = 80;
/// Its name in the journal and in the system's log.
const IDENTIFIER: &str = "ftfw-keepalived";
/// `LOG_WARNING`
const WARNING: u8 = 4;
/// What the kernel's pipes hold, unless somebody has changed it.
const PIPE_BYTES: usize = 65_536;

/// What keepalived has last written of each instance that is followed.
type Wanted = BTreeMap<String, Role>;

/// Follows the FIFO until keepalived ends this program, or is gone.
pub(super) fn run(config: &Path, fifo: &Path) -> Result<Outcome, Failure> {
    let followed = Followed::of(config)?;
    let plain = |e: io::Error| Failure::plain(format!("{}: {e}", fifo.display()));
    let signals = Signals::open().map_err(plain)?;
    let keepalived = getppid();
    // Also open for writing: while keepalived starts again there is no end of file.
    let mut file = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(fifo)
        .map_err(plain)?;
    let mut lines = Lines::default();
    let mut wanted = Wanted::new();
    let mut trouble: Vec<Trouble> = Vec::new();
    loop {
        wait(&signals, &file);
        let is_told = std::iter::from_fn(|| signals.next()).any(|s| s == Signal::Terminate);
        let ends = is_told || getppid() != keepalived;
        if ends && !has_stop(&file).map_err(plain)? {
            // What this one has read is older than what the next reader reads.
            return Ok(Outcome::Exit(0));
        }
        let see = |line: Result<&str, &[u8]>| match line {
            Ok(line) => note(&mut wanted, &followed, line),
            Err(bytes) => Trouble::new(format!("passed over: {}", bytes.escape_ascii())).say(),
        };
        lines.read(&mut file, see).map_err(plain)?;
        let met = reconcile(config, &wanted);
        if met.is_empty() && !trouble.is_empty() {
            Trouble::new("the daemon has the roles of keepalived again").say();
        }
        for new in met.iter().filter(|met| !trouble.contains(met)) {
            new.say();
        }
        // Of several one may be over while another one lasts.
        for over in trouble
            .iter()
            .filter(|over| !met.is_empty() && !met.contains(over))
        {
            over.is_over().say();
        }
        trouble = met;
        if ends {
            return Ok(Outcome::Exit(0));
        }
    }
}

/// Waits for a line or a signal, for at most a second.
fn wait(signals: &Signals, file: &File) {
    let mut both =
        [signals.as_fd(), file.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    // An interruption is as good as an event.
    let _ = poll(&mut both, Some(&PERIOD));
}

/// Waits for all lines with STOP; false if there are none: what is in the FIFO is then for the
/// next reader.
fn has_stop(file: &File) -> io::Result<bool> {
    let mut watch = Watch::new(Instant::now());
    loop {
        if let Some(has_stop) = watch.look(&peek(file)?, Instant::now()) {
            return Ok(has_stop);
        }
        thread::sleep(PAUSE);
    }
}

/// What is in the FIFO after SIGTERM, from look to look.
#[derive(Debug)]
struct Watch {
    began: Instant,
    /// How many bytes there were, and since when there are no more.
    bytes: usize,
    since: Instant,
}

impl Watch {
    fn new(began: Instant) -> Watch {
        Watch {
            began,
            bytes: 0,
            since: began,
        }
    }

    /// Whether there are lines with STOP, once all are there; `None` before that.
    fn look(&mut self, bytes: &[u8], now: Instant) -> Option<bool> {
        if bytes.len() != self.bytes {
            (self.bytes, self.since) = (bytes.len(), now);
        }
        let is_stop = |line| str::from_utf8(line).is_ok_and(|line| line.contains("\" STOP"));
        let has_stop = bytes.split(|byte| *byte == b'\n').any(is_stop);
        let is_quiet = now.duration_since(self.since) >= QUIET;
        let is_over = now.duration_since(self.began) >= STOP_MAX;
        (has_stop && is_quiet || is_over).then_some(has_stop)
    }
}

/// What is in a FIFO, which stays there.
fn peek(file: &File) -> io::Result<Vec<u8>> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    match tee(file, &writer, PIPE_BYTES, SpliceFlags::NONBLOCK) {
        Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
        Err(e) => return Err(e.into()),
    }
    drop(writer);
    let mut bytes = Vec::new();
    File::from(reader).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Which instances of keepalived's are followed.
#[derive(Debug)]
struct Followed {
    /// Those that the configuration names.
    names: Vec<String>,
    /// Every other one is the instance without a name.
    has_default: bool,
}

impl Followed {
    fn of(config: &Path) -> Result<Followed, Failure> {
        let loaded = load(config).map_err(Failure::plain)?;
        let gate = loaded.config.sync.and_then(|sync| sync.gate);
        let instances = gate.map_or_else(Vec::new, |gate| gate.instances);
        let (default, names): (Vec<_>, Vec<_>) =
            (instances.into_iter().map(|i| i.name)).partition(|name| name == Instance::DEFAULT);
        Ok(Followed {
            has_default: !default.is_empty() || names.is_empty(),
            names,
        })
    }
}

/// Bytes become lines.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line.
    begun: Vec<u8>,
}

impl Lines {
    /// Reads what is there. A line that cannot be one of keepalived's is an error: it is no
    /// text, or has more than [`LINE_MAX`] bytes.
    fn read(
        &mut self,
        from: &mut impl Read,
        mut see: impl FnMut(Result<&str, &[u8]>),
    ) -> io::Result<()> {
        let mut buffer = [0; LINE_MAX];
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            for part in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
                self.begun.extend_from_slice(part);
                let is_whole = part.ends_with(b"\n");
                if !is_whole && self.begun.len() < LINE_MAX {
                    continue;
                }
                let line = std::mem::take(&mut self.begun);
                match str::from_utf8(&line) {
                    Ok(text) if is_whole => see(Ok(text.trim_end_matches('\n'))),
                    _ => see(Err(&line[..line.len().min(SHOWN_MAX)])),
                }
            }
        }
    }
}

/// Takes a line of keepalived's. Every line about an instance that the configuration does not
/// name is about the one without a name, if there is one: the members of a group change
/// together, and a repetition changes nothing.
fn note(wanted: &mut Wanted, followed: &Followed, line: &str) {
    let Some((name, role)) = parse(line) else {
        return;
    };
    if followed.names.iter().any(|followed| followed == name) {
        wanted.insert(name.to_owned(), role);
    } else if followed.has_default {
        wanted.insert(Instance::DEFAULT.to_owned(), role);
    }
}

/// Name and role of a line; `None` for one that is about something else.
fn parse(line: &str) -> Option<(&str, Role)> {
    let rest = line
        .strip_prefix("INSTANCE \"")
        .or_else(|| line.strip_prefix("GROUP \""))?;
    let (name, rest) = rest.split_once("\" ")?;
    let role = match rest.split(' ').next()? {
        "MASTER" => Role::Primary,
        // When keepalived ends, or does not know it any more, the other firewall takes over.
        "BACKUP" | "STOP" | "DELETED" => Role::Backup,
        "FAULT" => Role::Fault,
        // Priorities, and what only a master hears.
        _ => return None,
    };
    Some((name, role))
}

/// Makes the daemon's roles those of keepalived. Returns what is wrong; each instance is tried,
/// whatever becomes of the others.
fn reconcile(config: &Path, wanted: &Wanted) -> Vec<Trouble> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let status = match ask_status(config) {
        Ok(status) => status,
        Err(failure) => return vec![Trouble::new(failure.error)],
    };
    let ask = |name: &str, role: Role| {
        let instance = (name != Instance::DEFAULT).then(|| name.to_owned());
        let call = Call::new(Task::Role { role, instance }, false);
        let done = client::ask(config, &call, |line| {
            print::out(format_args!("{line}\n"));
            true
        });
        done.map(drop).map_err(|failure| failure.error)
    };
    each(&status, wanted, ask)
}

/// Asks for each role that the daemon does not have. Returns what is wrong.
fn each(
    status: &Value,
    wanted: &Wanted,
    mut ask: impl FnMut(&str, Role) -> Result<(), String>,
) -> Vec<Trouble> {
    let mut wrong = Vec::new();
    for (name, role) in wanted {
        if role_of(status, name) == Some(role.name()) {
            continue;
        }
        if let Err(error) = ask(name, *role) {
            let text = format!("instance `{name}` becomes {}: {error}", role.name());
            wrong.push(Trouble {
                text,
                of: Some((name.clone(), *role)),
            });
        }
    }
    wrong
}

/// What the daemon takes itself for. A call without a name is about its only instance, or about
/// `default`.
fn role_of<'a>(status: &'a Value, name: &str) -> Option<&'a str> {
    let list = status["instances"].as_array()?;
    let instance = match &list[..] {
        [only] if name == Instance::DEFAULT => only,
        _ => list.iter().find(|i| i["name"] == name)?,
    };
    instance["role"].as_str()
}

/// What is to be said, and of which instance that is to have which role.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trouble {
    text: String,
    of: Option<(String, Role)>,
}

impl Trouble {
    fn new(text: impl Into<String>) -> Trouble {
        Trouble {
            text: text.into(),
            of: None,
        }
    }

    /// The same, at its end.
    fn is_over(&self) -> Trouble {
        Trouble {
            text: format!("no longer: {}", self.text),
            of: self.of.clone(),
        }
    }

    /// Tells the journal, or else the system's log, and standard error: keepalived may show none
    /// of them.
    fn say(&self) {
        print::error(format_args!("ftfw keepalived: {}", self.text));
        let Ok(socket) = UnixDatagram::unbound() else {
            // Nobody can be told.
            return;
        };
        if socket.send_to(self.entry().bytes(), SOCKET).is_err() {
            // 3 * 8 + 4: a warning of a daemon (RFC 5424 section 6.2.1).
            let line = format!("<28>{IDENTIFIER}[{}]: {}", std::process::id(), self.text);
            let _ = socket.send_to(line.as_bytes(), "/dev/log");
        }
    }

    /// The same for the journal, with the fields of the daemon's lines.
    fn entry(&self) -> Entry {
        let entry = Entry::new(&self.text, WARNING, IDENTIFIER)
            .with("SYSLOG_FACILITY", &Facility::DAEMON.0.to_string());
        match &self.of {
            Some((instance, role)) => {
                (entry.with(Field::Instance.name(), instance)).with(Field::Role.name(), role.name())
            }
            None => entry,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::*;

    #[test]
    fn lines_of_keepalived_become_roles() {
        assert_eq!(
            parse("INSTANCE \"VI_1\" MASTER 100"),
            Some(("VI_1", Role::Primary))
        );
        assert_eq!(
            parse("GROUP \"a b\" BACKUP 100"),
            Some(("a b", Role::Backup))
        );
        assert_eq!(
            parse("INSTANCE \"VI_1\" FAULT 100"),
            Some(("VI_1", Role::Fault))
        );
        assert_eq!(
            parse("INSTANCE \"VI_1\" STOP 100"),
            Some(("VI_1", Role::Backup))
        );
        for other in [
            "INSTANCE \"VI_1\" MASTER_RX_LOWER_PRI 100",
            "INSTANCE \"VI_1\" BACKUP_PRIORITY 90",
            "VS [192.168.201.15]:tcp:80 UP",
            "INSTANCE VI_1 MASTER 100",
            "",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_last_line_of_each_followed_instance_counts() {
        let mut wanted = Wanted::new();
        let mut followed = Followed {
            names: vec!["A".to_owned(), "B".to_owned()],
            has_default: false,
        };
        for line in [
            "INSTANCE \"A\" BACKUP 1",
            "INSTANCE \"C\" MASTER 1",
            "INSTANCE \"B\" BACKUP 1",
            "INSTANCE \"A\" MASTER 1",
        ] {
            note(&mut wanted, &followed, line);
        }
        let all: Vec<_> = wanted.iter().map(|(n, r)| (n.as_str(), *r)).collect();
        assert_eq!(all, [("A", Role::Primary), ("B", Role::Backup)]);
        // Addresses of `Gate` itself beside named instances.
        followed.has_default = true;
        note(&mut wanted, &followed, "GROUP \"G\" MASTER 1");
        let all: Vec<_> = wanted.iter().map(|(n, r)| (n.as_str(), *r)).collect();
        let default = (Instance::DEFAULT, Role::Primary);
        assert_eq!(all, [("A", Role::Primary), ("B", Role::Backup), default]);
    }

    #[test]
    fn a_line_that_is_none_of_keepalived_is_passed_over() {
        let mut lines = Lines::default();
        let (mut seen, mut passed_over) = (Vec::new(), Vec::new());
        let mut take = |mut bytes: &[u8]| {
            let see = |line: Result<&str, &[u8]>| match line {
                Ok(line) => seen.push(line.to_owned()),
                Err(bytes) => passed_over.push(bytes.len()),
            };
            lines.read(&mut bytes, see).unwrap();
        };
        take(b"one\nINSTANCE \"\xff\" MASTER 1\ntw");
        take(b"o\n");
        take(&[b'x'; LINE_MAX + 5]);
        take(b"\nfour\n");
        assert_eq!(seen, ["one", "two", "xxxxx", "four"]);
        assert_eq!(passed_over, [22, SHOWN_MAX]);
    }

    #[test]
    fn one_instance_that_fails_does_not_stop_the_next() {
        let list = [("A", "backup"), ("B", "backup"), ("C", "primary")];
        let list = list.map(|(name, role)| json!({ "name": name, "role": role }));
        let status = json!({ "instances": list });
        let names = ["A", "B", "C"].map(|name| (name.to_owned(), Role::Primary));
        let mut asked = Vec::new();
        let wrong = each(&status, &Wanted::from(names), |name, _| {
            asked.push(name.to_owned());
            match name {
                "A" => Err("no".to_owned()),
                _ => Ok(()),
            }
        });
        assert_eq!(asked, ["A", "B"]);
        let [wrong] = &wrong[..] else {
            panic!("{wrong:?}");
        };
        assert_eq!(wrong.text, "instance `A` becomes primary: no");
        let entry = wrong.entry();
        let fields = str::from_utf8(entry.bytes()).unwrap();
        let wanted = "MESSAGE=instance `A` becomes primary: no\nPRIORITY=4\n\
                      SYSLOG_IDENTIFIER=ftfw-keepalived\nSYSLOG_FACILITY=3\n\
                      FTFW_INSTANCE=A\nFTFW_ROLE=primary\n";
        assert_eq!(fields, wanted);
    }

    #[test]
    fn the_instance_without_a_name_is_the_only_one_or_default() {
        let status = |names: &[&str]| {
            let list: Vec<_> =
                (names.iter().map(|n| json!({ "name": n, "role": "fault" }))).collect();
            json!({ "instances": list })
        };
        let role = |names: &[&str], name| role_of(&status(names), name).is_some();
        assert!(
            role(&["slip"], Instance::DEFAULT)
                && role(&["slip", Instance::DEFAULT], Instance::DEFAULT)
        );
        assert!(
            !role(&["slip", "A"], Instance::DEFAULT)
                && !role(&[], Instance::DEFAULT)
                && !role(&["slip"], "A")
        );
    }

    #[test]
    fn what_is_looked_at_stays() {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let (reader, mut writer) = (File::from(reader), File::from(writer));
        assert_eq!(peek(&reader).unwrap(), b"");
        writer.write_all(b"INSTANCE \"A\" MASTER 1\n").unwrap();
        for _ in 0..2 {
            assert_eq!(peek(&reader).unwrap(), b"INSTANCE \"A\" MASTER 1\n");
        }
    }

    #[test]
    fn every_line_with_stop_is_waited_for() {
        let one = b"INSTANCE \"A\" STOP 1\n".as_slice();
        let both = b"INSTANCE \"A\" STOP 1\nGROUP \"G\" STOP 1\n".as_slice();
        let began = Instant::now();
        let look = |watch: &mut Watch, bytes, millis| {
            watch.look(bytes, began + Duration::from_millis(millis))
        };
        let mut watch = Watch::new(began);
        assert_eq!(look(&mut watch, b"", 200), None);
        assert_eq!(look(&mut watch, one, 210), None);
        assert_eq!(look(&mut watch, both, 300), None);
        assert_eq!(look(&mut watch, both, 399), None);
        assert_eq!(look(&mut watch, both, 400), Some(true));
        let mut watch = Watch::new(began);
        let other = b"INSTANCE \"A\" MASTER 1\n";
        assert_eq!(look(&mut watch, other, 999), None);
        assert_eq!(look(&mut watch, other, 1000), Some(false));
    }
}
