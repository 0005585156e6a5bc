//! The reserved words: where each may stand, and whether it has an effect yet.
//!
//! The parser decides what a word does; this table says what an error message
//! suggests, and what a warning says about a word without effect.

/// A block in which words stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Outside all braces.
    File,
    /// `General`
    General,
    /// `UNIX`
    Unix,
    /// `Scheduler`
    Scheduler,
    /// `Filter`
    Filter,
    /// `Address` in a filter.
    FilterAddress,
    /// `State` in a filter.
    FilterState,
    /// `Sync`
    Sync,
    /// `Mode ALARM`
    ModeAlarm,
    /// `Mode FTFW`
    ModeFtfw,
    /// `Mode NOTRACK`
    ModeNotrack,
    /// `Multicast`
    Multicast,
    /// `UDP`
    Udp,
    /// `TCP`
    Tcp,
    /// `Options`
    Options,
    /// `Stats`
    Stats,
    /// `Helper`
    Helper,
    /// Inside another word's value.
    Value,
}

impl Section {
    /// How a message names it.
    pub fn name(self) -> &'static str {
        match self {
            Section::File => "the file, outside all braces",
            Section::General => "General",
            Section::Unix => "General { UNIX }",
            Section::Scheduler => "General { Scheduler }",
            Section::Filter => "General { Filter }",
            Section::FilterAddress => "General { Filter { Address } }",
            Section::FilterState => "General { Filter { State } }",
            Section::Sync => "Sync",
            Section::ModeAlarm => "Sync { Mode ALARM }",
            Section::ModeFtfw => "Sync { Mode FTFW }",
            Section::ModeNotrack => "Sync { Mode NOTRACK }",
            Section::Multicast => "Sync { Multicast }",
            Section::Udp => "Sync { UDP }",
            Section::Tcp => "Sync { TCP }",
            Section::Options => "Sync { Options }",
            Section::Stats => "Stats",
            Section::Helper => "Helper",
            Section::Value => "a value",
        }
    }
}

/// A reserved word and the sections in which it may stand.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// Its spelling.
    pub word: &'static str,
    /// Where it may stand.
    pub sections: &'static [Section],
}

use Section as S;

const LINKS: &[Section] = &[S::Multicast, S::Udp, S::Tcp];
const UNICAST: &[Section] = &[S::Udp, S::Tcp];
const MODES: &[Section] = &[S::Sync, S::ModeAlarm, S::ModeFtfw, S::ModeNotrack];

const fn w(word: &'static str, sections: &'static [Section]) -> Word {
    Word { word, sections }
}

/// Every reserved word of the language (configuration reference, section 2), and
/// two of ours, `ConntrackEvents` and `AliveTrailer`.
pub const WORDS: &[Word] = &[
    w("General", &[S::File]),
    w("Sync", &[S::File]),
    w("Stats", &[S::File]),
    w("Helper", &[S::File]),
    w("HashSize", &[S::General]),
    w("HashLimit", &[S::General]),
    w("LogFile", &[S::General, S::Stats]),
    w("Syslog", &[S::General, S::Stats]),
    w("LockFile", &[S::General]),
    w("UNIX", &[S::General]),
    w("Path", &[S::Unix]),
    w("Backlog", &[S::Unix]),
    w("NetlinkBufferSize", &[S::General]),
    w("SocketBufferSize", &[S::General]),
    w("NetlinkBufferSizeMaxGrowth", &[S::General]),
    w("SocketBufferSizeMaxGrown", &[S::General]),
    w("SocketBufferSizeMaxGrowth", &[S::General]),
    w("NetlinkOverrunResync", &[S::General]),
    w("NetlinkEventsReliable", &[S::General]),
    w("EventIterationLimit", &[S::General]),
    w("ConntrackEvents", &[S::General]),
    w("PollSecs", &[S::General]),
    w("Nice", &[S::General]),
    w("Scheduler", &[S::General]),
    w("Type", &[S::Scheduler, S::Helper]),
    w("Priority", &[S::Scheduler]),
    w("Systemd", &[S::General]),
    w("Filter", &[S::General]),
    w("From", &[S::Value]),
    w("Userspace", &[S::Value]),
    w("Kernelspace", &[S::Value]),
    w("Protocol", &[S::Filter]),
    w("Address", &[S::Filter]),
    w("State", &[S::Filter]),
    w("Accept", &[S::Value]),
    w("Ignore", &[S::Value]),
    w("SYN_SENT", &[S::FilterState]),
    w("SYN_RECV", &[S::FilterState]),
    w("ESTABLISHED", &[S::FilterState]),
    w("FIN_WAIT", &[S::FilterState]),
    w("CLOSE_WAIT", &[S::FilterState]),
    w("LAST_ACK", &[S::FilterState]),
    w("TIME_WAIT", &[S::FilterState]),
    w("CLOSE", &[S::FilterState]),
    w("CLOSED", &[S::FilterState]),
    w("LISTEN", &[S::FilterState]),
    w("for", &[S::FilterState]),
    w("Mode", &[S::Sync]),
    w("ALARM", &[S::Value]),
    w("PERSISTENT", &[S::Value]),
    w("FTFW", &[S::Value]),
    w("NACK", &[S::Value]),
    w("NOTRACK", &[S::Value]),
    w("RefreshTime", &[S::Sync, S::ModeAlarm]),
    w("CacheTimeout", &[S::Sync, S::ModeAlarm]),
    w("CommitTimeout", MODES),
    w("PurgeTimeout", MODES),
    w("ResendQueueSize", &[S::ModeFtfw]),
    w("ACKWindowSize", &[S::ModeFtfw]),
    w("DisableInternalCache", &[S::ModeNotrack]),
    w("DisableExternalCache", &[S::ModeFtfw, S::ModeNotrack]),
    w("StartupResync", &[S::ModeFtfw, S::ModeNotrack]),
    w("Multicast", &[S::Sync]),
    w("UDP", &[S::Sync]),
    w("TCP", &[S::Sync]),
    w("Default", &[S::Value]),
    w(
        "IPv4_address",
        &[S::Multicast, S::Udp, S::Tcp, S::FilterAddress],
    ),
    w(
        "IPv6_address",
        &[S::Multicast, S::Udp, S::Tcp, S::FilterAddress],
    ),
    w("IPv4_interface", &[S::Multicast]),
    w("IPv6_interface", &[S::Multicast]),
    w("IPv4_Destination_Address", UNICAST),
    w("IPv6_Destination_Address", UNICAST),
    w("Interface", LINKS),
    w("Group", &[S::Multicast]),
    w("Port", UNICAST),
    w("SndSocketBuffer", LINKS),
    w("RcvSocketBuffer", LINKS),
    w("Checksum", LINKS),
    w("ErrorQueueLength", &[S::Tcp]),
    w("Options", &[S::Sync]),
    w("TCPWindowTracking", &[S::Options]),
    w("AliveTrailer", &[S::Options]),
    w("ExpectationSync", &[S::Options]),
    w("Setup", &[S::Helper]),
    w("QueueNum", &[S::Helper]),
    w("QueueLen", &[S::Helper]),
    w("Policy", &[S::Helper]),
    w("ExpectMax", &[S::Helper]),
    w("ExpectTimeout", &[S::Helper]),
];

/// What to say of `text`, which may not stand in `section`.
pub(crate) fn advice(text: &str, section: Section) -> String {
    let here = || WORDS.iter().filter(|w| w.sections.contains(&section));
    if let Some(word) = here().find(|w| w.word.eq_ignore_ascii_case(text)) {
        return format!("write `{}`: words are case-sensitive", word.word);
    }
    if let Some(word) = WORDS.iter().find(|w| w.word == text)
        && let Some(home) = word.sections.first().filter(|s| **s != Section::Value)
    {
        return format!("`{text}` belongs in {}", home.name());
    }
    let near = here()
        .map(|w| (distance(text, w.word), w.word))
        .min()
        .filter(|(d, _)| *d <= 3);
    match near {
        Some((_, word)) => format!("did you mean `{word}`?"),
        None => {
            let list: Vec<_> = here().map(|w| w.word).collect();
            format!("accepted here: {}", list.join(", "))
        }
    }
}

/// True for a reserved word, and for what may be one with a slip in it.
pub(crate) fn is_like_a_word(text: &str) -> bool {
    let slips = |word: &str| word.len() > 5 && distance(text, word) <= 2;
    (WORDS.iter()).any(|w| w.word == text || slips(w.word))
}

/// Edit distance without regard to case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = usize::from(ca.to_ascii_lowercase() != *cb);
            let best = (diagonal + cost).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[b.len()]
}
