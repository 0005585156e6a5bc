//! The terminal: it is left as it was found, whatever ends the program.

use std::io;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use sys::signal::Signals;

use super::state::State;
use super::view;

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Nothing.
    None,
    /// Something that changes nothing, or another size of the terminal.
    Other,
    /// To end: `q`, Ctrl-C, SIGTERM, SIGINT, SIGHUP.
    End,
}

/// The terminal, as long as it is ours. A panic restores it, too.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: DefaultTerminal,
    signals: Signals,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn open() -> io::Result<Screen> {
        let signals = Signals::open()?;
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        Ok(Screen { terminal, signals })
    }

    /// Shows a state.
    pub(super) fn draw(&mut self, state: &State) -> io::Result<()> {
        self.terminal
            .draw(|frame| view::draw(state, frame.area(), frame.buffer_mut()))?;
        Ok(())
    }

    /// Waits for a key or a signal, at most so long.
    pub(super) fn key(&self, patience: Duration) -> io::Result<Key> {
        if self.signals.next().is_some() {
            return Ok(Key::End);
        }
        Ok(match event::poll(patience)? {
            false => Key::None,
            true if ends(&event::read()?) => Key::End,
            true => Key::Other,
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn ends(event: &Event) -> bool {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press,
        ..
    }) = event
    else {
        return false;
    };
    let is_control = modifiers.contains(KeyModifiers::CONTROL);
    matches!(
        (code, is_control),
        (KeyCode::Char('q'), false) | (KeyCode::Char('c'), true)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_and_control_c_end_it_and_nothing_else_does() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(KeyCode::Char(code), modifiers));
        assert!(ends(&key('q', KeyModifiers::NONE)));
        assert!(ends(&key('c', KeyModifiers::CONTROL)));
        assert!(!ends(&key('c', KeyModifiers::NONE)));
        assert!(!ends(&Event::Resize(80, 24)));
    }
}
