//! Collects the facts about this node. Nothing here changes anything, and nothing fails: what
//! cannot be read is left out, and the checks say so.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use config::{Config, Mode, Transport};
use control::call::{Call, Table, Task};
use control::facts::{ConfigFacts, Facts, InterfaceFacts, LinkFacts};
use serde_json::Value;

use super::super::client;
use super::{firewall, sockets};
use crate::load::load;

/// Version of the facts.
pub(super) const FACTS: u32 = 1;

/// Helpers by the name that conntrack uses, and their modules.
const HELPERS: [(&str, &str); 13] = [
    ("amanda", "nf_conntrack_amanda"),
    ("ftp", "nf_conntrack_ftp"),
    ("Q.931", "nf_conntrack_h323"),
    ("H.245", "nf_conntrack_h323"),
    ("RAS", "nf_conntrack_h323"),
    ("irc", "nf_conntrack_irc"),
    ("netbios-ns", "nf_conntrack_netbios_ns"),
    ("pptp", "nf_conntrack_pptp"),
    ("sane", "nf_conntrack_sane"),
    ("sip", "nf_conntrack_sip"),
    ("snmp", "nf_conntrack_snmp"),
    ("snmp_trap", "nf_conntrack_snmp"),
    ("tftp", "nf_conntrack_tftp"),
];

/// All that can be known here.
pub(super) fn facts(path: &Path) -> Facts {
    let read = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let (config, checked) = configuration(path);
    let modules = Modules::read();
    let mut facts = Facts {
        facts: FACTS,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: read("/proc/sys/kernel/hostname"),
        time: now.map_or(0, |t| t.as_millis() as u64),
        kernel: read("/proc/sys/kernel/osrelease"),
        root: rustix::process::geteuid().is_root(),
        config: checked,
        status: rows(path, Task::Status).and_then(|mut rows| rows.pop()),
        daemons: sockets::daemons(),
        sysctls: sysctls(),
        ctnetlink: modules.has("nf_conntrack_netlink", "ctnetlink_init"),
        helpers: helpers(&modules),
        helpers_used: helpers_used(path),
        ..Facts::default()
    };
    let interfaces = interfaces();
    if let Some(all) = &interfaces {
        facts.addresses = all.values().flat_map(|i| i.addresses.clone()).collect();
    }
    let transport = config.as_ref().and_then(|c| c.sync.as_ref()?.transport);
    let links = config.iter().flat_map(|c| &c.sync).flat_map(|s| &s.links);
    let links: Vec<_> = links.cloned().collect();
    for link in &links {
        let device = link.interface.clone().unwrap_or_default();
        let interface = interfaces.as_ref();
        facts.links.push(LinkFacts {
            interface: interface.map(|all| all.get(&device).cloned().unwrap_or_default()),
            device,
            address: link.address.map(|a| a.to_string()),
            destination: link.destination.or(link.address).map(|a| a.to_string()),
            port: link.port,
        });
    }
    facts.link_flows = link_flows(path, &facts.links);
    let own: Vec<String> = facts
        .links
        .iter()
        .filter_map(|l| l.address.clone())
        .collect();
    facts.local_connections = sockets::established(&own);
    let known = interfaces.unwrap_or_default();
    facts.rules = firewall::rules(&known, &links, transport.unwrap_or(Transport::Udp));
    facts
}

fn configuration(path: &Path) -> (Option<Config>, ConfigFacts) {
    let mut facts = ConfigFacts {
        file: path.display().to_string(),
        ..ConfigFacts::default()
    };
    let config = match load(path) {
        Ok(loaded) => {
            facts.good = true;
            facts.messages = loaded.warnings;
            loaded.config
        }
        Err(text) => {
            facts.messages = vec![text];
            return (None, facts);
        }
    };
    facts.hash_limit = config.hash_limit.map(|n| n as u64);
    facts.netlink_buffer = config.netlink_buffer.map(|n| n as u64);
    if let Some(sync) = &config.sync {
        let mode = match sync.mode.unwrap_or(Mode::Ftfw) {
            Mode::Notrack => "NOTRACK",
            Mode::Alarm => "ALARM",
            Mode::Ftfw => "FTFW",
        };
        facts.mode = Some(mode.to_owned());
        let transport = sync.transport.map(|t| match t {
            Transport::Udp => "UDP",
            Transport::Multicast => "multicast",
            Transport::Tcp => "TCP",
        });
        facts.transport = transport.map(str::to_owned);
        facts.expectations = sync.expectation_sync.is_some();
        facts.gate = sync.gate.is_some();
    }
    (Some(config), facts)
}

/// Rows of the daemon's answer; `None` without a daemon.
fn rows(config: &Path, task: Task) -> Option<Vec<Value>> {
    let mut rows = Vec::new();
    client::ask(config, &Call::new(task, true), |line| {
        rows.extend(serde_json::from_str(line).ok());
        true
    })
    .ok()?;
    Some(rows)
}

fn helpers_used(config: &Path) -> Vec<String> {
    let task = Task::Expectations {
        table: Table::Kernel,
        filter: Vec::new(),
        count: false,
    };
    let rows = rows(config, task).unwrap_or_default();
    let mut used: Vec<String> = (rows.iter())
        .filter_map(|row| Some(row["helper"].as_str()?.to_owned()))
        .collect();
    used.sort();
    used.dedup();
    used
}

/// Tracked flows of the links.
fn link_flows(config: &Path, links: &[LinkFacts]) -> Option<u64> {
    let mut count = 0;
    let mut ports: Vec<u16> = links.iter().map(|l| l.port).collect();
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        let task = Task::Flows {
            table: Table::Kernel,
            filter: vec![format!("dport={port}")],
            count: false,
        };
        let is_of_link = |row: &Value| {
            let ends = [&row["orig"]["dst"], &row["orig"]["src"]];
            links.iter().any(|l| {
                let named = [&l.address, &l.destination];
                named
                    .into_iter()
                    .flatten()
                    .any(|a| ends.iter().any(|e| *e == a))
            })
        };
        count += rows(config, task)?.iter().filter(|r| is_of_link(r)).count() as u64;
    }
    Some(count)
}

/// Settings that decide about flows, `net.netfilter.*` and a few others.
fn sysctls() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut add = |path: &Path, name: String| {
        if let Ok(text) = fs::read_to_string(path) {
            all.insert(name, text.trim().to_owned());
        }
    };
    let folder = fs::read_dir("/proc/sys/net/netfilter");
    for file in folder.into_iter().flatten().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.starts_with("nf_conntrack_") {
            add(&file.path(), format!("net.netfilter.{name}"));
        }
    }
    for name in [
        "net.core.rmem_max",
        "net.core.wmem_max",
        "net.ipv4.ip_forward",
    ] {
        add(
            &Path::new("/proc/sys").join(name.replace('.', "/")),
            name.to_owned(),
        );
    }
    all
}

/// What the kernel has: loaded modules and its own symbols.
struct Modules {
    loaded: String,
    symbols: Option<String>,
}

impl Modules {
    fn read() -> Modules {
        Modules {
            loaded: fs::read_to_string("/proc/modules").unwrap_or_default(),
            symbols: fs::read_to_string("/proc/kallsyms").ok(),
        }
    }

    /// True if a module is loaded, or built in, which this symbol shows; `None` if that cannot
    /// be known.
    fn has(&self, module: &str, symbol: &str) -> Option<bool> {
        let mut loaded = self.loaded.lines().map(|l| l.split(' ').next());
        if loaded.any(|name| name == Some(module)) {
            return Some(true);
        }
        let symbols = self.symbols.as_ref()?;
        Some(symbols.contains(symbol))
    }
}

fn helpers(modules: &Modules) -> Option<Vec<String>> {
    modules.symbols.as_ref()?;
    let has = |(_, module): &(&str, &str)| {
        // The functions of a module that is built in begin with its name, or the table of
        // helpers has it.
        modules.has(module, &format!("{module}_init")) == Some(true)
    };
    let found = HELPERS
        .iter()
        .filter(|h| has(h))
        .map(|(name, _)| (*name).to_owned());
    Some(found.collect())
}

/// Interfaces by name; `None` if `ip` cannot be run.
fn interfaces() -> Option<BTreeMap<String, InterfaceFacts>> {
    let text = output("ip", &["-j", "addr", "show"]).ok()?;
    let list: Value = serde_json::from_str(&text).ok()?;
    let mut all = BTreeMap::new();
    for one in list.as_array()? {
        let has = |flag: &str| {
            let mut flags = one["flags"].as_array().into_iter().flatten();
            flags.any(|f| f == flag)
        };
        let addresses = one["addr_info"].as_array().into_iter().flatten();
        let addresses = addresses.filter_map(|a| Some(a["local"].as_str()?.to_owned()));
        let facts = InterfaceFacts {
            exists: true,
            up: has("UP"),
            carrier: has("LOWER_UP") && !has("NO-CARRIER"),
            mtu: one["mtu"].as_u64().unwrap_or(0),
            addresses: addresses.collect(),
        };
        all.insert(one["ifname"].as_str()?.to_owned(), facts);
    }
    Some(all)
}

/// What a program prints; an error is a reason. System administrators' programs may not be in
/// the path of others.
pub(super) fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let out = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output();
    let out = match out {
        Ok(out) => out,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!("{program} is not installed"));
        }
        Err(e) => return Err(format!("{program}: {e}")),
    };
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        let line = text.lines().next().unwrap_or_default();
        return Err(format!("{program}: {line}"));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
