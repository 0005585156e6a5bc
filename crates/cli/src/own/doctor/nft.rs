//! `nft -j list ruleset` as a [`Ruleset`] (libnftables-json(5)).

use std::collections::BTreeMap;

use serde_json::Value;

use super::ruleset::{Action, Chain, Condition, Field, Rule, Ruleset};

/// Reads what nft printed, but for the tables that `is_known` names.
pub(super) fn read(json: &Value, is_known: impl Fn(&str) -> bool, to: &mut Ruleset) {
    let first = to.chains.len();
    for object in json["nftables"].as_array().into_iter().flatten() {
        let word = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
        let table = |v: &Value| format!("{} {}", word(v, "family"), word(v, "table"));
        if let Some(chain) = object.get("chain") {
            to.chains.push(Chain {
                table: table(chain),
                name: word(chain, "name"),
                hook: chain["hook"].as_str().map(str::to_owned),
                priority: chain["prio"].as_i64().unwrap_or(0),
                policy_drops: chain["policy"] == "drop",
                is_nat: chain["type"] == "nat",
                rules: Vec::new(),
            });
        } else if let Some(rule) = object.get("rule") {
            let (table, name) = (table(rule), word(rule, "chain"));
            let mut chains = to.chains[first..].iter_mut();
            if let Some(chain) = chains.find(|c| c.table == table && c.name == name) {
                chain.rules.extend(read_rule(rule));
            }
        }
    }
    let sets = sets(json);
    for chain in &mut to.chains[first..] {
        for rule in &mut chain.rules {
            let conditions = rule.conditions.iter_mut();
            conditions.for_each(|c| resolve(c, &chain.table, &sets));
        }
    }
    let read = to.chains.split_off(first);
    to.chains
        .extend(read.into_iter().filter(|c| !is_known(&c.table)));
}

/// The members of each named set, by table and name; a set that is not understood has none here.
fn sets(json: &Value) -> BTreeMap<(String, String), Vec<String>> {
    let objects = json["nftables"].as_array().into_iter().flatten();
    let named = objects.filter_map(|object| {
        let set = object.get("set")?;
        let word = |key: &str| set[key].as_str().unwrap_or_default();
        let table = format!("{} {}", word("family"), word("table"));
        let members = match set.get("elem") {
            Some(list) => values(list)?,
            None => Vec::new(),
        };
        // Members of these come and go with packets.
        let is_fixed = !set["flags"].to_string().contains("dynamic");
        is_fixed.then(|| ((table, word("name").to_owned()), members))
    });
    named.collect()
}

/// Puts the members of a named set in place of its name.
fn resolve(condition: &mut Condition, table: &str, sets: &BTreeMap<(String, String), Vec<String>>) {
    let Condition::Is(_, list, _) = condition else {
        return;
    };
    let [name] = list.as_slice() else {
        return;
    };
    let Some(name) = name.strip_prefix('@') else {
        return;
    };
    match sets.get(&(table.to_owned(), name.to_owned())) {
        Some(members) => *list = members.clone(),
        None => *condition = Condition::Unknown,
    }
}

/// A rule; one with a map of verdicts is several.
fn read_rule(rule: &Value) -> Vec<Rule> {
    let mut mapped = Vec::new();
    let (mut conditions, mut action) = (Vec::new(), Action::Pass);
    let mut texts = Vec::new();
    for statement in rule["expr"].as_array().into_iter().flatten() {
        let Some((kind, value)) = statement.as_object().and_then(|o| o.iter().next()) else {
            continue;
        };
        if kind != "counter" {
            texts.push(describe(kind, value));
        }
        match kind.as_str() {
            "match" => {
                conditions.push(condition(value));
                conditions.extend(implied(value));
            }
            "accept" if action == Action::Untrack => action = Action::UntrackAndAccept,
            "accept" => action = Action::Accept,
            "drop" => action = Action::Drop,
            "reject" => action = Action::Reject,
            "return" => action = Action::Return,
            "notrack" => action = Action::Untrack,
            "jump" => action = Action::Jump(target(value)),
            "goto" => action = Action::Goto(target(value)),
            // A limit or quota is a condition; the others may decide.
            "limit" | "quota" => conditions.push(Condition::Unknown),
            // A match or target of iptables: nft does not print which.
            "xt" => {
                conditions.push(Condition::Unknown);
                action = Action::Unknown;
            }
            "vmap" => match verdicts(value) {
                Some(map) => mapped = map,
                None => action = Action::Unknown,
            },
            "queue" | "synproxy" | "tproxy" => action = Action::Unknown,
            _ => {}
        }
    }
    let text = texts.join(" ");
    if mapped.is_empty() {
        return vec![Rule {
            text,
            conditions,
            action,
        }];
    }
    let each = mapped.into_iter().map(|(condition, action)| Rule {
        text: text.clone(),
        conditions: [conditions.as_slice(), &[condition]].concat(),
        action,
    });
    each.collect()
}

/// A map of verdicts, as conditions and actions; `None` if one of them is not understood.
fn verdicts(value: &Value) -> Option<Vec<(Condition, Action)>> {
    let field = field(&value["key"])?;
    let pairs = value["data"]["set"].as_array()?.iter();
    let each = pairs.map(|pair| {
        let condition = Condition::Is(field, values(&pair[0])?, true);
        let (word, to) = pair[1].as_object()?.iter().next()?;
        let action = match word.as_str() {
            "accept" => Action::Accept,
            "drop" => Action::Drop,
            "return" => Action::Return,
            "continue" => Action::Pass,
            "jump" => Action::Jump(target(to)),
            "goto" => Action::Goto(target(to)),
            _ => return None,
        };
        Some((condition, action))
    });
    each.collect()
}

fn target(value: &Value) -> String {
    value["target"].as_str().unwrap_or_default().to_owned()
}

/// A statement in few words, for findings and for comparing NAT rules.
fn describe(kind: &str, value: &Value) -> String {
    let plain = |v: &Value| match v {
        Value::String(text) => text.clone(),
        other => other.to_string().replace('"', ""),
    };
    match (kind, value) {
        ("match", v) => {
            let op = v["op"].as_str().filter(|op| *op == "!=").unwrap_or("");
            let left = plain(&v["left"]);
            format!("{left} {op} {}", plain(&v["right"])).replace("  ", " ")
        }
        (_, Value::Null) => kind.to_owned(),
        (_, v) => format!("{kind} {}", plain(v)),
    }
}

fn condition(value: &Value) -> Condition {
    let positive = match value["op"].as_str() {
        Some("==" | "in") => true,
        Some("!=") => false,
        _ => return Condition::Unknown,
    };
    let Some(field) = field(&value["left"]) else {
        return Condition::Unknown;
    };
    values(&value["right"]).map_or(Condition::Unknown, |list| {
        Condition::Is(field, list, positive)
    })
}

/// nft does not print that a match on a TCP port is for TCP.
fn implied(value: &Value) -> Option<Condition> {
    let protocol = value["left"]["payload"]["protocol"].as_str()?;
    let protocol = match protocol {
        "tcp" | "udp" | "icmp" | "sctp" | "dccp" | "esp" | "ah" => protocol,
        "icmpv6" => "ipv6-icmp",
        _ => return None,
    };
    Some(Condition::Is(
        Field::Protocol,
        vec![protocol.to_owned()],
        true,
    ))
}

/// The field that an expression reads, if it is one that decides here.
fn field(left: &Value) -> Option<Field> {
    let payload = (
        left["payload"]["protocol"].as_str(),
        left["payload"]["field"].as_str(),
    );
    let field = match (left["meta"]["key"].as_str(), payload) {
        (Some("iifname" | "iif"), _) => Field::Iif,
        (Some("oifname" | "oif"), _) => Field::Oif,
        (Some("l4proto"), _) => Field::Protocol,
        (Some("nfproto"), _) => Field::Family,
        (_, (Some("ip"), Some("protocol")) | (Some("ip6"), Some("nexthdr"))) => Field::Protocol,
        (_, (Some("ip" | "ip6"), Some("saddr"))) => Field::Source,
        (_, (Some("ip" | "ip6"), Some("daddr"))) => Field::Destination,
        (_, (Some("udp" | "tcp" | "th"), Some("sport"))) => Field::SourcePort,
        (_, (Some("udp" | "tcp" | "th"), Some("dport"))) => Field::DestinationPort,
        _ if left["ct"]["key"] == "state" => Field::State,
        _ if left["fib"]["result"] == "type" => Field::Type,
        _ => return None,
    };
    Some(field)
}

/// The values that a match names, `@NAME` for those of a named set; `None` if one of them is not
/// understood.
fn values(right: &Value) -> Option<Vec<String>> {
    let one = |v: &Value| -> Option<String> {
        match v {
            Value::String(text) => Some(text.clone()),
            Value::Number(n) => Some(n.to_string()),
            Value::Object(o) if o.contains_key("range") => {
                let [first, last] = [0, 1].map(|n| v["range"][n].to_string());
                Some(format!("{first}-{last}"))
            }
            Value::Object(o) if o.contains_key("prefix") => {
                let prefix = &v["prefix"];
                Some(format!("{}/{}", prefix["addr"].as_str()?, prefix["len"]))
            }
            _ => None,
        }
    };
    match right {
        Value::Array(list) => list.iter().map(one).collect(),
        Value::Object(o) if o.contains_key("set") => match &right["set"] {
            Value::Array(list) => list.iter().map(one).collect(),
            single => one(single).map(|v| vec![v]),
        },
        single => one(single).map(|v| vec![v]),
    }
}
