//! Holds back from a provider that fails for every connection.

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::registration::policy::RetryPolicy;

/// A profile's breaker: closed, or open until a moment; then one request probes.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// From when to when it is open. A clock that was set back ends it.
    open: Option<(Timestamp, Timestamp)>,
}

impl Breaker {
    /// Whether a request may be sent. While open: how long to wait. The first to ask once the time
    /// is up is the probe; others wait for what becomes of it.
    pub fn admit(&self, now: Timestamp, probe_time: Duration) -> Result<(), Duration> {
        let mut state = self.0.lock();
        match state.open {
            Some((from, until)) if from <= now && now < until => Err(until.since(now)),
            Some(_) => {
                state.open = Some((now, now.after(probe_time)));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The provider answered sensibly, if only to refuse.
    pub fn succeeded(&self) {
        *self.0.lock() = State::default();
    }

    /// The provider failed. `jitter` is drawn from `0.0..1.0`.
    pub fn failed(&self, now: Timestamp, retry: &RetryPolicy, retry_after: Option<Duration>, jitter: f64) {
        let mut state = self.0.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= retry.breaker_threshold {
            let beyond = state.failures.saturating_sub(retry.breaker_threshold).saturating_add(2);
            let delay =
                retry.backoff(beyond, jitter).max(retry_after.unwrap_or_default()).min(retry.longest_wait);
            state.open = Some((now, now.after(delay)));
        }
    }

    /// Until when it is open, if it is.
    pub fn open_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.lock().open.filter(|(from, until)| *from <= now && now < *until).map(|(_, until)| until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_at_the_threshold_and_lets_one_probe_through() {
        let retry = RetryPolicy { breaker_threshold: 2, ..RetryPolicy::default() };
        let breaker = Breaker::default();
        let start = Timestamp::from_secs(1000);
        breaker.failed(start, &retry, None, 1.0);
        assert!(breaker.admit(start, Duration::from_secs(10)).is_ok(), "one failure does not open it");
        breaker.failed(start, &retry, None, 1.0);
        let wait = breaker.admit(start, Duration::from_secs(10));
        assert_eq!(wait, Err(Duration::from_secs(1)));
        let later = start.after(Duration::from_secs(2));
        assert!(breaker.admit(later, Duration::from_secs(10)).is_ok(), "the probe");
        assert!(breaker.admit(later, Duration::from_secs(10)).is_err(), "only one probe");
        breaker.succeeded();
        assert!(breaker.admit(later, Duration::from_secs(10)).is_ok());
        assert_eq!(breaker.open_until(later), None);
    }

    #[test]
    fn honours_retry_after() {
        let retry = RetryPolicy { breaker_threshold: 1, ..RetryPolicy::default() };
        let breaker = Breaker::default();
        let start = Timestamp::from_secs(1000);
        breaker.failed(start, &retry, Some(Duration::from_secs(120)), 0.0);
        assert_eq!(breaker.admit(start, Duration::from_secs(10)), Err(Duration::from_secs(120)));
    }
}
