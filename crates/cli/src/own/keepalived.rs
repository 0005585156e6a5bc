//! `ftfw keepalived FIFO`: roles as keepalived writes them to a notify FIFO.
//!
//! keepalived starts this program (`vrrp_notify_fifo_script`) and writes one line for each
//! change: `INSTANCE "VI_1" MASTER 100`, `GROUP "G" BACKUP 100`. Unlike scripts that run side
//! by side, the changes stay in order, and of several that wait only the last one counts.
//! Once a second the daemon's roles are compared with keepalived's, so a daemon that was
//! started again learns its role.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use control::call::{Call, Role, Task};
use serde_json::Value;

use super::client::{self, Failure};
use super::{ask_status, print};
use crate::Outcome;
use crate::load::load;

/// How often the daemon's roles are compared with keepalived's.
const PERIOD: Duration = Duration::from_secs(1);
/// Name of the daemon's only instance.
const DEFAULT: &str = "default";

/// What keepalived has last written of each instance that is followed.
type Wanted = BTreeMap<String, Role>;

/// Follows the FIFO until keepalived ends this program.
pub(super) fn run(config: &Path, fifo: &Path) -> Result<Outcome, Failure> {
    let followed = followed(config)?;
    // Also open for writing: while keepalived starts again there is no end of file.
    let file = File::options().read(true).write(true).open(fifo);
    let file = file.map_err(|e| Failure::plain(format!("{}: {e}", fifo.display())))?;
    let lines = lines_of(file);
    let mut wanted = Wanted::new();
    let mut trouble = String::new();
    loop {
        match lines.recv_timeout(PERIOD) {
            Ok(line) => {
                note(&mut wanted, &followed, &line);
                for line in lines.try_iter() {
                    note(&mut wanted, &followed, &line);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::plain(format!(
                    "{}: cannot be read",
                    fifo.display()
                )));
            }
        }
        let met = reconcile(config, &wanted).err().unwrap_or_default();
        if met != trouble {
            say(match met.is_empty() {
                true => "the daemon answers again",
                false => &met,
            });
            trouble = met;
        }
    }
}

/// Names of the instances of the configuration; none if there is one without a name.
fn followed(config: &Path) -> Result<Vec<String>, Failure> {
    let loaded = load(config).map_err(Failure::plain)?;
    let gate = loaded.config.sync.and_then(|sync| sync.gate);
    let instances = gate.map_or_else(Vec::new, |gate| gate.instances);
    let names = instances.into_iter().map(|i| i.name);
    Ok(names.filter(|name| name != DEFAULT).collect())
}

/// The lines of the FIFO as they come.
fn lines_of(file: File) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Takes a line of keepalived's. Without names in the configuration every line is about the
/// only instance: the members of a group change together, and a repetition changes nothing.
fn note(wanted: &mut Wanted, followed: &[String], line: &str) {
    let Some((name, role)) = parse(line) else {
        return;
    };
    if followed.is_empty() {
        wanted.insert(DEFAULT.to_owned(), role);
    } else if followed.iter().any(|followed| followed == name) {
        wanted.insert(name.to_owned(), role);
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
        // When keepalived ends, the other firewall takes over.
        "BACKUP" | "STOP" => Role::Backup,
        "FAULT" => Role::Fault,
        // Priorities, and what only a master hears.
        _ => return None,
    };
    Some((name, role))
}

/// Makes the daemon's roles those of keepalived.
fn reconcile(config: &Path, wanted: &Wanted) -> Result<(), String> {
    if wanted.is_empty() {
        return Ok(());
    }
    let status = ask_status(config).map_err(|failure| failure.error)?;
    for (name, role) in wanted {
        if role_of(&status, name) == Some(role.name()) {
            continue;
        }
        let task = Task::Role {
            role: *role,
            instance: (name != DEFAULT).then(|| name.clone()),
        };
        let done = client::ask(config, &Call::new(task, false), |line| {
            print::out(format_args!("{line}\n"));
            true
        });
        done.map_err(|failure| failure.error)?;
    }
    Ok(())
}

/// What the daemon takes itself for.
fn role_of<'a>(status: &'a Value, name: &str) -> Option<&'a str> {
    let list = status["instances"].as_array()?;
    list.iter().find(|i| i["name"] == name)?["role"].as_str()
}

/// Tells the system's log, and standard error: keepalived may show neither.
fn say(text: &str) {
    print::error(format_args!("ftfw keepalived: {text}"));
    // 3 * 8 + 4: a warning of a daemon (RFC 5424 section 6.2.1).
    let line = format!("<28>ftfw-keepalived[{}]: {text}", std::process::id());
    if let Ok(socket) = UnixDatagram::unbound() {
        // Without a log nobody can be told.
        let _ = socket.send_to(line.as_bytes(), "/dev/log");
    }
}

#[cfg(test)]
mod tests {
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
        let followed = ["A".to_owned(), "B".to_owned()];
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
        let mut one = Wanted::new();
        note(&mut one, &[], "GROUP \"G\" MASTER 1");
        assert_eq!(one.get(DEFAULT), Some(&Role::Primary));
    }
}
