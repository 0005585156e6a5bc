//! Comparison of two listings, a flow at a time. It knows no daemon: it is given flows.
//!
//! A listing is no snapshot: flows change while it is read. So what differs is looked at
//! again, and counts only if it differs in the same way in two looks in a row:
//!
//! ```text
//!  first look: all flows, 16 bytes each ──differ──▶ suspects
//!  next looks: suspects alone ─┬─ same, or gone from both ──────▶ settled
//!                              ├─ differ as the last time ──────▶ a difference
//!                              └─ differ in another way ────────▶ a suspect still
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use control::findings::FieldRow;
use flow::{Flow, Name, Status, Tuple, Zone};

/// The bits that both kernels and caches have alike. The others say how far a kernel has come
/// with its own entry (`CONFIRMED`, `DYING`), or follow from these.
const STATUS_COMPARED: Status = Status(
    Status::SEEN_REPLY.0
        | Status::ASSURED.0
        | Status::SRC_NAT.0
        | Status::DST_NAT.0
        | Status::FIXED_TIMEOUT.0,
);

/// Of so many suspects whole flows are kept, for examples. Of the others only hashes.
const DETAILS_MAX: usize = 1000;

/// What is compared of a flow. Not its timeout: the kernel counts it down, and caches keep
/// what was last reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Compared {
    reply: Tuple,
    reply_zone: Option<Zone>,
    state: Option<u8>,
    status: u32,
    /// The kernel leaves out mark 0 in events.
    mark: u32,
    labels: [u32; 4],
    helper: Option<Name>,
}

impl Compared {
    fn of(f: &Flow) -> Compared {
        Compared {
            reply: f.reply,
            reply_zone: f.reply_zone,
            state: f.proto_info.map(|p| p.state_number()),
            status: f.status.0 & STATUS_COMPARED.0,
            mark: f.mark.map_or(0, |m| m.0),
            labels: f.labels.unwrap_or_default().0,
            helper: f.helper,
        }
    }
}

/// The fields in which two flows differ.
pub(super) fn fields(here: &Flow, there: &Flow) -> Vec<FieldRow> {
    let (a, b) = (Compared::of(here), Compared::of(there));
    let mut rows = Vec::new();
    let mut add = |field, differs: bool, here: String, there: String| {
        if differs {
            rows.push(FieldRow { field, here, there });
        }
    };
    let pair = |a: &dyn ToString, b: &dyn ToString| (a.to_string(), b.to_string());
    let (x, y) = pair(&a.reply, &b.reply);
    add("reply", a.reply != b.reply, x, y);
    let zone = |z: Option<Zone>| z.map_or("none".to_owned(), |z| z.0.to_string());
    let (x, y) = (zone(a.reply_zone), zone(b.reply_zone));
    add("reply_zone", a.reply_zone != b.reply_zone, x, y);
    let state = |f: &Flow| match f.proto_info {
        None => "none".to_owned(),
        Some(info) => match info.state_name() {
            Some(name) => name.to_owned(),
            None => info.state_number().to_string(),
        },
    };
    add("state", a.state != b.state, state(here), state(there));
    let (x, y) = (status(a.status), status(b.status));
    add("status", a.status != b.status, x, y);
    let (x, y) = pair(&a.mark, &b.mark);
    add("mark", a.mark != b.mark, x, y);
    let (x, y) = (labels(a.labels), labels(b.labels));
    add("labels", a.labels != b.labels, x, y);
    let helper = |h: Option<Name>| h.map_or("none".to_owned(), |h| h.to_string());
    let (x, y) = (helper(a.helper), helper(b.helper));
    add("helper", a.helper != b.helper, x, y);
    rows
}

fn status(bits: u32) -> String {
    let names = [
        ("SEEN_REPLY", Status::SEEN_REPLY),
        ("ASSURED", Status::ASSURED),
        ("SRC_NAT", Status::SRC_NAT),
        ("DST_NAT", Status::DST_NAT),
        ("FIXED_TIMEOUT", Status::FIXED_TIMEOUT),
    ];
    let set = names.iter().filter(|(_, bit)| Status(bits).contains(*bit));
    let set: Vec<_> = set.map(|(name, _)| *name).collect();
    match set.is_empty() {
        true => "none".to_owned(),
        false => set.join("+"),
    }
}

fn labels(words: [u32; 4]) -> String {
    let set = (0..128).filter(|n| words[n / 32] >> (n % 32) & 1 == 1);
    let set: Vec<_> = set.map(|n| n.to_string()).collect();
    match set.is_empty() {
        true => "none".to_owned(),
        false => set.join("+"),
    }
}

/// Where a flow was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Here,
    There,
}

/// A flow that differs, of which two hashes or whole flows are kept.
#[derive(Clone, Debug, Default)]
struct Suspect {
    /// Hashes of what is compared, here and there, in the last look but one, and in the last one.
    before: Option<[Option<u64>; 2]>,
    now: [Option<u64>; 2],
    flows: Option<Box<[Option<Flow>; 2]>>,
    is_left_out: bool,
}

/// How a flow differs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    pub(super) here: Option<Flow>,
    pub(super) there: Option<Flow>,
}

/// How many flows are how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) same: u64,
    pub(super) only_here: u64,
    pub(super) only_there: u64,
    pub(super) different: u64,
    pub(super) settled: u64,
    pub(super) left_out: u64,
}

/// A comparison under way.
#[derive(Debug)]
pub(super) struct Comparison {
    /// Flows are chosen by strangers: the hash has a key.
    hash: RandomState,
    sample: u64,
    /// First look: what is here, and not yet found there.
    here: HashMap<u64, u64>,
    suspects: HashMap<u64, Suspect>,
    counts: Counts,
    details: usize,
    examples: Vec<Difference>,
    examples_max: usize,
}

impl Comparison {
    pub(super) fn new(sample: u64, examples_max: usize) -> Comparison {
        Comparison {
            hash: RandomState::new(),
            sample: sample.max(1),
            here: HashMap::new(),
            suspects: HashMap::new(),
            counts: Counts::default(),
            details: 0,
            examples: Vec::new(),
            examples_max,
        }
    }

    /// The hash of a flow's key, if it is in the sample.
    fn chosen(&self, flow: &Flow) -> Option<u64> {
        let key = self.hash.hash_one(flow.key());
        key.is_multiple_of(self.sample).then_some(key)
    }

    fn digest(&self, flow: &Flow) -> u64 {
        self.hash.hash_one(Compared::of(flow))
    }

    /// First look, first half: a flow here.
    pub(super) fn first_here(&mut self, flow: &Flow) {
        if let Some(key) = self.chosen(flow) {
            self.here.insert(key, self.digest(flow));
        }
    }

    /// First look, second half: a flow there.
    pub(super) fn first_there(&mut self, flow: &Flow) {
        let Some(key) = self.chosen(flow) else {
            return;
        };
        let there = self.digest(flow);
        let here = self.here.remove(&key);
        // A dump may show a flow twice when the table changes its size.
        if here.is_none() && self.suspects.get(&key).is_some_and(|s| s.is_left_out) {
            return;
        }
        if here == Some(there) {
            self.counts.same += 1;
            return;
        }
        let suspect = self.suspects.entry(key).or_default();
        suspect.now = [here.or(suspect.now[0]), Some(there)];
        Self::keep(&mut self.details, suspect, Side::There, flow);
    }

    /// First look: a flow that is not to be compared, wherever it is.
    pub(super) fn leave_out(&mut self, flow: &Flow) {
        let Some(key) = self.chosen(flow) else {
            return;
        };
        self.here.remove(&key);
        let suspect = self.suspects.entry(key).or_default();
        if !suspect.is_left_out {
            suspect.is_left_out = true;
            self.counts.left_out += 1;
        }
    }

    /// End of the first look: what has been found here alone.
    pub(super) fn end_first(&mut self) {
        for (key, digest) in std::mem::take(&mut self.here) {
            let suspect = self.suspects.entry(key).or_default();
            suspect.now = [Some(digest), None];
        }
        self.suspects.retain(|_, s| !s.is_left_out);
        for suspect in self.suspects.values_mut() {
            suspect.before = Some(suspect.now);
        }
    }

    /// True while something is to be looked at again.
    pub(super) fn is_open(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// Another look at a side begins.
    pub(super) fn begin(&mut self, side: Side) {
        for suspect in self.suspects.values_mut() {
            suspect.now[side as usize] = None;
            if let Some(flows) = &mut suspect.flows {
                flows[side as usize] = None;
            }
        }
    }

    /// Another look: a flow of the side that is listed.
    pub(super) fn see(&mut self, side: Side, flow: &Flow) {
        let key = self.hash.hash_one(flow.key());
        let digest = self.digest(flow);
        if let Some(suspect) = self.suspects.get_mut(&key) {
            suspect.now[side as usize] = Some(digest);
            Self::keep(&mut self.details, suspect, side, flow);
        }
    }

    /// Another look at our side alone. What only we have, and is `young`, may have come too
    /// late for the other side's listing.
    pub(super) fn see_here(&mut self, flow: &Flow, young: bool) {
        let key = self.hash.hash_one(flow.key());
        match self.suspects.get(&key) {
            Some(suspect) if young && suspect.now[1].is_none() => {
                self.suspects.remove(&key);
                self.counts.settled += 1;
            }
            Some(_) => self.see(Side::Here, flow),
            None => {}
        }
    }

    /// Another look: a flow is not to be compared any more.
    pub(super) fn drop(&mut self, flow: &Flow) {
        let key = self.hash.hash_one(flow.key());
        if self.suspects.remove(&key).is_some() {
            self.counts.left_out += 1;
        }
    }

    fn keep(details: &mut usize, suspect: &mut Suspect, side: Side, flow: &Flow) {
        if suspect.flows.is_none() && *details < DETAILS_MAX {
            *details += 1;
            suspect.flows = Some(Box::default());
        }
        if let Some(flows) = &mut suspect.flows {
            flows[side as usize] = Some(*flow);
        }
    }

    /// End of another look.
    pub(super) fn end(&mut self) {
        let (counts, examples) = (&mut self.counts, &mut self.examples);
        let max = self.examples_max;
        self.suspects.retain(|_, s| {
            if s.now[0] == s.now[1] {
                counts.settled += 1;
                return false;
            }
            if s.before != Some(s.now) {
                s.before = Some(s.now);
                return true;
            }
            match s.now {
                [Some(_), None] => counts.only_here += 1,
                [None, _] => counts.only_there += 1,
                [Some(_), Some(_)] => counts.different += 1,
            }
            if let Some([here, there]) = s.flows.as_deref().filter(|_| examples.len() < max) {
                examples.push(Difference {
                    here: *here,
                    there: *there,
                });
            }
            false
        });
    }

    /// Counts, how many were another way different each time, and examples.
    pub(super) fn finish(self) -> (Counts, u64, Vec<Difference>) {
        let mut examples = self.examples;
        examples.sort_by_key(|d| d.here.or(d.there).map(|f| f.key()));
        (self.counts, self.suspects.len() as u64, examples)
    }
}

#[cfg(test)]
mod tests {
    use flow::{Addrs, L4, Labels, Mark, Proto, ProtoInfo, TcpInfo, TcpState};

    use super::*;

    fn tcp(port: u16, state: TcpState) -> Flow {
        let mut flow = Flow::new(Tuple {
            addrs: Addrs::V4 {
                src: [10, 0, 0, 1].into(),
                dst: [10, 0, 0, 2].into(),
            },
            proto: Proto::TCP,
            l4: L4::Ports { src: port, dst: 80 },
        });
        flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state,
            window_scale: None,
        }));
        flow
    }

    fn up(port: u16) -> Flow {
        tcp(port, TcpState::ESTABLISHED)
    }

    fn first(sample: u64, here: &[Flow], there: &[Flow]) -> Comparison {
        let mut comparison = Comparison::new(sample, 20);
        here.iter().for_each(|f| comparison.first_here(f));
        there.iter().for_each(|f| comparison.first_there(f));
        comparison.end_first();
        comparison
    }

    fn again(comparison: &mut Comparison, here: &[Flow], there: &[Flow]) {
        comparison.begin(Side::Here);
        here.iter().for_each(|f| comparison.see(Side::Here, f));
        comparison.begin(Side::There);
        there.iter().for_each(|f| comparison.see(Side::There, f));
        comparison.end();
    }

    #[test]
    fn what_is_the_same_needs_no_second_look() {
        let flows = [up(1), up(2)];
        let comparison = first(1, &flows, &flows);
        assert!(!comparison.is_open());
        assert_eq!(comparison.finish().0.same, 2);
    }

    #[test]
    fn a_difference_that_lasts_counts_with_its_fields() {
        let (here, there) = (
            [up(1), up(2), up(3)],
            [up(1), tcp(2, TcpState::TIME_WAIT), up(4)],
        );
        let mut comparison = first(1, &here, &there);
        again(&mut comparison, &here, &there);
        let (counts, changing, examples) = comparison.finish();
        let found = (counts.only_here, counts.only_there, counts.different);
        assert_eq!((found, counts.same, changing), ((1, 1, 1), 1, 0));
        let [two, three, four] = &examples[..] else {
            panic!("{examples:?}");
        };
        let rows = fields(&two.here.unwrap(), &two.there.unwrap());
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].field, &*rows[0].here, &*rows[0].there),
            ("state", "ESTABLISHED", "TIME_WAIT")
        );
        assert_eq!((three.here, three.there), (Some(up(3)), None));
        assert_eq!((four.here, four.there), (None, Some(up(4))));
    }

    #[test]
    fn a_flow_that_changes_while_it_is_listed_is_no_difference() {
        // It is new, it ends, it changes.
        let mut comparison = first(1, &[up(2), up(3)], &[up(1), tcp(3, TcpState::FIN_WAIT)]);
        let now = tcp(3, TcpState::FIN_WAIT);
        again(&mut comparison, &[up(1), now], &[up(1), now]);
        let (counts, changing, examples) = comparison.finish();
        assert_eq!((counts.settled, changing), (3, 0));
        assert!(examples.is_empty());
    }

    #[test]
    fn what_differs_another_way_each_time_is_a_suspect_still() {
        let mut comparison = first(1, &[up(1)], &[]);
        again(&mut comparison, &[], &[up(1)]);
        assert!(comparison.is_open());
        again(&mut comparison, &[up(1)], &[tcp(1, TcpState::CLOSE)]);
        assert_eq!(comparison.finish().1, 1);
    }

    #[test]
    fn what_is_left_out_is_neither_here_nor_there() {
        let mut comparison = Comparison::new(1, 20);
        comparison.first_here(&up(1));
        comparison.leave_out(&up(1));
        comparison.leave_out(&up(2));
        comparison.first_there(&up(2));
        comparison.end_first();
        assert!(!comparison.is_open());
        assert_eq!(comparison.finish().0.left_out, 2);
    }

    #[test]
    fn a_sample_chooses_the_same_flows_on_both_sides() {
        let flows: Vec<Flow> = (1..=4000).map(up).collect();
        let comparison = first(8, &flows, &flows);
        assert!(!comparison.is_open());
        let same = comparison.finish().0.same;
        assert!((300..=700).contains(&same), "{same}");
    }

    #[test]
    fn every_compared_field_is_named() {
        let mut other = up(1);
        other.reply = other.orig;
        other.reply_zone = Some(Zone(1));
        other.proto_info = None;
        other.status = Status::ASSURED;
        other.mark = Some(Mark(1));
        other.labels = Some(Labels([2, 0, 0, 0]));
        other.helper = Name::new(b"ftp");
        let names: Vec<_> = fields(&up(1), &other).iter().map(|r| r.field).collect();
        let all = [
            "reply",
            "reply_zone",
            "state",
            "status",
            "mark",
            "labels",
            "helper",
        ];
        assert_eq!(names, all);
        // What only one kernel has, or counts down, does not count.
        let mut same = up(1);
        same.timeout = Some(5);
        same.id = Some(5);
        same.status = Status::CONFIRMED;
        same.mark = Some(Mark(0));
        assert!(fields(&up(1), &same).is_empty());
    }
}
