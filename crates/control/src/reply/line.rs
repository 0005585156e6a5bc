//! One line a flow, as `-i` and `-e` print them.

use std::fmt::Write;

use flow::{Expectation, Flow, LineForm};

/// A line of the internal cache: both tuples, and the seconds since the entry was made.
pub fn internal_line(out: &mut String, flow: &Flow, age_secs: u32) {
    let _ = writeln!(out, "{flow} [active since {age_secs}s]");
}

/// A line of the external cache: without the reply tuple, which the peer does not send.
///
/// `expires_secs`: with ALARM, until the entry expires unless it is sent again.
pub fn external_line(out: &mut String, flow: &Flow, age_secs: u32, expires_secs: Option<u32>) {
    let _ = flow.fmt_line(out, LineForm::OriginalOnly);
    if let Some(secs) = expires_secs {
        let _ = write!(out, " [expires in {secs}s]");
    }
    let _ = writeln!(out, " [active since {age_secs}s]");
}

/// A line of the kernel table, for a daemon without an internal cache: with its timeout.
pub fn kernel_line(out: &mut String, flow: &Flow) {
    let _ = flow.fmt_line(out, LineForm::WithTimeout);
    out.push_str(" use=1\n");
}

/// A line of the statistics log, without its time: how a flow ended. `counters` are packets and
/// bytes of both directions; `seconds` is how long the flow lived.
pub fn ended_line(flow: &Flow, counters: [Option<(u64, u64)>; 2], seconds: Option<u64>) -> String {
    let mut out = String::new();
    let _ = flow.fmt_line(&mut out, LineForm::WithCounters(counters));
    if let Some(seconds) = seconds {
        let _ = write!(out, " delta-time={seconds}");
    }
    out
}

/// A line of either cache of expectations.
pub fn expectation_line(out: &mut String, expectation: &Expectation, age_secs: u32) {
    let _ = writeln!(out, "{expectation} [active since {age_secs}s]");
}

/// A line of the kernel's expectations: with its timeout first.
pub fn kernel_expectation_line(out: &mut String, expectation: &Expectation) {
    let _ = writeln!(out, "{} {expectation}", expectation.timeout.unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use flow::{Addrs, L4, Mark, Proto, ProtoInfo, Status, TcpInfo, TcpState, Tuple};

    use super::*;

    fn flow() -> Flow {
        let mut flow = Flow::new(Tuple {
            addrs: Addrs::V4 {
                src: [192, 168, 1, 10].into(),
                dst: [198, 51, 100, 5].into(),
            },
            proto: Proto::TCP,
            l4: L4::Ports {
                src: 40000,
                dst: 443,
            },
        });
        flow.status = Status::SEEN_REPLY.with(Status::ASSURED);
        flow.mark = Some(Mark(0));
        flow.timeout = Some(298);
        flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state: TcpState::ESTABLISHED,
            window_scale: None,
        }));
        flow
    }

    #[test]
    fn lines_have_the_originals_forms() {
        let mut out = String::new();
        external_line(&mut out, &flow(), 3, None);
        external_line(&mut out, &flow(), 3, Some(5));
        kernel_line(&mut out, &flow());
        assert_eq!(
            out,
            "tcp      6 ESTABLISHED src=192.168.1.10 dst=198.51.100.5 sport=40000 dport=443 \
             [ASSURED] mark=0 [active since 3s]\n\
             tcp      6 ESTABLISHED src=192.168.1.10 dst=198.51.100.5 sport=40000 dport=443 \
             [ASSURED] mark=0 [expires in 5s] [active since 3s]\n\
             tcp      6 298 ESTABLISHED src=192.168.1.10 dst=198.51.100.5 sport=40000 dport=443 \
             src=198.51.100.5 dst=192.168.1.10 sport=443 dport=40000 [ASSURED] mark=0 use=1\n"
        );
    }

    #[test]
    fn a_line_of_the_statistics_log_has_what_the_kernel_counts() {
        let mut flow = flow();
        flow.mark = None;
        let plain = ended_line(&flow, [None, None], None);
        assert_eq!(plain, flow.to_string());
        assert_eq!(
            ended_line(&flow, [Some((5, 270)), Some((4, 2268))], Some(1)),
            "tcp      6 ESTABLISHED src=192.168.1.10 dst=198.51.100.5 sport=40000 dport=443 \
             packets=5 bytes=270 src=198.51.100.5 dst=192.168.1.10 sport=443 dport=40000 \
             packets=4 bytes=2268 [ASSURED] delta-time=1"
        );
    }
}
