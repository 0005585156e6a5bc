//! Processes and connections of this network namespace, from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use control::facts::{ProcessFacts, SocketsFacts};

/// `TCP_ESTABLISHED`, include/net/tcp_states.h
const ESTABLISHED: &str = "01";
/// Most addresses and ports that are listed.
const LISTED_MAX: usize = 50;

/// Options of conntrackd that make a client of it.
const CLIENT: [&str; 14] = [
    "-c", "-f", "-F", "-i", "-e", "-k", "-s", "-R", "-n", "-B", "-t", "-v", "-h", "-x",
];

/// Processes that replicate in this network namespace.
pub(super) fn daemons() -> Vec<ProcessFacts> {
    let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let here = space("self");
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<u32>() else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> = (line.split(|b| *b == 0).filter(|w| !w.is_empty()))
            .map(|w| String::from_utf8_lossy(w).into_owned())
            .collect();
        if pid != own && is_daemon(&words) && space(&name) == here {
            let command = words.join(" ");
            found.push(ProcessFacts { pid, command });
        }
    }
    found.sort_by_key(|p| p.pid);
    found
}

/// True for a command line that runs a daemon.
fn is_daemon(words: &[String]) -> bool {
    let Some((program, rest)) = words.split_first() else {
        return false;
    };
    let program = Path::new(program).file_name().unwrap_or_default();
    let is = |word: &str| rest.iter().any(|w| w == word);
    if program == "conntrackd" || (program == "ftfw" && is("conntrackd")) {
        return !CLIENT.iter().any(|option| is(option));
    }
    program == "ftfw" && is("run")
}

/// Established connections of this node, but for those to itself and over the links.
pub(super) fn established(links: &[String]) -> Vec<SocketsFacts> {
    let mut counts: BTreeMap<(IpAddr, u16), u64> = BTreeMap::new();
    for file in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state)) = (words.get(1), words.get(3)) else {
                continue;
            };
            if let Some((address, port)) = end(local).filter(|_| *state == ESTABLISHED) {
                *counts.entry((address, port)).or_default() += 1;
            }
        }
    }
    let others = counts.into_iter().filter(|((address, _), _)| {
        !address.is_loopback() && !links.contains(&address.to_string())
    });
    let rows = others.map(|((address, port), count)| SocketsFacts {
        address: address.to_string(),
        port,
        count,
    });
    rows.take(LISTED_MAX).collect()
}

/// An address and port, as /proc/net/tcp writes them: words of the machine, in hexadecimal.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<[u8; 4]> = (0..address.len() / 8)
        .map(|n| u32::from_str_radix(&address[n * 8..n * 8 + 8], 16).map(u32::to_ne_bytes))
        .collect::<Result<_, _>>()
        .ok()?;
    let bytes = words.concat();
    if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some((Ipv4Addr::from(v4).into(), port));
    }
    let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?);
    Some((v6.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_of_a_connection_is_read() {
        if cfg!(target_endian = "little") {
            let v4 = ("127.0.0.1".parse().unwrap(), 7);
            assert_eq!(end("0100007F:0007"), Some(v4));
            let mapped = ("10.0.0.1".parse().unwrap(), 80);
            assert_eq!(end("0000000000000000FFFF00000100000A:0050"), Some(mapped));
        }
        assert_eq!(end("nonsense"), None);
    }

    #[test]
    fn a_daemon_is_no_client() {
        for (line, wanted) in [
            ("/usr/sbin/conntrackd -d", true),
            ("conntrackd -C /x -s", false),
            ("/usr/bin/ftfw run -d", true),
            ("ftfw conntrackd -C /x", true),
            ("ftfw conntrackd -C /x -c", false),
            ("ftfw doctor", false),
            ("vi conntrackd", false),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(is_daemon(&words), wanted, "{line}");
        }
    }
}
