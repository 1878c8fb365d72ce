//! Who the person is: asked with a live token, and told only of the subject of the ID token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_actors::gateway::people::UserInfo;
use claviger_actors::protocol::dpop::{DPOP, DPOP_NONCE, DpopKey};
use claviger_actors::protocol::signing_key::SignatureAlgorithm;
use claviger_actors::protocol::token::{IdentityClaims, TokenSet, TokenType};
use http::header::WWW_AUTHENTICATE;
use serde_json::{Value, json};

use crate::world::*;

fn world() -> (World, TokenSet) {
    let world = World::with(|registration| {
        let endpoint = "https://as.example/userinfo".parse().unwrap();
        registration.provider.endpoints.userinfo_endpoint = Some(endpoint);
    });
    let identity = IdentityClaims { iss: "https://as.example".into(), sub: "sub-alice".into() };
    let tokens = TokenSet { identity: Some(identity), ..world.tokens(0) };
    (world, tokens)
}

#[test]
fn a_token_that_has_ended_is_refreshed_first() {
    run(async {
        let (world, tokens) = world();
        world.server.document("/userinfo", json!({ "sub": "sub-alice", "name": "Alice" }));
        let gateway = world.start().await;
        assert_eq!(gateway.userinfo(&alice()).await.unwrap(), UserInfo::NoConnection);
        gateway.import_connection(&alice(), tokens).await.unwrap();
        let UserInfo::Claims(claims) = gateway.userinfo(&alice()).await.unwrap() else { panic!("claims") };
        assert_eq!(claims["name"], "Alice");
        let sent = world.transport.sent().pop().unwrap();
        assert_eq!((sent.method.as_str(), sent.url.path()), ("GET", "/userinfo"));
        assert_eq!(sent.headers["authorization"], "Bearer access-1");
        // A fresh one is used as it is.
        gateway.userinfo(&alice()).await.unwrap();
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn another_subject_is_not_passed_off_as_the_person() {
    run(async {
        let (world, tokens) = world();
        world.server.document("/userinfo", json!({ "sub": "sub-mallory", "name": "Mallory" }));
        let gateway = world.start().await;
        gateway.import_connection(&alice(), tokens).await.unwrap();
        let refused = gateway.userinfo(&alice()).await.unwrap_err();
        assert!(refused.to_string().contains("another subject"), "{refused}");
        // The connection itself is as good as before.
        assert_eq!(shown(&gateway, &alice()).await.0, "active");
    });
}

#[test]
fn a_token_is_not_shown_to_another_server_than_the_one_that_issued_it() {
    run(async {
        let (mut world, _) = world();
        let gateway = world.start().await;
        gateway.import_connection(&alice(), world.tokens(3600)).await.unwrap();
        world.profiles[0].registration.provider.issuer = Some("https://other.example".into());
        let moved = world.start().await;
        assert!(matches!(moved.userinfo(&alice()).await.unwrap(), UserInfo::Unfit(_)));
        assert!(world.transport.sent().iter().all(|sent| sent.url.path() != "/userinfo"));
    });
}

#[test]
fn without_an_id_token_nobody_can_say_whom_it_is_about() {
    run(async {
        let (world, tokens) = world();
        let gateway = world.start().await;
        gateway.import_connection(&alice(), TokenSet { identity: None, ..tokens }).await.unwrap();
        assert!(matches!(gateway.userinfo(&alice()).await.unwrap(), UserInfo::Unfit(_)));
    });
}

/// The claims of the proof that was sent with a request.
fn proof(sent: &SentRequest) -> Value {
    let proof = sent.headers[DPOP].to_str().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(proof.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn a_token_that_is_bound_to_a_key_goes_with_a_proof_and_the_nonce_that_is_asked_for() {
    run(async {
        let (world, _) = world();
        let key = DpopKey::generate(SignatureAlgorithm::Es256).unwrap();
        let identity = IdentityClaims { iss: "https://as.example".into(), sub: "sub-alice".into() };
        let tokens = TokenSet {
            identity: Some(identity),
            token_type: TokenType::Dpop,
            dpop_key: Some(key),
            ..world.tokens(3600)
        };
        world.server.document("/userinfo", json!({ "sub": "sub-alice" }));
        let challenge = Answer::json(401, "{}")
            .header(DPOP_NONCE, "n-1")
            .header(WWW_AUTHENTICATE, "DPoP error=\"use_dpop_nonce\"");
        world.server.plan_document("/userinfo", challenge);
        let gateway = world.start().await;
        gateway.import_connection(&alice(), tokens).await.unwrap();
        assert!(matches!(gateway.userinfo(&alice()).await.unwrap(), UserInfo::Claims(_)));
        gateway.userinfo(&alice()).await.unwrap();
        let sent = world.transport.sent();
        assert_eq!(sent.len(), 3, "challenged once, remembered afterwards");
        for (request, nonce) in sent.iter().zip([Value::Null, "n-1".into(), "n-1".into()]) {
            assert_eq!(request.headers["authorization"], "DPoP access-0");
            let claims = proof(request);
            assert_eq!((&claims["htm"], &claims["nonce"]), (&json!("GET"), &nonce), "{claims}");
            assert_eq!(claims["htu"], "https://as.example/userinfo");
            assert!(claims["ath"].is_string());
        }
        assert_ne!(proof(&sent[1])["jti"], proof(&sent[2])["jti"]);
    });
}
