//! `default_refresh_token_lifetime`: a refresh token that has surely ended is not tried.

use std::time::Duration;

use serde_json::json;

use crate::world::*;

fn world() -> World {
    let mut world = World::new();
    for profile in &mut world.profiles {
        profile.registration.default_refresh_token_lifetime = Some(Duration::from_secs(10_000));
    }
    world.server.rotate(false);
    world
}

fn grant_types(world: &World) -> Vec<String> {
    let sent = world.transport.sent();
    sent.iter().map(|sent| sent.param("grant_type").to_owned()).collect()
}

#[test]
fn a_person_is_asked_once_the_refresh_token_has_ended_and_it_is_not_tried() {
    run(async {
        let world = world();
        let gateway = world.connected(3600).await;
        for _ in 0..2 {
            pass(3700.0).await;
            call(&gateway, &alice()).await.unwrap();
        }
        // The age of a token that answers do not renew, or repeat, goes on, in the next process, too.
        world.server.answers(|_, answer| answer["refresh_token"] = json!("refresh-0"));
        drop(gateway);
        let gateway = world.start().await;
        pass(3700.0).await;
        for _ in 0..2 {
            let answer = call(&gateway, &alice()).await;
            assert_eq!(needs_consent(&answer), Some(Reason::NoRefreshToken), "{answer:?}");
        }
        assert_eq!(shown(&gateway, &alice()).await, ("needs_consent", Reason::NoRefreshToken));
        assert_eq!(world.token_requests(), 2);
    });
}

#[test]
fn a_new_refresh_token_begins_a_new_life() {
    run(async {
        let world = world();
        world.server.rotate(true);
        let gateway = world.connected(3600).await;
        for _ in 0..5 {
            pass(3700.0).await;
            call(&gateway, &alice()).await.unwrap();
        }
        assert_eq!(world.token_requests(), 5);
    });
}

#[test]
fn without_a_person_a_new_token_is_obtained_instead() {
    run(async {
        let world = world();
        world.server.answers(|number, answer| {
            if number == 1 {
                answer["refresh_token"] = json!("refresh-0");
            }
        });
        let gateway = world.start().await;
        let robot = id("robot", "app");
        for _ in 0..4 {
            call(&gateway, &robot).await.unwrap();
            pass(3700.0).await;
        }
        let usual = "client_credentials";
        assert_eq!(grant_types(&world), [usual, "refresh_token", "refresh_token", usual]);
        let connection = call(&gateway, &robot).await.unwrap();
        assert!(connection.state.tokens().unwrap().refresh_token.is_none(), "the ended one is let go of");
    });
}
