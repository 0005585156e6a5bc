//! What the daemon gives up when it has started: capabilities, files, system calls.
//!
//! All that needs more has happened by then: links and sockets of the kernel are open, the
//! scheduler is set, and `nft` is run by a process of its own (`nft`). What is given up here
//! holds for the calling thread and for those that it starts afterwards, so it comes before
//! those of `writer` and `dumper`. With `-d` the terminal is left later, which takes /dev/null
//! and a change of folder. The order is that of what each step still needs.
//!
//! A kernel that cannot do one of it, or a service manager that has done it, is no reason
//! not to start: the line about it says what is so.

mod capabilities;
mod files;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod system_calls;

use std::env::consts::ARCH;

use config::{Config, SystemCalls};

use crate::log::Log;

pub(crate) use files::Files;

/// Filters of system calls are made for the kinds of processors above.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
mod system_calls {
    pub(super) fn restrict(_kill: bool) -> Result<String, String> {
        Err("no list of system calls for this kind of processor".to_owned())
    }
}

/// Gives up what the configuration says, and says what that is.
pub(crate) fn enter(config: &Config, log: &mut Log) -> Files {
    // The C library reads once what the local time is, and then may not open the file any more.
    let _ = sys::time::local_now();
    let sandbox = config.sandbox;
    let say = |log: &mut Log, what: &str, done: Result<String, String>| match done {
        Ok(text) => log.notice(format!("sandbox: {text}")),
        Err(why) => log.warning(format!(
            "sandbox: {why}. Going on without; `{what} off` in `Sandbox` says that this is meant."
        )),
    };
    let off = |what: &str| Ok(format!("`{what} off`, as configured"));
    say(
        log,
        "Capabilities",
        match sandbox.capabilities {
            true => capabilities::keep_only(capabilities::needed(config)),
            false => off("Capabilities"),
        },
    );
    let mut files = Files::default();
    say(
        log,
        "Files",
        match sandbox.files {
            true => files.restrict(config),
            false => off("Files"),
        },
    );
    for folder in files.missing() {
        log.warning(format!(
            "sandbox: there is no folder {}: nothing can be written there until the daemon starts \
             again",
            folder.display()
        ));
    }
    say(
        log,
        "SystemCalls",
        match sandbox.system_calls {
            SystemCalls::All => off("SystemCalls"),
            SystemCalls::Refuse => system_calls::restrict(false),
            SystemCalls::Kill => system_calls::restrict(true),
        },
    );
    files
}

/// True if a system call was refused that has not been said yet.
pub(crate) fn has_refused() -> bool {
    sys::refused::is_any_untold()
}

/// Says which system calls were refused. Each is said once.
pub(crate) fn report_refused(log: &mut Log) {
    for call in std::iter::from_fn(sys::refused::next) {
        log.error(format!(
            "sandbox: system call {call} of {ARCH} was refused. This is a bug, please report it; \
             until then, `SystemCalls off` in `Sandbox` allows it."
        ));
    }
}
