//! What a fuzzer calls with its bytes: a target for each decoder that faces bytes from outside,
//! and one for the state machines on lists of operations.
//!
//! `fuzz/` in the project's folder has a program of libFuzzer for each; `corpus/` beside this
//! file has what they found, which `tests/corpus.rs` replays in every run of the tests. A target
//! panics if something does not hold.

mod bytes;
mod decoders;
mod operations;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    Target {
        name: "datagram",
        run: decoders::datagram,
    },
    Target {
        name: "stream",
        run: decoders::stream,
    },
    Target {
        name: "trailer",
        run: decoders::trailer,
    },
    Target {
        name: "netlink",
        run: decoders::netlink,
    },
    Target {
        name: "control",
        run: decoders::control,
    },
    Target {
        name: "config",
        run: decoders::config,
    },
    Target {
        name: "replica",
        run: operations::replica,
    },
];

/// The target of a name.
pub fn named(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
