//! The usual casts: an authorization server, an API, and the configuration of a gateway between.

use super::gateway::Gateway;
use super::gateway_config::GatewayConfig;
use super::oidc_provider::{OidcProvider, OidcProviderBuilder};
use super::raw_upstream::RawUpstream;
use super::scripted_as::ScriptedAs;
use super::upstream::Upstream;

/// An authorization server, an API that takes its live tokens only, and a configuration with the
/// profile, the route and the path `calendar`, and the caller `billing`.
pub struct Scene {
    /// The authorization server.
    pub provider: OidcProvider,
    /// The API.
    pub upstream: Upstream,
    /// The gateway between, not started yet.
    pub config: GatewayConfig,
}

impl Scene {
    /// A person must consent: grant `authorization_code`, client `confidential`.
    pub async fn person() -> Self {
        Self::person_at(|provider| provider).await
    }

    /// As [`Scene::person`], with an authorization server set up by the test.
    pub async fn person_at(set_up: impl FnOnce(OidcProviderBuilder) -> OidcProviderBuilder) -> Self {
        let mut scene = Self::without_profile(set_up).await;
        let scopes = r#"["openid", "calendar"]"#;
        scene.config.profile("calendar", "idp", "confidential", "authorization_code", scopes);
        scene
    }

    /// No person is needed: grant `client_credentials`, client `machine`.
    pub async fn machine_at(set_up: impl FnOnce(OidcProviderBuilder) -> OidcProviderBuilder) -> Self {
        let mut scene = Self::without_profile(set_up).await;
        scene.config.profile("calendar", "idp", "machine", "client_credentials", r#"["calendar"]"#);
        scene
    }

    async fn without_profile(set_up: impl FnOnce(OidcProviderBuilder) -> OidcProviderBuilder) -> Self {
        let mut config = GatewayConfig::new();
        let provider = set_up(OidcProvider::builder(&config.callback())).start().await;
        let upstream = Upstream::start().await;
        upstream.check_at(&provider.issuer);
        config.section("providers.idp", &format!("issuer = \"{}\"", provider.issuer));
        config.call_through("calendar", &upstream);
        Self { provider, upstream, config }
    }
}

/// As [`Scene`], with an authorization server whose every answer the test writes.
pub struct ScriptedScene {
    /// The authorization server.
    pub server: ScriptedAs,
    /// The API; it takes any token.
    pub upstream: Upstream,
    /// The gateway between, not started yet.
    pub config: GatewayConfig,
}

impl ScriptedScene {
    /// A person must consent, and always does.
    pub async fn person() -> Self {
        Self::with_grant("authorization_code").await
    }

    /// No person is needed.
    pub async fn machine() -> Self {
        Self::with_grant("client_credentials").await
    }

    async fn with_grant(grant: &str) -> Self {
        let server = ScriptedAs::start().await;
        let upstream = Upstream::start().await;
        let mut config = GatewayConfig::new();
        config.section("providers.script", &server.provider_toml());
        config.profile("calendar", "script", "gateway", grant, r#"["calendar"]"#);
        config.call_through("calendar", &upstream);
        Self { server, upstream, config }
    }
}

/// A gateway in front of `upstream`, with callers `billing` and `payroll`, each with a token that
/// names its turn, and one worker, so that all calls share what can be shared.
pub async fn in_front_of(upstream: &RawUpstream) -> (ScriptedAs, Gateway) {
    let server = ScriptedAs::start().await;
    let mut config = GatewayConfig::new();
    config.section("providers.script", &server.provider_toml());
    config.profile("calendar", "script", "gateway", "client_credentials", r#"["calendar"]"#);
    let route = format!(
        "path = \"/calendar\"\nupstream = \"http://{}/api\"\nprofile = \"calendar\"\n\
         subject = \"caller\"\ntimeout = \"2s\"",
        upstream.address
    );
    config.section("routes.calendar", &route);
    config.caller("billing", r#"["calendar"]"#).caller("payroll", r#"["calendar"]"#);
    config.env.insert("CLAVIGER_SERVER__WORKERS".into(), "1".into());
    let gateway = config.start().await;
    (server, gateway)
}
