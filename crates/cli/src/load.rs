//! A configuration file, read for a command or for the daemon.

use std::fs;
use std::path::Path;

use config::{Config, Severity};

/// Where the original looks.
pub(crate) const CONFIG_DEFAULT: &str = "/etc/conntrackd/conntrackd.conf";

/// A file that can be used.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// One line each, for a log.
    pub(crate) warnings: Vec<String>,
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
    let render = |d: &config::Diagnostic| config::render(d, &file, &text);
    let shown = |severity: Option<Severity>| {
        let wanted = |d: &&config::Diagnostic| severity.is_none_or(|s| d.severity == s);
        let shown = parsed.diagnostics.iter().filter(wanted).map(render);
        shown.collect::<Vec<_>>().join("\n")
    };
    let one_line = |d: &config::Diagnostic| {
        let line = text[..d.span.start].matches('\n').count() + 1;
        format!("{file}:{line}: {}", d.message)
    };
    match parsed.config {
        Some(ref config) => Ok(Loaded {
            config: config.clone(),
            warnings: parsed.diagnostics.iter().map(one_line).collect(),
            shown: shown(None),
        }),
        None => Err(shown(Some(Severity::Error))),
    }
}
