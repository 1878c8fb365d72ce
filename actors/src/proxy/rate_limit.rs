//! Limits on calls per time: a token bucket (GCRA), lock-free and exact across workers.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock::Clock;

/// How many calls a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many calls.
    pub requests: NonZeroU32,
    /// In so much time, of whole seconds.
    pub per: Duration,
    /// Calls that may come at once after a pause.
    pub burst: NonZeroU32,
}

/// A limit on the calls of one caller or of one route, shared by all workers.
pub struct RateLimit {
    rate: Rate,
    limiter: RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Duration>>,
    ticks: Ticks,
    refused: AtomicU64,
}

#[derive(Clone)]
struct Ticks(Arc<dyn Clock>);

impl GovernorClock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.uptime()
    }
}

/// A call too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverRate {
    /// What is allowed.
    pub rate: Rate,
    /// When the next call is.
    pub retry_after: Duration,
}

impl RateLimit {
    /// A full bucket.
    pub fn new(rate: Rate, clock: Arc<dyn Clock>) -> Self {
        // More than one a nanosecond cannot be told apart.
        let each = (rate.per / rate.requests.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(each).unwrap_or(Quota::per_second(rate.requests));
        let ticks = Ticks(clock);
        let limiter = RateLimiter::direct_with_clock(quota.allow_burst(rate.burst), ticks.clone());
        Self { rate, limiter, ticks, refused: AtomicU64::new(0) }
    }

    /// Takes one call out of the bucket.
    ///
    /// # Errors
    /// [`OverRate`]; the bucket is as it was then.
    pub fn take(&self) -> Result<(), OverRate> {
        self.limiter.check().map_err(|not_until| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            OverRate { rate: self.rate, retry_after: not_until.wait_time_from(self.ticks.now()) }
        })
    }

    /// What is allowed.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Calls refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimit").field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::testing::ManualClock;

    fn limit(requests: u32, per: u64, burst: u32) -> (RateLimit, Arc<ManualClock>) {
        let clock = ManualClock::new(Timestamp::from_secs(1000));
        let rate = Rate {
            requests: NonZeroU32::new(requests).unwrap(),
            per: Duration::from_secs(per),
            burst: NonZeroU32::new(burst).unwrap(),
        };
        (RateLimit::new(rate, clock.clone()), clock)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let (limit, clock) = limit(2, 1, 5);
        for _ in 0..5 {
            limit.take().unwrap();
        }
        assert_eq!(limit.take().unwrap_err().retry_after, Duration::from_millis(500));
        clock.advance(Duration::from_millis(400));
        assert_eq!(limit.take().unwrap_err().retry_after, Duration::from_millis(100));
        clock.advance(Duration::from_millis(100));
        limit.take().unwrap();
        assert!(limit.take().is_err());
        clock.advance(Duration::from_secs(3600));
        assert_eq!((0..100).filter(|_| limit.take().is_ok()).count(), 5, "no more than the burst");
        assert_eq!(limit.refused(), 3 + 95);
    }

    #[test]
    fn exactly_as_many_as_allowed_from_many_threads() {
        let (limit, _) = limit(1, 3600, 1000);
        let taken = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mine = (0..2000).filter(|_| limit.take().is_ok()).count();
                    taken.fetch_add(mine as u64, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(taken.into_inner(), 1000);
        assert_eq!(limit.refused(), 7000);
    }

    proptest! {
        /// Like a bucket that drips: never more than it holds, and none less.
        #[test]
        fn it_agrees_with_a_bucket(
            requests in 1u32..50,
            per in 1u64..5,
            burst in 1u32..50,
            steps in prop::collection::vec((0u64..2000, 0usize..30), 0..60),
        ) {
            let (limit, clock) = limit(requests, per, burst);
            // In nanoseconds, of which each call takes `each`.
            let each = u64::try_from((Duration::from_secs(per) / requests).as_nanos()).unwrap();
            let full = each * u64::from(burst);
            let mut level = full;
            for (pause, calls) in steps {
                clock.advance(Duration::from_millis(pause));
                level = (level + pause * 1_000_000).min(full);
                for _ in 0..calls {
                    let fits = level >= each;
                    if fits {
                        level -= each;
                    }
                    match limit.take() {
                        Ok(()) => prop_assert!(fits),
                        Err(over) => {
                            prop_assert!(!fits);
                            prop_assert_eq!(over.retry_after, Duration::from_nanos(each - level));
                        }
                    }
                }
            }
        }
    }
}
