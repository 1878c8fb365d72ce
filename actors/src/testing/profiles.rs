//! Profiles as configuration would give them.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::client_auth::ClientAuthentication;
use crate::connection::OriginSet;
use crate::grants::Grant;
use crate::profile::{ClientSource, DynamicClient, Profile, RegisteredAuth};
use crate::protocol::identifiers::ProfileId;
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::registration::authorization::AuthorizationOptions;
use crate::registration::dynamic::DynamicRegistration;
use crate::registration::policy::{RefreshPolicy, RetryPolicy};
use crate::registration::settings::{Setting, Settings};
use crate::registration::{ClientRegistration, Endpoints, Pkce, ProviderDetails};

/// A URL known to be one.
///
/// # Panics
/// If it is none.
#[expect(clippy::expect_used, reason = "a test must stop at a wrong fixture")]
pub fn url(text: &str) -> Url {
    text.parse().expect("a URL")
}

/// A registration with the provider `https://as.example`: endpoints by hand, no issuer.
///
/// # Panics
/// If `profile` is no name.
#[expect(clippy::expect_used, reason = "a test must stop at a wrong fixture")]
pub fn registration(profile: &str) -> ClientRegistration {
    ClientRegistration {
        profile: ProfileId::new(profile).expect("a name"),
        provider: ProviderDetails {
            name: "as".into(),
            issuer: None,
            endpoints: Endpoints {
                authorization_endpoint: Some(url("https://as.example/authorize")),
                token_endpoint: Some(url("https://as.example/token")),
                revocation_endpoint: Some(url("https://as.example/revoke")),
                jwks_uri: Some(url("https://as.example/jwks")),
                ..Endpoints::default()
            },
            ..ProviderDetails::default()
        },
        credential: "credential".into(),
        scopes: ScopeSet::default(),
        redirect_uri: url("https://gateway.example/callback"),
        authorization: AuthorizationOptions::default(),
        authorize_params: Vec::new(),
        token_params: Vec::new(),
        refresh_params: Vec::new(),
        pkce: Pkce::S256,
        dpop: None,
        id_token_signing_alg: None,
        default_token_lifetime: None,
        default_refresh_token_lifetime: None,
        introspect_expiry: false,
        refresh: RefreshPolicy::default(),
        retry: RetryPolicy::default(),
        signing_key_lifetime: Duration::from_secs(90 * 24 * 3600),
    }
}

/// A profile of that registration. Its client is `client`, with the secret `client-secret`.
///
/// # Panics
/// If there is no such grant or method.
#[expect(clippy::expect_used, reason = "a test must stop at a wrong fixture")]
pub fn profile(registration: ClientRegistration, grant: &str, client_auth: &str) -> Profile {
    let mut settings = Settings::default();
    settings.insert("client_secret", Setting::Secret(Secret::from("client-secret")));
    let grant_row = crate::grants::find(grant).expect("a known grant");
    let auth_row = crate::client_auth::find(client_auth).expect("a known method");
    let strategy: Arc<dyn Grant> = (grant_row.build)(&mut settings).expect("settings that do");
    let method: Arc<dyn ClientAuthentication> = (auth_row.build)(&mut settings).expect("settings that do");
    Profile {
        registration,
        grant: strategy,
        grant_name: grant_row.name,
        client: ClientSource::given("client", method),
        client_auth_name: auth_row.name,
        origins: OriginSet::new(["https://api.example".to_owned()]),
        made_of: None,
    }
}

/// A profile of that registration whose client registers itself.
///
/// # Panics
/// If there is no such grant or method.
#[expect(clippy::expect_used, reason = "a test must stop at a wrong fixture")]
pub fn registering(registration: ClientRegistration, grant: &str, client_auth: &str) -> Profile {
    let row = crate::client_auth::find(client_auth).expect("a known method");
    let auth = RegisteredAuth::build(row, &mut Settings::default()).expect("settings that do");
    let further = serde_json::Map::new();
    let made = DynamicRegistration::new(&registration, grant, client_auth, None, further);
    let client = ClientSource::Registered(Arc::new(DynamicClient { registration: made, auth }));
    Profile { client, ..profile(registration, grant, client_auth) }
}
