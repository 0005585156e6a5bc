//! The paths of `bench::paths` take no more instructions than were accepted.
//!
//! Goal: a change that makes a hot path dearer is noticed, also on a machine whose clocks are
//! noise. Method: valgrind counts the instructions of `target/release/ftfw-bench repeat`, once
//! for some repetitions and once for twice as many; the difference is that of the path. The
//! counts per flow in `instructions.txt` were made by the compiler that it names; those of
//! another one may differ by more. Without valgrind the test is skipped, and says so. With
//! `FTFW_NO_SKIP=1` that is a failure.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bench::paths::{self, Path};

/// Counts may differ by this part, and those of two compilers by that.
const TOLERANCE: f64 = 0.03;
const TOLERANCE_OF_COMPILERS: f64 = 0.2;
const TIMES: u32 = 10;
const ACCEPT: &str = "FTFW_ACCEPT=1 cargo test --profile tests -p ftfw-bench --test instructions";
/// The C library copies memory as the processor likes it best: all processors are alike here.
const ALIKE: &str = "glibc.cpu.hwcaps=-AVX512VL,-AVX512F,-AVX2,-AVX,-AVX2_Usable,-AVX_Usable,\
                     -AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-SSSE3,-Fast_Copy_Backward";

#[test]
fn no_path_takes_more_instructions_than_were_accepted() {
    let compiler = match what_counts_depend_on() {
        Ok(compiler) => compiler,
        Err(why) => return skip(&why),
    };
    let accepted = fs::read_to_string(accepted_file()).unwrap_or_default();
    let accepts = env::var_os("FTFW_ACCEPT").is_some();
    let counts = paths::ALL.map(|path| (path.name, instructions_a_flow(path)));
    if accepts {
        let mut text = compiler + "\n";
        for (name, count) in counts {
            let _ = writeln!(text, "{name} {count}");
        }
        return fs::write(accepted_file(), text).expect("the file of counts is writable");
    }
    let made_by = accepted.lines().next().unwrap_or_default();
    let tolerance = if made_by == compiler {
        TOLERANCE
    } else {
        eprintln!("counted by {compiler}, accepted from {made_by}: a wider bound");
        TOLERANCE_OF_COMPILERS
    };
    let differences = differences(&accepted, &counts, tolerance);
    assert!(
        differences.is_empty(),
        "instructions a flow differ by more than {:.0} % from those of {made_by}, this is \
         {compiler}:\n{differences}If that is worth it, accept them: {ACCEPT}",
        tolerance * 100.0
    );
}

/// What is not as it was accepted, a line each.
fn differences(accepted: &str, counts: &[(&str, u64)], tolerance: f64) -> String {
    let pairs = accepted.lines().filter_map(|line| line.split_once(' '));
    let old: BTreeMap<&str, u64> = pairs
        .filter_map(|(name, count)| Some((name, count.parse().ok()?)))
        .collect();
    let mut lines = String::new();
    for name in old
        .keys()
        .filter(|name| !counts.iter().any(|c| c.0 == **name))
    {
        let _ = writeln!(lines, "  {name}: accepted, and no path any more");
    }
    for (name, new) in counts {
        let _ = match old.get(name) {
            Some(old) => {
                let change = *new as f64 / *old as f64 - 1.0;
                if change.abs() <= tolerance {
                    continue;
                }
                let percent = change * 100.0;
                writeln!(
                    lines,
                    "  {name}: {old} accepted, {new} now ({percent:+.1} %)"
                )
            }
            None => writeln!(lines, "  {name}: {new} now, none accepted"),
        };
    }
    lines
}

fn accepted_file() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/instructions.txt"
    ))
}

fn program() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target
        .unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")));
    target.join("release/ftfw-bench")
}

/// The compiler; an error without what counting needs.
fn what_counts_depend_on() -> Result<String, String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err("the accepted counts are those of x86_64 and Linux".to_owned());
    }
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        let output = output.map_err(|e| format!("{program}: {e}"))?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    version("valgrind")?;
    version("rustc")
}

fn skip(why: &str) {
    assert!(env::var_os("FTFW_NO_SKIP").is_none(), "{why}");
    eprintln!("skipped: {why}");
}

fn instructions_a_flow(path: Path) -> u64 {
    // Both at once: there mostly are two CPUs.
    let [once, twice] = [TIMES, 2 * TIMES].map(|times| {
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args(["--tool=cachegrind", "--cache-sim=no"])
            .arg("--cachegrind-out-file=/dev/null")
            .arg(program())
            .args(["repeat", path.name, &times.to_string()])
            .env("GLIBC_TUNABLES", ALIKE)
            .stderr(Stdio::piped());
        valgrind.spawn().expect("valgrind starts")
    });
    let [once, twice] = [once, twice].map(|valgrind| {
        let output = valgrind.wait_with_output().expect("valgrind ends");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find_map(|l| l.split_once("refs:"));
        let count = line.and_then(|(_, count)| count.trim().replace(',', "").parse().ok());
        count
            .filter(|_| output.status.success())
            .unwrap_or_else(|| {
                panic!(
                    "{} {}: no count, is it built (cargo build --release)?\n{text}",
                    program().display(),
                    path.name
                )
            })
    });
    let each = u64::from(TIMES) * u64::from(Path::FLOWS);
    let both: u64 = twice;
    (both.saturating_sub(once) + each / 2) / each
}
