//! Authorization requests that are pushed before the browser is sent away (RFC 9126).

use claviger_actors::flow::error::FlowError;
use claviger_actors::flow::messages::AuthorizationRedirect;
use claviger_actors::protocol::json_template::JsonTemplate;
use claviger_actors::protocol::template::Template;
use claviger_actors::registration::ClientRegistration;
use http::header::AUTHORIZATION;
use serde_json::json;

use crate::world::*;

fn pushing(person: &mut ClientRegistration) {
    person.authorization.pushed = true;
    let par = "https://as.example/par".parse().unwrap();
    person.provider.endpoints.pushed_authorization_request_endpoint = Some(par);
}

async fn begin(gateway: &GatewayHandle) -> Result<AuthorizationRedirect, FlowError> {
    gateway.begin_authorization(alice(), None, None, CallContext::none()).await
}

#[test]
fn everything_is_pushed_in_the_clients_name_and_the_browser_carries_a_reference() {
    run(async {
        let world = World::with(|person| {
            pushing(person);
            person.authorization.login_hint = Some(Template::parse("{subject}@corp.example").unwrap());
            let details = json!([{ "type": "account", "owner": "{subject}" }]);
            person.authorization.authorization_details = Some(JsonTemplate::parse(details).unwrap());
            person.authorization.resources = vec!["https://a.example/".into(), "https://b.example/".into()];
        });
        let gateway = world.start().await;
        let redirect = begin(&gateway).await.unwrap();
        assert_eq!(
            redirect.url.as_str(),
            "https://as.example/authorize?client_id=client&request_uri=urn%3Aexample%3Apushed"
        );
        let [sent] = world.transport.sent().try_into().unwrap();
        assert_eq!((sent.method.as_str(), sent.url.path()), ("POST", "/par"));
        assert!(sent.headers[AUTHORIZATION].to_str().unwrap().starts_with("Basic "));
        assert_eq!(sent.param("response_type"), "code");
        assert_eq!(sent.param("client_id"), "client");
        assert_eq!(sent.param("code_challenge_method"), "S256");
        assert_eq!(sent.param("login_hint"), "alice@corp.example");
        assert_eq!(sent.param("authorization_details"), r#"[{"owner":"alice","type":"account"}]"#);
        let body = String::from_utf8_lossy(&sent.body).into_owned();
        assert!(
            body.contains("&resource=https%3A%2F%2Fa.example%2F&resource=https%3A%2F%2Fb.example%2F"),
            "{body}"
        );
        assert!(sent.param("client_secret").is_empty() && sent.param("request_uri").is_empty());
    });
}

#[test]
fn a_refused_or_failing_push_begins_no_flow_and_repeats_nothing_secret() {
    run(async {
        let world = World::with(pushing);
        let gateway = world.start().await;
        let planned = [
            (
                400,
                json!({ "error": "invalid_request", "error_description": "no such scope" }),
                "no such scope",
            ),
            (401, json!({ "error": "invalid_client" }), "invalid_client"),
            (400, json!({ "error": "invalid_grant" }), "invalid_grant"),
            (503, json!({}), "status 503"),
            (201, json!({ "request_uri": "urn:x" }), "expires_in"),
        ];
        for (status, body, said) in planned {
            world.server.plan(Answer::json(status, body));
            let error = begin(&gateway).await.unwrap_err().to_string();
            assert!(error.contains("person") && error.contains(said), "{error}");
            assert!(!error.contains("client-secret"), "{error}");
        }
        assert_eq!(gateway.inspect().await.iter().filter(|actor| actor.id.len() == 8).count(), 0);
        assert!(begin(&gateway).await.is_ok());
    });
}

#[test]
fn without_an_endpoint_it_says_whose_key_needs_one_and_what_to_do() {
    run(async {
        let world = World::with(|person| person.authorization.pushed = true);
        let gateway = world.start().await;
        let error = begin(&gateway).await.unwrap_err().to_string();
        for word in ["person", "`par`", "pushed_authorization_request_endpoint", "configure it"] {
            assert!(error.contains(word), "{word} in {error}");
        }
        assert_eq!(world.transport.count(), 0);
    });
}

#[test]
fn metadata_that_requires_it_is_enough() {
    run(async {
        let world = World::with(|person| person.provider.issuer = Some("https://as.example".into()));
        world.server.document(
            "/.well-known/openid-configuration",
            json!({
                "issuer": "https://as.example",
                "authorization_endpoint": "https://as.example/authorize",
                "token_endpoint": "https://as.example/token",
                "pushed_authorization_request_endpoint": "https://as.example/par",
                "require_pushed_authorization_requests": true,
            }),
        );
        let gateway = world.start().await;
        assert!(begin(&gateway).await.unwrap().url.query().unwrap().contains("request_uri="));
    });
}

#[test]
fn what_a_link_cannot_know_is_named() {
    run(async {
        let world = World::with(|person| {
            person.authorization.acr_values = Some(Template::parse("{header.x-acr}").unwrap());
        });
        let gateway = world.start().await;
        let error = begin(&gateway).await.unwrap_err();
        assert!(matches!(error, FlowError::Call { .. }), "{error}");
        assert!(
            error.to_string().contains("acr_values: the call has no value for {header.x-acr}"),
            "{error}"
        );
    });
}
