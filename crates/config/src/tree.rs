//! Tokens → syntax tree: texts, and blocks between braces, each with its place.
//!
//! The language has no separators, so the tree does not know which text is a word and which
//! is a word's value; the table of words decides that. The depth is bounded, because what
//! reads the tree is recursive.

use crate::diagnostic::{Diagnostics, Span};
use crate::lexer::{Kind, Token};

/// Most blocks within each other. The language needs four.
const DEPTH_MAX: usize = 16;

/// A piece of a block.
#[derive(Debug)]
pub(crate) enum Node<'a> {
    /// A word or a value.
    Text(Token<'a>),
    /// What stands between two braces.
    Block(Block<'a>),
    /// A closing brace that closes nothing; only outside all blocks.
    Close(Span),
}

impl Node<'_> {
    fn span(&self) -> &Span {
        match self {
            Node::Text(token) => &token.span,
            Node::Block(block) => &block.open,
            Node::Close(span) => span,
        }
    }
}

/// A block, or the whole file.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    /// The opening brace.
    pub(crate) open: Span,
    pub(crate) nodes: Vec<Node<'a>>,
    /// The closing brace, or the end of the file.
    pub(crate) end: Span,
    pub(crate) is_closed: bool,
}

impl<'a> Block<'a> {
    fn new(open: Span, end: Span) -> Block<'a> {
        Block {
            open,
            nodes: Vec::new(),
            end,
            is_closed: false,
        }
    }

    pub(crate) fn cursor(&self) -> Cursor<'_, 'a> {
        Cursor {
            rest: &self.nodes,
            end: &self.end,
        }
    }
}

/// Walks through a block.
#[derive(Debug)]
pub(crate) struct Cursor<'t, 'a> {
    rest: &'t [Node<'a>],
    end: &'t Span,
}

impl<'t, 'a> Cursor<'t, 'a> {
    pub(crate) fn peek(&self) -> Option<&'t Node<'a>> {
        self.rest.first()
    }

    pub(crate) fn next(&mut self) -> Option<&'t Node<'a>> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// The next node if it is a text.
    pub(crate) fn next_text(&mut self) -> Option<&'t Token<'a>> {
        match self.peek()? {
            Node::Text(token) => {
                self.next();
                Some(token)
            }
            Node::Block(_) | Node::Close(_) => None,
        }
    }

    /// The next node if it is a block.
    pub(crate) fn next_block(&mut self) -> Option<&'t Block<'a>> {
        match self.peek()? {
            Node::Block(block) => {
                self.next();
                Some(block)
            }
            Node::Text(_) | Node::Close(_) => None,
        }
    }

    /// The place of the next node, or of the end of the block.
    pub(crate) fn span(&self) -> Span {
        self.peek().map_or(self.end, Node::span).clone()
    }
}

/// Builds the tree of a file. A block that is not closed ends with the file; what reads the
/// block reports that, since it knows the word before it.
pub(crate) fn tree<'a>(
    text: &str,
    tokens: Vec<Token<'a>>,
    diagnostics: &mut Diagnostics,
) -> Block<'a> {
    let content = text.trim_end();
    let last = content.char_indices().next_back();
    let end = last.map_or(0, |(at, _)| at)..content.len();
    let mut block = Block::new(0..0, end.clone());
    // The blocks around `block`, outermost first, and how many were opened within it that
    // are too deep.
    let mut outer: Vec<Block<'a>> = Vec::new();
    let mut too_deep = 0;
    for token in tokens {
        match token.kind {
            Kind::Open if outer.len() == DEPTH_MAX => {
                too_deep += 1;
                if too_deep == 1 {
                    diagnostics.error(
                        token.span.clone(),
                        format_args!("more than {DEPTH_MAX} blocks within each other"),
                        "the language needs at most four",
                    );
                    // The word before it has a block.
                    block.nodes.push(Node::Block(Block {
                        is_closed: true,
                        ..Block::new(token.span, end.clone())
                    }));
                }
            }
            Kind::Open => {
                let inner = Block::new(token.span, end.clone());
                outer.push(std::mem::replace(&mut block, inner));
            }
            Kind::Close if too_deep > 0 => too_deep -= 1,
            Kind::Close => match outer.pop() {
                Some(around) => {
                    let mut inner = std::mem::replace(&mut block, around);
                    inner.end = token.span;
                    inner.is_closed = true;
                    block.nodes.push(Node::Block(inner));
                }
                None => block.nodes.push(Node::Close(token.span)),
            },
            Kind::Atom | Kind::Path if too_deep > 0 => {}
            Kind::Atom | Kind::Path => block.nodes.push(Node::Text(token)),
        }
    }
    while let Some(around) = outer.pop() {
        let inner = std::mem::replace(&mut block, around);
        block.nodes.push(Node::Block(inner));
    }
    block
}
