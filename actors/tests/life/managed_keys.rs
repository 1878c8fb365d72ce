//! Signing keys that the gateway makes: several engines over one store use the same ones.

use std::time::Duration;

use claviger_actors::client_auth;
use claviger_actors::profile::ClientSource;
use claviger_actors::profile::Profile;
use claviger_actors::registration::settings::{Setting, Settings};
use claviger_actors::testing::profiles::{profile, registration};

use crate::world::*;

const DAY: u64 = 24 * 3600;

/// A profile that signs with keys of the gateway's own, ten days each.
fn signer() -> Vec<Profile> {
    let mut registration = registration("robot");
    registration.signing_key_lifetime = Duration::from_secs(10 * DAY);
    let mut signer = profile(registration, "client_credentials", "client_secret_basic");
    let mut settings = Settings::default();
    settings.insert("signing_key", Setting::Value("managed".into()));
    let row = client_auth::find("private_key_jwt").unwrap();
    signer.client = ClientSource::given("client", (row.build)(&mut settings).unwrap());
    signer.client_auth_name = row.name;
    vec![signer]
}

/// The names of the published keys, the signing one first.
fn published(gateway: &GatewayHandle) -> Vec<String> {
    gateway.published_keys().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn replicas_and_restarts_agree_on_the_keys() {
    run(async {
        let world = World::new().shared();
        let (first, second) = tokio::join!(world.start_with(signer()), world.start_with(signer()));
        let keys = published(&first);
        assert_eq!(keys.len(), 1);
        assert_eq!(published(&second), keys);
        assert_eq!(published(&world.start_with(signer()).await), keys);
    });
}

#[test]
fn a_new_key_is_published_on_all_replicas_before_it_signs_and_the_old_one_after() {
    run(async {
        let world = World::new().shared();
        let (first, second) = (world.start_with(signer()).await, world.start_with(signer()).await);
        let [one] = published(&first).try_into().unwrap();

        // The wall clock jumps; the engines look at it within a quarter of an hour.
        world.clock.step(i64::try_from(9 * DAY).unwrap());
        pass(1800.0).await;
        let [current, next] = published(&first).try_into().unwrap();
        assert_eq!(current, one);
        assert_eq!(published(&second), [one.clone(), next.clone()]);

        world.clock.step(i64::try_from(DAY).unwrap());
        pass(1800.0).await;
        for gateway in [&first, &second] {
            assert_eq!(published(gateway), [next.clone(), one.clone()]);
        }

        world.clock.step(i64::try_from(DAY).unwrap());
        pass(1800.0).await;
        for gateway in [&first, &second] {
            assert_eq!(published(gateway), std::slice::from_ref(&next));
        }
    });
}

#[test]
fn while_the_store_is_down_the_keys_in_use_stay() {
    run(async {
        let world = World::new().shared();
        let gateway = world.start_with(signer()).await;
        let keys = published(&gateway);
        world.faults.fail_next_commits(1_000_000);
        world.clock.step(i64::try_from(9 * DAY).unwrap());
        pass(1800.0).await;
        assert_eq!(published(&gateway), keys);
        world.faults.fail_next_commits(0);
        pass(1800.0).await;
        assert_eq!(published(&gateway).len(), 2);
    });
}
