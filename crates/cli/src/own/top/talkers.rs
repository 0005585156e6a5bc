//! Who has the most flows, or bytes: the kernel's table by source address.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use control::call::Table;
use control::top::{Talker, Talkers};
use flow::Flow;

use crate::own::client::Failure;
use crate::own::listing::list;

/// The table is read at most so much of the time.
const SHARE: u32 = 10;

/// What the thread that reads the table has found.
#[derive(Debug)]
pub(super) struct Readings(Option<Receiver<Result<Talkers, Failure>>>);

impl Readings {
    /// Reads the kernel's table every `interval`, and more seldom if that takes long; finds the
    /// first `count` addresses. It is not read for none.
    pub(super) fn start(config: &Path, count: usize, interval: Duration) -> Readings {
        if count == 0 {
            return Readings(None);
        }
        let config = PathBuf::from(config);
        // The thread waits until the last reading has been taken, and ends with the program.
        let (found, readings) = sync_channel(0);
        thread::spawn(move || {
            let mut counting = Counting::new(count);
            loop {
                let begun = Instant::now();
                let read = list(&config, Table::Kernel, |flow, notes| {
                    counting.see(&flow, notes.bytes);
                });
                let took = begun.elapsed();
                if found.send(counting.end(read, took)).is_err() {
                    return;
                }
                thread::sleep(interval.max(SHARE * took).saturating_sub(took));
            }
        });
        Readings(Some(readings))
    }

    /// The first reading, once it is there. `None` if the table is not read.
    pub(super) fn first(&self) -> Option<Result<Talkers, Failure>> {
        self.0.as_ref()?.recv().ok()
    }

    /// What has been found since the last call.
    pub(super) fn latest(&self) -> impl Iterator<Item = Result<Talkers, Failure>> {
        self.0.iter().flat_map(Receiver::try_iter)
    }
}

/// Counts what is read. Of each flow it keeps 16 bytes until the next reading, if the kernel
/// accounts, of each address three numbers.
#[derive(Debug)]
struct Counting {
    count: usize,
    hasher: RandomState,
    by_address: HashMap<IpAddr, Sum>,
    flows: u64,
    /// Bytes of each flow in this reading and the one before, by the hash of its key and id.
    bytes: HashMap<u64, u64>,
    bytes_before: HashMap<u64, u64>,
    ended_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    flows: u64,
    bytes: u64,
    new_bytes: u64,
}

impl Counting {
    fn new(count: usize) -> Counting {
        Counting {
            count,
            hasher: RandomState::new(),
            by_address: HashMap::new(),
            flows: 0,
            bytes: HashMap::new(),
            bytes_before: HashMap::new(),
            ended_at: None,
        }
    }

    /// A flow, and its bytes in both directions if the kernel accounts.
    fn see(&mut self, flow: &Flow, bytes: Option<u64>) {
        self.flows += 1;
        let sum = self.by_address.entry(flow.orig.addrs.src()).or_default();
        sum.flows += 1;
        if let Some(bytes) = bytes {
            let key = self.hasher.hash_one((flow.key(), flow.id));
            let before = self.bytes_before.get(&key).copied().unwrap_or(0);
            sum.bytes += bytes;
            sum.new_bytes += bytes.saturating_sub(before);
            self.bytes.insert(key, bytes);
        }
    }

    /// The table has been read, which took so long. What a reading that broke off has counted is
    /// no part of the next one, whose rates are over the time since the last whole one.
    fn end(&mut self, read: Result<(), Failure>, took: Duration) -> Result<Talkers, Failure> {
        if let Err(failure) = read {
            self.by_address.clear();
            self.flows = 0;
            self.bytes.clear();
            return Err(failure);
        }
        let now = Instant::now();
        let passed = self.ended_at.replace(now).map(|at| now.duration_since(at));
        Ok(self.summary(took, passed))
    }

    /// `passed`: the time since the end of the reading before, if there was one.
    fn summary(&mut self, took: Duration, passed: Option<Duration>) -> Talkers {
        let accounts = !self.bytes.is_empty();
        let talker = |(address, sum): (IpAddr, Sum)| Talker {
            address,
            flows: sum.flows,
            bytes: accounts.then_some(sum.bytes),
            bytes_per_second: (passed.filter(|_| accounts))
                .map(|passed| sum.new_bytes as f64 / passed.as_secs_f64()),
        };
        let mut all: Vec<_> = self.by_address.drain().collect();
        // In the order of addresses where nothing else tells them apart, so that lines stand still.
        all.sort_unstable_by_key(|(address, sum)| {
            let recent = passed.map_or(0, |_| sum.new_bytes);
            (Reverse((recent, sum.bytes, sum.flows)), *address)
        });
        let list = all.into_iter().take(self.count).map(talker).collect();
        self.bytes_before = std::mem::take(&mut self.bytes);
        Talkers {
            by: if accounts { "bytes" } else { "flows" },
            flows: std::mem::take(&mut self.flows),
            seconds: took.as_secs_f64(),
            list,
        }
    }
}

#[cfg(test)]
mod tests {
    use flow::{Addrs, L4, Proto, Tuple};

    use super::*;

    fn flow(src: u8, port: u16) -> Flow {
        Flow::new(Tuple {
            addrs: Addrs::V4 {
                src: [10, 0, 0, src].into(),
                dst: [10, 0, 1, 1].into(),
            },
            proto: Proto::UDP,
            l4: L4::Ports { src: port, dst: 9 },
        })
    }

    fn addresses(talkers: &Talkers) -> Vec<String> {
        talkers.list.iter().map(|t| t.address.to_string()).collect()
    }

    #[test]
    fn without_accounting_the_number_of_flows_decides() {
        let mut counting = Counting::new(2);
        for (src, port) in [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)] {
            counting.see(&flow(src, port), None);
        }
        let talkers = counting.summary(Duration::ZERO, None);
        assert_eq!((talkers.by, talkers.flows), ("flows", 6));
        assert_eq!(addresses(&talkers), ["10.0.0.3", "10.0.0.2"]);
        assert_eq!((talkers.list[0].flows, talkers.list[0].bytes), (3, None));
    }

    #[test]
    fn with_accounting_the_bytes_since_the_last_reading_decide() {
        let mut counting = Counting::new(9);
        counting.see(&flow(1, 1), Some(1000));
        counting.see(&flow(2, 1), Some(50));
        let talkers = counting.summary(Duration::ZERO, None);
        assert_eq!((talkers.by, talkers.list[0].bytes), ("bytes", Some(1000)));
        assert_eq!(talkers.list[0].bytes_per_second, None);
        assert_eq!(addresses(&talkers), ["10.0.0.1", "10.0.0.2"]);
        // One stands still, one goes on, and has a new flow beside.
        counting.see(&flow(1, 1), Some(1000));
        counting.see(&flow(2, 1), Some(250));
        counting.see(&flow(2, 2), Some(40));
        let talkers = counting.summary(Duration::ZERO, Some(Duration::from_secs(2)));
        assert_eq!(addresses(&talkers), ["10.0.0.2", "10.0.0.1"]);
        let rates: Vec<_> = talkers.list.iter().map(|t| t.bytes_per_second).collect();
        assert_eq!(rates, [Some(120.0), Some(0.0)]);
    }

    #[test]
    fn a_reading_that_broke_off_is_no_part_of_the_next_one() {
        let mut counting = Counting::new(9);
        for bytes in [500, 1000] {
            counting.see(&flow(1, 1), Some(bytes));
            counting.see(&flow(2, 1), Some(bytes));
            counting.end(Ok(()), Duration::ZERO).unwrap();
            // The second flow is not reached.
            counting.see(&flow(1, 1), Some(bytes));
            let broken = Err(Failure::plain("the answer breaks off"));
            assert!(counting.end(broken, Duration::ZERO).is_err());
        }
        counting.see(&flow(1, 1), Some(1000));
        counting.see(&flow(2, 1), Some(1000));
        let talkers = counting.end(Ok(()), Duration::ZERO).unwrap();
        assert_eq!(talkers.flows, 2);
        for talker in talkers.list {
            let numbers = (talker.flows, talker.bytes, talker.bytes_per_second);
            assert_eq!(numbers, (1, Some(1000), Some(0.0)), "{}", talker.address);
        }
    }

    #[test]
    fn a_flow_whose_counter_went_back_counts_nothing() {
        let mut counting = Counting::new(1);
        counting.see(&flow(1, 1), Some(1000));
        counting.summary(Duration::ZERO, None);
        counting.see(&flow(1, 1), Some(10));
        let talkers = counting.summary(Duration::ZERO, Some(Duration::from_secs(1)));
        assert_eq!(talkers.list[0].bytes_per_second, Some(0.0));
    }
}
