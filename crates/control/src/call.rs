//! Requests of our own command line, and how they are answered.
//!
//! On the control socket a client sends [`CODE`] where the original's clients send a
//! request code, then one line of JSON, a [`Call`]. The answer is lines:
//!
//! ```text
//! head    JSON: protocol, version, status, and with an error what to do   ([`Head`])
//! row     JSON, or text if the call asks for text; any number, none empty
//!         an empty line
//! tail    JSON: status, number of rows, what the command did              ([`Tail`])
//! ```
//!
//! Nothing follows a head with the status `error`. An answer without a tail was cut.

use serde::{Deserialize, Serialize};

use crate::Object;

/// What stands in the place of a request code, native-endian like those.
pub const CODE: i32 = i32::from_be_bytes(*b"ftfw");
/// Version of this protocol. It is another one when a daemon of the version before would do
/// something else than what is asked, because it does not know a field: since 2 expectations
/// have filters, and flows and expectations can be counted.
pub const PROTOCOL: u32 = 2;
/// The longest line of a call in bytes.
pub const CALL_MAX_BYTES: usize = 64 * 1024;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// [`PROTOCOL`] of the client.
    pub protocol: u32,
    /// The client's version, for messages.
    pub version: String,
    /// What is asked for.
    pub task: Task,
    /// Rows as JSON rather than as text.
    pub json: bool,
}

/// Which table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// The kernel's.
    Kernel,
    /// Flows that our kernel has reported.
    Internal,
    /// Flows that the peer has announced.
    External,
}

/// What is emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flush {
    /// The internal cache.
    Internal,
    /// The external cache.
    External,
    /// Both caches.
    Caches,
    /// The kernel's table, as far as the filter covers it.
    Kernel,
    /// The same after `PurgeTimeout`.
    KernelLater,
}

/// What the HA manager makes of this firewall, for one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It forwards, and has the virtual addresses.
    Primary,
    /// It waits.
    Backup,
    /// It cannot forward.
    Fault,
}

impl Role {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Backup => "backup",
            Role::Fault => "fault",
        }
    }
}

/// A part of a change of role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The peer's flows into the kernel (`-c`).
    Commit,
    /// What was kept out may pass.
    OpenGate,
    /// Both caches are emptied (`-f`).
    FlushCaches,
    /// The kernel's flows into the internal cache (`-R`).
    ReadKernel,
    /// All our flows to the peer (`-B`).
    Bulk,
    /// What has no flow here is kept out.
    CloseGate,
    /// The kernel's table is flushed after `PurgeTimeout` (`-t`).
    ScheduleFlush,
    /// The peer is asked for all its flows (`-n`).
    AskPeer,
}

/// What a step of a change of role came to: a row of its answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRow {
    /// Which.
    pub step: Step,
    /// How it went.
    pub status: Outcome,
    /// How long it took.
    pub seconds: f64,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What a commit did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<Committed>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Task {
    /// One row: the state of the daemon.
    Status,
    /// Flows of a table.
    Flows {
        /// Which.
        table: Table,
        /// Words of a [`crate::Query`].
        filter: Vec<String>,
        /// No rows: the tail has their number.
        #[serde(default)]
        count: bool,
    },
    /// Expectations of a table.
    Expectations {
        /// Which.
        table: Table,
        /// Words of a [`crate::Query`] for expectations.
        filter: Vec<String>,
        /// No rows: the tail has their number.
        #[serde(default)]
        count: bool,
    },
    /// Events of the kernel as they come, until the client closes the connection.
    Events {
        /// Words of a [`crate::Query`].
        filter: Vec<String>,
    },
    /// External cache → kernel.
    Commit {
        /// Of which objects.
        objects: Object,
    },
    /// Flows that a commit would now put into the kernel, with the timeout that they would get.
    /// Nothing changes.
    Rehearse,
    /// Empty something.
    Flush {
        /// What.
        what: Flush,
        /// Of which objects, in the kernel.
        objects: Object,
    },
    /// Kernel → internal cache.
    ResyncKernel {
        /// Of which objects.
        objects: Object,
    },
    /// Ask the peer for all that it has.
    ResyncPeer,
    /// Send the peer all that we have.
    Bulk,
    /// Change this firewall's role. One row for each step ([`StepRow`]).
    Role {
        /// What it becomes.
        role: Role,
        /// Of which instance; `None` for the only one.
        instance: Option<String>,
    },
    /// Forget an instance that is known from a [`Task::Role`] alone.
    Forget {
        /// Its name.
        instance: String,
    },
    /// End the daemon.
    Stop,
}

/// How much of a command was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All of it.
    Ok,
    /// Only a part of it.
    Partial,
    /// Nothing.
    Error,
}

/// The first line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`PROTOCOL`] of the daemon.
    pub protocol: u32,
    /// The daemon's version.
    pub version: String,
    /// `ok` or `error`.
    pub status: Outcome,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// The last line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// How it went.
    pub status: Outcome,
    /// Rows sent.
    pub rows: u64,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What a commit did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<Committed>,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// Objects created.
    pub created: u64,
    /// Objects that were there already.
    pub updated: u64,
    /// Objects that the kernel refused; the reasons are in the daemon's log.
    pub failed: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Head {
    /// All is well.
    pub fn ok() -> Head {
        Head {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            status: Outcome::Ok,
            error: None,
            help: None,
        }
    }

    /// An error, and what to do about it.
    pub fn error(error: impl Into<String>, help: impl Into<String>) -> Head {
        Head {
            status: Outcome::Error,
            error: Some(error.into()),
            help: Some(help.into()),
            ..Head::ok()
        }
    }
}

impl Tail {
    /// All went well.
    pub fn ok(rows: u64) -> Tail {
        Tail {
            status: Outcome::Ok,
            rows,
            error: None,
            help: None,
            commit: None,
        }
    }

    /// An error, and what to do about it.
    pub fn error(error: impl Into<String>, help: impl Into<String>) -> Tail {
        Tail {
            status: Outcome::Error,
            error: Some(error.into()),
            help: Some(help.into()),
            ..Tail::ok(0)
        }
    }
}

impl Call {
    /// A call of this version.
    pub fn new(task: Task, json: bool) -> Call {
        Call {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            task,
            json,
        }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// The head of the answer to a call that this version does not understand.
    pub fn parse(line: &[u8]) -> Result<Call, Head> {
        // The version first: the rest of a later version's line may not be readable.
        #[derive(Deserialize)]
        struct Version {
            protocol: u32,
            version: String,
        }
        let own = env!("CARGO_PKG_VERSION");
        let same = "use programs of the same version";
        match serde_json::from_slice::<Version>(line) {
            Ok(v) if v.protocol != PROTOCOL => {
                let error = format!(
                    "the daemon (ftfw {own}) speaks control protocol {PROTOCOL}, this program (ftfw {}) {}",
                    v.version, v.protocol
                );
                return Err(Head::error(error, same));
            }
            Ok(_) => {}
            Err(e) => return Err(Head::error(format!("unreadable call: {e}"), same)),
        }
        serde_json::from_slice(line).map_err(|e| {
            Head::error(
                format!("the daemon (ftfw {own}) does not know this: {e}"),
                same,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_survives_its_line() {
        let call = Call::new(
            Task::Flows {
                table: Table::External,
                filter: vec!["proto=tcp".to_owned()],
                count: true,
            },
            true,
        );
        let line = serde_json::to_vec(&call).unwrap();
        assert_eq!(Call::parse(&line), Ok(call));
    }

    #[test]
    fn another_protocol_is_told_which_one_is_spoken() {
        let line = br#"{"protocol":7,"version":"9.9","what":"else"}"#;
        let head = Call::parse(line).unwrap_err();
        assert_eq!(head.status, Outcome::Error);
        let error = head.error.unwrap();
        assert!(
            error.contains("protocol 2") && error.contains("9.9) 7"),
            "{error}"
        );
    }

    /// What a client of version 1 sent: a filter of expectations was not in its words.
    #[test]
    fn a_client_of_the_version_before_is_told_what_to_do() {
        let line = br#"{"protocol":1,"version":"0.1.0","task":{"name":"expectations","table":"kernel"},"json":false}"#;
        let head = Call::parse(line).unwrap_err();
        assert_eq!(head.protocol, 2);
        assert!(head.error.unwrap().contains("(ftfw 0.1.0) 1"));
        assert_eq!(
            head.help.as_deref(),
            Some("use programs of the same version")
        );
    }

    #[test]
    fn an_unknown_task_is_an_error_with_help() {
        let line = br#"{"protocol":2,"version":"1","json":true,"task":{"name":"dance"}}"#;
        let head = Call::parse(line).unwrap_err();
        assert!(head.error.unwrap().contains("dance"));
        assert!(head.help.is_some());
    }

    #[test]
    fn the_code_is_none_of_the_originals() {
        assert_eq!(crate::Request::from_code(CODE), None);
    }
}
