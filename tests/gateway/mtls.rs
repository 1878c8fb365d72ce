//! Client certificates (RFC 8705): at a real authorization server over TLS, and on the way upstream.

use serde_json::{Value, json};

use crate::support::certificates::{Authority, Certified};
use crate::support::gateway::Gateway;
use crate::support::gateway_config::GatewayConfig;
use crate::support::oidc_provider::OidcProvider;
use crate::support::tls_upstream::TlsUpstream;

/// The methods that the server knows; by default it has no certificates.
const METHODS: [&str; 3] = ["client_secret_basic", "tls_client_auth", "self_signed_tls_client_auth"];

fn client(id: &str, method: &str, more: &Value) -> Value {
    let mut client = json!({
        "client_id": id,
        "redirect_uris": [],
        "response_types": [],
        "grant_types": ["client_credentials"],
        "token_endpoint_auth_method": method,
        "tls_client_certificate_bound_access_tokens": true,
    });
    for (name, value) in more.as_object().unwrap() {
        client[name] = value.clone();
    }
    client
}

struct Scene {
    provider: OidcProvider,
    upstream: TlsUpstream,
    config: GatewayConfig,
    pki: Certified,
    own: Certified,
}

impl Scene {
    /// Profiles `pki` and `own`, one for each method, with routes and certificates of that name.
    async fn new() -> Self {
        let mut config = GatewayConfig::new();
        let authority = Authority::new(config.folder());
        let server = authority.certify("server", &["127.0.0.1"]);
        let pki = authority.certify("pki", &["client.example"]);
        let own = Certified::self_signed(config.folder(), "own", &["whoever.example"]);
        let provider = OidcProvider::builder(&config.callback())
            .options(json!({ "clientAuthMethods": METHODS }))
            .client(client("pki", METHODS[1], &json!({ "tls_client_auth_san_dns": "client.example" })))
            .client(client("own", METHODS[2], &json!({ "jwks": own.jwks() })))
            .tls(&server.cert, &server.key, &authority.file())
            .start()
            .await;
        let upstream = TlsUpstream::start(&server, &authority).await;
        config.section(
            "providers.idp",
            &format!("issuer = \"{}\"\ntls = {{ ca = \"ca.pem\" }}", provider.issuer),
        );
        for (name, method) in [("pki", METHODS[1]), ("own", METHODS[2])] {
            let profile = format!(
                "provider = \"idp\"\nclient_id = \"{name}\"\ngrant = \"client_credentials\"\n\
                 scopes = [\"calendar\"]\nclient_auth = \"{method}\"\n\
                 tls = {{ cert = \"{name}.pem\", key = \"{name}.key\" }}"
            );
            config.section(&format!("profiles.{name}"), &profile);
            let route = format!(
                "path = \"/{name}\"\nupstream = \"{}/api\"\nprofile = \"{name}\"\nsubject = \"shared\"\n\
                 tls = {{ ca = \"ca.pem\" }}",
                upstream.url()
            );
            config.section(&format!("routes.{name}"), &route);
        }
        config.caller("billing", "[\"pki\", \"own\"]");
        config.env.insert("CLAVIGER_SERVER__WORKERS".into(), "1".into());
        Self { provider, upstream, config, pki, own }
    }
}

async fn served(gateway: &Gateway, path: &str) -> Value {
    gateway.call(path).await.expect_status(200).json()
}

fn token_of(echo: &Value) -> String {
    echo["authorization"].as_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_authenticates_the_client_and_its_bound_tokens_show_it_upstream() {
    let mut scene = Scene::new().await;
    scene.config.extend("profiles.pki", "certificate_bound_tokens = true");
    let gateway = scene.config.start().await;
    let echo = served(&gateway, "/pki/x").await;
    assert_eq!(echo["shown"], scene.pki.thumbprint().as_str());
    let told = scene.provider.describe_token(&token_of(&echo)).await;
    assert_eq!((told["live"].as_bool(), told["client"].as_str()), (Some(true), Some("pki")));
    assert_eq!(told["x5t"], scene.pki.thumbprint().as_str(), "bound to what the upstream was shown");
    assert_eq!(scene.provider.count("certified").await, 1, "at the alias");
    // What is taken back is told to the provider at its alias, too.
    gateway.admin("DELETE", "/api/connections/pki/shared").send().await.expect_status(204);
    assert_eq!(scene.provider.describe_token(&token_of(&echo)).await["live"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_known_by_itself() {
    let mut scene = Scene::new().await;
    // The provider knows it; the upstream takes the authority's only.
    let keys = "tls = { ca = \"ca.pem\", cert = \"pki.pem\", key = \"pki.key\" }";
    let route = format!(
        "path = \"/own\"\nupstream = \"{}/api\"\nprofile = \"own\"\nsubject = \"shared\"\n{keys}",
        scene.upstream.url()
    );
    scene.config.section("routes.own", &route);
    let gateway = scene.config.start().await;
    let echo = served(&gateway, "/own/x").await;
    assert_eq!(echo["shown"], scene.pki.thumbprint().as_str());
    let told = scene.provider.describe_token(&token_of(&echo)).await;
    assert_eq!(
        (told["client"].as_str(), told["x5t"].as_str()),
        (Some("own"), Some(&*scene.own.thumbprint()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_is_not_the_clients_and_an_untrusted_server_is_told_nothing() {
    let mut scene = Scene::new().await;
    let body = "provider = \"idp\"\nclient_id = \"pki\"\ngrant = \"client_credentials\"\n\
                client_auth = \"tls_client_auth\"\ntls = { cert = \"own.pem\", key = \"own.key\" }";
    scene.config.section("profiles.pki", body);
    scene.config.section("providers.plain", &format!("issuer = \"{}\"", scene.provider.issuer));
    let body = "provider = \"plain\"\nclient_id = \"own\"\ngrant = \"client_credentials\"\n\
                client_auth = \"self_signed_tls_client_auth\"\ntls = { cert = \"own.pem\", key = \"own.key\" }";
    scene.config.section("profiles.own", body);
    let gateway = scene.config.start().await;
    let problem = gateway.call("/pki/x").await.expect_problem(502, "token_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("invalid_client"), "{problem}");
    let problem = gateway.call("/own/x").await.expect_problem(502, "token_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("certificate"), "{problem}");
    assert_eq!(scene.upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_goes_over_a_connection_opened_with_another_identity() {
    let mut scene = Scene::new().await;
    let authority = Authority::new(scene.config.folder());
    // A world of its own: one upstream, two profiles whose tokens are bound to two certificates.
    let server = authority.certify("server", &["127.0.0.1"]);
    let certificates =
        [authority.certify("pki", &["client.example"]), authority.certify("own", &["o.example"])];
    let upstream = TlsUpstream::start(&server, &authority).await;
    let issuer = crate::support::scripted_as::ScriptedAs::start().await;
    scene.config.section("providers.idp", &issuer.provider_toml());
    for name in ["pki", "own"] {
        let profile = format!(
            "provider = \"idp\"\nclient_id = \"{name}\"\ngrant = \"client_credentials\"\n\
             client_auth = \"tls_client_auth\"\ncertificate_bound_tokens = true\n\
             tls = {{ cert = \"{name}.pem\", key = \"{name}.key\" }}"
        );
        scene.config.section(&format!("profiles.{name}"), &profile);
        let route = format!(
            "path = \"/{name}\"\nupstream = \"{}/api\"\nprofile = \"{name}\"\nsubject = \"shared\"\n\
             tls = {{ ca = \"ca.pem\" }}",
            upstream.url()
        );
        scene.config.section(&format!("routes.{name}"), &route);
    }
    let gateway = scene.config.start().await;
    for _ in 0..5 {
        for (name, certificate) in ["pki", "own"].iter().zip(&certificates) {
            let echo = served(&gateway, &format!("/{name}/x")).await;
            assert_eq!(echo["shown"], certificate.thumbprint().as_str());
        }
    }
    assert_eq!(upstream.connections(), 2, "one for each identity, used again");
}
