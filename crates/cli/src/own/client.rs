//! One call and its answer (`control::call`).

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use control::call::{CODE, Call, Head, Outcome, PROTOCOL, Tail, Task};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::load::load;
use crate::remains;

/// What the agent for Pacemaker tells a daemon by that lives and does not answer.
const HOLDS_LOCK: &str = "a daemon holds the lock: it starts or ends; if not, look at its log";

/// Why a command was not done, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) error: String,
    pub(crate) help: Option<String>,
    /// Exit status.
    pub(crate) status: u8,
}

impl Failure {
    pub(crate) fn plain(error: impl Into<String>) -> Failure {
        Failure {
            error: error.into(),
            help: None,
            status: super::FAILED,
        }
    }

    /// The arguments are wrong.
    pub(crate) fn usage(error: impl Into<String>) -> Failure {
        Failure {
            status: super::USAGE,
            ..Failure::plain(error)
        }
    }

    fn with_help(error: String, help: &str) -> Failure {
        Failure {
            help: Some(help.to_owned()),
            ..Failure::plain(error)
        }
    }
}

/// Sends a call to the daemon of a configuration, and each row of the answer to `see`,
/// until that returns false. `None` if the answer was not read to its end.
pub(crate) fn ask(
    config: &Path,
    call: &Call,
    see: impl FnMut(&str) -> bool,
) -> Result<Option<Tail>, Failure> {
    ask_within(None, config, call, see)
}

/// The same, of a daemon that may hang: it is waited for at most for `limit` when it takes the
/// connection, the call and each part of the answer.
pub(crate) fn ask_within(
    limit: Option<Duration>,
    config: &Path,
    call: &Call,
    see: impl FnMut(&str) -> bool,
) -> Result<Option<Tail>, Failure> {
    let loaded = load(config)
        .map_err(|text| Failure::with_help(text, "-C FILE names another configuration file"))?;
    let path = loaded.config.control_path.ok_or_else(|| {
        Failure::with_help(
            format!("{}: no `UNIX {{ Path }}` in General", config.display()),
            "without it the daemon cannot be reached",
        )
    })?;
    let mut stream = connect_within(limit, &path).map_err(|e| {
        if e.kind() == io::ErrorKind::WouldBlock {
            return hangs();
        }
        let help = match e.kind() {
            std::io::ErrorKind::PermissionDenied => "be root",
            _ if remains::is_locked(&loaded.config.lock_file) => HOLDS_LOCK,
            _ => "is it running? `ftfw run` starts it, its log says why it ended",
        };
        let mut error = format!("no daemon at {}: {e}", path.display());
        if call.task == Task::Stop {
            error.extend(remains::note(&loaded.config.lock_file, &path, &e));
        }
        Failure::with_help(error, help)
    })?;
    let mut request = CODE.to_ne_bytes().to_vec();
    let line = serde_json::to_string(call).map_err(|e| Failure::plain(e.to_string()))?;
    request.extend_from_slice(line.as_bytes());
    request.push(b'\n');
    stream.write_all(&request).map_err(cut)?;
    read_answer(BufReader::new(stream), &call.task, see)
}

/// Connects; a limit also holds for what is sent and received then.
fn connect_within(limit: Option<Duration>, path: &Path) -> io::Result<UnixStream> {
    let kind = SocketType::STREAM;
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    // A daemon that accepts nothing makes connecting wait, too, for as long as sending.
    for timeout in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&socket, timeout, limit)?;
    }
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

fn hangs() -> Failure {
    Failure::with_help(
        "the daemon does not answer".to_owned(),
        "it hangs, or waits for the CPU; its log may say why",
    )
}

fn cut(e: io::Error) -> Failure {
    match e.kind() {
        io::ErrorKind::WouldBlock => hangs(),
        _ => Failure::plain(format!("the daemon: {e}")),
    }
}

fn read_answer(
    mut answer: impl BufRead,
    task: &Task,
    mut see: impl FnMut(&str) -> bool,
) -> Result<Option<Tail>, Failure> {
    let mut next = || -> Result<Option<String>, Failure> {
        let mut line = String::new();
        let read = answer.read_line(&mut line);
        match read.map_err(cut)? {
            0 => Ok(None),
            _ => Ok(Some(line.trim_end_matches('\n').to_owned())),
        }
    };
    let unreadable = |line: &str| {
        Failure::with_help(
            format!("unreadable answer: {line}"),
            "is the daemon of the same version?",
        )
    };
    let line = match next() {
        Ok(Some(line)) => line,
        Err(failure) if failure == hangs() => return Err(failure),
        // Another daemon hangs up on a code that it does not know.
        _ => {
            return Err(Failure::with_help(
                "the daemon does not speak ftfw's protocol".to_owned(),
                "is it conntrackd? Then use `ftfw conntrackd` with conntrackd's arguments",
            ));
        }
    };
    let head: Head = serde_json::from_str(&line).map_err(|_| unreadable(&line))?;
    if head.status == Outcome::Error || head.protocol != PROTOCOL {
        return Err(Failure {
            error: head
                .error
                .unwrap_or_else(|| format!("the daemon is ftfw {}", head.version)),
            help: head.help,
            status: super::FAILED,
        });
    }
    loop {
        match next()? {
            Some(line) if line.is_empty() => break,
            Some(line) => {
                if !see(&line) {
                    return Ok(None);
                }
            }
            None if matches!(task, Task::Events { .. }) => {
                return Err(Failure::plain("the daemon has ended"));
            }
            None => {
                return Err(Failure::with_help(
                    "the answer breaks off".to_owned(),
                    "has the daemon ended? Its log says why",
                ));
            }
        }
    }
    let line = next()?.unwrap_or_default();
    let tail: Tail = serde_json::from_str(&line).map_err(|_| unreadable(&line))?;
    if tail.status == Outcome::Error {
        return Err(Failure {
            error: tail.error.unwrap_or_default(),
            help: tail.help,
            status: super::FAILED,
        });
    }
    Ok(Some(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &str) -> Result<(Vec<String>, Option<Tail>), Failure> {
        let mut rows = Vec::new();
        let tail = read_answer(answer.as_bytes(), &Task::Bulk, |row| {
            rows.push(row.to_owned());
            true
        })?;
        Ok((rows, tail))
    }

    const HEAD: &str = r#"{"protocol":2,"version":"0.1.0","status":"ok"}"#;

    #[test]
    fn rows_come_between_head_and_tail() {
        let tail = r#"{"status":"ok","rows":2}"#;
        let (rows, end) = read(&format!("{HEAD}\na\nb\n\n{tail}\n")).unwrap();
        assert_eq!(rows, ["a", "b"]);
        assert_eq!(end, Some(Tail::ok(2)));
    }

    #[test]
    fn whatever_is_wrong_is_said_with_what_to_do() {
        let error = |answer: &str| read(answer).unwrap_err();
        assert!(error("").help.unwrap().contains("conntrackd"));
        assert!(error("hello\n").error.contains("unreadable"));
        let breaks = format!("{HEAD}\nrow\n");
        assert!(error(&breaks).error.contains("breaks off"));
        let refused = r#"{"protocol":2,"version":"1","status":"error","error":"no","help":"do"}"#;
        let refused = error(&format!("{refused}\n"));
        assert_eq!(
            (refused.error.as_str(), refused.help.as_deref()),
            ("no", Some("do"))
        );
        let late = r#"{"status":"error","rows":0,"error":"late"}"#;
        assert_eq!(error(&format!("{HEAD}\n\n{late}\n")).error, "late");
    }
}
