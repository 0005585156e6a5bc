//! Numbers as people read them.

/// Three digits, and a letter for thousands, millions and billions.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let (value, letter) = match value.abs() {
        v if v >= 999.5e6 => (value / 1e9, " G"),
        v if v >= 999.5e3 => (value / 1e6, " M"),
        v if v >= 9_995.0 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        v => (2.0 - v.log10().floor()) as usize,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{letter}")
}

/// Minutes and seconds.
pub(super) fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// With what HTML takes for its own written out.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits() {
        for (value, wanted) in [
            (0.0, "0"),
            (0.001_234, "0.00123"),
            (0.1, "0.1"),
            (0.5, "0.5"),
            (1.0, "1"),
            (3.456, "3.46"),
            (12.0, "12"),
            (99.97, "100"),
            (5000.0, "5000"),
            (10_000.0, "10 k"),
            (123_456.0, "123 k"),
            (999_900.0, "1 M"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(short(value), wanted);
        }
    }

    #[test]
    fn markup_is_text() {
        assert_eq!(escape("a < \"b\" & c"), "a &lt; &quot;b&quot; &amp; c");
    }
}
