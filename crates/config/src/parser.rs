//! Syntax tree → [`Config`](crate::Config): walks the tree and does what the table of words
//! prescribes. No word has a meaning here.
//!
//! After an error the parser passes over the word and its value and goes on, so
//! that all that is wrong is reported at once. A brace that is not closed is shown where it
//! opens.

use std::fmt::Display;
use std::path::PathBuf;

use crate::Parsed;
use crate::advice::{Advice, is_like_a_word};
use crate::diagnostic::{Diagnostics, Quote, Span};
use crate::draft::{Draft, Item};
use crate::lexer::{Kind, Token, tokens};
use crate::meaning::{Note, Part, Use, Word};
use crate::section::Section;
use crate::tree::{Block, Cursor, Node, tree};
use crate::words::find;

/// Numbers are C `int`s to the original, which wraps larger ones silently.
const NUMBER_MAX: u64 = i32::MAX as u64;

/// Parses a file's text.
pub fn parse(text: &str) -> Parsed {
    let mut diagnostics = Diagnostics::default();
    let tokens = tokens(text, &mut diagnostics);
    let file = tree(text, tokens, &mut diagnostics);
    let mut parser = Parser {
        draft: Draft::new(diagnostics),
    };
    parser.words_of(&file, Section::File);
    let (config, diagnostics) = parser.draft.finish(text);
    let (errors, warnings) = diagnostics.counts();
    Parsed {
        config: (errors == 0).then_some(config),
        diagnostics: diagnostics.into_sorted(),
        errors,
        warnings,
    }
}

struct Parser {
    draft: Draft,
}

impl Parser {
    fn error(&mut self, span: Span, message: impl Display, help: impl Display) {
        self.draft.diagnostics.error(span, message, help);
    }

    fn warn(&mut self, span: &Span, message: impl Display) {
        self.draft.diagnostics.warn(span.clone(), message);
    }

    /// The innermost word that is being read.
    fn word(&self) -> &'static str {
        self.draft.path.last().map_or("", |item| item.word)
    }

    // ---- blocks ----

    /// Reads the words of a block, or of the file.
    fn words_of(&mut self, block: &Block<'_>, section: Section) {
        let mut nodes = block.cursor();
        while let Some(token) = self.next_word(&mut nodes) {
            // Behind a brace that is missing stand words that would be outside.
            let outside = || find(token.text, Section::File).filter(|_| !block.is_closed);
            match find(token.text, section).or_else(outside) {
                Some((word, what)) => {
                    self.note_case(token, word, section);
                    self.read_all(token, word, what, &mut nodes);
                }
                None => self.unknown(token, section, &mut nodes),
            }
        }
        self.check_closed(block);
    }

    /// The next text of a block that may be a word; reports what stands there instead.
    fn next_word<'t, 'a>(&mut self, nodes: &mut Cursor<'t, 'a>) -> Option<&'t Token<'a>> {
        loop {
            match nodes.next()? {
                Node::Text(token) if token.kind == Kind::Path => self.error(
                    token.span.clone(),
                    "a path without a word",
                    "write before the path what it is",
                ),
                Node::Text(token) => return Some(token),
                Node::Block(block) => self.error(
                    block.open.clone(),
                    "a block without a word",
                    "write before the brace what the block is",
                ),
                Node::Close(span) => self.error(
                    span.clone(),
                    "this brace closes nothing",
                    "remove it, or look for a block closed too early",
                ),
            }
        }
    }

    fn check_closed(&mut self, block: &Block<'_>) {
        if let Some(item) = self.draft.path.last()
            && !block.is_closed
        {
            let Item { word, span } = item.clone();
            let message = format_args!("the block of `{word}` is not closed");
            self.error(span, message, "add the missing `}`");
        }
    }

    /// Reads a word of a block. The block after a bad value is no block without a word.
    fn read_all(
        &mut self,
        token: &Token<'_>,
        word: &'static Word,
        what: &'static Use,
        nodes: &mut Cursor<'_, '_>,
    ) {
        if !self.read(token, word, what, nodes) {
            nodes.next_block();
        }
    }

    /// Reads what follows a word, and does what the table prescribes; false if the last part is
    /// missing or bad.
    fn read(
        &mut self,
        token: &Token<'_>,
        word: &'static Word,
        what: &'static Use,
        nodes: &mut Cursor<'_, '_>,
    ) -> bool {
        let word = word.word;
        let span = &token.span;
        match what.note {
            Note::Quiet => {}
            Note::Warning(text) | Note::Misplaced(text) => self.warn(span, text),
            Note::Deprecated(instead) => self.warn(
                span,
                format_args!("`{word}` is deprecated: write `{instead}`"),
            ),
        }
        self.draft.path.push(Item {
            word,
            span: span.clone(),
        });
        let mut is_good = true;
        for part in what.parts {
            is_good = self.part(part, nodes);
        }
        self.draft.path.pop();
        is_good
    }

    /// Warns if a word is not spelt as it should be.
    fn note_case(&mut self, token: &Token<'_>, word: &Word, section: Section) {
        let (text, word) = (token.text, word.word);
        if text != word && !section.is_any_case() {
            let message =
                format_args!("`{text}` is taken for `{word}`: conntrackd would refuse it");
            self.warn(&token.span, message);
        }
    }

    /// A text that is no word of this section: reports it, passes over it and its value.
    fn unknown(&mut self, token: &Token<'_>, section: Section, nodes: &mut Cursor<'_, '_>) {
        let text = token.text;
        let place = section.block_name().unwrap_or_default();
        if section.understands_general()
            && let Some((word, what)) = find(text, Section::General)
            && word.word == text
            && word.home() == Section::General
        {
            let message = format_args!("`{text}` belongs in General, not in {place}");
            self.warn(&token.span, message);
            return self.read_all(token, word, what, nodes);
        }
        self.error(
            token.span.clone(),
            format_args!("{} is not accepted in {place}", Quote(text)),
            Advice { text, section },
        );
        while let Some(node) = nodes.peek() {
            let is_end = match node {
                Node::Text(t) => t.kind == Kind::Atom && is_like_a_word(t.text),
                Node::Close(_) => true,
                Node::Block(_) => {
                    nodes.next();
                    true
                }
            };
            if is_end {
                return;
            }
            nodes.next();
        }
    }

    // ---- values ----

    /// Reads one part of what follows a word; false if it is missing or bad.
    fn part(&mut self, part: &'static Part, nodes: &mut Cursor<'_, '_>) -> bool {
        match part {
            Part::Block(section) => return self.block(nodes, |p, b| p.words_of(b, *section)),
            Part::Names(effect) => return self.block(nodes, |p, b| p.names_of(b, *effect)),
            Part::Do(effect) => {
                effect(&mut self.draft);
                return true;
            }
            Part::MaybeOneOf(section) => match nodes.peek() {
                Some(Node::Text(t)) if find(t.text, *section).is_some() => {}
                _ => return true,
            },
            Part::SwitchOr(_, Part::Names(effect))
                if matches!(nodes.peek(), Some(Node::Block(_))) =>
            {
                return self.block(nodes, |p, b| p.names_of(b, *effect));
            }
            _ => {}
        }
        let place = nodes.span();
        let Some(token) = nodes.next_text() else {
            let word = self.word();
            self.error(
                place,
                format_args!("`{word}` needs a value"),
                format_args!("write `{word} {}`", part.form()),
            );
            return false;
        };
        self.value(part, token, nodes)
    }

    /// Reads a value of one text, and what follows it if the text is a word.
    fn value(
        &mut self,
        part: &'static Part,
        token: &Token<'_>,
        nodes: &mut Cursor<'_, '_>,
    ) -> bool {
        let text = token.text;
        let is_path = token.kind == Kind::Path;
        let draft = &mut self.draft;
        match part {
            Part::Number(effect) => match as_number(text) {
                Some(n) => effect(draft, n),
                None => return self.bad_value(token, part),
            },
            Part::Switch(effect) => match as_switch(text) {
                Some(on) => effect(draft, on),
                None => return self.bad_value(token, part),
            },
            Part::SwitchOr(effect, other) => match (as_switch(text), other) {
                (Some(on), _) => effect(draft, on),
                (None, Part::Names(_)) => return self.bad_value(token, part),
                (None, Part::OneOf(section)) if find(text, *section).is_none() => {
                    return self.bad_value(token, part);
                }
                (None, other) => return self.value(other, token, nodes),
            },
            Part::Path(max, effect) if is_path => {
                if draft.check_length("path", token, *max) {
                    effect(draft, PathBuf::from(text));
                }
            }
            Part::Name(effect) if !is_path => effect(draft, token),
            Part::Text(_, effect) => effect(draft, token),
            Part::Address(family, effect) => match family.parse(text) {
                Some(address) => effect(draft, address),
                None => return self.bad_value(token, part),
            },
            Part::OneOf(section) | Part::MaybeOneOf(section) => match find(text, *section) {
                Some((word, what)) => {
                    self.note_case(token, word, *section);
                    return self.read(token, word, what, nodes);
                }
                None => return self.bad_value(token, part),
            },
            Part::Path(..) | Part::Name(_) => return self.bad_value(token, part),
            Part::Do(_) | Part::Names(_) | Part::Block(_) => {}
        }
        true
    }

    fn bad_value(&mut self, token: &Token<'_>, part: &Part) -> bool {
        let word = self.word();
        self.error(
            token.span.clone(),
            format_args!("{} is no value of `{word}`", Quote(token.text)),
            format_args!("accepted: {}", part.accepted()),
        );
        false
    }

    /// Reads a block; false if there is none.
    fn block(
        &mut self,
        nodes: &mut Cursor<'_, '_>,
        read: impl FnOnce(&mut Parser, &Block<'_>),
    ) -> bool {
        let place = nodes.span();
        if let Some(block) = nodes.next_block() {
            read(self, block);
            return true;
        }
        let word = self.word();
        self.error(
            place,
            format_args!("`{word}` needs a block"),
            format_args!("write `{word} {{ ... }}`"),
        );
        false
    }

    fn names_of(&mut self, block: &Block<'_>, effect: fn(&mut Draft, &[&Token<'_>])) {
        let mut nodes = block.cursor();
        let names: Vec<_> = std::iter::from_fn(|| self.next_word(&mut nodes)).collect();
        effect(&mut self.draft, &names);
        self.check_closed(block);
    }
}

fn as_number(text: &str) -> Option<u32> {
    let is_decimal = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse::<u64>().ok()?;
    (is_decimal && number <= NUMBER_MAX).then_some(number as u32)
}

fn as_switch(text: &str) -> Option<bool> {
    let is = |word: &&str| word.eq_ignore_ascii_case(text);
    if ["on", "yes"].iter().any(is) {
        Some(true)
    } else {
        ["off", "no"].iter().any(is).then_some(false)
    }
}

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod tests;
