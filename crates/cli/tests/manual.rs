//! Goal: manual pages and completions hold every command, with its examples.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

#[path = "../examples/manual.rs"]
#[allow(dead_code, reason = "its main")]
mod manual;

/// Goal: from `man ftfw` one gets to every command, and each page has all options.
/// Method: the pages that the package installs, and clap's definitions.
#[test]
fn every_command_is_reached_from_the_first_page() {
    let folder = std::env::temp_dir().join(format!("ftfw-manual-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    manual::write_pages(&folder).unwrap();
    let mut command = cli::own::command().disable_help_subcommand(true);
    command.build();
    let mut pages = 0;
    check_page(&command, &folder, &mut pages);
    let written = fs::read_dir(&folder).unwrap().count();
    assert_eq!(written, pages, "a page that leads from nowhere");
    assert!(pages >= 20, "{pages}");
    fs::remove_dir_all(&folder).unwrap();
}

fn check_page(command: &Command, folder: &Path, pages: &mut usize) {
    *pages += 1;
    let name = command.get_display_name().unwrap_or("ftfw");
    let page = fs::read_to_string(folder.join(format!("{name}.8"))).unwrap();
    let page = page.replace('\\', "");
    assert!(page.contains(&format!(".TH {name} 8")), "{page}");
    // clap looks at this in a debug build alone, and panics.
    let groups: Vec<_> = command.get_groups().map(clap::ArgGroup::get_id).collect();
    let unique: BTreeSet<_> = groups.iter().collect();
    assert_eq!(unique.len(), groups.len(), "{name}: {groups:?}");
    for option in command.get_arguments().filter(|a| !a.is_hide_set()) {
        if let Some(long) = option.get_long() {
            assert!(page.contains(&format!("--{long}")), "{name}: --{long}");
        }
    }
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        let reference = format!("{name}-{}(8)", sub.get_name());
        assert!(page.contains(&reference), "no {reference} in {name}");
        check_page(sub, folder, pages);
    }
}

#[test]
fn every_command_has_a_page_and_completions() {
    let command = cli::own::command();
    let names: Vec<_> = command
        .get_subcommands()
        .map(|c| c.get_name().to_owned())
        .collect();
    for wanted in [
        "run",
        "check",
        "status",
        "flows",
        "expectations",
        "commit",
        "flush",
        "resync",
        "bulk",
        "events",
        "rules",
        "doctor",
    ] {
        assert!(names.iter().any(|n| n == wanted), "{wanted}");
    }
    for sub in command.get_subcommands() {
        let mut page = Vec::new();
        clap_mangen::Man::new(sub.clone())
            .render(&mut page)
            .unwrap();
        let page = String::from_utf8(page).unwrap();
        assert!(page.contains(sub.get_name()), "{page}");
        let needs_examples = [
            "flows", "events", "commit", "flush", "resync", "rules", "doctor",
        ];
        if needs_examples.contains(&sub.get_name()) {
            assert!(page.contains("Examples:"), "{page}");
        }
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut cli::own::command(), "ftfw", &mut script);
        let script = String::from_utf8(script).unwrap();
        assert!(names.iter().all(|name| script.contains(name)), "{shell}");
    }
}
