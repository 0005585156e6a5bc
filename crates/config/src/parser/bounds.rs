//! Goal: whatever the file is, the work and the output are bounded, and what is printed
//! cannot control a terminal.
//! Method: 1 MB of many kinds, judged by the number of diagnostics that are kept, by their
//! length, and by the length of what is printed. No test measures time: a parser whose work
//! is not linear in the input, as one that renders every diagnostic, does not end here.

use super::*;
use crate::words::WORDS;
use crate::{Config, SHOWN_MAX, Severity};

const SIZE: usize = 1 << 20;
/// A diagnostic is at most seven lines of at most about 140 characters.
const PRINTED_MAX: usize = SHOWN_MAX * 1200;

fn megabyte(unit: &str) -> String {
    unit.repeat(SIZE / unit.len())
}

/// Parses a text and checks all that is bounded; returns what is printed.
fn bounded(text: &str) -> (Parsed, String) {
    let parsed = parse(text);
    let of = |severity| move |d: &&crate::Diagnostic| d.severity == severity;
    for (severity, count) in [
        (Severity::Error, parsed.errors),
        (Severity::Warning, parsed.warnings),
    ] {
        let kept = parsed.diagnostics.iter().filter(of(severity)).count();
        assert_eq!(kept, count.min(SHOWN_MAX));
    }
    for d in &parsed.diagnostics {
        assert!(d.message.len() < 400, "{}", d.message);
        assert!(d.help.as_ref().is_none_or(|h| h.len() < 800));
    }
    let printed = parsed.render("x.conf", text, false);
    assert!(printed.len() <= PRINTED_MAX, "{}", printed.len());
    let lines = parsed.warning_lines("x.conf", text);
    assert!(lines.len() <= SHOWN_MAX + 1);
    for line in lines.iter().map(String::as_str).chain(printed.split('\n')) {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    (parsed, printed)
}

#[test]
fn a_megabyte_of_random_bytes() {
    let mut random = fastrand::Rng::with_seed(1);
    let bytes: Vec<u8> = (0..SIZE).map(|_| random.u8(..)).collect();
    let (parsed, printed) = bounded(&String::from_utf8_lossy(&bytes));
    assert!(parsed.config.is_none());
    assert!(parsed.errors > SIZE / 10);
    let more = format!("\nand {} more errors\n", parsed.errors - SHOWN_MAX);
    assert!(printed.contains(&more), "{printed}");
    assert_eq!(printed.matches("error: ").count(), SHOWN_MAX);
}

#[test]
fn a_megabyte_of_control_characters() {
    let mut random = fastrand::Rng::with_seed(2);
    let pieces = [
        "\u{1b}[2J",
        "\u{9b}31m",
        "\r",
        "\u{7}",
        "\u{202e}",
        "/a",
        "{",
        "x",
        "\n",
        "\0",
    ];
    let mut text = String::new();
    while text.len() < SIZE {
        text.push_str(pieces[random.usize(..pieces.len())]);
    }
    bounded(&text);
}

#[test]
fn a_megabyte_that_looks_like_a_file() {
    for unit in [
        "Sync { Mode FTFW { HashLimt 10 Foo bar } UDP { Nothing here } }\nGeneral { }\n",
        "General { HashLimit x LogFile UNIX { Path } Filter { State Accept { CLOSE } } }\n",
        "Sync { UDP { Interface a Port 1 } } ",
        "Sistem on Hashlimits 5 ",
        "abc5 ",
        "General { Filter { ",
        "Helper { Type a inet tcp { Policy b { ",
        "{ ",
        "} ",
        "{ } ",
        "Sync ",
        "Mode Mode { ",
    ] {
        let (parsed, _) = bounded(&megabyte(unit));
        assert!(parsed.errors > 0, "{unit}");
        assert!(parsed.config.is_none(), "{unit}");
    }
}

#[test]
fn a_text_of_a_megabyte() {
    for text in [megabyte("a"), megabyte("/"), megabyte("/{"), megabyte("1")] {
        for before in ["", "General { LockFile ", "Sync { UDP { Interface "] {
            let (parsed, _) = bounded(&format!("{before}{text}"));
            assert!(parsed.errors > 0);
        }
    }
}

#[test]
fn a_megabyte_of_warnings_is_a_good_file() {
    let text = format!("General {{ {} }}", megabyte("HashSize 1 "));
    let (parsed, printed) = bounded(&text);
    assert!(parsed.config.is_some());
    assert_eq!(parsed.warnings, SIZE / 11);
    let more = format!("and {} more warnings", parsed.warnings - SHOWN_MAX);
    assert!(printed.ends_with(&more), "{printed}");
    let lines = parsed.warning_lines("x.conf", &text);
    assert_eq!(lines.last(), Some(&format!("x.conf: {more}")));
}

#[test]
fn a_file_of_a_megabyte_is_read_whole() {
    let network = "IPv4_address 10.0.0.0/8\n";
    let text = format!(
        "General {{ Filter {{ Address Ignore {{\n{}}} }} }}",
        megabyte(network)
    );
    let (parsed, printed) = bounded(&text);
    assert_eq!(printed, "");
    let Config { filter, .. } = parsed.config.unwrap();
    assert_eq!(filter.addresses.unwrap().1.len(), SIZE / network.len());
}

#[test]
fn the_first_errors_of_the_file_are_shown() {
    // A character that belongs nowhere is found before any word is looked at.
    let text = format!("{}\u{e9}", "General { Foo }\n".repeat(SHOWN_MAX));
    let parsed = parse(&text);
    let lines: Vec<_> = parsed.diagnostics.iter().map(|d| d.line(&text)).collect();
    assert_eq!(lines, (1..=SHOWN_MAX).collect::<Vec<_>>());
    let printed = parsed.render("x", &text, false);
    assert!(
        printed.ends_with("\nand 1 more error\nx: 21 errors"),
        "{printed}"
    );
}

#[test]
fn control_characters_of_a_file_are_escaped() {
    let text = "General { LockFile x\u{1b}[2J\u{9b}31m UNIX { Path a } Syslog /\u{1b}]0;a\u{7} }";
    let (parsed, _) = bounded(text);
    let messages: Vec<_> = parsed.diagnostics.iter().map(|d| &*d.message).collect();
    for wanted in [
        "character `\\u{1b}` belongs nowhere in this language",
        "character `\\u{9b}` belongs nowhere in this language",
        "`/\\u{1b}]0;a\\u{7}` is no known syslog facility, ignored",
    ] {
        assert!(messages.contains(&wanted), "{wanted}: {messages:?}");
    }
}

#[test]
fn blocks_within_each_other_are_bounded() {
    let deep = |n: usize| {
        let open = "Type ftp inet tcp { ".repeat(n);
        parse(&format!("Helper {{ {open} {} }}", "}".repeat(n)))
    };
    assert_eq!(deep(15).errors, 0);
    let parsed = deep(10_000);
    assert_eq!(parsed.errors, 1);
    let message = "more than 16 blocks within each other";
    assert_eq!(parsed.diagnostics[1].message, message);
}

/// Every section whose words may be read, from the file on.
fn sections() -> Vec<Section> {
    let mut found = vec![Section::File];
    let mut next = 0;
    while let Some(&section) = found.get(next) {
        next += 1;
        for what in WORDS.iter().filter_map(|w| w.use_in(section)) {
            for part in what.parts {
                let part = match part {
                    Part::SwitchOr(_, other) => *other,
                    part => part,
                };
                if let Part::Block(s) | Part::OneOf(s) | Part::MaybeOneOf(s) = part
                    && !found.contains(s)
                {
                    found.push(*s);
                }
            }
        }
    }
    found
}

#[test]
fn every_word_of_the_table_can_be_written() {
    let sections = sections();
    for word in WORDS {
        for section in word.uses.iter().flat_map(|u| u.sections) {
            assert!(sections.contains(section), "{}: {section:?}", word.word);
        }
    }
}

#[test]
fn no_word_has_two_meanings_in_a_section() {
    for section in sections() {
        let here: Vec<_> = (WORDS.iter())
            .flat_map(|w| w.uses.iter().map(move |u| (w.word, u)))
            .filter(|(_, u)| u.sections.contains(&section))
            .map(|(word, _)| word.to_ascii_lowercase())
            .collect();
        for word in &here {
            let count = here.iter().filter(|w| *w == word).count();
            assert_eq!(count, 1, "{word} in {section:?}");
        }
    }
}
