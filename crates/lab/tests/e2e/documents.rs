//! What the documents promise of these tests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lab::faults::FAULTS;
use lab::setups;

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

/// Each set-up has a chapter that shows every one of its files as it is.
pub(crate) fn chapters() -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/setups");
    for entry in std::fs::read_dir(setups::folder())? {
        let folder = entry?.path();
        if !folder.is_dir() {
            continue;
        }
        let name = folder.file_name().context("a name")?;
        let chapter = docs.join(name).with_extension("md");
        let text = std::fs::read_to_string(&chapter)
            .with_context(|| format!("read {}", chapter.display()))?;
        for file in files(&folder)? {
            let shown = format!("```\n{}```\n", std::fs::read_to_string(&file)?);
            let (chapter, file) = (chapter.display(), file.display());
            ensure!(
                text.contains(&shown),
                "{chapter} does not show {file} as it is"
            );
        }
    }
    Ok(())
}

/// All files of a folder and of the folders in it.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// Each fault has a row in the table of the book, and an end-to-end test of its short form.
pub(crate) fn faults(names: &[&str]) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/faults.md");
    let text = std::fs::read_to_string(docs)?;
    for fault in FAULTS {
        let row = format!("| `{}`: {} |", fault.name, fault.done);
        ensure!(text.contains(&row), "docs/faults.md has no {row}");
        let own = format!("faults/{}", fault.name);
        let test = fault.test.unwrap_or(&own);
        ensure!(names.contains(&test), "no test `{test}`");
    }
    Ok(())
}
