#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::registration::Endpoints;
use crate::registration::outbound::Outbound;
use crate::testing::{Answer, ManualClock, ScriptedTransport, SentRequest, profiles};

const ISSUER: &str = "https://as.example/tenant";
const OIDC: &str = "/tenant/.well-known/openid-configuration";
const RFC_8414: &str = "/.well-known/oauth-authorization-server/tenant";

fn document() -> Value {
    json!({
        "issuer": ISSUER,
        "authorization_endpoint": "https://as.example/found/authorize",
        "token_endpoint": "https://as.example/found/token",
        "jwks_uri": "https://as.example/found/jwks",
        "id_token_signing_alg_values_supported": ["none", "HS256", "ES256", "RS256"],
        "authorization_response_iss_parameter_supported": true,
    })
}

struct Setup {
    clock: Arc<ManualClock>,
    transport: Arc<ScriptedTransport>,
    discovery: Discovery,
}

fn setup(
    issuer: Option<&str>,
    endpoints: Endpoints,
    script: impl Fn(&SentRequest) -> Answer + Send + Sync + 'static,
) -> Setup {
    let clock = ManualClock::new(Timestamp::from_secs(1_700_000_000));
    let transport = ScriptedTransport::new(script);
    let issuer = issuer.map(str::to_owned);
    let provider = ProviderDetails { name: "as".into(), issuer, endpoints, ..ProviderDetails::default() };
    let discovery = Discovery::new(provider, transport.clone(), clock.clone());
    Setup { clock, transport, discovery }
}

fn by_hand() -> Endpoints {
    Endpoints { token_endpoint: Some(profiles::url("https://as.example/by-hand")), ..Endpoints::default() }
}

#[tokio::test(start_paused = true)]
async fn the_openid_document_is_asked_for_first_and_kept_for_an_hour() {
    let setup = setup(Some(ISSUER), Endpoints::default(), |_| Answer::json(200, document()));
    let found = setup.discovery.metadata().await.unwrap();
    assert_eq!(found.token_endpoint().unwrap().as_str(), "https://as.example/found/token");
    assert_eq!(found.authorization_endpoint().unwrap().as_str(), "https://as.example/found/authorize");
    assert_eq!(found.jwks_uri().unwrap().as_str(), "https://as.example/found/jwks");
    assert_eq!(found.issuer.as_deref(), Some(ISSUER));
    assert_eq!(found.id_token_algs, ["ES256", "RS256"]);
    assert!(found.iss_announced);
    assert_eq!(setup.transport.sent()[0].url.path(), OIDC);

    setup.clock.advance(KEPT - Duration::from_millis(1));
    setup.discovery.metadata().await.unwrap();
    assert_eq!(setup.transport.count(), 1);
    setup.clock.advance(Duration::from_millis(1));
    setup.discovery.metadata().await.unwrap();
    assert_eq!(setup.transport.count(), 2);
    // A clock set back must not keep it for longer.
    setup.clock.set(Timestamp::from_secs(1_600_000_000));
    setup.discovery.metadata().await.unwrap();
    assert_eq!(setup.transport.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_document_of_rfc_8414_is_asked_for_after_a_404() {
    let setup = setup(Some(ISSUER), Endpoints::default(), |request| match request.url.path() {
        RFC_8414 => Answer::json(200, document()),
        _ => Answer::json(404, ""),
    });
    assert!(setup.discovery.metadata().await.is_ok());
    let paths: Vec<_> = setup.transport.sent().iter().map(|sent| sent.url.path().to_owned()).collect();
    assert_eq!(paths, [OIDC, RFC_8414]);
}

#[tokio::test(start_paused = true)]
async fn endpoints_by_hand_win_and_need_no_document_without_issuer() {
    let with_issuer = setup(Some(ISSUER), by_hand(), |_| Answer::json(200, document()));
    let found = with_issuer.discovery.metadata().await.unwrap();
    assert_eq!(found.token_endpoint().unwrap().as_str(), "https://as.example/by-hand");
    assert_eq!(found.jwks_uri().unwrap().as_str(), "https://as.example/found/jwks");

    let without = setup(None, by_hand(), |_| Answer::json(500, ""));
    let found = without.discovery.metadata().await.unwrap();
    assert_eq!(found.token_endpoint().unwrap().as_str(), "https://as.example/by-hand");
    assert_eq!(found.id_token_algs, ["RS256"]);
    let missing = found.authorization_endpoint().unwrap_err();
    assert_eq!(missing.class, FailureClass::ClientMisconfigured);
    assert!(missing.detail.contains("authorization_endpoint"));
    assert_eq!(without.transport.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_without_any_document_needs_a_token_endpoint_by_hand() {
    let lacking = setup(Some(ISSUER), Endpoints::default(), |_| Answer::json(404, ""));
    let failure = lacking.discovery.metadata().await.unwrap_err();
    assert_eq!((failure.class, failure.reason), (FailureClass::ClientMisconfigured, Reason::RequestRefused));
    assert!(failure.detail.contains(ISSUER), "{}", failure.detail);

    let given = setup(Some(ISSUER), by_hand(), |_| Answer::json(404, ""));
    let found = given.discovery.metadata().await.unwrap();
    assert_eq!(found.issuer.as_deref(), Some(ISSUER));
    assert!(!found.iss_announced);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_another_issuers_document_is_used() {
    for found in ["https://evil.example", "https://as.example/tenant/", "https://as.example"] {
        let setup = setup(Some(ISSUER), Endpoints::default(), move |_| {
            let mut document = document();
            document["issuer"] = json!(found);
            Answer::json(200, document)
        });
        let failure = setup.discovery.metadata().await.unwrap_err();
        assert_eq!(failure.class, FailureClass::ClientMisconfigured, "{found}");
        assert!(failure.detail.contains(found), "{}", failure.detail);
        assert_eq!(setup.transport.count(), 1, "a document that lies is not replaced by another");
    }
}

#[tokio::test(start_paused = true)]
async fn each_fault_of_the_server_is_named() {
    let cases = [
        (200, "<html>".to_owned(), Reason::MalformedAnswer),
        (200, "x".repeat(MAX_BODY + 1), Reason::MalformedAnswer),
        (
            200,
            json!({"issuer": ISSUER, "token_endpoint": "http://as.example/"}).to_string(),
            Reason::MalformedAnswer,
        ),
        (302, String::new(), Reason::MalformedAnswer),
        (503, String::new(), Reason::ProviderError),
        (429, String::new(), Reason::ProviderThrottled),
        (403, String::new(), Reason::RequestRefused),
    ];
    for (status, body, reason) in cases {
        let setup = setup(Some(ISSUER), by_hand(), move |_| Answer::json(status, &body));
        assert_eq!(setup.discovery.metadata().await.unwrap_err().reason, reason, "{status}");
    }
    let slow = setup(Some(ISSUER), by_hand(), |_| Answer::json(200, "").delayed(Duration::from_secs(60)));
    assert_eq!(slow.discovery.metadata().await.unwrap_err().reason, Reason::ProviderTimeout);
    let unfit = setup(Some("http://as.example"), by_hand(), |_| Answer::json(200, ""));
    assert_eq!(unfit.discovery.metadata().await.unwrap_err().class, FailureClass::ClientMisconfigured);
    assert_eq!(unfit.transport.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_remembered_for_two_seconds() {
    let setup = setup(Some(ISSUER), Endpoints::default(), |_| Answer::json(503, ""));
    for _ in 0..10 {
        assert!(setup.discovery.metadata().await.is_err());
    }
    assert_eq!(setup.transport.count(), 1);
    setup.clock.advance(FAILURE_KEPT);
    assert!(setup.discovery.metadata().await.is_err());
    assert_eq!(setup.transport.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_older_document_outlives_a_failing_fetch() {
    static STATUS: AtomicU16 = AtomicU16::new(200);
    let setup = setup(Some(ISSUER), Endpoints::default(), |_| {
        Answer::json(STATUS.load(Ordering::SeqCst), document())
    });
    let old = setup.discovery.metadata().await.unwrap();
    STATUS.store(500, Ordering::SeqCst);
    setup.clock.advance(KEPT);
    for _ in 0..5 {
        assert_eq!(setup.discovery.metadata().await.unwrap(), old);
    }
    assert_eq!(setup.transport.count(), 2, "the old one serves without a request each time");
    setup.clock.advance(STALE_KEPT);
    setup.discovery.metadata().await.unwrap();
    assert_eq!(setup.transport.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_who_ask_at_once_make_one_request() {
    for status in [200, 503] {
        let setup = setup(Some(ISSUER), Endpoints::default(), move |_| {
            Answer::json(status, document()).delayed(Duration::from_secs(1))
        });
        let asked = (0..200).map(|_| setup.discovery.metadata());
        let outcomes = futures_util::future::join_all(asked).await;
        assert!(outcomes.iter().all(|outcome| outcome.is_ok() == (status == 200)));
        assert_eq!(setup.transport.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_does_not_hold_up_the_others() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let setup = setup(Some(ISSUER), Endpoints::default(), |_| {
        let first = ASKED.fetch_add(1, Ordering::SeqCst) == 0;
        Answer::json(200, document()).delayed(Duration::from_secs(if first { 9 } else { 1 }))
    });
    let impatient = tokio::time::timeout(Duration::from_secs(1), setup.discovery.metadata());
    let (gave_up, served) = tokio::join!(biased; impatient, setup.discovery.metadata());
    assert!(gave_up.is_err());
    assert!(served.is_ok());
    assert_eq!(setup.transport.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_shows_its_certificate_goes_where_one_is_asked_for() {
    let aliased = || {
        let mut document = document();
        document["introspection_endpoint"] = "https://as.example/introspect".into();
        document["mtls_endpoint_aliases"] = json!({
            "token_endpoint": "https://mtls.as.example/token",
            "revocation_endpoint": "https://mtls.as.example/revoke",
            "introspection_endpoint": "https://mtls.as.example/introspect",
            "pushed_authorization_request_endpoint": "https://mtls.as.example/par",
            "device_authorization_endpoint": "https://mtls.as.example/device",
            "userinfo_endpoint": "https://mtls.as.example/userinfo",
        });
        document
    };
    for (shows_certificate, endpoints, token, others) in [
        (false, Endpoints::default(), "https://as.example/found/token", "https://as.example/"),
        (true, Endpoints::default(), "https://mtls.as.example/token", "https://mtls.as.example/"),
        (true, by_hand(), "https://as.example/by-hand", "https://mtls.as.example/"),
    ] {
        let transport = ScriptedTransport::new(move |_| Answer::json(200, aliased()));
        let outbound = Arc::new(Outbound { shows_certificate, ..Outbound::default() });
        let issuer = Some(ISSUER.to_owned());
        let provider = ProviderDetails { issuer, endpoints, outbound, ..ProviderDetails::default() };
        let clock = ManualClock::new(Timestamp::from_secs(1_700_000_000));
        let found = Discovery::new(provider, transport, clock).metadata().await.unwrap();
        let found = &found.endpoints;
        assert_eq!(found.token_endpoint.as_ref().unwrap().as_str(), token);
        assert_eq!(found.authorization_endpoint.as_ref().unwrap().host_str(), Some("as.example"));
        let endpoint = |url: &Option<Url>| url.clone().map(String::from);
        let expect = |name: &str| Some(format!("{others}{name}"));
        assert_eq!(endpoint(&found.introspection_endpoint), expect("introspect"));
        if shows_certificate {
            assert_eq!(endpoint(&found.revocation_endpoint), expect("revoke"));
            assert_eq!(endpoint(&found.pushed_authorization_request_endpoint), expect("par"));
            assert_eq!(endpoint(&found.device_authorization_endpoint), expect("device"));
            assert_eq!(endpoint(&found.userinfo_endpoint), expect("userinfo"));
        }
    }
}
