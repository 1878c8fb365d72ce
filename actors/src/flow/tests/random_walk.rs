//! Random answers, panics, restarts and pauses, against a model of what a flow may do.

use std::time::Duration;

use proptest::prelude::*;

use super::world::{World, code, error, param, with_iss};
use crate::flow::error::FlowError;
use crate::flow::record::StateHash;
use crate::protocol::secret::Secret;
use crate::supervision::ActorKind;
use crate::supervision::test_support::run_paused;

#[derive(Clone, Copy, Debug)]
enum Step {
    Code { replica: bool },
    Refusal { replica: bool },
    OtherBrowser,
    NoBrowser,
    WrongIssuer,
    FlowPanics,
    RegistrarPanics,
    StoreFails(bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<bool>().prop_map(|replica| Step::Code { replica }),
        any::<bool>().prop_map(|replica| Step::Refusal { replica }),
        Just(Step::OtherBrowser),
        Just(Step::NoBrowser),
        Just(Step::WrongIssuer),
        Just(Step::FlowPanics),
        Just(Step::RegistrarPanics),
        any::<bool>().prop_map(Step::StoreFails),
        (1u64..400).prop_map(Step::Wait),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Model {
    Waiting,
    Used,
}

async fn walk(steps: Vec<Step>) {
    let world = World::new();
    let replica = world.replica();
    let redirect = world.begin("alice", None).await.unwrap();
    let state = param(&redirect.url, "state");
    let id = StateHash::of(&state).short();
    let expires_at = world.clock.now().after(Duration::from_secs(600));
    let (mut model, mut store_fails, mut redeemed) = (Model::Waiting, false, 0);
    for (i, step) in steps.iter().copied().enumerate() {
        let alive = model == Model::Waiting && world.clock.now() < expires_at;
        let mine = Some(&redirect.browser);
        match step {
            Step::Code { replica: elsewhere } | Step::Refusal { replica: elsewhere } => {
                let is_code = matches!(step, Step::Code { .. });
                let response = if is_code { code(&state) } else { error(&state, "access_denied") };
                let at = if elsewhere { &replica } else { &world };
                let answer = at.accept(response, mine).await;
                match (&answer, alive, store_fails) {
                    (Ok(_), true, false) if is_code => redeemed += 1,
                    (Err(FlowError::Refused { .. }), true, false) if !is_code => {}
                    (Err(FlowError::Invalid { .. }), false, _) => {}
                    (Err(FlowError::Store(_)), _, true) => {}
                    _ => panic!("step {i} of {steps:?}: {answer:?}"),
                }
                if answer.is_ok() || matches!(answer, Err(FlowError::Refused { .. })) {
                    model = Model::Used;
                }
            }
            Step::OtherBrowser | Step::NoBrowser | Step::WrongIssuer => {
                let other = Secret::new("o".repeat(43));
                let (response, browser) = match step {
                    Step::OtherBrowser => (code(&state), Some(&other)),
                    Step::NoBrowser => (code(&state), None),
                    _ => (with_iss(code(&state), "https://evil.example"), mine),
                };
                let answer = world.accept(response, browser).await;
                let as_expected = matches!(answer, Err(FlowError::Invalid { .. }))
                    || store_fails && matches!(answer, Err(FlowError::Store(_)));
                assert!(as_expected, "step {i} of {steps:?}: {answer:?}");
            }
            Step::FlowPanics => drop(world.supervisor.inject_panic(ActorKind::Flow, &id).await),
            Step::RegistrarPanics => drop(world.supervisor.inject_panic(ActorKind::Flow, "registrar").await),
            Step::StoreFails(fails) => {
                store_fails = fails;
                world.store.fail(fails);
            }
            Step::Wait(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        }
        // Also lets a restart that is delayed by backoff happen.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(world.provider.redeemed().len(), redeemed, "step {i} of {steps:?}");
    }
    assert!(redeemed <= 1);
    world.store.fail(false);
    tokio::time::sleep(Duration::from_secs(700)).await;
    let running = world.flows_running().await + replica.flows_running().await;
    assert_eq!((world.store.len(), running), (0, 0), "{steps:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_flow_is_used_at_most_once_and_only_by_its_own_browser(steps in prop::collection::vec(step(), 1..14)) {
        run_paused(walk(steps));
    }
}
