//! gRPC through the gateway: HTTP/2 without TLS on either side, and all that it needs of trailers,
//! streams in both directions and resets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::gateway_config::PASSWORD;
use crate::support::grpc::{self, GrpcServer};
use crate::support::scene::Scene;

const OK: u64 = 0;
const CANCELLED: u64 = 1;
const NOT_FOUND: u64 = 5;
const UNAUTHENTICATED: u64 = 16;

/// The codes and payloads of a call's outcome.
fn messages(call: &Value) -> Vec<&Value> {
    call["messages"].as_array().unwrap().iter().map(|message| &message["payload"]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_call_passes_with_the_token() {
    let server = GrpcServer::start().await;
    let mut scene = Scene::machine_at(|provider| provider).await;
    let route = format!(
        "path = \"/claviger.test.Echo\"\nupstream = \"http://{}/claviger.test.Echo\"\nprotocol = \"http2\"\n\
         profile = \"calendar\"\nsubject = \"caller\"",
        server.address
    );
    scene.config.section("routes.echo", &route).caller("billing", r#"["calendar", "echo"]"#);
    scene.config.extend("listeners.proxy", "h2c = true");
    let gateway = scene.config.start().await;
    let credential = format!("Basic {}", STANDARD.encode(format!("billing:{PASSWORD}")));
    let results = grpc::call(gateway.config.proxy, &credential, &[]).await;

    let unary = &results["unary"];
    assert_eq!((messages(unary), unary["code"].as_u64()), (vec![&json!("hello")], Some(OK)), "{unary}");
    // Metadata either way, text and bytes, at the head and in the trailers.
    let expected = (&json!(["what"]), &json!(["Af4A"]), &json!(["yes"]), &json!(["AP8B"]));
    let (head, trailers) = (&unary["head"], &unary["trailers"]);
    let came = (&head["x-seen"], &head["x-seen-bin"], &trailers["x-done"], &trailers["x-done-bin"]);
    assert_eq!(came, expected, "{unary}");

    // The server sees a token that lives, and nothing of the caller's own.
    let seen = unary["messages"][0]["authorization"].as_str().unwrap();
    let token = seen.strip_prefix("Bearer ").unwrap_or_else(|| panic!("not a bearer token: {seen}"));
    assert_eq!(scene.provider.describe_token(token).await["live"], true);

    let streamed = &results["server_streaming"];
    assert_eq!((messages(streamed).len(), streamed["code"].as_u64()), (5, Some(OK)), "{streamed}");
    assert_eq!(streamed["trailers"]["x-done"], json!(["yes"]), "{streamed}");
    let gathered = &results["client_streaming"];
    assert_eq!(messages(gathered), [&json!("abc")], "{gathered}");
    assert_eq!(
        (&gathered["messages"][0]["number"], &gathered["code"]),
        (&json!(3), &json!(OK)),
        "{gathered}"
    );
    let talk = &results["bidirectional"];
    assert_eq!((messages(talk).len(), talk["code"].as_u64()), (5, Some(OK)), "{talk}");
    for call in [streamed, gathered, talk] {
        for message in call["messages"].as_array().unwrap() {
            assert_eq!(message["authorization"], seen, "{call}");
        }
    }

    for (call, name, before) in [("failing", "x", vec![]), ("failing_late", "y", vec![&json!("y")])] {
        let call = &results[call];
        assert_eq!((messages(call), call["code"].as_u64()), (before, Some(NOT_FOUND)), "{call}");
        assert_eq!(call["details"], format!("nothing called {name} – sorry"), "{call}");
        assert_eq!(call["trailers"]["x-why"], json!(["because"]), "{call}");
    }

    let cancelled = &results["cancelling"];
    assert_eq!((messages(cancelled), cancelled["code"].as_u64()), (vec![&json!("wait")], Some(CANCELLED)));
    assert_eq!(cancelled["cancelled"], 1, "the server does not know: {cancelled}");

    let large = &results["large"];
    assert_eq!((messages(large), large["code"].as_u64()), (vec![&json!(4 * 1024 * 1024)], Some(OK)));
    let at_once: Vec<_> = (0..50).map(|n| json!([OK, n.to_string()])).collect();
    assert_eq!(results["at_once"], json!(at_once));

    // One connection a worker carried all of it.
    let opened: u64 = gateway.actors("proxy").await.iter().filter_map(opened).sum();
    assert!((1..=2).contains(&opened), "{opened} connections to the server");

    let results = grpc::call(gateway.config.proxy, "Basic bm9ib2R5Om5vdGhpbmc=", &["unary"]).await;
    let refused = &results["unary"];
    assert_eq!((messages(refused).len(), refused["code"].as_u64()), (0, Some(UNAUTHENTICATED)), "{refused}");
    gateway.assert_no_secret_in_log(&[token.to_owned()]);
}

fn opened(actor: &Value) -> Option<u64> {
    actor["detail"]["opened_connections"].as_u64()
}
