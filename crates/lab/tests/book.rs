//! The book is whole: every page is in the table of contents, and every link leads somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All pages below a folder.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|e| e == "md") {
            found.push(path);
        }
    }
    found
}

/// Targets of the links of a page that lead to files.
fn targets(text: &str) -> Vec<&str> {
    let behind = text.split("](").skip(1);
    let target = behind.filter_map(|rest| rest.split_once(')'));
    target
        .map(|(target, _)| target.split('#').next().unwrap_or(target))
        .filter(|t| !t.is_empty() && !t.contains("://") && !t.contains(' '))
        .collect()
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<PathBuf> = targets(&summary).iter().map(|t| docs.join(t)).collect();
    let all = pages(&docs);
    assert!(all.len() > 15, "{all:?}");
    for page in all {
        assert!(
            listed.contains(&page) || page.ends_with("SUMMARY.md"),
            "{} is not in SUMMARY.md",
            page.display()
        );
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    let mut all = pages(&root().join("docs"));
    all.extend(
        [
            "README.md",
            "ARCHITECTURE.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
        ]
        .map(|p| root().join(p)),
    );
    for page in all {
        let text = fs::read_to_string(&page).unwrap();
        for target in targets(&text) {
            let to = page.parent().unwrap().join(target);
            assert!(to.exists(), "{}: {target}", page.display());
            links += 1;
        }
    }
    assert!(links > 40, "{links}");
}
