//! Request codes.

use serde::{Deserialize, Serialize};

/// Which objects a request is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    /// Flows.
    Flows,
    /// Expectations.
    Expectations,
    /// Both.
    #[default]
    All,
}

/// Which cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// Flows that our kernel has reported.
    Internal,
    /// Flows that the peer has announced.
    External,
}

/// Which statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsKind {
    /// `-s`
    General,
    /// `-s network`
    Network,
    /// `-s cache`
    Cache,
    /// `-s runtime`
    Runtime,
    /// `-s link`
    Link,
    /// `-s rsqueue`
    ResendQueue,
    /// `-s process`
    Process,
    /// `-s queue`
    Queue,
    /// `-s expect`
    Expectations,
}

/// A request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `-F`: delete from the kernel what the filter covers.
    FlushKernel(Object),
    /// `-R`: refill the internal cache from the kernel.
    Resync(Object),
    /// `-i`, `-e`: list a cache.
    Dump {
        /// Which.
        cache: CacheKind,
        /// Flows or expectations.
        object: Object,
        /// As XML.
        xml: bool,
    },
    /// `-c`: put the external cache into the kernel.
    Commit(Object),
    /// `-f`: empty caches; `None` for both.
    FlushCache(Option<CacheKind>),
    /// `-k`
    Stop,
    /// `-s`
    Stats(StatsKind),
    /// `-B`: send everything to the peer.
    Bulk,
    /// `-n`: ask the peer for everything.
    RequestResync,
    /// `-t`: flush the kernel after a while.
    ScheduleFlush,
}

impl Request {
    /// The code of a request, as the original numbers them.
    pub fn code(self) -> i32 {
        use {CacheKind as C, Object as O, Request as R, StatsKind as S};
        match self {
            R::FlushKernel(O::Flows) => 0,
            R::Resync(O::Flows) => 1,
            R::Dump { cache, object, xml } => match (cache, object, xml) {
                (C::Internal, O::Expectations, false) => 40,
                (C::External, O::Expectations, false) => 41,
                (C::Internal, O::Expectations, true) => 47,
                (C::External, O::Expectations, true) => 48,
                (C::Internal, _, false) => 16,
                (C::External, _, false) => 17,
                (C::Internal, _, true) => 24,
                (C::External, _, true) => 25,
            },
            R::Commit(O::Flows) => 18,
            R::Stop => 20,
            R::Stats(S::General) => 21,
            R::Bulk => 22,
            R::RequestResync => 23,
            R::ScheduleFlush => 26,
            R::Stats(S::Network) => 28,
            R::Stats(S::Cache) => 29,
            R::Stats(S::Runtime) => 30,
            R::Stats(S::Link) => 31,
            R::Stats(S::ResendQueue) => 32,
            R::FlushCache(Some(C::Internal)) => 33,
            R::FlushCache(Some(C::External)) => 34,
            R::Stats(S::Process) => 35,
            R::Stats(S::Queue) => 36,
            R::Stats(S::Expectations) => 37,
            R::FlushKernel(O::Expectations) => 38,
            R::Resync(O::Expectations) => 39,
            R::Commit(O::Expectations) => 42,
            R::FlushKernel(O::All) => 43,
            R::Resync(O::All) => 44,
            R::FlushCache(None) => 45,
            R::Commit(O::All) => 46,
        }
    }

    /// The request of a code; `None` for one that the original does not have either.
    pub fn from_code(code: i32) -> Option<Request> {
        use {CacheKind as C, Object as O, Request as R, StatsKind as S};
        let dump = |cache, object, xml| R::Dump { cache, object, xml };
        Some(match code {
            0 => R::FlushKernel(O::Flows),
            1 => R::Resync(O::Flows),
            16 => dump(C::Internal, O::Flows, false),
            17 => dump(C::External, O::Flows, false),
            18 => R::Commit(O::Flows),
            19 | 45 => R::FlushCache(None),
            20 => R::Stop,
            21 => R::Stats(S::General),
            22 => R::Bulk,
            23 => R::RequestResync,
            24 => dump(C::Internal, O::Flows, true),
            25 => dump(C::External, O::Flows, true),
            26 => R::ScheduleFlush,
            28 => R::Stats(S::Network),
            29 => R::Stats(S::Cache),
            30 => R::Stats(S::Runtime),
            31 => R::Stats(S::Link),
            32 => R::Stats(S::ResendQueue),
            33 => R::FlushCache(Some(C::Internal)),
            34 => R::FlushCache(Some(C::External)),
            35 => R::Stats(S::Process),
            36 => R::Stats(S::Queue),
            37 => R::Stats(S::Expectations),
            38 => R::FlushKernel(O::Expectations),
            39 => R::Resync(O::Expectations),
            40 => dump(C::Internal, O::Expectations, false),
            41 => dump(C::External, O::Expectations, false),
            42 => R::Commit(O::Expectations),
            43 => R::FlushKernel(O::All),
            44 => R::Resync(O::All),
            46 => R::Commit(O::All),
            47 => dump(C::Internal, O::Expectations, true),
            48 => dump(C::External, O::Expectations, true),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back() {
        let mut known = 0;
        for code in -1..64 {
            if let Some(request) = Request::from_code(code) {
                known += 1;
                // 19 is the older spelling of 45.
                let expected = if code == 19 { 45 } else { code };
                assert_eq!(request.code(), expected);
            }
        }
        assert_eq!(known, 34);
    }
}
