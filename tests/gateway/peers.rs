//! The other tests are worth what their peers are worth.

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::http;
use crate::support::oidc_provider::{CLIENT_SECRET, OidcProvider};
use crate::support::scripted_as::{Answer, ScriptedAs};
use crate::support::upstream::Upstream;

#[tokio::test]
async fn a_person_consents_at_the_provider_and_its_tokens_live_until_revoked() {
    let callback = "http://127.0.0.1:9/callback";
    let provider = OidcProvider::builder(callback).start().await;
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("client_id", "confidential"), ("response_type", "code"), ("state", "s")])
        .extend_pairs([("redirect_uri", callback), ("scope", "openid calendar")])
        .finish();
    let start = format!("{}/auth?{query}", provider.issuer);
    let back = Browser::new().consent_until(&start, "alice", callback).await;
    let back: std::collections::BTreeMap<_, _> =
        url::Url::parse(&back).unwrap().query_pairs().into_owned().collect();
    assert_eq!(back["iss"], provider.issuer);
    assert_eq!(back["state"], "s");

    let secret: String = url::form_urlencoded::byte_serialize(CLIENT_SECRET.as_bytes()).collect();
    let fields = [("grant_type", "authorization_code"), ("code", &back["code"]), ("redirect_uri", callback)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let token_endpoint = format!("{}/token", provider.issuer);
    let request = http::request("POST", &token_endpoint).basic("confidential", &secret).form(&fields);
    let answer = request.send().await.expect_status(200).json();
    let token = answer["access_token"].as_str().unwrap();
    assert!(answer["refresh_token"].is_string() && answer["id_token"].is_string(), "{answer}");
    assert_eq!(provider.describe_token(token).await["account"], "alice");
    assert_eq!((provider.count("authorization_code").await, provider.count("total").await), (1, 1));

    let upstream = Upstream::start().await;
    upstream.check_at(&provider.issuer);
    let call = http::get(&upstream.url()).bearer(token);
    call.clone().send().await.expect_status(200);
    provider.revoke_all_grants().await;
    call.send().await.expect_status(401);
}

#[tokio::test]
async fn the_scripted_server_finds_out_a_client_that_forgot_a_token_it_used() {
    let server = ScriptedAs::start().await;
    let url = format!("http://{}/token", server.address);
    let send = async |fields: &[(&str, &str)]| {
        let fields: Vec<_> = fields.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        http::request("POST", &url).form(&fields).send().await
    };
    let refresh =
        async |token| send(&[("grant_type", "refresh_token"), ("refresh_token", token)]).await.status;
    send(&[("grant_type", "authorization_code")]).await.expect_status(200);
    assert_eq!(refresh("planted-refresh-1").await, 200);
    assert_eq!(refresh("planted-refresh-1").await, 200, "the answer may have been lost");
    assert_eq!(refresh("planted-refresh-3").await, 200);
    assert_eq!(refresh("planted-refresh-1").await, 400, "3 was used, so 1 was replaced before");
    server.next(Answer::Json(429, vec![("Retry-After", "7")], json!({})));
    let answer = send(&[("grant_type", "refresh_token")]).await.expect_status(429);
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!(server.count(), 6);
}
