//! Files, by Landlock: those that the daemon opens, makes or removes after its start.
//!
//! A log is opened anew after a rotation, under its old name, and files are made and removed
//! in their folders: so what is allowed is a folder's, and holds for all beneath it.
//! Sockets (syslog, the journal, clients) are no files to Landlock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use config::Config;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
};

use crate::sysctl;

/// The newest version that this program knows. An older kernel restricts what it can.
const KNOWN: ABI = ABI::V6;

/// What the rules need as long as the daemon runs.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Settings of the kernel as files exist only while somebody has them open: a rule about
    /// them would be forgotten with them.
    settings: Option<File>,
    missing: Vec<PathBuf>,
}

impl Files {
    /// Gives up all other files.
    pub(super) fn restrict(&mut self, config: &Config) -> Result<String, String> {
        self.settings = File::open(sysctl::BASE).ok();
        let (rules, missing): (Vec<_>, Vec<_>) =
            rules(config).into_iter().partition(|r| r.path.exists());
        let status = enforce(&rules).map_err(|e| format!("files cannot be restricted: {e}"))?;
        let how = match status {
            RulesetStatus::FullyEnforced => "",
            RulesetStatus::PartiallyEnforced => ", as far as this kernel can",
            RulesetStatus::NotEnforced => {
                return Err("Landlock is not there for it: all files stay open to it".to_owned());
            }
        };
        let written = |rules: Vec<Rule>| rules.into_iter().filter(Rule::is_written);
        self.missing = written(missing).map(|rule| rule.path).collect();
        let folders: Vec<_> = written(rules)
            .map(|rule| rule.path.display().to_string())
            .collect();
        Ok(format!(
            "files are written in {} alone{how}",
            folders.join(", ")
        ))
    }

    /// Folders of the configuration that are not there, so that no rule is about them.
    pub(super) fn missing(&self) -> &[PathBuf] {
        &self.missing
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

/// What a daemon with this configuration still does with files. A path stands once.
fn rules(config: &Config) -> Vec<Rule> {
    let append = AccessFs::WriteFile | AccessFs::MakeReg;
    let stats_log = config.stats.as_ref().and_then(|s| s.log_file.as_deref());
    let logs = [config.log_file.as_deref(), stats_log]
        .into_iter()
        .flatten();
    let logs = logs.flat_map(|log| places_of_log(log).map(|place| (place, append)));
    let page = config.metrics.as_ref().and_then(|m| m.file.as_deref());
    let own = [
        // It is looked whose the page is that is there.
        (page, append | AccessFs::ReadFile | AccessFs::RemoveFile),
        (Some(&config.lock_file), AccessFs::RemoveFile.into()),
        (config.control_path.as_deref(), AccessFs::RemoveFile.into()),
    ];
    let own =
        (own.into_iter()).filter_map(|(path, access)| Some((path?.parent()?.to_owned(), access)));
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    let system = [
        ("/dev/null".into(), device),
        (sysctl::BASE.into(), AccessFs::ReadFile.into()),
    ];
    let mut rules: Vec<Rule> = Vec::new();
    for (path, access) in logs.chain(own).chain(system) {
        match rules.iter_mut().find(|rule| rule.path == path) {
            Some(rule) => rule.access |= access,
            None => rules.push(Rule { path, access }),
        }
    }
    rules
}

/// Where a log is made anew: in its folder, and if it is a link also in that of what it leads to.
/// A device or a pipe is opened again, and its folder has others.
fn places_of_log(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file());
    let folder = |path: &Path| path.parent().map(Path::to_owned);
    let target = path.canonicalize().ok();
    let places = match is_special {
        true => [Some(path.to_owned()), None],
        false => [folder(path), target.as_deref().and_then(folder)],
    };
    places.into_iter().flatten()
}

fn enforce(rules: &[Rule]) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .create()?;
    for rule in rules {
        // It may have gone just now.
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

    #[test]
    fn the_target_of_a_link_has_a_place_and_a_device_has_no_neighbours() {
        let of = |path: &str| places_of_log(Path::new(path)).collect::<Vec<_>>();
        assert_eq!(of("/dev/null"), [Path::new("/dev/null")]);
        assert_eq!(of("/no/such/log"), [Path::new("/no/such")]);
        let folder = std::env::temp_dir().join(format!("ftfw-log-{}", std::process::id()));
        let target = folder.join("data/log");
        fs::create_dir_all(folder.join("data")).unwrap();
        fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, folder.join("log")).unwrap();
        let places: Vec<_> = places_of_log(&folder.join("log")).collect();
        assert_eq!(places, [folder.clone(), folder.join("data")]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
