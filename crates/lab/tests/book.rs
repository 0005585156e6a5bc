//! The book is whole: every page is in the table of contents and reads as it was meant, and every
//! link leads somewhere. Method: the parser of mdBook, which `make book` runs, on every page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Pages beside the book. Their links count, too.
const OTHERS: [&str; 5] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
];

/// What mdBook understands beyond CommonMark.
const OPTIONS: Options = Options::ENABLE_TABLES
    .union(Options::ENABLE_FOOTNOTES)
    .union(Options::ENABLE_STRIKETHROUGH)
    .union(Options::ENABLE_TASKLISTS);

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
            found.push(plain(&path));
        }
    }
    found
}

/// The same path without `..` in it.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = plain.pop(),
            part => plain.push(part),
        }
    }
    plain
}

/// What the parser finds on a page.
#[derive(Debug, Default)]
struct Page {
    /// The names of the headings, as links have them.
    anchors: BTreeSet<String>,
    titles: usize,
    /// Targets of links and pictures.
    links: Vec<String>,
    pictures: Vec<String>,
    /// What is not shown as it was meant.
    faults: Vec<String>,
}

impl Page {
    fn read(text: &str) -> Page {
        let mut page = Page::default();
        let mut heading = None;
        let mut is_code = false;
        for (event, range) in Parser::new_ext(text, OPTIONS).into_offset_iter() {
            let source = &text[range];
            let fault = match &event {
                Event::Start(Tag::CodeBlock(_)) => {
                    is_code = true;
                    let is_fenced = source.starts_with("```");
                    let ends = source.len() > 6 && source.trim_end().ends_with("```");
                    (is_fenced && !ends).then_some("a block of code without an end")
                }
                Event::Start(Tag::Table(_)) => {
                    let cells = source.lines().map(cells).collect::<BTreeSet<_>>();
                    (cells.len() != 1).then_some("a table with rows of several lengths")
                }
                Event::Start(Tag::Image { .. }) => {
                    (source.starts_with("![]")).then_some("a picture without words")
                }
                Event::Start(Tag::Strikethrough) => Some("words that are struck through"),
                Event::Html(_) | Event::InlineHtml(_) => Some("words that are taken for HTML"),
                Event::Text(words)
                    if !is_code && (words.contains('`') || words.contains("|--")) =>
                {
                    Some("marks that are no code and no table")
                }
                _ => None,
            };
            let first = source.lines().next().unwrap_or_default();
            page.faults
                .extend(fault.map(|what| format!("{what}: {first}")));
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(level)) => {
                    page.titles += usize::from(level as usize == 1);
                    page.anchors
                        .extend(heading.take().map(|words| anchor(&words)));
                }
                Event::End(TagEnd::CodeBlock) => is_code = false,
                Event::Start(Tag::Link { dest_url, .. }) => page.links.push(dest_url.into_string()),
                Event::Start(Tag::Image { dest_url, .. }) => {
                    page.pictures.push(dest_url.into_string());
                }
                Event::Text(words) | Event::Code(words) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&words);
                    }
                }
                _ => {}
            }
        }
        page
    }
}

/// How many cells a row of a table has. A bar behind a backslash is none.
fn cells(row: &str) -> usize {
    row.replace("\\|", "").matches('|').count()
}

/// The name of a heading in links: mdBook's, and that of the places where the sources are read.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let kept = heading.trim().chars().filter(kept);
    kept.map(|c| if c == ' ' { '-' } else { c })
        .flat_map(char::to_lowercase)
        .collect()
}

fn all() -> BTreeMap<PathBuf, Page> {
    let others = OTHERS.map(|page| plain(&root().join(page)));
    let all = pages(&root().join("docs")).into_iter().chain(others);
    all.map(|path| {
        let page = Page::read(&fs::read_to_string(&path).unwrap());
        (path, page)
    })
    .collect()
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let docs = plain(&root().join("docs"));
    let summary = Page::read(&fs::read_to_string(docs.join("SUMMARY.md")).unwrap());
    let listed: BTreeSet<PathBuf> = summary.links.iter().map(|t| docs.join(t)).collect();
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
fn every_page_reads_as_it_was_meant() {
    for (path, page) in all() {
        assert!(
            page.faults.is_empty(),
            "{}: {:#?}",
            path.display(),
            page.faults
        );
        assert!(page.titles > 0, "{} has no title", path.display());
    }
}

#[test]
fn every_link_leads_somewhere() {
    let docs = plain(&root().join("docs"));
    let pages = all();
    let (mut links, mut anchors) = (0, 0);
    for (path, page) in &pages {
        let name = path.display();
        for link in page.links.iter().chain(&page.pictures) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = match file {
                "" => path.clone(),
                file => plain(&path.parent().unwrap().join(file)),
            };
            assert!(to.exists(), "{name}: {link}");
            // What lies outside is not in the built book, and SUMMARY.md is no page of it.
            let is_built = to.starts_with(&docs) && !to.ends_with("SUMMARY.md");
            assert!(is_built || !path.starts_with(&docs), "{name}: {link}");
            links += 1;
            if !anchor.is_empty() {
                assert!(pages[&to].anchors.contains(anchor), "{name}: {link}");
                anchors += 1;
            }
        }
    }
    assert!(
        links > 40 && anchors > 1,
        "{links} links, {anchors} anchors"
    );
}

#[test]
fn faults_are_found() {
    for text in [
        "```\ncode",
        "| a | b |\n|---|---|\n| `c|d` | e |\n",
        "![](picture.svg)",
        "from ~~5 to 6~~",
        "`ftfw flows` of <NAME>",
        "a mark ` alone",
        "words\n| a | b |\n|--|\n",
    ] {
        assert!(!Page::read(text).faults.is_empty(), "{text}");
    }
    let good = "# Is `it` safe?\n\n| a | b |\n|---|---|\n| `c\\|d` | e |\n\n```\n<a> | ~~ `\n```\n";
    let page = Page::read(good);
    assert!(page.faults.is_empty(), "{page:?}");
    assert_eq!(page.anchors, ["is-it-safe".to_owned()].into());
}
