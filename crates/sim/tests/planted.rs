//! Goal: the simulator finds what it is there to find.
//! Method: bugs are planted, one at a time, in a copy of the source; the copy is
//! built, and its `ftfw-sim` must find each within as many seeds as every run has.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is planted where, and the words by which it is found.
struct Bug {
    what: &'static str,
    file: &'static str,
    sound: &'static str,
    broken: &'static str,
    found_as: &'static [&'static str],
}

const BUGS: &[Bug] = &[
    Bug {
        what: "a late update revives a flow that has ended",
        file: "replica/src/replica/deliver.rs",
        sound: "None => kind != StateKind::Delete && self.peer_mut(from).ended_before(seq),",
        broken: "None => kind != StateKind::Delete,",
        found_as: &["no resurrection"],
    },
    Bug {
        what: "an acknowledgement frees what the peer has missed",
        file: "replica/src/replica/acknowledge.rs",
        sound: "let settled = ftfw.acknowledged(self.now, from, to);",
        broken: "let settled = ftfw.acknowledged(self.now, from, to);
                 self.stream.retain_missed(|_, _| false);",
        found_as: &["liveness"],
    },
    Bug {
        what: "an injected flow is announced as our own",
        file: "replica/src/replica/ingest.rs",
        sound: "if event.origin != Origin::Traffic && !",
        broken: "if event.origin == Origin::Commit && !",
        found_as: &["no echo"],
    },
    Bug {
        // It was there: a failback with the link out for as long as a flush waits lost everything.
        what: "a scheduled flush deletes the only copy of a flow",
        file: "replica/src/replica/flush.rs",
        sound: "if !is_held && !has_ended {",
        broken: "if !is_held && !has_ended && self.stats.purge_spared == u64::MAX {",
        // The flow may also be missed at the end, if the seed has no takeover in between.
        found_as: &["acknowledged means kept", "liveness"],
    },
    Bug {
        what: "a flow is forgotten while its newest state is committed",
        file: "replica/src/replica/peers.rs",
        sound: "} else if !self.settings.external_cache || self.external.change(slot, External::changed) {",
        broken: "} else {",
        found_as: &["acknowledged means kept"],
    },
    Bug {
        what: "a committed expectation has lost its translation",
        file: "replica/src/replica/expect/write.rs",
        sound: "        timeout,
        ..entry.expectation",
        broken: "        timeout,
        nat: None,
        ..entry.expectation",
        found_as: &["no invention"],
    },
    Bug {
        what: "an expectation that the peer has missed is not sent again",
        file: "replica/src/expectations.rs",
        sound: "self.missed.push_back(version);",
        broken: "let _ = version;",
        found_as: &["expectation"],
    },
    Bug {
        what: "a delete by injection leaves the internal entry",
        file: "replica/src/replica/inject.rs",
        sound: "            self.injection_deleted(key);",
        broken: "            let _ = (key, Self::injection_deleted);",
        found_as: &["no ghost"],
    },
    Bug {
        what: "a late message takes a flow back to what it was",
        file: "replica/src/replica/deliver.rs",
        sound: "                !is_of_this_epoch || note.seq.before(seq)",
        broken: "                !is_of_this_epoch || note.seq != seq",
        found_as: &[
            "no going back",
            "no resurrection",
            "acknowledged means kept",
        ],
    },
    Bug {
        what: "a bulk update ends what it has announced itself",
        file: "replica/src/replica/holdings.rs",
        sound: "            !since.before(seq) || is_of_former_epoch",
        broken: "            since.before(seq) || is_of_former_epoch",
        found_as: &["acknowledged means kept", "liveness"],
    },
    Bug {
        // It was there: the model read each part of a dump as soon as it was filled.
        what: "a late part of a dump brings back what has ended",
        file: "replica/src/replica/sweep.rs",
        sound: "Some(Heard::Written | Heard::Ended) => return self.seen(&flow.key()),",
        broken: "Some(Heard::Written | Heard::Ended) => {}",
        found_as: &["no ghost", "no resurrection", "no going back", "no echo"],
    },
];

const CRATES: &[&str] = &["flow", "wire", "cache", "counters", "replica", "sim"];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            // A file that has not changed keeps its age, and is not built again.
            let text = fs::read(entry.path()).unwrap();
            if fs::read(&target).ok().as_ref() != Some(&text) {
                fs::write(target, text).unwrap();
            }
        }
    }
}

fn build(dir: &Path) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(dir)
        .args(["build", "--offline", "--profile", "tests"])
        .args(["--package", "ftfw-sim"])
        .env("CARGO_TARGET_DIR", dir.join("target"));
    let out = cargo.output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "the copy does not build:\n{text}");
    dir.join("target/tests/ftfw-sim")
}

#[test]
fn each_planted_bug_is_found() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let root = crates.parent().unwrap();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted");
    let copy_all = || {
        for name in CRATES {
            copy(&crates.join(name), &dir.join("crates").join(name));
        }
        for name in ["Cargo.toml", "Cargo.lock"] {
            fs::copy(root.join(name), dir.join(name)).unwrap();
        }
    };
    copy_all();
    for bug in BUGS {
        let path = dir.join("crates").join(bug.file);
        let sound = fs::read_to_string(&path).unwrap();
        assert_eq!(sound.matches(bug.sound).count(), 1, "{}: where?", bug.what);
        fs::write(&path, sound.replace(bug.sound, bug.broken)).unwrap();
        let program = build(&dir);
        let mut sim = Command::new(program);
        let out = sim
            .args(["--seeds", "300", "--stop", "--threads", "1"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(
            !out.status.success() && bug.found_as.iter().any(|words| text.contains(words)),
            "{} is not found as {:?}:\n{text}",
            bug.what,
            bug.found_as
        );
        println!("{}:\n{text}", bug.what);
        copy_all();
    }
}
