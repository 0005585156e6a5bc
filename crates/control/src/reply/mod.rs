//! Forms of the replies.

mod line;
mod stats;
mod xml;

pub use line::{
    ended_line, expectation_line, external_line, internal_line, kernel_expectation_line,
    kernel_line,
};
pub use stats::{
    CacheReport, Connected, LinkReport, NetworkReport, PeerReport, QueueReport, Report,
    RuntimeReport, cache_stats, general, links, network, queues, resend_queue, runtime, statistics,
    statistics_cache,
};
pub use xml::{expectation_element, flow_element};
