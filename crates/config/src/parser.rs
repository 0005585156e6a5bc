//! Tokens → [`Config`]: one function a section, keyword by keyword.
//!
//! After an error the parser passes over the word and its value and goes on, so
//! that one run reports all that is wrong. The unclosed brace is shown where it opens.

use std::net::IpAddr;
use std::path::PathBuf;

use flow::{Policy, Prefix, Proto, TcpState};

use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::lexer::{Kind, Token, tokens};
use crate::words::{Section, WORDS, Word, advice, is_like_a_word};
use crate::{Config, Facility, Link, Mode, Parsed, SchedulerType, Sync, Transport};

/// Numbers are C `int`s to the original, which wraps larger ones silently.
const NUMBER_MAX: u64 = i32::MAX as u64;
const LINKS_MAX: usize = 4;
const PATH_MAX_BYTES: usize = 256;
/// `sizeof(sockaddr_un.sun_path) - 1`
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// `IFNAMSIZ - 1`
const INTERFACE_MAX_BYTES: usize = 15;
/// `NF_CT_HELPER_NAME_LEN`
const POLICY_MAX_BYTES: usize = 16;

/// Parses a file's text.
pub fn parse(text: &str) -> Parsed {
    let mut diagnostics = Vec::new();
    let tokens = tokens(text, &mut diagnostics);
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
        text,
        diagnostics,
        config: defaults(),
        sync_span: None,
        stats_span: None,
    };
    parser.file();
    parser.check_combinations();
    let Parser {
        mut diagnostics,
        config,
        ..
    } = parser;
    diagnostics.sort_by_key(|d| d.span.start);
    let failed = diagnostics.iter().any(|d| d.severity == Severity::Error);
    Parsed {
        config: (!failed).then_some(config),
        diagnostics,
    }
}

fn defaults() -> Config {
    Config {
        hash_limit: None,
        log_file: None,
        syslog: None,
        lock_file: PathBuf::from("/var/lock/conntrackd.lock"),
        control_path: None,
        netlink_buffer: None,
        netlink_buffer_max: 0,
        overrun_resync: Some(30),
        events_reliable: false,
        event_iteration_limit: None,
        conntrack_events: true,
        poll_secs: None,
        scheduler: None,
        systemd: None,
        filter: flow::Filter::default(),
        sync: None,
    }
}

fn sync_defaults() -> Sync {
    Sync {
        mode: None,
        refresh_time: 60,
        cache_timeout: 180,
        commit_timeout: None,
        purge_timeout: 60,
        resend_queue_size: 131_072,
        ack_window_size: 300,
        disable_internal_cache: false,
        disable_external_cache: false,
        startup_resync: false,
        transport: None,
        links: Vec::new(),
        window_tracking: false,
        alive_trailer: true,
        expectation_sync: None,
    }
}

struct Parser<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    text: &'a str,
    diagnostics: Vec<Diagnostic>,
    config: Config,
    sync_span: Option<Span>,
    stats_span: Option<Span>,
}

/// An item of a block: a word and where it stands.
#[derive(Clone, Debug)]
struct Item<'a> {
    word: &'a str,
    span: Span,
}

impl<'a> Parser<'a> {
    // ---- tokens ----

    fn peek(&self) -> Option<&'a Token<'a>> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<&'a Token<'a>> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    fn end_span(&self) -> Span {
        let end = self.text.trim_end().len();
        end.saturating_sub(1)..end
    }

    fn report(&mut self, severity: Severity, span: Span, message: String, help: Option<String>) {
        self.diagnostics.push(Diagnostic {
            severity,
            span,
            message,
            help,
        });
    }

    fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.report(Severity::Error, span, message.into(), Some(help.into()));
    }

    fn warn(&mut self, span: Span, message: impl Into<String>) {
        self.report(Severity::Warning, span, message.into(), None);
    }

    /// The word is understood, but this version does nothing about it.
    fn later(&mut self, item: &Item<'_>) {
        let message = format!("`{}` has no effect in this version", item.word);
        self.warn(item.span.clone(), message);
    }

    // ---- blocks ----

    /// Opens a block; false if there is no brace.
    fn open(&mut self, of: &Item<'_>) -> bool {
        match self.peek() {
            Some(t) if t.kind == Kind::Open => {
                self.at += 1;
                true
            }
            other => {
                let span = other.map_or_else(|| self.end_span(), |t| t.span.clone());
                self.error(
                    span,
                    format!("`{}` needs a block", of.word),
                    format!("write `{} {{ ... }}`", of.word),
                );
                false
            }
        }
    }

    /// The next word of an open block; `None` at its end.
    fn item(&mut self, of: &Item<'_>) -> Option<Item<'a>> {
        loop {
            let Some(token) = self.next() else {
                self.error(
                    of.span.clone(),
                    format!("the block of `{}` is not closed", of.word),
                    "add the missing `}`",
                );
                return None;
            };
            match token.kind {
                Kind::Close => return None,
                Kind::Open => {
                    self.error(
                        token.span.clone(),
                        "a block without a word",
                        "say before the brace what the block is",
                    );
                    self.skip_block();
                }
                Kind::Path => {
                    self.error(
                        token.span.clone(),
                        "a path without a word",
                        "say before the path what it is",
                    );
                }
                Kind::Atom => {
                    return Some(Item {
                        word: token.text,
                        span: token.span.clone(),
                    });
                }
            }
        }
    }

    /// The same; a word of `section` in another case is taken for what it means. The
    /// original refuses it, but published files have such words.
    fn item_in(&mut self, of: &Item<'_>, section: Section) -> Option<Item<'a>> {
        let item = self.item(of)?;
        let here = |w: &&Word| w.sections.contains(&section);
        let mut words = WORDS.iter().filter(here);
        if words.clone().any(|w| w.word == item.word) {
            return Some(item);
        }
        let meant = words.find(|w| w.word.eq_ignore_ascii_case(item.word));
        let word = meant.map_or(item.word, |w| w.word);
        self.note_case(&item.span, item.word, word);
        Some(Item { word, ..item })
    }

    /// Warns if a word is not spelt as it should be.
    fn note_case(&mut self, span: &Span, text: &str, word: &str) {
        if text != word {
            let message = format!("`{text}` is taken for `{word}`: conntrackd would refuse it");
            self.warn(span.clone(), message);
        }
    }

    /// A value that is one of `words`, in any case.
    fn one_of<'w>(&mut self, of: &Item<'_>, words: &[&'w str]) -> Option<&'w str> {
        let token = self.value(of, &words.join(" | "))?;
        let meant = words.iter().find(|w| w.eq_ignore_ascii_case(token.text));
        match meant {
            Some(word) => self.note_case(&token.span, token.text, word),
            None => self.bad_value(of, token, &words.join(", ")),
        }
        meant.copied()
    }

    /// Passes over the rest of a block whose brace has been read.
    fn skip_block(&mut self) {
        let mut depth = 1;
        while let Some(token) = self.next() {
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth -= 1,
                Kind::Atom | Kind::Path => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// A word that may not stand here: say so, pass over it and its value.
    fn unknown(&mut self, item: &Item<'a>, section: Section) {
        let is_general = |w: &Word| w.word == item.word && w.sections[0] == Section::General;
        let is_section = matches!(section, Section::File | Section::Sync | Section::Stats);
        if is_section && WORDS.iter().any(is_general) {
            // What it means is clear, and the original's own manual page has one of them wrong.
            let place = section.name();
            let message = format!("`{}` belongs in General, not in {place}", item.word);
            self.warn(item.span.clone(), message);
            self.general_word(item);
            return;
        }
        self.error(
            item.span.clone(),
            format!("`{}` is not accepted in {}", item.word, section.name()),
            advice(item.word, section),
        );
        while let Some(token) = self.peek() {
            match token.kind {
                Kind::Close => return,
                Kind::Open => {
                    self.at += 1;
                    return self.skip_block();
                }
                Kind::Atom if is_like_a_word(token.text) => return,
                Kind::Atom | Kind::Path => self.at += 1,
            }
        }
    }

    // ---- values ----

    /// The value after a word; reports and returns `None` if there is none.
    fn value(&mut self, of: &Item<'_>, wanted: &str) -> Option<&'a Token<'a>> {
        match self.peek() {
            Some(t) if matches!(t.kind, Kind::Atom | Kind::Path) => {
                self.at += 1;
                Some(t)
            }
            other => {
                let span = other.map_or_else(|| self.end_span(), |t| t.span.clone());
                self.error(
                    span,
                    format!("`{}` needs a value", of.word),
                    format!("write `{} {wanted}`", of.word),
                );
                None
            }
        }
    }

    fn bad_value(&mut self, of: &Item<'_>, token: &Token<'_>, wanted: &str) {
        self.error(
            token.span.clone(),
            format!("`{}` is no value of `{}`", token.text, of.word),
            format!("accepted: {wanted}"),
        );
    }

    fn number(&mut self, of: &Item<'_>) -> Option<u32> {
        const WANTED: &str = "a number from 0 to 2147483647, decimal, without sign or unit";
        let token = self.value(of, "NUMBER")?;
        let digits = token.text.bytes().all(|b| b.is_ascii_digit());
        match token.text.parse::<u64>() {
            Ok(n) if digits && n <= NUMBER_MAX => Some(n as u32),
            _ => {
                self.bad_value(of, token, WANTED);
                None
            }
        }
    }

    /// A number of which 0 means that the default is wanted.
    fn number_or_default(&mut self, of: &Item<'_>) -> Option<u32> {
        self.number(of).filter(|&n| n != 0)
    }

    fn switch(&mut self, of: &Item<'_>) -> Option<bool> {
        let token = self.value(of, "on | off")?;
        let value = as_switch(token.text);
        if value.is_none() {
            self.bad_value(of, token, "on, yes, off, no");
        }
        value
    }

    fn name(&mut self, of: &Item<'_>) -> Option<&'a Token<'a>> {
        let token = self.value(of, "NAME")?;
        if token.kind == Kind::Path {
            self.bad_value(of, token, "a name");
            return None;
        }
        Some(token)
    }

    fn path(&mut self, of: &Item<'_>, max_bytes: usize) -> Option<PathBuf> {
        let token = self.value(of, "/PATH")?;
        if token.kind != Kind::Path {
            self.bad_value(of, token, "an absolute path");
            return None;
        }
        if token.text.len() > max_bytes {
            self.error(
                token.span.clone(),
                format!("path of {} characters", token.text.len()),
                format!("at most {max_bytes} characters"),
            );
            return None;
        }
        Some(PathBuf::from(token.text))
    }

    /// An address of one family. The original warns about a bad one and goes on
    /// without it; a link without its address is no use, so it is an error here.
    fn address(&mut self, of: &Item<'_>, v6: bool) -> Option<IpAddr> {
        let token = self.value(of, "ADDRESS")?;
        match token.text.parse::<IpAddr>() {
            Ok(a) if a.is_ipv6() == v6 => Some(a),
            _ => {
                let wanted = if v6 {
                    "an IPv6 address"
                } else {
                    "an IPv4 address"
                };
                self.bad_value(of, token, wanted);
                None
            }
        }
    }

    // ---- sections ----

    fn file(&mut self) {
        while let Some(token) = self.next() {
            let names = ["General", "Sync", "Stats", "Helper"];
            let meant = names.iter().find(|n| n.eq_ignore_ascii_case(token.text));
            let word = meant.map_or(token.text, |n| *n);
            self.note_case(&token.span, token.text, word);
            let item = Item {
                word,
                span: token.span.clone(),
            };
            match (token.kind, word) {
                (Kind::Atom, "General") => self.general(&item),
                (Kind::Atom, "Sync") => self.sync(&item),
                (Kind::Atom, "Stats") => {
                    self.stats_span = Some(item.span.clone());
                    self.later(&item);
                    if self.open(&item) {
                        self.stats(&item);
                    }
                }
                (Kind::Atom, "Helper") => {
                    self.later(&item);
                    if self.open(&item) {
                        self.helper(&item);
                    }
                }
                (Kind::Atom, _) => self.unknown(&item, Section::File),
                (Kind::Close, _) => self.error(
                    item.span,
                    "this brace closes nothing",
                    "remove it, or look for a block closed too early",
                ),
                (Kind::Open, _) => {
                    self.error(item.span, "a block without a word", "name the section");
                    self.skip_block();
                }
                (Kind::Path, _) => {
                    self.error(item.span, "a path outside a section", "name the section");
                }
            }
        }
    }

    fn general(&mut self, section: &Item<'_>) {
        if !self.open(section) {
            return;
        }
        while let Some(item) = self.item_in(section, Section::General) {
            if !self.general_word(&item) {
                self.unknown(&item, Section::General);
            }
        }
    }

    /// A word of General; false if it is none.
    fn general_word(&mut self, item: &Item<'a>) -> bool {
        match item.word {
            "HashSize" => {
                self.number(item);
                let message = "`HashSize` has no effect: tables are sized from `HashLimit`";
                self.warn(item.span.clone(), message);
            }
            "HashLimit" => {
                if let Some(n) = self.number_or_default(item) {
                    self.config.hash_limit = Some(n as usize);
                }
            }
            "LogFile" => {
                if let Some(path) = self.log_file(item, "/var/log/conntrackd.log") {
                    self.config.log_file = Some(path);
                }
            }
            "Syslog" => {
                if let Some(facility) = self.syslog(item) {
                    self.config.syslog = facility;
                }
            }
            "LockFile" => {
                if let Some(path) = self.path(item, PATH_MAX_BYTES) {
                    self.config.lock_file = path;
                }
            }
            "UNIX" => self.unix(item),
            "NetlinkBufferSize" | "SocketBufferSize" => {
                if let Some(n) = self.number(item) {
                    self.config.netlink_buffer = Some(n as usize);
                }
            }
            "NetlinkBufferSizeMaxGrowth"
            | "SocketBufferSizeMaxGrown"
            | "SocketBufferSizeMaxGrowth" => {
                if let Some(n) = self.number(item) {
                    self.config.netlink_buffer_max = n as usize;
                }
            }
            "NetlinkOverrunResync" => self.overrun_resync(item),
            "NetlinkEventsReliable" => {
                if let Some(on) = self.switch(item) {
                    self.config.events_reliable = on;
                }
            }
            "EventIterationLimit" => {
                self.config.event_iteration_limit = self.number_or_default(item);
            }
            "ConntrackEvents" => {
                self.config.conntrack_events = self.switch(item).unwrap_or(true);
            }
            "PollSecs" => match self.number(item) {
                Some(0) => self.error(
                    item.span.clone(),
                    "`PollSecs` is 0",
                    "at least 1; leave it out to listen to events",
                ),
                n => self.config.poll_secs = n,
            },
            "Nice" => {
                let token = self.value(item, "-20");
                if let Some(token) = token
                    && token.text.parse::<i32>().is_err()
                {
                    self.bad_value(item, token, "a number with its sign");
                }
                let message = "`Nice` has no effect: set it from outside with nice(1)";
                self.warn(item.span.clone(), message);
            }
            "Scheduler" => self.scheduler(item),
            "Systemd" => {
                if let Some(on) = self.switch(item) {
                    self.config.systemd = Some(on);
                }
            }
            "Filter" => self.filter(item),
            // CloudStack's files have it here, beside `Sync`.
            "Stats" => {
                self.warn(
                    item.span.clone(),
                    "`Stats` belongs outside General: passed over here",
                );
                if self.open(item) {
                    self.stats(item);
                }
            }
            _ => return false,
        }
        true
    }

    fn log_file(&mut self, item: &Item<'_>, default: &str) -> Option<PathBuf> {
        match self.peek().map(|t| (t.kind, as_switch(t.text))) {
            Some((Kind::Atom, Some(on))) => {
                self.at += 1;
                on.then(|| PathBuf::from(default))
            }
            _ => self.path(item, PATH_MAX_BYTES),
        }
    }

    /// `Some(None)` switches syslog off.
    fn syslog(&mut self, item: &Item<'_>) -> Option<Option<Facility>> {
        let token = self.value(item, "on | off | FACILITY")?;
        if let Some(on) = as_switch(token.text) {
            return Some(on.then_some(Facility(3)));
        }
        let local = token.text.strip_prefix("local");
        let number = local.and_then(|n| n.parse::<u8>().ok()).filter(|n| *n < 8);
        match (token.text, number) {
            ("daemon", _) => Some(Some(Facility(3))),
            (_, Some(n)) => Some(Some(Facility(16 + n))),
            _ => {
                self.warn(
                    token.span.clone(),
                    format!("`{}` is no known syslog facility, ignored", token.text),
                );
                None
            }
        }
    }

    fn unix(&mut self, section: &Item<'_>) {
        if !self.open(section) {
            return;
        }
        while let Some(item) = self.item_in(section, Section::Unix) {
            match item.word {
                "Path" => {
                    if let Some(path) = self.path(&item, SOCKET_PATH_MAX_BYTES) {
                        self.config.control_path = Some(path);
                    }
                }
                "Backlog" => {
                    self.number(&item);
                    self.warn(
                        item.span.clone(),
                        "`Backlog` is deprecated and has no effect",
                    );
                }
                _ => self.unknown(&item, Section::Unix),
            }
        }
    }

    fn overrun_resync(&mut self, item: &Item<'_>) {
        let Some(token) = self.peek() else {
            self.number(item);
            return;
        };
        if let Some(on) = as_switch(token.text) {
            self.at += 1;
            self.config.overrun_resync = on.then_some(30);
        } else if let Some(n) = self.number(item) {
            self.config.overrun_resync = Some(if n == 0 { 30 } else { n });
        }
    }

    fn scheduler(&mut self, section: &Item<'_>) {
        if !self.open(section) {
            return;
        }
        let (mut class, mut priority) = (None, None);
        while let Some(item) = self.item_in(section, Section::Scheduler) {
            match item.word {
                "Type" => {
                    let Some(token) = self.name(&item) else {
                        continue;
                    };
                    class = match token.text.to_ascii_uppercase().as_str() {
                        "RR" => Some(SchedulerType::RoundRobin),
                        "FIFO" => Some(SchedulerType::Fifo),
                        _ => {
                            self.bad_value(&item, token, "RR, FIFO");
                            None
                        }
                    };
                }
                "Priority" => {
                    if let Some(n) = self.number(&item) {
                        if n > 99 {
                            self.error(
                                item.span.clone(),
                                format!("priority {n}"),
                                "accepted: 0 to 99",
                            );
                        }
                        priority = Some(n as i32);
                    }
                }
                _ => self.unknown(&item, Section::Scheduler),
            }
        }
        match (class, priority) {
            (Some(class), priority) => {
                self.config.scheduler = Some((class, priority.unwrap_or(0)));
            }
            (None, Some(_)) => self.warn(
                section.span.clone(),
                "`Priority` has no effect without `Type`",
            ),
            (None, None) => {}
        }
    }

    fn filter(&mut self, section: &Item<'_>) {
        if self
            .peek()
            .is_some_and(|t| t.text.eq_ignore_ascii_case("From"))
        {
            self.at += 1;
            let from = Item {
                word: "From",
                span: section.span.clone(),
            };
            if self.one_of(&from, &["Userspace", "Kernelspace"]) == Some("Kernelspace") {
                self.warn(
                    section.span.clone(),
                    "events are filtered in user space, with the same meaning",
                );
            }
        }
        if !self.open(section) {
            return;
        }
        while let Some(item) = self.item_in(section, Section::Filter) {
            match item.word {
                "Protocol" => self.filter_protocol(&item),
                "Address" => self.filter_address(&item),
                "State" => self.filter_state(&item),
                _ => self.unknown(&item, Section::Filter),
            }
        }
    }

    fn policy(&mut self, of: &Item<'_>) -> Option<Policy> {
        Some(match self.one_of(of, &["Accept", "Ignore"])? {
            "Accept" => Policy::Accept,
            _ => Policy::Ignore,
        })
    }

    fn filter_protocol(&mut self, section: &Item<'_>) {
        let policy = self.policy(section);
        if !self.open(section) {
            return;
        }
        let mut found = Vec::new();
        while let Some(item) = self.item(section) {
            match protocol_by_name(item.word) {
                Some(proto) => found.push(proto),
                None if item.word.bytes().all(|b| b.is_ascii_digit()) => self.error(
                    item.span.clone(),
                    "protocol by number",
                    "write its name, e.g. TCP",
                ),
                None => self.warn(
                    item.span.clone(),
                    format!("unknown protocol `{}`, ignored", item.word),
                ),
            }
        }
        if let Some(policy) = policy {
            // Entries of several blocks are pooled, and the last policy holds for all.
            let set = self.config.filter.protocols.get_or_insert((policy, vec![]));
            set.0 = policy;
            set.1.extend(found);
        }
    }

    fn filter_address(&mut self, section: &Item<'_>) {
        let policy = self.policy(section);
        if !self.open(section) {
            return;
        }
        let mut found = Vec::new();
        while let Some(item) = self.item_in(section, Section::FilterAddress) {
            let v6 = match item.word {
                "IPv4_address" => false,
                "IPv6_address" => true,
                _ => {
                    self.unknown(&item, Section::FilterAddress);
                    continue;
                }
            };
            let Some(token) = self.value(&item, "ADDRESS[/LENGTH]") else {
                continue;
            };
            match parse_prefix(token.text, v6) {
                Some(prefix) => found.push(prefix),
                None => self.warn(
                    token.span.clone(),
                    format!("`{}` is not a valid network, ignored", token.text),
                ),
            }
        }
        if let Some(policy) = policy {
            let set = self.config.filter.addresses.get_or_insert((policy, vec![]));
            set.0 = policy;
            set.1.extend(found);
        }
    }

    fn filter_state(&mut self, section: &Item<'_>) {
        let policy = self.policy(section);
        if !self.open(section) {
            return;
        }
        let mut found = Vec::new();
        let mut group_open = None;
        while let Some(item) = self.item_in(section, Section::FilterState) {
            if item.word == "for" {
                group_open = None;
                self.one_of(&item, &["TCP"]);
                continue;
            }
            group_open = Some(item.span.clone());
            match tcp_state_by_name(item.word) {
                Some(state) => found.push(state),
                None => self.unknown(&item, Section::FilterState),
            }
        }
        if let Some(span) = group_open {
            self.error(
                span,
                "states without their protocol",
                "end them with `for TCP`",
            );
        }
        if let Some(policy) = policy {
            let set = &mut self.config.filter.tcp_states;
            let set = set.get_or_insert((policy, vec![]));
            set.0 = policy;
            set.1.extend(found);
        }
    }

    fn sync(&mut self, section: &Item<'_>) {
        self.sync_span = Some(section.span.clone());
        let mut sync = self.config.sync.take().unwrap_or_else(sync_defaults);
        if self.open(section) {
            while let Some(item) = self.item_in(section, Section::Sync) {
                match item.word {
                    "Mode" => self.mode(&item, &mut sync),
                    "Multicast" => self.link(&item, Transport::Multicast, &mut sync),
                    "UDP" => self.link(&item, Transport::Udp, &mut sync),
                    "TCP" => self.link(&item, Transport::Tcp, &mut sync),
                    "Options" => self.options(&item, &mut sync),
                    _ => {
                        if !self.mode_word(&item, Section::Sync, &mut sync) {
                            self.unknown(&item, Section::Sync);
                        }
                    }
                }
            }
        }
        self.config.sync = Some(sync);
    }

    fn mode(&mut self, item: &Item<'_>, sync: &mut Sync) {
        let Some(token) = self.value(item, "NOTRACK | ALARM | FTFW") else {
            return;
        };
        let (mode, section) = match token.text.to_ascii_uppercase().as_str() {
            "NOTRACK" => (Mode::Notrack, Section::ModeNotrack),
            "ALARM" => (Mode::Alarm, Section::ModeAlarm),
            "FTFW" => (Mode::Ftfw, Section::ModeFtfw),
            "PERSISTENT" => {
                self.warn(
                    token.span.clone(),
                    "`PERSISTENT` is deprecated: write `ALARM`",
                );
                (Mode::Alarm, Section::ModeAlarm)
            }
            "NACK" => {
                self.warn(token.span.clone(), "`NACK` is deprecated: write `FTFW`");
                (Mode::Ftfw, Section::ModeFtfw)
            }
            _ => {
                self.bad_value(item, token, "NOTRACK, ALARM, FTFW");
                if self.peek().is_some_and(|t| t.kind == Kind::Open) {
                    self.at += 1;
                    self.skip_block();
                }
                return;
            }
        };
        // Of several modes FTFW beats ALARM beats NOTRACK; the settings of all apply.
        let rank = |m: Mode| match m {
            Mode::Notrack => 0,
            Mode::Alarm => 1,
            Mode::Ftfw => 2,
        };
        if sync.mode.is_none_or(|old| rank(mode) > rank(old)) {
            sync.mode = Some(mode);
        }
        if !self.open(item) {
            return;
        }
        while let Some(item) = self.item_in(item, section) {
            if !self.mode_word(&item, section, sync) {
                self.unknown(&item, section);
            }
        }
    }

    /// A word that may stand in Sync or in a mode; false if it may not in this one.
    fn mode_word(&mut self, item: &Item<'a>, section: Section, sync: &mut Sync) -> bool {
        let allowed = WORDS
            .iter()
            .any(|w| w.word == item.word && w.sections.contains(&section));
        if !allowed {
            return false;
        }
        match item.word {
            "RefreshTime" => {
                sync.refresh_time = self.number(item).unwrap_or(sync.refresh_time);
            }
            "CacheTimeout" => {
                sync.cache_timeout = self.number(item).unwrap_or(sync.cache_timeout);
            }
            "ResendQueueSize" => {
                sync.resend_queue_size = self.number(item).unwrap_or(sync.resend_queue_size);
            }
            "ACKWindowSize" => {
                sync.ack_window_size = self.number(item).unwrap_or(sync.ack_window_size);
            }
            "CommitTimeout" => sync.commit_timeout = self.number_or_default(item),
            "PurgeTimeout" => {
                sync.purge_timeout = self.number(item).unwrap_or(sync.purge_timeout);
            }
            "DisableInternalCache" => {
                sync.disable_internal_cache = self.switch(item).unwrap_or(false);
            }
            "DisableExternalCache" => {
                sync.disable_external_cache = self.switch(item).unwrap_or(false);
            }
            "StartupResync" => sync.startup_resync = self.switch(item).unwrap_or(false),
            _ => return false,
        }
        true
    }

    fn link(&mut self, section: &Item<'a>, transport: Transport, sync: &mut Sync) {
        let home = match transport {
            Transport::Udp => Section::Udp,
            Transport::Multicast => Section::Multicast,
            Transport::Tcp => Section::Tcp,
        };
        if sync.transport.is_some_and(|t| t != transport) {
            self.error(
                section.span.clone(),
                format!("`{}` beside links of another transport", section.word),
                "all links of a file have the same transport",
            );
        }
        sync.transport = Some(transport);
        let mut link = Link {
            address: None,
            destination: None,
            interface_address: None,
            interface: None,
            port: 0,
            send_buffer: None,
            receive_buffer: None,
            checksum: true,
            default: false,
            line: self.text[..section.span.start].matches('\n').count() + 1,
        };
        if self
            .peek()
            .is_some_and(|t| t.text.eq_ignore_ascii_case("Default"))
        {
            self.at += 1;
            link.default = true;
        }
        if self.open(section) {
            while let Some(item) = self.item_in(section, home) {
                self.link_word(&item, home, &mut link);
            }
        }
        if transport == Transport::Multicast {
            link.destination = link.address;
        }
        self.check_link(section, transport, &link);
        if sync.links.len() == LINKS_MAX {
            self.error(
                section.span.clone(),
                "too many dedicated links",
                format!("at most {LINKS_MAX}"),
            );
        } else {
            if link.default {
                sync.links.iter_mut().for_each(|l| l.default = false);
            }
            sync.links.push(link);
        }
    }

    fn link_word(&mut self, item: &Item<'a>, section: Section, link: &mut Link) {
        let allowed = WORDS
            .iter()
            .any(|w| w.word == item.word && w.sections.contains(&section));
        if !allowed {
            return self.unknown(item, section);
        }
        match item.word {
            "IPv4_address" | "IPv6_address" => {
                let v6 = item.word == "IPv6_address";
                let other = link.address.filter(|a| a.is_ipv6() != v6);
                match self.address(item, v6) {
                    Some(_) if other.is_some() && section == Section::Multicast => self.warn(
                        item.span.clone(),
                        "IPv4 and IPv6 in one `Multicast`: the later one is ignored",
                    ),
                    address => link.address = address.or(link.address),
                }
            }
            "IPv4_Destination_Address" => {
                link.destination = self.address(item, false).or(link.destination);
            }
            "IPv6_Destination_Address" => {
                link.destination = self.address(item, true).or(link.destination);
            }
            "IPv4_interface" => {
                if let Some(IpAddr::V4(a)) = self.address(item, false) {
                    link.interface_address = Some(a);
                }
            }
            "IPv6_interface" => {
                self.value(item, "ADDRESS");
                self.warn(
                    item.span.clone(),
                    "`IPv6_interface` is not needed and has no effect",
                );
            }
            "Interface" => {
                if let Some(token) = self.name(item) {
                    if token.text.len() > INTERFACE_MAX_BYTES {
                        self.error(
                            token.span.clone(),
                            format!("interface name of {} characters", token.text.len()),
                            format!("at most {INTERFACE_MAX_BYTES} characters"),
                        );
                    }
                    link.interface = Some(token.text.to_owned());
                }
            }
            "Group" | "Port" => {
                if let Some(n) = self.number(item) {
                    match u16::try_from(n) {
                        Ok(port) => link.port = port,
                        Err(_) => self.error(
                            item.span.clone(),
                            format!("port {n}"),
                            "accepted: 1 to 65535",
                        ),
                    }
                }
            }
            "SndSocketBuffer" => link.send_buffer = self.number(item).map(|n| n as usize),
            "RcvSocketBuffer" => link.receive_buffer = self.number(item).map(|n| n as usize),
            "Checksum" => link.checksum = self.switch(item).unwrap_or(true),
            "ErrorQueueLength" => {
                self.later(item);
                self.number(item);
            }
            _ => self.unknown(item, section),
        }
    }

    fn check_link(&mut self, section: &Item<'_>, transport: Transport, link: &Link) {
        let mut missing = Vec::new();
        if link.interface.is_none() {
            missing.push("Interface");
        }
        if link.port == 0 {
            missing.push(if transport == Transport::Multicast {
                "Group"
            } else {
                "Port"
            });
        }
        if link.destination.is_none() {
            missing.push(if transport == Transport::Multicast {
                "IPv4_address or IPv6_address"
            } else {
                "IPv4_Destination_Address or IPv6_Destination_Address"
            });
        }
        if !missing.is_empty() {
            self.error(
                section.span.clone(),
                format!("`{}` lacks {}", section.word, missing.join(", ")),
                "a link needs its interface, its port and where it goes to",
            );
        }
        if let (Some(own), Some(peer)) = (link.address, link.destination)
            && own.is_ipv4() != peer.is_ipv4()
        {
            self.error(
                section.span.clone(),
                "own address and peer are of two families",
                "give both as IPv4 or both as IPv6",
            );
        }
        if transport == Transport::Multicast
            && let Some(group) = link.address
            && !group.is_multicast()
        {
            self.error(
                section.span.clone(),
                format!("{group} is no multicast group"),
                "224.0.0.0/4 or ff00::/8",
            );
        }
    }

    fn options(&mut self, section: &Item<'_>, sync: &mut Sync) {
        if !self.open(section) {
            return;
        }
        while let Some(item) = self.item_in(section, Section::Options) {
            match item.word {
                "TCPWindowTracking" => {
                    sync.window_tracking = self.switch(&item).unwrap_or(false);
                }
                "AliveTrailer" => sync.alive_trailer = self.switch(&item).unwrap_or(true),
                "ExpectationSync" => {
                    if self.peek().is_some_and(|t| t.kind == Kind::Open) {
                        self.at += 1;
                        let mut names = Vec::new();
                        while let Some(name) = self.item(&item) {
                            names.push(name.word.to_owned());
                        }
                        sync.expectation_sync = Some(names);
                    } else {
                        let on = self.switch(&item).unwrap_or(false);
                        sync.expectation_sync = on.then(Vec::new);
                    }
                }
                _ => self.unknown(&item, Section::Options),
            }
        }
    }

    fn stats(&mut self, section: &Item<'_>) {
        while let Some(item) = self.item_in(section, Section::Stats) {
            match item.word {
                "LogFile" => {
                    self.log_file(&item, "/var/log/conntrackd-stats.log");
                }
                "Syslog" => {
                    self.syslog(&item);
                }
                _ => self.unknown(&item, Section::Stats),
            }
        }
    }

    /// Helper blocks are read for their syntax only.
    fn helper(&mut self, section: &Item<'_>) {
        while let Some(item) = self.item_in(section, Section::Helper) {
            match item.word {
                "Setup" => {
                    self.switch(&item);
                }
                "QueueNum" | "QueueLen" | "ExpectMax" | "ExpectTimeout" => {
                    self.number(&item);
                }
                "Type" => {
                    self.name(&item);
                    self.one_of(&item, &["inet", "inet6"]);
                    self.one_of(&item, &["tcp", "udp"]);
                    if self.open(&item) {
                        self.helper(&item);
                    }
                }
                "Policy" => {
                    if let Some(token) = self.name(&item)
                        && token.text.len() > POLICY_MAX_BYTES
                    {
                        self.error(
                            token.span.clone(),
                            format!("policy name of {} characters", token.text.len()),
                            format!("at most {POLICY_MAX_BYTES} characters"),
                        );
                    }
                    if self.open(&item) {
                        self.helper(&item);
                    }
                }
                _ => self.unknown(&item, Section::Helper),
            }
        }
    }

    // ---- rules across sections ----

    fn check_combinations(&mut self) {
        if let (Some(sync), Some(stats)) = (self.sync_span.clone(), &self.stats_span) {
            let later = sync.start.max(stats.start);
            self.error(
                later..later + 4,
                "`Sync` and `Stats` in one file",
                "a daemon either replicates or logs statistics",
            );
        }
        let Some(span) = self.sync_span.clone() else {
            return;
        };
        let Some(mut sync) = self.config.sync.take() else {
            return;
        };
        if sync.mode.is_none() {
            self.warn(
                span.clone(),
                "No synchronization mode specified. Defaulting to FT-FW mode.",
            );
        }
        if sync.links.is_empty() {
            self.error(
                span.clone(),
                "`Sync` without a link",
                "add a `UDP { ... }` or `Multicast { ... }` block",
            );
        }
        if sync.mode == Some(Mode::Alarm) && sync.refresh_time >= sync.cache_timeout {
            self.warn(
                span.clone(),
                "`CacheTimeout` is not longer than `RefreshTime`: entries expire before they are sent again",
            );
        }
        if sync.disable_external_cache && sync.commit_timeout.take().is_some() {
            self.warn(
                span,
                "`CommitTimeout` cannot be combined with `DisableExternalCache`: ignored",
            );
        }
        self.config.sync = Some(sync);
    }
}

fn as_switch(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("on") || text.eq_ignore_ascii_case("yes") {
        Some(true)
    } else if text.eq_ignore_ascii_case("off") || text.eq_ignore_ascii_case("no") {
        Some(false)
    } else {
        None
    }
}

fn parse_prefix(text: &str, v6: bool) -> Option<Prefix> {
    let (addr, len) = match text.split_once('/') {
        Some((addr, len)) => (addr, Some(len.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let addr: IpAddr = addr.parse().ok()?;
    if addr.is_ipv6() != v6 {
        return None;
    }
    match len {
        Some(len) => Prefix::new(addr, len),
        None => Some(Prefix::host(addr)),
    }
}

fn tcp_state_by_name(name: &str) -> Option<TcpState> {
    Some(match name {
        "SYN_SENT" => TcpState::SYN_SENT,
        "SYN_RECV" => TcpState::SYN_RECV,
        "ESTABLISHED" => TcpState::ESTABLISHED,
        "FIN_WAIT" => TcpState::FIN_WAIT,
        "CLOSE_WAIT" => TcpState::CLOSE_WAIT,
        "LAST_ACK" => TcpState::LAST_ACK,
        "TIME_WAIT" => TcpState::TIME_WAIT,
        "CLOSE" | "CLOSED" => TcpState::CLOSE,
        // The kernel uses the number for a simultaneous open now.
        "LISTEN" => TcpState::SYN_SENT2,
        _ => return None,
    })
}

/// The protocols that are tracked, and others in use, by any name that Debian's
/// `/etc/protocols` knows for them.
fn protocol_by_name(name: &str) -> Option<Proto> {
    let number = match name.to_ascii_lowercase().as_str() {
        "ip" => 0,
        "icmp" => 1,
        "igmp" => 2,
        "ipencap" | "ip-encap" => 4,
        "tcp" => 6,
        "egp" => 8,
        "igp" => 9,
        "udp" => 17,
        "dccp" => 33,
        "ipv6" => 41,
        "rsvp" => 46,
        "gre" => 47,
        "esp" | "ipsec-esp" => 50,
        "ah" | "ipsec-ah" => 51,
        "ipv6-icmp" => 58,
        "eigrp" => 88,
        "ospf" | "ospfigp" => 89,
        "ipip" => 94,
        "pim" => 103,
        "vrrp" => 112,
        "l2tp" => 115,
        "sctp" => 132,
        "udplite" => 136,
        "mpls-in-ip" => 137,
        _ => return None,
    };
    Some(Proto(number))
}

#[cfg(test)]
mod tests;
