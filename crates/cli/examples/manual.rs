//! Writes manual pages and completions: `cargo run -p ftfw-cli --example manual -- FOLDER`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// Administration tools and daemons.
const SECTION: &str = "8";

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: manual FOLDER"))?;
    fs::create_dir_all(&folder)?;
    write_pages(&folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut cli::own::command(), "ftfw", &folder)?;
    }
    Ok(())
}

/// Writes a page for each command: `ftfw.8`, `ftfw-status.8`, `ftfw-flush-kernel.8`. A page
/// refers to those of its subcommands.
pub(crate) fn write_pages(folder: &Path) -> io::Result<()> {
    let mut command = cli::own::command().disable_help_subcommand(true);
    command.build();
    write_page(command, folder)
}

fn write_page(command: Command, folder: &Path) -> io::Result<()> {
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        write_page(sub.clone(), folder)?;
    }
    Man::new(command).section(SECTION).generate_to(folder)?;
    Ok(())
}
