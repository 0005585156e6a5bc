//! Which flows a listing shows: words `FIELD=VALUE` or `FIELD!=VALUE`, all of which must hold.
//!
//! Both ends read them: the command line refuses a bad one at once, the daemon chooses by
//! them. If a flow lacks a field, `FIELD=VALUE` does not hold, and `FIELD!=VALUE` holds.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use flow::{Expectation, Flow, L4, Prefix, Proto, ProtoInfo, SctpInfo, Status, TcpInfo, TcpState};

/// A condition on flows. The default holds for all.
#[derive(Clone, Debug, Default)]
pub struct Query {
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    negated: bool,
    /// One of them must hold.
    tests: Vec<Test>,
}

/// Which address or port of the two tuples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Src,
    Dst,
    ReplySrc,
    ReplyDst,
}

#[derive(Clone, Debug)]
enum Test {
    Proto(Proto),
    V6(bool),
    Addr(End, Prefix),
    Port(End, RangeInclusive<u64>),
    Icmp(fn(u16, u8, u8) -> u64, RangeInclusive<u64>),
    Zone(RangeInclusive<u64>),
    Mark(u32, u32),
    State(&'static str),
    Status(Status),
    Nat(Nat),
    Helper(String),
    Label(u8),
    Timeout(RangeInclusive<u64>),
    Id(RangeInclusive<u64>),
    Related(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nat {
    Any,
    Src,
    Dst,
    None,
}

/// Every field with what its value may be and what it is compared with.
pub const FIELDS: &[(&str, &str, &str)] = &[
    ("proto", "NAME|NUMBER", "layer 4 protocol"),
    ("family", "ipv4|ipv6", "address family"),
    (
        "src",
        "ADDRESS[/LENGTH]",
        "source of the original direction",
    ),
    (
        "dst",
        "ADDRESS[/LENGTH]",
        "destination of the original direction",
    ),
    (
        "reply-src",
        "ADDRESS[/LENGTH]",
        "source of the reply direction",
    ),
    (
        "reply-dst",
        "ADDRESS[/LENGTH]",
        "destination of the reply direction",
    ),
    ("sport", "N[-M]", "source port of the original direction"),
    (
        "dport",
        "N[-M]",
        "destination port of the original direction",
    ),
    ("reply-sport", "N[-M]", "source port of the reply direction"),
    (
        "reply-dport",
        "N[-M]",
        "destination port of the reply direction",
    ),
    ("type", "N[-M]", "ICMP type"),
    ("code", "N[-M]", "ICMP code"),
    ("icmp-id", "N[-M]", "ICMP identifier"),
    ("zone", "N[-M]", "zone"),
    ("mark", "VALUE[/MASK]", "mark, decimal or 0x"),
    (
        "state",
        "NAME",
        "state of TCP, SCTP or DCCP, e.g. ESTABLISHED",
    ),
    ("status", "NAME", "a status bit, e.g. ASSURED"),
    ("nat", "any|src|dst|none", "what is translated"),
    ("helper", "NAME", "helper"),
    ("label", "N", "a label that is set, 0 to 127"),
    ("timeout", "N[-M]", "seconds until it expires"),
    ("id", "N[-M]", "the kernel's id"),
    ("related", "yes|no", "it came from an expectation"),
];

/// The fields that an expectation has: those of the predicted flow.
pub const EXPECTATION_FIELDS: &[&str] = &[
    "proto", "family", "src", "dst", "sport", "dport", "zone", "helper", "timeout", "id",
];

/// Names of the status bits.
pub(crate) const STATUS_NAMES: &[(&str, Status)] = &[
    ("EXPECTED", Status::EXPECTED),
    ("SEEN_REPLY", Status::SEEN_REPLY),
    ("ASSURED", Status::ASSURED),
    ("CONFIRMED", Status::CONFIRMED),
    ("SRC_NAT", Status::SRC_NAT),
    ("DST_NAT", Status::DST_NAT),
    ("SEQ_ADJUST", Status::SEQ_ADJUST),
    ("SRC_NAT_DONE", Status::SRC_NAT_DONE),
    ("DST_NAT_DONE", Status::DST_NAT_DONE),
    ("DYING", Status::DYING),
    ("FIXED_TIMEOUT", Status::FIXED_TIMEOUT),
    ("HELPER", Status::HELPER),
];

/// Why a word is no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTerm {
    word: String,
    accepted: String,
}

impl fmt::Display for BadTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no filter: {}", self.word, self.accepted)
    }
}

impl Query {
    /// Reads the words of a filter.
    ///
    /// # Errors
    /// The first word that is none, and what would be accepted.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Query, BadTerm> {
        Query::of(words, |_| true)
    }

    /// The same for expectations, which have [`EXPECTATION_FIELDS`].
    ///
    /// # Errors
    /// As of [`Query::parse`].
    pub fn parse_for_expectations<S: AsRef<str>>(words: &[S]) -> Result<Query, BadTerm> {
        Query::of(words, |field| EXPECTATION_FIELDS.contains(&field))
    }

    fn of<S: AsRef<str>>(words: &[S], has: fn(&str) -> bool) -> Result<Query, BadTerm> {
        let terms = words.iter().map(|w| Term::parse(w.as_ref(), has));
        Ok(Query {
            terms: terms.collect::<Result<_, _>>()?,
        })
    }

    /// True if the flow is to be shown.
    pub fn holds(&self, flow: &Flow) -> bool {
        let any = |t: &Term| t.tests.iter().any(|test| test.holds(flow));
        self.terms.iter().all(|t| any(t) != t.negated)
    }

    /// True if the expectation is to be shown: the flow that it predicts is looked at.
    pub fn holds_expectation(&self, expectation: &Expectation) -> bool {
        let mut predicted = Flow::new(expectation.tuple);
        predicted.zone = expectation.zone;
        predicted.helper = expectation.helper;
        predicted.timeout = expectation.timeout;
        predicted.id = expectation.id;
        self.holds(&predicted)
    }
}

impl Term {
    /// `has`: which fields there are.
    fn parse(word: &str, has: fn(&str) -> bool) -> Result<Term, BadTerm> {
        let bad = |accepted: String| BadTerm {
            word: word.to_owned(),
            accepted,
        };
        let fields = || {
            let names = FIELDS.iter().map(|(name, ..)| *name);
            let names: Vec<_> = names.filter(|name| has(name)).collect();
            format!(
                "FIELD=VALUE or FIELD!=VALUE with one of {}",
                names.join(", ")
            )
        };
        let (field, value) = word.split_once('=').ok_or_else(|| bad(fields()))?;
        let (field, negated) = match field.strip_suffix('!') {
            Some(field) => (field, true),
            None => (field, false),
        };
        let known = FIELDS.iter().find(|(name, ..)| *name == field && has(name));
        let (_, accepted, _) = known.ok_or_else(|| bad(fields()))?;
        let tests = value.split(',').map(|value| Test::parse(field, value));
        let tests = tests.collect::<Option<Vec<_>>>();
        let tests = tests.ok_or_else(|| {
            let names = match field {
                "state" => format!(": {}", state_names().join(", ")),
                "status" => {
                    let names: Vec<_> = STATUS_NAMES.iter().map(|(name, _)| *name).collect();
                    format!(": {}", names.join(", "))
                }
                _ => String::new(),
            };
            bad(format!("write {field}={accepted}[,...]{names}"))
        })?;
        Ok(Term { negated, tests })
    }
}

impl Test {
    fn parse(field: &str, value: &str) -> Option<Test> {
        Some(match field {
            "proto" => Test::Proto(protocol(value)?),
            "family" => Test::V6(match value {
                "ipv4" => false,
                "ipv6" => true,
                _ => return None,
            }),
            "src" => Test::Addr(End::Src, prefix(value)?),
            "dst" => Test::Addr(End::Dst, prefix(value)?),
            "reply-src" => Test::Addr(End::ReplySrc, prefix(value)?),
            "reply-dst" => Test::Addr(End::ReplyDst, prefix(value)?),
            "sport" => Test::Port(End::Src, range(value, 0xffff)?),
            "dport" => Test::Port(End::Dst, range(value, 0xffff)?),
            "reply-sport" => Test::Port(End::ReplySrc, range(value, 0xffff)?),
            "reply-dport" => Test::Port(End::ReplyDst, range(value, 0xffff)?),
            "type" => Test::Icmp(|_, kind, _| kind.into(), range(value, 0xff)?),
            "code" => Test::Icmp(|_, _, code| code.into(), range(value, 0xff)?),
            "icmp-id" => Test::Icmp(|id, _, _| id.into(), range(value, 0xffff)?),
            "zone" => Test::Zone(range(value, 0xffff)?),
            "mark" => {
                let (mark, mask) = value.split_once('/').unwrap_or((value, "0xffffffff"));
                Test::Mark(word(mark)?, word(mask)?)
            }
            "state" => Test::State(state_name(value)?),
            "status" => {
                let named = |(name, _): &&(&str, Status)| name.eq_ignore_ascii_case(value);
                Test::Status(STATUS_NAMES.iter().find(named)?.1)
            }
            "nat" => Test::Nat(match value {
                "any" => Nat::Any,
                "src" => Nat::Src,
                "dst" => Nat::Dst,
                "none" => Nat::None,
                _ => return None,
            }),
            "helper" if !value.is_empty() => Test::Helper(value.to_owned()),
            "label" => Test::Label(value.parse().ok().filter(|n| *n < 128)?),
            "timeout" => Test::Timeout(range(value, u32::MAX.into())?),
            "id" => Test::Id(range(value, u32::MAX.into())?),
            "related" => Test::Related(match value {
                "yes" => true,
                "no" => false,
                _ => return None,
            }),
            _ => return None,
        })
    }

    fn holds(&self, f: &Flow) -> bool {
        let has = |range: &RangeInclusive<u64>, n: u64| range.contains(&n);
        match self {
            Test::Proto(proto) => f.orig.proto == *proto,
            Test::V6(v6) => f.orig.addrs.is_v4() != *v6,
            Test::Addr(end, prefix) => prefix.contains(match end {
                End::Src => f.orig.addrs.src(),
                End::Dst => f.orig.addrs.dst(),
                End::ReplySrc => f.reply.addrs.src(),
                End::ReplyDst => f.reply.addrs.dst(),
            }),
            Test::Port(end, range) => {
                let (tuple, is_src) = match end {
                    End::Src => (&f.orig, true),
                    End::Dst => (&f.orig, false),
                    End::ReplySrc => (&f.reply, true),
                    End::ReplyDst => (&f.reply, false),
                };
                match tuple.l4 {
                    L4::Ports { src, dst } => has(range, if is_src { src } else { dst }.into()),
                    _ => false,
                }
            }
            Test::Icmp(pick, range) => match f.orig.l4 {
                L4::Icmp { id, kind, code } => has(range, pick(id, kind, code)),
                _ => false,
            },
            Test::Zone(range) => has(range, f.zone.0.into()),
            Test::Mark(mark, mask) => f.mark.map_or(0, |m| m.0) & mask == mark & mask,
            Test::State(name) => f.proto_info.and_then(|p| p.state_name()) == Some(name),
            Test::Status(bit) => f.status.contains(*bit),
            Test::Nat(nat) => {
                let (src, dst) = (f.source_translated(), f.destination_translated());
                match nat {
                    Nat::Any => src || dst,
                    Nat::Src => src,
                    Nat::Dst => dst,
                    Nat::None => !src && !dst,
                }
            }
            Test::Helper(name) => f.helper.is_some_and(|h| h.as_str() == name),
            Test::Label(n) => f
                .labels
                .is_some_and(|l| l.0[usize::from(n / 32)] >> (n % 32) & 1 == 1),
            Test::Timeout(range) => f.timeout.is_some_and(|t| has(range, t.into())),
            Test::Id(range) => f.id.is_some_and(|id| has(range, id.into())),
            Test::Related(yes) => f.master.is_some() == *yes,
        }
    }
}

/// Name of a protocol that the kernel tracks, or a number.
fn protocol(text: &str) -> Option<Proto> {
    if let Ok(n) = text.parse() {
        return Some(Proto(n));
    }
    let named = |p: &Proto| p.name().is_some_and(|n| n.eq_ignore_ascii_case(text));
    (0..=u8::MAX).map(Proto).find(named)
}

fn prefix(text: &str) -> Option<Prefix> {
    match text.split_once('/') {
        Some((addr, len)) => Prefix::new(addr.parse().ok()?, len.parse().ok()?),
        None => Some(Prefix::host(text.parse::<IpAddr>().ok()?)),
    }
}

/// `N`, `N-M`, `N-`.
fn range(text: &str, max: u64) -> Option<RangeInclusive<u64>> {
    let number = |t: &str| t.parse::<u64>().ok().filter(|n| *n <= max);
    let (first, last) = match text.split_once('-') {
        Some((first, "")) => (number(first)?, max),
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some(first..=last)
}

fn word(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The kernel's name of a state of any protocol that has states.
fn state_name(text: &str) -> Option<&'static str> {
    let mut names = state_names().into_iter();
    names.find(|name| name.eq_ignore_ascii_case(text))
}

/// The states of TCP, SCTP and DCCP, each name once.
fn state_names() -> Vec<&'static str> {
    let tcp = |n| {
        ProtoInfo::Tcp(TcpInfo {
            state: TcpState(n),
            window_scale: None,
        })
    };
    let sctp = |state| {
        ProtoInfo::Sctp(SctpInfo {
            state,
            vtag_orig: 0,
            vtag_reply: 0,
        })
    };
    let dccp = |state| ProtoInfo::Dccp(flow::DccpInfo { state, role: 0 });
    let all = (0..16).flat_map(|n| [tcp(n), sctp(n), dccp(n)]);
    let mut names: Vec<&'static str> = all.filter_map(|p| p.state_name()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use flow::{Addrs, Labels, Mark, Tuple, Zone};

    use super::*;

    fn flow() -> Flow {
        let mut flow = Flow::new(Tuple {
            addrs: Addrs::V4 {
                src: [10, 0, 0, 5].into(),
                dst: [192, 0, 2, 1].into(),
            },
            proto: Proto::TCP,
            l4: L4::Ports {
                src: 40_000,
                dst: 443,
            },
        });
        flow.reply.addrs = flow.reply.addrs.with_dst([198, 51, 100, 1].into()).unwrap();
        flow.status = Status::ASSURED.with(Status::SRC_NAT);
        flow.mark = Some(Mark(0x107));
        flow.zone = Zone(3);
        flow.labels = Some(Labels([0, 0, 0, 1 << 31]));
        flow.timeout = Some(100);
        flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state: TcpState::ESTABLISHED,
            window_scale: None,
        }));
        flow
    }

    #[test]
    fn a_list_holds_if_one_of_its_values_does() {
        let flow = |port| {
            let mut flow = Flow::new(Tuple {
                addrs: Addrs::V4 {
                    src: [10, 0, 0, 1].into(),
                    dst: [10, 0, 0, 2].into(),
                },
                proto: Proto::TCP,
                l4: L4::Ports { src: 1, dst: port },
            });
            flow.mark = Some(Mark(0));
            flow
        };
        let holds = |word: &str| {
            let query = Query::parse(&[word]).expect("a filter");
            [22, 80, 443].map(|port| query.holds(&flow(port)))
        };
        assert_eq!(holds("dport=22,400-500"), [true, false, true]);
        assert_eq!(holds("dport!=22,443"), [false, true, false]);
        assert!(Query::parse(&["dport=22,"]).is_err());
        let error = Query::parse(&["state=FOO"]).unwrap_err().to_string();
        assert!(error.contains("ESTABLISHED, FIN_WAIT"), "{error}");
    }

    #[test]
    fn every_field_holds_and_fails() {
        let holds = |word: &str| Query::parse(&[word]).unwrap().holds(&flow());
        let words = [
            "proto=tcp",
            "proto=6",
            "family=ipv4",
            "src=10.0.0.0/8",
            "dst=192.0.2.1",
            "reply-src=192.0.2.1",
            "reply-dst=198.51.100.0/24",
            "sport=40000",
            "dport=400-500",
            "reply-sport=443",
            "reply-dport=1024-",
            "zone=3",
            "mark=0x7/0xff",
            "mark=263",
            "state=established",
            "status=assured",
            "nat=any",
            "nat=src",
            "label=127",
            "timeout=50-100",
            "related=no",
            "helper!=ftp",
            "type!=8",
            "code!=0",
            "icmp-id!=1",
            "id!=5",
        ];
        for word in words {
            assert!(holds(word), "{word}");
            let other = match word.split_once("!=") {
                Some((field, value)) => format!("{field}={value}"),
                None => word.replacen('=', "!=", 1),
            };
            assert!(!holds(&other), "{other}");
        }
        for (field, ..) in FIELDS {
            let is_tested = |w: &&str| w.split(['=', '!']).next() == Some(field);
            assert!(words.iter().any(is_tested), "{field}");
        }
    }

    #[test]
    fn all_terms_must_hold() {
        let both = Query::parse(&["proto=tcp", "dport=80"]).unwrap();
        assert!(!both.holds(&flow()));
        assert!(Query::default().holds(&flow()));
    }

    #[test]
    fn an_expectation_has_the_fields_of_the_flow_that_it_predicts() {
        let error = Query::parse_for_expectations(&["mark=1"]).unwrap_err();
        assert!(
            error.to_string().ends_with("helper, timeout, id"),
            "{error}"
        );
        let expectation = Expectation {
            master: flow().orig,
            tuple: flow().orig,
            mask: flow().orig,
            zone: flow().zone,
            timeout: Some(300),
            flags: 0,
            class: None,
            nat: None,
            helper: flow::Name::new(b"ftp"),
            function: None,
            id: Some(5),
        };
        let holds = |word: &str| {
            let query = Query::parse_for_expectations(&[word]).unwrap();
            query.holds_expectation(&expectation)
        };
        for word in ["dport=443", "helper=ftp", "zone=3", "timeout=300", "id=5"] {
            assert!(holds(word), "{word}");
            assert!(!holds(&word.replacen('=', "!=", 1)), "{word}");
        }
    }

    #[test]
    fn a_bad_word_says_what_is_accepted() {
        let error = |word: &str| Query::parse(&[word]).unwrap_err().to_string();
        assert!(error("tcp").contains("FIELD=VALUE"));
        assert!(error("prot=tcp").contains("proto, family"));
        assert!(error("src=10.0.0.0/33").contains("write src=ADDRESS[/LENGTH]"));
        assert!(error("dport=9-1").contains("N[-M]"));
        assert!(error("dport=70000").contains("N[-M]"));
        assert!(error("state=OPENED").contains("write state=NAME"));
    }
}
