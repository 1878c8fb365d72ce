//! A refresh's ID token is looked at after the save, and before anybody uses what was saved.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_actors::protocol::authorization_response::AuthorizationResponse;
use claviger_actors::protocol::json_template::JsonTemplate;
use claviger_actors::protocol::template::Template;
use claviger_actors::protocol::token::{IdentityClaims, TokenSet};
use claviger_actors::registration::authorization::AuthorizationOptions;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::world::*;

const ISSUER: &str = "https://as.example";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn world(sub: &'static str) -> (World, TokenSet) {
    world_with(sub, |_, _| {})
}

/// `further` adds to the claims of every ID token; it is told the time in seconds.
fn world_with(
    sub: &'static str,
    further: impl Fn(&mut Value, u64) + Send + Sync + 'static,
) -> (World, TokenSet) {
    world_asking(sub, |options| options.max_age = Some(Duration::from_secs(300)), further)
}

/// As [`world_with`], with what is asked of the person.
fn world_asking(
    sub: &'static str,
    ask: impl FnOnce(&mut AuthorizationOptions),
    further: impl Fn(&mut Value, u64) + Send + Sync + 'static,
) -> (World, TokenSet) {
    let world = World::with(|registration| {
        ask(&mut registration.authorization);
        registration.provider.issuer = Some(ISSUER.to_owned());
        registration.scopes = ScopeSet::from_tokens(["openid"]).unwrap();
        registration.id_token_signing_alg = Some("EdDSA".to_owned());
    });
    let key = Ed25519KeyPair::generate().unwrap();
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": b64(key.public_key()) });
    world.server.document("/jwks", json!({ "keys": [jwk] }));
    let clock = world.clock.clone();
    world.server.answers(move |_, answer: &mut Value| {
        let now = clock.now().as_millis() / 1000;
        let header = json!({ "alg": "EdDSA", "kid": "k" });
        let mut claims = json!({ "iss": ISSUER, "sub": sub, "aud": "client", "exp": now + 300, "iat": now });
        further(&mut claims, now);
        let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = b64(key.sign(message.as_bytes()));
        answer["id_token"] = format!("{message}.{signature}").into();
    });
    let identity = Some(IdentityClaims { iss: ISSUER.to_owned(), sub: "sub-alice".to_owned() });
    let tokens = TokenSet { identity, ..world.tokens(0) };
    (world, tokens)
}

#[test]
fn a_login_further_back_than_max_age_is_refused() {
    run(async {
        // Seconds between the login and the beginning of the flow, of which 60 may be the clocks' fault.
        for (age, fits) in [(Some(0), true), (Some(355), true), (Some(365), false), (None, false)] {
            let nonce = Arc::new(Mutex::new(String::new()));
            let sent_nonce = nonce.clone();
            let (world, _) = world_with("sub-alice", move |claims, now| {
                claims["auth_time"] = age.map(|age: u64| now - age).into();
                claims["nonce"] = sent_nonce.lock().clone().into();
            });
            let gateway = world.start().await;
            let redirect =
                gateway.begin_authorization(alice(), None, None, CallContext::none()).await.unwrap();
            let sent: std::collections::BTreeMap<_, _> = redirect.url.query_pairs().into_owned().collect();
            assert_eq!(sent["max_age"], "300");
            nonce.lock().clone_from(&sent["nonce"]);
            let response = AuthorizationResponse::parse(&format!("code=c&state={}", sent["state"])).unwrap();
            let answer = gateway.accept_authorization_response(response, Some(redirect.browser)).await;
            assert_eq!(answer.is_ok(), fits, "{age:?}: {answer:?}");
            assert_eq!(gateway.connection(&alice()).await.unwrap().is_some(), fits, "{age:?}");
        }
    });
}

#[test]
fn a_login_that_is_not_as_strong_as_is_essential_is_refused() {
    run(async {
        let essential = json!({ "id_token": { "acr": { "essential": true } } });
        let wish = json!({ "id_token": { "acr": { "essential": false } } });
        for (claims, found, fits) in [
            (&essential, Some("urn:mfa"), true),
            (&essential, Some("urn:hardware"), true),
            (&essential, Some("urn:password"), false),
            (&essential, None, false),
            (&wish, Some("urn:password"), true),
            (&wish, None, true),
        ] {
            let nonce = Arc::new(Mutex::new(String::new()));
            let sent_nonce = nonce.clone();
            let ask = |options: &mut AuthorizationOptions| {
                options.acr_values = Some(Template::parse("urn:mfa urn:hardware").unwrap());
                options.claims = Some(JsonTemplate::parse(claims.clone()).unwrap());
            };
            let (world, _) = world_asking("sub-alice", ask, move |claims, _| {
                claims["nonce"] = sent_nonce.lock().clone().into();
                if let Some(found) = found {
                    claims["acr"] = found.into();
                }
            });
            let gateway = world.start().await;
            let redirect =
                gateway.begin_authorization(alice(), None, None, CallContext::none()).await.unwrap();
            let sent: std::collections::BTreeMap<_, _> = redirect.url.query_pairs().into_owned().collect();
            nonce.lock().clone_from(&sent["nonce"]);
            let response = AuthorizationResponse::parse(&format!("code=c&state={}", sent["state"])).unwrap();
            let answer = gateway.accept_authorization_response(response, Some(redirect.browser)).await;
            assert_eq!(answer.is_ok(), fits, "{claims} {found:?}: {answer:?}");
            assert_eq!(gateway.connection(&alice()).await.unwrap().is_some(), fits);
        }
    });
}

#[test]
fn a_refresh_that_names_the_same_subject_goes_on() {
    run(async {
        let (world, tokens) = world("sub-alice");
        let gateway = world.start().await;
        gateway.import_connection(&alice(), tokens).await.unwrap();
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-1");
        let again = world.start().await;
        assert_eq!(access_token(&call(&again, &alice()).await.unwrap()), "access-1");
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn a_refresh_that_names_another_subject_ends_the_connection_before_anybody_uses_it() {
    run(async {
        let (world, tokens) = world("sub-mallory");
        let gateway = world.start().await;
        gateway.import_connection(&alice(), tokens).await.unwrap();
        // Saving is slow, so that whatever is published in between is seen.
        world.faults.delay_commits(Duration::from_millis(200));
        let watching = gateway.clone();
        let watcher = actix_rt::spawn(async move {
            for _ in 0..2000 {
                if let Some(connection) = watching.connections().get(&alice())
                    && let Some(tokens) = connection.state.tokens()
                {
                    assert_eq!(tokens.access_token.expose(), "access-0", "another subject's token");
                }
                pass(0.001).await;
            }
        });
        assert_eq!(needs_consent(&call(&gateway, &alice()).await), Some(Reason::SubjectChanged));
        watcher.await.unwrap();
        assert_eq!(shown(&gateway, &alice()).await, ("needs_consent", Reason::SubjectChanged));
        assert_eq!(needs_consent(&call(&gateway, &alice()).await), Some(Reason::SubjectChanged));
    });
}

#[test]
fn another_subject_is_found_out_although_the_process_ended_before_it_looked() {
    run(async {
        let (world, tokens) = world("sub-mallory");
        let gateway = world.start().await;
        gateway.import_connection(&alice(), tokens).await.unwrap();
        world.faults.delay_commits(Duration::from_millis(200));
        let calling = gateway.clone();
        let cut_off = actix_rt::spawn(async move { call(&calling, &alice()).await });
        pass(0.5).await;
        // The token set is durable; that it is somebody else's is not.
        let next = world.start().await;
        assert_eq!(needs_consent(&call(&next, &alice()).await), Some(Reason::SubjectChanged));
        assert_eq!(world.token_requests(), 1);
        drop(cut_off);
    });
}
