//! A state as cells of a terminal: nothing else decides what is shown.

use control::top::{LinkRates, LinkRow, Talkers, TopRow};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table, Widget, Wrap};
use serde_json::Value;

use super::state::State;
use crate::own::text::duration;

/// Width of the first column.
const LABEL: usize = 10;
/// Most lines of the verdict.
const VERDICT_MAX: u16 = 3;

/// Fills `area`. What does not fit is cut off; the first lines matter most.
pub(super) fn draw(state: &State, area: Rect, buf: &mut Buffer) {
    let row = state.row();
    let (verdict, colour) = match (state.error(), &row) {
        (Some(error), _) => (error, Color::Red),
        (None, Some(row)) if row.safe => (row.verdict.as_str(), Color::Green),
        (None, Some(row)) => (row.verdict.as_str(), Color::Red),
        (None, None) => ("the daemon is asked", Color::Reset),
    };
    let lines = row.as_ref().map_or_else(Vec::new, lines);
    let width = usize::from(area.width.max(1));
    let rows_of_verdict = verdict.chars().count().div_ceil(width) as u16;
    let [top, middle, bottom] = Layout::vertical([
        Constraint::Length(rows_of_verdict.clamp(1, VERDICT_MAX)),
        Constraint::Length(lines.len() as u16),
        Constraint::Fill(1),
    ])
    .areas(area);
    let style = Style::new().fg(colour).add_modifier(Modifier::BOLD);
    Paragraph::new(Span::styled(verdict, style))
        .wrap(Wrap { trim: true })
        .render(top, buf);
    Paragraph::new(lines).render(middle, buf);
    if let Some(why) = state.no_talkers() {
        line("talkers", why.to_owned()).render(bottom, buf);
    } else if let Some(talkers) = row.as_ref().and_then(|row| row.talkers.as_ref()) {
        draw_talkers(talkers, bottom, buf);
    }
}

/// A label, and what it is about.
fn line(label: &str, text: String) -> Line<'static> {
    let label = Span::styled(
        format!("{label:<LABEL$}"),
        Style::new().add_modifier(Modifier::DIM),
    );
    Line::from(vec![label, Span::raw(text)])
}

fn lines(row: &TopRow) -> Vec<Line<'static>> {
    let mut lines = vec![
        line(
            "ftfw",
            format!(
                "role {}, up {}{}   q ends",
                row.role,
                duration(row.uptime),
                if row.restarted { " (restarted)" } else { "" }
            ),
        ),
        line("flows", tables(row)),
        line("a second", rates(row)),
    ];
    let links = row.rates.map(|r| r.links);
    lines.push(line("sent", links.map_or_else(unknown, sent)));
    lines.push(line("received", links.map_or_else(unknown, received)));
    lines.push(line("queues", queues(row)));
    lines.push(line("lag", lag(row)));
    lines.push(line("peer", peer(&row.peer)));
    lines.extend(row.links.iter().map(|l| line("link", link(l))));
    lines.push(Line::default());
    lines
}

fn unknown() -> String {
    "-".to_owned()
}

fn or_unknown(number: Option<u64>) -> String {
    number.map_or_else(unknown, |n| n.to_string())
}

fn tables(row: &TopRow) -> String {
    let t = &row.tables;
    format!(
        "kernel {} of {}   internal {}   external {}",
        or_unknown(t.kernel),
        or_unknown(t.kernel_max),
        t.internal,
        t.external
    )
}

fn rates(row: &TopRow) -> String {
    let Some(r) = &row.rates else {
        return unknown();
    };
    format!(
        "events {}   created {}   updated {}   destroyed {}",
        count(r.events),
        count(r.created),
        count(r.updated),
        count(r.destroyed)
    )
}

fn sent(r: LinkRates) -> String {
    format!(
        "{} datagrams/s   {}B/s",
        count(r.datagrams_sent),
        unit(r.bytes_sent)
    )
}

fn received(r: LinkRates) -> String {
    format!(
        "{} datagrams/s   {}B/s",
        count(r.datagrams_received),
        unit(r.bytes_received)
    )
}

fn queues(row: &TopRow) -> String {
    let q = &row.queues;
    let buffer = match q.event_buffer {
        Some((used, all)) => format!("   event buffer {} %", 100 * used / all.max(1)),
        None => String::new(),
    };
    format!(
        "owed {}   unacknowledged {}   unsent {}{buffer}",
        q.owed, q.unacknowledged, q.unsent
    )
}

fn lag(row: &TopRow) -> String {
    let lag = &row.lag;
    let ours = match (lag.peer_lacks, lag.unprotected) {
        (None, _) => "the peer does not report what it holds".to_owned(),
        (Some(lacks), Some(long)) if long > 0 => {
            format!("the peer lacks {lacks} of our flows, {long} of them for some seconds")
        }
        (Some(lacks), _) => format!("the peer lacks {lacks} of our flows"),
    };
    match (lag.we_lack, lag.seconds_left) {
        (None, _) => ours,
        (Some(lack), None) => format!("{ours}; we lack {lack} of its"),
        (Some(lack), Some(secs)) => format!("{ours}; we lack {lack} of its ({secs} s left)"),
    }
}

fn peer(peer: &Value) -> String {
    let number = |key: &str| peer[key].as_u64();
    let heard = match number("silent") {
        Some(secs) => format!("heard {} ago", duration(secs)),
        None => "not heard".to_owned(),
    };
    let epoch = match number("epoch") {
        Some(epoch) => format!(", epoch {epoch}"),
        None => String::new(),
    };
    format!(
        "{heard}, role {}{epoch}, {} restarts seen",
        peer["role"].as_str().unwrap_or("?"),
        number("restarts").unwrap_or(0)
    )
}

fn link(l: &LinkRow) -> String {
    let active = if l.active { "active" } else { "spare" };
    let head = format!("{} ({}, {active}) {}", l.device, l.transport, l.status);
    match l.rates {
        None => head,
        Some(r) => format!(
            "{head}   sent {}B/s   received {}B/s",
            unit(r.bytes_sent),
            unit(r.bytes_received)
        ),
    }
}

fn draw_talkers(talkers: &Talkers, area: Rect, buf: &mut Buffer) {
    let accounts = talkers.by == "bytes";
    let head = match accounts {
        true => format!("most bytes, of {} flows", talkers.flows),
        false => format!(
            "most flows, of {}: bytes need nf_conntrack_acct",
            talkers.flows
        ),
    };
    let [title, rest] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    line("talkers", head).render(title, buf);
    let number = |n: Option<f64>| n.map_or_else(unknown, |n| format!("{}B", unit(n)));
    let rows = talkers.list.iter().map(|t| {
        let mut cells = vec![t.address.to_string(), t.flows.to_string()];
        if accounts {
            cells.push(number(t.bytes_per_second));
            cells.push(number(t.bytes.map(|n| n as f64)));
        }
        Row::new(cells)
    });
    let (mut names, mut widths) = (
        vec!["source", "flows"],
        vec![Constraint::Max(39), Constraint::Length(9)],
    );
    if accounts {
        names.extend(["a second", "in all"]);
        widths.extend([Constraint::Length(10); 2]);
    }
    let header = Row::new(names).style(Style::new().add_modifier(Modifier::DIM));
    Table::new(rows, widths).header(header).render(rest, buf);
}

/// A number of things: one digit after the point if there are few.
fn count(n: f64) -> String {
    if n < 9.95 && n.fract() != 0.0 {
        format!("{n:.1}")
    } else {
        format!("{n:.0}")
    }
}

/// A number before a unit: three digits or four, and the prefix.
fn unit(n: f64) -> String {
    let mut n = n;
    for prefix in ["", "k", "M", "G"] {
        if n < 999.5 {
            let digits = usize::from(!prefix.is_empty() && n < 99.95);
            return format!("{n:.digits$} {prefix}");
        }
        n /= 1000.0;
    }
    format!("{n:.1} T")
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use control::top::Talker;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::state::tests::two_looks;
    use super::*;
    use crate::own::client::Failure;

    fn screen(state: &State, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| draw(state, frame.area(), frame.buffer_mut()))
            .unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| {
            let cells = (0..width).map(|x| buffer[(x, y)].symbol());
            cells.collect::<String>().trim_end().to_owned()
        };
        (0..height).map(row).collect()
    }

    fn full() -> State {
        let mut state = two_looks();
        let talker = |last: u8| Talker {
            address: IpAddr::from([10, 0, 0, last]),
            flows: u64::from(last),
            bytes: Some(5_000_000),
            bytes_per_second: Some(1500.0),
        };
        state.take_reading(Ok(Talkers {
            by: "bytes",
            flows: 12_000,
            seconds: 0.1,
            list: (1..=20).map(talker).collect(),
        }));
        state
    }

    #[test]
    fn a_terminal_of_the_common_size() {
        let shown = screen(&full(), 80, 24);
        let wanted = [
            "SAFE: the peer holds all our flows",
            "ftfw      role primary, up 3 h 0 min   q ends",
            "flows     kernel 12000 of 262144   internal 11990   external 7",
            "a second  events 2000   created 200   updated 600   destroyed 180",
            "sent      100 datagrams/s   120 kB/s",
            "received  20 datagrams/s   800 B/s",
            "queues    owed 3   unacknowledged 40   unsent 0   event buffer 0 %",
            "lag       the peer lacks 10 of our flows",
            "peer      heard 0 s ago, role backup, epoch 77, 1 restarts seen",
            "link      eth2 (UDP, active) RUNNING   sent 120 kB/s   received 800 B/s",
            "link      eth3 (UDP, spare) DOWN   sent 0 B/s   received 0 B/s",
            "",
            "talkers   most bytes, of 12000 flows",
        ];
        assert_eq!(shown[..wanted.len()], wanted);
        assert!(shown[13].starts_with("source"), "{shown:#?}");
        for part in ["10.0.0.1", " 1 ", "1.5 kB", "5.0 MB"] {
            assert!(shown[14].contains(part), "{shown:#?}");
        }
        assert!(
            shown[23].starts_with("10.0.0.10"),
            "as many as there is room for"
        );
    }

    #[test]
    fn a_narrow_or_low_one_shows_what_has_room() {
        let shown = screen(&full(), 40, 10);
        assert_eq!(shown[0], "SAFE: the peer holds all our flows");
        assert!(shown[2].starts_with("flows     kernel 12000 of 262144"));
        let shown = screen(&full(), 20, 4);
        assert_eq!(shown[..2], ["SAFE: the peer holds", "all our flows"]);
        for (width, height) in [(1, 1), (3, 50), (200, 1), (10, 13)] {
            screen(&full(), width, height);
        }
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        let mut state = State::default();
        assert_eq!(screen(&state, 80, 2)[0], "the daemon is asked");
        state = two_looks();
        state.fail("no daemon at /run/x".to_owned());
        let shown = screen(&state, 80, 24);
        assert_eq!(shown[0], "no daemon at /run/x");
        assert_eq!(shown[3], "a second  -");
        state.take_reading(Ok(Talkers {
            by: "flows",
            flows: 3,
            seconds: 0.0,
            list: Vec::new(),
        }));
        let shown = screen(&state, 80, 24);
        assert_eq!(
            shown[12],
            "talkers   most flows, of 3: bytes need nf_conntrack_acct"
        );
        state.take_reading(Err(Failure::plain("4 clients are listing")));
        assert_eq!(
            screen(&state, 80, 24)[12],
            "talkers   4 clients are listing"
        );
    }

    #[test]
    fn numbers_are_short() {
        let units = [0.0, 999.0, 1234.0, 120_000.0, 999_950.0, 5e9, 2e15];
        let shown = units.map(unit);
        let wanted = ["0 ", "999 ", "1.2 k", "120 k", "1.0 M", "5.0 G", "2000.0 T"];
        assert_eq!(shown, wanted);
        assert_eq!(
            [0.0, 0.25, 9.97, 1234.4].map(count),
            ["0", "0.2", "10", "1234"]
        );
    }
}
