//! Goal: docs/metrics.md lists every metric as it is exported, and nothing else.

use control::metrics::described;

const PAGE: &str = include_str!("../../../docs/metrics.md");

#[test]
fn the_page_lists_every_metric() {
    let wanted: Vec<String> = (described().iter())
        .map(|m| {
            let labels: Vec<_> = m.labels.iter().map(|l| format!("`{l}`")).collect();
            let help = m.help.trim_end_matches('.');
            format!(
                "| `{}` | {} | {} | {help} |",
                m.name,
                m.kind.name(),
                labels.join(", ")
            )
        })
        .collect();
    let rows: Vec<&str> = (PAGE.lines().filter(|l| l.starts_with("| `ftfw_"))).collect();
    assert!(
        rows == wanted,
        "the table in docs/metrics.md is to be:\n{}",
        wanted.join("\n")
    );
}
