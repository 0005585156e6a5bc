//! Makes a plan that fails smaller: fewer faults, less traffic, less time, as long as it fails.

use std::time::Duration;

use crate::plan::Plan;

/// A run has at least so many actions in a second, and lasts at least so long.
const RATE_MIN: u64 = 5;
const SAFETY_MIN: Duration = Duration::from_millis(100);

/// The smallest plan that is found by one step after the other, each of which still `fails`.
/// `plan` must fail.
pub fn minimise(plan: &Plan, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut smallest = plan.clone();
    while let Some(smaller) = steps(&smallest).into_iter().find(&mut fails) {
        smallest = smaller;
    }
    smallest
}

/// All plans that are one step smaller: those first that spare a reader most.
fn steps(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    let mut add = |is_smaller: bool, change: &dyn Fn(&mut Plan)| {
        if is_smaller {
            let mut smaller = plan.clone();
            change(&mut smaller);
            all.push(smaller);
        }
    };
    for (n, _) in plan.faults.iter().enumerate() {
        add(true, &|p| _ = p.faults.remove(n));
    }
    add(plan.expectations, &|p| p.expectations = false);
    add(plan.kills, &|p| p.kills = false);
    for (part, of) in [(1, 2), (9, 10)] {
        let safety = plan.safety * part / of;
        add(safety >= SAFETY_MIN, &|p| p.safety = whole_millis(safety));
        let rate = plan.rate * u64::from(part) / u64::from(of);
        add(rate >= RATE_MIN, &|p| p.rate = rate);
    }
    all
}

/// A time that a command line can name.
fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Fault;

    #[test]
    fn only_what_a_failure_needs_is_left() {
        let plan = (0..)
            .map(Plan::new)
            .find(|p| p.has(Fault::Loss) && p.faults.len() > 5 && p.expectations)
            .unwrap();
        let mut runs = 0;
        let smallest = minimise(&plan, |p| {
            runs += 1;
            p.has(Fault::Loss) && p.safety >= Duration::from_secs(2) && p.rate >= 9
        });
        assert_eq!(smallest.faults, [Fault::Loss]);
        assert!(!smallest.expectations && !smallest.kills);
        let longest = Duration::from_secs(2) * 10 / 9 + Duration::from_millis(1);
        assert!(smallest.safety < longest, "{smallest}");
        assert!((9..=10).contains(&smallest.rate), "{smallest}");
        assert!(runs < 1000, "{runs}");
    }
}
