//! A real engine over a store in memory and a scripted provider, for the listeners' tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use claviger_actors::clock::{SystemClock, SystemEntropy};
use claviger_actors::gateway::{GatewayHandle, GatewayParts};
use claviger_actors::proxy::route::RoutingTable;
use claviger_actors::store::keyring::{Keyring, SealingKey};
use claviger_actors::store::memory::{MemoryFaults, MemoryStore};
use claviger_actors::store::sealed::Vault;
use claviger_actors::testing::profiles::{profile, registration};
use claviger_actors::testing::{Answer, ScriptedTransport};

/// What the scripted provider issues; no answer of a listener may have either in it.
pub(super) const ACCESS_TOKEN: &str = "access-s3cret";
pub(super) const REFRESH_TOKEN: &str = "refresh-s3cret";

/// A gateway with the profiles `calendar` (a person consents) and `robot` (nobody does).
pub(super) async fn gateway() -> (GatewayHandle, Arc<ScriptedTransport>) {
    let transport = ScriptedTransport::new(|request| match request.url.path() {
        "/token" => Answer::json(
            200,
            format!(
                r#"{{"access_token":"{ACCESS_TOKEN}","token_type":"Bearer","expires_in":3600,"refresh_token":"{REFRESH_TOKEN}"}}"#
            ),
        ),
        _ => Answer::json(200, "{}"),
    });
    let entropy = Arc::new(SystemEntropy);
    let key = SealingKey::from_base64(&SealingKey::generate(entropy.as_ref())).unwrap();
    let keyring = Keyring::new("k1", BTreeMap::from([("k1".to_owned(), key)])).unwrap();
    let profiles = [("calendar", "authorization_code"), ("robot", "client_credentials")]
        .map(|(name, grant)| Arc::new(profile(registration(name), grant, "client_secret_basic")));
    let parts = GatewayParts {
        profiles: profiles.into(),
        routing: RoutingTable::default(),
        store: Arc::new(MemoryStore::new(MemoryFaults::default())),
        vault: Vault::new(keyring, entropy.clone()),
        transport: transport.clone(),
        clock: Arc::new(SystemClock),
        entropy,
        cached_connections: 100,
    };
    (GatewayHandle::start(parts).await.unwrap(), transport)
}
