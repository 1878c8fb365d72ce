//! One seeded world: what outlives a crash (the store's durable part, the provider, the clock),
//! and how the engine is started over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_actors::clock::{Clock, Entropy, Timestamp};
use claviger_actors::connection::OriginSet;
use claviger_actors::gateway::{GatewayHandle, GatewayParts};
use claviger_actors::profile::{ClientSource, Profile};
use claviger_actors::protocol::identifiers::{ConnectionId, ProfileId, Subject};
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::proxy::route::RoutingTable;
use claviger_actors::registration::settings::{Setting, Settings};
use claviger_actors::registration::{ClientRegistration, Endpoints, ProviderDetails};
use claviger_actors::store::keyring::{Keyring, SealingKey};
use claviger_actors::store::memory::{MemoryFaults, MemoryStore};
use claviger_actors::store::sealed::Vault;
use claviger_actors::testing::profiles;
use claviger_actors::{client_auth, grants};
use url::Url;

use crate::driver::Who;
use crate::provider_model::{AUTHORITY, ProviderModel};
use crate::rng::{Rng, SimEntropy};

/// Where tokens are sent.
pub const ORIGIN: &str = "https://api.example";

/// A wall clock that follows tokio's paused time, and can be set.
#[derive(Debug)]
pub struct SimClock {
    epoch_millis: AtomicI64,
    origin: parking_lot::Mutex<Option<tokio::time::Instant>>,
}

impl SimClock {
    fn new() -> Self {
        Self { epoch_millis: AtomicI64::new(1_800_000_000_000), origin: parking_lot::Mutex::new(None) }
    }

    /// Continues in a new runtime where the last one stopped.
    pub fn resume(&self) {
        *self.origin.lock() = Some(tokio::time::Instant::now());
    }

    /// Stands still between two runtimes. Called within the one that ends.
    pub fn pause(&self) {
        let now = self.now().as_millis();
        self.epoch_millis.store(i64::try_from(now).unwrap_or(i64::MAX), Ordering::Relaxed);
        *self.origin.lock() = None;
    }

    /// Sets the clock on or back.
    pub fn step(&self, millis: i64) {
        self.epoch_millis.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let passed = self.origin.lock().map_or(Duration::ZERO, |origin| origin.elapsed());
        let millis =
            self.epoch_millis.load(Ordering::Relaxed) + i64::try_from(passed.as_millis()).unwrap_or(0);
        Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

/// What outlives a crash.
pub struct World {
    pub rng: Rng,
    pub clock: Arc<SimClock>,
    pub provider: ProviderModel,
    pub store: Arc<MemoryStore>,
    /// How many engines work on the store at once.
    pub engines: u64,
    pub store_faults: MemoryFaults,
    entropy: Arc<dyn Entropy>,
    key: Secret,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let store_faults = MemoryFaults::default();
        let engines = if seed % 4 == 3 { 2 } else { 1 };
        let store = match engines {
            1 => MemoryStore::new(store_faults.clone()),
            _ => MemoryStore::shared(store_faults.clone()),
        };
        Self {
            engines,
            clock: Arc::new(SimClock::new()),
            provider: ProviderModel::new(rng.fork()),
            store: Arc::new(store),
            store_faults,
            entropy: Arc::new(SimEntropy::new(rng.fork())),
            key: Secret::new(STANDARD.encode([7u8; 32])),
            rng,
        }
    }

    /// Starts all engines over what the last ones left.
    pub async fn start_engines(&self) -> Vec<GatewayHandle> {
        // A gateway that cannot read its store does not start; that is tested elsewhere.
        self.store_faults.fail_next_reads(0);
        let mut engines = Vec::new();
        for _ in 0..self.engines {
            engines.push(self.start_engine().await);
        }
        engines
    }

    /// Starts an engine over what the last one left.
    pub async fn start_engine(&self) -> GatewayHandle {
        let key = SealingKey::from_base64(&self.key).unwrap();
        let keyring = Keyring::new("k1", BTreeMap::from([("k1".to_owned(), key)])).unwrap();
        let parts = GatewayParts {
            profiles: vec![
                Arc::new(profile("person", "authorization_code")),
                Arc::new(profile("other", "authorization_code")),
                Arc::new(profile("robot", "client_credentials")),
            ],
            routing: RoutingTable::default(),
            store: self.store.clone(),
            vault: Vault::new(keyring, self.entropy.clone()),
            transport: Arc::new(self.provider.clone()),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            cached_connections: 100,
        };
        GatewayHandle::start(parts).await.unwrap()
    }

    /// The process is gone, with all that was not durable.
    pub fn crashed(&self) {
        self.store_faults.crash();
        self.provider.connections_cut();
    }
}

pub fn connection_id((profile, subject): Who) -> ConnectionId {
    ConnectionId { profile: ProfileId::new(profile).unwrap(), subject: Subject::new(subject).unwrap() }
}

fn profile(name: &str, grant: &str) -> Profile {
    let endpoint = |path: &str| Some(Url::parse(&format!("https://{AUTHORITY}/{path}")).unwrap());
    let registration = ClientRegistration {
        provider: ProviderDetails {
            name: "as".to_owned(),
            endpoints: Endpoints {
                authorization_endpoint: endpoint("authorize"),
                token_endpoint: endpoint("token"),
                ..Endpoints::default()
            },
            ..ProviderDetails::default()
        },
        scopes: ScopeSet::from_tokens(["calendar"]).unwrap(),
        ..profiles::registration(name)
    };
    let mut settings = Settings::default();
    settings.insert("client_secret", Setting::Secret(Secret::new("client secret")));
    let grant = grants::find(grant).unwrap();
    let method = client_auth::find("client_secret_post").unwrap();
    Profile {
        registration,
        grant: (grant.build)(&mut settings).unwrap(),
        grant_name: grant.name,
        client: ClientSource::given(name, (method.build)(&mut settings).unwrap()),
        client_auth_name: method.name,
        origins: OriginSet::new([ORIGIN.to_owned()]),
        made_of: None,
    }
}
