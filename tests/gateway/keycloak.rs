//! Against a real Keycloak, which `scripts/interop-keycloak` fetches and starts. Ignored otherwise.

use std::time::Duration;

use serde_json::Value;

use crate::support::browser::{Browser, Page};
use crate::support::gateway::Gateway;
use crate::support::gateway_config::GatewayConfig;
use crate::support::upstream::Upstream;
use crate::support::{eventually, http};

const LOGIN: [(&str, &str); 2] = [("username", "alice"), ("password", "interop-password-of-alice")];

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/interop-keycloak"))
}

fn issuer() -> String {
    format!("{}/realms/claviger", variable("CLAVIGER_KEYCLOAK_HTTP"))
}

fn certificate(name: &str) -> String {
    format!("{}/{name}", variable("CLAVIGER_KEYCLOAK_CERTS"))
}

/// A gateway with the profile `keycloak` of Keycloak's client `client`, whose further keys are `keys`.
async fn gateway(client: &str, grant: &str, keys: &str) -> (Gateway, Upstream) {
    let mut config = GatewayConfig::new();
    let upstream = Upstream::start().await;
    config.section("providers.keycloak", &format!("issuer = \"{}\"", issuer()));
    let secret = format!("interop-secret-of-{client}");
    config.env.insert("TEST_INTEROP_SECRET".into(), secret.clone());
    config.secrets.push(secret);
    let body = format!("provider = \"keycloak\"\nclient_id = \"{client}\"\ngrant = \"{grant}\"\n{keys}");
    config.section("profiles.keycloak", &body);
    config.call_through("keycloak", &upstream);
    (config.start().await, upstream)
}

const SECRET: &str = "client_secret = { env = \"TEST_INTEROP_SECRET\" }\n";

/// The claims of the access token that the API was sent.
async fn claims(gateway: &Gateway) -> Value {
    use base64::Engine as _;
    let echo = gateway.call("/keycloak/x").await.expect_status(200).json();
    let token = echo["token"].as_str().expect("a token").to_owned();
    let payload = token.split('.').nth(1).expect("a JWT");
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&payload).expect("claims")
}

async fn connect(gateway: &Gateway) -> Page {
    let url = gateway.authorization_url("/keycloak/x").await;
    let mut browser = Browser::new();
    let callback = gateway.config.callback();
    let page = browser.follow_until(&url, &callback).await;
    let page = browser.submit(&page, &LOGIN, &callback).await;
    assert!(page.url.as_str().starts_with(&callback), "stopped at {}: {}", page.url, page.response.text());
    browser.open(page.url.as_str()).await
}

async fn connected(client: &str, keys: &str) -> (Gateway, Upstream) {
    let (gateway, upstream) = gateway(client, "authorization_code", keys).await;
    let page = connect(&gateway).await;
    assert_eq!(page.response.status, 200, "{}", page.response.text());
    assert_eq!(claims(&gateway).await["preferred_username"], "alice");
    (gateway, upstream)
}

async fn refreshed(gateway: &Gateway) {
    let path = "/api/connections/keycloak/billing/refresh";
    gateway.admin("POST", path).send().await.expect_status(200);
    assert_eq!(claims(gateway).await["preferred_username"], "alice");
}

async fn as_machine(client: &str, keys: &str) {
    let (gateway, _upstream) = gateway(client, "client_credentials", keys).await;
    assert_eq!(claims(&gateway).await["azp"], client);
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn authorization_code_refresh_and_revocation() {
    let (gateway, _upstream) = connected("code", &format!("{SECRET}scopes = [\"openid\"]")).await;
    refreshed(&gateway).await;
    refreshed(&gateway).await;
    gateway.admin("DELETE", "/api/connections/keycloak/billing").send().await.expect_status(204);
    gateway.call("/keycloak/x").await.expect_status(403);
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn client_credentials_by_every_client_authentication() {
    as_machine("robot", SECRET).await;
    as_machine("robot-post", &format!("{SECRET}client_auth = \"client_secret_post\"")).await;
    as_machine("robot-secret-jwt", &format!("{SECRET}client_auth = \"client_secret_jwt\"")).await;
    as_machine("robot-jwt", &private_key_jwt()).await;
}

fn private_key_jwt() -> String {
    let key = certificate("signing.pem");
    format!("client_auth = \"private_key_jwt\"\nsigning_key = {{ file = \"{key}\" }}\nkey_id = \"interop\"\n")
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn mutual_tls_with_certificate_bound_tokens() {
    let mut config = GatewayConfig::new();
    let upstream = Upstream::start().await;
    let issuer = format!("{}/realms/claviger", variable("CLAVIGER_KEYCLOAK_HTTPS"));
    let provider = format!("issuer = \"{issuer}\"\ntls = {{ ca = \"{}\" }}", certificate("ca.pem"));
    config.section("providers.keycloak", &provider);
    let profile = format!(
        "provider = \"keycloak\"\nclient_id = \"robot-mtls\"\ngrant = \"client_credentials\"\n\
         client_auth = \"tls_client_auth\"\ntls = {{ cert = \"{}\", key = \"{}\" }}",
        certificate("client.pem"),
        certificate("client.key"),
    );
    config.section("profiles.keycloak", &profile);
    config.call_through("keycloak", &upstream);
    let gateway = config.start().await;
    let claims = claims(&gateway).await;
    assert_eq!(claims["azp"], "robot-mtls");
    assert!(claims["cnf"]["x5t#S256"].is_string(), "{claims}");
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn password() {
    let keys = format!("{SECRET}username = \"alice\"\npassword = \"interop-password-of-alice\"");
    let (gateway, _upstream) = gateway("password", "password", &keys).await;
    assert_eq!(claims(&gateway).await["preferred_username"], "alice");
    refreshed(&gateway).await;
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn pushed_authorization_requests() {
    connected("par", &format!("{SECRET}par = true\nscopes = [\"openid\"]")).await;
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn request_objects() {
    connected("jar", &format!("{}request_object = true\nscopes = [\"openid\"]", private_key_jwt())).await;
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn dpop_bound_tokens() {
    let keys = format!("{SECRET}dpop = true\n");
    let (gateway, _upstream) = connected("dpop", &format!("{keys}scopes = [\"openid\"]")).await;
    assert!(claims(&gateway).await["cnf"]["jkt"].is_string());
    refreshed(&gateway).await;
    as_machine("robot-dpop", &keys).await;
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn device_authorization() {
    let (gateway, _upstream) = gateway("device", "device_code", SECRET).await;
    let session = serde_json::json!({ "profile": "keycloak", "subject": "billing" });
    let session =
        gateway.admin("POST", "/api/connect-sessions").json(&session).send().await.expect_status(201).json();
    let link = session["device"]["verification_uri_complete"].as_str().expect("a link").to_owned();
    let mut browser = Browser::new();
    let page = browser.follow_until(&link, "nowhere").await;
    let page = browser.submit(&page, &LOGIN, "nowhere").await;
    let page = browser.submit(&page, &[("accept", "Yes")], "nowhere").await;
    assert_eq!(page.response.status, 200, "{}", page.response.text());
    eventually("the device is connected", || async { gateway.call("/keycloak/x").await.status == 200 }).await;
    assert_eq!(claims(&gateway).await["preferred_username"], "alice");
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn token_exchange_runs_as_the_callers_user() {
    let (gateway, _upstream) = {
        let mut config = GatewayConfig::new();
        let upstream = Upstream::start().await;
        config.section("providers.keycloak", &format!("issuer = \"{}\"", issuer()));
        config.env.insert("TEST_INTEROP_SECRET".into(), "interop-secret-of-exchanger".into());
        let profile = format!(
            "provider = \"keycloak\"\nclient_id = \"exchanger\"\ngrant = \"token_exchange\"\n{SECRET}\
             subject_token_type = \"urn:ietf:params:oauth:token-type:access_token\""
        );
        config.section("profiles.keycloak", &profile);
        config.call_through("keycloak", &upstream);
        config.extend("routes.keycloak", "").section(
            "routes.keycloak",
            &format!(
                "path = \"/keycloak\"\nupstream = \"{}/api\"\nprofile = \"keycloak\"\nsubject = \"jwt\"",
                upstream.url()
            ),
        );
        config.section(
            "callers.portal",
            &format!(
                "jwt = {{ issuer = \"{0}\", audience = \"exchanger\", \
                 jwks_uri = \"{0}/protocol/openid-connect/certs\" }}\nroutes = [\"keycloak\"]",
                issuer()
            ),
        );
        config.remove("callers.billing");
        (config.start().await, upstream)
    };
    let token = format!("{}/protocol/openid-connect/token", issuer());
    let form =
        [("grant_type", "password"), ("client_id", "portal"), ("client_secret", "interop-secret-of-portal")];
    let form: Vec<_> =
        form.iter().chain(&LOGIN).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let answer = http::request("POST", &token).form(&form).send().await.expect_status(200).json();
    let caller_token = answer["access_token"].as_str().expect("a token").to_owned();
    let call = http::get(&gateway.proxy_url("/keycloak/x"))
        .header("Authorization", &format!("Bearer {caller_token}"));
    let echo = call.send().await.expect_status(200).json();
    assert_ne!(echo["token"], caller_token.as_str());
    tokio::time::sleep(Duration::from_millis(1)).await;
}
