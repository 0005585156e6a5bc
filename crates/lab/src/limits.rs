//! The limits of connection tracking that all namespaces of the machine share: a run with more
//! flows than they allow raises them, and puts them back when it ends.
//!
//! It is the one thing of the machine itself that a run of the laboratory changes, and only a
//! measurement does. Every table of every namespace is in the same buckets, so nobody else may
//! measure meanwhile: it is refused while there are other runs.

use std::env;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use sys::signal::{Signal, Signals};

use crate::node::Process;
use crate::world;

const DIR: &str = "/proc/sys/net/netfilter";
const MAX: &str = "nf_conntrack_max";
const BUCKETS: &str = "nf_conntrack_buckets";
/// Held by whoever has raised them; the kernel lets go of it with the process.
const NAME: &str = "ftfw-lab-limits";
/// How often a child that runs, and a signal, are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Limits that are put back when this is dropped.
#[derive(Debug)]
pub struct Raised {
    dir: PathBuf,
    /// What was there before: the key and its value.
    before: Vec<(&'static str, String)>,
    _alone: UnixListener,
}

/// Runs this program again with the same arguments while the limits allow `flows` flows of one
/// firewall; `None` if they do so already. They are put back when it ends, also by a signal.
///
/// # Errors
/// If they may not be raised, or the program cannot be started.
pub fn run_again(flows: u32) -> Result<Option<ExitStatus>> {
    // From before the first change until after the last one.
    let signals = Signals::open()?;
    let Some(raised) = raise(flows)? else {
        drop(signals);
        sys::signal::unblock()?;
        return Ok(None);
    };
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    command
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1));
    let mut child = Process(command.spawn().context("setpriv")?);
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        if let Some(Signal::Terminate) = signals.next() {
            bail!("interrupted");
        }
        thread::sleep(LOOK);
    };
    drop(raised);
    Ok(Some(status))
}

/// Raises the limits to what `flows` flows of one firewall want, if they are lower.
///
/// # Errors
/// If this may not be done, or there are other runs of the laboratory.
pub fn raise(flows: u32) -> Result<Option<Raised>> {
    raise_in(Path::new(DIR), NAME, flows, world::others)
}

fn raise_in(
    dir: &Path,
    name: &str,
    flows: u32,
    others: impl Fn() -> Result<usize>,
) -> Result<Option<Raised>> {
    // Those of the links and of what the machines do by themselves.
    let wanted = u64::from(flows) + u64::from(flows) / 8 + 1000;
    let max = number(dir, MAX)?;
    if max >= wanted {
        return Ok(None);
    }
    let less = format!(
        "or measure at most {} flows",
        max.saturating_sub(1000) * 8 / 9
    );
    let address = SocketAddr::from_abstract_name(name)?;
    let alone = UnixListener::bind_addr(&address)
        .with_context(|| format!("another measurement has raised {MAX}: wait for it, {less}"))?;
    let others = others()?;
    ensure!(
        others == 0,
        "{flows} flows want a higher {MAX}, and other runs of the laboratory are there \
         ({others} processes): wait for them, {less}"
    );
    let mut raised = Raised {
        dir: dir.to_owned(),
        before: Vec::new(),
        _alone: alone,
    };
    for key in [MAX, BUCKETS] {
        raised
            .set(key, wanted)
            .with_context(|| format!("only root may raise it; {less}"))?;
    }
    Ok(Some(raised))
}

impl Raised {
    /// Raises one of them, unless it is high enough.
    fn set(&mut self, key: &'static str, wanted: u64) -> Result<()> {
        let before = number(&self.dir, key)?;
        if before < wanted {
            write(&self.dir, key, &wanted.to_string())?;
            self.before.push((key, before.to_string()));
        }
        Ok(())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        for (key, value) in self.before.drain(..).rev() {
            if let Err(e) = write(&self.dir, key, &value) {
                eprintln!("{key} was {value}, and is not put back: {e:#}");
            }
        }
    }
}

fn number(dir: &Path, key: &str) -> Result<u64> {
    let path = dir.join(key);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    match text.trim().parse() {
        Ok(number) => Ok(number),
        Err(_) => bail!("{}: no number: {text}", path.display()),
    }
}

fn write(dir: &Path, key: &str, value: &str) -> Result<()> {
    let path = dir.join(key);
    fs::write(&path, value).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder in place of the kernel's, with its values.
    struct Stand(PathBuf);

    impl Stand {
        fn new(name: &str) -> Stand {
            let dir = std::env::temp_dir().join(format!("ftfw-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            let stand = Stand(dir);
            for key in [MAX, BUCKETS] {
                write(&stand.0, key, "262144\n").unwrap();
            }
            stand
        }

        fn values(&self) -> [u64; 2] {
            [MAX, BUCKETS].map(|key| number(&self.0, key).unwrap())
        }

        fn raise(&self, flows: u32, others: usize) -> Result<Option<Raised>> {
            let name = self.0.to_str().unwrap();
            raise_in(&self.0, name, flows, || Ok(others))
        }
    }

    impl Drop for Stand {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const BEFORE: [u64; 2] = [262_144, 262_144];

    #[test]
    fn what_was_raised_is_put_back() {
        let stand = Stand::new("raised");
        let raised = stand.raise(1_000_000, 0).unwrap().unwrap();
        assert_eq!(stand.values(), [1_126_000, 1_126_000]);
        drop(raised);
        assert_eq!(stand.values(), BEFORE);
    }

    #[test]
    fn nothing_is_raised_that_is_high_enough() {
        let stand = Stand::new("enough");
        assert!(stand.raise(200_000, 5).unwrap().is_none());
        assert_eq!(stand.values(), BEFORE);
    }

    /// Goal: neither beside other runs nor twice, and the user reads how many flows would do.
    #[test]
    fn it_is_refused_while_others_measure() {
        let stand = Stand::new("refused");
        let refused = format!("{:#}", stand.raise(1_000_000, 2).unwrap_err());
        assert!(refused.contains("at most 232128 flows"), "{refused}");
        assert_eq!(stand.values(), BEFORE);
        assert!(stand.raise(232_128, 2).unwrap().is_none());
        let raised = stand.raise(1_000_000, 0).unwrap();
        let refused = format!("{:#}", stand.raise(2_000_000, 0).unwrap_err());
        assert!(refused.contains("another measurement"), "{refused}");
        drop(raised);
        assert_eq!(stand.values(), BEFORE);
    }

    /// Goal: if only one of them can be raised, it is put back, too.
    #[test]
    fn half_of_it_is_put_back() {
        let stand = Stand::new("half");
        fs::remove_file(stand.0.join(BUCKETS)).unwrap();
        assert!(stand.raise(1_000_000, 0).is_err());
        assert_eq!(number(&stand.0, MAX).unwrap(), BEFORE[0]);
    }
}
