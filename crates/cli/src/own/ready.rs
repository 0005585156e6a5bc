//! `ftfw ready`: may this firewall be primary? For people, and for keepalived's `track_script`
//! and `track_file`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use sys::signal::Signals;

use super::arguments::{Form, Ready};
use super::client::Failure;
use super::{FAILED, ask_status_within};
use crate::{Outcome, print};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// The same for a file that is kept up to date.
const TRACK_PAUSE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// A daemon that hangs must not make keepalived's script hang.
const LIMIT: Duration = Duration::from_secs(2);

/// Prints the verdict, once it is good or the time is over.
pub(super) fn run(config: &Path, wanted: &Ready) -> Result<Outcome, Failure> {
    if let Some(file) = &wanted.track_file {
        return track(config, wanted, TrackFile::new(file));
    }
    let wait = Duration::from_secs(wanted.wait.unwrap_or(0));
    // Nobody lives to see the end of what the clock cannot count to.
    let until = Instant::now().checked_add(wait);
    loop {
        let answer = ask(config, wanted);
        let is_over = until.is_some_and(|until| Instant::now() >= until);
        match answer {
            Ok(ready) if is_over || is_ready(&ready) => {
                match wanted.form.output {
                    Form::Text => print::out(format_args!("{}\n", words(&ready))),
                    Form::Json => print::out(format_args!("{ready}\n")),
                }
                let status = if is_ready(&ready) { 0 } else { FAILED };
                return Ok(Outcome::Exit(status));
            }
            Err(failure) if is_over => return Err(failure),
            _ => thread::sleep(PAUSE),
        }
    }
}

fn ask(config: &Path, wanted: &Ready) -> Result<Value, Failure> {
    let status = ask_status_within(LIMIT, config)?;
    Ok(verdict(&status, wanted.instance.as_deref()))
}

/// The verdict about this firewall, or about an instance: where that is primary it stays.
fn verdict(status: &Value, instance: Option<&str>) -> Value {
    let list = status["instances"].as_array();
    let is_it = |row: &&Value| instance.is_some() && row["name"].as_str() == instance;
    match list.and_then(|list| list.iter().find(is_it)) {
        Some(row) if row["role"] == "primary" => json!({
            "verdict": "in sync",
            "is_ready": true,
            "reason": format!("instance `{}` is primary here", instance.unwrap_or_default()),
            "lost": null,
            "percent": null,
            "seconds_left": null,
        }),
        _ => status["ready"].clone(),
    }
}

fn is_ready(ready: &Value) -> bool {
    ready["is_ready"] == true
}

/// Keeps a file up to date until the program is ended: 0 if this firewall may be primary, else
/// 1. With `weight -100` in `track_file` keepalived then lowers the priority.
///
/// At the end the file is removed, which is 0 to keepalived: nothing is known any more, and the
/// end of this program must not move the addresses.
fn track(config: &Path, wanted: &Ready, file: TrackFile) -> Result<Outcome, Failure> {
    let plain = |e: io::Error| Failure::plain(format!("{}: {e}", file.path.display()));
    let signals = Signals::open().map_err(plain)?;
    let look = || ask(config, wanted).is_ok_and(|ready| is_ready(&ready));
    file.set(look()).map_err(plain)?;
    let mut trouble = None;
    loop {
        let mut awaited = [PollFd::new(&signals, PollFlags::IN)];
        // Whatever else wakes it, it looks again.
        let _ = poll(&mut awaited, Some(&TRACK_PAUSE));
        if signals.next().is_some() {
            break;
        }
        // A full disk may have room again.
        let met = file.set(look()).err().map(|e| plain(e).error);
        if met != trouble
            && let Some(met) = &met
        {
            print::error(format_args!("ftfw ready: {met}"));
        }
        trouble = met;
    }
    file.remove().map_err(plain)?;
    Ok(Outcome::Exit(0))
}

/// The file of keepalived's `track_file`.
struct TrackFile {
    path: PathBuf,
    /// What is written before it takes the place of the file: keepalived may read that at any
    /// time.
    beside: PathBuf,
}

impl TrackFile {
    fn new(path: &Path) -> TrackFile {
        // Several of these programs may run, also for files of one folder.
        let mut beside = OsString::from(path);
        beside.push(format!(".{}.new", process::id()));
        TrackFile {
            path: path.to_owned(),
            beside: beside.into(),
        }
    }

    /// Writes what is to be in it, if that is not there.
    fn set(&self, is_ready: bool) -> io::Result<()> {
        let text = if is_ready { "0\n" } else { "1\n" };
        if fs::read_to_string(&self.path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        fs::write(&self.beside, text)?;
        fs::rename(&self.beside, &self.path)
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// `in sync: REASON`, `catching up (40 %, 3 s left): REASON`, `not: REASON`.
pub(super) fn words(ready: &Value) -> String {
    let word = |key: &str| ready[key].as_str().unwrap_or("?");
    let percent = ready["percent"]
        .as_u64()
        .filter(|_| word("verdict") == "catching up");
    let progress = match (percent, ready["seconds_left"].as_u64()) {
        (Some(percent), Some(secs)) => format!(" ({percent} %, {secs} s left)"),
        (Some(percent), None) => format!(" ({percent} %)"),
        (None, _) => String::new(),
    };
    format!("{}{progress}: {}", word("verdict"), word("reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_for_keepalived_is_written_when_it_differs_and_leaves_nothing() {
        let dir = std::env::temp_dir().join(format!("ftfw-track-{}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        let [one, other] = ["a.x", "a.y"].map(|name| TrackFile::new(&dir.join(name)));
        assert_ne!(one.beside, other.beside);
        let text = |file: &TrackFile| fs::read_to_string(&file.path).unwrap();
        one.set(false).unwrap();
        other.set(true).unwrap();
        assert_eq!((text(&one).as_str(), text(&other).as_str()), ("1\n", "0\n"));
        // Somebody else writes it.
        fs::write(&other.path, "1\n").unwrap();
        other.set(true).unwrap();
        assert_eq!(text(&other), "0\n");
        one.remove().unwrap();
        other.remove().unwrap();
        one.remove().unwrap();
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn an_instance_that_is_primary_here_stays() {
        let status = json!({
            "ready": {"verdict": "not", "is_ready": false, "reason": "why"},
            "instances": [{"name": "A", "role": "primary"}, {"name": "B", "role": "backup"}],
        });
        let of = |name| is_ready(&verdict(&status, name));
        assert!(of(Some("A")));
        assert!(!of(Some("B")) && !of(Some("C")) && !of(None));
    }

    #[test]
    fn a_verdict_is_one_line() {
        let mut ready = json!({
            "verdict": "catching up", "is_ready": false, "reason": "30 of 50", "lost": 30,
            "percent": 40, "seconds_left": 3,
        });
        assert_eq!(words(&ready), "catching up (40 %, 3 s left): 30 of 50");
        ready["seconds_left"] = Value::Null;
        assert_eq!(words(&ready), "catching up (40 %): 30 of 50");
        ready["verdict"] = json!("in sync");
        assert_eq!(words(&ready), "in sync: 30 of 50");
    }
}
