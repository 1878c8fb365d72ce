//! A circuit breaker: holds back from an upstream that fails, and finds out when it works again.
//!
//! Closed, it costs a call one relaxed load on the way out and one on the way back: successes are only
//! counted while there has been trouble lately.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Clock;

/// When a circuit opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitPolicy {
    /// Failures in a row that open it.
    pub failures: u32,
    /// Share of failures within a window that opens it, in percent.
    pub failure_percent: u32,
    /// Calls that a window must have had for its share to count.
    pub least_calls: u32,
    /// Length of a window, which begins with a failure.
    pub window: Duration,
    /// How long it stays open at first; doubled each time that the probe fails.
    pub open: Duration,
    /// How long it stays open at most.
    pub longest_open: Duration,
}

impl Default for CircuitPolicy {
    /// 5 failures in a row, or half of at least 20 calls within 10 s; open for 1 s to 1 min.
    fn default() -> Self {
        Self {
            failures: 5,
            failure_percent: 50,
            least_calls: 20,
            window: Duration::from_secs(10),
            open: Duration::from_secs(1),
            longest_open: Duration::from_secs(60),
        }
    }
}

impl CircuitPolicy {
    /// How long it stays open after the `probes`-th probe failed (none at first). `jitter` is drawn
    /// from `0.0..1.0`, and takes away up to half, so that gateways do not probe in step.
    fn pause(&self, probes: u32, jitter: f64) -> Duration {
        let doubled = self.open.saturating_mul(2u32.saturating_pow(probes)).min(self.longest_open);
        doubled.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

/// What becomes of calls. Moments are those of [`Clock::uptime`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Calls pass.
    Closed(Option<Trouble>),
    /// No call passes until a moment; so many probes have failed since it opened.
    Open { until: Duration, probes: u32 },
    /// One call is under way to probe.
    HalfOpen { probes: u32 },
}

/// Failures of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trouble {
    /// Failures since the last success.
    in_a_row: u32,
    /// When the window began.
    since: Duration,
    /// Calls that failed within it.
    failed: u32,
    /// Calls that ended within it.
    ended: u32,
}

/// What a call is to its circuit. A probe must be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// One of many.
    Ordinary,
    /// The one that decides whether the circuit closes.
    Probe,
}

/// A circuit as it stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitView {
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// Failures since the last success; once it has opened, probes that failed.
    pub failures: u32,
    /// Time until a probe is let through, if it is open.
    pub probe_in: Option<Duration>,
}

const CALM: u8 = 0;
const TROUBLED: u8 = 1;
const SHUT: u8 = 2;

/// One upstream's circuit, shared by all workers.
#[derive(Debug)]
pub struct Circuit {
    policy: CircuitPolicy,
    /// What the state means for a call. Written under the state's lock; that a call sees the change a
    /// moment late does no harm.
    gate: AtomicU8,
    state: Mutex<State>,
}

impl Circuit {
    /// A closed circuit.
    pub fn new(policy: CircuitPolicy) -> Self {
        Self { policy, gate: AtomicU8::new(CALM), state: Mutex::new(State::Closed(None)) }
    }

    /// When it opens, and for how long.
    pub fn policy(&self) -> CircuitPolicy {
        self.policy
    }

    /// Whether calls pass.
    pub fn is_closed(&self) -> bool {
        self.gate.load(Ordering::Relaxed) != SHUT
    }

    /// Lets a probe through, if it is time for one and none is under way.
    ///
    /// # Errors
    /// How long to wait: for the moment to come, or, while a probe is under way, as long as the
    /// circuit stays open at first.
    pub fn probe(&self, now: Duration) -> Result<Pass, Duration> {
        let mut state = self.state.lock();
        match *state {
            State::Closed(_) => Ok(Pass::Ordinary),
            State::Open { until, .. } if now < until => Err(until - now),
            State::Open { probes, .. } => {
                *state = State::HalfOpen { probes };
                Ok(Pass::Probe)
            }
            State::HalfOpen { .. } => Err(self.policy.open),
        }
    }

    /// The upstream answered sensibly. The time is only looked at if it matters.
    pub fn succeeded(&self, pass: Pass, clock: &dyn Clock) {
        if pass == Pass::Ordinary && self.gate.load(Ordering::Relaxed) == CALM {
            return;
        }
        let now = clock.uptime();
        self.change(|state, policy| match (state, pass) {
            (State::Closed(Some(trouble)), _) if now.saturating_sub(trouble.since) < policy.window => {
                let ended = trouble.ended.saturating_add(1);
                State::Closed(Some(Trouble { in_a_row: 0, ended, ..trouble }))
            }
            (State::Closed(_), _) | (State::HalfOpen { .. }, Pass::Probe) => State::Closed(None),
            // A call from before it opened says nothing new.
            (State::Open { .. } | State::HalfOpen { .. }, _) => state,
        });
    }

    /// The upstream failed. `jitter` is drawn from `0.0..1.0`.
    pub fn failed(&self, pass: Pass, now: Duration, jitter: f64) {
        self.change(|state, policy| match (state, pass) {
            (State::Closed(trouble), _) => {
                let trouble = Trouble::one_more(trouble, now, policy);
                if trouble.opens(policy) {
                    State::Open { until: now.saturating_add(policy.pause(0, jitter)), probes: 0 }
                } else {
                    State::Closed(Some(trouble))
                }
            }
            (State::HalfOpen { probes }, Pass::Probe) => {
                let probes = probes.saturating_add(1);
                State::Open { until: now.saturating_add(policy.pause(probes, jitter)), probes }
            }
            (State::Open { .. } | State::HalfOpen { .. }, _) => state,
        });
    }

    /// A probe ended without a verdict (its caller went away, say): the next call probes.
    pub fn abandoned(&self, pass: Pass, now: Duration) {
        if pass == Pass::Ordinary {
            return;
        }
        self.change(|state, _| match state {
            State::HalfOpen { probes } => State::Open { until: now, probes },
            other => other,
        });
    }

    /// As it stands.
    pub fn view(&self, now: Duration) -> CircuitView {
        match *self.state.lock() {
            State::Closed(trouble) => CircuitView {
                state: "closed",
                failures: trouble.map_or(0, |trouble| trouble.in_a_row),
                probe_in: None,
            },
            State::Open { until, probes } => {
                CircuitView { state: "open", failures: probes, probe_in: Some(until.saturating_sub(now)) }
            }
            State::HalfOpen { probes } => {
                CircuitView { state: "half_open", failures: probes, probe_in: None }
            }
        }
    }

    fn change(&self, step: impl FnOnce(State, &CircuitPolicy) -> State) {
        let mut state = self.state.lock();
        *state = step(*state, &self.policy);
        let gate = match *state {
            State::Closed(None) => CALM,
            State::Closed(Some(_)) => TROUBLED,
            State::Open { .. } | State::HalfOpen { .. } => SHUT,
        };
        self.gate.store(gate, Ordering::Relaxed);
    }
}

impl Trouble {
    fn one_more(before: Option<Self>, now: Duration, policy: &CircuitPolicy) -> Self {
        let in_a_row = before.map_or(0, |trouble| trouble.in_a_row).saturating_add(1);
        match before.filter(|trouble| now.saturating_sub(trouble.since) < policy.window) {
            Some(Self { since, failed, ended, .. }) => {
                Self { in_a_row, since, failed: failed.saturating_add(1), ended: ended.saturating_add(1) }
            }
            None => Self { in_a_row, since: now, failed: 1, ended: 1 },
        }
    }

    fn opens(&self, policy: &CircuitPolicy) -> bool {
        let share = u64::from(self.failed) * 100 >= u64::from(policy.failure_percent) * u64::from(self.ended);
        self.in_a_row >= policy.failures || self.ended >= policy.least_calls && share
    }
}

#[cfg(test)]
mod tests;
