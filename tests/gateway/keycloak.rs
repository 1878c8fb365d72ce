//! Against a real Keycloak, which `scripts/interop-keycloak` fetches and starts. Ignored otherwise.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::browser::Browser;
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

/// Keycloak's own API, which takes tokens as an API does: `userinfo` below it.
fn api() -> String {
    format!("{}/protocol/openid-connect", issuer())
}

/// A configuration with the profile `keycloak` of Keycloak's client `client`, whose further keys are `keys`.
fn configured(client: &str, grant: &str, keys: &str) -> GatewayConfig {
    let mut config = GatewayConfig::new();
    config.section("providers.keycloak", &format!("issuer = \"{}\"", issuer()));
    let secret = format!("interop-secret-of-{client}");
    config.env.insert("TEST_INTEROP_SECRET".into(), secret.clone());
    config.secrets.push(secret);
    let body = format!("provider = \"keycloak\"\nclient_id = \"{client}\"\ngrant = \"{grant}\"\n{keys}");
    config.section("profiles.keycloak", &body);
    config
}

/// Adds the route `/keycloak` to `upstream`, with further keys.
fn route(config: &mut GatewayConfig, upstream: &str, keys: &str) {
    let body = format!("path = \"/keycloak\"\nupstream = \"{upstream}\"\nprofile = \"keycloak\"\n{keys}");
    config.section("routes.keycloak", &body).caller("billing", "[\"keycloak\"]");
}

/// A gateway whose calls end at an API that tells which token it was sent.
async fn gateway(client: &str, grant: &str, keys: &str) -> (Gateway, Upstream) {
    let mut config = configured(client, grant, keys);
    let upstream = Upstream::start().await;
    config.call_through("keycloak", &upstream);
    (config.start().await, upstream)
}

const SECRET: &str = "client_secret = { env = \"TEST_INTEROP_SECRET\" }\n";
const OPENID: &str = "scopes = [\"openid\"]\n";

fn private_key_jwt() -> String {
    let key = certificate("signing.pem");
    format!("client_auth = \"private_key_jwt\"\nsigning_key = {{ file = \"{key}\" }}\nkey_id = \"interop\"\n")
}

/// The access token that the API was sent.
async fn token(gateway: &Gateway) -> String {
    let echo = gateway.call("/keycloak/x").await.expect_status(200).json();
    echo["token"].as_str().expect("a token").to_owned()
}

/// Its claims.
async fn claims(gateway: &Gateway) -> Value {
    claims_of(&token(gateway).await)
}

fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a JWT");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&payload).expect("claims")
}

/// What Keycloak says as an API to a token that is bound to nothing.
async fn status_at_keycloak(token: &str) -> u16 {
    http::get(&format!("{}/userinfo", api())).bearer(token).send().await.status
}

/// Has alice log in, and consent where the client asks for that.
async fn connect(gateway: &Gateway, path: &str) {
    let url = gateway.authorization_url(path).await;
    let mut browser = Browser::new();
    let callback = gateway.config.callback();
    let page = browser.follow_until(&url, &callback).await;
    assert!(page.form().is_some(), "no form on {}: {}", page.url, gateway.log());
    let mut page = browser.submit(&page, &LOGIN, &callback).await;
    if !page.url.as_str().starts_with(&callback) {
        page = browser.submit(&page, &[("accept", "Yes")], &callback).await;
    }
    assert!(page.url.as_str().starts_with(&callback), "stopped at {}: {}", page.url, page.response.text());
    browser.open(page.url.as_str()).await.response.expect_status(200);
}

async fn connected(client: &str, keys: &str) -> (Gateway, Upstream) {
    let (gateway, upstream) = gateway(client, "authorization_code", keys).await;
    connect(&gateway, "/keycloak/x").await;
    assert_eq!(claims(&gateway).await["preferred_username"], "alice");
    (gateway, upstream)
}

async fn refresh(gateway: &Gateway) {
    let path = "/api/connections/keycloak/billing/refresh";
    gateway.admin("POST", path).send().await.expect_status(200);
}

async fn as_machine(client: &str, keys: &str) {
    let (gateway, _upstream) = gateway(client, "client_credentials", keys).await;
    assert_eq!(claims(&gateway).await["azp"], client);
    gateway.assert_no_secret_in_log(&[]);
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn authorization_code_refresh_and_revocation() {
    let (gateway, _upstream) = connected("code", &format!("{SECRET}{OPENID}")).await;
    let mut last = token(&gateway).await;
    // Keycloak takes each refresh token once.
    for _ in 0..3 {
        refresh(&gateway).await;
        let next = token(&gateway).await;
        assert_ne!(next, last);
        assert_eq!(claims_of(&next)["preferred_username"], "alice");
        last = next;
    }
    assert_eq!(status_at_keycloak(&last).await, 200);
    gateway.admin("DELETE", "/api/connections/keycloak/billing").send().await.expect_status(204);
    gateway.call("/keycloak/x").await.expect_problem(403, "authorization_required");
    assert_eq!(status_at_keycloak(&last).await, 401, "Keycloak was told");
    gateway.assert_no_secret_in_log(&[last]);
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn introspection_and_userinfo() {
    let (gateway, _upstream) = connected("code", &format!("{SECRET}{OPENID}")).await;
    let path = |what: &str| format!("/api/connections/keycloak/billing/{what}");
    let said = gateway.admin("POST", &path("introspect")).send().await.expect_status(200).json();
    assert_eq!((&said["active"], &said["client_id"]), (&json!(true), &json!("code")), "{said}");
    assert_eq!((&said["username"], &said["iss"]), (&json!("alice"), &json!(issuer())), "{said}");
    let told = gateway.admin("GET", &path("userinfo")).send().await.expect_status(200).json();
    assert_eq!((&told["preferred_username"], &told["sub"]), (&json!("alice"), &said["sub"]), "{told}");
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn client_credentials_by_every_client_authentication() {
    as_machine("robot", SECRET).await;
    as_machine("robot-post", &format!("{SECRET}client_auth = \"client_secret_post\"")).await;
    as_machine("robot-secret-jwt", &format!("{SECRET}client_auth = \"client_secret_jwt\"")).await;
    as_machine("robot-jwt", &private_key_jwt()).await;
}

/// A token of Keycloak's administrator.
async fn administrator() -> String {
    let url = format!("{}/realms/master/protocol/openid-connect/token", variable("CLAVIGER_KEYCLOAK_HTTP"));
    let form = [
        ("grant_type", "password"),
        ("client_id", "admin-cli"),
        ("username", "admin"),
        ("password", "interop-password-of-admin"),
    ];
    token_by_form(&url, &form).await
}

async fn token_by_form(url: &str, form: &[(&str, &str)]) -> String {
    let form: Vec<_> = form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let answer = http::request("POST", url).form(&form).send().await.expect_status(200).json();
    answer["access_token"].as_str().expect("a token").to_owned()
}

/// A path of Keycloak's administration of the realm.
fn administration(path: &str) -> String {
    format!("{}/admin/realms/claviger/{path}", variable("CLAVIGER_KEYCLOAK_HTTP"))
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn managed_signing_keys_are_fetched_from_the_gateway() {
    let keys = "client_auth = \"private_key_jwt\"\nsigning_key = \"managed\"";
    let (gateway, _upstream) = gateway("robot-managed", "client_credentials", keys).await;
    let (administrator, url) = (administrator().await, administration("clients/robot-managed"));
    let mut client = http::get(&url).bearer(&administrator).send().await.expect_status(200).json();
    client["attributes"]["jwks.url"] = gateway.public_url("/jwks.json").into();
    http::request("PUT", &url).bearer(&administrator).json(&client).send().await.expect_status(204);
    assert_eq!(claims(&gateway).await["azp"], "robot-managed");
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn a_client_that_registers_itself() {
    let administrator = administrator().await;
    // By its first policy Keycloak registers no client that names `openid`.
    let type_ = "org.keycloak.services.clientregistration.policy.ClientRegistrationPolicy";
    let url = administration(&format!("components?type={type_}"));
    let policies = http::get(&url).bearer(&administrator).send().await.expect_status(200).json();
    let is_scopes =
        |it: &&Value| it["providerId"] == "allowed-client-templates" && it["subType"] == "authenticated";
    let mut policy = policies.as_array().unwrap().iter().find(is_scopes).expect("a policy").clone();
    policy["config"]["allowed-client-scopes"] = json!(["openid"]);
    let url = administration(&format!("components/{}", policy["id"].as_str().unwrap()));
    http::request("PUT", &url).bearer(&administrator).json(&policy).send().await.expect_status(204);

    let wanted = json!({ "count": 1, "expiration": 60 });
    let request = http::request("POST", &administration("clients-initial-access"));
    let given = request.bearer(&administrator).json(&wanted).send().await.expect_status(200).json();
    let initial = given["token"].as_str().expect("a token").to_owned();

    let mut config = configured("", "", "");
    let profile =
        "provider = \"keycloak\"\ngrant = \"authorization_code\"\nscopes = [\"openid\", \"profile\"]";
    config.section("profiles.keycloak", profile);
    let registration =
        "initial_access_token = { env = \"TEST_INITIAL_TOKEN\" }\nclient_name = \"The gateway\"";
    config.section("profiles.keycloak.registration", registration);
    config.env.insert("TEST_INITIAL_TOKEN".into(), initial.clone());
    let upstream = Upstream::start().await;
    config.call_through("keycloak", &upstream);
    let gateway = config.start().await;
    connect(&gateway, "/keycloak/x").await;
    assert_eq!(claims(&gateway).await["preferred_username"], "alice");
    refresh(&gateway).await;
    gateway.assert_no_secret_in_log(&[initial]);
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn mutual_tls_with_certificate_bound_tokens() {
    let issuer = format!("{}/realms/claviger", variable("CLAVIGER_KEYCLOAK_HTTPS"));
    let ca = format!("tls = {{ ca = \"{}\" }}", certificate("ca.pem"));
    let keys = format!(
        "{OPENID}client_auth = \"tls_client_auth\"\ntls = {{ cert = \"{}\", key = \"{}\" }}\n",
        certificate("client.pem"),
        certificate("client.key"),
    );
    let mut config = configured("robot-mtls", "client_credentials", &keys);
    config.section("providers.keycloak", &format!("issuer = \"{issuer}\"\n{ca}"));
    let upstream = Upstream::start().await;
    config.call_through("keycloak", &upstream);
    let gateway = config.start().await;
    let claims = claims(&gateway).await;
    assert_eq!(claims["azp"], "robot-mtls");
    assert!(claims["cnf"]["x5t#S256"].is_string(), "{claims}");

    // Keycloak as an API takes the token with the certificate alone.
    let (_, _, mut config) = gateway.stop().await;
    route(&mut config, &format!("{issuer}/protocol/openid-connect"), &ca);
    let gateway = config.start().await;
    gateway.call("/keycloak/userinfo").await.expect_status(401);
    let (_, _, mut config) = gateway.stop().await;
    config.extend("profiles.keycloak", "certificate_bound_tokens = true");
    config.start().await.call("/keycloak/userinfo").await.expect_status(200);
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn password() {
    let keys = format!("{SECRET}username = \"alice\"\npassword = \"interop-password-of-alice\"");
    let (gateway, _upstream) = gateway("password", "password", &keys).await;
    assert_eq!(claims(&gateway).await["preferred_username"], "alice");
    refresh(&gateway).await;
    assert_eq!(claims(&gateway).await["preferred_username"], "alice");
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn pushed_authorization_requests() {
    connected("par", &format!("{SECRET}{OPENID}par = true")).await;
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn request_objects() {
    connected("jar", &format!("{}{OPENID}request_object = true", private_key_jwt())).await;
}

/// A gateway whose calls end at Keycloak itself, which checks every proof; as which user they came there.
async fn at_keycloak(client: &str, grant: &str, keys: &str) -> (Gateway, Value) {
    let mut config = configured(client, grant, &format!("{OPENID}{keys}"));
    route(&mut config, &api(), "");
    let gateway = config.start().await;
    if grant == "authorization_code" {
        connect(&gateway, "/keycloak/userinfo").await;
    }
    let user = who(&gateway).await;
    assert_eq!(gateway.connection("keycloak", "billing").await["token_type"], "DPoP");
    (gateway, user)
}

async fn who(gateway: &Gateway) -> Value {
    let told = gateway.call("/keycloak/userinfo").await.expect_status(200).json();
    told["preferred_username"].clone()
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn dpop_bound_tokens() {
    let keys = format!("{SECRET}dpop = true");
    let (gateway, user) = at_keycloak("dpop", "authorization_code", &keys).await;
    assert_eq!(user, "alice");
    refresh(&gateway).await;
    assert_eq!(who(&gateway).await, "alice");
    // UserInfo that the gateway asks for itself needs a proof as well.
    let told = gateway.admin("GET", "/api/connections/keycloak/billing/userinfo").send().await;
    assert_eq!(told.expect_status(200).json()["preferred_username"], "alice");
    let (_, user) = at_keycloak("robot-dpop", "client_credentials", &keys).await;
    assert_eq!(user, "service-account-robot-dpop");
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn fapi2() {
    let keys = format!("{}security_profile = \"fapi2\"\nid_token_signing_alg = \"ES256\"", private_key_jwt());
    let (gateway, user) = at_keycloak("fapi2", "authorization_code", &keys).await;
    assert_eq!(user, "alice");
    refresh(&gateway).await;
    assert_eq!(who(&gateway).await, "alice");
    let said = gateway.admin("POST", "/api/connections/keycloak/billing/introspect").send().await;
    assert_eq!(said.expect_status(200).json()["active"], true);
    gateway.admin("DELETE", "/api/connections/keycloak/billing").send().await.expect_status(204);
    // It does not listen to whoever shows no proof.
    let (_, log, _) = gateway.stop().await;
    assert!(!log.contains("not revoked at the provider"), "{log}");
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn device_authorization() {
    let (gateway, _upstream) = gateway("device", "device_code", SECRET).await;
    let session = json!({ "profile": "keycloak", "subject": "billing" });
    let session = gateway.admin("POST", "/api/connect-sessions").json(&session).send().await;
    let session = session.expect_status(200).json();
    let link = session["device"]["verification_uri_complete"].as_str().expect("a link").to_owned();
    let mut browser = Browser::new();
    let page = browser.follow_until(&link, "nowhere:").await;
    let page = browser.submit(&page, &LOGIN, "nowhere:").await;
    let page = browser.submit(&page, &[("accept", "Yes")], "nowhere:").await;
    assert_eq!(page.response.status, 200, "{}", page.response.text());
    eventually("the device is connected", || async { gateway.call("/keycloak/x").await.status == 200 }).await;
    assert_eq!(claims(&gateway).await["preferred_username"], "alice");
}

#[tokio::test]
#[ignore = "needs a Keycloak"]
async fn token_exchange_runs_as_the_callers_user() {
    let keys = format!("{SECRET}subject_token_type = \"access_token\"");
    let mut config = configured("exchanger", "token_exchange", &keys);
    let upstream = Upstream::start().await;
    route(&mut config, &format!("{}/api", upstream.url()), "subject = \"jwt\"");
    let caller = format!(
        "jwt = {{ issuer = \"{}\", audience = \"exchanger\", jwks_uri = \"{}/certs\" }}\n\
         routes = [\"keycloak\"]",
        issuer(),
        api()
    );
    config.section("callers.portal", &caller).remove("callers.billing");
    let gateway = config.start().await;

    let form =
        [("grant_type", "password"), ("client_id", "portal"), ("client_secret", "interop-secret-of-portal")];
    let theirs = token_by_form(&format!("{}/token", api()), &[&form[..], &LOGIN].concat()).await;
    let call = http::get(&gateway.proxy_url("/keycloak/x")).bearer(&theirs);
    let echo = call.send().await.expect_status(200).json();
    let ours = claims_of(echo["token"].as_str().expect("a token"));
    assert_eq!((&ours["azp"], &ours["preferred_username"]), (&json!("exchanger"), &json!("alice")), "{ours}");
    assert_eq!(ours["sub"], claims_of(&theirs)["sub"]);
}
