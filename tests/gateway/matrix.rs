//! Every grant with every client authentication, through one gateway: at a server that we did not write
//! where it knows the grant, else at the scripted one, whose requests are looked at. `tests/gateway/mtls.rs`
//! has the two methods that need certificates.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use claviger_actors::protocol::signing_key::SigningKey;
use claviger_actors::testing::keys;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value, json};

use crate::client_auth::verified;
use crate::support::browser::Browser;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::gateway_config::GatewayConfig;
use crate::support::http::Message;
use crate::support::oidc_provider::{CLIENT_SECRET, OidcProvider};
use crate::support::scripted_as::{Answer, ScriptedAs};
use crate::support::upstream::Upstream;

const METHODS: [&str; 5] =
    ["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"];
const PASSWORD: &str = "open & shut: 100 %+";
const SUBJECT_TOKEN: &str = "subject.token.given";

/// What the rows share.
struct World {
    provider: OidcProvider,
    script: ScriptedAs,
    gateway: Gateway,
}

/// One profile, whose client and route have the same name.
#[derive(Clone, Copy)]
struct Row {
    grant: &'static str,
    method: &'static str,
    /// `idp` or `script`.
    server: &'static str,
}

impl Row {
    fn name(self) -> String {
        format!("{}-{}", self.grant, self.method)
    }

    /// The type that the grant has in requests.
    fn grant_type(self) -> &'static str {
        match self.grant {
            "device_code" => "urn:ietf:params:oauth:grant-type:device_code",
            "jwt_bearer" => "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "saml2_bearer" => "urn:ietf:params:oauth:grant-type:saml2-bearer",
            "token_exchange" => "urn:ietf:params:oauth:grant-type:token-exchange",
            other => other,
        }
    }

    fn has_secret(self) -> bool {
        self.method.starts_with("client_secret")
    }

    fn configure(self, config: &mut GatewayConfig, upstream: &Upstream, key: &str, certificate: &str) {
        let (name, Self { grant, method, server }) = (self.name(), self);
        let scopes = if grant.ends_with("_code") { r#"["openid", "calendar"]"# } else { r#"["calendar"]"# };
        let mut profile = format!(
            "provider = \"{server}\"\nclient_id = \"{name}\"\ngrant = \"{grant}\"\nclient_auth = \"{method}\"\nscopes = {scopes}\n"
        );
        if self.has_secret() {
            profile += &format!("client_secret = {CLIENT_SECRET:?}\n");
        }
        if method == "private_key_jwt" {
            profile += &format!("signing_key = {{ file = {key:?} }}\n");
        }
        match grant {
            "password" => profile += &format!("username = \"robot\"\npassword = {PASSWORD:?}\n"),
            "token_exchange" => profile += &format!("subject_token = {SUBJECT_TOKEN:?}\n"),
            _ => {}
        }
        config.section(&format!("profiles.{name}"), &profile);
        if grant.ends_with("_bearer") {
            let mut assertion = format!("signing_key = {{ file = {key:?} }}\n");
            if grant == "saml2_bearer" {
                assertion = format!("signing_key = {{ file = {certificate:?} }}\n");
            }
            config.section(&format!("profiles.{name}.assertion"), &assertion);
        }
        let route = format!(
            "path = \"/{name}\"\nupstream = \"{}/api\"\nprofile = \"{name}\"\nsubject = \"caller\"",
            upstream.url()
        );
        config.section(&format!("routes.{name}"), &route);
    }

    /// The client as the real server knows it.
    fn client(self, callback: &str) -> Value {
        let person = self.grant == "authorization_code";
        let mut grant_types = vec![self.grant_type()];
        if self.grant != "client_credentials" {
            grant_types.push("refresh_token");
        }
        let mut client = json!({
            "client_id": self.name(), "token_endpoint_auth_method": self.method, "grant_types": grant_types,
            "redirect_uris": if person { vec![callback] } else { vec![] },
            "response_types": if person { vec!["code"] } else { vec![] },
        });
        if self.has_secret() {
            client["client_secret"] = CLIENT_SECRET.into();
        }
        if self.method == "private_key_jwt" {
            client["jwks"] = json!({ "keys": [signer().public_jwk()] });
            client["token_endpoint_auth_signing_alg"] = "ES256".into();
        }
        client
    }

    /// The token that a call of this row brought to the API.
    async fn token(self, world: &World) -> String {
        let echo = world.gateway.call(&format!("/{}/x", self.name())).await.expect_status(200).json();
        echo["token"].as_str().expect("a token").to_owned()
    }

    async fn refresh(self, world: &World) {
        let path = format!("/api/connections/{}/billing/refresh", self.name());
        world.gateway.admin("POST", &path).send().await.expect_status(200);
    }

    /// Everything about this row; panics where something is not as it should be.
    async fn check(self, world: Arc<World>) {
        let World { provider, script, gateway } = &*world;
        if self.grant.ends_with("_code") {
            let link = gateway.authorization_url(&format!("/{}/x", self.name())).await;
            if self.grant == "authorization_code" {
                let callback = gateway.config.callback();
                Browser::new().consent(&link, "alice", &callback).await.response.expect_status(200);
            } else {
                let page = Browser::new().open(&link).await.response.expect_status(200).text();
                let (_, rest) = page.split_once("<a href=\"").expect("a link");
                let verification = rest.split_once('"').unwrap().0.replace("&amp;", "&");
                Browser::new().consent_to_the_end(&verification, "alice").await;
                let connected = async || gateway.call(&format!("/{}/x", self.name())).await.status == 200;
                eventually("the device is connected", connected).await;
            }
        }
        let first = self.token(&world).await;
        if self.server == "idp" {
            let told = provider.describe_token(&first).await;
            assert_eq!((&told["live"], &told["client"]), (&json!(true), &json!(self.name())), "{told}");
            self.refresh(&world).await;
            let second = self.token(&world).await;
            assert_ne!(first, second);
            assert_eq!(provider.describe_token(&second).await["client"], self.name());
            return;
        }
        let requests = script.requests();
        let mine: Vec<&Message> =
            requests.iter().filter(|request| client_of(request) == self.name()).collect();
        let [request] = mine.as_slice() else { panic!("{} requests for one call", mine.len()) };
        let form = request.form();
        assert_eq!((form["grant_type"].as_str(), form["scope"].as_str()), (self.grant_type(), "calendar"));
        self.check_proof(request, &form, script);
        self.check_grant(&form);
    }

    /// The proof of the client, and no other beside it (RFC 6749 section 2.3).
    fn check_proof(self, request: &Message, form: &BTreeMap<String, String>, script: &ScriptedAs) {
        let proofs: Vec<&str> = ["client_secret", "client_assertion", "client_assertion_type"]
            .into_iter()
            .filter(|name| form.contains_key(*name))
            .collect();
        let by_header = request.headers.get("authorization").is_some();
        let claims = match self.method {
            "client_secret_basic" => {
                assert_eq!((by_header, proofs.as_slice()), (true, &[] as &[&str]));
                let encode =
                    |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let shown = STANDARD.decode(&request.headers.get("authorization").unwrap()[6..]).unwrap();
                let shown = String::from_utf8(shown).unwrap();
                let (id, secret) = shown.split_once(':').unwrap();
                // A space may be written either way.
                assert_eq!((id, secret.replace("%20", "+")), (&*encode(&self.name()), encode(CLIENT_SECRET)));
                return;
            }
            "client_secret_post" => {
                assert_eq!((by_header, proofs.as_slice()), (false, &["client_secret"] as &[&str]));
                assert_eq!(form["client_secret"], CLIENT_SECRET);
                return;
            }
            "none" => {
                assert_eq!((by_header, proofs.as_slice()), (false, &[] as &[&str]));
                return;
            }
            "client_secret_jwt" => verified_with_secret(&form["client_assertion"]),
            _ => verified(&form["client_assertion"], &signer()),
        };
        assert_eq!(
            (by_header, proofs.as_slice()),
            (false, &["client_assertion", "client_assertion_type"] as &[&str])
        );
        let endpoint = format!("http://{}/token", script.address);
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!(self.name()), &json!(self.name())));
        assert_eq!(claims["aud"], endpoint);
    }

    fn check_grant(self, form: &BTreeMap<String, String>) {
        match self.grant {
            "password" => {
                assert_eq!((form["username"].as_str(), form["password"].as_str()), ("robot", PASSWORD));
            }
            "token_exchange" => assert_eq!(form["subject_token"], SUBJECT_TOKEN),
            "jwt_bearer" => {
                let claims = verified(&form["assertion"], &signer());
                assert_eq!((&claims["iss"], &claims["sub"]), (&json!(self.name()), &json!("billing")));
            }
            "saml2_bearer" => {
                let xml = URL_SAFE_NO_PAD.decode(&form["assertion"]).unwrap();
                let xml = String::from_utf8(xml).unwrap();
                assert!(xml.contains(">billing</") && xml.contains("SignatureValue>"), "{xml}");
            }
            _ => {}
        }
    }
}

fn signer() -> SigningKey {
    SigningKey::load(keys::P256, None, None).unwrap()
}

fn verified_with_secret(jwt: &str) -> Map<String, Value> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(CLIENT_SECRET.as_bytes());
    jsonwebtoken::decode::<Map<String, Value>>(jwt, &key, &validation).unwrap().claims
}

/// Whom a token request names as its client.
fn client_of(request: &Message) -> String {
    let by_form = || request.form().get("client_id").cloned().unwrap_or_default();
    let Some(basic) = request.headers.get("authorization").and_then(|value| value.strip_prefix("Basic "))
    else {
        return by_form();
    };
    let text = String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap();
    text.split_once(':').unwrap().0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "shown under --nocapture")]
async fn every_grant_works_with_every_client_authentication() {
    let mut rows = Vec::new();
    for grant in [
        "authorization_code",
        "client_credentials",
        "device_code",
        "password",
        "jwt_bearer",
        "saml2_bearer",
        "token_exchange",
    ] {
        for method in METHODS {
            let real = grant.ends_with("_code") || grant == "client_credentials" && method != "none";
            rows.push(Row { grant, method, server: if real { "idp" } else { "script" } });
        }
    }

    let mut config = GatewayConfig::new();
    let callback = config.callback();
    let mut provider = OidcProvider::builder(&callback)
        .features(json!({ "deviceFlow": { "enabled": true } }))
        .options(json!({
            "clientAuthMethods": METHODS,
            "enabledJWA": { "clientAuthSigningAlgValues": ["HS256", "ES256"] },
        }));
    for row in rows.iter().filter(|row| row.server == "idp") {
        provider = provider.client(row.client(&callback));
    }
    let (provider, script) = (provider.start().await, ScriptedAs::start().await);
    script.otherwise(Answer::token("planted-access", 3600));
    let (real, free) = (Upstream::start().await, Upstream::start().await);
    real.check_at(&provider.issuer);

    let file = |name: &str, bytes: &[u8]| {
        let path = config.folder().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let (ec, rsa) = (file("ec.pem", keys::P256), file("rsa.pem", keys::RSA));
    config.section("providers.idp", &format!("issuer = \"{}\"", provider.issuer));
    config.section("providers.script", &script.provider_toml());
    for row in &rows {
        row.configure(&mut config, if row.server == "idp" { &real } else { &free }, &ec, &rsa);
    }
    let names: Vec<String> = rows.iter().map(|row| row.name()).collect();
    config.caller("billing", &format!("{names:?}"));
    config.secrets.extend([CLIENT_SECRET.to_owned(), PASSWORD.to_owned(), SUBJECT_TOKEN.to_owned()]);
    let gateway = config.start().await;

    let world = Arc::new(World { provider, script, gateway });
    let running: Vec<_> =
        rows.iter().map(|row| (*row, tokio::spawn(row.check(Arc::clone(&world))))).collect();
    println!("{:<18} | {:<19} | {:<13} | pass", "grant", "client_auth", "server");
    let mut failed = Vec::new();
    for (row, outcome) in running {
        let pass = outcome.await.is_ok();
        let server = if row.server == "idp" { "oidc-provider" } else { "scripted" };
        println!(
            "{:<18} | {:<19} | {server:<13} | {}",
            row.grant,
            row.method,
            if pass { "yes" } else { "NO" }
        );
        if !pass {
            failed.push(row.name());
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}\n{}", world.gateway.log());
    let refreshed = 2 * METHODS.len() as u64;
    assert_eq!(world.provider.count("refresh_token").await, refreshed);
    world.gateway.assert_no_secret_in_log(&[]);
}
