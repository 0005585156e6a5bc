//! One machine of the laboratory: a network namespace and what is run in it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A named network namespace.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
}

impl Node {
    /// Creates the namespace, with its loopback up.
    pub fn new(name: &str) -> Result<Node> {
        run_command(Command::new("ip").args(["netns", "add", name]), None)?;
        let node = Node {
            name: name.to_owned(),
        };
        node.run("ip link set lo up")?;
        Ok(node)
    }

    /// Name of the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command that will run in this namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut c = Command::new("nsenter");
        c.arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        c
    }

    /// Runs a line of words (no quoting) and returns its standard output.
    ///
    /// # Errors
    /// If it cannot be started or fails, with its standard error.
    pub fn run(&self, line: &str) -> Result<String> {
        self.run_with_input(line, None)
    }

    /// The same with a text on its standard input.
    pub fn run_with_input(&self, line: &str, input: Option<&str>) -> Result<String> {
        let mut words = line.split_whitespace();
        let mut c = self.command(words.next().context("empty command")?);
        c.args(words);
        run_command(&mut c, input).with_context(|| format!("on {}", self.name))
    }

    /// Sets a sysctl of this namespace, e.g. `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let script = format!("echo {value} >/proc/sys/{key}");
        let mut c = self.command("sh");
        c.args(["-c", &script]);
        run_command(&mut c, None).with_context(|| format!("{key} on {}", self.name))?;
        Ok(())
    }

    /// Runs `work` in a thread inside this namespace; sockets that it opens stay there.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let ns = File::open(self.path()).context("namespace file")?;
        let handle = thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&ns),
                    Some(LinkNameSpaceType::Network),
                )
                .expect("the laboratory may enter the namespaces that it made");
                work()
            })?;
        Ok(handle)
    }

    /// Runs `work` inside this namespace and waits for it.
    pub fn inside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let done = self.thread(work)?.join();
        done.map_err(|_| anyhow::anyhow!("a thread on {} panicked", self.name))
    }
}

/// Runs a command to its end.
fn run_command(command: &mut Command, input: Option<&str>) -> Result<String> {
    command
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes())?;
    }
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!(
            "{command:?}: {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// A child that is killed when it is forgotten.
#[derive(Debug)]
pub struct Process(pub Child);

impl Process {
    /// Ends it with SIGKILL and waits.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
