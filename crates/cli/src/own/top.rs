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

use control::top::Talkers;

use super::arguments::{Form, Top};
use super::ask_status;
use super::client::Failure;
use crate::{Outcome, print};
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
        take_talkers(&mut state, talkers);
    }
    let mut next = Instant::now();
    for look in 1.. {
        state.take(Sample::new(ask_status(config)?));
        for talkers in readings.latest() {
            take_talkers(&mut state, talkers);
        }
        let Some(row) = state.row() else { break };
        let row = serde_json::to_string(&row).map_err(|e| Failure::plain(e.to_string()))?;
        // A reader that has seen enough (`| head`) is no failure.
        if writeln!(io::stdout(), "{row}").is_err() || wanted.count.is_some_and(|n| look >= n) {
            break;
        }
        next = next_look(next, wanted.interval, Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(Outcome::Exit(0))
}

/// Without a reading the rows go on without talkers, and standard error says why, once.
fn take_talkers(state: &mut State, talkers: Result<Talkers, Failure>) {
    match talkers {
        Ok(talkers) => state.take_talkers(talkers),
        Err(failure) => {
            if state.no_talkers() != Some(&failure.error) {
                print::error(format_args!("no talkers: {}", failure.error));
            }
            state.forget_talkers(failure.error);
        }
    }
}

/// An interval after the last look. Looks that a slow reader has prevented are not made up for.
fn next_look(last: Instant, interval: Duration, now: Instant) -> Instant {
    (last + interval).max(now)
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
            match talkers {
                Ok(talkers) => state.take_talkers(talkers),
                Err(failure) => state.forget_talkers(failure.error),
            }
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
    fn looks_keep_their_time_and_none_is_made_up_for() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let soon = start + second / 10;
        assert_eq!(next_look(start, second, soon), start + second);
        let late = start + 60 * second;
        assert_eq!(next_look(start, second, late), late);
        assert_eq!(next_look(late, second, late), late + second);
    }

    #[test]
    fn without_a_reading_there_are_rows_without_talkers() {
        let mut state = State::default();
        let status = serde_json::json!({"role": "backup", "pid": 1});
        state.take(Sample::new(status));
        let talkers = Talkers {
            by: "flows",
            flows: 1,
            seconds: 0.1,
            list: Vec::new(),
        };
        take_talkers(&mut state, Ok(talkers));
        assert!(state.row().is_some_and(|row| row.talkers.is_some()));
        take_talkers(&mut state, Err(Failure::plain("the table cannot be read")));
        assert!(state.row().is_some_and(|row| row.talkers.is_none()));
        assert_eq!(state.no_talkers(), Some("the table cannot be read"));
    }
}
