#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use actix_web::body::to_bytes;
use actix_web::http::header::HeaderName;
use actix_web::{App, test as server};
use claviger_actors::connection::Reason;
use claviger_actors::flow::messages::AuthorizationRedirect;
use claviger_actors::protocol::identifiers::{ConnectionId, ProfileId, Subject};
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::store::StoreError;

use super::*;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn alice() -> ConnectionId {
    ConnectionId {
        profile: ProfileId::new("calendar").unwrap(),
        subject: Subject::new("<b>alice</b>").unwrap(),
    }
}

fn redirect() -> AuthorizationRedirect {
    AuthorizationRedirect {
        url: url("https://id.example/authorize?state=s1"),
        browser: Secret::new("b1"),
        expires_in: 600,
    }
}

fn header<'r>(response: &'r HttpResponse, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

async fn text(response: HttpResponse) -> String {
    String::from_utf8(to_bytes(response.into_body()).await.unwrap().to_vec()).unwrap()
}

fn provider_failed() -> TokenError {
    TokenError::ProviderUnavailable {
        profile: ProfileId::new("calendar").unwrap(),
        reason: Reason::ProviderError,
        detail: "internal detail".into(),
        retry_after: None,
    }
}

#[actix_web::test]
async fn a_good_link_leads_to_the_provider_and_binds_the_browser() {
    let cookie = BrowserCookie::new(&url("https://gw.example"));
    let response = connect_answer(Ok(Opened::Redirect(redirect())), cookie, "r1".into());
    assert_eq!(response.status(), 302);
    assert_eq!(header(&response, "location"), Some("https://id.example/authorize?state=s1"));
    let set = header(&response, "set-cookie").unwrap();
    for part in ["__Host-claviger_browser=b1", "HttpOnly", "SameSite=Lax", "Secure", "Path=/", "Max-Age=600"]
    {
        assert!(set.contains(part), "{set}");
    }
    assert_eq!(header(&response, "cache-control"), Some("no-store"));
    assert_eq!(header(&response, "referrer-policy"), Some("no-referrer"));
}

#[actix_web::test]
async fn a_bad_link_is_a_page_that_binds_nothing_and_tells_nothing() {
    let cookie = BrowserCookie::new(&url("http://gw.example"));
    let invalid = FlowError::Invalid { why: "used before", connection: Some(alice()) };
    let response = connect_answer(Err(invalid), cookie, "r1".into());
    assert_eq!(response.status(), 400);
    assert_eq!(header(&response, "set-cookie"), None);
    assert!(header(&response, "content-security-policy").unwrap().contains("default-src 'none'"));
    let page = text(response).await;
    assert!(page.contains("r1"));
    assert!(!page.contains("alice"), "whoever guesses a link must learn nothing from it");
}

#[actix_web::test]
async fn a_finished_flow_goes_back_or_says_so() {
    let outcome = |return_to: Option<&str>| {
        let return_to = return_to.map(str::to_owned);
        callback_answer(Ok(FlowOutcome { connection: alice(), return_to }), "r1".into())
    };
    let back = outcome(Some("https://app.example/done?x=1"));
    assert_eq!(
        (back.status().as_u16(), header(&back, "location")),
        (302, Some("https://app.example/done?x=1"))
    );
    let page = outcome(None);
    assert_eq!(page.status(), 200);
    let html = text(page).await;
    assert!(html.contains("&lt;b&gt;alice&lt;/b&gt;"), "{html}");
    assert!(!html.contains("<b>"), "{html}");
}

#[actix_web::test]
async fn a_refusal_goes_back_with_its_code_or_is_a_403_page() {
    let refused = |return_to: Option<&str>| {
        let return_to = return_to.map(str::to_owned);
        let error = FlowError::Refused { connection: alice(), code: "access_denied".into(), return_to };
        callback_answer(Err(error), "r1".into())
    };
    let back = refused(Some("https://app.example/?x=1"));
    assert_eq!(back.status(), 302);
    assert_eq!(header(&back, "location"), Some("https://app.example/?x=1&error=access_denied"));
    let page = refused(None);
    assert_eq!(page.status(), 403);
    assert!(text(page).await.contains("access_denied"));
}

#[actix_web::test]
async fn faults_of_provider_store_and_gateway_have_their_own_status() {
    let return_to = Some("https://app.example/\"><script>".to_owned());
    let failed = FlowError::Token { connection: alice(), source: provider_failed(), return_to };
    let response = callback_answer(Err(failed), "r1".into());
    assert_eq!(response.status(), 502);
    let html = text(response).await;
    assert!(!html.contains("internal detail") && !html.contains("<script"), "{html}");

    let unsaved = TokenError::StoreUnavailable { id: alice(), detail: "disk full".into() };
    let unsaved = FlowError::Token { connection: alice(), source: unsaved, return_to: None };
    assert_eq!(callback_answer(Err(unsaved), "r".into()).status(), 503);
    let store = FlowError::Store(StoreError::Unavailable("disk full".into()));
    assert_eq!(callback_answer(Err(store), "r".into()).status(), 503);
    assert_eq!(callback_answer(Err(FlowError::Provider(provider_failed())), "r".into()).status(), 502);
    let busy = callback_answer(Err(FlowError::TooMany), "r".into());
    assert_eq!((busy.status().as_u16(), header(&busy, "retry-after")), (503, Some("60")));
}

#[test]
fn prefetches_and_previews_are_told_from_people() {
    let with = |name: &str, value: &str| {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        is_speculative(&headers)
    };
    assert!(with("sec-purpose", "prefetch;prerender"));
    assert!(with("purpose", "Prefetch"));
    assert!(with("x-moz", "prefetch"));
    assert!(with("x-purpose", "preview"));
    assert!(!with("sec-fetch-mode", "navigate"));
    assert!(!is_speculative(&HeaderMap::new()));
}

#[test]
fn a_connect_token_is_url_safe_and_short() {
    assert!(connect_token("abc-_.~09").is_some());
    for bad in ["a b", "a%2Fb", "ü", "a;b", &"a".repeat(MAX_CONNECT_TOKEN + 1)] {
        assert!(connect_token(bad).is_none(), "{bad}");
    }
}

#[test]
fn a_connect_url_keeps_the_path_of_the_public_url() {
    let token = Secret::new("t1");
    assert_eq!(connect_url(&url("http://127.0.0.1:8081"), &token), "http://127.0.0.1:8081/connect/t1");
    assert_eq!(connect_url(&url("https://gw.example/oauth/"), &token), "https://gw.example/oauth/connect/t1");
}

#[actix_web::test]
async fn only_get_acts() {
    // No state is given: whatever reached a handler that needs the engine would fail with 500.
    let app =
        server::init_service(App::new().configure(paths).service(web::scope("/below").configure(paths)))
            .await;
    for path in ["/connect/abc", "/callback?code=c&state=s", "/below/connect/abc"] {
        let head = server::TestRequest::with_uri(path).method(actix_web::http::Method::HEAD).to_request();
        assert_eq!(server::call_service(&app, head).await.status(), 204, "{path}");
        let post = server::TestRequest::post().uri(path).to_request();
        let refused = server::call_service(&app, post).await;
        assert_eq!(refused.status(), 405, "{path}");
        assert_eq!(refused.headers().get("allow").unwrap(), "GET, HEAD");
        let get = server::TestRequest::get().uri(path).to_request();
        assert_eq!(server::call_service(&app, get).await.status(), 500, "{path}");
    }
}

mod with_engine {
    use claviger_actors::testing::ScriptedTransport;

    use super::*;
    use crate::listeners::test_support::gateway;

    macro_rules! app {
        ($gateway:expr) => {{
            let state = PublicState { gateway: $gateway.clone(), public_url: url("http://127.0.0.1:8081") };
            server::init_service(App::new().configure(move |cfg| configure(cfg, state))).await
        }};
    }

    async fn link(gateway: &GatewayHandle, return_to: Option<&str>) -> String {
        let link = gateway
            .create_connect_link(alice(), return_to.map(str::to_owned), ScopeSet::default())
            .await
            .unwrap();
        format!("/connect/{}", link.token.expose())
    }

    fn token_requests(transport: &ScriptedTransport) -> usize {
        transport.sent().iter().filter(|request| request.url.path() == "/token").count()
    }

    #[actix_web::test]
    async fn a_link_works_once_and_only_when_a_person_opens_it() {
        let (gateway, _) = gateway().await;
        let app = app!(gateway);
        let link = link(&gateway, None).await;
        let head = server::TestRequest::with_uri(&link).method(actix_web::http::Method::HEAD);
        assert_eq!(server::call_service(&app, head.to_request()).await.status(), 204);
        let prefetch = server::TestRequest::get().uri(&link).insert_header(("sec-purpose", "prefetch"));
        assert_eq!(server::call_service(&app, prefetch.to_request()).await.status(), 204);
        let open = || server::TestRequest::get().uri(&link).to_request();
        let opened = server::call_service(&app, open()).await;
        assert_eq!(opened.status(), 302);
        let location = opened.headers().get(LOCATION).unwrap().to_str().unwrap();
        assert!(location.starts_with("https://as.example/authorize?"), "{location}");
        assert_eq!(server::call_service(&app, open()).await.status(), 400);
        let guessed = server::TestRequest::get().uri("/connect/AAAA").to_request();
        assert_eq!(server::call_service(&app, guessed).await.status(), 400);
    }

    #[actix_web::test]
    async fn only_the_browser_that_began_can_end_a_flow_and_only_once() {
        let (gateway, transport) = gateway().await;
        let app = app!(gateway);
        let return_to = Some("https://app.example/done");
        let open = server::TestRequest::get().uri(&link(&gateway, return_to).await).to_request();
        let opened = server::call_service(&app, open).await;
        let cookie = opened.headers().get(SET_COOKIE).unwrap().to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let authorize = url(opened.headers().get(LOCATION).unwrap().to_str().unwrap());
        let state = authorize.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();

        let callback = async |cookie: Option<&str>, query: &str| {
            let mut request = server::TestRequest::get().uri(&format!("/callback?{query}"));
            if let Some(cookie) = cookie {
                request = request.insert_header(("cookie", cookie));
            }
            server::call_service(&app, request.to_request()).await
        };
        let good = format!("code=c1&state={state}");
        for (cookie, query) in [
            (None, good.as_str()),
            (Some("claviger_browser=other"), good.as_str()),
            (Some(cookie.as_str()), "code=c1&state=forged"),
            (Some(cookie.as_str()), "code=c1"),
            (Some(cookie.as_str()), ""),
            (Some(cookie.as_str()), &format!("{good}&state={state}")),
        ] {
            let refused = callback(cookie, query).await;
            assert_eq!(refused.status(), 400, "{query}");
            assert!(refused.headers().contains_key("content-security-policy"));
        }
        assert_eq!(token_requests(&transport), 0);

        let done = callback(Some(&cookie), &good).await;
        assert_eq!(done.status(), 302);
        assert_eq!(done.headers().get(LOCATION).unwrap(), "https://app.example/done");
        assert_eq!(token_requests(&transport), 1);
        assert_eq!(callback(Some(&cookie), &good).await.status(), 400);
        assert_eq!(token_requests(&transport), 1);
    }
}
