//! Output that may go nowhere. The macros of `std` panic if the reader has gone, with a
//! status of 101, and scripts test for a status of exactly 1.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes to standard output.
pub fn out(text: impl Display) {
    let mut out = io::stdout().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// Writes a line to standard error.
pub fn error(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
