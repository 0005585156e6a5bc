//! The effects of the words in `Helper`: user-space helpers are checked as the original checks
//! them, and named.

use super::Draft;
use crate::diagnostic::{Quote, Span};
use crate::lexer::Token;

/// `NF_CT_HELPER_NAME_LEN`
const POLICY_MAX: usize = 16;

/// The original's helpers, and the transports of each.
const KNOWN: &[(&str, &[&str])] = &[
    ("amanda", &["udp"]),
    ("dhcpv6", &["udp"]),
    ("ftp", &["tcp"]),
    ("mdns", &["udp"]),
    ("rpc", &["tcp", "udp"]),
    ("sane", &["tcp"]),
    ("slp", &["udp"]),
    ("ssdp", &["tcp", "udp"]),
    ("tftp", &["udp"]),
    ("tns", &["tcp"]),
];

/// A helper whose block is being read.
#[derive(Debug, Default)]
pub(crate) struct Helper {
    name: String,
    span: Span,
    /// The policy that is being read, and whether it has a value.
    policy: Option<(Span, bool)>,
}

impl Draft {
    pub(crate) fn helper_name(&mut self, token: &Token<'_>) {
        self.helper = Helper {
            name: token.text.to_owned(),
            span: token.span.clone(),
            policy: None,
        };
        if KNOWN.iter().any(|(name, _)| *name == token.text) {
            return;
        }
        let names: Vec<_> = KNOWN.iter().map(|(name, _)| *name).collect();
        self.diagnostics.error(
            token.span.clone(),
            format_args!("unknown helper {}", Quote(token.text)),
            format_args!("known: {}", names.join(", ")),
        );
    }

    /// The transport of the helper has been read.
    pub(crate) fn helper_transport(&mut self, transport: &str) {
        let Helper { name, span, .. } = &self.helper;
        let Some((name, transports)) = KNOWN.iter().find(|(known, _)| known == name) else {
            return;
        };
        if !transports.contains(&transport) {
            self.diagnostics.error(
                span.clone(),
                format_args!("the helper `{name}` does not work over {transport}"),
                format_args!("over: {}", transports.join(", ")),
            );
        }
        if !self.config.helpers.iter().any(|known| known == name) {
            self.config.helpers.push((*name).to_owned());
        }
    }

    pub(crate) fn helper_policy(&mut self, token: &Token<'_>) {
        self.helper.policy = Some((token.span.clone(), false));
        if self.check_length("policy name", token, POLICY_MAX) && token.text != self.helper.name {
            self.diagnostics.error(
                token.span.clone(),
                format_args!("unknown policy {}", Quote(token.text)),
                "the policy of a helper has the helper's name",
            );
        }
    }

    /// `ExpectMax` or `ExpectTimeout`.
    pub(crate) fn helper_policy_value(&mut self) {
        if let Some((_, has_value)) = &mut self.helper.policy {
            *has_value = true;
        }
    }

    pub(crate) fn end_helper_policy(&mut self) {
        if let Some((span, false)) = self.helper.policy.take() {
            self.diagnostics.error(
                span,
                "the policy is empty",
                "give it `ExpectMax` and `ExpectTimeout`, or leave it out",
            );
        }
    }
}
