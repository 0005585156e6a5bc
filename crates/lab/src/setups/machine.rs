//! A firewall of a set-up: what an engineer would start, at the places where they would put it.
//!
//! The machine has namespaces of its own: network, mounts, PIDs, IPC and host name. Its files lie
//! in `/etc/conntrackd` and where the cluster manager has them, the program in `/usr/local/sbin`;
//! logs, locks and sockets have places of their own. So the files of a chapter run as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::manager::Manager;
use crate::daemon::{self, Kind};
use crate::node::{Node, Process};
use crate::wait;

/// How long a command may take to have its effect.
const SOON: Duration = Duration::from_secs(5);

/// A running firewall.
#[derive(Debug)]
pub struct Machine {
    node: Node,
    /// Ends everything that runs on the machine when it is killed.
    init: Process,
    pid: u32,
    manager: Manager,
}

impl Machine {
    /// A machine with these files, and nothing running on it. A later folder's files take the
    /// place of those of an earlier one.
    pub(super) fn new(node: Node, folders: &[PathBuf], manager: Manager) -> Result<Machine> {
        let program = daemon::program(Kind::Ftfw)?;
        let name = node.name();
        let mut script = format!("set -e\nhostname {name}\nmount --make-rprivate /\n");
        for dir in ["/run", "/etc/conntrackd", "/usr/local/sbin", "/var/log"] {
            script += &format!("mount -t tmpfs -o mode=755 tmpfs {dir}\n");
        }
        script += "mkdir -p /run/lock /run/sbin\n";
        // Where the package has it, beside what is there. keepalived runs only what root alone
        // may change, as this script is.
        script += &format!(
            "mount --bind /usr/sbin /run/sbin\n\
             mount -t tmpfs -o mode=755 tmpfs /usr/sbin\n\
             ln -s /run/sbin/* /usr/sbin/\nrm -f /usr/sbin/ftfw\n\
             printf '#!/bin/sh\\nexec {} \"$@\"\\n' >/usr/sbin/ftfw\nchmod 755 /usr/sbin/ftfw\n",
            program.display()
        );
        for name in ["ftfw", "conntrackd"] {
            script += &format!("ln -s {} /usr/local/sbin/{name}\n", program.display());
        }
        let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/ocf/ftfw");
        script += &format!("agent={}\n{}", agent.display(), manager.places());
        for folder in folders {
            let folder = folder.display();
            script +=
                &format!("find {folder} -maxdepth 1 -type f -exec cp {{}} /etc/conntrackd/ \\;\n");
        }
        script += "cd /etc/conntrackd\n";
        script += manager.files();
        script += "echo >/run/ready\nexec sleep infinity\n";
        let mut command = node.command("unshare");
        command
            .args(["--mount", "--pid", "--ipc", "--uts"])
            .args(["--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", &script])
            .stdin(Stdio::null());
        let mut init = Process(command.spawn().context("unshare")?);
        let mut pid = None;
        wait::until("the machine has its files", SOON, || {
            pid = child_of(init.0.id());
            pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}/root/run/ready")).exists())
                || init.0.try_wait().is_ok_and(|s| s.is_some())
        })?;
        let ended = init.0.try_wait()?;
        ensure!(ended.is_none(), "the machine has ended: {ended:?}");
        let pid = pid.context("no process")?;
        Ok(Machine {
            node,
            init,
            pid,
            manager,
        })
    }

    /// The namespace of its network.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// A command that will run on it.
    pub fn command(&self, program: &str) -> Command {
        let mut c = Command::new("nsenter");
        c.args(["--mount", "--pid", "--net", "--ipc", "--uts", "--target"])
            .arg(self.pid.to_string())
            .arg("--")
            .arg(program);
        c.env("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin");
        c
    }

    /// Runs a line of the shell, which must succeed, and returns what it printed.
    pub fn sh(&self, line: &str) -> Result<String> {
        let out = self.command("sh").args(["-c", line]).output()?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            bail!("{line}: {}: {}", out.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// A file of it, or nothing.
    pub fn text(&self, path: &str) -> String {
        fs::read_to_string(format!("/proc/{}/root{path}", self.pid)).unwrap_or_default()
    }

    /// What its programs have logged.
    pub fn logs(&self) -> String {
        self.text("/var/log/conntrackd.log") + &self.text(self.manager.log())
    }

    /// What its daemon reports, as far as it answers.
    pub fn figures(&self) -> String {
        let ask = "ftfw status; conntrackd -s; conntrackd -s network";
        let out = self.command("sh").args(["-c", ask]).output();
        out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
            .unwrap_or_default()
    }

    /// True if one of its interfaces has this address.
    pub fn holds(&self, address: &str) -> bool {
        let listing = self.node.run("ip -o addr show");
        listing.is_ok_and(|text| text.contains(&format!(" {address}/")))
    }

    /// Entries of its kernel's table for which the words of `filter` hold.
    pub fn flows(&self, filter: &str) -> Result<usize> {
        let text = self.node.run(&format!("conntrack -L {filter}"))?;
        Ok(text.lines().count())
    }

    /// Ends everything that runs on it at once.
    pub(super) fn kill(&mut self) {
        self.init.kill();
    }
}

fn child_of(parent: u32) -> Option<u32> {
    let mut entries = fs::read_dir("/proc").ok()?.flatten();
    entries.find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name, which may hold anything: state, parent.
        let (_, behind) = stat.rsplit_once(')')?;
        let of: u32 = behind.split_whitespace().nth(1)?.parse().ok()?;
        (of == parent).then_some(pid)
    })
}
