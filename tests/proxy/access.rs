//! Who may call what, for whom.

use claviger_actors::proxy::route::SubjectSource;

use crate::caller::{Caller, basic};
use crate::engine::{Gateway, Setup, connection, route};
use crate::upstream::Upstream;

async fn ask(gateway: &Gateway, method: &str, path: &str, lines: &str) -> (u16, String) {
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(format!("{method} {path} HTTP/1.1\r\nHost: gw.test\r\n{lines}\r\n")).await;
    let answer = caller.answer_to(method).await;
    if answer.status == 200 {
        return (200, answer.text().to_owned());
    }
    if answer.status == 401 {
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"claviger\", charset=\"UTF-8\""));
    }
    (answer.status, answer.code())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[actix_web::test]
async fn each_refusal_has_its_code_and_sends_nothing_upstream() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address)
        .route(|r| r.methods = Some(vec![http::Method::GET]))
        .and({
            let mut named = route("named", "/named", upstream.address);
            named.subject = SubjectSource::Header;
            named
        })
        .start()
        .await;
    let (billing, crm, idle) = (basic("billing"), basic("crm"), basic("idle"));
    let bearer = "Authorization: Bearer token-billing\r\n";
    for (path, lines, status, code) in [
        ("/api/x", "", 401, "caller_unauthenticated"),
        ("/api/x", bearer, 401, "caller_unauthenticated"),
        ("/api/x", "Authorization: Basic YmlsbGluZzp3cm9uZw==\r\n", 401, "caller_unauthenticated"),
        ("/nothing", "", 401, "caller_unauthenticated"),
        ("/api/../x", "", 400, "bad_path"),
        ("/nothing", &*billing, 404, "route_not_found"),
        ("/apix", &*billing, 404, "route_not_found"),
        ("/api/x", &*idle, 403, "route_forbidden"),
        ("/named/x", &*crm, 403, "route_forbidden"),
        ("/named/x", &*billing, 400, "subject_required"),
    ] {
        assert_eq!(ask(&gateway, "GET", path, lines).await, refused(status, code), "{path} {lines}");
    }
    assert_eq!(ask(&gateway, "POST", "/api/x", &billing).await, refused(403, "route_forbidden"));
    for name in [
        "Claviger-Subject: \r\n",
        "Claviger-Subject: a\r\nClaviger-Subject: b\r\n",
        "Claviger-Subject: \u{ff}\u{fe}\r\n",
    ] {
        let lines = format!("{billing}{name}");
        let (status, code) = ask(&gateway, "GET", "/named/x", &lines).await;
        // The last one is valid UTF-8, and names nobody who has connected.
        let expected =
            if name.contains('\u{ff}') { (403, "authorization_required") } else { (400, "subject_required") };
        assert_eq!((status, &*code), expected, "{name}");
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(ask(&gateway, "GET", "/api/x", &billing).await.0, 200);
}

#[actix_web::test]
async fn the_route_decides_whose_token_goes_upstream() {
    let upstream = Upstream::echo().await;
    let mut named = route("named", "/named", upstream.address);
    named.subject = SubjectSource::Header;
    let mut shared = route("shared", "/shared", upstream.address);
    shared.subject = SubjectSource::Shared;
    let gateway = Setup::to(upstream.address).and(named).and(shared).start().await;
    let origins = claviger_actors::connection::OriginSet::new([format!("http://{}", upstream.address)]);
    for subject in ["alice", "shared"] {
        use claviger::listeners::proxy::gateway::ProxyGateway as _;
        let published = connection(subject, &format!("token-{subject}"), &origins, 3600);
        gateway.engine.connections().publish(published);
    }
    for (path, lines, token) in [
        ("/api/x", basic("billing"), "Bearer token-billing"),
        ("/api/x", basic("crm"), "Bearer token-crm"),
        ("/shared/x", basic("billing"), "Bearer token-shared"),
        ("/named/x", format!("{}Claviger-Subject: alice\r\n", basic("billing")), "Bearer token-alice"),
    ] {
        let (status, seen) = ask(&gateway, "GET", path, &lines).await;
        assert_eq!(status, 200, "{seen}");
        assert!(seen.contains(&format!("authorization: {token}\r\n")), "{path}: {seen}");
    }
}

#[actix_web::test]
async fn an_assertion_that_a_caller_hands_over_is_for_its_own_calls_alone() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).route(|route| route.needs.assertion = true).start().await;
    let billing = basic("billing");
    for missing in [
        String::new(),
        "Claviger-Assertion: \r\n".to_owned(),
        "Claviger-Assertion: a\r\nClaviger-Assertion: b\r\n".to_owned(),
        format!("Claviger-Assertion: {}\r\n", "x".repeat(16 * 1024 + 1)),
    ] {
        let answer = ask(&gateway, "GET", "/api/x", &format!("{billing}{missing}")).await;
        assert_eq!(answer, refused(400, "subject_required"));
    }
    for assertion in ["one", "one", "two"] {
        let lines = format!("{billing}Claviger-Assertion: {assertion}\r\n");
        let answer = ask(&gateway, "GET", "/api/x", &lines).await;
        assert_eq!(answer, refused(403, "authorization_required"), "billing's own token is not used for it");
    }
    let asked = gateway.engine.script.lock().asked.iter().map(|asked| asked.id.clone()).collect::<Vec<_>>();
    assert_eq!(asked[0], asked[1]);
    assert_ne!(asked[1], asked[2]);
    assert!(asked.iter().all(|id| id.starts_with("p/billing~")), "{asked:?}");
    assert_eq!(upstream.connections(), 0);
}
