//! What real servers do and expect that no other file here has.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_actors::protocol::signing_key::SigningKey;
use claviger_actors::testing::keys;
use serde_json::{Value, json};

use crate::client_auth::verified;
use crate::support::browser::Browser;
use crate::support::http::get;
use crate::support::scene::ScriptedScene;
use crate::support::scripted_as::Answer;

/// The claims of a JWT, whoever signed it.
fn claims(jwt: &str) -> Value {
    let claims = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&claims).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn double_slashes_of_an_endpoint_stay_in_requests_audiences_and_proofs() {
    let mut scene = ScriptedScene::machine().await;
    let endpoint = format!("http://{}//oauth//token", scene.server.address);
    scene.config.section("providers.script", &format!("token_endpoint = \"{endpoint}\""));
    let file = scene.config.folder().join("key.pem");
    std::fs::write(&file, keys::P256).unwrap();
    let key = format!("signing_key = {{ file = {:?} }}", file.display().to_string());
    scene.config.section(
        "profiles.calendar",
        &format!(
            "provider = \"script\"\nclient_id = \"gateway\"\ngrant = \"jwt_bearer\"\ndpop = true\n\
             client_auth = \"private_key_jwt\"\nclient_assertion_audience = \"token_endpoint\"\n{key}"
        ),
    );
    scene.config.section("profiles.calendar.assertion", &key);
    let token = json!({ "access_token": "planted-access", "token_type": "dpop", "expires_in": 3600 });
    scene.server.otherwise(Answer::ok(token));
    let gateway = scene.config.start().await;
    // The API here knows no bound tokens; the token request is what this is about.
    gateway.call("/calendar/events").await;
    let request = &scene.server.requests()[0];
    assert_eq!(request.target(), "//oauth//token");
    let signer = SigningKey::load(keys::P256, None, None).unwrap();
    for assertion in ["assertion", "client_assertion"] {
        assert_eq!(verified(&request.form()[assertion], &signer)["aud"], endpoint, "{assertion}");
    }
    assert_eq!(claims(request.headers.get("dpop").unwrap())["htu"], endpoint);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machines_first_call_costs_one_token_request_and_one_for_metadata_and_the_next_none() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.section("providers.script", &scene.server.publish(&json!({})));
    let gateway = scene.config.start().await;
    assert_eq!(
        (scene.server.metadata_requests(), scene.server.count()),
        (0, 0),
        "nothing before it is needed"
    );
    for _ in 0..5 {
        gateway.token_used().await;
    }
    assert_eq!((scene.server.metadata_requests(), scene.server.count()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_calls_on_a_machines_ended_token_make_one_token_request() {
    let scene = ScriptedScene::machine().await;
    scene.server.next(Answer::token("planted-first", 1));
    let slow = Answer::After(Duration::from_millis(300), Box::new(Answer::token("planted-second", 3600)));
    scene.server.otherwise(slow);
    let gateway = scene.config.start().await;
    assert_eq!(gateway.token_used().await, "planted-first");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    for answer in gateway.call_at_once("/calendar/events", 50).await {
        assert_eq!(answer.expect_status(200).json()["token"], "planted-second");
    }
    assert_eq!(scene.server.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn iss_is_demanded_only_where_it_is_announced_and_compared_wherever_it_comes() {
    let announced = json!({ "authorization_response_iss_parameter_supported": true });
    for (members, iss, status) in [
        (json!({}), None, 200),
        (json!({}), Some("own"), 200),
        (json!({}), Some("https://other.example"), 400),
        (announced.clone(), None, 400),
        (announced, Some("own"), 200),
    ] {
        let mut scene = ScriptedScene::person().await;
        scene.config.section("providers.script", &scene.server.publish(&members));
        let own = format!("http://{}", scene.server.address);
        let iss = iss.map(|iss| if iss == "own" { own.as_str() } else { iss });
        scene.server.callback_params(&iss.map(|iss| ("iss", iss)).into_iter().collect::<Vec<_>>());
        let gateway = scene.config.start().await;
        let link = gateway.authorization_url("/calendar/events").await;
        let page = Browser::new().consent(&link, "alice", &scene.config.callback()).await;
        assert_eq!(page.response.status, status, "{members} {iss:?}");
        assert_eq!(scene.server.count(), usize::from(status == 200), "{members} {iss:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_that_brought_no_refresh_token_is_followed_by_a_new_one() {
    let mut scene = ScriptedScene::machine().await;
    let file = scene.config.folder().join("key.pem");
    std::fs::write(&file, keys::P256).unwrap();
    let profile =
        "provider = \"script\"\nclient_id = \"gateway\"\ngrant = \"jwt_bearer\"\nclient_auth = \"none\"";
    scene.config.section("profiles.calendar", profile);
    let key = format!("signing_key = {{ file = {:?} }}", file.display().to_string());
    scene.config.section("profiles.calendar.assertion", &key);
    scene.server.next(Answer::token("planted-first", 1));
    scene.server.otherwise(Answer::token("planted-second", 3600));
    let gateway = scene.config.start().await;
    assert_eq!(gateway.token_used().await, "planted-first");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(gateway.token_used().await, "planted-second");
    let forms = scene.server.forms();
    let [first, second] = forms.as_slice() else { panic!("{} token requests", forms.len()) };
    assert_eq!(first["grant_type"], second["grant_type"]);
    assert_ne!(claims(&first["assertion"])["jti"], claims(&second["assertion"])["jti"]);
    let published = get(&gateway.public_url("/jwks.json")).send().await.expect_status(200).json();
    assert_eq!(published["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_need_more_get_one_token_for_all_of_it() {
    let mut scene = ScriptedScene::machine().await;
    scene.server.otherwise(Answer::token("planted-access", 3600));
    for (name, scopes) in [("reader", "[]"), ("writer", "[\"write\"]")] {
        let route = format!(
            "path = \"/{name}\"\nupstream = \"{}/api\"\nprofile = \"calendar\"\nscopes = {scopes}",
            scene.upstream.url()
        );
        scene.config.section(&format!("routes.{name}"), &route);
    }
    scene.config.caller("billing", "[\"reader\", \"writer\"]").remove("routes.calendar");
    let gateway = scene.config.start().await;
    for path in ["/reader/x", "/writer/x", "/reader/x", "/writer/x"] {
        gateway.call(path).await.expect_status(200);
    }
    let forms = scene.server.forms();
    let asked: Vec<&str> = forms.iter().map(|form| form["scope"].as_str()).collect();
    assert_eq!(asked, ["calendar", "calendar write"]);
}
