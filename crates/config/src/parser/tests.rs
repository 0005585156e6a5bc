use std::collections::BTreeSet;

use flow::{Policy, TcpState};

use super::*;
use crate::words::WORDS;
use crate::{Diagnostic, Facility, Mode, Severity, SystemCalls, render};

const GOOD: &str = "
General {
    HashLimit 1000
    LogFile on
    Syslog local3
    LockFile /var/lock/x.lock
    UNIX {
        Path /run/x.ctl
    }
    NetlinkBufferSize 2097152
    NetlinkBufferSizeMaxGrowth 8388608
    Filter From Userspace {
        Protocol Accept { TCP udp IPv6-ICMP }
        Address Ignore { IPv4_address 127.0.0.1 IPv6_address fe80::/10 }
        State Accept { ESTABLISHED CLOSED TIME_WAIT for TCP }
    }
}
Sync {
    Mode NOTRACK { DisableExternalCache on CommitTimeout 0 }
    UDP { IPv4_address 10.0.0.1 IPv4_Destination_Address 10.0.0.2 Port 3780 Interface e0 }
    UDP Default { IPv6_address fd00::1 IPv6_Destination_Address fd00::2 Port 3781 Interface Port }
}
# a comment on a last line without newline";

fn messages(text: &str) -> Vec<String> {
    let parsed = parse(text);
    parsed.diagnostics.into_iter().map(|d| d.message).collect()
}

#[test]
fn a_good_file_means_what_it_says() {
    let parsed = parse(GOOD);
    assert_eq!(parsed.diagnostics, []);
    let config = parsed.config.unwrap();
    assert_eq!(config.hash_limit, Some(1000));
    assert_eq!(config.log_file, Some("/var/log/conntrackd.log".into()));
    assert_eq!(config.syslog, Some(Facility(19)));
    let sync = config.sync.unwrap();
    assert_eq!(sync.mode, Some(Mode::Notrack));
    assert!(sync.disable_external_cache);
    assert_eq!(sync.commit_timeout, None);
    assert_eq!(sync.links.len(), 2);
    // Names that the original takes for something else.
    assert_eq!(sync.links[0].interface.as_deref(), Some("e0"));
    assert_eq!(sync.links[1].interface.as_deref(), Some("Port"));
    assert!(sync.links[1].default);
    let (policy, states) = config.filter.tcp_states.unwrap();
    assert_eq!(policy, Policy::Accept);
    assert_eq!(states[1], TcpState::CLOSE);
}

#[test]
fn an_empty_file_is_valid() {
    assert!(parse("").config.is_some());
    assert!(parse("\u{feff}General{HashLimit 10}").config.is_some());
}

#[test]
fn every_error_of_a_file_is_reported() {
    let found = messages(
        "General { HashLimt 10 Syslog daemon }\nSync { Mode NOTRACK { ACKWindowSize 3 } \
         UDP { IPv4_Destination_Address 10.0.0.2 Port 70000 Interface e } }",
    );
    assert_eq!(
        found,
        [
            "`HashLimt` is not accepted in General",
            "`ACKWindowSize` is not accepted in Sync { Mode NOTRACK }",
            // Not that `UDP` lacks a port, too.
            "port 70000",
        ]
    );
}

#[test]
fn a_diagnostic_shows_file_line_column_the_line_and_help() {
    let text = "General {\n    HashLimt 10\n}\n";
    let parsed = parse(text);
    let shown = render(&parsed.diagnostics[0], "/etc/x.conf", text, false);
    assert!(shown.contains("/etc/x.conf:2:5"), "{shown}");
    assert!(shown.contains("    HashLimt 10"), "{shown}");
    assert!(shown.contains("did you mean `HashLimit`?"), "{shown}");
}

#[test]
fn what_the_original_misreads_is_refused() {
    for text in [
        "General { HashLimit 99999999999 }",
        "General { HashLimit 3000000000 }",
        "General { UNIX { Path /run/x.ctl} }",
        "General { HashLimit 10 }\n\u{e9}\nSync { }",
        "General { HashLimit 10k }",
    ] {
        assert!(parse(text).config.is_none(), "{text}");
    }
}

#[test]
fn a_brace_that_is_not_closed_is_shown_where_it_opens() {
    let parsed = parse("General {\n HashLimit 10\n");
    assert_eq!(parsed.diagnostics.len(), 1);
    assert_eq!(parsed.diagnostics[0].span, 0..7);
}

#[test]
fn a_word_in_another_case_is_taken_for_what_it_means() {
    let text = GOOD
        .replace("LockFile", "Lockfile")
        .replace("UNIX", "Unix")
        .replace("IPv4_Destination_Address", "IPv4_destination_address")
        .replace("Ignore", "ignore")
        .replace("for TCP", "For tcp")
        .replace("General", "GENERAL");
    let parsed = parse(&text);
    let good = parse(GOOD).config.unwrap();
    assert_eq!(parsed.config, Some(good));
    let found: Vec<_> = parsed.diagnostics.iter().map(|d| &d.message).collect();
    assert_eq!(found.len(), 7, "{found:?}");
    assert_eq!(
        found[1],
        "`Lockfile` is taken for `LockFile`: conntrackd would refuse it"
    );
}

#[test]
fn a_word_of_general_is_understood_in_another_section() {
    let text = GOOD.replace("Mode NOTRACK", "NetlinkEventsReliable on\nMode NOTRACK");
    let parsed = parse(&text);
    assert!(parsed.config.unwrap().events_reliable);
    assert_eq!(
        parsed.diagnostics[0].message,
        "`NetlinkEventsReliable` belongs in General, not in Sync"
    );
    let stats = parse("Stats { NetlinkEventsReliable yes LogFile on }");
    assert!(stats.config.unwrap().events_reliable);
}

#[test]
fn published_files_are_accepted() {
    // As OpenStack Neutron, CloudStack and VyOS write them.
    let neutron = "General {
    HashSize 32768
    HashLimit 131072
    Syslog on
    LockFile /var/lock/conntrackd.lock
    UNIX {
        Path /var/lib/neutron/ha_confs/x/ctl
        Backlog 20
    }
    SocketBufferSize 262142
    SocketBufferSizeMaxGrown 655355
    Filter From Kernelspace {
        Protocol Accept {
            TCP
            SCTP
            UDP
            ICMP
            IPv6-ICMP
        }
        Address Ignore {
            IPv4_address 127.0.0.1
            IPv6_address ::1
            IPv4_address 169.254.192.5
        }
    }
}
Sync {
    Mode FTFW {
    }
    Multicast Default {
        IPv4_address 225.0.0.50
        IPv4_interface 169.254.192.5
        Group 3780
        Interface ha-12345678-90
        SndSocketBuffer 24985600
        RcvSocketBuffer 24985600
        Checksum on
    }
}
";
    let cloudstack = "General {
    HashLimit 131072
    LogFile on
    UNIX {
        Path /var/run/conntrackd.ctl
    }
    Stats {
        LogFile on
    }
}
Sync {
    Mode FTFW { DisableExternalCache Off }
    Multicast {
        IPv4_address 225.0.0.50
        Group 3780
        IPv4_interface 10.1.1.1
        Interface eth0
    }
}
";
    let vyos = "Sync {
    Mode FTFW { StartupResync on }
    UDP {
        IPv4_address 192.0.2.1
        IPv4_address 192.0.2.1
        IPv4_Destination_Address 192.0.2.2
        Port 3780
        Interface eth0.100
    }
    Options {
        ExpectationSync {
            ftp
            h.323
        }
    }
}
General {
    Nice -20
    Systemd on
}
Helper {
    Type rpc inet tcp {
        QueueNum 3
        QueueLen 10240
        Policy rpc {
            ExpectMax 1
            ExpectTimeout 300
        }
    }
}
";
    for text in [neutron, cloudstack, vyos] {
        let parsed = parse(text);
        let errors = |d: &&Diagnostic| d.severity == Severity::Error;
        let errors: Vec<_> = parsed.diagnostics.iter().filter(errors).collect();
        assert!(errors.is_empty(), "{errors:?}\n{text}");
    }
    let names = parse(vyos).config.unwrap().sync.unwrap().expectation_sync;
    assert_eq!(names, Some(vec!["ftp".to_owned(), "h.323".to_owned()]));
}

#[test]
fn the_file_in_the_book_is_good() {
    let page = include_str!("../../../../docs/operation.md");
    let file = page.split("```").nth(1).unwrap();
    let parsed = parse(file);
    assert_eq!(parsed.diagnostics, []);
    assert!(parsed.config.unwrap().sync.is_some());
}

#[test]
fn advice_names_the_right_place_or_word() {
    let help = |text: &str| {
        let parsed = parse(text);
        let helps = parsed.diagnostics.into_iter().filter_map(|d| d.help);
        helps.collect::<Vec<_>>().join("; ")
    };
    assert!(help("General { Mode NOTRACK { } }").contains("`Mode` belongs in Sync"));
    assert!(help("General { HashLimt 5 }").contains("did you mean `HashLimit`?"));
    assert!(help("Helper { Type ftp inet4 tcp { } }").contains("inet, inet6"));
    assert!(help("General { Filter { Address Acept { } } }").contains("Accept, Ignore"));
}

#[test]
fn one_multicast_link_has_one_family() {
    let found = messages(
        "Sync { Mode NOTRACK { } Multicast { IPv4_address 225.0.0.50 IPv6_address ff02::1 \
         Group 3780 Interface eth0 } }",
    );
    assert_eq!(
        found,
        ["IPv4 and IPv6 in one `Multicast`: the later one is ignored"]
    );
}

#[test]
fn words_without_effect_say_so_once() {
    let found =
        messages("General { HashSize 8192 Nice -20 UNIX { Backlog 20 } }\nHelper { Setup yes }");
    assert_eq!(found.len(), 4);
    let parsed = parse("General { HashSize 8192 }");
    assert!(parsed.config.is_some());
    assert_eq!(parsed.diagnostics[0].severity, Severity::Warning);
}

#[test]
fn metrics_are_off_unless_they_have_a_place() {
    let metrics = |text: &str| {
        let parsed = parse(&format!("General {{ {text} }} Stats {{ LogFile on }}"));
        let messages: Vec<_> = parsed
            .diagnostics
            .iter()
            .map(|d| d.message.clone())
            .collect();
        (parsed.config.and_then(|c| c.metrics), messages)
    };
    assert_eq!(metrics(""), (None, vec![]));
    let all = "Metrics { IPv6_address ::1 Port 9411 File /run/x.prom Interval 5 }";
    let listen: std::net::SocketAddr = "[::1]:9411".parse().unwrap();
    let (found, messages) = metrics(all);
    assert_eq!(messages, [""; 0]);
    let wanted = crate::Metrics {
        listen: Some(listen),
        file: Some("/run/x.prom".into()),
        interval: 5,
    };
    assert_eq!(found, Some(wanted));
    let (found, _) = metrics("Metrics { File /run/x.prom }");
    assert_eq!(found.map(|m| (m.listen, m.interval)), Some((None, 15)));
    for (text, message) in [
        ("Metrics { }", "without an address and without `File`"),
        ("Metrics { Port 9411 }", "a port without an address"),
        ("Metrics { IPv4_address 127.0.0.1 }", "without a port"),
        ("Metrics { IPv4_address 127.0.0.1 Port 0 }", "port 0"),
        ("Metrics { File /run/x.prom Interval 0 }", "`Interval` is 0"),
        (
            "Metrics { IPv4_address 127.0.0.1 Port 9411 Interval 5 }",
            "`Interval` has no effect",
        ),
    ] {
        let (_, messages) = metrics(text);
        assert_eq!(messages.len(), 1, "{text}: {messages:?}");
        assert!(messages[0].contains(message), "{text}: {messages:?}");
    }
    let idle = parse("General { Metrics { File /run/x.prom } }");
    assert_eq!(idle.warnings, 1);
    assert_eq!(idle.config.unwrap().metrics, None);
}

#[test]
fn each_part_of_the_sandbox_is_switched_by_name() {
    let sandbox = |text: &str| {
        let parsed = parse(&format!("General {{ Sandbox {{ {text} }} }}"));
        parsed.config.map(|c| c.sandbox).ok_or(parsed.diagnostics)
    };
    let all = crate::Sandbox::default();
    assert_eq!(sandbox(""), Ok(all));
    let capabilities = false;
    let wanted = crate::Sandbox {
        capabilities,
        ..all
    };
    assert_eq!(sandbox("Capabilities off"), Ok(wanted));
    let files = false;
    assert_eq!(sandbox("Files off"), Ok(crate::Sandbox { files, ..all }));
    for (word, system_calls) in [
        ("on", SystemCalls::Refuse),
        ("off", SystemCalls::All),
        ("Kill", SystemCalls::Kill),
        ("kill", SystemCalls::Kill),
    ] {
        let wanted = crate::Sandbox {
            system_calls,
            ..all
        };
        assert_eq!(sandbox(&format!("SystemCalls {word}")), Ok(wanted));
    }
    let bad = sandbox("SystemCalls some").unwrap_err();
    assert_eq!(
        bad[0].help.as_deref(),
        Some("accepted: on, yes, off, no, Kill")
    );
}

#[test]
fn sync_and_stats_exclude_each_other() {
    assert!(parse(&format!("{GOOD}\nStats {{ }}")).config.is_none());
}

#[test]
fn no_text_makes_the_parser_panic() {
    for end in 0..GOOD.len() {
        let _ = parse(&GOOD[..end]);
        let _ = parse(&GOOD[end..]);
    }
}

#[test]
fn words_are_listed_once() {
    let unique: BTreeSet<_> = WORDS.iter().map(|w| w.word).collect();
    assert_eq!(unique.len(), WORDS.len());
}

fn packaged(path: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/");
    std::fs::read_to_string(format!("{root}{path}")).unwrap()
}

/// The manual page has every word of the language, and each word that it shows as one is one.
#[test]
fn the_manual_page_has_every_word() {
    let page = packaged("man/conntrackd.conf.5");
    let shown: std::collections::BTreeSet<&str> = page
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    for word in crate::words::WORDS {
        assert!(shown.contains(word.word), "{} is missing", word.word);
    }
    for line in page.lines().filter_map(|l| l.strip_prefix(".It Ic ")) {
        let word = line.split([' ', ',']).next().unwrap();
        let is_word = crate::words::WORDS.iter().any(|w| w.word == word);
        assert!(is_word, "{word} is no word of the language");
    }
}

#[test]
fn the_packaged_examples_are_good() {
    for name in ["ftfw", "notrack", "alarm", "tcp", "statistics"] {
        let text = packaged(&format!("examples/{name}.conf"));
        let parsed = parse(&text);
        assert_eq!(parsed.errors, 0, "{name}: {:?}", parsed.diagnostics);
        assert_eq!(parsed.warnings, 0, "{name}: {:?}", parsed.diagnostics);
        let config = parsed.config.unwrap();
        assert_eq!(config.sync.is_some(), name != "statistics");
    }
}

/// One mistake gives one error, and what stands beside it is still judged.
#[test]
fn one_mistake_gives_one_error() {
    let errors = |text: &str| {
        let parsed = parse(text);
        let all = parsed.diagnostics.into_iter();
        let errors = all.filter(|d| d.severity == crate::Severity::Error);
        errors.map(|d| d.message).collect::<Vec<_>>()
    };
    let unclosed = format!(
        "General {{\nLogFile on\n{}",
        GOOD.replacen("General {", "General { HashLimit 5", 1)
    );
    assert_eq!(errors(&unclosed), ["the block of `General` is not closed"]);
    let link = "UDP { IPv4_Destination_Address 10.0.0.999 Port 1 Interface a }";
    let bad = format!("Sync {{ Mode FTFW {{ }} {link} }}");
    assert_eq!(
        errors(&bad),
        ["`10.0.0.999` is no value of `IPv4_Destination_Address`"]
    );
    let both = bad.replace("Port 1 ", "");
    assert_eq!(errors(&both).len(), 1);
    let missing = bad.replace("IPv4_Destination_Address 10.0.0.999", "");
    assert_eq!(errors(&missing).len(), 1);
}

#[test]
fn what_surprises_later_gives_a_warning() {
    let warnings = |text: &str| parse(text).warnings;
    let block = "General {\nUNIX {\nPath /run/x\n}\n}";
    assert_eq!(warnings(block), 0);
    assert_eq!(warnings(&block.replace("{\nPath", "{ Path")), 1);
    assert_eq!(warnings(&block.replace("UNIX", "HashLimit 0\nUNIX")), 1);
    assert_eq!(warnings(&block.replace("UNIX", "HashLimit 9\nUNIX")), 0);
}

#[test]
fn a_gate_has_instances_with_their_addresses() {
    let sync = |gate: &str| {
        format!(
            "Sync {{ Mode FTFW {{ }} UDP {{ IPv4_address 10.0.0.1 IPv4_Destination_Address 10.0.0.2 \
             Port 3780 Interface e0 }} {gate} }}"
        )
    };
    let gate = |text: &str| parse(&sync(text)).config.unwrap().sync.unwrap().gate;
    assert_eq!(gate(""), None);
    let one = gate("Gate { IPv4_address 10.1.0.1 IPv6_address fd00::1 }").unwrap();
    assert_eq!((one.timeout, one.instances.len()), (10, 1));
    assert_eq!(one.instances[0].name, "default");
    assert_eq!(one.instances[0].addresses.len(), 2);
    let two = "Gate {
        Timeout 3
        Instance A { IPv4_address 10.1.0.1 IPv4_address 10.1.0.0/25 }
        Instance B { IPv4_address 10.1.0.2 }
    }";
    let two = gate(two).unwrap();
    let names: Vec<_> = two.instances.iter().map(|i| i.name.as_str()).collect();
    assert_eq!((two.timeout, names), (3, vec!["A", "B"]));
    for (bad, message) in [
        ("Gate { }", "a gate without addresses"),
        (
            "Gate { Timeout 0 IPv4_address 10.1.0.1 }",
            "`Timeout` of 0 seconds",
        ),
        (
            "Gate { IPv4_address fd00::1 IPv4_address 1.1.1.1 }",
            "`fd00::1` is no address of the family",
        ),
        ("Gate { Instance A { } }", "the instance `A` has no address"),
        (
            "Gate { IPv4_address 10.0.0.0/8 }",
            "the instance `default` has no virtual address",
        ),
        (
            "Gate { Instance A { IPv4_address 10.1.0.1 } Instance A { IPv4_address 10.1.0.2 } }",
            "two instances `A`",
        ),
    ] {
        assert!(
            messages(&sync(bad)).contains(&message.to_owned()),
            "{bad}: {:?}",
            messages(&sync(bad))
        );
    }
}
