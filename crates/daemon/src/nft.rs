//! `nft`, run by a process of its own that knows two texts.
//!
//! A daemon in its sandbox starts no program. This process is started before; it is asked
//! for a text by a byte, gives it to `nft`, and answers with a line. It ends with the daemon,
//! whose end of the socket is then closed.

use std::env;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use config::gate::TABLE;
use sys::signal::Signals;

/// The only argument of the process.
const ARGUMENT: &str = "run-nft";
const DONE: &str = "done";
/// How long `nft` may take: it needs some milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(1);

/// What `nft` is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// The table of the gate, in place of what there is.
    Rules,
    /// The end of this table.
    Delete,
}

impl Text {
    const ALL: [Text; 2] = [Text::Rules, Text::Delete];

    fn to_byte(self) -> u8 {
        match self {
            Text::Rules => b'r',
            Text::Delete => b'd',
        }
    }

    fn from_byte(byte: u8) -> Option<Text> {
        Text::ALL.into_iter().find(|text| text.to_byte() == byte)
    }

    fn text(self) -> String {
        match self {
            Text::Rules => config::gate::rules(),
            Text::Delete => format!("delete table inet {TABLE}\n"),
        }
    }
}

/// The daemon's end. The process ends when this is dropped, because nobody can ask it any more.
#[derive(Debug)]
pub(crate) struct Nft {
    socket: Option<BufReader<UnixStream>>,
    /// The answer to what was asked last, as far as it has come; `None` if nothing is owed.
    answer: Option<String>,
}

impl Nft {
    /// Starts the process: this program again.
    pub(crate) fn start() -> Result<Nft> {
        let (ours, theirs) = UnixStream::pair()?;
        Command::new("/proc/self/exe")
            .arg0("ftfw")
            .arg(ARGUMENT)
            .current_dir("/")
            // What a terminal sends to the daemon is not for it.
            .process_group(0)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Nft {
            socket: Some(BufReader::new(ours)),
            answer: None,
        })
    }

    /// Has `nft` read a text, and waits for its end for at most `patience`; above zero.
    ///
    /// While it has not ended it is not asked for another text: its answer is waited for once
    /// more, and is the answer to this.
    ///
    /// # Errors
    /// What `nft` says, why it cannot be run, or that it has not ended yet.
    pub(crate) fn run(&mut self, text: Text, patience: Duration) -> Result<()> {
        match self.ask(text, patience) {
            Ok(answer) if answer == DONE => Ok(()),
            Ok(answer) if !answer.is_empty() => bail!("{answer}"),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => bail!("nft has not ended yet"),
            _ => {
                (self.socket, self.answer) = (None, None);
                bail!("the process that runs nft has ended: start the daemon again")
            }
        }
    }

    /// True while the end of `nft` is not known.
    pub(crate) fn is_running(&self) -> bool {
        self.answer.is_some()
    }

    /// A line; an empty one if the process has ended.
    fn ask(&mut self, text: Text, patience: Duration) -> io::Result<String> {
        let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let answer = match &mut self.answer {
            Some(answer) => answer,
            None => {
                socket.get_mut().write_all(&[text.to_byte()])?;
                self.answer.insert(String::new())
            }
        };
        socket.get_ref().set_read_timeout(Some(patience))?;
        socket.read_line(answer)?;
        let answer = self.answer.take().unwrap_or_default();
        Ok(answer.trim_end().to_owned())
    }
}

/// True if this process is to run `nft` for a daemon: it was started by [`crate::run()`].
pub fn is_meant(arguments: &[String]) -> bool {
    matches!(arguments, [_, argument] if argument == ARGUMENT)
}

/// Runs `nft` for the daemon that has started this process, until that ends.
///
/// # Errors
/// Standard input is no socket of such a daemon.
pub fn serve() -> Result<()> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let mut socket = UnixStream::from(socket);
    ensure!(
        socket.peer_addr().is_ok(),
        "`{ARGUMENT}` is what the daemon calls"
    );
    // A service manager may tell all processes to end: the daemon has the table deleted first.
    let _signals = Signals::open()?;
    // What the daemon was told in its environment is not for `nft`.
    let path = env::var_os("PATH");
    let mut byte = [0];
    while socket.read(&mut byte)? > 0 {
        let answer = match Text::from_byte(byte[0]) {
            Some(text) => run(&text.text(), path.as_deref(), PATIENCE),
            None => Err(anyhow::anyhow!("no such text")),
        };
        let answer = answer.map_or_else(|e| format!("{e:#}"), |()| DONE.to_owned());
        writeln!(socket, "{answer}")?;
    }
    Ok(())
}

/// Gives `nft`, found along `path`, a text; it is killed if it takes longer than `patience`.
fn run(text: &str, path: Option<&OsStr>, patience: Duration) -> Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).env_clear();
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("nft (Debian's package `nftables`)")?;
    if let Some(mut input) = child.stdin.take() {
        // If `nft` does not read, it says why.
        let _ = input.write_all(text.as_bytes());
    }
    if !has_ended(&mut child, patience)? {
        child.kill()?;
        child.wait()?;
        bail!("nft has not ended within {patience:?}");
    }
    let output = child.wait_with_output().context("nft")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("nft: {}", words.lines().next().unwrap_or("failed"));
    }
    Ok(())
}

fn has_ended(child: &mut Child, patience: Duration) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        let ended = child.try_wait()?.is_some();
        if ended || begun.elapsed() >= patience {
            return Ok(ended);
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn each_text_has_a_byte() {
        for text in Text::ALL {
            assert_eq!(Text::from_byte(text.to_byte()), Some(text));
        }
        assert_eq!(Text::from_byte(b'x'), None);
    }

    #[test]
    fn what_nft_does_is_the_answer() {
        let folder = env::temp_dir().join(format!("ftfw-nft-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let answer = |script: &str| {
            let nft = folder.join("nft");
            // Another one each time: what runs cannot be written.
            let _ = fs::remove_file(&nft);
            fs::write(&nft, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&nft, Permissions::from_mode(0o700)).unwrap();
            let patience = match script.contains("sleep") {
                true => Duration::from_millis(50),
                false => PATIENCE,
            };
            let done = run("flush ruleset\n", Some(folder.as_os_str()), patience);
            done.map_err(|e| e.to_string())
        };
        let reads = "read -r line && [ \"$line\" = 'flush ruleset' ]";
        assert_eq!(answer(reads), Ok(()));
        let refuses = "echo 'no such table' >&2; exit 1";
        assert_eq!(answer(refuses), Err("nft: no such table".to_owned()));
        let hangs = "exec /bin/sleep 100";
        assert_eq!(
            answer(hangs),
            Err("nft has not ended within 50ms".to_owned())
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
