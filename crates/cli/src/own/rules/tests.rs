use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn printed(sync: &str, words: &str) -> Result<String, Failure> {
    let text = format!("Sync {{\nMode FTFW {{ }}\n{sync}\n}}\n");
    let parsed = config::parse(&text);
    let config = parsed
        .config
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    let line = Line::try_parse_from(format!("rules {words}").split_whitespace()).unwrap();
    super::text(&line.arguments, &config, Path::new("/etc/x.conf"))
}

const UDP: &str = "UDP {\nIPv4_address 10.0.0.1\nIPv4_Destination_Address 10.0.0.2\nPort 3780\n\
                   Interface eth2\n}";

/// Checks that lines are there, in this order.
fn assert_lines(text: &str, lines: &[&str]) {
    let mut all = text.lines().map(str::trim);
    for line in lines {
        assert!(all.any(|l| l == *line), "{line}\n{text}");
    }
}

#[test]
fn every_kind_of_link_is_untracked_where_it_belongs_and_dropped_elsewhere() {
    let kinds: [(&str, &[&str]); 8] = [
        (
            UDP,
            &[
                r#"iifname "eth2" ip saddr 10.0.0.2 ip daddr 10.0.0.1 udp dport 3780 notrack accept"#,
                "ip daddr 10.0.0.1 udp dport 3780 counter drop",
                r#"oifname "eth2" ip daddr 10.0.0.2 udp dport 3780 notrack accept"#,
            ],
        ),
        (
            "UDP {\nIPv6_address fd00::1\nIPv6_Destination_Address fd00::2\nPort 1\nInterface a\n}",
            &[
                r#"#     nft 'insert rule inet filter input iifname "a" icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept'"#,
                r#"iifname "a" ip6 saddr fd00::2 ip6 daddr fd00::1 udp dport 1 notrack accept"#,
                "ip6 daddr fd00::1 udp dport 1 counter drop",
                r#"oifname "a" ip6 daddr fd00::2 udp dport 1 notrack accept"#,
            ],
        ),
        (
            // Any own address.
            "UDP {\nIPv4_Destination_Address 10.0.0.2\nPort 3780\nInterface a\n}",
            &[
                r#"iifname "a" ip saddr 10.0.0.2 udp dport 3780 notrack accept"#,
                "meta nfproto ipv4 fib daddr type local udp dport 3780 counter drop",
                r#"oifname "a" ip daddr 10.0.0.2 udp dport 3780 notrack accept"#,
            ],
        ),
        (
            "TCP {\nIPv4_address 10.0.0.1\nIPv4_Destination_Address 10.0.0.2\nPort 5\nInterface a\n}",
            &[
                r#"iifname "a" ip saddr 10.0.0.2 ip daddr 10.0.0.1 tcp dport 5 notrack accept"#,
                r#"iifname "a" ip saddr 10.0.0.2 ip daddr 10.0.0.1 tcp sport 5 notrack accept"#,
                "ip daddr 10.0.0.1 tcp dport 5 counter drop",
                "ip saddr 10.0.0.2 ip daddr 10.0.0.1 tcp sport 5 counter drop",
                r#"oifname "a" ip saddr 10.0.0.1 ip daddr 10.0.0.2 tcp sport 5 notrack accept"#,
                r#"oifname "a" ip saddr 10.0.0.1 ip daddr 10.0.0.2 tcp dport 5 notrack accept"#,
            ],
        ),
        (
            "TCP {\nIPv6_address fd00::1\nIPv6_Destination_Address fd00::2\nPort 5\nInterface a\n}",
            &[
                r#"iifname "a" ip6 saddr fd00::2 ip6 daddr fd00::1 tcp sport 5 notrack accept"#,
                "ip6 daddr fd00::1 tcp dport 5 counter drop",
            ],
        ),
        (
            "Multicast {\nIPv4_address 225.0.0.50\nIPv4_interface 10.0.0.1\nGroup 7\nInterface a\n}",
            &[
                r#"#     nft 'insert rule inet filter input iifname "a" ip protocol igmp accept'"#,
                r#"iifname "a" ip daddr 225.0.0.50 udp dport 7 notrack accept"#,
                r#"iifname "a" ip protocol igmp notrack accept"#,
                "ip daddr 225.0.0.50 udp dport 7 counter drop",
                r#"oifname "a" ip daddr 225.0.0.50 udp dport 7 notrack accept"#,
                r#"oifname "a" ip protocol igmp notrack accept"#,
            ],
        ),
        (
            "Multicast {\nIPv6_address ff02::50\nGroup 7\nInterface a\n}",
            &[
                r#"#     nft 'insert rule inet filter output oifname "a" icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept'"#,
                r#"iifname "a" ip6 daddr ff02::50 udp dport 7 notrack accept"#,
                "ip6 daddr ff02::50 udp dport 7 counter drop",
            ],
        ),
        (
            // Two links: what belongs to either is accepted before anything is dropped.
            "UDP {\nIPv4_address 10.0.0.1\nIPv4_Destination_Address 10.0.0.2\nPort 1\nInterface a\n}\n\
             UDP {\nIPv4_address 10.0.1.1\nIPv4_Destination_Address 10.0.1.2\nPort 1\nInterface b\n}",
            &[
                r#"iifname "a" ip saddr 10.0.0.2 ip daddr 10.0.0.1 udp dport 1 notrack accept"#,
                r#"iifname "b" ip saddr 10.0.1.2 ip daddr 10.0.1.1 udp dport 1 notrack accept"#,
                "ip daddr 10.0.0.1 udp dport 1 counter drop",
                "ip daddr 10.0.1.1 udp dport 1 counter drop",
            ],
        ),
    ];
    for (sync, lines) in kinds {
        assert_lines(&printed(sync, "link").unwrap(), lines);
    }
}

#[test]
fn every_rule_has_a_comment_above_it() {
    let text = printed(UDP, "link events static-gate").unwrap();
    let mut before = "";
    for line in text.lines().map(str::trim) {
        let is_rule = ["accept", "drop", "jump", "set "]
            .iter()
            .any(|w| line.contains(w))
            && !line.starts_with('#')
            && !line.starts_with("type ");
        assert!(!is_rule || before.starts_with('#'), "{line}");
        before = line;
    }
}

#[test]
fn each_part_is_a_table_that_replaces_itself_and_no_other_is_named() {
    let text = printed(UDP, "link events static-gate").unwrap();
    let tables = ["ftfw_link", "ftfw_events", "ftfw_static_gate"];
    for name in tables {
        let begin =
            format!("table inet {name} {{}}\ndelete table inet {name}\ntable inet {name} {{\n");
        assert!(text.contains(&begin), "{name}\n{text}");
    }
    let rules = text.lines().filter(|l| !l.starts_with('#'));
    let named = rules.filter(|l| l.contains("table "));
    assert_eq!(named.count(), 3 * tables.len());
}

#[test]
fn without_a_part_the_gate_is_left_out_and_named() {
    let text = printed(UDP, "").unwrap();
    assert!(text.contains("table inet ftfw_link") && text.contains("table inet ftfw_events"));
    assert!(!text.contains("ftfw_static_gate"));
    assert!(text.contains("Not printed: static-gate"));
    let gate = printed(UDP, "static-gate --virtual 10.1.0.9 --virtual fd00::9").unwrap();
    assert!(!gate.contains("ftfw_link {") && !gate.contains("Not printed"));
    assert_lines(
        &gate,
        &["elements = { 10.1.0.9 }", "elements = { fd00::9 }"],
    );
    let words = gate.lines().filter(|l| !l.starts_with('#'));
    assert!(!words.into_iter().any(|l| l.contains("reject")), "{gate}");
}

#[test]
fn what_means_nothing_is_refused() {
    let failure = printed(UDP, "link --virtual 10.1.0.9").unwrap_err();
    assert!(failure.error.contains("--virtual"), "{}", failure.error);
    let config = config::parse("Stats {\nLogFile on\n}\n").config.unwrap();
    let line = Line::try_parse_from(["rules"]).unwrap();
    let failure = super::text(&line.arguments, &config, Path::new("/x")).unwrap_err();
    assert!(failure.error.contains("no `Sync`"), "{}", failure.error);
}
