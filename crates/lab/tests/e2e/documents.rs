//! What the documents promise of these tests.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The table of weak points has all of them in order, and each end-to-end test that it names
/// exists; a name may end with `*`.
pub(crate) fn weak_points(names: &[&str]) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let text = std::fs::read_to_string(docs)?;
    let (_, section) = (text.split_once("## Weak points of conntrackd")).context("no section")?;
    let rows: Vec<&str> = (section.lines().filter(|l| l.starts_with("| ")))
        .skip(1)
        .collect();
    let numbers = rows
        .iter()
        .filter_map(|row| row[2..].split(' ').next()?.parse::<usize>().ok());
    ensure!(numbers.eq(1..=44), "{rows:#?}");
    for row in rows {
        for name in row
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|n| n.contains('/'))
        {
            let exists = match name.strip_suffix('*') {
                Some(begin) => names.iter().any(|n| n.starts_with(begin)),
                None => names.contains(&name),
            };
            ensure!(exists, "no test `{name}`: {row}");
        }
    }
    Ok(())
}
