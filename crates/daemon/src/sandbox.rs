//! What the daemon gives up when it has started: capabilities, files, system calls.
//!
//! All that needs more has happened by then: links and sockets of the kernel are open, the
//! scheduler is set, and `nft` is run by a process of its own (`nft`). What is given up here
//! holds for the calling thread and for those that it starts afterwards, so it comes before
//! the kernel writer's. The order is that of what each step still needs.
//!
//! A kernel that cannot do one of it, or a service manager that has done it, is no reason
//! not to start: the line about it says what is so.

mod capabilities;
mod files;
mod system_calls;

use config::{Config, SystemCalls};

use crate::log::Log;

pub(crate) use files::Files;

/// Gives up what the configuration says, and says what that is.
pub(crate) fn enter(config: &Config, log: &mut Log) -> Files {
    let sandbox = config.sandbox;
    let mut say = |what: &str, done: Result<String, String>| match done {
        Ok(text) => log.notice(format!("sandbox: {text}")),
        Err(why) => log.warning(format!(
            "sandbox: {why}. Going on without; `{what} off` in `Sandbox` says that this is meant."
        )),
    };
    let off = |what: &str| Ok(format!("`{what} off`, as configured"));
    say(
        "Capabilities",
        match sandbox.capabilities {
            true => capabilities::keep_only(capabilities::needed(config)),
            false => off("Capabilities"),
        },
    );
    let mut files = Files::default();
    say(
        "Files",
        match sandbox.files {
            true => files.restrict(config),
            false => off("Files"),
        },
    );
    say(
        "SystemCalls",
        match sandbox.system_calls {
            SystemCalls::All => off("SystemCalls"),
            SystemCalls::Refuse => system_calls::restrict(false),
            SystemCalls::Kill => system_calls::restrict(true),
        },
    );
    files
}

/// Says which system calls were refused. Each is said once.
pub(crate) fn report_refused(log: &mut Log) {
    for call in std::iter::from_fn(sys::refused::next) {
        log.error(format!(
            "sandbox: system call {call} was refused. This is a bug, please report it; until \
             then, `SystemCalls off` in `Sandbox` allows it."
        ));
    }
}
