//! How far a run is, and how long it still takes: a line that is written over on a terminal, or a
//! line for each part in a file.

use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

use super::text::clock;

/// Characters of the bar.
const BAR: usize = 30;
/// What was expected says more about the rest than what has been until then.
const TRUSTED_AFTER: f64 = 20.0;

/// Work in seconds, as the plan expects it.
#[derive(Debug)]
pub(super) struct Progress {
    begun: Instant,
    all: f64,
    done: f64,
    /// What is being done.
    what: String,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn new(all: f64) -> Progress {
        Progress {
            begun: Instant::now(),
            all,
            done: 0.0,
            what: String::new(),
            is_terminal: stderr().is_terminal(),
        }
    }

    /// Another part begins.
    pub(super) fn begin(&mut self, what: &str) {
        self.what = what.to_owned();
        if self.is_terminal {
            self.draw();
        } else {
            eprintln!("{}", self.line());
        }
    }

    /// So much of the work is done, of which `done` is the sum.
    pub(super) fn reach(&mut self, done: f64) {
        self.done = done;
    }

    /// Draws the line again, if there is a terminal.
    pub(super) fn draw(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K{}", self.line());
            let _ = stderr().flush();
        }
    }

    /// The line is not needed any more.
    pub(super) fn end(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }

    fn line(&self) -> String {
        let passed = self.begun.elapsed().as_secs_f64();
        line(&self.what, self.done, self.all, passed)
    }
}

fn line(what: &str, done: f64, all: f64, passed: f64) -> String {
    let part = (done / all).clamp(0.0, 1.0);
    let filled = (part * BAR as f64).round() as usize;
    let pace = if done > TRUSTED_AFTER {
        passed / done
    } else {
        1.0
    };
    format!(
        "[{}{}] {:3.0} %, {} left: {what}",
        "#".repeat(filled),
        "-".repeat(BAR - filled),
        part * 100.0,
        clock((all - done).max(0.0) * pace)
    )
}

#[cfg(test)]
mod tests {
    use super::line;

    /// Goal: the time left follows the pace until now, once there is one.
    #[test]
    fn a_line_has_a_bar_and_the_time_left() {
        let bar = |n: usize| format!("[{}{}]", "#".repeat(n), "-".repeat(30 - n));
        assert_eq!(
            line("lag", 0.0, 600.0, 3.0),
            format!("{}   0 %, 10:00 left: lag", bar(0))
        );
        assert_eq!(
            line("lag", 300.0, 600.0, 600.0),
            format!("{}  50 %, 10:00 left: lag", bar(15))
        );
        assert_eq!(
            line("lag", 700.0, 600.0, 600.0),
            format!("{} 100 %, 0:00 left: lag", bar(30))
        );
    }
}
