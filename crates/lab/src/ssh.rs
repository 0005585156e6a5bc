//! A real SSH session from A to B that prints a counter, and what was seen of it.
//!
//! Where the system does not let sshd run (some user namespaces), a plain TCP
//! server that prints the same counter stands in, and the caller names it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::node::{Node, Process};
use crate::topology::SERVER;
use crate::wait;

/// Interval at which the session prints.
pub const TICK: Duration = Duration::from_millis(20);
const COUNTER_PORT: u16 = 2323;
/// Above 1023, which a server in a nested user namespace may not take.
const SSH_PORT: u16 = 2222;

/// What has been printed so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// The last number.
    pub last: u64,
    /// When it came.
    pub at: Option<Instant>,
    /// Longest time between two numbers.
    pub longest_gap: Duration,
    /// A number was missing or came twice.
    pub out_of_order: bool,
}

/// A session that prints 1, 2, 3 and so on.
#[derive(Debug)]
pub struct Session {
    seen: Arc<Mutex<Seen>>,
    real: bool,
    _processes: Vec<Process>,
}

impl Session {
    /// Starts sshd on B and a session from A.
    pub fn start(a: &Node, b: &Node, dir: &Path) -> Result<Session> {
        match Session::start_ssh(a, b, dir) {
            Ok(session) => Ok(session),
            Err(e) => {
                ensure!(
                    !crate::world::is_privileged(),
                    e.context("sshd must run for root")
                );
                Session::start_stand_in(a, b)
            }
        }
    }

    /// False if the stand-in is used.
    pub fn is_real_ssh(&self) -> bool {
        self.real
    }

    fn start_ssh(a: &Node, b: &Node, dir: &Path) -> Result<Session> {
        let dir = dir.join("ssh");
        fs::create_dir_all(&dir)?;
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.join(key))
                .status()?;
            ensure!(made.success(), "ssh-keygen");
        }
        let d = dir.display();
        fs::write(
            dir.join("sshd_config"),
            format!(
                "Port {SSH_PORT}\nHostKey {d}/host\nAuthorizedKeysFile {d}/user.pub\nStrictModes no\nUsePAM no\n\
                 PermitRootLogin yes\nPasswordAuthentication no\nPidFile none\n\
                 ClientAliveInterval 0\nPrintMotd no\nPrintLastLog no\n"
            ),
        )?;
        // For root the server runs as it does everywhere. In a user namespace with
        // one user it cannot change groups, unless it is not root there: then it
        // only serves the user that it runs as, who needs a shell.
        let (mut server, user) = match crate::world::user_id() {
            None => (b.command("/usr/sbin/sshd"), "root".to_owned()),
            Some(uid) => {
                let name = Command::new("id").args(["-un", &uid]).output()?.stdout;
                let mut c = b.command("unshare");
                c.args(["-U", &format!("--map-user={uid}"), "/usr/sbin/sshd"]);
                (c, String::from_utf8_lossy(&name).trim().to_owned())
            }
        };
        server
            .args(["-D", "-e", "-f"])
            .arg(dir.join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("sshd.log"))?);
        let mut processes = vec![Process(server.spawn().context("start sshd")?)];

        wait::until("sshd listens", Duration::from_secs(5), || {
            b.inside(|| TcpStream::connect((SERVER, SSH_PORT)).is_ok())
                .unwrap_or(false)
        })
        .with_context(|| fs::read_to_string(dir.join("sshd.log")).unwrap_or_default())?;

        let script = format!(
            "i=0; while :; do i=$((i+1)); echo $i; sleep {}; done",
            TICK.as_secs_f32()
        );
        let mut client = a.command("ssh");
        client
            .args(["-p", &SSH_PORT.to_string()])
            .args([
                "-F",
                "none",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "BatchMode=yes",
            ])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
            .args(["-o", "ConnectionAttempts=20", "-i"])
            .arg(dir.join("user"))
            .arg(format!("{user}@{SERVER}"))
            .arg(script)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(dir.join("ssh.log"))?);
        let mut client = client.spawn().context("start ssh")?;
        let out = client.stdout.take().context("standard output of ssh")?;
        processes.push(Process(client));
        let session = Session {
            seen: Arc::default(),
            real: true,
            _processes: processes,
        };
        session.read_counter(out);
        let came = session.wait_for_first();
        came.with_context(|| fs::read_to_string(dir.join("sshd.log")).unwrap_or_default())?;
        Ok(session)
    }

    fn start_stand_in(a: &Node, b: &Node) -> Result<Session> {
        let listener = b.inside(|| TcpListener::bind((SERVER, COUNTER_PORT)))??;
        thread::spawn(move || {
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            for n in 1.. {
                if writeln!(stream, "{n}").is_err() {
                    return;
                }
                thread::sleep(TICK);
            }
        });
        let stream = a.inside(|| TcpStream::connect((SERVER, COUNTER_PORT)))??;
        let session = Session {
            seen: Arc::default(),
            real: false,
            _processes: Vec::new(),
        };
        session.read_counter(stream);
        session.wait_for_first()?;
        Ok(session)
    }

    fn read_counter(&self, from: impl Read + Send + 'static) {
        let seen = Arc::clone(&self.seen);
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let now = Instant::now();
                let mut seen = seen.lock().expect("nobody panics with it");
                let number = line.trim().parse().unwrap_or(0);
                if number != seen.last + 1 {
                    seen.out_of_order = true;
                }
                if let Some(before) = seen.at {
                    seen.longest_gap = seen.longest_gap.max(now - before);
                }
                seen.last = number;
                seen.at = Some(now);
            }
        });
    }

    fn wait_for_first(&self) -> Result<()> {
        wait::until("the session prints", Duration::from_secs(10), || {
            self.last() > 0
        })
    }

    /// The last number printed.
    pub fn last(&self) -> u64 {
        self.with(|s| s.last)
    }

    /// Looks at what was seen.
    pub fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().expect("nobody panics with it"))
    }
}
