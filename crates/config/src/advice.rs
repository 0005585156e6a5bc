//! What a message advises about a text that is no word of its section.

use std::fmt::{self, Display};

use crate::section::Section;
use crate::words::{WORDS, suggested};

/// Most slips in what may be meant for a word.
const SLIPS_MAX: usize = 3;

/// Advice about `text`, which may not stand in `section`. It is worked out when it is
/// formatted, since most advice about a binary is never shown.
pub(crate) struct Advice<'a> {
    pub(crate) text: &'a str,
    pub(crate) section: Section,
}

impl Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Advice { text, section } = *self;
        if let Some(word) = WORDS.iter().find(|w| w.word == text)
            && let Some(home) = word.home().block_name()
        {
            return write!(f, "`{}` belongs in {home}", word.word);
        }
        let near = suggested(section)
            .filter_map(|word| Some((slips(text, word, SLIPS_MAX)?, word)))
            .min();
        match near {
            Some((_, word)) => write!(f, "did you mean `{word}`?"),
            None => {
                let list: Vec<_> = suggested(section).collect();
                write!(f, "accepted here: {}", list.join(", "))
            }
        }
    }
}

/// True for a word of a block, and for what may be one with a slip in it.
pub(crate) fn is_like_a_word(text: &str) -> bool {
    let mut words = WORDS.iter().filter(|w| w.home().block_name().is_some());
    words.any(|w| w.word == text || (w.word.len() > 5 && slips(text, w.word, 2).is_some()))
}

/// Edit distance without regard to case, if it is at most `max`.
fn slips(a: &str, b: &str, max: usize) -> Option<usize> {
    // Also keeps a text of any length from being compared letter by letter.
    if a.len().abs_diff(b.len()) > max {
        return None;
    }
    let b: Vec<u8> = b.bytes().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = usize::from(ca.to_ascii_lowercase() != *cb);
            let best = (diagonal + cost).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    Some(row[b.len()]).filter(|n| *n <= max)
}
