//! Programs that listen to new flows, as `conntrack -E` and ulogd do.
//!
//! The kernel makes an event of each new flow if anybody listens, in whichever network
//! namespace that is. A commit, during which the daemon does not listen, then takes nearly
//! twice as long.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use control::rows::ListenerRow;

/// `NETLINK_NETFILTER`, include/uapi/linux/netlink.h
const NETFILTER: &str = "12";
/// Bit of `NFNLGRP_CONNTRACK_NEW`, include/uapi/linux/netfilter/nfnetlink_compat.h
const NEW: u32 = 1;

/// Those but for process `own`, as far as this user sees them, in the order of their numbers.
pub(super) fn others(own: u64) -> Vec<ListenerRow> {
    let here = space("self");
    // Without its own, mostly nothing is left for which each process would have to be looked at.
    let of_daemon = sockets_of(own);
    let mut spaces: BTreeMap<PathBuf, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let (Ok(pid), Some(space)) = (name.parse(), space(&name)) {
            spaces.entry(space).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    for (space, pids) in &spaces {
        let mut sockets = pids.first().map_or_else(Vec::new, |pid| {
            let table = fs::read_to_string(format!("/proc/{pid}/net/netlink"));
            listening(&table.unwrap_or_default())
        });
        sockets.retain(|inode| !of_daemon.contains(inode));
        if sockets.is_empty() {
            continue;
        }
        for pid in pids.iter().filter(|pid| u64::from(**pid) != own) {
            let its = sockets_of(u64::from(*pid));
            if its.iter().any(|inode| sockets.contains(inode)) {
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

/// Inodes of a process's sockets.
fn sockets_of(pid: u64) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd"));
    let target = |file: fs::DirEntry| {
        fs::read_link(file.path())
            .ok()?
            .into_os_string()
            .into_string()
            .ok()
    };
    let targets = files.into_iter().flatten().flatten().filter_map(target);
    let inode = |target: String| {
        let rest = target.strip_prefix("socket:[")?;
        Some(rest.strip_suffix(']')?.to_owned())
    };
    targets.filter_map(inode).collect()
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

    #[test]
    fn the_sockets_of_a_process_are_found() {
        use std::os::unix::fs::MetadataExt;
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let file = fs::File::from(std::os::fd::OwnedFd::from(socket));
        let inode = file.metadata().unwrap().ino().to_string();
        let of_us = || sockets_of(std::process::id().into());
        assert!(of_us().contains(&inode));
        drop(file);
        assert!(!of_us().contains(&inode));
    }
}
