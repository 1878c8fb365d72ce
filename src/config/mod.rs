//! The configuration: a TOML file, then the environment, merged by figment and checked as a whole.
//!
//! Reading order: `file` (the raw shape), then this file (the checked one), then one file a section
//! for the checks between them. `source` and `reader` get from text to raw shape; every fault is
//! noted with its place, and [`load`] tells all of them at once.

pub mod catalogue;
pub mod entry;
pub mod environment;
pub mod error;
pub mod listener_tls;
pub mod pasted;

mod authorization;
mod callers;
mod drawn;
mod extension;
mod fapi;
#[macro_use]
mod file;
mod limits;
mod outbound;
mod params;
mod profiles;
mod providers;
mod quirks;
mod reader;
mod registration;
mod resilience;
mod routes;
mod secret_source;
mod server;
mod source;
mod store;
#[cfg(test)]
mod tests;
mod tls;
mod urls;
mod validity;
mod variables;
mod warnings;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use claviger_actors::clock::{Clock as _, SystemClock};
use claviger_actors::profile::Profile;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::proxy::route::RoutingTable;
use claviger_actors::store::StoreOpener;
use claviger_actors::store::keyring::Keyring;
use url::Url;

use crate::caller_auth::{ConfiguredCaller, VERIFIED_CREDENTIALS};
use drawn::Drawn;
use environment::Environment;
use error::{ConfigError, ConfigErrors, Dated, Faults};
use file::{GatewayFile, ListenersFile};
use listener_tls::{AdminCertificate, Http2Settings, ListenerTlsFile, ListenerTlsSettings};
use reader::{Node, Read, Table};
use secret_source::Secrets;
use source::Source;

pub use drawn::{StartKeys, WatchedFiles};

/// Where the configuration is, unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "config/gateway.toml";

/// A checked configuration: every reference holds, every secret was found.
#[derive(Debug)]
pub struct GatewayConfig {
    /// `[server]`
    pub server: ServerConfig,
    /// `[listeners]`
    pub listeners: Listeners,
    /// `[store]`
    pub store: StoreConfig,
    /// `[store.encryption]`
    pub keyring: Keyring,
    /// `[profiles]`, in order of their names.
    pub profiles: Vec<Profile>,
    /// `[callers]`, in order of their names.
    pub callers: Vec<ConfiguredCaller>,
    /// `[routes]`
    pub routing: RoutingTable,
    /// `[limits]`
    pub limits: Limits,
    /// What is allowed and yet most likely a slip, such as a profile that no route uses.
    pub warnings: Vec<ConfigError>,
    /// Certificates of ours that are not valid now: `check` refuses them, and a gateway starts with them,
    /// since a date must not keep the other profiles from serving.
    pub invalid_certificates: Vec<ConfigError>,
    /// What counts at the start alone.
    pub start_keys: StartKeys,
}

/// `[server]`
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Base of the redirect URI, as browsers reach the public listener.
    pub public_url: Url,
    /// Worker threads.
    pub workers: usize,
    /// Time that requests under way have to end once the gateway is told to.
    pub drain_timeout: Duration,
    /// How long a signing key of the gateway's own signs.
    pub signing_key_lifetime: Duration,
}

/// `[listeners]`
#[derive(Clone, Debug)]
pub struct Listeners {
    /// Internal applications.
    pub proxy: SocketAddr,
    /// Browsers.
    pub public: SocketAddr,
    /// Operators.
    pub admin: SocketAddr,
    /// Bearer token of the admin listener; always there unless it is bound to loopback or demands client
    /// certificates.
    pub admin_token: Option<Secret>,
    /// How the proxy listener speaks TLS, if it does.
    pub proxy_tls: Option<ListenerTlsSettings>,
    /// How the public listener speaks TLS, if it does.
    pub public_tls: Option<ListenerTlsSettings>,
    /// How the admin listener speaks TLS, if it does.
    pub admin_tls: Option<ListenerTlsSettings>,
    /// HTTP/2 on the proxy listener.
    pub http2: Http2Settings,
}

/// Largest head of a request that the server library reads, in bytes.
const LARGEST_HEAD: usize = 128 * 1024;

/// `[limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls at once; one more is refused.
    pub max_in_flight: usize,
    /// Connections kept in memory; the others are read from the store when they are needed.
    pub cached_connections: usize,
    /// Verified credentials kept in memory, of each kind.
    pub verified_credentials: usize,
    /// Idle connections to one upstream that a worker keeps.
    pub idle_connections: usize,
    /// Largest head of a request, in bytes.
    pub max_request_head: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_in_flight: 10_000,
            cached_connections: 100_000,
            verified_credentials: VERIFIED_CREDENTIALS,
            idle_connections: 128,
            max_request_head: LARGEST_HEAD,
        }
    }
}

/// `[store]`
pub struct StoreConfig {
    /// The backend's name.
    pub backend: &'static str,
    /// Opens the backend with the settings it took.
    pub opener: StoreOpener,
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig").field("backend", &self.backend).finish_non_exhaustive()
    }
}

/// Loads and checks the configuration at `path` with `environment` laid over it. An error holds
/// every fault found.
pub fn load(path: &Path, environment: &dyn Environment) -> Result<GatewayConfig, ConfigErrors> {
    load_watched(path, environment, None).0
}

/// Where a configuration was read from.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// The file itself.
    pub path: PathBuf,
    /// It and all that it names, as they were read.
    pub files: WatchedFiles,
}

/// As [`load`], and tells which files it was read from, also if it is refused. `public_url` takes the
/// place of the configured one: that of a gateway that runs.
pub fn load_watched(
    path: &Path,
    environment: &dyn Environment,
    public_url: Option<&Url>,
) -> (Result<GatewayConfig, ConfigErrors>, WatchedFiles) {
    let drawn = Drawn::default();
    let config = load_drawn(path, environment, public_url, &drawn);
    (config, drawn.into_files())
}

fn load_drawn(
    path: &Path,
    environment: &dyn Environment,
    public_url: Option<&Url>,
    drawn: &Drawn,
) -> Result<GatewayConfig, ConfigErrors> {
    let source = Source::load(path, environment, drawn)?;
    let mut faults = Faults::default();
    let file = GatewayFile::read(&Node::root(&source), &mut faults);
    let secrets = Secrets { environment, directory: directory(path), drawn };
    let config = file.and_then(|file| check(&file, public_url, &secrets, &mut faults));
    let mut config = faults.or(config)?;
    drawn::mark(&mut config.profiles, &source, drawn);
    config.start_keys = StartKeys::of(&source, drawn);
    Ok(config)
}

/// How a client of the admin API reaches it.
#[derive(Debug)]
pub struct AdminEndpoint {
    /// What the listener is bound to.
    pub bind: SocketAddr,
    /// Its bearer token, if it has one.
    pub token: Option<Secret>,
    /// The certificate that it shows, if it speaks TLS.
    pub certificate: Option<AdminCertificate>,
}

/// Loads and checks only what a client of the admin API needs: no other secret, and no key.
///
/// # Errors
/// Every fault found.
pub fn load_admin_endpoint(
    path: &Path,
    environment: &dyn Environment,
) -> Result<AdminEndpoint, ConfigErrors> {
    let drawn = Drawn::default();
    let source = Source::load(path, environment, &drawn)?;
    let mut faults = Faults::default();
    let table = Table::open(&Node::root(&source), GatewayFile::KEYS, &mut faults);
    let file: Option<ListenersFile> = table.and_then(|table| table.take("listeners", &mut faults));
    let secrets = Secrets { environment, directory: directory(path), drawn: &drawn };
    let listeners = server::listeners(file.as_ref(), &source.whole(), &secrets, None, &mut faults);
    let admin = file.as_ref().and_then(|file| file.admin.as_ref());
    let certificate = listener_tls::shown(admin.and_then(|file| file.tls.as_ref()), &secrets, &mut faults);
    let endpoint = listeners.and_then(|listeners| {
        Some(AdminEndpoint { bind: listeners.admin, token: listeners.admin_token, certificate: certificate? })
    });
    faults.or(endpoint)
}

/// What the paths of secret files are relative to.
fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

fn check(
    file: &GatewayFile,
    public_url: Option<&Url>,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Option<GatewayConfig> {
    let (no_providers, no_profiles) = (BTreeMap::new(), BTreeMap::new());
    let (no_callers, no_routes) = (BTreeMap::new(), BTreeMap::new());
    let provider_files = file.providers.as_ref().unwrap_or(&no_providers);
    let profile_files = file.profiles.as_ref().unwrap_or(&no_profiles);
    let caller_files = file.callers.as_ref().unwrap_or(&no_callers);
    let route_files = file.routes.as_ref().unwrap_or(&no_routes);

    let mut server = server::server(file.server.as_ref(), &file.at, faults);
    if let (Some(server), Some(public_url)) = (&mut server, public_url) {
        server.public_url = public_url.clone();
    }
    let tls = tls::Tls::new(secrets);
    let listeners = server::listeners(file.listeners.as_ref(), &file.at, secrets, Some(&tls), faults);
    let store = store::store(file.store.as_ref(), &file.at, secrets, faults);
    let keyring = store::keyring(file.store.as_ref(), &file.at, secrets, faults);
    let limits = limits::limits(file.limits.as_ref(), faults);
    for (name, provider) in provider_files {
        providers::provider(name, provider, faults);
        outbound::of_provider(provider, secrets, &tls, faults);
    }
    let catalogue = file.server.as_ref().and_then(|server| server.catalogue.as_ref());
    let directory = catalogue::directory(catalogue, secrets.directory, secrets.drawn, faults);
    for provider in directory.values() {
        outbound::of_provider(provider, secrets, &tls, faults);
    }
    let providers = catalogue::Providers { inline: provider_files, directory };
    let named = routes::Named { profiles: profile_files, providers: &providers, tls: &tls, whole: &file.at };
    let routing = routes::routes(route_files, &named, faults);
    let redirect_uri = server.as_ref().and_then(|server| server::redirect_uri(&server.public_url));
    let profiles = profiles::Profiles {
        providers,
        routing: &routing,
        redirect_uri: redirect_uri.as_ref(),
        signing_key_lifetime: server
            .as_ref()
            .map_or(server::SIGNING_KEY_LIFETIME, |server| server.signing_key_lifetime),
        secrets,
        tls: &tls,
    }
    .check(profile_files, faults);
    let proxy_tls = file.listeners.as_ref().and_then(|file| file.proxy.as_ref()?.tls.as_ref());
    let certificates = proxy_tls.is_some_and(ListenerTlsFile::takes_client_certificates);
    let callers = callers::callers(caller_files, route_files, certificates, &file.at, secrets, faults);
    let routing = routes::with_needs(routing, &profiles, &callers);
    let mut warnings = warnings::warnings(file, secrets.environment);
    warnings.extend(listener_tls::disagreement(file, server.as_ref(), listeners.as_ref()));
    warnings.extend(warnings::key_names(profile_files, &profiles));
    validity::of_signing_keys(profile_files, &profiles, SystemClock.now(), faults);
    let Dated { invalid, ending } = std::mem::take(faults.dated());
    warnings.extend(ending);
    Some(GatewayConfig {
        server: server?,
        listeners: listeners?,
        store: store?,
        keyring: keyring?,
        profiles,
        callers,
        routing,
        limits: limits?,
        warnings,
        invalid_certificates: invalid,
        start_keys: StartKeys::default(),
    })
}
