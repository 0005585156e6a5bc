//! A firewall's rules, as far as they decide about the packets that matter to a pair.
//!
//! A condition that is not understood may hold or not, so the verdict behind it may be the
//! packet's fate. If it differs from the fate without it, the fate is unknown: a finding is never
//! guessed.

use control::facts::Fate;

/// All chains, of all tables and families.
#[derive(Clone, Debug, Default)]
pub(super) struct Ruleset {
    pub(super) chains: Vec<Chain>,
}

/// One chain.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// `inet filter`, say; chains are jumped to within one table.
    pub(super) table: String,
    pub(super) name: String,
    /// Hook, for a base chain.
    pub(super) hook: Option<String>,
    pub(super) priority: i64,
    pub(super) policy_drops: bool,
    pub(super) is_nat: bool,
    pub(super) rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) text: String,
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Accept,
    Drop,
    Reject,
    Return,
    Jump(String),
    Goto(String),
    /// Does not decide, but the packet is not tracked.
    Untrack,
    /// Does not track, and accepts.
    UntrackAndAccept,
    /// Does not decide.
    Pass,
    /// May do anything.
    Unknown,
}

/// A test; with a list, one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// A field has one of these values, or none of them.
    Is(Field, Vec<String>, bool),
    /// Not understood.
    Unknown,
}

/// What is known of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Iif,
    Oif,
    Protocol,
    Source,
    Destination,
    SourcePort,
    DestinationPort,
    State,
    /// Type of the destination address.
    Type,
    /// `ipv4` or `ipv6`.
    Family,
}

/// A packet; a field that is `None` may be anything.
#[derive(Clone, Debug, Default)]
pub(super) struct Packet {
    pub(super) is_v6: bool,
    pub(super) iif: Option<String>,
    pub(super) oif: Option<String>,
    pub(super) protocol: Option<&'static str>,
    pub(super) source: Option<String>,
    pub(super) destination: Option<String>,
    pub(super) source_port: Option<u16>,
    pub(super) destination_port: Option<u16>,
    pub(super) state: &'static str,
    pub(super) kind: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Yes,
    No,
    Maybe,
}

/// What a chain did.
enum Walk {
    /// Decided: the verdict, and by what.
    Ends(&'static str, String),
    /// Goes on behind the jump.
    Goes,
}

impl Packet {
    fn value(&self, field: Field) -> Option<String> {
        match field {
            Field::Iif => self.iif.clone(),
            Field::Oif => self.oif.clone(),
            Field::Protocol => self.protocol.map(str::to_owned),
            Field::Source => self.source.clone(),
            Field::Destination => self.destination.clone(),
            Field::SourcePort => self.source_port.map(|p| p.to_string()),
            Field::DestinationPort => self.destination_port.map(|p| p.to_string()),
            Field::State => Some(self.state.to_owned()),
            Field::Type => self.kind.map(str::to_owned),
            Field::Family => Some(if self.is_v6 { "ipv6" } else { "ipv4" }.to_owned()),
        }
    }

    fn meets(&self, condition: &Condition) -> Truth {
        let Condition::Is(field, list, positive) = condition else {
            return Truth::Maybe;
        };
        let is_address = matches!(field, Field::Source | Field::Destination);
        // A rule about an address of the other family never matches.
        if is_address && list.iter().all(|v| v.contains(':') != self.is_v6) {
            return if *positive { Truth::No } else { Truth::Maybe };
        }
        let Some(value) = self.value(*field) else {
            return Truth::Maybe;
        };
        let found = list.iter().any(|v| holds(*field, v, &value));
        match found == *positive {
            true => Truth::Yes,
            false => Truth::No,
        }
    }

    fn matches(&self, rule: &Rule) -> Truth {
        let each = rule.conditions.iter().map(|c| self.meets(c));
        each.fold(Truth::Yes, |all, one| match (all, one) {
            (Truth::No, _) | (_, Truth::No) => Truth::No,
            (Truth::Maybe, _) | (_, Truth::Maybe) => Truth::Maybe,
            _ => Truth::Yes,
        })
    }
}

/// True if the value of a packet's field is what a rule names: a name with a wildcard at its
/// end, a range, a prefix, or the same.
fn holds(field: Field, named: &str, value: &str) -> bool {
    match field {
        Field::Iif | Field::Oif => {
            let start = named.strip_suffix(['*', '+']);
            start.map_or(named == value, |start| value.starts_with(start))
        }
        Field::SourcePort | Field::DestinationPort => {
            let value: u32 = value.parse().unwrap_or(0);
            let (first, last) = named.split_once(['-', ':']).unwrap_or((named, named));
            let number = |text: &str, or: u32| text.parse().unwrap_or(or);
            (number(first, 0)..=number(last, 65_535)).contains(&value)
                && named.starts_with(|c: char| c.is_ascii_digit() || c == ':')
        }
        Field::Source | Field::Destination => within(named, value),
        _ => named.eq_ignore_ascii_case(value),
    }
}

/// True if an address is in a prefix, `10.0.0.0/8`.
fn within(prefix: &str, address: &str) -> bool {
    use std::net::IpAddr;
    let (net, length) = prefix.split_once('/').unwrap_or((prefix, ""));
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
        IpAddr::V6(ip) => u128::from(ip),
    };
    let (Ok(net), Ok(address)) = (net.parse::<IpAddr>(), address.parse::<IpAddr>()) else {
        return false;
    };
    let longest = if net.is_ipv4() { 32 } else { 128 };
    let length: u32 = length.parse().unwrap_or(longest).min(longest);
    net.is_ipv4() == address.is_ipv4()
        && (length == 0 || (bits(net) ^ bits(address)) >> (128 - length) == 0)
}

impl Ruleset {
    /// What becomes of a packet at these hooks, in this order; the last one names the fate.
    pub(super) fn fate(&self, mut packet: Packet, device: &str, hooks: &[&str]) -> Fate {
        let fate = |verdict: &str, hook: &str, rule: String| Fate {
            device: device.to_owned(),
            hook: hook.to_owned(),
            verdict: verdict.to_owned(),
            rule,
        };
        let mut last = "";
        let mut possible = Vec::new();
        for hook in hooks {
            last = hook;
            let mut chains: Vec<&Chain> = self.chains.iter().collect();
            chains.retain(|c| c.hook.as_deref() == Some(hook) && !c.is_nat && c.is_for(&packet));
            chains.sort_by_key(|c| c.priority);
            for chain in chains {
                let end = self.walk(chain, &mut packet, &mut possible, 0);
                if let Walk::Ends(verdict, rule) = end
                    && verdict != "accepted"
                {
                    let verdict = sure(verdict, &possible);
                    return fate(verdict, hook, rule);
                }
            }
        }
        let verdict = sure("accepted", &possible);
        fate(verdict, last, "no rule drops it".to_owned())
    }

    fn walk(
        &self,
        chain: &Chain,
        packet: &mut Packet,
        possible: &mut Vec<&'static str>,
        depth: u32,
    ) -> Walk {
        for rule in &chain.rules {
            let truth = packet.matches(rule);
            if truth == Truth::No || rule.action == Action::Pass {
                continue;
            }
            let by = || format!("{} {}: {}", chain.table, chain.name, rule.text);
            let verdict = match &rule.action {
                Action::Drop => Some("dropped"),
                Action::Reject => Some("rejected"),
                Action::Accept | Action::UntrackAndAccept => Some("accepted"),
                _ => None,
            };
            let untracks = matches!(rule.action, Action::Untrack | Action::UntrackAndAccept);
            match (truth, verdict, &rule.action) {
                (Truth::Yes, Some(verdict), _) => {
                    if untracks {
                        packet.state = "untracked";
                    }
                    return Walk::Ends(verdict, by());
                }
                (Truth::Yes, None, Action::Return) => return end(chain),
                (Truth::Yes, None, Action::Untrack) => packet.state = "untracked",
                (truth, None, Action::Jump(to) | Action::Goto(to)) if depth < 16 => {
                    let of_table = |c: &&Chain| c.table == chain.table && c.name == *to;
                    let Some(target) = self.chains.iter().find(of_table) else {
                        possible.push("unknown");
                        continue;
                    };
                    let ended = self.walk(target, packet, possible, depth + 1);
                    match (truth, ended) {
                        (Truth::Yes, ended @ Walk::Ends(..)) => return ended,
                        (Truth::Yes, Walk::Goes) if matches!(rule.action, Action::Goto(_)) => {
                            return end(chain);
                        }
                        (_, Walk::Ends(verdict, _)) => possible.push(verdict),
                        (_, Walk::Goes) => {}
                    }
                }
                (_, Some(verdict), _) => possible.push(verdict),
                _ => possible.push("unknown"),
            }
        }
        end(chain)
    }

    /// Single addresses that rules name as destinations.
    pub(super) fn named_destinations(&self) -> Vec<String> {
        let rules = self
            .chains
            .iter()
            .filter(|c| !c.is_nat)
            .flat_map(|c| &c.rules);
        let lists = rules.flat_map(|r| &r.conditions).filter_map(|c| match c {
            Condition::Is(Field::Destination, list, true) => Some(list),
            _ => None,
        });
        let plain = |text: &&String| text.parse::<std::net::IpAddr>().is_ok();
        lists.flatten().filter(plain).cloned().collect()
    }

    /// Texts of all NAT rules, in order, without what differs by itself.
    pub(super) fn nat(&self) -> Vec<String> {
        let chains = self.chains.iter().filter(|c| c.is_nat);
        let rules = chains.flat_map(|c| {
            let place = format!("{} {}", c.table, c.name);
            c.rules.iter().map(move |r| format!("{place}: {}", r.text))
        });
        rules.collect()
    }
}

impl Chain {
    fn is_for(&self, packet: &Packet) -> bool {
        match self.table.split(' ').next() {
            Some("ip") => !packet.is_v6,
            Some("ip6") => packet.is_v6,
            family => family == Some("inet"),
        }
    }
}

/// A verdict, if all that is possible is the same.
fn sure<'a>(verdict: &'a str, possible: &[&str]) -> &'a str {
    match possible.iter().all(|other| *other == verdict) {
        true => verdict,
        false => "unknown",
    }
}

/// The end of a chain: a base chain has a policy.
fn end(chain: &Chain) -> Walk {
    let policy = |word: &str| format!("{} {}: policy {word}", chain.table, chain.name);
    match (&chain.hook, chain.policy_drops) {
        (None, _) => Walk::Goes,
        (Some(_), true) => Walk::Ends("dropped", policy("drop")),
        (Some(_), false) => Walk::Ends("accepted", policy("accept")),
    }
}

#[cfg(test)]
mod tests;
