#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::testing::ManualClock;

const POLICY: CircuitPolicy = CircuitPolicy {
    failures: 3,
    failure_percent: 50,
    least_calls: 10,
    window: Duration::from_secs(10),
    open: Duration::from_secs(1),
    longest_open: Duration::from_secs(4),
};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn succeeded(circuit: &Circuit, pass: Pass, at: Duration) {
    circuit.succeeded(pass, &*ManualClock::new(Timestamp::default().after(at)));
}

/// A circuit that has just opened, at zero.
fn opened() -> Circuit {
    let circuit = Circuit::new(POLICY);
    for _ in 0..POLICY.failures {
        assert!(circuit.is_closed());
        circuit.failed(Pass::Ordinary, Duration::ZERO, 0.0);
    }
    assert!(!circuit.is_closed());
    circuit
}

#[test]
fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
    let circuit = Circuit::new(POLICY);
    for _ in 0..3 {
        circuit.failed(Pass::Ordinary, secs(0), 0.0);
        circuit.failed(Pass::Ordinary, secs(0), 0.0);
        succeeded(&circuit, Pass::Ordinary, secs(0));
    }
    assert!(circuit.is_closed());
    assert_eq!(circuit.view(secs(0)).state, "closed");
    opened();
}

#[test]
fn failures_in_a_row_are_counted_however_far_apart() {
    let circuit = Circuit::new(POLICY);
    for at in [0, 60, 120] {
        assert!(circuit.is_closed());
        circuit.failed(Pass::Ordinary, secs(at), 0.0);
    }
    assert!(!circuit.is_closed());
}

#[test]
fn a_share_of_failures_opens_it_once_there_were_enough_calls() {
    let circuit = Circuit::new(POLICY);
    for call in 0..10 {
        assert!(circuit.is_closed(), "after {call}");
        match call % 2 {
            0 => circuit.failed(Pass::Ordinary, secs(call / 2), 0.0),
            _ => succeeded(&circuit, Pass::Ordinary, secs(call / 2)),
        }
    }
    // Five of ten have failed; the share is looked at when one fails.
    assert!(circuit.is_closed());
    circuit.failed(Pass::Ordinary, secs(5), 0.0);
    assert!(!circuit.is_closed());
}

#[test]
fn a_window_that_is_over_does_not_count() {
    let circuit = Circuit::new(POLICY);
    for call in 0..40 {
        match call % 2 {
            0 => circuit.failed(Pass::Ordinary, secs(call * 2), 0.0),
            _ => succeeded(&circuit, Pass::Ordinary, secs(call * 2)),
        }
        assert!(circuit.is_closed(), "after {call}");
    }
    succeeded(&circuit, Pass::Ordinary, secs(1000));
    assert_eq!(circuit.gate.load(Ordering::Relaxed), CALM, "calm again");
}

#[test]
fn one_probe_passes_once_it_is_time_and_closes_it() {
    let circuit = opened();
    assert_eq!(circuit.probe(Duration::from_millis(400)), Err(Duration::from_millis(600)));
    assert_eq!(circuit.view(secs(0)).probe_in, Some(secs(1)));
    assert_eq!(circuit.probe(secs(1)), Ok(Pass::Probe));
    assert_eq!(circuit.view(secs(1)).state, "half_open");
    assert!(circuit.probe(secs(9)).is_err(), "only one");
    circuit.failed(Pass::Ordinary, secs(9), 0.0);
    succeeded(&circuit, Pass::Ordinary, secs(9));
    assert_eq!(circuit.view(secs(9)).state, "half_open", "calls from before say nothing");
    succeeded(&circuit, Pass::Probe, secs(9));
    assert!(circuit.is_closed());
    assert_eq!(circuit.view(secs(9)), CircuitView { state: "closed", failures: 0, probe_in: None });
}

#[test]
fn a_probe_that_fails_opens_it_for_twice_as_long_up_to_the_limit() {
    let circuit = opened();
    let mut now = Duration::ZERO;
    for pause in [1, 2, 4, 4] {
        assert_eq!(circuit.probe(now), Err(secs(pause)));
        now += secs(pause);
        assert_eq!(circuit.probe(now), Ok(Pass::Probe));
        circuit.failed(Pass::Probe, now, 0.0);
    }
}

#[test]
fn jitter_takes_away_half_at_most() {
    assert_eq!(POLICY.pause(1, 0.0), secs(2));
    assert_eq!(POLICY.pause(1, 1.0), secs(1));
    assert_eq!(POLICY.pause(u32::MAX, 0.0), POLICY.longest_open);
}

#[test]
fn a_probe_without_a_verdict_lets_the_next_one_through_at_once() {
    let circuit = opened();
    let pass = circuit.probe(secs(1)).unwrap();
    circuit.abandoned(pass, secs(1));
    assert_eq!(circuit.probe(secs(1)), Ok(Pass::Probe));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Call,
    Succeed(usize),
    Fail(usize),
    Abandon(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Call),
        2 => (0usize..8).prop_map(Step::Succeed),
        4 => (0usize..8).prop_map(Step::Fail),
        1 => (0usize..8).prop_map(Step::Abandon),
        1 => (0u64..3000).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// Whatever happens in whatever order: at most one probe is under way, none passes too early, the
    /// gate agrees with the state, and it never stays shut for good.
    #[test]
    fn it_holds_back_and_never_for_good(steps in steps(), jitter in 0.0..1.0f64) {
        let circuit = Circuit::new(POLICY);
        let mut now = Duration::ZERO;
        let mut under_way: Vec<Pass> = Vec::new();
        for step in steps {
            match step {
                Step::Call if circuit.is_closed() => under_way.push(Pass::Ordinary),
                Step::Call => {
                    let before = circuit.view(now);
                    if let Ok(pass) = circuit.probe(now) {
                        prop_assert_eq!(before.state, "open");
                        prop_assert_eq!(before.probe_in, Some(Duration::ZERO));
                        under_way.push(pass);
                    }
                }
                Step::Succeed(at) if at < under_way.len() => succeeded(&circuit, under_way.remove(at), now),
                Step::Fail(at) if at < under_way.len() => circuit.failed(under_way.remove(at), now, jitter),
                Step::Abandon(at) if at < under_way.len() => circuit.abandoned(under_way.remove(at), now),
                Step::Succeed(_) | Step::Fail(_) | Step::Abandon(_) => {}
                Step::Wait(millis) => now += Duration::from_millis(millis),
            }
            let probes = under_way.iter().filter(|pass| **pass == Pass::Probe).count();
            let view = circuit.view(now);
            prop_assert_eq!(probes, usize::from(view.state == "half_open"));
            prop_assert_eq!(circuit.is_closed(), view.state == "closed");
            prop_assert!(view.probe_in.is_none_or(|wait| wait <= POLICY.longest_open));
        }
        for pass in under_way {
            circuit.abandoned(pass, now);
        }
        now += POLICY.longest_open;
        if !circuit.is_closed() {
            let pass = circuit.probe(now);
            prop_assert_eq!(pass, Ok(Pass::Probe));
            succeeded(&circuit, Pass::Probe, now);
        }
        prop_assert!(circuit.is_closed());
    }
}
