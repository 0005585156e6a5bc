//! Goal: manual pages and completions hold every command, with its examples.

use clap_complete::Shell;

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
