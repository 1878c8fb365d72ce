//! How often requests may be sent again, and a budget for all of a route's, so that an outage is not
//! made worse by twice the load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{Clock, SystemClock};

/// How often requests may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Times that one request may be sent again.
    pub retries: u32,
    /// Retries per hundred requests that a route may make.
    pub percent: u32,
    /// Retries a second that it may make on top, so that a route with few requests has some.
    pub per_second: u32,
}

impl Default for RetryPolicy {
    /// Once; a fifth of the requests and 10 a second, as Finagle and Linkerd have it.
    fn default() -> Self {
        Self { retries: 1, percent: 20, per_second: 10 }
    }
}

/// For how long requests and retries are remembered.
const WINDOW: Duration = Duration::from_secs(10);

/// A route's budget, shared by all workers. Requests only add to a counter; the rest is worked out
/// when a retry is wanted.
pub struct RetryBudget {
    policy: RetryPolicy,
    clock: Arc<dyn Clock>,
    requests: AtomicU64,
    /// Whether nothing was left when that was last worked out.
    is_spent: AtomicBool,
    ledger: Mutex<Ledger>,
}

/// Two windows: this one, and what is left of the one before.
#[derive(Debug, Default)]
struct Ledger {
    /// When this window began.
    since: Duration,
    /// Requests that had been counted then.
    counted: u64,
    /// Retries within it.
    retries: u64,
    /// Requests and retries of the window before.
    before: (u64, u64),
}

impl RetryBudget {
    /// An unspent budget.
    pub fn new(policy: RetryPolicy, clock: Arc<dyn Clock>) -> Self {
        let ledger = Mutex::new(Ledger { since: clock.uptime(), ..Ledger::default() });
        Self { policy, clock, requests: AtomicU64::new(0), is_spent: AtomicBool::new(false), ledger }
    }

    /// How often requests may be sent again.
    pub fn policy(&self) -> RetryPolicy {
        self.policy
    }

    /// Times that one request may be sent again.
    pub fn retries(&self) -> u32 {
        self.policy.retries
    }

    /// Counts a request.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one retry out of the budget, if there is one left.
    pub fn withdraw(&self) -> bool {
        let mut ledger = self.ledger.lock();
        let left = self.left(&mut ledger);
        if left {
            ledger.retries += 1;
        }
        self.is_spent.store(!left, Ordering::Relaxed);
        left
    }

    /// Whether the last retry that was wanted could be had: a hint that costs one relaxed load.
    pub fn has_left(&self) -> bool {
        !self.is_spent.load(Ordering::Relaxed)
    }

    /// Takes one retry that was made already.
    pub fn spend(&self) {
        let mut ledger = self.ledger.lock();
        let left = self.left(&mut ledger);
        ledger.retries += 1;
        self.is_spent.store(!left, Ordering::Relaxed);
    }

    fn left(&self, ledger: &mut Ledger) -> bool {
        let (now, requests) = (self.clock.uptime(), self.requests.load(Ordering::Relaxed));
        ledger.turn(now, requests);
        // How much of the window before still lies within the last ten seconds.
        let rest = 1.0 - now.saturating_sub(ledger.since).as_secs_f64() / WINDOW.as_secs_f64();
        let (asked_before, retried_before) = ledger.before;
        let asked = as_f64(requests.saturating_sub(ledger.counted)) + as_f64(asked_before) * rest;
        let retried = as_f64(ledger.retries) + as_f64(retried_before) * rest;
        let reserve = f64::from(self.policy.per_second) * WINDOW.as_secs_f64();
        retried + 1.0 <= asked * f64::from(self.policy.percent) / 100.0 + reserve
    }
}

impl Ledger {
    /// Begins a new window if this one is over. A retry may be wanted long after the last one: then
    /// the requests since are spread evenly over the time.
    fn turn(&mut self, now: Duration, requests: u64) {
        let passed = now.saturating_sub(self.since);
        if passed < WINDOW {
            return;
        }
        let windows = passed.as_secs_f64() / WINDOW.as_secs_f64();
        let asked = requests.saturating_sub(self.counted);
        let retries = if windows < 2.0 { self.retries } else { 0 };
        let before = (whole(as_f64(asked) / windows), retries);
        let since = if windows < 2.0 { self.since + WINDOW } else { now };
        *self = Self { since, counted: requests, retries: 0, before };
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate; it saturates")]
fn whole(count: f64) -> u64 {
    count as u64
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new(RetryPolicy::default(), Arc::new(SystemClock))
    }
}

impl std::fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetryBudget").field("policy", &self.policy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::testing::ManualClock;

    fn budget(percent: u32, per_second: u32) -> (RetryBudget, Arc<ManualClock>) {
        let clock = ManualClock::new(Timestamp::from_secs(1000));
        (RetryBudget::new(RetryPolicy { retries: 1, percent, per_second }, clock.clone()), clock)
    }

    /// Retries given when as many as possible are wanted.
    fn all(budget: &RetryBudget) -> usize {
        (0..100_000).take_while(|_| budget.withdraw()).count()
    }

    #[test]
    fn a_share_of_the_requests_and_a_reserve() {
        let (budget, _) = budget(20, 1);
        assert_eq!(all(&budget), 10, "a second's one, over ten seconds");
        assert!(!budget.has_left());
        (0..1000).for_each(|_| budget.request());
        assert_eq!(all(&budget), 200);
        assert!(!budget.has_left());
    }

    #[test]
    fn what_was_spent_is_there_again_after_a_while() {
        let (budget, clock) = budget(0, 1);
        assert_eq!(all(&budget), 10);
        clock.advance(Duration::from_secs(5));
        assert_eq!(all(&budget), 0, "the window is not over");
        clock.advance(Duration::from_secs(10));
        assert_eq!(all(&budget), 5, "half of the ten lie within the last ten seconds");
        clock.advance(Duration::from_secs(20));
        assert_eq!(all(&budget), 10);
    }

    #[test]
    fn requests_of_long_ago_do_not_count() {
        let (budget, clock) = budget(10, 0);
        (0..1000).for_each(|_| budget.request());
        clock.advance(Duration::from_secs(100));
        assert_eq!(all(&budget), 10, "a tenth of those within the last ten seconds, as if spread evenly");
    }

    #[test]
    fn what_was_made_already_counts() {
        let (budget, _) = budget(0, 1);
        (0..10).for_each(|_| budget.spend());
        assert!(!budget.withdraw());
    }

    proptest! {
        /// Wanted as often as can be, retries stay a share of the requests, whatever the pace.
        #[test]
        fn the_load_grows_by_the_share_only(
            paces in prop::collection::vec((0u32..200, 0u64..15_000), 1..60),
            percent in 0u32..50,
        ) {
            let (budget, clock) = budget(percent, 1);
            let (mut requests, mut retries) = (0u64, 0u64);
            let mut passed = Duration::ZERO;
            for (count, pause) in paces {
                for _ in 0..count {
                    budget.request();
                    requests += 1;
                    retries += u64::from(budget.withdraw());
                }
                clock.advance(Duration::from_millis(pause));
                passed += Duration::from_millis(pause);
            }
            // Each request's share is given in its own window, and once more in what is left of it.
            let reserve = 10 * (passed.as_secs() / 10 + 2);
            prop_assert!(retries <= requests * u64::from(percent) * 2 / 100 + reserve, "{} of {}", retries, requests);
        }
    }
}
