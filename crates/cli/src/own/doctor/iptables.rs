//! `iptables-save` and `ip6tables-save` as a [`Ruleset`].

use super::ruleset::{Action, Chain, Condition, Field, Rule, Ruleset};

/// Reads what one of them printed; `family` is `ip` or `ip6`. Yields the names of its tables.
pub(super) fn read(text: &str, family: &str, to: &mut Ruleset) -> Vec<String> {
    let mut tables = Vec::new();
    let mut table = String::new();
    let mut first = to.chains.len();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim().to_owned();
            tables.push(table.clone());
            first = to.chains.len();
        } else if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split_whitespace();
            let (Some(name), Some(policy)) = (words.next(), words.next()) else {
                continue;
            };
            to.chains.push(Chain {
                table: format!("{family} {table}"),
                name: name.to_owned(),
                hook: (policy != "-").then(|| name.to_lowercase()),
                priority: priority(&table),
                policy_drops: policy == "DROP",
                is_nat: table == "nat",
                rules: Vec::new(),
            });
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
            let chains = &mut to.chains[first..];
            if let Some(chain) = chains.iter_mut().find(|c| c.name == name) {
                chain.rules.push(rule(text));
            }
        }
    }
    tables
}

/// `enum nf_ip_hook_priorities`
fn priority(table: &str) -> i64 {
    match table {
        "raw" => -300,
        "mangle" => -150,
        "security" => 50,
        _ => 0,
    }
}

/// Words, where a quoted text is one.
fn words(text: &str) -> Vec<String> {
    let (mut all, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => all.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            c => word.push(c),
        }
    }
    all.extend((!word.is_empty()).then_some(word));
    all
}

fn rule(text: &str) -> Rule {
    let words = words(text);
    let mut words = words.iter().map(String::as_str);
    let (mut conditions, mut action) = (Vec::new(), Action::Pass);
    let mut positive = true;
    while let Some(word) = words.next() {
        let field = match word {
            "!" => {
                positive = false;
                continue;
            }
            "-i" => Field::Iif,
            "-o" => Field::Oif,
            "-p" => Field::Protocol,
            "-s" => Field::Source,
            "-d" => Field::Destination,
            "--sport" | "--sports" => Field::SourcePort,
            "--dport" | "--dports" => Field::DestinationPort,
            "--state" | "--ctstate" => Field::State,
            "--dst-type" => Field::Type,
            "-m" | "--comment" => {
                // Matches that have no option of their own are named by their options.
                words.next();
                continue;
            }
            "-g" => {
                action = words
                    .next()
                    .map_or(Action::Unknown, |to| Action::Goto(to.to_owned()));
                continue;
            }
            "-j" => {
                action = target(words.next().unwrap_or_default());
                let is_known = !matches!(action, Action::Jump(_));
                if is_known {
                    // Options of the target.
                    let is_notrack = words.any(|w| w == "--notrack");
                    if is_notrack {
                        action = Action::Untrack;
                    }
                    break;
                }
                continue;
            }
            _ => {
                // An option of a match that is not understood. Its value, too, ends up here.
                conditions.push(Condition::Unknown);
                positive = true;
                continue;
            }
        };
        let values = words.next().unwrap_or_default().split(',');
        let values = values.map(|v| v.to_lowercase()).collect();
        conditions.push(Condition::Is(field, values, positive));
        positive = true;
    }
    Rule {
        text: text.to_owned(),
        conditions,
        action,
    }
}

fn target(name: &str) -> Action {
    match name {
        "ACCEPT" => Action::Accept,
        "DROP" => Action::Drop,
        "REJECT" | "TARPIT" => Action::Reject,
        "RETURN" => Action::Return,
        "NOTRACK" => Action::Untrack,
        "QUEUE" | "NFQUEUE" | "SYNPROXY" | "STEAL" => Action::Unknown,
        // Targets of the kernel are in capitals, too. They do not decide.
        "LOG" | "NFLOG" | "ULOG" | "AUDIT" | "MARK" | "CONNMARK" | "CT" | "TCPMSS" | "DSCP"
        | "TOS" | "TTL" | "HL" | "TRACE" | "CLASSIFY" | "SET" | "CHECKSUM" | "SECMARK"
        | "CONNSECMARK" | "RATEEST" | "HMARK" | "IDLETIMER" | "LED" | "TEE" | "TCPOPTSTRIP"
        | "SNAT" | "DNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" => Action::Pass,
        chain => Action::Jump(chain.to_owned()),
    }
}
