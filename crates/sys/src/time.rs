//! Local wall-clock time, for log lines only.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in the form of C's `ctime` without its newline: `Mon Nov 23 00:08:46 2026`.
pub fn local_now() -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = since.as_secs().cast_signed();
    // SAFETY: `localtime_r` writes to the structure whose address it gets; all
    // zeros are a value of it.
    let tm = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        libc::localtime_r(&raw const seconds, &raw mut tm);
        tm
    };
    let name = |list: &[&'static str], n: i32| {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        list.get(n).copied().unwrap_or("???")
    };
    format!(
        "{} {} {:2} {:02}:{:02}:{:02} {}",
        name(&DAYS, tm.tm_wday),
        name(&MONTHS, tm.tm_mon),
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        1900 + i64::from(tm.tm_year),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn now_has_the_form_of_ctime() {
        let now = super::local_now();
        let digits = |c: char| if c.is_ascii_digit() { '9' } else { c };
        let form: String = now.chars().skip(7).map(digits).collect();
        // A day of one digit has a space before it.
        let form = form.replacen("  ", " 9", 1);
        assert_eq!(form, " 99 99:99:99 9999", "{now}");
        assert!(!now.contains('?'), "{now}");
    }
}
