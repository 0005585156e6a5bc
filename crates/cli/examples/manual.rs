//! Writes manual pages and completions: `cargo run -p ftfw-cli --example manual -- FOLDER`.

use std::path::PathBuf;
use std::{env, fs, io};

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: manual FOLDER"))?;
    fs::create_dir_all(&folder)?;
    // Pages of subcommands are called ftfw-status and so on.
    clap_mangen::generate_to(cli::own::command(), &folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut cli::own::command(), "ftfw", &folder)?;
    }
    Ok(())
}
