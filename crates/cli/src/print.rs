//! Output that may go nowhere. The macros of `std` panic if the reader has gone, with a
//! status of 101, and scripts test for a status of exactly 1.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Writes to standard output.
pub fn out(text: impl Display) {
    let mut out = io::stdout().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// True if what is printed goes to somebody's terminal, who has not refused colours.
pub(crate) fn has_colour() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    !is_refused && io::stdout().is_terminal() && io::stderr().is_terminal()
}

/// Writes a line to standard error.
pub fn error(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
