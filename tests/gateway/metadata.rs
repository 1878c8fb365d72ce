//! What a provider's metadata says, held against what a profile wants: told at the first call.

use serde_json::{Value, json};

use crate::support::scene::ScriptedScene;
use crate::support::scripted_as::Answer;

/// The profile `calendar` with these lines, at a provider whose metadata has these members.
async fn scene(grant: &str, lines: &str, members: &Value) -> ScriptedScene {
    let mut scene = ScriptedScene::machine().await;
    scene.config.section("providers.script", &scene.server.publish(members));
    scene.config.profile("calendar", "script", "gateway", grant, r#"["calendar"]"#);
    scene.config.extend("profiles.calendar", lines);
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_lacks_is_told_at_the_first_call_with_profile_key_and_remedy() {
    let cases: [(&str, &str, Value, &[&str]); 8] = [
        (
            "client_credentials",
            "",
            json!({ "issuer": "https://other.example" }),
            &["https://other.example", "`issuer`"],
        ),
        (
            "authorization_code",
            "",
            json!({ "issuer": "https://other.example" }),
            &["https://other.example", "`issuer`"],
        ),
        (
            "client_credentials",
            "",
            json!({ "grant_types_supported": ["authorization_code", "refresh_token"] }),
            &["grant_types_supported", "authorization_code, refresh_token", "set `grant`", "`grants`"],
        ),
        (
            "authorization_code",
            "",
            json!({ "grant_types_supported": ["client_credentials"] }),
            &["grant_types_supported", "set `grant`"],
        ),
        (
            "client_credentials",
            "",
            json!({ "token_endpoint_auth_methods_supported": ["private_key_jwt"] }),
            &["private_key_jwt", "client_secret_basic", "set `client_auth`"],
        ),
        (
            "client_credentials",
            "dpop = true",
            json!({ "dpop_signing_alg_values_supported": ["RS256"] }),
            &["ES256", "RS256", "set dpop_signing_alg"],
        ),
        (
            "authorization_code",
            "par = true",
            json!({}),
            &["pushed_authorization_request_endpoint", "take `par` out"],
        ),
        ("device_code", "", json!({}), &["device_authorization_endpoint", "configure it"]),
    ];
    for (grant, lines, members, told) in cases {
        let scene = scene(grant, lines, &members).await;
        let gateway = scene.config.start().await;
        // The second call is no better off than the first.
        for _ in 0..2 {
            let answer = gateway.call("/calendar/events").await;
            let case = format!("{grant} {lines} {members}: {}", answer.text());
            let problem = answer.expect_problem(502, "token_unavailable");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.starts_with("profile calendar: "), "{case}");
            told.iter().for_each(|words| assert!(detail.contains(words), "{words:?} in {case}"));
        }
        assert_eq!((scene.server.count(), scene.upstream.calls()), (0, 0), "{grant} {lines} {members}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_does_not_say_and_what_is_configured_is_no_fault() {
    let lists = json!({
        "grant_types_supported": ["authorization_code"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
    });
    let public = "client_auth = \"none\"";
    // Lists that are not there; public clients, which few servers announce; an endpoint given by hand.
    for (provider, method, members) in [
        ("", None, json!({})),
        ("", Some(public), json!({ "token_endpoint_auth_methods_supported": ["client_secret_basic"] })),
        (
            "grants = [\"client_credentials\"]",
            None,
            json!({ "grant_types_supported": ["authorization_code"] }),
        ),
        ("token_endpoint", None, lists),
    ] {
        let ScriptedScene { server, upstream: _upstream, mut config } =
            scene("client_credentials", "", &members).await;
        let by_hand = format!("token_endpoint = \"http://{}/token\"", server.address);
        config.extend("providers.script", if provider == "token_endpoint" { &by_hand } else { provider });
        if let Some(method) = method {
            let profile = "provider = \"script\"\nclient_id = \"gateway\"\ngrant = \"client_credentials\"";
            config.section("profiles.calendar", &format!("{profile}\n{method}"));
        }
        server.otherwise(Answer::token("planted-access", 3600));
        let gateway = config.start().await;
        assert_eq!(gateway.token_used().await, "planted-access", "{provider} {method:?}");
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_told_to_consent_although_the_provider_cannot_be_reached() {
    let mut scene = scene("authorization_code", "", &json!({})).await;
    scene.config.section("providers.script", "issuer = \"http://127.0.0.1:9\"");
    let gateway = scene.config.start().await;
    gateway.authorization_url("/calendar/events").await;
}
