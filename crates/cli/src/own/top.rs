//! `ftfw top`: what goes on, once a second, in a terminal or as rows of JSON.
//!
//! The status is asked for at each look. The kernel's table is read by a thread of its own, and
//! more seldom if it is large: that costs the machine something.

mod sample;
mod screen;
mod state;
mod talkers;
mod view;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::arguments::{Form, Top};
use super::ask_status;
use super::client::Failure;
use crate::Outcome;
use sample::Sample;
use screen::{Key, Screen};
use state::State;
use talkers::Readings;

/// How soon a key or a signal is noticed.
const PATIENCE: Duration = Duration::from_millis(100);

/// Shows looks until it is told to end, or has shown as many as are wanted.
pub(super) fn run(config: &Path, wanted: &Top) -> Result<Outcome, Failure> {
    // So that a daemon that is not there is told of at once.
    let _ = ask_status(config)?;
    match wanted.form.output {
        Form::Json => print_rows(config, wanted),
        Form::Text => show(config, wanted),
    }
}

fn read_table(config: &Path, wanted: &Top) -> Readings {
    Readings::start(config, wanted.talkers.into(), wanted.interval)
}

/// A row at each look. The first one waits for the first reading of the kernel's table.
fn print_rows(config: &Path, wanted: &Top) -> Result<Outcome, Failure> {
    let readings = read_table(config, wanted);
    let mut state = State::default();
    if let Some(talkers) = readings.first() {
        state.take_reading(talkers);
    }
    let mut next = Instant::now();
    for look in 1.. {
        state.take(Sample::new(ask_status(config)?));
        for talkers in readings.latest() {
            state.take_reading(talkers);
        }
        let Some(row) = state.row() else { break };
        let row = serde_json::to_string(&row).map_err(|e| Failure::plain(e.to_string()))?;
        // A reader that has seen enough (`| head`) is no failure.
        if writeln!(io::stdout(), "{row}").is_err() || wanted.count.is_some_and(|n| look >= n) {
            break;
        }
        let now = Instant::now();
        next = next_look(next, wanted.interval, now);
        thread::sleep(next - now);
    }
    Ok(Outcome::Exit(0))
}

/// When to look again. Looks that were missed, while nobody took the rows say, are not made up
/// for.
fn next_look(planned: Instant, interval: Duration, now: Instant) -> Instant {
    (planned + interval).max(now)
}

fn show(config: &Path, wanted: &Top) -> Result<Outcome, Failure> {
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        return Err(Failure {
            help: Some("`ftfw top -o json` prints rows, and needs none".to_owned()),
            ..Failure::plain("standard input and output are no terminal")
        });
    }
    let failed = |e: io::Error| Failure::plain(format!("the terminal: {e}"));
    // It blocks signals, before there is another thread that one of them could end.
    let mut screen = Screen::open().map_err(failed)?;
    let looks = look_again(config.to_owned(), wanted.interval);
    let readings = read_table(config, wanted);
    let mut state = State::default();
    let mut seen = 0;
    let mut is_stale = true;
    loop {
        for look in looks.try_iter() {
            (seen, is_stale) = (seen + 1, true);
            match look {
                Ok(sample) => state.take(sample),
                Err(failure) => state.fail(failure.error),
            }
        }
        for talkers in readings.latest() {
            is_stale = true;
            state.take_reading(talkers);
        }
        if is_stale {
            screen.draw(&state).map_err(failed)?;
        }
        if wanted.count.is_some_and(|n| seen >= n) {
            return Ok(Outcome::Exit(0));
        }
        match screen.key(PATIENCE).map_err(failed)? {
            Key::End => return Ok(Outcome::Exit(0)),
            key => is_stale = key == Key::Other,
        }
    }
}

/// Looks in a thread of its own, so that a daemon that is silent keeps nobody from ending this
/// program. One that is started again is found again.
fn look_again(config: PathBuf, interval: Duration) -> Receiver<Result<Sample, Failure>> {
    let (found, looks) = sync_channel(0);
    thread::spawn(move || {
        loop {
            let begun = Instant::now();
            let look = ask_status(&config).map(Sample::new);
            if found.send(look).is_err() {
                return;
            }
            thread::sleep(interval.saturating_sub(begun.elapsed()));
        }
    });
    looks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_were_missed_are_not_made_up_for() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let next = |now| next_look(begun, second, now);
        assert_eq!(next(begun), begun + second);
        assert_eq!(next(begun + second / 2), begun + second);
        let late = begun + 60 * second;
        assert_eq!(next(late), late);
    }
}
