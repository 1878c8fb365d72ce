//! What a provider's metadata says, held against what a profile wants: told at the first call.

use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::support::gateway_config::GatewayConfig;
use crate::support::http::{self, Side};
use crate::support::scripted_as::{Answer, ScriptedAs};
use crate::support::upstream::Upstream;

/// A metadata document at its well-known place, for as long as the test runs.
async fn issuer(document: impl FnOnce(&str) -> Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let document = document(&issuer).to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let document = document.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Ok(Some(_)) = http::read_message(&mut stream, Side::Server).await {
                    let fields = [("Content-Type", "application/json")];
                    let answer = http::response_bytes(200, &fields, document.as_bytes());
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    issuer
}

/// A gateway whose profile `calendar` has these lines, at a provider whose metadata has these members.
async fn configured(
    server: &ScriptedAs,
    upstream: &Upstream,
    grant: &str,
    lines: &str,
    members: Value,
) -> GatewayConfig {
    let base = format!("http://{}", server.address);
    let issuer = issuer(|issuer| {
        let mut document = json!({
            "issuer": issuer, "authorization_endpoint": format!("{base}/authorize"),
            "token_endpoint": format!("{base}/token"), "jwks_uri": format!("{base}/jwks"),
        });
        for (name, value) in members.as_object().unwrap() {
            document[name] = value.clone();
        }
        document
    })
    .await;
    let mut config = GatewayConfig::new();
    config.section("providers.script", &format!("issuer = \"{issuer}\""));
    config.profile("calendar", "script", "gateway", grant, r#"["calendar"]"#);
    config.extend("profiles.calendar", lines);
    config.call_through("calendar", upstream);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_lacks_is_told_at_the_first_call_with_profile_key_and_remedy() {
    let cases: [(&str, &str, Value, &[&str]); 9] = [
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
            json!({}),
            &["dpop_signing_alg_values_supported", "take `dpop` out"],
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
        let (server, upstream) = (ScriptedAs::start().await, Upstream::start().await);
        let config = configured(&server, &upstream, grant, lines, members.clone()).await;
        let gateway = config.start().await;
        // The second call is no better off than the first.
        for _ in 0..2 {
            let answer = gateway.call("/calendar/events").await;
            let case = format!("{grant} {lines} {members}: {}", answer.text());
            let problem = answer.expect_problem(502, "token_unavailable");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.starts_with("profile calendar: "), "{case}");
            told.iter().for_each(|words| assert!(detail.contains(words), "{words:?} in {case}"));
        }
        assert_eq!((server.count(), upstream.calls()), (0, 0), "{grant} {lines} {members}");
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
        let (server, upstream) = (ScriptedAs::start().await, Upstream::start().await);
        let mut config = configured(&server, &upstream, "client_credentials", "", members).await;
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
    let upstream = Upstream::start().await;
    let mut config = GatewayConfig::new();
    config.section("providers.script", "issuer = \"http://127.0.0.1:9\"");
    config.profile("calendar", "script", "gateway", "authorization_code", r#"["calendar"]"#);
    config.call_through("calendar", &upstream);
    let gateway = config.start().await;
    gateway.authorization_url("/calendar/events").await;
}
