//! Traffic between A and B: many numbered connections, many short ones, many datagrams, some that never pause, one bulk
//! transfer, files by FTP.

pub mod bulk;
pub mod datagrams;
pub mod ftp;
pub mod http;
pub mod numbered;
pub mod opening;
pub mod push;
pub mod tickers;
