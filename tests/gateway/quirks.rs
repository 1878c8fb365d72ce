//! Authorization servers and APIs that do things their own way, as the catalogue says of them.

use serde_json::{Value, json};

use crate::support::scene::ScriptedScene;
use crate::support::scripted_as::Answer;
use crate::support::upstream::Upstream;

/// The header of this name that the upstream got.
fn header(echo: &Value, name: &str) -> Vec<String> {
    let headers = echo["headers"].as_array().unwrap().iter();
    let of_name = headers.filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    of_name.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_json_and_answers_in_its_own_way_is_understood() {
    let mut scene = ScriptedScene::person().await;
    scene.config.extend(
        "providers.script",
        r#"scope_separator = ","
        scope_parameter = "user_scope"
        token_request_format = "json"
        token_request_headers = { Notion-Version = "2022-06-28" }
        client_id_parameter = "client_key"
        client_secret_parameter = "key_secret"
        token_types = ["user"]
        callback_params = ["realmId"]
        response = { access_token = "authed_user.access_token", scope = "authed_user.scope", token_type = "authed_user.kind" }
        authorize_params = { access_type = "offline" }"#,
    );
    let profile = "provider = \"script\"\nclient_id = \"gateway\"\ngrant = \"authorization_code\"\n\
                   scopes = [\"b\", \"a\"]\nclient_auth = \"client_secret_post\"\n\
                   client_secret = { env = \"TEST_CLIENT_SECRET\" }";
    scene.config.section("profiles.calendar", profile);
    scene.server.callback_params(&[("realmId", "4620816365"), ("other", "x")]);
    scene.server.next(Answer::ok(json!({
        "ok": true,
        "access_token": "planted-bot-token",
        "authed_user": {"access_token": "planted-user-token", "scope": "a,b", "kind": "user", "id": "U1"},
        "expires_in": "3600",
    })));
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    assert_eq!(gateway.token_used().await, "planted-user-token");

    let asked = scene.server.authorization_request();
    assert_eq!((asked["user_scope"].as_str(), asked["client_key"].as_str()), ("a,b", "gateway"));
    assert_eq!(asked["access_type"], "offline");
    assert!(!asked.contains_key("scope") && !asked.contains_key("client_id"), "{asked:?}");
    let sent = scene.server.requests().remove(0);
    let body: Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!((&body["grant_type"], &body["client_key"]), (&json!("authorization_code"), &json!("gateway")));
    assert!(body["key_secret"].is_string() && body["client_secret"].is_null(), "{body}");
    assert_eq!(sent.headers.get("notion-version"), Some("2022-06-28"));
    assert_eq!(sent.headers.get("content-type"), Some("application/json"));
    let tokens = ["planted-bot-token", "planted-user-token"].map(str::to_owned);
    gateway.assert_no_secret_in_log(&tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_an_answer_too_and_an_own_code_ends_the_grant() {
    let mut scene = ScriptedScene::person().await;
    scene.config.extend("providers.script", "error_meanings = { token_revoked = \"invalid_grant\" }");
    let form = "access_token=planted-form-token&scope=repo%2Cgist&token_type=bearer&refresh_token=planted-r&expires_in=3600";
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    scene
        .server
        .next(Answer::Raw(format!("{head}Content-Length: {}\r\n\r\n{form}", form.len()).into_bytes()));
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    assert_eq!(gateway.token_used().await, "planted-form-token");

    scene.server.next(Answer::ok(json!({"ok": false, "error": "token_revoked"})));
    scene.upstream.refuse("planted-form-token");
    let answer = gateway.call("/calendar/events").await.expect_status(403).json();
    assert_eq!(answer["code"], "authorization_required", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_the_query_is_in_no_log() {
    let mut scene = ScriptedScene::machine().await;
    let profile = scene.config.toml().contains("client_secret_basic");
    assert!(profile, "the scene's own method is another");
    scene.config.env.insert("CLAVIGER_PROFILES__CALENDAR__CLIENT_AUTH".into(), "client_secret_query".into());
    scene.config.env.insert("CLAVIGER_LOG".into(), "trace".into());
    scene.server.next(Answer::error(400, "own_code"));
    let gateway = scene.config.start().await;
    let answer = gateway.call("/calendar/events").await.expect_status(502);
    assert!(!answer.text().contains("planted"), "{}", answer.text());
    let sent = scene.server.requests().remove(0);
    assert_eq!(sent.query()["client_id"], "gateway");
    assert!(!sent.query()["client_secret"].is_empty() && !sent.form().contains_key("client_secret"));
    // The whole log is looked through for the client's secret.
    gateway.assert_no_secret_in_log(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_rides_in_the_apis_own_header() {
    let mut scene = ScriptedScene::machine().await;
    let own = "access_token_header = \"X-Shopify-Access-Token\"\naccess_token_scheme = \"\"";
    scene.config.extend("providers.script", own);
    scene.server.otherwise(Answer::token("planted-own-token", 3600));
    let upstream = crate::support::raw_upstream::RawUpstream::start(|mut peer| async move {
        while let Some(head) = peer.head().await {
            peer.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len())).await;
        }
    })
    .await;
    let route =
        format!("path = \"/calendar\"\nupstream = \"http://{}\"\nprofile = \"calendar\"", upstream.address);
    scene.config.section("routes.calendar", &route);
    let gateway = scene.config.start().await;
    let call = gateway.request("GET", "/calendar/x").header("X-Shopify-Access-Token", "forged");
    let head = call.header("x_shopify_access_token", "forged").send().await.expect_status(200).text();
    let head = head.to_lowercase();
    assert!(head.contains("x-shopify-access-token: planted-own-token\r\n"), "{head}");
    assert!(!head.contains("forged") && !head.contains("authorization:"), "{head}");
}

/// A gateway whose route leads where the token answer says, to `hosts`.
async fn templated(hosts: &str) -> ScriptedScene {
    let mut scene = ScriptedScene::machine().await;
    let route = format!(
        "path = \"/calendar\"\nupstream = \"{{token.instance_url}}/services/data\"\n\
         upstream_hosts = {hosts}\nprofile = \"calendar\""
    );
    scene.config.section("routes.calendar", &route);
    scene
}

fn with_instance(token: &str, url: &str) -> Answer {
    let answer =
        json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600, "instance_url": url});
    Answer::ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_answer_names_the_upstream_within_the_hosts_allowed() {
    let (one, other) = (Upstream::start().await, Upstream::start().await);
    let mut scene = templated(&format!("[\"{}\", \"{}\"]", one.address, other.address)).await;
    scene.config.caller("payroll", "[\"calendar\"]");
    scene.server.next(with_instance("planted-one", &one.url()));
    scene.server.next(with_instance("planted-two", &format!("{}/base/", other.url())));
    let gateway = scene.config.start().await;

    let echo = gateway.call("/calendar/me?x=1").await.expect_status(200).json();
    assert_eq!(echo["target"], "/services/data/me?x=1");
    assert_eq!(header(&echo, "host"), [one.address.to_string()]);
    let url = gateway.proxy_url("/calendar/me");
    let call = crate::support::http::get(&url).basic("payroll", crate::support::gateway_config::PASSWORD);
    let echo = call.send().await.expect_status(200).json();
    assert_eq!(echo["target"], "/base/services/data/me");
    assert_eq!((one.tokens(), other.tokens()), (vec!["planted-one".into()], vec!["planted-two".into()]));

    // What a token set is bound to outlives a restart, and the member that names the upstream, too.
    let gateway = gateway.restart().await;
    gateway.call("/calendar/me").await.expect_status(200);
    assert_eq!((one.calls(), scene.server.count()), (2, 2));
    let view = gateway.connection("calendar", "billing").await;
    let bound = view["upstreams"][0].as_str().unwrap();
    assert!(bound.starts_with("{token.instance_url} at "), "{view}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_goes_to_a_host_that_the_route_does_not_allow() {
    let (allowed, elsewhere) = (Upstream::start().await, Upstream::start().await);
    let scene = templated(&format!("[\"{}\"]", allowed.address)).await;
    scene.server.next(with_instance("planted-one", &elsewhere.url()));
    let gateway = scene.config.start().await;
    let answer = gateway.call("/calendar/me").await.expect_status(502).json();
    assert_eq!(answer["code"], "token_unavailable", "{answer}");
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains("which is not among the route's `upstream_hosts`"), "{detail}");
    assert_eq!((allowed.calls(), elsewhere.calls()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_names_no_upstream_is_told_as_such() {
    let allowed = Upstream::start().await;
    let scene = templated(&format!("[\"{}\"]", allowed.address)).await;
    scene.server.next(Answer::token("planted-one", 3600));
    let gateway = scene.config.start().await;
    let answer = gateway.call("/calendar/me").await.expect_status(502).json();
    assert_eq!(answer["code"], "token_unavailable", "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("no usable member `instance_url`"), "{answer}");
    assert_eq!(allowed.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_list_of_hosts_gets_no_token_of_before() {
    let (allowed, further) = (Upstream::start().await, Upstream::start().await);
    let mut scene = ScriptedScene::person().await;
    let route = |hosts: &str| {
        format!(
            "path = \"/calendar\"\nupstream = \"{{token.instance_url}}\"\nupstream_hosts = {hosts}\nprofile = \"calendar\""
        )
    };
    scene.config.section("routes.calendar", &route(&format!("[\"{}\"]", allowed.address)));
    scene.server.next(with_instance("planted-one", &allowed.url()));
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    gateway.call("/calendar/me").await.expect_status(200);

    let (_, _, mut config) = gateway.stop().await;
    config.section("routes.calendar", &route(&format!("[\"{}\", \"{}\"]", allowed.address, further.address)));
    let gateway = config.start().await;
    let answer = gateway.call("/calendar/me").await.expect_status(403).json();
    assert_eq!(answer["code"], "authorization_required", "{answer}");
    assert_eq!((allowed.calls(), further.calls()), (1, 0));
}
