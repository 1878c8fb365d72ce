#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::protocol::identifiers::{ProfileId, Subject};
use crate::protocol::token::{AccessToken, Expiry, RefreshToken, TokenType};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn tokens(lifetime: u64) -> TokenSet {
    TokenSet {
        access_token: AccessToken::new("access").unwrap(),
        dpop_key: None,
        token_type: TokenType::Bearer,
        obtained_at: NOW,
        expiry: Expiry::Stated { at: NOW.after(Duration::from_secs(lifetime)) },
        refresh_token: Some(RefreshToken::new("refresh").unwrap()),
        refresh_token_obtained_at: None,
        requested_scope: None,
        scope: None,
        identity: None,
        extra: Default::default(),
    }
}

fn connection(state: ConnectionState, renewable: bool) -> Connection {
    let id = ConnectionId { profile: ProfileId::new("p").unwrap(), subject: Subject::new("s").unwrap() };
    let renewal = if renewable { Ok(()) } else { Err(Reason::NoRefreshToken) };
    Connection::new(id, Revision(1), OriginSet::default(), NOW, state, renewal, &RefreshPolicy::default())
}

fn failure(class: FailureClass) -> Failure {
    Failure { class, reason: Reason::ProviderError, detail: "down".into(), retry_after: None }
}

#[test]
fn only_a_dead_grant_lets_go_of_the_tokens() {
    for class in
        [FailureClass::ClientMisconfigured, FailureClass::ProviderUnavailable, FailureClass::Internal]
    {
        let state = ConnectionState::obtained(tokens(3600)).failed(
            &failure(class),
            NOW,
            &RetryPolicy::default(),
            0.5,
        );
        assert!(state.tokens().is_some(), "{class:?}");
    }
    let dead = Failure { reason: Reason::GrantRevoked, ..failure(FailureClass::GrantDead) };
    let state = ConnectionState::obtained(tokens(3600)).failed(&dead, NOW, &RetryPolicy::default(), 0.5);
    assert_eq!(state, ConnectionState::NeedsConsent { reason: Reason::GrantRevoked, since: NOW });
    let view = connection(state, false).view(NOW, false);
    assert_eq!((view.state, view.who_must_act), ("needs_consent", Actor::Person));
}

#[test]
fn trouble_keeps_its_beginning_and_backs_off() {
    let retry = RetryPolicy::default();
    let mut state = ConnectionState::obtained(tokens(3600));
    let mut waits = Vec::new();
    for i in 0..10u64 {
        let now = NOW.after(Duration::from_secs(i * 100));
        state = state.failed(&failure(FailureClass::ProviderUnavailable), now, &retry, 1.0);
        let trouble = state.trouble().unwrap();
        assert_eq!(trouble.since, NOW);
        waits.push(trouble.next_attempt.since(now));
    }
    assert_eq!(waits[..3], [500, 1000, 2000].map(Duration::from_millis));
    assert_eq!(waits[9], retry.longest_delay);
}

#[test]
fn retry_after_is_honoured_up_to_an_hour() {
    let after = |secs| Failure {
        retry_after: Some(Duration::from_secs(secs)),
        ..failure(FailureClass::ProviderUnavailable)
    };
    for (asked, granted) in [(120, 120), (1_000_000, 3600)] {
        let state =
            ConnectionState::obtained(tokens(60)).failed(&after(asked), NOW, &RetryPolicy::default(), 0.0);
        assert_eq!(state.trouble().unwrap().next_attempt, NOW.after(Duration::from_secs(granted)));
    }
}

#[test]
fn a_token_of_a_minute_is_used_for_most_of_it() {
    let minute = connection(ConnectionState::obtained(tokens(60)), true);
    let at = |secs| minute.freshness(NOW.after(Duration::from_secs(secs)));
    assert_eq!(at(40), Freshness::Fresh);
    assert_eq!(at(55), Freshness::RefreshDue);
    assert_eq!(at(58), Freshness::Ended);
}

#[test]
fn what_is_not_durable_is_never_used() {
    let unsaved = connection(ConnectionState::unsaved(tokens(3600), NOW), true);
    assert_eq!(unsaved.authorization(NOW), None);
    assert_eq!(unsaved.freshness(NOW), Freshness::Ended);
}

#[test]
fn a_lapsed_connection_without_refresh_token_says_that_the_person_must_act() {
    let lapsed = connection(ConnectionState::obtained(TokenSet { refresh_token: None, ..tokens(60) }), false);
    assert_eq!(lapsed.view(NOW, false).state, "active");
    let view = lapsed.view(NOW.after(Duration::from_secs(61)), false);
    assert_eq!(
        (view.state, view.reason, view.who_must_act),
        ("needs_consent", Reason::NoRefreshToken, Actor::Person)
    );
}

#[test]
fn a_refresh_is_claimed_once_a_second() {
    let busy = connection(ConnectionState::obtained(tokens(60)), true);
    assert!(busy.claim_refresh(NOW));
    assert!(!busy.claim_refresh(NOW.after(Duration::from_millis(999))));
    assert!(busy.claim_refresh(NOW.after(Duration::from_millis(1000))));
}

proptest! {
    #[test]
    fn freshness_only_ever_ripens(lifetime in 0u64..1_000_000_000, text in "[a-z]{1,20}") {
        let mut set = tokens(lifetime);
        set.access_token = AccessToken::new(text).unwrap();
        let one = connection(ConnectionState::obtained(set), true);
        let mut last = 0;
        for share in 0..=20 {
            let at = NOW.after(Duration::from_secs(lifetime).mul_f64(f64::from(share) / 20.0));
            let rank = match one.freshness(at) { Freshness::Fresh => 0, Freshness::RefreshDue => 1, Freshness::Ended => 2 };
            prop_assert!(rank >= last);
            prop_assert_eq!(one.authorization(at).is_some(), rank < 2);
            last = rank;
        }
        prop_assert_eq!(last, 2, "never usable at or after its end");
    }

    #[test]
    fn no_sequence_of_failures_panics_or_drops_a_live_grant(
        classes in proptest::collection::vec(1u8..4, 0..40),
        jitter in 0.0f64..1.0,
        clock in proptest::collection::vec(any::<u64>(), 40),
    ) {
        let mut state = ConnectionState::obtained(tokens(3600));
        for (class, now) in classes.iter().zip(clock) {
            let class = match class {
                1 => FailureClass::ClientMisconfigured,
                2 => FailureClass::ProviderUnavailable,
                _ => FailureClass::Internal,
            };
            state = state.failed(&failure(class), Timestamp::from_millis(now), &RetryPolicy::default(), jitter);
            prop_assert!(state.tokens().is_some());
        }
    }
}

#[test]
fn a_token_is_presented_in_the_apis_own_way() {
    let presentation = |header: Option<&'static str>, scheme: Option<&str>| Presentation {
        header: header.map(HeaderName::from_static),
        scheme: scheme.map(str::to_owned),
    };
    let presented = |presentation: Presentation| {
        let connection = connection(ConnectionState::obtained(tokens(60)), true).presented_as(&presentation);
        let value = connection.authorization(NOW).unwrap();
        assert!(value.is_sensitive());
        let token = connection.state.tokens().unwrap().access_token.expose();
        (connection.token_header().to_string(), value.to_str().unwrap().replace(token, "TOKEN"))
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(presented(Presentation::default()), pair("authorization", "Bearer TOKEN"));
    assert_eq!(presented(presentation(Some("x-own"), Some(""))), pair("x-own", "TOKEN"));
    assert_eq!(presented(presentation(None, Some("Own"))), pair("authorization", "Own TOKEN"));
}
