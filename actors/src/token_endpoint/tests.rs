#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::LazyLock;

use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use serde_json::json;

use super::*;
use crate::client_auth;
use crate::clock::{SystemEntropy, Timestamp};
use crate::grants::refresh_token::refresh_request;
use crate::profile::ClientSource;
use crate::protocol::token::RefreshToken;
use crate::protocol::token_request::RequestFormat;
use crate::registration::Endpoints;
use crate::registration::outbound::Outbound;
use crate::registration::quirks::Quirks;
use crate::registration::settings::{Setting, Settings};
use crate::testing::{Answer, ManualClock, ScriptedTransport, SentRequest, profiles};

const TOKEN: &str = "https://as.example/token";

fn endpoint_over(transport: &Arc<ScriptedTransport>) -> TokenEndpoint {
    let clock = ManualClock::new(Timestamp::from_secs(1_700_000_000));
    TokenEndpoint::new(transport.clone(), clock, Arc::new(SystemEntropy))
}

fn to<'a>(profile: &'a Profile, endpoint: &'a Url) -> Addressee<'a> {
    let ClientSource::Given(client) = &profile.client else { panic!("a client of the configuration") };
    Addressee { profile, client, metadata: &NOTHING, endpoint }
}

/// No server says anything of itself.
static NOTHING: LazyLock<ResolvedMetadata> = LazyLock::new(|| ResolvedMetadata {
    issuer: None,
    endpoints: Endpoints::default(),
    id_token_algs: Vec::new(),
    iss_announced: false,
    document: None,
});

fn profile(client_auth: &str) -> Profile {
    profiles::profile(profiles::registration("acme"), "client_credentials", client_auth)
}

fn refresh() -> TokenRequest {
    refresh_request(&RefreshToken::new("old-refresh-token").unwrap())
}

async fn failure_for(answer: impl Fn(&SentRequest) -> Answer + Send + Sync + 'static) -> Failure {
    let transport = ScriptedTransport::new(answer);
    let outcome = endpoint_over(&transport)
        .request(to(&profile("client_secret_basic"), &profiles::url(TOKEN)), refresh(), &[])
        .await;
    assert_eq!(transport.count(), 1, "nothing is tried again here");
    outcome.expect_err("a failure")
}

#[tokio::test(start_paused = true)]
async fn a_request_carries_grant_parameters_and_proof_within_its_limits() {
    let transport = ScriptedTransport::new(|_| {
        Answer::json(200, json!({"access_token": "new", "token_type": "bearer", "expires_in": 60}))
    });
    let endpoint = endpoint_over(&transport);
    let resource = [("resource", "https://api.example"), ("resource", "https://other.example")];
    let further = resource.map(|(name, value)| (name.to_owned(), Secret::from(value)));
    let response = endpoint
        .request(to(&profile("client_secret_basic"), &profiles::url(TOKEN)), refresh(), &further)
        .await
        .unwrap();
    assert_eq!(response.access_token.expose(), "new");

    let sent = transport.sent().remove(0);
    assert_eq!((sent.method.as_str(), sent.url.as_str()), ("POST", TOKEN));
    assert_eq!(
        sent.body,
        "grant_type=refresh_token&refresh_token=old-refresh-token&resource=https%3A%2F%2Fapi.example"
    );
    assert_eq!(sent.headers[AUTHORIZATION], "Basic Y2xpZW50OmNsaWVudC1zZWNyZXQ=");
    assert_eq!(sent.headers[CONTENT_TYPE], "application/x-www-form-urlencoded");
    assert_eq!((sent.deadline, sent.max_body), (Duration::from_secs(10), MAX_ANSWER));
}

#[tokio::test(start_paused = true)]
async fn configured_parameters_override_neither_grant_nor_client() {
    let transport = ScriptedTransport::new(|_| Answer::json(200, json!({"access_token": "new"})));
    let profile = profile("none");
    let further = ["grant_type", "refresh_token", "client_id", "client_secret", "client_assertion"]
        .map(|name| (name.to_owned(), Secret::from("evil")));
    let endpoint = endpoint_over(&transport);
    endpoint.request(to(&profile, &profiles::url(TOKEN)), refresh(), &further).await.unwrap();
    assert_eq!(
        transport.sent()[0].body,
        "grant_type=refresh_token&refresh_token=old-refresh-token&client_id=client"
    );
}

#[tokio::test(start_paused = true)]
async fn every_refusal_gets_its_class_and_reason() {
    use FailureClass::{ClientMisconfigured, GrantDead, ProviderUnavailable};
    let coded = |code: &str| json!({ "error": code }).to_string();
    let cases = [
        (400, coded("invalid_grant"), GrantDead, Reason::GrantRevoked),
        (200, coded("invalid_grant"), GrantDead, Reason::GrantRevoked),
        (401, coded("invalid_client"), ClientMisconfigured, Reason::ClientRefused),
        (400, coded("unauthorized_client"), ClientMisconfigured, Reason::ClientRefused),
        (401, String::new(), ClientMisconfigured, Reason::ClientRefused),
        (400, coded("invalid_scope"), ClientMisconfigured, Reason::RequestRefused),
        (400, coded("invalid_request"), ClientMisconfigured, Reason::RequestRefused),
        (400, coded("unsupported_grant_type"), ClientMisconfigured, Reason::RequestRefused),
        (400, coded("something_else"), ClientMisconfigured, Reason::RequestRefused),
        (404, "<html>".to_owned(), ClientMisconfigured, Reason::RequestRefused),
        (400, coded("temporarily_unavailable"), ProviderUnavailable, Reason::ProviderError),
        (400, coded("server_error"), ProviderUnavailable, Reason::ProviderError),
        (400, coded("slow_down"), ProviderUnavailable, Reason::ProviderError),
        (500, coded("invalid_grant"), ProviderUnavailable, Reason::ProviderError),
        (503, String::new(), ProviderUnavailable, Reason::ProviderError),
        (429, coded("invalid_grant"), ProviderUnavailable, Reason::ProviderThrottled),
        (200, "<html>".to_owned(), ProviderUnavailable, Reason::MalformedAnswer),
        (200, "{}".to_owned(), ProviderUnavailable, Reason::MalformedAnswer),
        (302, String::new(), ProviderUnavailable, Reason::MalformedAnswer),
    ];
    for (status, body, class, reason) in cases {
        let text = body.clone();
        let failure = failure_for(move |_| Answer::json(status, &text)).await;
        assert_eq!((failure.class, failure.reason), (class, reason), "{status} {body}");
        assert_eq!(failure.retry_after, None);
        assert!(!failure.detail.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn redirects_are_never_followed() {
    let failure = failure_for(|_| Answer::json(307, "").header(LOCATION, "https://evil.example/")).await;
    assert_eq!(failure.reason, Reason::MalformedAnswer);
    assert!(failure.detail.contains("redirects"), "{}", failure.detail);
}

#[tokio::test(start_paused = true)]
async fn the_servers_wish_to_wait_is_passed_on() {
    for status in [429, 503] {
        let failure = failure_for(move |_| Answer::json(status, "").header(RETRY_AFTER, "17")).await;
        assert_eq!(failure.retry_after, Some(Duration::from_secs(17)));
    }
    let failure = failure_for(|_| {
        Answer::json(503, "").header(RETRY_AFTER, "Tue, 14 Nov 2023 22:14:20 GMT") // a minute later
    })
    .await;
    assert_eq!(failure.retry_after, Some(Duration::from_secs(60)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_or_is_too_large_is_the_providers_fault() {
    let slow = failure_for(|_| Answer::json(200, "{}").delayed(Duration::from_secs(11))).await;
    assert_eq!((slow.class, slow.reason), (FailureClass::ProviderUnavailable, Reason::ProviderTimeout));
    let huge = failure_for(|_| Answer::json(200, "x".repeat(MAX_ANSWER + 1))).await;
    assert_eq!((huge.class, huge.reason), (FailureClass::ProviderUnavailable, Reason::MalformedAnswer));
    let authority = || "as.example".to_owned();
    let faults: [(TransportError, Reason); 3] = [
        (
            TransportError::Connect { authority: authority(), cause: "refused".into() },
            Reason::ProviderUnreachable,
        ),
        (
            TransportError::Tls { authority: authority(), cause: "expired".into() },
            Reason::ProviderUnreachable,
        ),
        (TransportError::Broken { authority: authority(), cause: "eof".into() }, Reason::MalformedAnswer),
    ];
    for (fault, reason) in faults {
        let failure = failure_for(move |_| Answer::failed(fault.clone())).await;
        assert_eq!((failure.class, failure.reason), (FailureClass::ProviderUnavailable, reason));
        assert!(failure.detail.contains("as.example"));
    }
}

#[tokio::test(start_paused = true)]
async fn failures_repeat_nothing_that_was_sent() {
    let failure = failure_for(|request| {
        let said =
            format!("{} / {:?}", request.param("refresh_token"), request.headers[AUTHORIZATION].to_str());
        Answer::json(400, json!({"error": "invalid_grant", "error_description": said}))
    })
    .await;
    assert_eq!(failure.class, FailureClass::GrantDead);
    assert_eq!(failure.detail, "refused with status 400: invalid_grant");
    let failure = failure_for(|request| {
        let proof = request.headers[AUTHORIZATION].to_str().unwrap_or_default().to_owned();
        Answer::json(400, json!({"error": "x", "error_description": proof}))
    })
    .await;
    assert_eq!(failure.detail, "refused with status 400: x");
}

#[tokio::test(start_paused = true)]
async fn no_secret_goes_to_an_endpoint_without_tls() {
    let transport = ScriptedTransport::new(|_| Answer::json(200, json!({"access_token": "new"})));
    let endpoint = endpoint_over(&transport);
    let profile = profile("client_secret_post");
    for url in ["http://as.example/token", "https://user@as.example/token"] {
        let failure = endpoint.request(to(&profile, &profiles::url(url)), refresh(), &[]).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::ClientMisconfigured);
        assert!(
            endpoint.revoke(to(&profile, &profiles::url(url)), "t", "refresh_token", None).await.is_err()
        );
    }
    assert_eq!(transport.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn revocation_is_the_request_of_rfc_7009_section_2_1() {
    let transport = ScriptedTransport::new(|_| Answer::json(200, ""));
    let url = profiles::url("https://as.example/revoke");
    let profile = profile("client_secret_basic");
    endpoint_over(&transport)
        .revoke(to(&profile, &url), "45ghiukldjahdnhzdauz", "refresh_token", None)
        .await
        .unwrap();
    let sent = transport.sent().remove(0);
    assert_eq!(sent.url, url);
    assert_eq!(sent.body, "token=45ghiukldjahdnhzdauz&token_type_hint=refresh_token");
    assert!(sent.headers.contains_key(AUTHORIZATION));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_gone_counts_as_revoked_and_nothing_else_does() {
    let revoked = async |status: u16, body: serde_json::Value| {
        let transport = ScriptedTransport::new(move |_| Answer::json(status, &body));
        let url = profiles::url("https://as.example/revoke");
        endpoint_over(&transport).revoke(to(&profile("none"), &url), "t", "refresh_token", None).await
    };
    for (status, code) in [(200, "unread"), (204, "unread"), (400, "invalid_token"), (400, "invalid_grant")] {
        assert!(revoked(status, json!({ "error": code })).await.is_ok(), "{status} {code}");
    }
    for (status, code) in
        [(400, "unsupported_token_type"), (401, "invalid_client"), (503, "invalid_token"), (302, "")]
    {
        assert!(revoked(status, json!({ "error": code })).await.is_err(), "{status} {code}");
    }
}

/// The client's secrets are tried in their order, and the one that was taken is used from then on.
#[tokio::test(start_paused = true)]
async fn a_refused_secret_gives_way_to_the_next() {
    let transport = ScriptedTransport::new(|sent| {
        if String::from_utf8_lossy(&sent.body).contains("client_secret=new") {
            Answer::json(200, json!({"access_token": "token"}))
        } else {
            Answer::json(401, json!({"error": "invalid_client"}))
        }
    });
    let mut settings = Settings::default();
    let secrets = ["old", "older", "new"].map(|secret| Setting::Secret(secret.into()));
    settings.insert("client_secret", Setting::List(secrets.to_vec()));
    let method = client_auth::find("client_secret_post").unwrap();
    let profile = Profile {
        client: ClientSource::given("client", (method.build)(&mut settings).unwrap()),
        ..profile("none")
    };
    let endpoint = endpoint_over(&transport);
    endpoint.request(to(&profile, &profiles::url(TOKEN)), refresh(), &[]).await.unwrap();
    assert_eq!(transport.count(), 3);
    endpoint.request(to(&profile, &profiles::url(TOKEN)), refresh(), &[]).await.unwrap();
    assert_eq!(transport.count(), 4);
}

/// Any other refusal is about the request, and would be the same with another secret.
#[tokio::test(start_paused = true)]
async fn a_refused_request_is_not_sent_again_with_the_next_secret() {
    let transport = ScriptedTransport::new(|_| Answer::json(400, json!({"error": "invalid_grant"})));
    let mut settings = Settings::default();
    let secrets = ["a", "b"].map(|secret| Setting::Secret(secret.into()));
    settings.insert("client_secret", Setting::List(secrets.to_vec()));
    let method = client_auth::find("client_secret_basic").unwrap();
    let profile = Profile {
        client: ClientSource::given("client", (method.build)(&mut settings).unwrap()),
        ..profile("none")
    };
    let outcome =
        endpoint_over(&transport).request(to(&profile, &profiles::url(TOKEN)), refresh(), &[]).await;
    assert_eq!(outcome.unwrap_err().class, FailureClass::GrantDead);
    assert_eq!(transport.count(), 1);
}

fn resource() -> [(String, Secret); 1] {
    [("resource".to_owned(), "https://api.example".into())]
}

fn quirky(client_auth: &str, quirks: Quirks) -> Profile {
    let mut profile = profile(client_auth);
    profile.registration.provider.quirks = Arc::new(quirks);
    profile
}

async fn sent_by(profile: &Profile, request: TokenRequest) -> SentRequest {
    let transport = ScriptedTransport::new(|_| Answer::json(200, json!({"access_token": "new"})));
    endpoint_over(&transport)
        .request(to(profile, &profiles::url(TOKEN)), request, &resource())
        .await
        .unwrap();
    transport.sent().remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_request_is_written_as_its_server_wants_it() {
    let header = http::HeaderName::from_static("notion-version");
    let quirks = Quirks {
        scope_separator: Some(','),
        scope_parameter: Some("scopes".into()),
        token_request_format: RequestFormat::Json,
        token_request_headers: HeaderMap::from_iter([
            (header.clone(), HeaderValue::from_static("2022-06-28")),
            (ACCEPT, HeaderValue::from_static("text/json")),
        ]),
        client_id_parameter: Some("client_key".into()),
        client_secret_parameter: Some("key_secret".into()),
        ..Quirks::default()
    };
    let mut request = TokenRequest::new("client_credentials");
    request.param("scope", "a b c");
    let sent = sent_by(&quirky("client_secret_post", quirks), request).await;
    let body: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
    let expected = json!({
        "grant_type": "client_credentials", "scopes": "a,b,c", "resource": "https://api.example",
        "client_key": "client", "key_secret": "client-secret",
    });
    assert_eq!(body, expected);
    assert_eq!(sent.headers[CONTENT_TYPE], "application/json");
    assert_eq!(sent.headers[ACCEPT], "text/json");
    assert_eq!(sent.headers[header], "2022-06-28");
}

#[tokio::test(start_paused = true)]
async fn only_token_requests_are_written_so() {
    let transport = ScriptedTransport::new(|_| Answer::json(200, json!({})));
    let quirks = Quirks { token_request_format: RequestFormat::Json, ..Quirks::default() };
    let profile = quirky("none", quirks);
    endpoint_over(&transport)
        .revoke(to(&profile, &profiles::url(TOKEN)), "t", "access_token", None)
        .await
        .unwrap();
    assert_eq!(transport.sent()[0].body, "token=t&token_type_hint=access_token&client_id=client");
}

#[tokio::test(start_paused = true)]
async fn credentials_in_the_query_are_in_no_error() {
    let quirks = Quirks { client_secret_parameter: Some("secret".into()), ..Quirks::default() };
    let profile = quirky("client_secret_query", quirks);
    let sent = sent_by(&profile, TokenRequest::new("client_credentials")).await;
    assert_eq!(sent.url.query(), Some("client_id=client&secret=client-secret"));
    assert_eq!(sent.body, "grant_type=client_credentials&resource=https%3A%2F%2Fapi.example");

    let parrot = ScriptedTransport::new(|sent: &SentRequest| {
        let words = format!("cannot serve {}", sent.url);
        Answer::json(400, json!({"error": "own_code", "error_description": words}))
    });
    let endpoint = profiles::url("https://as.example/token?tenant=a%20b");
    let failure = endpoint_over(&parrot)
        .request(to(&profile, &endpoint), TokenRequest::new("client_credentials"), &[])
        .await
        .unwrap_err();
    assert_eq!(parrot.sent()[0].url.query(), Some("tenant=a%20b&client_id=client&secret=client-secret"));
    assert!(!failure.detail.contains("client-secret"), "{}", failure.detail);
}

#[tokio::test(start_paused = true)]
async fn the_provider_says_which_statuses_are_passing_trouble() {
    let body = || json!({"error": "invalid_grant"});
    for (statuses, status, class) in [
        (vec![], 503, FailureClass::ClientMisconfigured),
        (vec![], 429, FailureClass::ClientMisconfigured),
        (vec![500..=599], 503, FailureClass::ProviderUnavailable),
        (vec![500..=599], 429, FailureClass::ClientMisconfigured),
        (vec![403..=404], 403, FailureClass::ProviderUnavailable),
        (vec![403..=404], 400, FailureClass::GrantDead),
    ] {
        let transport = ScriptedTransport::new(move |_| Answer::json(status, body()));
        let mut profile = profile("client_secret_basic");
        let outbound = Outbound { retry_statuses: RetryStatuses(statuses.clone()), ..Outbound::default() };
        profile.registration.provider.outbound = Arc::new(outbound);
        let (endpoint, url) = (endpoint_over(&transport), profiles::url(TOKEN));
        let failure = endpoint.request(to(&profile, &url), refresh(), &[]).await.unwrap_err();
        assert_eq!(failure.class, class, "{statuses:?} {status}");
    }
}

mod possession {
    //! Requests proven with a key (RFC 9449).

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::protocol::dpop::{DPOP_NONCE, DpopKey};
    use crate::protocol::signing_key::SignatureAlgorithm;

    fn proven() -> TokenRequest {
        let key = DpopKey::generate(SignatureAlgorithm::Es256).unwrap();
        TokenRequest { dpop_key: Some(key), ..refresh() }
    }

    /// The claims of the proof that was sent.
    fn claims(sent: &SentRequest) -> serde_json::Value {
        let proof = sent.headers[DPOP].to_str().unwrap();
        let claims = URL_SAFE_NO_PAD.decode(proof.split('.').nth(1).unwrap()).unwrap();
        serde_json::from_slice(&claims).unwrap()
    }

    fn wants_nonce(nonce: &'static str) -> Answer {
        Answer::json(400, json!({ "error": "use_dpop_nonce" })).header(DPOP_NONCE, nonce)
    }

    fn granted(token_type: &str) -> Answer {
        Answer::json(200, json!({ "access_token": "a", "token_type": token_type }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_wanted_nonce_is_sent_once_and_kept_for_its_server() {
        let transport = ScriptedTransport::new(|sent| match claims(sent)["nonce"].as_str() {
            None => wants_nonce("one"),
            Some("one") => granted("DPoP").header(DPOP_NONCE, "two"),
            Some(_) => granted("dpop"),
        });
        let endpoint = endpoint_over(&transport);
        let profile = profile("client_secret_basic");
        let url = profiles::url("https://as.example/token?tenant=1");
        for _ in 0..2 {
            endpoint.request(to(&profile, &url), proven(), &[]).await.unwrap();
        }
        let elsewhere = profiles::url("https://other.example/token");
        endpoint.request(to(&profile, &elsewhere), proven(), &[]).await.unwrap();
        let nonces: Vec<_> = transport.sent().iter().map(|sent| claims(sent)["nonce"].clone()).collect();
        assert_eq!(json!(nonces), json!([null, "one", "two", null, "one"]));
        let sent = transport.sent();
        assert_eq!(claims(&sent[0])["htu"], "https://as.example/token");
        assert_eq!(claims(&sent[0])["htm"], "POST");
        assert!(claims(&sent[0]).get("ath").is_none());
        assert_ne!(claims(&sent[0])["jti"], claims(&sent[1])["jti"]);
    }

    #[tokio::test(start_paused = true)]
    async fn bound_tokens_are_revoked_with_a_proof() {
        let transport = ScriptedTransport::new(|sent| match claims(sent)["nonce"].as_str() {
            None => wants_nonce("one"),
            Some(_) => Answer::json(200, ""),
        });
        let key = proven().dpop_key;
        let (profile, url) = (profile("client_secret_basic"), profiles::url("https://as.example/revoke"));
        let endpoint = endpoint_over(&transport);
        endpoint.revoke(to(&profile, &url), "t", "refresh_token", key.as_ref()).await.unwrap();
        let sent = transport.sent();
        assert_eq!(sent.len(), 2);
        assert_eq!(claims(&sent[1])["htu"], "https://as.example/revoke");
        assert_eq!(sent[1].body, "token=t&token_type_hint=refresh_token");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_never_content_is_asked_twice() {
        let transport = ScriptedTransport::new(|_| wants_nonce("again"));
        let profile = profile("client_secret_basic");
        let url = profiles::url(TOKEN);
        let failure = endpoint_over(&transport).request(to(&profile, &url), proven(), &[]).await.unwrap_err();
        assert_eq!(transport.count(), 2);
        assert_eq!(failure.class, FailureClass::ClientMisconfigured);
        assert!(failure.detail.contains("use_dpop_nonce"), "{}", failure.detail);
        // Without a key, it is an answer like any other.
        let transport = ScriptedTransport::new(|_| wants_nonce("again"));
        endpoint_over(&transport).request(to(&profile, &url), refresh(), &[]).await.unwrap_err();
        assert_eq!(transport.count(), 1);
        assert!(!transport.sent()[0].headers.contains_key(DPOP));
    }

    #[tokio::test(start_paused = true)]
    async fn the_token_is_bound_as_asked_or_refused() {
        for (request, token_type, refused) in [
            (proven(), "DPoP", None),
            (refresh(), "Bearer", None),
            (proven(), "Bearer", Some("although DPoP was asked for")),
            (proven(), "", Some("although DPoP was asked for")),
            (refresh(), "DPoP", Some("which was not asked for")),
        ] {
            let transport = ScriptedTransport::new(move |_| granted(token_type));
            let profile = profile("client_secret_basic");
            let url = profiles::url(TOKEN);
            let answer = endpoint_over(&transport).request(to(&profile, &url), request, &[]).await;
            match (answer, refused) {
                (Ok(answer), None) => {
                    assert_eq!(answer.token_type == TokenType::Dpop, token_type == "DPoP");
                }
                (Err(failure), Some(why)) => {
                    assert_eq!(failure.reason, Reason::MalformedAnswer);
                    assert!(failure.detail.contains(why), "{}", failure.detail);
                }
                (answer, _) => panic!("{token_type:?}: {answer:?}"),
            }
        }
    }
}
