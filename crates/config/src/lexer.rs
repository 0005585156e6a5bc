//! Text → tokens. The table of words decides what an atom means: an interface may be
//! called `e0` or `Port`, which the original takes for something else.

use crate::diagnostic::{Diagnostics, Quote, Span};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Open,
    Close,
    /// A word, number, address or name.
    Atom,
    /// Begins with `/`.
    Path,
}

/// A piece of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    pub(crate) span: Span,
}

fn is_atom(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_.:-+/@".contains(&b)
}

/// Splits the text; characters that belong nowhere are reported and passed over.
pub(crate) fn tokens<'a>(text: &'a str, diagnostics: &mut Diagnostics) -> Vec<Token<'a>> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    // A byte-order mark is no content.
    let mut at = if text.starts_with('\u{feff}') { 3 } else { 0 };
    while at < bytes.len() {
        let start = at;
        let kind = match bytes[at] {
            b if b.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'#' => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
                continue;
            }
            b'{' => {
                at += 1;
                Kind::Open
            }
            b'}' => {
                at += 1;
                Kind::Close
            }
            b'/' => {
                while at < bytes.len() && !bytes[at].is_ascii_whitespace() && bytes[at] != b'"' {
                    at += 1;
                }
                Kind::Path
            }
            b if is_atom(b) => {
                while at < bytes.len() && is_atom(bytes[at]) {
                    at += 1;
                }
                Kind::Atom
            }
            _ => {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
                diagnostics.error(
                    start..at,
                    format_args!(
                        "character {} belongs nowhere in this language",
                        Quote(&text[start..at])
                    ),
                    "comments begin with `#`; values are not quoted",
                );
                continue;
            }
        };
        let token = Token {
            kind,
            text: &text[start..at],
            span: start..at,
        };
        if kind == Kind::Path
            && let Some(swallowed) = token.text.find(['{', '}', '#'])
        {
            diagnostics.error(
                start + swallowed..start + swallowed + 1,
                "this would become part of the path before it",
                "put a blank after the path",
            );
        }
        out.push(token);
    }
    out
}
