//! Pages of the book that list what is in the sources list all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// In two parts of the name: this file uses none.
const KEYWORD: &str = concat!("un", "safe");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Goal: no use of the keyword without its reason in docs/unsafe.md. Method: uses are counted in each
/// file, and on the page.
#[test]
fn every_unsafe_block_is_on_its_page() {
    let mut used = BTreeMap::new();
    for folder in ["crates", "fuzz"] {
        count_below(&root().join(folder), &mut used);
    }
    let page = fs::read_to_string(root().join("docs/unsafe.md")).unwrap();
    let mut listed = BTreeMap::new();
    for [file, _, count, why] in rows(&page) {
        assert!(!why.is_empty(), "{file}: no reason");
        *listed.entry(file.trim_matches('`').to_owned()).or_default() += number(&count);
    }
    assert!(!used.is_empty(), "no file was read");
    assert_eq!(
        listed, used,
        "docs/unsafe.md has the left, the sources have the right"
    );
    let (blocks, files) = (used.values().sum::<usize>(), used.len());
    let sum = format!("{blocks} blocks in {files} files");
    assert!(page.contains(&sum), "docs/unsafe.md does not have: {sum}");
}

fn number(cell: &str) -> usize {
    cell.parse().unwrap_or_else(|_| panic!("no number: {cell}"))
}

/// Adds how often each file below a folder uses the keyword, by its path from the root.
fn count_below(folder: &Path, used: &mut BTreeMap<String, usize>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count_below(&path, used);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let count = uses(&fs::read_to_string(&path).unwrap());
            if count > 0 {
                let name = path.strip_prefix(root()).unwrap();
                used.insert(name.to_str().unwrap().to_owned(), count);
            }
        }
    }
}

/// How often the keyword stands before what it can stand before: a block or an item. In comments, and
/// as a word of a message, it does not count.
fn uses(text: &str) -> usize {
    let code = text.lines().filter_map(|line| line.split("//").next());
    let code = code.collect::<Vec<_>>().join("\n");
    let parts: Vec<&str> = code.split(KEYWORD).collect();
    let is_use = |pair: &[&str]| {
        let is_word = !pair[0].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let next = pair[1].trim_start();
        let items = ["{", "(", "fn ", "impl ", "impl<", "trait ", "extern "];
        is_word && items.iter().any(|item| next.starts_with(item))
    };
    parts.windows(2).filter(|pair| is_use(pair)).count()
}

#[test]
fn uses_are_counted_and_words_are_not() {
    for (text, count) in [
        ("let a = KEYWORD { call() };\nlet b = KEYWORD {\n};", 2),
        ("KEYWORD fn a() {}\nKEYWORD impl<T> Send for A<T> {}", 2),
        (
            "#[KEYWORD(no_mangle)]\npub KEYWORD extern \"C\" fn a() {}",
            2,
        ),
        ("// KEYWORD { }\n\"3 passed, 2 KEYWORD, 1\"", 0),
        ("unshare_KEYWORD(a); #![forbid(KEYWORD_code)]", 0),
    ] {
        assert_eq!(uses(&text.replace("KEYWORD", KEYWORD)), count, "{text}");
    }
}

/// Goal: the licence of every package is known. Method: packages and versions in the tables of
/// docs/upkeep.md are those of Cargo.lock; a version has one licence.
#[test]
fn every_package_is_listed_with_its_licence() {
    let page = fs::read_to_string(root().join("docs/upkeep.md")).unwrap();
    let (_, tables) = page.split_once("## The packages").unwrap();
    let mut listed = BTreeSet::new();
    for [name, version, licence] in rows(tables) {
        assert!(!licence.is_empty(), "{name}: no licence");
        let package = format!("{} {version}", name.trim_matches('`'));
        assert!(listed.insert(package), "{name} {version} is there twice");
    }
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let locked: BTreeSet<String> = lock
        .split("[[package]]")
        .filter_map(locked_package)
        .collect();
    let differ: Vec<&String> = listed.symmetric_difference(&locked).collect();
    assert!(
        differ.is_empty() && locked.len() > 50,
        "only in one of docs/upkeep.md and Cargo.lock: {differ:?}; scripts/licences writes the page"
    );
}

/// Name and version of a package that comes from a registry.
fn locked_package(entry: &str) -> Option<String> {
    let value = |key: &str| {
        let line = entry.lines().find(|line| line.starts_with(key))?;
        line.split('"').nth(1)
    };
    value("source = ")?;
    Some(format!("{} {}", value("name = ")?, value("version = ")?))
}

/// The rows of the tables of a page that have so many cells, without the heads.
fn rows<const CELLS: usize>(page: &str) -> Vec<[String; CELLS]> {
    let mut rows = Vec::new();
    let mut is_body = false;
    for line in page.lines() {
        let Some(row) = line.strip_prefix('|').and_then(|l| l.strip_suffix('|')) else {
            is_body = false;
            continue;
        };
        if row.starts_with("--") {
            is_body = true;
        } else if is_body {
            let cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
            rows.extend(<[String; CELLS]>::try_from(cells).ok());
        }
    }
    rows
}
