//! Token sets that are bound to a key of their own (RFC 9449).

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_actors::protocol::dpop::DPOP;
use claviger_actors::protocol::signing_key::SignatureAlgorithm;
use claviger_actors::protocol::token::TokenType;
use claviger_actors::registration::ClientRegistration;
use serde_json::{Value, json};

use crate::world::*;
use base64::Engine as _;

fn bound(registration: &mut ClientRegistration) {
    registration.dpop = Some(SignatureAlgorithm::Es256);
}

/// The public keys of all proofs sent to the token endpoint, in order; null for a request without.
fn keys(world: &World) -> Vec<Value> {
    let key = |sent: &SentRequest| {
        let proof = sent.headers.get(DPOP)?.to_str().unwrap();
        let header = URL_SAFE_NO_PAD.decode(proof.split('.').next().unwrap()).unwrap();
        Some(serde_json::from_slice::<Value>(&header).unwrap()["jwk"].clone())
    };
    let sent = world.transport.sent();
    sent.iter().filter(|sent| sent.url.path() == "/token").map(|sent| key(sent).unwrap_or_default()).collect()
}

#[test]
fn a_key_lives_as_long_as_its_connection_whatever_happens_to_the_process() {
    run(async {
        let world = World::with(bound);
        world.server.answers(|_, answer| answer["token_type"] = json!("DPoP"));
        // Connected before the profile asked for keys: the next refresh binds it to one.
        let gateway = world.connected(10).await;
        assert!(call(&gateway, &alice()).await.unwrap().bound_token().is_none());
        pass(20.0).await;
        let connection = call(&gateway, &alice()).await.unwrap();
        assert_eq!(connection.state.tokens().unwrap().token_type, TokenType::Dpop);
        assert!(connection.bound_token().is_some());
        let value = connection.authorization(world.clock.now()).unwrap();
        assert_eq!(value, &format!("DPoP {}", access_token(&connection)));
        drop(gateway);

        let gateway = world.start().await;
        pass(4000.0).await;
        call(&gateway, &alice()).await.unwrap();
        let keys = keys(&world);
        assert_eq!(keys.len(), 2);
        assert!(keys[0].is_object());
        assert_eq!(keys[0], keys[1]);
    });
}

#[test]
fn a_bound_refresh_token_goes_with_its_key_even_when_the_profile_wants_none_any_more() {
    run(async {
        let mut world = World::with(bound);
        world.server.answers(|_, answer| answer["token_type"] = json!("DPoP"));
        let gateway = world.connected(10).await;
        pass(20.0).await;
        call(&gateway, &alice()).await.unwrap();
        drop(gateway);
        world.profiles[0].registration.dpop = None;
        let gateway = world.start().await;
        pass(4000.0).await;
        assert!(call(&gateway, &alice()).await.unwrap().bound_token().is_some());
        let keys = keys(&world);
        assert_eq!(keys[0], keys[1]);
    });
}

#[test]
fn a_token_that_is_bound_to_no_key_is_not_used_and_what_is_held_stays() {
    run(async {
        let world = World::with(bound);
        let gateway = world.connected(10).await;
        pass(20.0).await;
        let error = call(&gateway, &alice()).await.unwrap_err();
        assert!(error.to_string().contains("although DPoP was asked for"), "{error}");
        assert_eq!(shown(&gateway, &alice()).await, ("retrying", Reason::MalformedAnswer));
    });
}
