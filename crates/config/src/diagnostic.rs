//! What is wrong with a file, and how it is shown.
//!
//! A file may be anything, a binary too. So the number of diagnostics that are kept is
//! bounded, what is not kept is not even formatted, and text of the file is shown with its
//! control characters escaped: a message cannot control a terminal.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Bytes of the file that a diagnostic points at.
pub type Span = Range<usize>;

/// Most errors, and most warnings, that are kept; the others are counted.
pub const SHOWN_MAX: usize = 20;
/// Most characters of the file that a message repeats.
const QUOTE_MAX: usize = 64;
/// How much of a line is looked at; more than a terminal is wide.
const LINE_MAX: usize = 400;

/// Whether the file can be used nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used; an operator should know.
    Warning,
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file can be used nevertheless.
    pub severity: Severity,
    /// The place in the file.
    pub span: Span,
    /// What is wrong, lower case, no full stop.
    pub message: String,
    /// What would be accepted.
    pub help: Option<String>,
}

impl Diagnostic {
    /// The line that the diagnostic points at, counted from 1.
    pub fn line(&self, text: &str) -> usize {
        line_number(text, self.span.start)
    }
}

/// The line of a byte, counted from 1.
pub(crate) fn line_number(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Shows a diagnostic: severity, message, file, line, column, the line itself, help.
pub(crate) fn render(diagnostic: &Diagnostic, file: &str, text: &str, colour: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let Span { start, end } = diagnostic.span;
    let end = boundary(text, end.min(start + LINE_MAX));
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let rest = &text[end..boundary(text, end + LINE_MAX)];
    let line_end = end + rest.find('\n').unwrap_or(rest.len());
    // The library replaces the other control characters. The replacement has as many bytes.
    let is_c1 = |c: char| ('\u{80}'..='\u{9f}').contains(&c);
    let line = text[line_start..line_end].replace(is_c1, "\u{b7}");
    let snippet = Snippet::source(line)
        .line_start(diagnostic.line(text))
        .path(file)
        .annotation(AnnotationKind::Primary.span(start - line_start..end - line_start));
    let mut group = Group::with_title(level.primary_title(&diagnostic.message)).element(snippet);
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help));
    }
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.render(&[group])
}

/// The next place at which a text can be cut.
fn boundary(text: &str, at: usize) -> usize {
    let mut places = at.min(text.len())..=text.len();
    places.find(|at| text.is_char_boundary(*at)).unwrap_or(at)
}

/// Text of the file in a message: control characters escaped, cut if it is long.
pub(crate) struct Quote<'a>(pub(crate) &'a str);

impl Display for Quote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('`')?;
        for (n, c) in self.0.chars().enumerate() {
            match c {
                _ if n == QUOTE_MAX => {
                    f.write_str("...")?;
                    break;
                }
                // `escape_debug` leaves what can be printed, and would escape quotes too.
                '\'' | '"' | '\\' => f.write_char(c)?,
                c => write!(f, "{}", c.escape_debug())?,
            }
        }
        f.write_char('`')
    }
}

/// The diagnostics of one severity: the first ones in the order of the file, and how many
/// there are.
#[derive(Debug, Default)]
struct Kept {
    /// By place, then by the order in which they were found.
    first: BTreeMap<(usize, usize), Diagnostic>,
    count: usize,
}

impl Kept {
    /// Adds one; it is formatted only if it is kept.
    fn add(&mut self, span: Span, format: impl FnOnce(Span) -> Diagnostic) {
        let key = (span.start, self.count);
        self.count += 1;
        if self.first.len() == SHOWN_MAX {
            if self
                .first
                .last_key_value()
                .is_some_and(|(last, _)| key > *last)
            {
                return;
            }
            self.first.pop_last();
        }
        self.first.insert(key, format(span));
    }
}

/// Collects the diagnostics of a file.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    errors: Kept,
    warnings: Kept,
}

impl Diagnostics {
    pub(crate) fn error(&mut self, span: Span, message: impl Display, help: impl Display) {
        self.errors.add(span, |span| Diagnostic {
            severity: Severity::Error,
            span,
            message: message.to_string(),
            help: Some(help.to_string()),
        });
    }

    pub(crate) fn warn(&mut self, span: Span, message: impl Display) {
        self.warnings.add(span, |span| Diagnostic {
            severity: Severity::Warning,
            span,
            message: message.to_string(),
            help: None,
        });
    }

    /// True if there is an error behind a place.
    pub(crate) fn has_error_behind(&self, at: usize) -> bool {
        let last = self.errors.first.last_key_value();
        last.is_some_and(|((start, _), _)| *start > at)
    }

    /// How many errors and warnings there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.errors.count, self.warnings.count)
    }

    /// What was kept, in the order of the file.
    pub(crate) fn into_sorted(self) -> Vec<Diagnostic> {
        let errors = self.errors.first.into_values();
        let mut all: Vec<_> = errors.chain(self.warnings.first.into_values()).collect();
        all.sort_by_key(|d| d.span.start);
        all
    }
}
