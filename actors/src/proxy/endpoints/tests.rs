#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use http::header::{HeaderValue, RETRY_AFTER};
use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::testing::{ManualClock, SeededEntropy};

const POLICY: CircuitPolicy = CircuitPolicy {
    failures: 2,
    failure_percent: 100,
    least_calls: 1000,
    window: Duration::from_secs(10),
    open: Duration::from_secs(4),
    longest_open: Duration::from_secs(4),
};

fn origin(n: usize) -> Arc<UpstreamOrigin> {
    let serialized = Arc::from(format!("https://{n}.example"));
    Arc::new(UpstreamOrigin { tls: true, host: format!("{n}.example"), port: 443, serialized })
}

fn endpoints(count: usize) -> (Arc<Endpoints>, Arc<ManualClock>) {
    let clock = ManualClock::new(Timestamp::from_secs(1_000_000));
    let list = (0..count).map(|n| (origin(n), format!("/v{n}")));
    let entropy = SeededEntropy::new(7);
    (Arc::new(Endpoints::new(list, Some(POLICY), true, clock.clone(), entropy)), clock)
}

/// A call that may probe and has tried nothing.
fn call(endpoints: &Arc<Endpoints>) -> Passage {
    endpoints.choose(Tried::default(), true).unwrap()
}

fn answer(passage: &Passage, status: u16) {
    passage.answered(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
}

/// Has the one at `index` fail until its circuit opens.
fn open(endpoints: &Arc<Endpoints>, index: usize) {
    for _ in 0..POLICY.failures {
        Passage::new(endpoints, index, Pass::Ordinary, Tried::default()).failed();
    }
    assert_eq!(endpoints.views()[index].state, "open");
}

#[test]
fn a_passage_says_where_to_and_is_counted_while_it_lives() {
    let (endpoints, _) = endpoints(1);
    let passage = call(&endpoints);
    assert_eq!(&*passage.origin().serialized, "https://0.example");
    assert_eq!(passage.path(), "/v0");
    assert_eq!(endpoints.views()[0].in_flight, 1);
    drop(passage);
    assert_eq!(endpoints.views()[0].in_flight, 0);
}

#[test]
fn calls_are_spread_over_all_and_the_busy_get_fewer() {
    let (endpoints, _) = endpoints(4);
    let under_way: Vec<_> = (0..400).map(|_| call(&endpoints)).collect();
    for view in endpoints.views() {
        assert!((90..=110).contains(&view.in_flight), "{view:?}");
    }
    drop(under_way);
    // One is much busier: it loses whatever it is drawn with.
    let _busy: Vec<_> =
        (0..50).map(|_| Passage::new(&endpoints, 2, Pass::Ordinary, Tried::default())).collect();
    let mut chosen = BTreeMap::new();
    for _ in 0..300 {
        *chosen.entry(call(&endpoints).index).or_insert(0) += 1;
    }
    assert_eq!(chosen.keys().copied().collect::<Vec<_>>(), [0, 1, 3], "{chosen:?}");
}

#[test]
fn a_retry_goes_to_another_one_until_all_were_tried() {
    let (endpoints, _) = endpoints(3);
    let mut seen = Tried::default();
    for round in 1..=3 {
        let passage = endpoints.choose(seen, true).unwrap();
        assert!(!seen.has(passage.index));
        seen = passage.tried();
        assert_eq!(seen.count(), round);
    }
    assert_eq!(endpoints.choose(seen, true).unwrap().tried().count(), 1, "from the beginning");
}

#[test]
fn an_open_circuit_gets_no_calls_until_one_probes_it() {
    let (endpoints, clock) = endpoints(2);
    open(&endpoints, 0);
    for _ in 0..20 {
        assert_eq!(call(&endpoints).index, 1);
    }
    clock.advance(POLICY.open);
    assert_eq!(endpoints.choose(Tried::default(), false).unwrap().index, 1, "this one must not fail");
    let probe = call(&endpoints);
    assert_eq!(probe.index, 0);
    assert_eq!(call(&endpoints).index, 1, "one probe at a time");
    answer(&probe, 200);
    assert_eq!(endpoints.views()[0].state, "closed");
}

#[test]
fn if_all_are_open_the_first_to_be_due_is_told_and_any_call_probes() {
    let (endpoints, clock) = endpoints(2);
    open(&endpoints, 0);
    clock.advance(Duration::from_millis(10));
    open(&endpoints, 1);
    let refusal = endpoints.choose(Tried::default(), false).unwrap_err();
    assert!(!refusal.asked_for);
    assert!(refusal.retry_after <= POLICY.open && !refusal.retry_after.is_zero(), "{refusal:?}");
    clock.advance(POLICY.open);
    let probe = endpoints.choose(Tried::default(), false).unwrap();
    probe.failed();
    assert_eq!(endpoints.views()[probe.index].state, "open");
}

#[test]
fn a_probe_whose_caller_goes_away_makes_room_for_the_next() {
    let (endpoints, clock) = endpoints(1);
    open(&endpoints, 0);
    clock.advance(POLICY.open);
    drop(call(&endpoints));
    answer(&call(&endpoints), 200);
    assert_eq!(endpoints.views()[0].state, "closed");
}

#[test]
fn which_statuses_are_failures() {
    for (status, fails) in
        [(200, false), (401, false), (429, false), (500, false), (502, true), (503, true), (504, true)]
    {
        let (endpoints, _) = endpoints(1);
        answer(&call(&endpoints), status);
        assert_eq!(endpoints.views()[0].failures, u32::from(fails), "{status}");
    }
}

#[test]
fn what_was_answered_is_settled_once() {
    let (endpoints, _) = endpoints(1);
    let passage = call(&endpoints);
    passage.failed();
    passage.failed();
    answer(&passage, 503);
    assert_eq!(endpoints.views()[0].failures, 1);
}

#[test]
fn retry_after_is_remembered_in_both_forms_and_bounded() {
    // Timestamp 1_000_000 is 1970-01-12 13:46:40.
    for (value, expected) in [
        ("30", 30),
        ("Mon, 12 Jan 1970 13:47:00 GMT", 20),
        ("7200", 3600),
        ("99999999999999999999", 3600),
        ("0", 0),
        ("soon", 0),
        ("Mon, 12 Jan 1970 13:00:00 GMT", 0),
    ] {
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
            let (endpoints, clock) = endpoints(1);
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            call(&endpoints).answered(status, &headers);
            if expected == 0 {
                drop(call(&endpoints));
                continue;
            }
            let refusal = endpoints.choose(Tried::default(), true).unwrap_err();
            assert!(refusal.asked_for);
            assert_eq!(refusal.retry_after, Duration::from_secs(expected), "{value}");
            assert_eq!(endpoints.views()[0].state, "held_back");
            clock.advance(Duration::from_secs(expected));
            drop(call(&endpoints));
            assert_eq!(endpoints.views()[0].state, "closed");
        }
    }
}

#[test]
fn only_who_asked_for_it_is_held_back_and_only_if_that_is_wanted() {
    let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("30"))]);
    let (endpoints, _) = endpoints(2);
    let held = call(&endpoints);
    held.answered(StatusCode::TOO_MANY_REQUESTS, &headers);
    for _ in 0..20 {
        assert_ne!(call(&endpoints).index, held.index);
    }
    held.answered(StatusCode::OK, &headers);
    let clock = ManualClock::new(Timestamp::from_secs(5));
    let list = [(origin(0), String::new())];
    let careless = Arc::new(Endpoints::new(list, None, false, clock, SeededEntropy::new(1)));
    call(&careless).answered(StatusCode::TOO_MANY_REQUESTS, &headers);
    drop(call(&careless));
}

proptest! {
    /// Whatever happens, a call goes to an upstream that it has not tried, that is not held back, and
    /// that is closed unless it is a probe; and nothing stays counted.
    #[test]
    fn only_those_that_may_be_asked_are(
        count in 1usize..6,
        steps in prop::collection::vec((0u8..6, 0usize..10, any::<bool>()), 0..150),
    ) {
        let (endpoints, clock) = endpoints(count);
        let mut under_way: Vec<Passage> = Vec::new();
        let held = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("3"))]);
        for (step, at, may_probe) in steps {
            let at = at.min(under_way.len().saturating_sub(1));
            match step {
                0 => {
                    let before = endpoints.views();
                    let tried = under_way.get(at).map_or(Tried::default(), Passage::tried);
                    match endpoints.choose(tried, may_probe) {
                        Ok(passage) => {
                            let view = &before[passage.index];
                            let due = view.state == "open" && view.retry_in == Some(Duration::ZERO);
                            prop_assert!(view.state == "closed" || due, "{:?}", view);
                            if (tried.count() as usize) < count {
                                prop_assert!(!tried.has(passage.index));
                            }
                            under_way.push(passage);
                        }
                        Err(refusal) => prop_assert!(refusal.retry_after <= Duration::from_secs(4)),
                    }
                }
                1 => clock.advance(Duration::from_millis(at as u64 * 500)),
                _ if under_way.is_empty() => {}
                2 => under_way.remove(at).failed(),
                3 => answer(&under_way.remove(at), 200),
                4 => under_way.remove(at).answered(StatusCode::TOO_MANY_REQUESTS, &held),
                _ => drop(under_way.remove(at)),
            }
            let counted: usize = endpoints.views().iter().map(|view| view.in_flight).sum();
            prop_assert_eq!(counted, under_way.len());
        }
        drop(under_way);
        clock.advance(Duration::from_secs(4));
        let all = (0..count).try_fold(Tried::default(), |tried, _| {
            let passage = endpoints.choose(tried, true)?;
            answer(&passage, 200);
            Ok::<_, Unavailable>(passage.tried())
        });
        prop_assert_eq!(all.unwrap().count() as usize, count, "all get calls again");
    }
}
