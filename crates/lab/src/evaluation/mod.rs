//! An evaluation of both daemons: measured in one run, and written down as a report with charts.

pub mod chart;
pub mod report;
mod text;
