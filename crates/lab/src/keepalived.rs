//! Debian's keepalived on one firewall, with the original's failover script.
//!
//! VRRP runs on eth0 and eth1, one group, with the scenario's virtual addresses. The
//! script is the one that the package `conntrackd` installs, unchanged: it calls
//! `/usr/sbin/conntrackd` and reads `/etc/conntrackd/conntrackd.conf`, so each firewall's
//! keepalived has a mount namespace of its own in which these are the daemon under test
//! and its configuration. An instance loses while a file holds 1, and takes back when it
//! holds 0.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::{self, Daemon, Kind};
use crate::node::Process;
use crate::topology::Lab;
use crate::wait;

/// Where Debian's package `conntrackd` puts the script.
const SCRIPT: &str = "/usr/share/doc/conntrackd/examples/sync/primary-backup.sh";
/// Longest change of state: three advertisements missed, addresses, the script.
const CHANGE_MAX: Duration = Duration::from_secs(10);

/// The state that keepalived has last given to the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has the virtual addresses.
    Primary,
    /// Another one has.
    Backup,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Primary => "primary",
            State::Backup => "backup",
        }
    }
}

/// What keepalived calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// The original's failover script, or nothing without a daemon.
    Script,
    /// `ftfw primary`, `backup` and `fault`.
    Roles,
    /// `ftfw keepalived`, which reads its FIFO.
    Fifo,
    /// `ftfw primary`, `backup` and `fault`, and `ftfw ready`: while that fails the priority is 100 lower.
    RolesAndReady,
}

/// How keepalived runs.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// What it calls.
    pub calls: Calls,
    /// Seconds between two advertisements.
    pub advert: &'static str,
}

impl From<Calls> for Way {
    /// Every 0.2 s.
    fn from(calls: Calls) -> Way {
        let advert = "0.2";
        Way { calls, advert }
    }
}

/// A running keepalived.
#[derive(Debug)]
pub struct Keepalived {
    dir: PathBuf,
    process: Process,
    /// How often the script had run when the last change of state was asked for.
    runs: usize,
}

impl Keepalived {
    /// Starts it on firewall `n` (0 or 1) for the daemon that runs there, and waits until the
    /// script has run. FW1 wins unless its priority is set lower. The virtual addresses are
    /// keepalived's from now on: drop them first.
    pub fn start(lab: &Lab, n: usize, daemon: Option<&Daemon>, state: State) -> Result<Keepalived> {
        Keepalived::start_with(lab, n, daemon, state, Calls::Script)
    }

    /// The same; `way` is what it calls, and how often it advertises.
    pub fn start_with(
        lab: &Lab,
        n: usize,
        daemon: Option<&Daemon>,
        state: State,
        way: impl Into<Way>,
    ) -> Result<Keepalived> {
        let Way { calls, advert } = way.into();
        let fw = &lab.fw[n];
        // Advertisements, from the other firewall's own addresses.
        fw.run("iptables -I INPUT -p vrrp -j ACCEPT")?;
        let dir = PathBuf::from(format!("/run/keepalived-{}", fw.name()));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("lose"), "0\n")?;
        let ours = match daemon {
            Some(daemon) if calls != Calls::Script => {
                let program = daemon::program(Kind::Ftfw)?;
                let config = daemon.config();
                Some(format!("{} -C {}", program.display(), config.display()))
            }
            _ => None,
        };
        let script = match (&ours, daemon) {
            (Some(_), _) if calls == Calls::Fifo => "true",
            (Some(ours), _) => ours,
            (None, Some(_)) => SCRIPT,
            (None, None) => "true",
        };
        let notify = format!(
            "#!/bin/sh\n{script} $1 2>>{dir}/errors >/dev/null\necho $1 >>{dir}/states\n",
            dir = dir.display()
        );
        fs::write(dir.join("notify"), notify)?;
        let _ = fs::remove_file(dir.join("notify-stop"));
        fs::write(dir.join("states"), "")?;
        fs::write(
            dir.join("conf"),
            configuration(
                n,
                &dir.display().to_string(),
                ours.as_deref().map(|ours| (ours, calls)),
                advert,
            ),
        )?;
        let mut binds = String::new();
        if let Some(daemon) = daemon {
            let program = daemon::program(daemon.kind())?;
            if program.is_absolute() {
                binds += &format!("mount --bind {} /usr/sbin/conntrackd\n", program.display());
            }
            let config = daemon.config().display();
            binds += &format!("mount --bind {config} /etc/conntrackd/conntrackd.conf\n");
        }
        let start = format!(
            "set -e\n{binds}exec keepalived --dont-fork --vrrp --log-console --use-file={dir}/conf \
             --pid={dir}/pid --vrrp_pid={dir}/vrrp-pid",
            dir = dir.display()
        );
        let console = fs::File::create(dir.join("console"))?;
        let mut command = fw.command("unshare");
        command
            .args(["--mount", "sh", "-c", &start])
            .stdin(Stdio::null())
            .stderr(console.try_clone()?)
            .stdout(console);
        let keepalived = Keepalived {
            dir,
            process: Process(command.spawn().context("start keepalived")?),
            runs: 0,
        };
        keepalived.wait(state)?;
        Ok(keepalived)
    }

    /// Makes the script call another daemon's program, which reads the same configuration file.
    pub fn use_program(&self, daemon: &Daemon) -> Result<()> {
        let program = daemon::program(daemon.kind())?;
        // The original's is there when nothing lies over it.
        let mut swap = "while umount /usr/sbin/conntrackd 2>/dev/null; do :; done".to_owned();
        if program.is_absolute() {
            swap += &format!("; mount --bind {} /usr/sbin/conntrackd", program.display());
        }
        let pid = self.process.0.id().to_string();
        let status = Command::new("nsenter")
            .args(["--mount", "--target", &pid, "sh", "-ec", &swap])
            .status()?;
        ensure!(status.success(), "{swap}: {status}");
        Ok(())
    }

    /// Makes its instances lose, or take back what they lost.
    pub fn lose(&mut self, loses: bool) -> Result<()> {
        self.runs = self.states()?.len();
        fs::write(self.dir.join("lose"), format!("{}\n", u8::from(loses)))?;
        Ok(())
    }

    /// To be called before the other firewall changes its state.
    pub fn expect_change(&mut self) -> Result<()> {
        self.runs = self.states()?.len();
        Ok(())
    }

    /// Waits until the script has brought this firewall into `state` since the last
    /// change was asked for, without an error.
    pub fn wait(&self, state: State) -> Result<()> {
        let mut states = Vec::new();
        let what = format!("keepalived calls the script with `{}`", state.word());
        wait::until(&what, CHANGE_MAX, || {
            states = self.states().unwrap_or_default();
            let last = states.iter().skip(self.runs).next_back();
            last.is_some_and(|s| s.starts_with(state.word()))
        })
        .with_context(|| format!("{states:?}\n{}", self.text("console")))?;
        // Its exit status is 0 whatever happens; what fails writes, and `logger` without a syslog.
        let errors = self.text("errors");
        ensure!(errors.is_empty(), "the script says: {errors}");
        Ok(())
    }

    /// Makes it read its configuration again.
    pub fn reload(&self) -> Result<()> {
        self.signal(Signal::HUP)
    }

    /// Ends it in good order: the other firewall takes over at once.
    pub fn stop(mut self) -> Result<()> {
        // Otherwise there is none: after a SIGKILL its child calls it, too.
        fs::copy(self.dir.join("notify"), self.dir.join("notify-stop"))?;
        self.signal(Signal::TERM)?;
        self.process.0.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.process.0);
        Ok(kill_process(pid, signal)?)
    }

    /// Ends it with SIGKILL; its child, which sends VRRP, then ends itself.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    fn states(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.dir.join("states"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }
}

/// FW1 has the higher priority, and loses 100 of it. `ftfw`: our
/// command, and which of it is called.
fn configuration(n: usize, dir: &str, ftfw: Option<(&str, Calls)>, advert: &str) -> String {
    let priority = [150, 120][n];
    let fifo = match ftfw {
        Some((ftfw, Calls::Fifo)) => format!(
            "    vrrp_notify_fifo {dir}/fifo
    vrrp_notify_fifo_script \"{ftfw} keepalived\"
    fifo_write_vrrp_states_on_reload
"
        ),
        _ => String::new(),
    };
    let (script, track) = match ftfw {
        Some((ftfw, Calls::RolesAndReady)) => (
            format!(
                "vrrp_script ready {{
    script \"{ftfw} ready\"
    interval 1
    weight -100
    init_fail
}}
"
            ),
            "    track_script {
        ready
    }
",
        ),
        _ => (String::new(), ""),
    };
    let mut text = format!(
        "global_defs {{
    vrrp_version 3
    script_user root
    vrrp_garp_master_delay 1
{fifo}}}
vrrp_track_file lose {{
    file {dir}/lose
    weight -100
}}
{script}vrrp_sync_group G {{
{track}    group {{
        INSIDE
        OUTSIDE
    }}
    track_file {{
        lose
    }}
    sync_group_tracking_weight
    notify_master \"/bin/sh {dir}/notify primary\"
    notify_backup \"/bin/sh {dir}/notify backup\"
    notify_fault \"/bin/sh {dir}/notify fault\"
    notify_stop \"/bin/sh {dir}/notify-stop backup\"
}}
"
    );
    for (name, dev, net) in [("INSIDE", "eth1", 0), ("OUTSIDE", "eth0", 1)] {
        text += &format!(
            "vrrp_instance {name} {{
    state BACKUP
    interface {dev}
    virtual_router_id {id}
    priority {priority}
    advert_int {advert}
    virtual_ipaddress {{
        192.168.{net}.100/24 dev {dev}
    }}
}}
",
            id = 61 + net
        );
    }
    text
}
