//! `ftfw ready`: may this firewall be primary? For people, and for keepalived's `track_script`
//! and `track_file`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::arguments::{Form, Ready};
use super::client::Failure;
use super::{FAILED, ask_status};
use crate::{Outcome, print};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// The same for a file that is kept up to date.
const TRACK_PAUSE: Duration = Duration::from_secs(1);

/// Prints the verdict, once it is good or the time is over.
pub(super) fn run(config: &Path, wanted: &Ready) -> Result<Outcome, Failure> {
    if let Some(file) = &wanted.track_file {
        track(config, file)?;
    }
    let until = Instant::now() + Duration::from_secs(wanted.wait.unwrap_or(0));
    loop {
        let answer = ask_status(config);
        let is_over = Instant::now() >= until;
        match answer {
            Ok(status) if is_over || is_ready(&status) => {
                let ready = &status["ready"];
                match wanted.form.output {
                    Form::Text => print::out(format_args!("{}\n", words(ready))),
                    Form::Json => print::out(format_args!("{ready}\n")),
                }
                let status = if is_ready(&status) { 0 } else { FAILED };
                return Ok(Outcome::Exit(status));
            }
            Err(failure) if is_over => return Err(failure),
            _ => thread::sleep(PAUSE),
        }
    }
}

fn is_ready(status: &Value) -> bool {
    status["ready"]["is_ready"] == true
}

/// Keeps a file up to date until the program is ended: 0 if this firewall may be primary, else
/// 1. With `weight -100` in `vrrp_track_file` keepalived then lowers the priority.
fn track(config: &Path, file: &Path) -> Result<(), Failure> {
    let mut before = None;
    loop {
        let is_ready = ask_status(config).is_ok_and(|status| is_ready(&status));
        if before != Some(is_ready) {
            // The file is replaced as a whole: keepalived may read it at any time.
            let text = if is_ready { "0\n" } else { "1\n" };
            let beside = file.with_extension("new");
            let written = fs::File::create(&beside).and_then(|mut f| f.write_all(text.as_bytes()));
            written
                .and_then(|()| fs::rename(&beside, file))
                .map_err(|e| Failure::plain(format!("{}: {e}", file.display())))?;
            before = Some(is_ready);
        }
        thread::sleep(TRACK_PAUSE);
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
    use serde_json::json;

    use super::*;

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
