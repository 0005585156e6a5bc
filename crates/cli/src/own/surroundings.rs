//! What a configuration names and this machine lacks or uses otherwise. A file may be checked elsewhere than where it
//! is used, so these are warnings.

use std::path::{Path, PathBuf};

use config::Config;
use sys::place::Place;

/// Interfaces and folders that are not here, and paths where something else is, as sentences. So the daemon does not start.
pub(super) fn missing(config: &Config) -> Vec<String> {
    let mut missing = Vec::new();
    let links = config.sync.iter().flat_map(|sync| &sync.links);
    for name in links.filter_map(|link| link.interface.as_deref()) {
        if !Path::new("/sys/class/net").join(name).exists() {
            missing.push(format!("there is no interface `{name}` here"));
        }
    }
    let stats_log = config.stats.as_ref().and_then(|s| s.log_file.as_ref());
    let files: [(&str, Place, Option<&PathBuf>); 4] = [
        ("the lock file", Place::Lock, Some(&config.lock_file)),
        ("the log file", Place::Log, config.log_file.as_ref()),
        (
            "the control socket",
            Place::Socket,
            config.control_path.as_ref(),
        ),
        ("the statistics log", Place::Log, stats_log),
    ];
    let files = files.into_iter();
    missing.extend(files.filter_map(|(what, place, path)| obstacle(what, place, path?)));
    missing
}

/// What is not here and does not keep the daemon from starting.
pub(super) fn wanting(config: &Config) -> Option<String> {
    let file = config.metrics.as_ref()?.file.as_ref()?;
    obstacle("the file of metrics", Place::Metrics, file)
}

/// What keeps a file from its place.
fn obstacle(what: &str, place: Place, path: &Path) -> Option<String> {
    let why = place.check(path).err()?;
    Some(format!("{what} {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn interfaces_and_folders_that_are_not_here_are_named() {
        let text = "General {\nLockFile /no-such-folder/lock\nLogFile /tmp/log\n\
                    Metrics {\nFile /no-such-place/ftfw.prom\n}\n}\n\
                    Sync {\nMode FTFW { }\nUDP {\nIPv4_Destination_Address 10.0.0.1\nPort 1\n\
                    Interface no-such-one\n}\nUDP {\nIPv4_Destination_Address 10.0.0.1\n\
                    Port 1\nInterface lo\n}\n}";
        let config = config::parse(text).config.expect("a good file");
        let missing = super::missing(&config);
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(missing[0].contains("no-such-one"));
        assert!(missing[1].contains("/no-such-folder"));
        assert!(super::wanting(&config).is_some_and(|w| w.contains("/no-such-place")));
    }
}
