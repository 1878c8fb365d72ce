//! Backoff, intensity, giving up.

use std::time::Duration;

use super::exit_guard::ExitReason;

/// When an actor that ended is started again.
#[derive(Clone, Copy, Debug)]
pub struct RestartPolicy {
    /// Restarts at once that are allowed within `window`; later ones are delayed.
    pub immediate: u32,
    /// An actor that ran this long without an end is well again, and its restarts are counted
    /// anew.
    pub window: Duration,
    /// Delay once `immediate` is used up; doubles with each further restart in the window.
    pub first_delay: Duration,
    /// The delay never grows beyond this.
    pub longest_delay: Duration,
    /// Whether a clean stop is also followed by a restart (an actor that should run for ever), or
    /// ends the child (a flow that is finished).
    pub restart_on_stop: bool,
    /// Restarts in a row after which the child is given up; `None` for what the gateway cannot do
    /// without.
    pub give_up_after: Option<u32>,
}

impl Default for RestartPolicy {
    /// For an actor that should run for ever: never given up.
    fn default() -> Self {
        Self {
            immediate: 3,
            window: Duration::from_secs(10),
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(5),
            restart_on_stop: true,
            give_up_after: None,
        }
    }
}

/// What follows an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartDecision {
    /// A new actor is started after this delay.
    Restart(Duration),
    /// The child did its work.
    Finished,
    /// It failed too often.
    GiveUp,
}

impl RestartPolicy {
    /// For an actor whose clean stop means that it is done, such as a flow.
    pub fn transient() -> Self {
        Self { restart_on_stop: false, give_up_after: Some(10), ..Self::default() }
    }

    /// Decides what follows. `streak` is how many restarts came in a row before this end, and
    /// `ran_for` how long the actor ran; returns the new streak.
    pub fn decide(&self, reason: &ExitReason, streak: u32, ran_for: Duration) -> (RestartDecision, u32) {
        if *reason == ExitReason::Stopped && !self.restart_on_stop {
            return (RestartDecision::Finished, 0);
        }
        let before = if ran_for >= self.window { 0 } else { streak };
        if self.give_up_after.is_some_and(|most| before >= most) {
            return (RestartDecision::GiveUp, before);
        }
        let delay = match before.checked_sub(self.immediate) {
            None => Duration::ZERO,
            Some(delayed) => {
                let factor = 2u32.saturating_pow(delayed);
                self.first_delay.saturating_mul(factor).min(self.longest_delay)
            }
        };
        (RestartDecision::Restart(delay), before.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn panicked() -> ExitReason {
        ExitReason::Panicked { location: "x.rs:1".into() }
    }

    #[test]
    fn three_restarts_come_at_once_and_later_ones_ever_later() {
        let policy = RestartPolicy::default();
        let mut streak = 0;
        let mut delays = Vec::new();
        for _ in 0..12 {
            let (decision, next) = policy.decide(&panicked(), streak, Duration::ZERO);
            let RestartDecision::Restart(delay) = decision else { panic!("{decision:?}") };
            delays.push(delay.as_millis());
            streak = next;
        }
        assert_eq!(delays, [0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    }

    #[test]
    fn an_actor_that_ran_for_the_window_starts_with_a_clean_slate() {
        let policy = RestartPolicy::default();
        let decided = policy.decide(&panicked(), 9, policy.window);
        assert_eq!(decided, (RestartDecision::Restart(Duration::ZERO), 1));
    }

    #[test]
    fn a_transient_actor_is_done_when_it_stops_and_given_up_when_it_only_panics() {
        let policy = RestartPolicy::transient();
        assert_eq!(policy.decide(&ExitReason::Stopped, 0, Duration::ZERO).0, RestartDecision::Finished);
        assert_eq!(policy.decide(&panicked(), 10, Duration::ZERO).0, RestartDecision::GiveUp);
    }

    proptest! {
        #[test]
        fn the_default_policy_never_gives_up_nor_delays_beyond_its_bound(streak: u32, ms in 0u64..20_000, stop: bool) {
            let policy = RestartPolicy::default();
            let reason = if stop { ExitReason::Stopped } else { panicked() };
            let (decision, next) = policy.decide(&reason, streak, Duration::from_millis(ms));
            let RestartDecision::Restart(delay) = decision else { panic!("{decision:?}") };
            prop_assert!(delay <= policy.longest_delay);
            prop_assert!(next >= 1);
            prop_assert!(streak < policy.immediate || ms >= 10_000 || delay >= policy.first_delay);
        }
    }
}
