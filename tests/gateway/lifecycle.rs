//! From a client's registration to the revocation of everything it was granted.

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::gateway::{Gateway, assert_no_secret};
use crate::support::oidc_provider::OidcProviderBuilder;
use crate::support::scene::Scene;

const INITIAL_TOKEN: &str = "planted-initial-access-token";

/// A server at which whoever has [`INITIAL_TOKEN`] may register a client.
fn registering(server: OidcProviderBuilder) -> OidcProviderBuilder {
    server.features(json!({
        "registration": { "enabled": true, "initialAccessToken": INITIAL_TOKEN },
        "registrationManagement": { "enabled": true },
    }))
}

/// What the profile registers, under this name.
fn registration(client_name: &str) -> String {
    format!(
        "initial_access_token = {{ env = \"TEST_INITIAL_TOKEN\" }}\nclient_name = \"{client_name}\"\n\
         contacts = [\"gateway@example.com\"]\nmetadata = {{ policy_uri = \"https://example.com/policy\" }}"
    )
}

/// Lets the caller say whose token is used.
fn name_subjects(scene: &mut Scene) {
    let upstream = scene.upstream.url();
    let route = format!(
        "path = \"/calendar\"\nupstream = \"{upstream}/api\"\nprofile = \"calendar\"\nsubject = \"header\""
    );
    scene.config.section("routes.calendar", &route);
    scene.config.extend("callers.billing", "may_name_subject = true");
}

/// A configuration whose profile `calendar` registers itself.
async fn scene(grant: &str, scopes: &str, more: &str) -> Scene {
    let mut scene = Scene::person_at(registering).await;
    let body = format!("provider = \"idp\"\ngrant = \"{grant}\"\nscopes = {scopes}\n{more}");
    scene.config.section("profiles.calendar", &body);
    scene.config.section("profiles.calendar.registration", &registration("The gateway"));
    scene.config.env.insert("TEST_INITIAL_TOKEN".into(), INITIAL_TOKEN.into());
    scene.config.secrets.push(INITIAL_TOKEN.into());
    scene
}

async fn machine() -> Scene {
    scene("client_credentials", r#"["calendar"]"#, "").await
}

/// The client's identifier, as the admin API shows it.
async fn client_id(gateway: &Gateway) -> Value {
    let profiles = gateway.admin("GET", "/api/profiles").send().await.expect_status(200).json();
    profiles["profiles"][0]["client_id"].clone()
}

/// What must not be seen of the clients at the provider.
async fn secrets_of(scene: &Scene) -> Vec<String> {
    let clients = scene.provider.registered_clients().await;
    clients.iter().filter_map(|client| client["client_secret"].as_str()).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_person_connects_through_a_client_that_registered_itself() {
    let scene = scene("authorization_code", r#"["openid", "calendar"]"#, "").await;
    let gateway = scene.config.start().await;
    assert_eq!(client_id(&gateway).await, Value::Null);
    assert_eq!(scene.provider.count("registration").await, 0, "nothing before it is needed");

    gateway.connect("alice").await;
    let told = scene.provider.describe_token(&gateway.token_used().await).await;
    let client = client_id(&gateway).await;
    assert_eq!((&told["client"], &told["account"]), (&client, &json!("alice")), "{told}");

    let clients = scene.provider.registered_clients().await;
    assert_eq!(clients.len(), 1);
    assert_eq!(clients[0]["client_id"], client);
    assert_eq!(clients[0]["redirect_uris"], json!([gateway.config.callback()]));
    assert_eq!(clients[0]["grant_types"], json!(["authorization_code", "refresh_token"]));
    assert_eq!(clients[0]["client_name"], "The gateway");
    assert_eq!(clients[0]["contacts"], json!(["gateway@example.com"]));
    assert_eq!(clients[0]["policy_uri"], "https://example.com/policy");

    // The refresh token is the client's: another one could not use it.
    let gateway = gateway.restart().await;
    assert_eq!(client_id(&gateway).await, client, "shown before it is used");
    let refresh = gateway.admin("POST", "/api/connections/calendar/billing/refresh").send().await;
    refresh.expect_status(200);
    gateway.token_used().await;
    assert_eq!(scene.provider.count("registration").await, 1);
    assert_eq!(scene.provider.count("refresh_token").await, 1);
    gateway.assert_no_secret_in_log(&secrets_of(&scene).await);
}

#[tokio::test]
async fn each_way_to_authenticate_registers_and_connects() {
    for method in ["client_secret_post", "none"] {
        let more = format!("client_auth = \"{method}\"");
        let scene = scene("authorization_code", r#"["openid", "calendar"]"#, &more).await;
        let gateway = scene.config.start().await;
        gateway.connect("alice").await;
        gateway.token_used().await;
        let clients = scene.provider.registered_clients().await;
        assert_eq!(clients.len(), 1);
        assert_eq!(clients[0]["token_endpoint_auth_method"], method);
        assert_eq!(clients[0].get("client_secret").is_some(), method != "none");
    }
}

#[tokio::test]
async fn calls_at_once_register_once_and_a_forgotten_client_is_replaced_once() {
    let mut scene = machine().await;
    name_subjects(&mut scene);
    let gateway = scene.config.start().await;
    let all_at_once = async |round: &str| {
        let calls: Vec<_> = (0..20)
            .map(|n| {
                let call = gateway.request("GET", "/calendar/events");
                tokio::spawn(call.header("Claviger-Subject", &format!("{round}-{n}")).send())
            })
            .collect();
        for call in calls {
            call.await.unwrap().expect_status(200);
        }
    };
    all_at_once("first").await;
    assert_eq!(scene.provider.count("registration").await, 1);
    let first = client_id(&gateway).await;

    scene.provider.forget_registered_clients().await;
    all_at_once("second").await;
    assert_eq!(scene.provider.count("registration").await, 2);
    let second = client_id(&gateway).await;
    assert_ne!(first, second);

    // Not again within the hour, and not after a restart either.
    scene.provider.forget_registered_clients().await;
    let gateway = gateway.restart().await;
    let call = gateway.request("GET", "/calendar/events").header("Claviger-Subject", "third").send().await;
    let problem = call.expect_problem(502, "token_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("invalid_client"), "{problem}");
    assert_eq!(scene.provider.count("registration").await, 2);
}

#[tokio::test]
async fn a_person_whose_client_was_forgotten_consents_to_the_next() {
    let scene = scene("authorization_code", r#"["openid", "calendar"]"#, "").await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let first = client_id(&gateway).await;
    scene.provider.forget_registered_clients().await;
    // The refresh token was the old client's.
    let refresh = gateway.admin("POST", "/api/connections/calendar/billing/refresh").send().await;
    refresh.expect_problem(409, "authorization_required");
    gateway.connect("alice").await;
    let told = scene.provider.describe_token(&gateway.token_used().await).await;
    assert_ne!(told["client"], first);
    assert_eq!(told["client"], client_id(&gateway).await);
    assert_eq!(scene.provider.count("registration").await, 2);
}

#[tokio::test]
async fn other_metadata_is_registered_anew() {
    let mut scene = machine().await;
    let gateway = scene.config.start().await;
    gateway.token_used().await;
    let first = client_id(&gateway).await;
    let (status, log, _) = gateway.stop().await;
    assert!(status.success(), "{log}");
    scene.config.section("profiles.calendar.registration", &registration("Another name"));
    let gateway = scene.config.start().await;
    assert_eq!(client_id(&gateway).await, Value::Null, "this one is not registered yet");
    gateway.admin("POST", "/api/connections/calendar/billing/refresh").send().await.expect_status(200);
    assert_ne!(client_id(&gateway).await, first);
    assert_eq!(scene.provider.count("registration").await, 2);
}

#[tokio::test]
async fn a_refused_registration_names_profile_key_and_remedy() {
    let mut scene = machine().await;
    scene.config.env.insert("TEST_INITIAL_TOKEN".into(), "planted-wrong-token".into());
    scene.config.secrets.push("planted-wrong-token".into());
    let gateway = scene.config.start().await;
    let problem = gateway.call("/calendar/events").await.expect_problem(502, "token_unavailable");
    let detail = problem["detail"].as_str().unwrap();
    for part in ["profile calendar", "invalid_token", "`registration.initial_access_token`"] {
        assert!(detail.contains(part), "no {part:?} in {detail}");
    }
    gateway.assert_no_secret_in_log(&[]);
    let (_, _, mut config) = gateway.stop().await;

    config.env.insert("TEST_INITIAL_TOKEN".into(), INITIAL_TOKEN.into());
    config.section(
        "profiles.calendar.registration",
        "initial_access_token = { env = \"TEST_INITIAL_TOKEN\" }\nmetadata = { subject_type = \"nonsense\" }",
    );
    let gateway = config.start().await;
    let path = "/api/connections/calendar/billing/refresh";
    let problem = gateway.admin("POST", path).send().await.expect_problem(502, "token_unavailable");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("invalid_client_metadata") && detail.contains("subject_type"), "{detail}");
}

#[tokio::test]
async fn what_can_be_known_before_the_start_is_told_by_check() {
    let mut scene = machine().await;
    scene.config.extend("profiles.calendar", "client_id = \"x\"\nclient_secret = \"planted-x\"");
    scene
        .config
        .section("profiles.calendar.registration", "metadata = { redirect_uris = [] }\nclient_nam = \"x\"");
    scene.config.section("providers.bare", "token_endpoint = \"http://127.0.0.1:1/token\"");
    scene
        .config
        .section("profiles.bare", "provider = \"bare\"\ngrant = \"client_credentials\"\nregistration = {}");
    let finished = scene.config.run("check").await;
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    for part in [
        "profiles.calendar.client_id: ",
        "profiles.calendar.client_secret: ",
        "profiles.calendar.registration.metadata.redirect_uris: ",
        "profiles.calendar.registration.client_nam: unknown key; did you mean `client_name`?",
        "profiles.bare.registration: provider `bare` has neither `registration_endpoint` nor `issuer`",
    ] {
        assert!(finished.text().contains(part), "no {part:?} in {}", finished.text());
    }
    assert_no_secret(&finished.text(), &["planted-x".to_owned()]);
}

#[tokio::test]
async fn an_operator_asks_what_the_provider_says_of_a_token() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let path = "/api/connections/calendar/billing/introspect";
    gateway.admin("POST", path).send().await.expect_problem(404, "not_found");
    gateway.connect("alice").await;
    let token = gateway.token_used().await;

    let answer = gateway.admin("POST", path).send().await.expect_status(200);
    assert!(!answer.text().contains(&token));
    let said = answer.json();
    assert_eq!(said["active"], true, "{said}");
    assert_eq!((&said["client_id"], &said["sub"]), (&json!("confidential"), &json!("alice")), "{said}");
    assert!(said["exp"].is_u64() && said["iat"].is_u64() && said["scope"].is_string(), "{said}");

    let arguments = ["introspect", "calendar", "billing"];
    let printed = gateway.config.run_with("connections", &arguments).await;
    assert!(printed.status.success(), "{}", printed.text());
    assert_eq!(serde_json::from_str::<Value>(&printed.stdout).unwrap(), said);

    scene.provider.revoke_all_grants().await;
    let said = gateway.admin("POST", path).send().await.expect_status(200).json();
    assert_eq!(said, json!({ "active": false }));
    assert_eq!(gateway.connection("calendar", "billing").await["state"], "active", "it is only told");
    gateway.assert_no_secret_in_log(&[token]);
}

#[tokio::test]
async fn an_expiry_that_nobody_told_is_asked_for_if_the_profile_wants_it() {
    for wanted in [false, true] {
        let set_up = |server: OidcProviderBuilder| server.omit_expires_in().access_token_seconds(120);
        let mut scene = Scene::person_at(set_up).await;
        if wanted {
            scene.config.extend("profiles.calendar", "introspect_expiry = true");
        }
        let gateway = scene.config.start().await;
        gateway.connect("alice").await;
        gateway.admin("POST", "/api/connections/calendar/billing/refresh").send().await.expect_status(200);
        let shown = gateway.connection("calendar", "billing").await;
        let moment = |key: &str| humantime::parse_rfc3339(shown[key].as_str().unwrap()).expect("RFC 3339");
        let lives = moment("expires_at").duration_since(moment("obtained_at")).unwrap().as_secs();
        assert_eq!(shown["expiry"], "presumed");
        let (asked, about) = if wanted { (2, 115..=125) } else { (0, 3600..=3600) };
        assert!(about.contains(&lives), "{lives}");
        assert_eq!(scene.provider.count("introspection").await, asked, "once a token");
    }
}

/// Fifty people who consented, and the gateway between.
async fn fifty(scene: &mut Scene) -> (Gateway, Vec<String>) {
    name_subjects(scene);
    let gateway = scene.config.start().await;
    let people: Vec<String> = (0..50).map(|n| format!("person-{n}")).collect();
    for ten in people.chunks(10) {
        futures_util::future::join_all(ten.iter().map(|person| connect(&gateway, person))).await;
    }
    (gateway, people)
}

async fn connect(gateway: &Gateway, person: &str) {
    let wanted = json!({ "profile": "calendar", "subject": person });
    let link = gateway.admin("POST", "/api/connect-sessions").json(&wanted).send().await;
    let link = link.expect_status(200).json()["url"].as_str().unwrap().to_owned();
    let page = Browser::new().consent(&link, person, &gateway.config.callback()).await;
    page.response.expect_status(200);
}

async fn call_as(gateway: &Gateway, person: &str) -> crate::support::http::Response {
    gateway.request("GET", "/calendar/events").header("Claviger-Subject", person).send().await
}

const ALL: &str = "/api/connections?profile=calendar";

#[tokio::test]
async fn everything_of_a_profile_is_revoked_while_calls_run() {
    let mut scene = Scene::person().await;
    let (gateway, people) = fifty(&mut scene).await;
    let mut tokens = Vec::new();
    for person in &people {
        let echo = call_as(&gateway, person).await.expect_status(200).json();
        tokens.push(echo["token"].as_str().unwrap().to_owned());
    }
    assert_eq!(scene.provider.grants().await, 50);
    for query in ["", "?profile=calendar&profile=calendar", "?profile=calendar&subject=x", "?limit=1"] {
        let answer = gateway.admin("DELETE", &format!("/api/connections{query}")).send().await;
        answer.expect_problem(400, "bad_request");
    }
    gateway.admin("DELETE", "/api/connections?profile=none").send().await.expect_problem(404, "not_found");
    assert_eq!(scene.provider.grants().await, 50);

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let callers: Vec<_> = people
        .iter()
        .step_by(10)
        .map(|person| {
            let url = gateway.proxy_url("/calendar/events");
            let (person, stopped) = (person.clone(), stopped.clone());
            tokio::spawn(async move {
                while !*stopped.borrow() {
                    let call = crate::support::http::get(&url)
                        .basic("billing", crate::support::gateway_config::PASSWORD)
                        .header("Claviger-Subject", &person)
                        .send()
                        .await;
                    // 401 is the upstream's: a token that had ended on its way.
                    assert!(matches!(call.status, 200 | 401 | 403), "{}: {}", call.status, call.text());
                }
            })
        })
        .collect();
    let told = gateway.admin("DELETE", ALL).send().await.expect_status(200).json();
    assert_eq!(told, json!({ "revoked": 50, "failed": 0, "not_told": 0 }));
    for person in &people {
        call_as(&gateway, person).await.expect_problem(403, "authorization_required");
    }
    stop.send(true).unwrap();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(scene.provider.grants().await, 0);
    for token in &tokens {
        assert_eq!(scene.provider.describe_token(token).await["live"], false);
    }
    let gateway = gateway.restart().await;
    let told = gateway.admin("DELETE", ALL).send().await.expect_status(200).json();
    assert_eq!(told, json!({ "revoked": 0, "failed": 0, "not_told": 0 }), "it can be repeated");
    gateway.assert_no_secret_in_log(&tokens);
}

#[tokio::test]
async fn a_profile_is_forgotten_even_if_the_provider_is_down() {
    let mut scene = Scene::person().await;
    let (gateway, people) = fifty(&mut scene).await;
    let Scene { provider, config, .. } = scene;
    drop(provider);
    let refused = config.run_with("connections", &["revoke-all", "--profile", "calendar"]).await;
    assert!(!refused.status.success() && refused.text().contains("--yes"), "{}", refused.text());
    call_as(&gateway, &people[0]).await;
    assert_eq!(gateway.connection("calendar", &people[0]).await["state"], "active");

    let done = config.run_with("connections", &["revoke-all", "--profile", "calendar", "--yes"]).await;
    assert!(done.status.success(), "{}", done.text());
    let told: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(told, json!({ "revoked": 0, "failed": 0, "not_told": 50 }));
    for person in &people {
        call_as(&gateway, person).await.expect_problem(403, "authorization_required");
    }
    let listed = gateway.admin("GET", ALL).send().await.expect_status(200).json();
    assert_eq!(listed["connections"], json!([]));
}
