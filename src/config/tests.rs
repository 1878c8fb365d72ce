#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod assertions;
mod authorization;
mod callers;
mod catalogue;
mod drawn;
mod faults;
mod keys;
mod listener_tls;
mod pages;
mod providers;
mod reach;
mod resilience_keys;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use claviger_actors::profile::ClientSource;
use claviger_actors::protocol::identifiers::{ProfileId, RouteId};
use claviger_actors::protocol::template::Template;
use claviger_actors::proxy::route::{SubjectSource, UpstreamProtocol};
use claviger_actors::registration::Pkce;

use super::*;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$KguMbyzHcRT/rXKKFEBrIA$/np1sw6oRsTUrjSAQ/H9ZUv9pDj8plyngFqNR1gFv40";
const TOUR: &str = "config/gateway.toml";

type Variables = BTreeMap<String, String>;

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn for_the_tour() -> Variables {
    variables(&[("CLAVIGER_KEY_K1", KEY), ("BILLING_PASSWORD_HASH", HASH), ("GOOGLE_CLIENT_SECRET", "HUSH")])
}

fn load_text(text: &str, environment: &Variables) -> Result<GatewayConfig, ConfigErrors> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    std::fs::write(&path, text).unwrap();
    load(&path, environment)
}

/// Every fault, without the directory in front.
fn faults(text: &str, environment: &Variables) -> Vec<String> {
    let errors = load_text(text, environment).expect_err("the configuration is bad");
    let line = |line: &str| match line.split_once("gateway.toml: ") {
        Some((_, fault)) => fault.to_owned(),
        None => line.to_owned(),
    };
    let lines: Vec<String> = errors.to_string().lines().map(line).collect();
    assert_eq!(lines.len(), errors.0.len(), "one line a fault: {lines:?}");
    for secret in ["HUSH", KEY, HASH] {
        assert!(!format!("{errors} {errors:?}").contains(secret), "{errors}");
    }
    lines
}

/// A good configuration with one line put in the place of another.
fn good() -> String {
    format!(
        r#"
        [server]
        public_url = "https://gw.example/base/"
        [listeners.admin]
        bind = "127.0.0.1:9000"
        [store]
        backend = "sled"
        path = "data"
        [store.encryption]
        active = "k1"
        keys = {{ k1 = "{KEY}" }}
        [providers.acme]
        token_endpoint = "https://id.acme.example/token"
        [profiles.books]
        provider = "acme"
        client_id = "c"
        client_secret = "HUSH"
        grant = "client_credentials"
        [callers.billing]
        basic = {{ username = "billing", password_hash = "{HASH}" }}
        routes = ["books"]
        [routes.books]
        path = "/books"
        upstream = "https://api.acme.example/v1/"
        profile = "books"
        "#
    )
}

#[test]
fn the_tour_loads_with_its_secrets_set() {
    let config = load(Path::new(TOUR), &for_the_tour()).unwrap();
    let profile = &config.profiles[0];
    assert_eq!(profile.registration.provider.issuer.as_deref(), Some("https://accounts.google.com"));
    assert_eq!(profile.registration.redirect_uri.as_str(), "http://127.0.0.1:8081/callback");
    assert_eq!((profile.grant_name, profile.client_auth_name), ("authorization_code", "client_secret_basic"));
    assert_eq!(profile.origins.iter().collect::<Vec<_>>(), ["https://www.googleapis.com"]);
    assert_eq!(profile.registration.default_token_lifetime, Some(Duration::from_secs(3600)));
    let route = config.routing.iter().next().unwrap();
    assert_eq!(route.subject, SubjectSource::Header);
    assert_eq!(route.max_body, Some(10 << 20));
    assert!(config.callers[0].caller.may_name_subject);
    assert_eq!(config.keyring.active(), "k1");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let printed = format!("{config:?}");
    assert!(!printed.contains("HUSH") && !printed.contains(KEY) && !printed.contains(HASH), "{printed}");
}

#[test]
fn what_the_readme_shows_loads() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let (_, rest) = readme.split_once("```toml\n# gateway.toml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let hash = text.split('"').find(|part| part.starts_with("$argon2id$")).unwrap();
    let config = load_text(&text.replace(hash, HASH), &for_the_tour()).unwrap();
    assert_eq!((config.profiles.len(), config.callers.len()), (1, 1));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn the_tour_names_what_it_lacks() {
    let errors = load(Path::new(TOUR), &Variables::new()).unwrap_err().to_string();
    assert_eq!(
        errors,
        "config/gateway.toml: callers.billing.basic.password_hash: environment variable \
         BILLING_PASSWORD_HASH is not set\n\
         config/gateway.toml: profiles.calendar.client_secret: environment variable \
         GOOGLE_CLIENT_SECRET is not set\n\
         config/gateway.toml: store.encryption.keys.k1: environment variable CLAVIGER_KEY_K1 is not set"
    );
}

#[test]
fn the_tour_shows_every_key() {
    let tour = std::fs::read_to_string(TOUR).unwrap();
    let tables = [
        file::ServerFile::KEYS,
        file::ProxyListenerFile::KEYS,
        file::AdminListenerFile::KEYS,
        file::ListenerCertificateFile::KEYS,
        file::StoreFile::KEYS,
        file::EncryptionFile::KEYS,
        file::ProviderFile::KEYS,
        file::VariableFile::KEYS,
        file::ProbeFile::KEYS,
        file::ResponseFile::KEYS,
        file::ProfileFile::KEYS,
        file::RegistrationFile::KEYS,
        file::CallerFile::KEYS,
        file::BasicFile::KEYS,
        file::JwtFile::KEYS,
        file::MtlsFile::KEYS,
        file::RouteFile::KEYS,
        file::ProviderTlsFile::KEYS,
        file::ClientTlsFile::KEYS,
        file::RouteTlsFile::KEYS,
        limits::LimitsFile::KEYS,
        resilience::RateFile::KEYS,
        resilience::RetryBudgetFile::KEYS,
        resilience::BreakerFile::KEYS,
    ];
    for key in tables.concat() {
        let shown = tour.contains(&format!("{key} = ")) || tour.contains(&format!(".{key}"));
        assert!(shown, "{TOUR} does not show {key}");
    }
}

#[test]
fn a_route_says_which_http_its_api_speaks() {
    for protocol in UpstreamProtocol::ALL {
        let line = format!("profile = \"books\"\nprotocol = \"{}\"", protocol.as_str());
        let config = load_text(&good().replace("profile = \"books\"", &line), &Variables::new()).unwrap();
        assert_eq!(config.routing.iter().next().unwrap().protocol, protocol);
    }
}

#[test]
fn a_small_configuration_has_safe_defaults() {
    let config = load_text(&good(), &Variables::new()).unwrap();
    assert_eq!(config.listeners.proxy.to_string(), "127.0.0.1:8080");
    assert_eq!(config.listeners.public.to_string(), "127.0.0.1:8081");
    assert!(config.listeners.admin_token.is_none());
    assert!(config.server.workers >= 1);
    assert_eq!(config.store.backend, "sled");
    let registration = &config.profiles[0].registration;
    assert_eq!(registration.redirect_uri.as_str(), "https://gw.example/base/callback");
    assert_eq!(registration.pkce, Pkce::S256);
    let route = config.routing.iter().next().unwrap();
    assert_eq!((route.path.as_str(), route.upstream_path.as_str()), ("/books", "/v1"));
    assert_eq!((&*route.origin.serialized, route.origin.port), ("https://api.acme.example", 443));
    assert_eq!((&route.subject, route.timeout), (&SubjectSource::Caller, Duration::from_secs(30)));
    assert!(route.needs.is_nothing());
    assert!(route.methods.is_none() && route.max_body.is_none());
    assert_eq!(route.protocol, UpstreamProtocol::Auto);
    let caller = &config.callers[0];
    assert!(!caller.caller.may_name_subject);
    assert!(caller.caller.routes.contains(&RouteId::new("books").unwrap()));
    assert_eq!(caller.basic.as_ref().unwrap().username, "billing");
    assert_eq!(config.profiles[0].registration.profile, ProfileId::new("books").unwrap());
}

#[test]
fn a_misspelt_key_is_not_told_as_missing_too() {
    let text = good().replace("client_secret =", "client_secrt =");
    assert_eq!(faults(&text, &Variables::new()).len(), 1);
}

#[test]
fn all_faults_are_told_at_once() {
    let text = good()
        .replace("[server]", "[server]\nworker = 2")
        .replace("client_id = \"c\"", "client_id = 5\nscope = []")
        .replace("profile = \"books\"", "profile = \"boks\"\ntimeout = 3");
    assert_eq!(
        faults(&text, &Variables::new()),
        [
            "profiles.books.client_id: must be a string, not a number",
            "profiles.books.scope: unknown key; did you mean `scopes`?",
            "routes.books.profile: there is no profile `boks`; did you mean `books`?",
            "routes.books.timeout: must be a duration with its unit, such as \"30s\" or \"5m\"",
            "server.worker: unknown key; did you mean `workers`?",
        ]
    );
}

#[test]
fn a_syntax_error_is_told_without_the_line_it_is_in() {
    let told = faults("[profiles.x]\nclient_secret = \"HUSH\n", &Variables::new());
    assert!(told[0].contains("line 2"), "{told:?}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load(Path::new("/nonexistent/gateway.toml"), &Variables::new()).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/gateway.toml: cannot be read: "), "{error}");
}

#[test]
fn the_environment_wins_and_is_named_in_faults() {
    let environment = variables(&[
        ("CLAVIGER_SERVER__WORKERS", "7"),
        ("CLAVIGER_PROFILES__BOOKS__CLIENT_ID", "0042"),
        ("CLAVIGER_PROFILES__BOOKS__SCOPES", "[\"a\", \"b\"]"),
        ("CLAVIGER_PROFILES__BOOKS__TOKEN_PARAMS", "{ resource = \"r\" }"),
        ("CLAVIGER_CALLERS__BILLING__MAY_NAME_SUBJECT", "true"),
        ("CLAVIGER_LISTENERS__PROXY__BIND", "127.0.0.1:1234"),
        // These are no keys.
        ("CLAVIGER_LOG", "debug"),
        ("CLAVIGER_LOG_FORMAT", "json"),
        ("CLAVIGER_ADMIN_TOKEN", "HUSH"),
        ("CLAVIGER_KEY_K1", KEY),
        ("CLAVIGER_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("OTHER__KEY", "x"),
    ]);
    let config = load_text(&good(), &environment).unwrap();
    assert_eq!(config.server.workers, 7);
    let registration = &config.profiles[0].registration;
    let ClientSource::Given(client) = &config.profiles[0].client else { panic!("it is given") };
    assert_eq!(client.client_id, "0042");
    assert_eq!(registration.scopes.to_string(), "a b");
    let resource = Template::parse("r").unwrap();
    assert_eq!(registration.token_params, [("resource".to_owned(), resource)]);
    assert!(config.callers[0].caller.may_name_subject);
    assert_eq!(config.listeners.proxy.port(), 1234);

    let environment = variables(&[
        ("CLAVIGER_SERVER__PUBLC_URL", "x"),
        ("CLAVIGER_SERVER__WORKERS", "many"),
        ("CLAVIGER_PROFILES__BOOKS__CLIENT_SECRET", ""),
    ]);
    assert_eq!(
        faults(&good(), &environment),
        [
            "environment variable CLAVIGER_PROFILES__BOOKS__CLIENT_SECRET: profiles.books.client_secret: is empty",
            "environment variable CLAVIGER_SERVER__PUBLC_URL: server.publc_url: unknown key; did you mean `public_url`?",
            "environment variable CLAVIGER_SERVER__WORKERS: server.workers: must be a whole number",
        ]
    );
}

#[test]
fn a_secret_file_is_found_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    let text = good().replace(&format!("\"{HASH}\""), "{ file = \"hash\" }");
    std::fs::write(&path, text).unwrap();

    let error = load(&path, &Variables::new()).unwrap_err().to_string();
    let named = directory.path().join("hash").display().to_string();
    assert!(error.contains(&format!("secret file {named} cannot be read")), "{error}");

    for ending in ["", "\n", "\r\n"] {
        std::fs::write(directory.path().join("hash"), format!("{HASH}{ending}")).unwrap();
        let config = load(&path, &Variables::new()).unwrap();
        assert_eq!(config.callers[0].basic.as_ref().unwrap().password_hash.expose(), HASH);
    }
    std::fs::write(directory.path().join("hash"), "\n").unwrap();
    assert!(load(&path, &Variables::new()).unwrap_err().to_string().contains("is empty"));
    std::fs::write(directory.path().join("hash"), "x".repeat(70_000)).unwrap();
    assert!(load(&path, &Variables::new()).unwrap_err().to_string().contains("larger than"));
}

#[test]
fn two_callers_with_one_username_are_refused() {
    let second =
        format!("\n[callers.other]\nbasic = {{ username = \"billing\", password_hash = \"{HASH}\" }}\n");
    let told = faults(&(good() + &second), &Variables::new());
    assert_eq!(told, ["callers.other.basic.username: is also that of callers.billing"]);
}

#[test]
fn an_inline_provider_wins_over_the_catalogue() {
    let text = good().replace("[providers.acme]", "[providers.google]").replace("\"acme\"", "\"google\"");
    let config = load_text(&text, &Variables::new()).unwrap();
    let provider = &config.profiles[0].registration.provider;
    assert_eq!((provider.name.as_str(), provider.issuer.as_deref()), ("google", None));
}

#[test]
fn openid_needs_an_issuer_to_check_id_tokens_against() {
    let text =
        good().replace("\"client_credentials\"", "\"authorization_code\"\nscopes = [\"openid\"]").replace(
            "token_endpoint =",
            "authorization_endpoint = \"https://id.acme.example/a\"\ntoken_endpoint =",
        );
    let told = faults(&text, &Variables::new());
    assert!(told[0].starts_with("profiles.books.provider: provider `acme` has no `issuer`"), "{told:?}");
}

#[test]
fn an_upstream_in_clear_is_for_loopback_only() {
    for host in ["127.0.0.1:9000", "localhost", "[::1]:9000", "127.1.2.3"] {
        let text = good().replace("https://api.acme.example/v1/", &format!("http://{host}"));
        let config = load_text(&text, &Variables::new()).unwrap();
        let origin = &config.routing.iter().next().unwrap().origin;
        assert!(!origin.tls);
        assert_eq!(&*origin.serialized, format!("http://{host}"));
    }
}

#[test]
fn a_client_of_the_admin_api_needs_the_listeners_only() {
    let text =
        "[listeners.admin]\nbind = \"127.0.0.1:7\"\ntoken = { env = \"T\" }\n[profiles.x]\nbroken = 1\n";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    std::fs::write(&path, text).unwrap();
    let endpoint = load_admin_endpoint(&path, &variables(&[("T", "HUSH")])).unwrap();
    assert_eq!(endpoint.bind.port(), 7);
    assert_eq!(endpoint.token.unwrap().expose(), "HUSH");
    assert!(endpoint.certificate.is_none());
    assert!(load_admin_endpoint(&path, &Variables::new()).is_err());
}

#[test]
fn a_profile_may_register_its_client() {
    let text = good()
        .replace("client_id = \"c\"", "scopes = [\"b\", \"a\"]")
        .replace("client_secret = \"HUSH\"", "registration = { client_name = \"G\", contacts = [\"a@b\"], initial_access_token = \"HUSH\", metadata = { deep = { list = [1, true] } } }")
        .replace("token_endpoint =", "registration_endpoint = \"https://id.acme.example/register\"\ntoken_endpoint =");
    let config = load_text(&text, &Variables::new()).unwrap();
    let ClientSource::Registered(client) = &config.profiles[0].client else { panic!("it registers itself") };
    assert!(client.registration.initial_access_token.is_some());
    assert_eq!(
        serde_json::Value::Object(client.registration.metadata.members.clone()),
        serde_json::json!({
            "client_name": "G", "contacts": ["a@b"], "deep": { "list": [1, true] },
            "grant_types": ["client_credentials"], "redirect_uris": [], "response_types": [],
            "scope": "a b", "token_endpoint_auth_method": "client_secret_basic",
        })
    );
    assert!(!format!("{config:?}").contains("HUSH"));
}

#[test]
fn each_fault_of_a_registration_is_told() {
    for (given, told) in [
        ("registration = 5", "profiles.books.registration: must be a table, not a number"),
        ("registration = { contacts = \"x\" }", "profiles.books.registration.contacts: must be an array"),
        ("registration = { initial_access_token = \"a b\" }", "initial_access_token: must be visible ASCII"),
        ("registration = { software_statement = { env = \"NO\" } }", "variable NO is not set"),
        ("registration = { metadata = { scope = \"a\" } }", "metadata.scope: follows from the rest"),
        (
            "registration = { metadata = { x = { file = \"none\" } } }",
            "profiles.books.registration.metadata.x: ",
        ),
        ("registration = {}\nclient_secret = \"HUSH\"", "profiles.books.client_secret: stands beside"),
        ("registration = {}\nclient_id = \"c\"", "profiles.books.client_id: stands beside"),
    ] {
        let text = good()
            .replace("client_id = \"c\"", given)
            .replace("        client_secret = \"HUSH\"\n", "")
            .replace(
                "token_endpoint =",
                "registration_endpoint = \"https://id.acme.example/r\"\ntoken_endpoint =",
            );
        let faults = faults(&text, &Variables::new());
        assert_eq!(faults.len(), 1, "{given}: {faults:?}");
        assert!(faults[0].contains(told), "{given}: {faults:?}");
    }
    let nowhere =
        good().replace("client_id = \"c\"", "registration = {}").replace("client_secret = \"HUSH\"", "");
    let told = faults(&nowhere, &Variables::new());
    assert!(told[0].contains("neither `registration_endpoint` nor `issuer`"), "{told:?}");
}
