//! The commands of the book and of README are commands of the program, and its configurations
//! are good.

use std::fs;
use std::path::{Path, PathBuf};

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md")];
    for folder in ["docs", "docs/setups"] {
        let entries = fs::read_dir(root.join(folder)).unwrap().flatten();
        let files = entries.map(|e| e.path());
        pages.extend(files.filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    pages
}

/// What stands between fences.
fn blocks(text: &str) -> Vec<&str> {
    text.split("\n```").skip(1).step_by(2).collect()
}

/// The words of each call of ours in a line, without what a shell does with it.
fn calls(line: &str) -> Vec<Vec<String>> {
    let line = line.split(" #").next().unwrap().replace("2>", ">");
    let parts = line.split(['|', ';', '>']).flat_map(|p| p.split("&&"));
    let words = parts.map(|part| part.split_whitespace().collect::<Vec<_>>());
    words
        .filter_map(|words| {
            let at = words
                .iter()
                .position(|w| w.ends_with("ftfw") && !w.contains("ftfw_"))?;
            let before = &words[..at];
            let is_call = before.is_empty() || before[0] == "ssh";
            // `systemctl enable ftfw`, and a picture, are no calls.
            let owned = || words[at..].iter().map(|w| (*w).to_owned()).collect();
            (is_call && words.len() > at + 1).then(owned)
        })
        .collect()
}

#[test]
fn the_commands_of_the_book_exist() {
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for call in blocks(&text).iter().flat_map(|b| b.lines()).flat_map(calls) {
            // Tables of figures begin with a program's name, too.
            if call[1].starts_with(|c: char| !c.is_ascii_lowercase() && c != '-')
                || call[1] == "ftfw"
            {
                continue;
            }
            let words = call.iter().map(|w| w.trim_matches(['"', '\'']));
            if let Err(e) = cli::own::command().try_get_matches_from(words)
                && e.exit_code() != 0
            {
                panic!("{}: {call:?}: {e}", page.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} commands");
}

#[test]
fn the_configurations_of_the_book_are_good() {
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for block in blocks(&text) {
            let block = block.split_once('\n').map_or("", |(_, rest)| rest);
            let begins = block.lines().find(|l| !l.starts_with('#') && !l.is_empty());
            if !begins.is_some_and(|l| l.starts_with("General {")) {
                continue;
            }
            let parsed = config::parse(block);
            let name = page.display().to_string();
            assert!(
                parsed.config.is_some(),
                "{}",
                parsed.render(&name, block, false)
            );
            seen += 1;
        }
    }
    assert!(seen > 2, "{seen} configurations");
}
