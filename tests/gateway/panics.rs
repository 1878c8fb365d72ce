//! A panic in any actor costs that actor's own memory: no call fails, and nothing stored is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use claviger_actors::supervision::ActorKind;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::browser::Browser;
use crate::support::eventually;
use crate::support::gateway_config::{GatewayConfig, PASSWORD};
use crate::support::http::{self, Response};
use crate::support::in_process::InProcess;
use crate::support::scripted_as::{Answer, ScriptedAs};
use crate::support::upstream::Upstream;

/// Three restarts come at once, the next ones with a delay: both are seen.
const PANICS: u64 = 5;
/// Between two panics of one actor, so that each meets calls of its own.
const PAUSE: Duration = Duration::from_millis(120);

/// Two authorization servers, an API, and a gateway between with a route for each kind of call.
struct Cast {
    /// Its tokens last an hour.
    lasting: ScriptedAs,
    /// Its tokens last a second, and it rotates refresh tokens.
    brief: ScriptedAs,
    upstream: Upstream,
    config: GatewayConfig,
    gateway: InProcess,
}

impl Cast {
    async fn start() -> Self {
        let (lasting, brief, upstream) =
            (ScriptedAs::start().await, ScriptedAs::start().await, Upstream::start().await);
        // Long enough for panics to come in the middle of token requests.
        for server in [&lasting, &brief] {
            server.otherwise(Answer::After(Duration::from_millis(40), Box::new(Answer::Rotate)));
        }
        brief.token_seconds(1.0);
        let mut config = GatewayConfig::new();
        config.section("providers.lasting", &lasting.provider_toml());
        config.section("providers.brief", &brief.provider_toml());
        for (name, provider, grant, subject) in [
            ("calendar", "lasting", "authorization_code", "header"),
            ("rotating", "brief", "authorization_code", "header"),
            ("cold", "lasting", "client_credentials", "header"),
        ] {
            config.profile(name, provider, "gateway", grant, "[]");
            config.section(
                &format!("routes.{name}"),
                &format!(
                    "path = \"/{name}\"\nupstream = \"{}/api\"\nprofile = \"{name}\"\nsubject = \"{subject}\"",
                    upstream.url()
                ),
            );
        }
        config.caller("billing", r#"["calendar", "rotating", "cold"]"#);
        config.extend("callers.billing", "may_name_subject = true");
        let gateway = InProcess::start(&config).await;
        Self { lasting, brief, upstream, config, gateway }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.config.proxy)
    }

    async fn admin(&self, method: &str, path: &str) -> Response {
        http::request(method, &format!("http://{}{path}", self.config.admin)).send().await
    }

    /// A browser that the person has sent back from the authorization server, and where to.
    async fn consent_given(&self, profile: &str, subject: &str) -> (Browser, String) {
        let link = http::request("POST", &format!("http://{}/api/connect-sessions", self.config.admin))
            .json(&json!({ "profile": profile, "subject": subject }))
            .send()
            .await
            .expect_status(200)
            .json();
        let mut browser = Browser::new();
        let link = link["url"].as_str().expect("a link");
        let callback = browser.follow_until(link, &self.config.callback()).await.url;
        assert!(callback.as_str().starts_with(&self.config.callback()), "{callback}");
        (browser, callback.into())
    }

    async fn connect(&self, profile: &str, subject: &str) {
        let (mut browser, callback) = self.consent_given(profile, subject).await;
        browser.open(&callback).await.response.expect_status(200);
    }

    /// Profile and subject of every connection, and its state.
    async fn connections(&self) -> BTreeMap<String, String> {
        let (mut found, mut cursor) = (BTreeMap::new(), String::new());
        loop {
            let page = self
                .admin("GET", &format!("/api/connections?limit=500{cursor}"))
                .await
                .expect_status(200)
                .json();
            for shown in page["connections"].as_array().expect("connections") {
                let name =
                    format!("{}/{}", shown["profile"].as_str().unwrap(), shown["subject"].as_str().unwrap());
                found.insert(name, shown["state"].as_str().unwrap().to_owned());
            }
            let Some(next) = page["next_cursor"].as_str() else { return found };
            cursor = format!("&cursor={next}");
        }
    }

    async fn actors(&self) -> Vec<Value> {
        let report = self.admin("GET", "/debug/actors").await.expect_status(200).json();
        report["actors"].as_array().expect("actors").clone()
    }

    /// Restarts by kind and id, of those that restarted.
    async fn restarts(&self) -> BTreeMap<String, u64> {
        let counted = |actor: &Value| {
            let name = format!("{} {}", actor["kind"].as_str().unwrap(), actor["id"].as_str().unwrap());
            (name, actor["restarts"].as_u64().unwrap())
        };
        self.actors().await.iter().map(counted).filter(|(_, restarts)| *restarts > 0).collect()
    }

    async fn panic(&self, kind: ActorKind, id: &str) {
        let supervisor = self.gateway.engine().supervisor();
        let before = supervisor.restarts_total();
        // An actor that is about to be started again cannot panic yet.
        eventually("the actor is up", async || supervisor.inject_panic(kind, id).await).await;
        eventually("the panic is counted", async || supervisor.restarts_total() > before).await;
    }
}

/// Calls without a pause, in tasks of their own.
#[derive(Default)]
struct Traffic {
    over: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    /// Calls `url` over and over; `subject` gives the subject of each call.
    fn call(&mut self, url: String, subject: impl Fn(usize) -> String + Send + 'static) {
        let (over, made, failures) = (self.over.clone(), self.made.clone(), self.failures.clone());
        self.tasks.push(tokio::spawn(async move {
            for number in 0.. {
                let subject = subject(number);
                let call = http::get(&url).basic("billing", PASSWORD).header("Claviger-Subject", &subject);
                let start = Instant::now();
                let failure = match call.try_send().await {
                    Ok(answer) if answer.status == 200 => None,
                    Ok(answer) => Some(format!("{} {}", answer.status, answer.text())),
                    Err(error) => Some(error.to_string()),
                };
                made.fetch_add(1, Ordering::Relaxed);
                if let Some(failure) = failure {
                    failures
                        .lock()
                        .push(format!("{url} for {subject} after {:?}: {failure}", start.elapsed()));
                }
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        }));
    }

    /// Ends it; the number of calls. A call that failed fails the test.
    async fn end(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("did not panic");
        }
        let failures = self.failures.lock();
        assert!(
            failures.is_empty(),
            "{} calls failed: {:#?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
        self.made.load(Ordering::Relaxed)
    }
}

/// Calls whose token is fresh, short and long ones; calls whose token is renewed all the time; and
/// calls that need a token of their own.
fn traffic(cast: &Cast, round: &str) -> Traffic {
    let mut traffic = Traffic::default();
    for _ in 0..2 {
        traffic.call(cast.url("/calendar/events"), |_| "alice".into());
        traffic.call(cast.url("/calendar/events?wait_ms=150"), |_| "bob".into());
        traffic.call(cast.url("/rotating/events"), |_| "carol".into());
    }
    for task in 0..2 {
        let round = round.replace(' ', "-");
        traffic.call(cast.url("/cold/events"), move |number| format!("{round}-{task}-{number}"));
    }
    traffic
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_any_actor_fails_no_call_and_loses_nothing_stored() {
    let cast = Cast::start().await;
    for (profile, subject) in [("calendar", "alice"), ("calendar", "bob"), ("rotating", "carol")] {
        cast.connect(profile, subject).await;
    }
    assert_eq!(cast.restarts().await, BTreeMap::new());
    let mut expected = BTreeMap::new();
    let mut known: BTreeSet<String> = cast.connections().await.into_keys().collect();
    assert_eq!(known.len(), 3);

    for (kind, word, id) in [
        (ActorKind::Provider, "provider", "rotating"),
        (ActorKind::Provider, "provider", "cold"),
        (ActorKind::Provider, "provider", "calendar"),
        (ActorKind::TokenStore, "token_store", "store"),
        (ActorKind::Flow, "flow", "registrar"),
        (ActorKind::Proxy, "proxy", "worker-0"),
        (ActorKind::Proxy, "proxy", "worker-1"),
    ] {
        let name = format!("{word} {id}");
        let person = format!("person-of-{id}");
        let (mut browser, callback) = cast.consent_given("calendar", &person).await;
        let traffic = traffic(&cast, &name);
        for _ in 0..PANICS {
            sleep(PAUSE).await;
            cast.panic(kind, id).await;
        }
        sleep(PAUSE).await;
        let calls = traffic.end().await;
        assert!(calls > 50, "{name}: only {calls} calls met {PANICS} panics");

        expected.insert(name.clone(), PANICS);
        assert_eq!(cast.restarts().await, expected, "after {name}");
        browser.open(&callback).await.response.expect_status(200);
        let connections = cast.connections().await;
        assert!(
            connections.values().all(|state| state == "active" || state == "refreshing"),
            "{name}: {connections:?}"
        );
        known.insert(format!("calendar/{person}"));
        let kept: BTreeSet<String> = connections.into_keys().filter(|it| !it.starts_with("cold/")).collect();
        assert_eq!(kept, known, "after {name}");
    }

    let rotations = cast.brief.forms().iter().filter(|form| form["grant_type"] == "refresh_token").count();
    assert!(rotations >= 3, "hardly anything was refreshed");
    let subjects = cast.upstream.tokens().into_iter().collect::<BTreeSet<_>>();
    assert!(subjects.len() > 20, "hardly any call needed a token");
    // One token request for each connection, and not one more: the tasks that asked went on.
    let connections = cast.connections().await;
    assert_eq!(cast.lasting.count(), connections.len() - 1, "of {} connections", connections.len());

    // All of it was durable: another process finds the same.
    let Cast { config, gateway, lasting: _lasting, brief: _brief, upstream: _upstream } = cast;
    gateway.stop().await;
    let gateway = config.start().await;
    let listed = gateway.admin("GET", "/api/connections?limit=1000").send().await.expect_status(200).json();
    let listed = listed["connections"].as_array().unwrap();
    assert_eq!(listed.len(), connections.len());
    for (profile, subject) in [("calendar", "alice"), ("rotating", "carol"), ("calendar", "person-of-store")]
    {
        let call = gateway.request("GET", &format!("/{profile}/events")).header("Claviger-Subject", subject);
        call.send().await.expect_status(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_panics_answers_its_callback_and_only_once() {
    let cast = Cast::start().await;
    let (mut alice, of_alice) = cast.consent_given("calendar", "alice").await;
    let (mut bob, of_bob) = cast.consent_given("calendar", "bob").await;
    let flows = cast.actors().await;
    let flow = flows.iter().find(|actor| actor["detail"]["subject"] == "alice").expect("a flow");
    let flow = flow["id"].as_str().unwrap();
    for _ in 0..PANICS {
        cast.panic(ActorKind::Flow, flow).await;
    }
    assert_eq!(cast.restarts().await, BTreeMap::from([(format!("flow {flow}"), PANICS)]));

    bob.clone().open(&of_alice).await.response.expect_status(400);
    assert_eq!(cast.lasting.count(), 0, "another browser's callback makes no token request");
    alice.open(&of_alice).await.response.expect_status(200);
    alice.open(&of_alice).await.response.expect_status(400);
    bob.open(&of_bob).await.response.expect_status(200);
    assert_eq!(cast.lasting.count(), 2);
    cast.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_request_outlives_the_actors_that_wanted_it() {
    let cast = Cast::start().await;
    let call = |subject: &str| {
        http::get(&cast.url("/cold/events")).basic("billing", PASSWORD).header("Claviger-Subject", subject)
    };
    call("alice").send().await.expect_status(200);

    let late = || Answer::After(Duration::from_millis(1500), Box::new(Answer::Rotate));
    cast.lasting.next(late());
    let waiting = tokio::spawn(call("bob").send());
    eventually("a token is asked for", async || cast.lasting.count() == 2).await;
    cast.lasting.next(late());
    let refresh = format!("http://{}/api/connections/cold/alice/refresh", cast.config.admin);
    let refresh = tokio::spawn(http::request("POST", &refresh).send());
    eventually("another is asked for", async || cast.lasting.count() == 3).await;
    let (mut browser, callback) = cast.consent_given("calendar", "carol").await;
    cast.lasting.next(late());
    let consent = tokio::spawn(async move { browser.open(&callback).await.response });
    eventually("a code is redeemed", async || cast.lasting.count() == 4).await;

    for (kind, id) in [
        (ActorKind::Provider, "cold"),
        (ActorKind::Provider, "calendar"),
        (ActorKind::TokenStore, "store"),
        (ActorKind::Proxy, "worker-0"),
        (ActorKind::Proxy, "worker-1"),
    ] {
        cast.panic(kind, id).await;
    }
    assert!(
        !waiting.is_finished() && !refresh.is_finished() && !consent.is_finished(),
        "the panics came too late"
    );
    for answer in [waiting, refresh, consent] {
        answer.await.unwrap().expect_status(200);
    }
    assert_eq!(cast.lasting.count(), 4, "something was asked for twice");
    for subject in ["alice", "bob"] {
        call(subject).send().await.expect_status(200);
    }
    assert_eq!(cast.lasting.count(), 4, "what came was saved and is used");
    cast.gateway.stop().await;
}
