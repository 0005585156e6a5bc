//! The names of metrics in expressions of PromQL, as rules and dashboards have them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Metrics that others export.
pub(super) const OTHERS: &[&str] = &["up", "node_textfile_mtime_seconds"];

/// Functions, operators and keywords that the expressions use.
const WORDS: &[&str] = &[
    "and",
    "by",
    "clamp_max",
    "count",
    "group_left",
    "increase",
    "label_values",
    "min_over_time",
    "on",
    "or",
    "rate",
    "sum",
    "time",
    "unless",
];
/// After these a list of labels stands in brackets.
const BEFORE_LABELS: &[&str] = &["by", "on", "group_left"];

/// The expressions of rules, which have one line each; each alert explains itself.
pub(super) fn expressions_of_rules(text: &str) -> Result<Vec<String>> {
    let mut expressions = Vec::new();
    for alert in text.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap_or_default();
        let value = |word: &str| {
            let found = alert.lines().find_map(|l| l.trim().strip_prefix(word));
            found.with_context(|| format!("{name} has no `{word}`"))
        };
        for word in ["severity: ", "summary: ", "description: ", "action: "] {
            ensure!(value(word)?.len() > 4, "{name}: {word}");
        }
        expressions.push(value("expr: ")?.to_owned());
    }
    Ok(expressions)
}

/// The expressions and queries of a dashboard, wherever they stand.
pub(super) fn expressions_of_dashboard(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => (map.iter())
            .flat_map(|(key, value)| match value {
                Value::String(text) if key == "expr" => vec![text.clone()],
                Value::String(text) if key == "query" && text.contains('(') => vec![text.clone()],
                other => expressions_of_dashboard(other),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(expressions_of_dashboard).collect(),
        _ => Vec::new(),
    }
}

/// The names of metrics in an expression: all words but those of the language, labels and texts.
pub(super) fn metrics_of(expression: &str) -> Result<Vec<String>> {
    let bytes = expression.as_bytes();
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b"_:".contains(&b);
    let mut names = Vec::new();
    let mut last = "";
    let mut at = 0;
    let skip_to = |at: usize, end: u8| -> Result<usize> {
        let found = bytes[at..].iter().position(|b| *b == end);
        Ok(at + 1 + found.with_context(|| format!("no {} in {expression}", end as char))?)
    };
    while at < bytes.len() {
        match bytes[at] {
            // A text in braces may contain no brace here.
            b'{' => at = skip_to(at, b'}')?,
            b'[' => at = skip_to(at, b']')?,
            b'(' if BEFORE_LABELS.contains(&last) => at = skip_to(at, b')')?,
            b if b.is_ascii_digit() => {
                while at < bytes.len() && (is_word(bytes[at]) || bytes[at] == b'.') {
                    at += 1;
                }
            }
            b if is_word(b) => {
                let begin = at;
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
                last = &expression[begin..at];
                // The second argument of `label_values` is a label.
                let is_label = expression.starts_with("label_values") && !last.contains('_');
                if !WORDS.contains(&last) && !is_label {
                    names.push(last.to_owned());
                }
                continue;
            }
            b'"' | b'\'' => anyhow::bail!("a text outside braces in {expression}"),
            b => {
                at += 1;
                if b != b' ' {
                    last = "";
                }
                continue;
            }
        }
        last = "";
    }
    Ok(names)
}
