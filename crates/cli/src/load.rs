//! A configuration file, read for a command or for the daemon.

use std::fs;
use std::path::Path;

use config::Config;

use crate::print;

/// Where the original looks.
pub(crate) const CONFIG_DEFAULT: &str = "/etc/conntrackd/conntrackd.conf";

/// A file that can be used.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// One line each, for a log.
    pub(crate) warnings: Vec<String>,
    /// How many there are, in words.
    pub(crate) counts: String,
    /// The same with the line of the file and a mark below it.
    pub(crate) shown: String,
}

/// Reads a configuration; an error is the text to show.
pub(crate) fn load(path: &Path) -> Result<Loaded, String> {
    let file = path.display().to_string();
    let bytes = fs::read(path).map_err(|e| format!("can't open config file '{file}': {e}"))?;
    // Bytes that are no UTF-8 become characters that belong nowhere, with their place.
    let text = String::from_utf8_lossy(&bytes);
    let parsed = config::parse(&text);
    let shown = parsed.render(&file, &text, print::has_colour());
    let counts = parsed.counts();
    let warnings = parsed.warning_lines(&file, &text);
    match parsed.config {
        Some(config) => Ok(Loaded {
            config,
            warnings,
            counts,
            shown,
        }),
        None => Err(shown),
    }
}
