//! Programs that listen to new flows, as `conntrack -E` and ulogd do.
//!
//! The kernel makes an event of each new flow if anybody listens, in whichever network
//! namespace that is. A commit, during which the daemon does not listen, then takes nearly
//! twice as long.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use control::rows::ListenerRow;

/// `NETLINK_NETFILTER`, include/uapi/linux/netlink.h
const NETFILTER: &str = "12";
/// Bit of `NFNLGRP_CONNTRACK_NEW`, include/uapi/linux/netfilter/nfnetlink_compat.h
const NEW: u32 = 1;

/// Those but for process `own`, as far as this user sees them, in the order of their numbers.
pub(super) fn others(own: u64) -> Vec<ListenerRow> {
    let here = space("self");
    let mut spaces: BTreeMap<PathBuf, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let (Ok(pid), Some(space)) = (name.parse(), space(&name)) {
            spaces.entry(space).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    for (space, pids) in &spaces {
        let sockets = pids.first().map_or_else(Vec::new, |pid| {
            let table = fs::read_to_string(format!("/proc/{pid}/net/netlink"));
            listening(&table.unwrap_or_default())
        });
        if sockets.is_empty() {
            continue;
        }
        for pid in pids.iter().filter(|pid| u64::from(**pid) != own) {
            if holds(*pid, &sockets) {
                let program = fs::read_to_string(format!("/proc/{pid}/comm"));
                found.push(ListenerRow {
                    pid: *pid,
                    program: program.unwrap_or_default().trim_end().to_owned(),
                    is_here: here.as_ref() == Some(space),
                });
            }
        }
    }
    found.sort_by_key(|l| l.pid);
    found
}

/// The network namespace of a process.
fn space(pid: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

/// Inodes of the sockets in /proc/net/netlink that are in the group of new flows.
fn listening(table: &str) -> Vec<String> {
    let socket = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, protocol, _, groups, .., inode] = columns.as_slice() else {
            return None;
        };
        let groups = u32::from_str_radix(groups, 16).ok()?;
        (*protocol == NETFILTER && groups & NEW != 0).then(|| (*inode).to_owned())
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// True if a process has one of these sockets.
fn holds(pid: u32, sockets: &[String]) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd"));
    let mut files = files.into_iter().flatten().flatten();
    files.any(|file| {
        let target = fs::read_link(file.path()).unwrap_or_default();
        sockets
            .iter()
            .any(|inode| target == Path::new(&format!("socket:[{inode}]")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_in_the_group_of_new_flows_are_found() {
        let table = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
00000000e897315e 0   0          00000001 0        0        0     2        0        4
000000003aa4bc27 12  812        00000007 0        0        0     2        0        409
00000000aacfbc21 12  813        00000006 0        0        0     2        0        411
0000000001ada282 12  0          00000000 0        0        0     2        0        23
";
        assert_eq!(listening(table), ["409"]);
    }
}
