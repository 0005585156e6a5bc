//! Pages of the book that list what is in the sources list all of it.

use std::collections::BTreeMap;
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
