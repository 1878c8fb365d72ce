#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod device;
mod random_walk;
mod world;

use std::time::Duration;

use futures_util::future::{join, join_all};

use self::world::{World, code, error, param, with_iss};
use super::error::FlowError;
use super::messages::TakeConnectLink;
use super::record::StateHash;
use super::registrar::FlowLimits;
use crate::protocol::authorization_response::AuthorizationResponse;
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::protocol::signing_key::SignatureAlgorithm;
use crate::supervision::ActorKind;
use crate::supervision::test_support::run_paused;

fn is_invalid<T>(answer: &Result<T, FlowError>) -> bool {
    matches!(answer, Err(FlowError::Invalid { .. }))
}

#[test]
fn a_person_is_sent_away_with_a_durable_flow_and_comes_back_with_a_token_set() {
    run_paused(async {
        let world = World::new();
        let redirect = world.begin("alice", None).await.unwrap();
        let url = &redirect.url;
        assert_eq!(param(url, "response_type"), "code");
        assert_eq!(param(url, "client_id"), "client");
        assert_eq!(param(url, "code_challenge_method"), "S256");
        assert_eq!(param(url, "access_type"), "offline");
        assert_eq!(redirect.expires_in, 600);
        let state = param(url, "state");
        let record = world.store.flow(StateHash::of(&state)).expect("durable before the browser leaves");
        assert_eq!(record.nonce.unwrap().expose(), param(url, "nonce"));
        assert_eq!(record.browser, StateHash::of(redirect.browser.expose()));

        let outcome = world.accept(code(&state), Some(&redirect.browser)).await.unwrap();
        assert_eq!(outcome.return_to.as_deref(), Some("/home"));
        let redeemed = world.provider.redeemed();
        assert_eq!(redeemed.len(), 1);
        let (subject, redemption, nonce) = &redeemed[0];
        assert_eq!((subject.as_str(), redemption.code.expose()), ("alice", "the-code"));
        let verifier = redemption.code_verifier.as_ref().unwrap();
        assert_eq!(verifier.challenge(), param(url, "code_challenge"));
        assert_eq!(nonce.as_ref().unwrap().expose(), param(url, "nonce"));
        assert_eq!(redemption.redirect_uri.as_ref().unwrap().as_str(), param(url, "redirect_uri"));
        world.settle().await;
        assert_eq!(world.flows_running().await, 0, "the flow's actor has ended");
    });
}

#[test]
fn a_replayed_answer_is_refused_without_a_token_request() {
    run_paused(async {
        let world = World::new();
        let redirect = world.begin("alice", None).await.unwrap();
        let state = param(&redirect.url, "state");
        world.accept(code(&state), Some(&redirect.browser)).await.unwrap();
        assert!(is_invalid(&world.accept(code(&state), Some(&redirect.browser)).await));
        assert_eq!(world.provider.redeemed().len(), 1);
    });
}

#[test]
fn of_parallel_answers_just_one_wins() {
    run_paused(async {
        let world = World::new();
        let redirect = world.begin("alice", None).await.unwrap();
        let state = param(&redirect.url, "state");
        // A second registrar over the same store stands for another replica.
        let replica = world.replica();
        assert!(is_invalid(&replica.accept(code("to-wake-it"), None).await));
        let answers = join(
            join_all((0..10).map(|_| world.accept(code(&state), Some(&redirect.browser)))),
            join_all((0..10).map(|_| replica.accept(code(&state), Some(&redirect.browser)))),
        )
        .await;
        let answers: Vec<_> = answers.0.into_iter().chain(answers.1).collect();
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        assert_eq!(answers.iter().filter(|answer| is_invalid(answer)).count(), 19, "{answers:?}");
        assert_eq!(world.provider.redeemed().len(), 1);
    });
}

#[test]
fn an_answer_that_does_not_belong_leaves_the_flow_unharmed() {
    run_paused(async {
        let world = World::new();
        world.provider.announce_iss(true);
        let redirect = world.begin("alice", None).await.unwrap();
        let other = world.begin("mallory", None).await.unwrap();
        let state = param(&redirect.url, "state");
        let good = || with_iss(code(&state), "https://id.example");
        let mut truncated = redirect.browser.expose().to_owned();
        truncated.pop();
        for browser in [None, Some(&other.browser), Some(&Secret::new(truncated))] {
            assert!(is_invalid(&world.accept(good(), browser).await));
        }
        for response in [
            code(&state),
            with_iss(code(&state), "https://id.example/"),
            with_iss(code(&state), "HTTPS://id.example"),
            with_iss(error(&state, "access_denied"), "https://evil.example"),
            error(&state, "access_denied"),
        ] {
            assert!(is_invalid(&world.accept(response, Some(&redirect.browser)).await));
        }
        assert!(world.provider.redeemed().is_empty());
        assert!(world.accept(good(), Some(&redirect.browser)).await.is_ok());
    });
}

#[test]
fn iss_is_compared_even_when_it_is_not_announced() {
    run_paused(async {
        let world = World::new();
        let redirect = world.begin("alice", None).await.unwrap();
        let state = param(&redirect.url, "state");
        let wrong = with_iss(code(&state), "https://evil.example");
        assert!(is_invalid(&world.accept(wrong, Some(&redirect.browser)).await));
        let right = with_iss(code(&state), "https://id.example");
        assert!(world.accept(right, Some(&redirect.browser)).await.is_ok());
    });
}

#[test]
fn a_profile_may_require_iss_although_it_is_not_announced() {
    run_paused(async {
        let world = World::requiring_iss();
        let redirect = world.begin("alice", None).await.unwrap();
        let state = param(&redirect.url, "state");
        assert!(is_invalid(&world.accept(code(&state), Some(&redirect.browser)).await));
        assert!(world.provider.redeemed().is_empty());
        let right = with_iss(code(&state), "https://id.example");
        assert!(world.accept(right, Some(&redirect.browser)).await.is_ok());
    });
}

#[test]
fn further_scopes_are_asked_for_with_those_that_were_granted() {
    run_paused(async {
        let world = World::new();
        world.provider.grant("files mail");
        let scopes = ScopeSet::parse("contacts").unwrap();
        let alice = world::connection("calendar", "alice");
        let redirect = world.begin_for(alice, None, scopes).await.unwrap();
        assert_eq!(param(&redirect.url, "scope"), "calendar contacts files mail openid");
        let state = param(&redirect.url, "state");
        world.accept(code(&state), Some(&redirect.browser)).await.unwrap();
        let redeemed = world.provider.redeemed().remove(0).1;
        assert_eq!(redeemed.scopes.to_string(), "calendar contacts files mail openid");
        let plain = world.begin("alice", None).await.unwrap();
        assert_eq!(param(&plain.url, "scope"), "calendar openid");
    });
}

#[test]
fn what_the_provider_is_known_to_send_along_is_kept_and_nothing_else() {
    run_paused(async {
        let world = World::new();
        let redirect = world.begin("alice", None).await.unwrap();
        let state = param(&redirect.url, "state");
        let query = format!("code=the-code&state={state}&realmId=4620&tenant=x");
        let response = AuthorizationResponse::parse(&query).unwrap();
        world.accept(response, Some(&redirect.browser)).await.unwrap();
        let kept = world.provider.redeemed().remove(0).1.kept;
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), [("realmId".to_owned(), "4620".to_owned())]);
    });
}

#[test]
fn an_unknown_state_starts_nothing_and_asks_no_provider() {
    run_paused(async {
        let world = World::new();
        let browser = Secret::new("b".repeat(43));
        assert!(is_invalid(&world.accept(code("guessed"), Some(&browser)).await));
        assert_eq!(world.flows_running().await, 0);
        assert!(world.provider.redeemed().is_empty());
        assert_eq!(world.provider.targets_asked(), 0);
    });
}

#[test]
fn a_flow_expires_by_itself() {
    run_paused(async {
        let world = World::new();
        let redirect = world.begin("alice", None).await.unwrap();
        tokio::time::sleep(Duration::from_secs(599)).await;
        assert_eq!(world.flows_running().await, 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(world.flows_running().await, 0);
        assert_eq!(world.store.len(), 0);
        let state = param(&redirect.url, "state");
        assert!(is_invalid(&world.accept(code(&state), Some(&redirect.browser)).await));
        assert!(world.provider.redeemed().is_empty());
    });
}

#[test]
fn what_expired_while_nobody_watched_is_refused_and_purged() {
    run_paused(async {
        let world = World::new();
        let redirect = world.begin("alice", None).await.unwrap();
        let state = StateHash::of(&param(&redirect.url, "state"));
        let mut record = world.store.flow(state).unwrap();
        record.state = StateHash::of("left-behind");
        record.expires_at = world.clock.now().after(Duration::from_secs(5));
        world.store.put(record);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(is_invalid(&world.accept(code("left-behind"), Some(&redirect.browser)).await));
        assert_eq!((world.flows_running().await, world.store.len()), (1, 2));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.store.len(), 1, "only the living flow is left");
    });
}

#[test]
fn a_refusal_by_the_person_ends_the_flow() {
    run_paused(async {
        let world = World::new();
        let redirect = world.begin("alice", None).await.unwrap();
        let state = param(&redirect.url, "state");
        let refused = world.accept(error(&state, "access_denied"), Some(&redirect.browser)).await;
        let Err(FlowError::Refused { code: refusal, return_to, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((refusal.as_str(), return_to.as_deref()), ("access_denied", Some("/home")));
        assert!(is_invalid(&world.accept(code(&state), Some(&redirect.browser)).await));
        assert!(world.provider.redeemed().is_empty());
    });
}

#[test]
fn a_code_that_cannot_be_redeemed_is_not_tried_again() {
    run_paused(async {
        let world = World::new();
        world.provider.fail_redemption(true);
        let redirect = world.begin("alice", None).await.unwrap();
        let state = param(&redirect.url, "state");
        let failed = world.accept(code(&state), Some(&redirect.browser)).await;
        assert!(matches!(failed, Err(FlowError::Token { .. })), "{failed:?}");
        world.provider.fail_redemption(false);
        assert!(is_invalid(&world.accept(code(&state), Some(&redirect.browser)).await));
        assert_eq!(world.provider.redeemed().len(), 1);
    });
}

#[test]
fn a_flow_outlives_the_process_that_began_it() {
    run_paused(async {
        let world = World::new();
        let redirect = world.begin("alice", None).await.unwrap();
        let state = param(&redirect.url, "state");
        let restarted = world.replica();
        assert!(is_invalid(&restarted.accept(code(&state), None).await));
        assert!(restarted.accept(code(&state), Some(&redirect.browser)).await.is_ok());
        assert!(is_invalid(&world.accept(code(&state), Some(&redirect.browser)).await));
        assert_eq!(world.provider.redeemed().len(), 1);
    });
}

#[test]
fn panics_of_flow_and_registrar_lose_no_flow() {
    run_paused(async {
        let world = World::new();
        let first = world.begin("alice", None).await.unwrap();
        let second = world.begin("bob", None).await.unwrap();
        let states = [&first, &second].map(|redirect| param(&redirect.url, "state"));
        assert!(world.supervisor.inject_panic(ActorKind::Flow, &StateHash::of(&states[0]).short()).await);
        world.settle().await;
        assert!(world.supervisor.inject_panic(ActorKind::Flow, "registrar").await);
        world.settle().await;
        assert_eq!(world.supervisor.restarts_total(), 2);
        assert!(world.accept(code(&states[0]), Some(&first.browser)).await.is_ok());
        assert!(world.accept(code(&states[1]), Some(&second.browser)).await.is_ok());
    });
}

#[test]
fn a_flow_that_was_given_up_after_many_panics_can_still_be_finished() {
    run_paused(async {
        let world = World::new();
        let redirect = world.begin("alice", None).await.unwrap();
        let state = param(&redirect.url, "state");
        while world.flows_running().await > 0 {
            world.supervisor.inject_panic(ActorKind::Flow, &StateHash::of(&state).short()).await;
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        assert!(world.accept(code(&state), Some(&redirect.browser)).await.is_ok());
    });
}

#[test]
fn a_flow_that_panics_after_it_was_used_up_stays_used_up() {
    run_paused(async {
        let world = World::new();
        world.provider.redeem_slowly(Duration::from_secs(5));
        let redirect = world.begin("alice", None).await.unwrap();
        let state = param(&redirect.url, "state");
        let panicking = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let id = StateHash::of(&state).short();
            assert!(world.supervisor.inject_panic(ActorKind::Flow, &id).await);
        };
        let (cut_off, ()) = join(world.accept(code(&state), Some(&redirect.browser)), panicking).await;
        assert!(matches!(cut_off, Err(FlowError::Ask(_))), "{cut_off:?}");
        assert!(is_invalid(&world.accept(code(&state), Some(&redirect.browser)).await));
        assert_eq!(world.provider.redeemed().len(), 1);
    });
}

#[test]
fn pending_flows_are_capped() {
    run_paused(async {
        let world = World::limited(FlowLimits { pending: 3, ..FlowLimits::default() });
        for _ in 0..3 {
            world.begin("alice", None).await.unwrap();
        }
        assert!(matches!(world.begin("alice", None).await, Err(FlowError::TooMany)));
        let waiting = join_all((0..3).map(|_| world.begin("alice", None))).await;
        assert!(waiting.iter().all(Result::is_err));
        tokio::time::sleep(Duration::from_secs(601)).await;
        assert!(world.begin("alice", None).await.is_ok());
    });
}

#[test]
fn a_browser_that_begins_too_many_flows_loses_its_oldest() {
    run_paused(async {
        let world = World::limited(FlowLimits { per_browser: 2, ..FlowLimits::default() });
        let first = world.begin("alice", None).await.unwrap();
        let browser = first.browser.clone();
        let mut states = vec![param(&first.url, "state")];
        for _ in 0..2 {
            let next = world.begin("alice", Some(browser.clone())).await.unwrap();
            assert!(next.browser == browser, "the cookie is used again");
            states.push(param(&next.url, "state"));
        }
        world.settle().await;
        assert_eq!((world.flows_running().await, world.store.len()), (2, 2));
        assert!(is_invalid(&world.accept(code(&states[0]), Some(&browser)).await));
        assert!(world.accept(code(&states[1]), Some(&browser)).await.is_ok());
        let odd = Secret::new("x".repeat(44));
        assert!(world.begin("alice", Some(odd.clone())).await.unwrap().browser != odd);
    });
}

#[test]
fn no_browser_is_sent_away_when_the_flow_cannot_be_kept() {
    run_paused(async {
        let world = World::new();
        world.store.fail(true);
        assert!(matches!(world.begin("alice", None).await, Err(FlowError::Store(_))));
        assert_eq!(world.flows_running().await, 0);
        world.store.fail(false);
        let redirect = world.begin("alice", None).await.unwrap();
        let state = param(&redirect.url, "state");
        world.store.fail(true);
        let failed = world.accept(code(&state), Some(&redirect.browser)).await;
        assert!(matches!(failed, Err(FlowError::Store(_))), "{failed:?}");
        world.store.fail(false);
        assert!(world.accept(code(&state), Some(&redirect.browser)).await.is_ok(), "the flow is unharmed");
    });
}

#[test]
fn profiles_without_a_person_or_unknown_begin_nothing() {
    run_paused(async {
        let world = World::new();
        let robot = world.begin_at("robot", "alice", None).await;
        assert!(matches!(robot, Err(FlowError::NoConsentNeeded(_))));
        let nowhere = world.begin_at("nowhere", "alice", None).await;
        assert!(matches!(nowhere, Err(FlowError::UnknownProfile(_))));
        assert_eq!(world.store.len(), 0);
    });
}

#[test]
fn a_connect_link_works_once_and_not_for_ever() {
    run_paused(async {
        let world = World::new();
        let link = world.link("alice").await.unwrap();
        assert_eq!(link.token.expose().len(), 43);
        let session = world.take_link(&link).await.unwrap();
        assert_eq!(
            (session.connection.subject.as_str(), session.return_to.as_deref()),
            ("alice", Some("/home"))
        );
        assert!(is_invalid(&world.take_link(&link).await));
        let late = world.link("alice").await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let taken = world.registrar.ask(TakeConnectLink { token: late.token }, Duration::from_secs(1)).await;
        assert!(is_invalid(&taken.unwrap()));
    });
}

#[test]
fn what_a_flow_shows_of_itself_is_nothing_secret() {
    run_paused(async {
        let world = World::new();
        let redirect = world.begin("alice", None).await.unwrap();
        let reports = serde_json::to_string(&world.supervisor.inspect().await).unwrap();
        assert!(reports.contains("\"subject\":\"alice\"") && reports.contains("\"expires_in_s\":600"));
        for secret in ["state", "nonce", "code_challenge"].map(|name| param(&redirect.url, name)) {
            assert!(!reports.contains(&secret));
        }
        assert!(!reports.contains(redirect.browser.expose()));
    });
}

#[test]
fn a_code_is_bound_to_a_key_that_the_flow_keeps_for_its_redemption() {
    run_paused(async {
        let world = World::with(FlowLimits::default(), |registration| {
            registration.dpop = Some(SignatureAlgorithm::Es256);
        });
        let redirect = world.begin("alice", None).await.unwrap();
        let state = param(&redirect.url, "state");
        let key = world.store.flow(StateHash::of(&state)).unwrap().dpop_key.unwrap();
        assert_eq!(param(&redirect.url, "dpop_jkt"), key.thumbprint());
        let another = world.begin("bob", None).await.unwrap();
        assert_ne!(param(&another.url, "dpop_jkt"), key.thumbprint());
        world.accept(code(&state), Some(&redirect.browser)).await.unwrap();
        assert_eq!(world.provider.redeemed()[0].1.dpop_key, Some(key));
    });
}
