//! What the table of words can express: where a word stands, what follows it, what is done
//! with that, and what messages report about it.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::draft::Draft;
use crate::lexer::Token;
use crate::section::Section;
use crate::words::suggested;

/// What follows a word, and what is done with it.
pub(crate) enum Part {
    /// Nothing follows; this is done.
    Do(fn(&mut Draft)),
    /// A number that fits into a C `int`.
    Number(fn(&mut Draft, u32)),
    /// `on`, `yes`, `off` or `no` in any case.
    Switch(fn(&mut Draft, bool)),
    /// A switch, or something else.
    SwitchOr(fn(&mut Draft, bool), &'static Part),
    /// An absolute path of at most so many bytes.
    Path(usize, fn(&mut Draft, PathBuf)),
    /// A name.
    Name(fn(&mut Draft, &Token<'_>)),
    /// An address of one family.
    Address(Family, fn(&mut Draft, IpAddr)),
    /// Any text; the form is for messages.
    Text(&'static str, fn(&mut Draft, &Token<'_>)),
    /// A word of this section.
    OneOf(Section),
    /// A word of this section, or nothing.
    MaybeOneOf(Section),
    /// A block of names.
    Names(fn(&mut Draft, &[&Token<'_>])),
    /// A block of words of this section.
    Block(Section),
}

impl Part {
    /// How a message writes it.
    pub(crate) fn form(&self) -> String {
        match self {
            Part::Number(_) => "NUMBER".to_owned(),
            Part::Switch(_) => "on | off".to_owned(),
            Part::SwitchOr(_, Part::Names(_)) => "on | off | { NAME ... }".to_owned(),
            Part::SwitchOr(_, other) => format!("on | off | {}", other.form()),
            Part::Path(..) => "/PATH".to_owned(),
            Part::Name(_) => "NAME".to_owned(),
            Part::Address(..) => "ADDRESS".to_owned(),
            Part::Text(form, _) => (*form).to_owned(),
            Part::OneOf(section) | Part::MaybeOneOf(section) => {
                suggested(*section).collect::<Vec<_>>().join(" | ")
            }
            Part::Names(_) | Part::Block(_) => "{ ... }".to_owned(),
            Part::Do(_) => String::new(),
        }
    }

    /// What a message names as accepted.
    pub(crate) fn accepted(&self) -> String {
        match self {
            Part::Number(_) => {
                "a number from 0 to 2147483647, decimal, without sign or unit".to_owned()
            }
            Part::Switch(_) => "on, yes, off, no".to_owned(),
            Part::SwitchOr(_, other) => format!("on, yes, off, no, {}", other.accepted()),
            Part::Path(..) => "an absolute path".to_owned(),
            Part::Name(_) => "a name".to_owned(),
            Part::Address(Family::V4, _) => "an IPv4 address".to_owned(),
            Part::Address(Family::V6, _) => "an IPv6 address".to_owned(),
            Part::OneOf(section) | Part::MaybeOneOf(section) => {
                suggested(*section).collect::<Vec<_>>().join(", ")
            }
            Part::Names(_) => "a block of names".to_owned(),
            Part::Text(..) | Part::Block(_) | Part::Do(_) => self.form(),
        }
    }
}

/// Family of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// An address of this family.
    pub(crate) fn parse(self, text: &str) -> Option<IpAddr> {
        let address: IpAddr = text.parse().ok()?;
        (address.is_ipv6() == (self == Family::V6)).then_some(address)
    }
}

/// What is reported about a word that is understood.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note {
    /// Nothing.
    Quiet,
    /// This warning.
    Warning(&'static str),
    /// The word is an old spelling of this one.
    Deprecated(&'static str),
    /// The word is understood here, though it belongs elsewhere.
    Misplaced(&'static str),
}

/// What a word means in some sections.
pub(crate) struct Use {
    pub(crate) sections: &'static [Section],
    pub(crate) parts: &'static [Part],
    pub(crate) note: Note,
}

impl Use {
    /// The same with a note.
    pub(crate) const fn note(self, note: Note) -> Use {
        Use { note, ..self }
    }

    /// A message suggests the word.
    pub(crate) fn is_suggested(&self) -> bool {
        !matches!(self.note, Note::Deprecated(_) | Note::Misplaced(_))
    }
}

/// A word and its meanings.
pub(crate) struct Word {
    pub(crate) word: &'static str,
    pub(crate) uses: &'static [Use],
}

impl Word {
    pub(crate) fn use_in(&self, section: Section) -> Option<&Use> {
        self.uses.iter().find(|u| u.sections.contains(&section))
    }

    /// Where the word belongs first of all.
    pub(crate) fn home(&self) -> Section {
        self.uses[0].sections[0]
    }
}
