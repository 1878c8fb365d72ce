//! Calls for which a person must consent first.

use crate::caller::{Answer, Caller, basic};
use crate::engine::{Gateway, Setup};
use crate::upstream::Upstream;

const BROWSER: &str = "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n";

async fn ask(gateway: &Gateway, method: &str, host: &str, lines: &str) -> Answer {
    let mut caller = Caller::connect(gateway.address).await;
    let auth = basic("new");
    caller.send(format!("{method} /api/x HTTP/1.1\r\nHost: {host}\r\n{auth}{lines}\r\n")).await;
    caller.answer_to(method).await
}

async fn start() -> (Gateway, Upstream) {
    let upstream = Upstream::echo().await;
    (Setup::to(upstream.address).start().await, upstream)
}

#[actix_web::test]
async fn a_program_is_given_a_connect_link() {
    let (gateway, upstream) = start().await;
    for (method, lines) in
        [("GET", "Accept: application/json\r\n"), ("GET", "Accept: */*\r\n"), ("GET", ""), ("POST", BROWSER)]
    {
        let answer = ask(&gateway, method, "gw.test:8080", lines).await;
        assert_eq!((answer.status, &*answer.code()), (403, "authorization_required"));
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["authorization_url"], "http://gw.test:8081/connect/one-time");
        assert_eq!(answer.header("set-cookie"), None);
    }
    assert_eq!(upstream.connections(), 0);
}

#[actix_web::test]
async fn a_browser_on_the_same_host_is_bound_and_sent_to_the_provider() {
    let (gateway, _upstream) = start().await;
    let answer = ask(&gateway, "GET", "GW.test:8080", BROWSER).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, Some("https://id.example/authorize?state=s"))
    );
    assert_eq!(
        answer.header("set-cookie"),
        Some("claviger_browser=bound; Path=/; Max-Age=600; HttpOnly; SameSite=Lax")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    ask(&gateway, "GET", "gw.test", &format!("{BROWSER}Cookie: a=1; claviger_browser=before\r\n")).await;
    assert_eq!(gateway.engine.script.lock().begun, [None, Some("before".to_owned())]);
}

#[actix_web::test]
async fn a_browser_on_another_host_takes_the_connect_link() {
    let (gateway, _upstream) = start().await;
    for host in ["127.0.0.1:8080", "evil.test", "gw.test.evil.test"] {
        let answer = ask(&gateway, "GET", host, BROWSER).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (302, Some("http://gw.test:8081/connect/one-time"))
        );
        assert_eq!(answer.header("set-cookie"), None);
    }
    assert!(gateway.engine.script.lock().begun.is_empty());
}
