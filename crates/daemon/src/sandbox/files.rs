//! Files, by Landlock: those that the daemon opens, makes or removes after its start.
//!
//! A log is opened anew after a rotation, under its old name, and files are made and removed
//! in their folders: so what is allowed is a folder's, and holds for all beneath it.
//! Sockets (syslog, the journal, clients) are no files to Landlock.

use std::fs::File;
use std::path::{Path, PathBuf};

use config::Config;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
};

use crate::sysctl;

/// The newest version that this program knows. An older kernel restricts what it can.
const KNOWN: ABI = ABI::V6;

/// Settings of the kernel as files exist only while somebody has them open: a rule about them
/// would be forgotten with them.
#[derive(Debug, Default)]
pub(crate) struct Files {
    settings: Option<File>,
}

impl Files {
    /// Gives up all other files.
    pub(super) fn restrict(&mut self, config: &Config) -> Result<String, String> {
        self.settings = File::open(sysctl::BASE).ok();
        let rules = rules(config);
        let status = enforce(&rules).map_err(|e| format!("files cannot be restricted: {e}"))?;
        let how = match status {
            RulesetStatus::FullyEnforced => "",
            RulesetStatus::PartiallyEnforced => ", as far as this kernel can",
            RulesetStatus::NotEnforced => {
                return Err("this kernel has no Landlock: all files stay open to it".to_owned());
            }
        };
        let folders: Vec<_> = (rules.iter())
            .filter(|rule| rule.is_written())
            .map(|rule| rule.path.display().to_string())
            .collect();
        Ok(format!(
            "files are written in {} alone{how}",
            folders.join(", ")
        ))
    }
}

/// What is allowed at or beneath a path.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    path: PathBuf,
    access: BitFlags<AccessFs>,
}

impl Rule {
    fn is_written(&self) -> bool {
        self.access.contains(AccessFs::MakeReg) || self.access.contains(AccessFs::RemoveFile)
    }
}

/// What a daemon with this configuration still does with files. A folder stands once.
fn rules(config: &Config) -> Vec<Rule> {
    let log = AccessFs::WriteFile | AccessFs::ReadFile | AccessFs::MakeReg | AccessFs::Truncate;
    let stats_log = config.stats.as_ref().and_then(|s| s.log_file.as_deref());
    let page = config.metrics.as_ref().and_then(|m| m.file.as_deref());
    let own = [
        (config.log_file.as_deref(), log),
        (stats_log, log),
        (page, log | AccessFs::RemoveFile),
        (Some(&config.lock_file), AccessFs::RemoveFile.into()),
        (config.control_path.as_deref(), AccessFs::RemoveFile.into()),
    ];
    let own = own
        .into_iter()
        .filter_map(|(path, access)| Some((path?.parent()?, access)));
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    let system = [
        (Path::new("/dev/null"), device),
        (Path::new(sysctl::BASE), AccessFs::ReadFile.into()),
    ];
    let mut rules: Vec<Rule> = Vec::new();
    for (path, access) in own.chain(system) {
        match rules.iter_mut().find(|rule| rule.path == path) {
            Some(rule) => rule.access |= access,
            None => rules.push(Rule {
                path: path.to_owned(),
                access,
            }),
        }
    }
    rules
}

fn enforce(rules: &[Rule]) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .create()?;
    for rule in rules {
        // What is not there now, such as the settings of connection tracking, is not missed.
        if let Ok(path) = PathFd::new(&rule.path) {
            ruleset = ruleset.add_rule(PathBeneath::new(path, rule.access))?;
        }
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_once_with_all_that_is_done_in_it() {
        let text = "General { LogFile /var/log/a.log LockFile /run/x/lock UNIX { Path /run/x/ctl } \
                    Metrics { File /var/log/page.prom } } Stats { LogFile /srv/stats.log }";
        let rules = rules(&config::parse(text).config.unwrap());
        let of = |path: &str| {
            let mut all = rules.iter().filter(|r| r.path == Path::new(path));
            let rule = all.next().unwrap();
            assert!(all.next().is_none(), "{path} stands twice");
            rule
        };
        assert!(
            of("/var/log").access.contains(AccessFs::RemoveFile),
            "of the page"
        );
        assert!(
            !of("/srv").access.contains(AccessFs::RemoveFile),
            "a log stays"
        );
        assert_eq!(of("/run/x").access, AccessFs::RemoveFile);
        assert!(!of(sysctl::BASE).is_written());
    }
}
