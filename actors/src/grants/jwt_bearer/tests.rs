#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde_json::{Map, Value, json};

use super::*;
use crate::clock::{SystemEntropy, Timestamp};
use crate::protocol::identifiers::Subject;
use crate::protocol::scope::ScopeSet;
use crate::protocol::template::CallContext;
use crate::registration::quirks::Quirks;
use crate::registration::settings::Setting;
use crate::testing::{keys, profiles};

fn pem(bytes: &[u8]) -> Setting {
    Setting::Secret(std::str::from_utf8(bytes).unwrap().into())
}

/// The table `assertion` with the RSA key, unless it says otherwise.
fn assertion(given: Value) -> Settings {
    let mut table = Settings::default();
    let Value::Object(members) = given else { panic!("a table") };
    if !["sign_with", "service_account"].iter().any(|key| members.contains_key(*key)) {
        table.insert("signing_key", pem(keys::RSA));
    }
    for (key, value) in members {
        table.insert(key, Setting::Value(value));
    }
    table
}

fn build(table: Settings) -> Result<Arc<dyn Grant>, SettingsError> {
    let mut settings = Settings::default();
    settings.insert("assertion", Setting::Table(table));
    settings.insert("client_secret", Setting::Secret("a shared secret of some length".into()));
    super::build(&mut settings)
}

fn request(grant: &Arc<dyn Grant>, quirks: Quirks) -> Result<TokenRequest, GrantError> {
    let mut registration = profiles::registration("acme");
    registration.client_id = "s6BhdRkqt3".into();
    registration.provider.quirks = Arc::new(quirks);
    let values = BTreeMap::from([(Placeholder::Header("x-tenant".into()), "acme".into())]);
    grant.token_request(&GrantContext {
        registration: &registration,
        subject: &Subject::new("alice").unwrap(),
        scopes: &ScopeSet::from_tokens(["api", "web"]).unwrap(),
        call: &CallContext { values, ..CallContext::default() },
        redemption: None,
        token_endpoint: &profiles::url("https://as.example/token"),
        issuer: Some("https://as.example"),
        now: Timestamp::from_secs(1_700_000_000),
        entropy: &SystemEntropy,
    })
}

/// Header and claims, after another library has verified the RSA key's signature.
fn signed(request: &TokenRequest) -> (Header, Map<String, Value>) {
    assert_eq!(request.get("grant_type").unwrap().expose(), GRANT_TYPE);
    let jwk = SigningKey::load(keys::RSA, None, None).unwrap().public_jwk();
    let key =
        DecodingKey::from_rsa_components(jwk["n"].as_str().unwrap(), jwk["e"].as_str().unwrap()).unwrap();
    let jwt = request.get("assertion").unwrap().expose();
    let algorithm = jsonwebtoken::decode_header(jwt).unwrap().alg;
    read(jwt, &key, algorithm)
}

fn read(jwt: &str, key: &DecodingKey, algorithm: Algorithm) -> (Header, Map<String, Value>) {
    let mut validation = Validation::new(algorithm);
    (validation.validate_exp, validation.validate_aud) = (false, false);
    validation.required_spec_claims.clear();
    let data = jsonwebtoken::decode(jwt, key, &validation).unwrap();
    (data.header, data.claims)
}

fn claims(table: Value) -> Map<String, Value> {
    signed(&request(&build(assertion(table)).unwrap(), Quirks::default()).unwrap()).1
}

#[test]
fn the_claims_are_those_of_rfc_7523_section_3() {
    let grant = build(assertion(json!({}))).unwrap();
    let sent = request(&grant, Quirks::default()).unwrap();
    let (header, mut claims) = signed(&sent);
    assert_eq!((header.alg, header.typ.as_deref()), (Algorithm::RS256, Some("JWT")));
    let jti = claims.remove("jti").unwrap();
    let expected = json!({ "iss": "s6BhdRkqt3", "sub": "alice", "aud": "https://as.example/token",
        "iat": 1_700_000_000, "exp": 1_700_000_300 });
    assert_eq!(Value::Object(claims), expected);
    assert_eq!(sent.get("scope").unwrap().expose(), "api web");
    assert_eq!(sent.params.len(), 3);
    assert_ne!(signed(&request(&grant, Quirks::default()).unwrap()).1["jti"], jti);
    assert!(!grant.needs_person() && grant.needs_client_id());
    assert_eq!(grant.placeholders(), [Placeholder::Subject]);
}

#[test]
fn every_claim_can_be_said_otherwise() {
    let claims = claims(json!({
        "issuer": "https://idp.example", "subject": "{header.x-tenant}\\{subject}", "lifetime": "3m",
        "audience": ["issuer", "token_endpoint", "https://third.example"], "not_before": true, "scope_claim": true,
        "claims": { "tenant": "{header.x-tenant}", "jti": false, "level": 3, "admin": true, "iat": 7,
                    "groups": ["a", "{subject}"], "https://x.example/y": { "z": "{{{subject}}}" } },
    }));
    let expected = json!({
        "iss": "https://idp.example", "sub": "acme\\alice", "nbf": 1_700_000_000, "exp": 1_700_000_180, "iat": 7,
        "aud": ["https://as.example", "https://as.example/token", "https://third.example"], "scope": "api web",
        "tenant": "acme", "level": 3, "admin": true, "groups": ["a", "alice"],
        "https://x.example/y": { "z": "{alice}" },
    });
    assert_eq!(Value::Object(claims), expected);
}

#[test]
fn the_audience_is_the_profiles_else_the_providers() {
    let salesforce =
        || Quirks { assertion_audience: Some("https://login.salesforce.com".into()), ..Quirks::default() };
    let silent = build(assertion(json!({}))).unwrap();
    assert_eq!(signed(&request(&silent, salesforce()).unwrap()).1["aud"], "https://login.salesforce.com");
    let sandbox = build(assertion(json!({ "audience": "https://test.salesforce.com" }))).unwrap();
    assert_eq!(signed(&request(&sandbox, salesforce()).unwrap()).1["aud"], "https://test.salesforce.com");
}

#[test]
fn a_value_that_the_call_lacks_is_named() {
    let grant = build(assertion(json!({ "claims": { "a": ["{query.b}"] } }))).unwrap();
    assert!(grant.placeholders().contains(&Placeholder::Query("b".into())));
    let fault = request(&grant, Quirks::default()).unwrap_err().to_string();
    assert_eq!(fault, "assertion.claims: the call has no value for {query.b}");
}

#[test]
fn the_client_secret_can_sign_and_stays_for_the_client_authentication() {
    let mut settings = Settings::default();
    let table =
        assertion(json!({ "sign_with": "client_secret", "signing_alg": "HS512", "send_scope": false }));
    settings.insert("assertion", Setting::Table(table));
    settings.insert("client_secret", Setting::Secret("a shared secret of some length".into()));
    let grant = super::build(&mut settings).unwrap();
    assert_eq!(
        settings.take_secret("client_secret").unwrap().unwrap().expose(),
        "a shared secret of some length"
    );
    let sent = request(&grant, Quirks::default()).unwrap();
    assert!(sent.get("scope").is_none());
    let key = DecodingKey::from_secret(b"a shared secret of some length");
    let (header, claims) = read(sent.get("assertion").unwrap().expose(), &key, Algorithm::HS512);
    assert_eq!((header.kid, claims["sub"].as_str()), (None, Some("alice")));
    assert!(grant.signing_keys().is_empty());
    assert_eq!(settings.leftovers().count(), 0, "it is used, even if the client authentication is none");

    let mut settings = Settings::default();
    settings.insert("assertion", Setting::Table(assertion(json!({}))));
    settings.insert("client_secret", Setting::Secret("unused".into()));
    super::build(&mut settings).unwrap();
    assert_eq!(settings.leftovers().collect::<Vec<_>>(), ["client_secret"]);
}

fn service_account() -> Value {
    json!({
        "type": "service_account", "project_id": "p", "private_key_id": "0a1b2c",
        "private_key": std::str::from_utf8(keys::RSA).unwrap(), "client_email": "robot@p.iam.gserviceaccount.com",
        "client_id": "1234", "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token", "universe_domain": "googleapis.com",
    })
}

#[test]
fn a_google_service_account_is_read_as_it_is() {
    let account = || ("service_account", service_account().to_string());
    let with = |further: &[(&str, &str)]| {
        let mut table = Settings::default();
        table.insert(account().0, Setting::Secret(account().1.into()));
        for (key, value) in further {
            table.insert(*key, Setting::Value((*value).into()));
        }
        build(table)
    };
    let grant = with(&[("lifetime", "1h")]).unwrap();
    let sent = request(&grant, Quirks::default()).unwrap();
    assert_eq!(sent.params.len(), 2, "the scope is a claim");
    let (header, mut claims) = signed(&sent);
    assert_eq!((header.alg, header.kid.as_deref()), (Algorithm::RS256, Some("0a1b2c")));
    claims.remove("jti");
    let expected = json!({ "iss": "robot@p.iam.gserviceaccount.com", "aud": "https://oauth2.googleapis.com/token",
        "scope": "api web", "iat": 1_700_000_000, "exp": 1_700_003_600 });
    assert_eq!(Value::Object(claims), expected);
    assert!(!grant.needs_client_id() && grant.placeholders().is_empty() && grant.signing_keys().is_empty());

    let delegated = with(&[("subject", "{subject}@acme.example")]).unwrap();
    let sent = request(&delegated, Quirks::default()).unwrap();
    assert_eq!(signed(&sent).1["sub"], "alice@acme.example");

    let fault = with(&[("sign_with", "client_secret")]).unwrap_err().to_string();
    assert!(fault.starts_with("assertion.sign_with: cannot stand beside `service_account`"), "{fault}");
    let fault = with(&[("signing_key", "x")]).unwrap_err().to_string();
    assert!(fault.starts_with("assertion.signing_key: is not known here"), "{fault}");
}

#[test]
fn what_is_wrong_is_said_with_its_key() {
    let refused = |table: Value| build(assertion(table)).unwrap_err().to_string();
    let cases = [
        (refused(json!({ "signing_alg": "ES256" })), "assertion.signing_alg: `signing_key` is an RSA key"),
        (refused(json!({ "subject": "{user}" })), "assertion.subject: has the unknown placeholder {user}"),
        (refused(json!({ "claims": { "a": "{" } })), "assertion.claims.a: has a `{`"),
        (refused(json!({ "claims": "a" })), "assertion.claims: must be a table"),
        (refused(json!({ "sign_with": "key" })), "assertion.sign_with: must be"),
        (
            refused(json!({ "sign_with": "signing_key" })),
            "assertion.signing_key: is missing; the assertion needs it",
        ),
        (refused(json!({ "lifetime": "5" })), "assertion.lifetime: must be a duration"),
        (refused(json!({ "audiance": "x" })), "assertion.audiance: is not known here"),
    ];
    for (fault, expected) in cases {
        assert!(fault.starts_with(expected), "{fault}");
    }
    let account = |json: Value| {
        let mut table = Settings::default();
        table.insert("service_account", Setting::Secret(json.to_string().into()));
        build(table).unwrap_err().to_string()
    };
    let mut broken = service_account();
    broken["private_key"] = std::str::from_utf8(keys::RSA_1024).unwrap().into();
    assert!(account(broken).contains("service_account: `private_key` in it is an RSA key of 1024 bits"));
    assert!(account(json!({ "type": "authorized_user" })).contains("service_account: has no `private_key`"));
    let fault = super::build(&mut Settings::default()).unwrap_err().to_string();
    assert!(fault.starts_with("assertion: is missing"), "{fault}");
}
