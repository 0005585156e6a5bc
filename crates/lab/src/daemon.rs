//! The daemon under test on one firewall: configuration, start, commands, end.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use rustix::process::{Pid, Signal, kill_process};

use crate::node::{Node, Process};
use crate::wait;

/// Which program replicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No program: the control experiment.
    None,
    /// Debian's.
    Conntrackd,
    /// Ours.
    Ftfw,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::None => "none",
            Kind::Conntrackd => "conntrackd",
            Kind::Ftfw => "ftfw",
        })
    }
}

/// Replication protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Best effort.
    Notrack,
    /// Periodic repetition.
    Alarm,
    /// Acknowledged and repeated.
    Ftfw,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Notrack => "NOTRACK",
            Mode::Alarm => "ALARM",
            Mode::Ftfw => "FTFW",
        })
    }
}

/// How the replicas reach each other over the dedicated link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// UDP over IPv4.
    #[default]
    Udp,
    /// UDP over IPv6.
    Udp6,
    /// Multicast over IPv4.
    Multicast,
    /// Multicast over IPv6.
    Multicast6,
    /// UDP over IPv4 through a relay, see [`crate::relay`].
    Relayed,
    /// TCP over IPv4.
    Tcp,
    /// TCP over IPv6.
    Tcp6,
    /// Blocks of the configuration, with `OWN` and `PEER` for the numbers of the firewalls.
    Blocks(&'static str),
}

const OWN_TRAFFIC: &str = "Address Ignore {
        IPv4_address 127.0.0.1
        IPv4_address 10.77.9.0/24
        IPv4_address 10.77.8.0/24
        IPv4_address 225.0.0.50
        IPv6_address ::1
        IPv6_address fd77:9::/64
        IPv6_address fd77:8::/64
        IPv6_address fe80::/10
    }";

/// Buckets, unless there are more flows.
const HASH_SIZE: u32 = 32_768;

/// The settings that tests vary.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Replication protocol.
    pub mode: Mode,
    /// Transport of the dedicated link.
    pub transport: Transport,
    /// Lines inside the mode's block, e.g. `DisableExternalCache on`.
    pub mode_lines: String,
    /// Lines inside General.
    pub general_lines: String,
    /// Lines inside Sync.
    pub sync_lines: String,
    /// Lines inside the filter.
    pub filter_lines: String,
    /// The filter leaves out what the firewalls themselves send on loopback and the links.
    pub ignores_own_traffic: bool,
    /// Buckets of the original's hash tables.
    pub hash_size: u32,
    /// What stands in place of the section Sync; `DIR` is the daemon's folder.
    pub instead_of_sync: Option<String>,
    /// Our program, if not the one built beside the laboratory's.
    pub program: Option<PathBuf>,
}

impl Settings {
    /// The settings of the demonstration.
    pub fn new(mode: Mode) -> Settings {
        Settings {
            mode,
            transport: Transport::Udp,
            mode_lines: match mode {
                // Repetition is the only repair ALARM has: keep it short in a short run.
                Mode::Alarm => "RefreshTime 5\nCacheTimeout 60".to_owned(),
                Mode::Notrack | Mode::Ftfw => String::new(),
            },
            general_lines: String::new(),
            sync_lines: String::new(),
            filter_lines: String::new(),
            ignores_own_traffic: true,
            hash_size: HASH_SIZE,
            instead_of_sync: None,
            program: None,
        }
    }

    /// The same with hash tables for as many flows: short chains, as an operator would have them.
    pub fn for_flows(self, flows: u32) -> Settings {
        let hash_size = self.hash_size.max(flows);
        Settings { hash_size, ..self }
    }

    /// The configuration file of firewall `n` (0 or 1), in the original's language.
    fn text(&self, n: usize, dir: &Path) -> String {
        let (own, peer) = (n + 1, 2 - n);
        let unicast = |kind: &str, ip: &str, net: &str| {
            format!(
                "{kind} {{ {ip}_address {net}{own}\n{ip}_Destination_Address {net}{peer}\nPort 3780"
            )
        };
        let link = match self.transport {
            Transport::Blocks(text) => {
                let numbered = text.replace("OWN", &own.to_string());
                numbered.replace("PEER", &peer.to_string())
            }
            Transport::Tcp => unicast("TCP", "IPv4", "10.77.9."),
            Transport::Tcp6 => unicast("TCP", "IPv6", "fd77:9::"),
            Transport::Udp => unicast("UDP", "IPv4", "10.77.9."),
            Transport::Udp6 => unicast("UDP", "IPv6", "fd77:9::"),
            Transport::Multicast => format!(
                "Multicast {{ IPv4_address 225.0.0.50\nIPv4_interface 10.77.9.{own}\nGroup 3780"
            ),
            Transport::Relayed => format!(
                "UDP {{ IPv4_address 10.77.9.{own}\nIPv4_Destination_Address {}\nPort {}",
                crate::relay::address(n),
                crate::relay::PORT
            ),
            Transport::Multicast6 => "Multicast { IPv6_address ff02::50\nGroup 3780".to_owned(),
        };
        // Forced buffer sizes need the real root; without, the original does not start.
        let buffers = if crate::world::is_privileged() {
            "SndSocketBuffer 8388608\nRcvSocketBuffer 8388608"
        } else {
            ""
        };
        let link = match self.transport {
            Transport::Blocks(_) => link,
            _ => format!("{link}\nInterface eth2\n{buffers}\nChecksum on\n}}"),
        };
        let dir = dir.display();
        let sync = format!(
            "Sync {{
Mode {mode} {{
{mode_lines}
}}
{link}
{sync}
}}
",
            mode = self.mode,
            mode_lines = self.mode_lines,
            sync = self.sync_lines,
        );
        let section = match &self.instead_of_sync {
            Some(text) => text.replace("DIR", &dir.to_string()),
            None => sync,
        };
        format!(
            "General {{
HashSize {hash_size}
HashLimit 1048576
LogFile {dir}/log
LockFile {dir}/lock
UNIX {{
    Path {dir}/control
}}
NetlinkBufferSize 8388608
NetlinkBufferSizeMaxGrowth 67108864
{general}
Filter From Userspace {{
    {own_traffic}
    {filter}
}}
}}
{section}
",
            hash_size = self.hash_size,
            general = self.general_lines,
            own_traffic = if self.ignores_own_traffic {
                OWN_TRAFFIC
            } else {
                ""
            },
            filter = self.filter_lines,
        )
    }
}

static KILLED_BY_SYSTEM_CALLS: AtomicBool = AtomicBool::new(false);

/// From now on our daemons are started so that a system call kills them that their filter lacks.
/// The original does not know the word for that, so it stands in no file that both read.
pub fn kill_by_system_calls() {
    KILLED_BY_SYSTEM_CALLS.store(true, Ordering::Relaxed);
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    kind: Kind,
    program: PathBuf,
    node: Node,
    dir: PathBuf,
    config: PathBuf,
    process: Process,
}

impl Daemon {
    /// Writes the configuration file of firewall `n` into a folder of its own; yields its path.
    pub fn configure(
        node: &Node,
        n: usize,
        settings: &Settings,
        world_dir: &Path,
    ) -> Result<PathBuf> {
        let dir = world_dir.join(node.name());
        fs::create_dir_all(&dir)?;
        let config = dir.join("conf");
        fs::write(&config, settings.text(n, &dir))?;
        Ok(config)
    }

    /// Starts a daemon on firewall `n` and waits until it answers; `None` for [`Kind::None`].
    pub fn start(
        kind: Kind,
        node: &Node,
        n: usize,
        settings: &Settings,
        world_dir: &Path,
    ) -> Result<Option<Daemon>> {
        if kind == Kind::None {
            return Ok(None);
        }
        let config = Daemon::configure(node, n, settings, world_dir)?;
        let is_ours = kind == Kind::Ftfw && settings.program.is_none();
        if is_ours && KILLED_BY_SYSTEM_CALLS.load(Ordering::Relaxed) {
            let mut file = fs::OpenOptions::new().append(true).open(&config)?;
            file.write_all(b"General { Sandbox { SystemCalls Kill } }\n")?;
        }
        let dir = world_dir.join(node.name());
        if kind == Kind::Conntrackd {
            // A dead daemon's lock stops the original.
            let _ = fs::remove_file(dir.join("lock"));
        }
        let console = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("console"))?;
        let program = match (kind, &settings.program) {
            (Kind::Ftfw, Some(path)) => path.clone(),
            _ => program(kind)?,
        };
        let mut command = node.command(&program);
        if kind == Kind::Ftfw {
            command.arg("conntrackd");
        }
        command
            .arg("-C")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(console.try_clone()?)
            .stdout(console);
        let mut daemon = Daemon {
            kind,
            program,
            node: node.clone(),
            dir,
            config,
            process: Process(command.spawn().context("start the daemon")?),
        };
        let answers = wait::until("the daemon answers", Duration::from_secs(10), || {
            daemon.process.0.try_wait().is_ok_and(|s| s.is_some())
                || daemon.output(&["-s"]).is_ok_and(|o| o.status.success())
        });
        if answers.is_err() || daemon.process.0.try_wait()?.is_some() {
            bail!("{kind} on {}: {}", node.name(), daemon.console());
        }
        Ok(Some(daemon))
    }

    /// Which program this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Path of its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Folder with its configuration, log, lock and control socket.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it wrote to its console.
    pub fn console(&self) -> String {
        fs::read_to_string(self.dir.join("console")).unwrap_or_default()
    }

    /// What it wrote to its log file.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The client with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut c = self.node.command(&self.program);
        if self.kind == Kind::Ftfw {
            c.arg("conntrackd");
        }
        c.arg("-C").arg(&self.config).args(arguments);
        Ok(c)
    }

    /// Runs it to its end.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments)?.output()?)
    }

    /// Our own command line, about this daemon.
    pub fn own_command(&self, arguments: &[&str]) -> Result<Command> {
        let program = match self.kind {
            Kind::Ftfw => self.program.clone(),
            _ => program(Kind::Ftfw)?,
        };
        let mut c = self.node.command(program);
        c.arg("-C").arg(&self.config).args(arguments);
        Ok(c)
    }

    /// Runs it, which must succeed, and returns what it printed.
    pub fn own(&self, arguments: &[&str]) -> Result<String> {
        let out = self.own_command(arguments)?.output()?;
        // `status` answers also if it is not safe to fail over.
        let is_answered = arguments[0] == "status" && out.status.code() == Some(4);
        if !out.status.success() && !is_answered {
            bail!(
                "ftfw {arguments:?}: {}: {}",
                out.status,
                String::from_utf8_lossy(&out.stderr)
            );
        }
        Ok(String::from_utf8(out.stdout)?)
    }

    /// Runs the client, which must succeed, and returns what it printed.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let out = self.output(arguments)?;
        if !out.status.success() {
            bail!(
                "{} {arguments:?}: {}: {}",
                self.kind,
                out.status,
                String::from_utf8_lossy(&out.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Lines of the external cache that contain `pattern`.
    pub fn external(&self, pattern: &str) -> Result<Vec<String>> {
        self.dump("-e", pattern)
    }

    /// Lines of the internal cache that contain `pattern`.
    pub fn internal(&self, pattern: &str) -> Result<Vec<String>> {
        self.dump("-i", pattern)
    }

    fn dump(&self, which: &str, pattern: &str) -> Result<Vec<String>> {
        let text = self.ask(&[which])?;
        let lines = text.lines().filter(|l| l.contains(pattern));
        Ok(lines.map(str::to_owned).collect())
    }

    /// What the original's failover script does for a new primary.
    pub fn become_primary(&self) -> Result<()> {
        for action in ["-c", "-f", "-R", "-B"] {
            self.ask(&[action])?;
        }
        Ok(())
    }

    /// What it does for a new backup.
    pub fn become_backup(&self) -> Result<()> {
        for action in ["-t", "-n"] {
            self.ask(&[action])?;
        }
        Ok(())
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.process
            .0
            .try_wait()
            .is_ok_and(|status| status.is_none())
    }

    /// Changes a limit of the running daemon, as prlimit takes it, e.g. `--nofile=20`.
    pub fn limit(&self, what: &str) -> Result<()> {
        let mut prlimit = Command::new("prlimit");
        let pid = format!("--pid={}", self.pid());
        let status = prlimit.arg(pid).arg(what).status()?;
        ensure!(status.success(), "prlimit {what}: {status}");
        Ok(())
    }

    /// Leaves the running daemon so many bytes of address space beyond what it has, until
    /// `limit("--as=unlimited:")`.
    pub fn limit_memory(&self, free: u64) -> Result<()> {
        self.limit(&format!("--as={}:", self.memory(0)? + free))
    }

    /// The limit of open files that leaves it `free` descriptors. Some that it has inherited may
    /// have numbers beyond it.
    pub fn descriptors(&self, free: usize) -> Result<usize> {
        let mut used = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid()))? {
            used.push(entry?.file_name().to_string_lossy().parse::<usize>()?);
        }
        let last = (0..).filter(|n| !used.contains(n)).nth(free - 1);
        Ok(last.context("a number")? + 1)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid().cast_signed()).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it with `-k` and waits for its exit status.
    pub fn stop(self) -> Result<ExitStatus> {
        self.ask(&["-k"])?;
        self.wait()
    }

    /// Ends it with a signal and waits for its exit status.
    pub fn end(self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait()
    }

    fn wait(mut self) -> Result<ExitStatus> {
        let mut status = None;
        wait::until("the daemon stops", Duration::from_secs(5), || {
            status = self.process.0.try_wait().unwrap_or(None);
            status.is_some()
        })?;
        status.context("no status")
    }

    /// CPU time that it has used, all threads, in nanoseconds.
    pub fn cpu_ns(&self) -> Result<u64> {
        let mut total = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let ns = text.split_whitespace().next().context("schedstat")?;
            total += ns.parse::<u64>()?;
        }
        Ok(total)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.memory(1)
    }

    /// Word `which` of its `statm`, in bytes: 0 is its address space, 1 what is resident.
    fn memory(&self, which: usize) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/statm", self.pid()))?;
        let pages = text.split_whitespace().nth(which).context("statm")?;
        Ok(pages.parse::<u64>()? * rustix::param::page_size() as u64)
    }
}

impl Daemon {
    /// Path of our program.
    pub fn program() -> Result<PathBuf> {
        program(Kind::Ftfw)
    }
}

/// Path of a daemon's program. Ours is the release build of this tree, or the one beside this
/// program.
pub(crate) fn program(kind: Kind) -> Result<PathBuf> {
    if kind != Kind::Ftfw {
        return Ok("conntrackd".into());
    }
    let own = std::env::current_exe()?;
    let above = |name: &str| {
        let mut paths = own.ancestors().skip(1).map(|dir| dir.join(name));
        paths.find(|path| path.is_file())
    };
    let found = above("release/ftfw").or_else(|| above("ftfw"));
    found.context("no release build of ftfw, nor one beside this program: `cargo build --release`")
}
