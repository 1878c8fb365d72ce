//! What a provider says of an access token (RFC 7662).

use claviger_actors::testing::profiles::url;
use serde_json::{Value, json};

use crate::world::*;

/// A world whose answers say nothing of a token's lifetime.
fn silent(introspect: bool) -> World {
    let world = World::with(|registration| {
        registration.introspect_expiry = introspect;
        registration.provider.endpoints.introspection_endpoint = Some(url("https://as.example/introspect"));
    });
    world.server.expires_in(Value::Null);
    world
}

fn asked(world: &World) -> usize {
    world.transport.sent().iter().filter(|request| request.url.path() == "/introspect").count()
}

fn seconds_left(world: &World, connection: &Connection) -> u64 {
    connection.state.tokens().unwrap().expiry.at().since(world.clock.now()).as_secs()
}

fn ends_in(world: &World, seconds: u64) -> Value {
    json!({ "active": true, "exp": world.clock.now().as_secs() + seconds, "sub": "alice" })
}

#[test]
fn an_unknown_expiry_is_asked_for_and_lasts() {
    run(async {
        let world = silent(true);
        world.server.document("/introspect", ends_in(&world, 120));
        let gateway = world.connected(0).await;
        let connection = call(&gateway, &alice()).await.unwrap();
        let left = seconds_left(&world, &connection);
        assert!((115..=120).contains(&left), "{left}");
        assert_eq!(asked(&world), 1);
        let sent = world.transport.sent();
        let sent = sent.iter().find(|request| request.url.path() == "/introspect").unwrap();
        assert_eq!((sent.param("token"), sent.param("token_type_hint")), ("access-1", "access_token"));
        let again = world.start().await;
        let left = seconds_left(&world, &call(&again, &alice()).await.unwrap());
        assert!((115..=120).contains(&left), "{left}");
        assert_eq!((asked(&world), world.token_requests()), (1, 1));
        pass(130.0).await;
        assert_eq!(access_token(&call(&again, &alice()).await.unwrap()), "access-2");
    });
}

#[test]
fn nobody_is_asked_unless_the_profile_wants_it_and_nothing_better_is_known() {
    run(async {
        let world = silent(false);
        world.server.document("/introspect", ends_in(&world, 120));
        let gateway = world.connected(0).await;
        assert_eq!(seconds_left(&world, &call(&gateway, &alice()).await.unwrap()), 3599);

        let stated = silent(true);
        stated.server.expires_in(600.into());
        call(&stated.connected(0).await, &alice()).await.unwrap();

        let mut defaulted = silent(true);
        defaulted.profiles[0].registration.default_token_lifetime = Some(std::time::Duration::from_secs(60));
        call(&defaulted.connected(0).await, &alice()).await.unwrap();
        assert_eq!([asked(&world), asked(&stated), asked(&defaulted)], [0, 0, 0]);
    });
}

#[test]
fn an_answer_that_does_not_help_changes_nothing() {
    run(async {
        for answer in [
            json!({ "active": false }),
            json!({ "active": true }),
            json!([]),
            json!({ "active": true, "exp": 5 }),
        ] {
            let world = silent(true);
            world.server.document("/introspect", answer.clone());
            let gateway = world.connected(0).await;
            let left = seconds_left(&world, &call(&gateway, &alice()).await.unwrap());
            assert_eq!((left, asked(&world)), (3599, 1), "{answer}");
        }
        let absent = silent(true);
        let gateway = absent.connected(0).await;
        assert!(call(&gateway, &alice()).await.is_ok(), "an endpoint that is not there");
    });
}

#[test]
fn an_operator_asks_and_nothing_comes_of_it_but_an_answer() {
    run(async {
        let world = silent(false);
        world.server.document("/introspect", json!({ "active": false }));
        let gateway = world.connected(3600).await;
        let said = gateway.introspect_connection(&alice()).await.unwrap().unwrap();
        assert!(!said.active);
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-0", "it is only told");
        assert_eq!(shown(&gateway, &alice()).await.0, "active");
        assert_eq!(gateway.introspect_connection(&id("person", "bob")).await.unwrap(), None);
        world.server.document("/introspect", ends_in(&world, 60));
        let said = gateway.introspect_connection(&alice()).await.unwrap().unwrap();
        assert_eq!(said.sub.as_deref(), Some("alice"));
    });
}

#[test]
fn a_token_of_another_provider_is_shown_to_nobody() {
    run(async {
        let mut world = silent(false);
        world.connected(3600).await;
        world.profiles[0].registration.provider.endpoints.token_endpoint =
            Some(url("https://other.example/token"));
        let gateway = world.start().await;
        let answer = gateway.introspect_connection(&alice()).await;
        assert!(
            matches!(answer, Err(TokenError::AuthorizationRequired { reason: Reason::ProviderChanged, .. })),
            "{answer:?}"
        );
        assert_eq!(asked(&world), 0);
    });
}

#[test]
fn without_an_endpoint_the_key_to_configure_is_named() {
    run(async {
        let world = World::new();
        let gateway = world.connected(3600).await;
        let told = gateway.introspect_connection(&alice()).await.unwrap_err().to_string();
        assert!(told.contains("introspection_endpoint"), "{told}");
    });
}
