//! The effects of the words in `Gate`, which are ours: the virtual addresses of each instance.

use flow::Prefix;

use super::Draft;
use super::filter::parse_prefix;
use crate::diagnostic::Quote;
use crate::lexer::Token;
use crate::meaning::Family;
use crate::{Gate, Instance};

/// Longest name of an instance in bytes.
const NAME_MAX: usize = 64;
/// Longest time in seconds after which a gate that should be open opens by itself.
const TIMEOUT_MAX: u32 = 3600;

/// Most addresses and networks of all instances.
const ADDRESSES_MAX: usize = 256;

/// The instance whose block is being read; none in `Gate` itself.
pub(crate) type Open = Option<Instance>;

impl Draft {
    pub(crate) fn begin_gate(&mut self) {
        if self.sync.gate.is_some() {
            self.error_here("`Gate` for the second time", "join the two blocks");
        }
        self.sync.gate = Some(Gate::default());
    }

    pub(crate) fn gate_timeout(&mut self, n: u32) {
        if n == 0 || n > TIMEOUT_MAX {
            let help = format_args!("accepted: 1 to {TIMEOUT_MAX} seconds");
            self.error_here(format_args!("`Timeout` of {n} seconds"), help);
        }
        self.gate().timeout = n;
    }

    pub(crate) fn instance(&mut self, token: &Token<'_>) {
        self.check_length("name of an instance", token, NAME_MAX);
        let name = token.text;
        let known = self.gate().instances.iter().any(|i| i.name == name);
        if known {
            self.diagnostics.error(
                token.span.clone(),
                format_args!("two instances {}", Quote(name)),
                "give each its own name, that of keepalived's `vrrp_instance` or `vrrp_sync_group`",
            );
        }
        self.instance = Some(Instance {
            name: name.to_owned(),
            addresses: Vec::new(),
        });
    }

    pub(crate) fn end_instance(&mut self) {
        let Some(instance) = self.instance.take() else {
            return;
        };
        if instance.addresses.is_empty() {
            let name = Quote(&instance.name).to_string();
            self.error_here(
                format_args!("the instance {name} has no address"),
                "name its virtual addresses with `IPv4_address` and `IPv6_address`",
            );
        }
        self.gate().instances.push(instance);
    }

    /// A virtual address, or the network of the clients of an instance.
    pub(crate) fn gate_address(&mut self, token: &Token<'_>, family: Family) {
        let Some(prefix) = parse_prefix(token.text, family) else {
            self.diagnostics.error(
                token.span.clone(),
                format_args!("{} is no address of the family", Quote(token.text)),
                "accepted: ADDRESS or ADDRESS/LENGTH",
            );
            return;
        };
        let named = self
            .gate()
            .instances
            .iter()
            .map(|i| i.addresses.len())
            .sum::<usize>();
        let here = self.instance.as_ref().map_or(0, |i| i.addresses.len());
        if named + here == ADDRESSES_MAX {
            let help = format_args!("at most {ADDRESSES_MAX} in all");
            self.diagnostics
                .error(token.span.clone(), "too many addresses", help);
            return;
        }
        if let Some(instance) = &mut self.instance {
            instance.addresses.push(prefix);
            return;
        }
        let instances = &mut self.gate().instances;
        match instances.iter_mut().find(|i| i.name == Instance::DEFAULT) {
            Some(instance) => instance.addresses.push(prefix),
            None => instances.push(Instance {
                name: Instance::DEFAULT.to_owned(),
                addresses: vec![prefix],
            }),
        }
    }

    pub(crate) fn end_gate(&mut self) {
        let has_host = |i: &Instance| i.addresses.iter().any(Prefix::is_host);
        if self.gate().instances.is_empty() {
            let help = "name the virtual addresses with `IPv4_address` and `IPv6_address`";
            return self.error_here("a gate without addresses", help);
        }
        let without = self.gate().instances.iter().find(|i| !has_host(i));
        if let Some(name) = without.map(|i| i.name.clone()) {
            self.error_here(
                format_args!("the instance {} has no virtual address", Quote(&name)),
                "a single address shows which firewall has it; networks are those of clients",
            );
        }
    }

    fn gate(&mut self) -> &mut Gate {
        self.sync.gate.get_or_insert_default()
    }
}
