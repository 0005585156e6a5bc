//! Capabilities: `CAP_NET_ADMIN` remains, for netlink and for large buffers.

use config::{Config, Sync};
use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Ports below need `CAP_NET_BIND_SERVICE`, whenever a socket is opened again.
const PRIVILEGED_PORTS: u16 = 1024;

/// What a daemon with this configuration needs as long as it runs.
pub(super) fn needed(config: &Config) -> CapabilitySet {
    let links = config.sync.iter().flat_map(|sync: &Sync| &sync.links);
    let page = config.metrics.as_ref().and_then(|m| m.listen);
    let mut ports = links.map(|link| link.port).chain(page.map(|at| at.port()));
    match ports.any(|port| (1..PRIVILEGED_PORTS).contains(&port)) {
        true => CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE,
        false => CapabilitySet::NET_ADMIN,
    }
}

/// Gives up all others. What the process does not have it does not get.
pub(super) fn keep_only(needed: CapabilitySet) -> Result<String, String> {
    let kept = drop_others(needed).map_err(|e| format!("capabilities cannot be dropped: {e}"))?;
    let names: Vec<_> = kept
        .iter_names()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect();
    Ok(match names.as_slice() {
        [] => "no capabilities".to_owned(),
        names => format!("{} alone", names.join(", ")),
    })
}

fn drop_others(needed: CapabilitySet) -> io::Result<CapabilitySet> {
    // It starts no programs; if it did, they would get no more than it has.
    set_no_new_privs(true)?;
    let has = capabilities(None)?.effective;
    clear_ambient_capability_set()?;
    // The bounding set is for programs that are started, and there will be none.
    if has.contains(CapabilitySet::SETPCAP) {
        for other in CapabilitySet::all().difference(needed).iter() {
            match remove_capability_from_bounding_set(other) {
                // The kernel is older than this one.
                Ok(()) | Err(io::Errno::INVAL) => {}
                Err(e) => return Err(e),
            }
        }
    }
    let kept = has.intersection(needed);
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_port_needs_one_more() {
        let needed = |link: u16, page: u16| {
            let link = format!(
                "UDP {{ IPv4_address 10.0.0.1 IPv4_Destination_Address 10.0.0.2 Port {link} \
                 Interface eth0 }}"
            );
            let page = format!("Metrics {{ IPv4_address 127.0.0.1 Port {page} }}");
            let text = format!("General {{ {page} }} Sync {{ Mode FTFW {{ }} {link} }}");
            needed(&config::parse(&text).config.unwrap())
        };
        assert_eq!(needed(3780, 9411), CapabilitySet::NET_ADMIN);
        let more = CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE;
        assert_eq!(needed(780, 9411), more);
        assert_eq!(needed(3780, 80), more);
    }
}
