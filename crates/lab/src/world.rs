//! Enters the namespaces in which a run lives, and prepares them.
//!
//! The program starts itself again below `unshare` with a mount, PID and network
//! namespace (and, for an unprivileged user, a user namespace). The run is PID 1
//! there: when it ends, for whatever reason, the kernel ends every process of the
//! run, and with them the namespaces, interfaces and the private `/run`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, getrlimit, setrlimit};

const INSIDE: &str = "FTFW_LAB_INSIDE";
const PRIVILEGED: &str = "FTFW_LAB_PRIVILEGED";
const USER: &str = "FTFW_LAB_USER";

/// True in the process that runs inside its own namespaces.
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// True if the run was started by root, rather than in a user namespace.
pub fn is_privileged() -> bool {
    env::var_os(PRIVILEGED).is_some()
}

/// User id of the unprivileged user who started the run.
pub fn user_id() -> Option<String> {
    env::var(USER).ok()
}

/// A command line that begins with new namespaces and ends with what runs in them.
///
/// If this program is killed, so is `unshare`, and with it everything below.
fn unshare() -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--net",
    ]);
    command.args(["--fork", "--kill-child", "--mount-proc"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
}

/// The command that starts this program again, with `args`, in namespaces of its own.
///
/// # Errors
/// If the path of this program cannot be found out.
pub fn command(args: impl IntoIterator<Item = OsString>) -> Result<Command> {
    let program = env::current_exe().context("path of this program")?;
    let mut command = unshare();
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        command.env(PRIVILEGED, "1");
    } else {
        command.env(USER, uid.as_raw().to_string());
    }
    let path = env::var("PATH").unwrap_or_default();
    command
        .arg("--")
        .arg(program)
        .args(args)
        .env(INSIDE, "1")
        .env("PATH", format!("{path}:/usr/sbin:/sbin"));
    Ok(command)
}

/// Why no run is possible here, or `None`. Starts one namespace to find out.
pub fn unavailable() -> Option<String> {
    let mut probe = unshare();
    probe.args(["cat", "/proc/sys/net/netfilter/nf_conntrack_max"]);
    probe.stdout(Stdio::null());
    match probe.output() {
        Ok(out) if out.status.success() => None,
        Ok(out) => Some(format!(
            "no namespaces with connection tracking here: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        )),
        Err(e) => Some(format!("setpriv, unshare: {e}")),
    }
}

/// How many processes of other runs of the laboratory there are on this machine.
///
/// # Errors
/// If the processes cannot be listed.
pub fn others() -> Result<usize> {
    let mark = format!("{INSIDE}=1");
    let mut found = 0;
    for entry in fs::read_dir("/proc").context("/proc")? {
        // One that has ended meanwhile, or is somebody else's, cannot be read.
        let environment = fs::read(entry?.path().join("environ")).unwrap_or_default();
        found += usize::from(environment.split(|b| *b == 0).any(|v| v == mark.as_bytes()));
    }
    Ok(found)
}

/// Raises the limit of open files to what the system allows: a thousand connections of a run do
/// not fit into the 1024 descriptors that a login shell has.
fn allow_open_files() -> rustix::io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)
}

/// Exit code of a child as a shell gives it: 128 plus the signal if one ended it.
pub fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The prepared inside: a private `/run` with a folder for the run's files.
#[derive(Debug)]
pub struct World {
    dir: PathBuf,
}

impl World {
    /// Prepares the namespaces that [`command`] made.
    ///
    /// # Errors
    /// If this process is not inside, or the system refuses a mount.
    pub fn new() -> Result<World> {
        if !is_inside() {
            bail!("a laboratory must be started in namespaces of its own");
        }
        allow_open_files().context("limit of open files")?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])
            .status()
            .context("mount")?;
        if !mounted.success() {
            bail!("cannot mount a private /run");
        }
        let dir = PathBuf::from("/run/lab");
        for d in [
            &dir,
            Path::new("/run/netns"),
            Path::new("/run/sshd"),
            Path::new("/run/lock"),
        ] {
            fs::create_dir_all(d).with_context(|| format!("create {}", d.display()))?;
        }
        Ok(World { dir })
    }

    /// Folder for the files of this run; vanishes with it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
