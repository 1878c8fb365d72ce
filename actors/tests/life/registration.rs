//! A client that registers itself: once, whatever happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_actors::profile::Profile;
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::testing::profiles::{registering, registration, url};
use claviger_actors::transport::TransportError;
use futures_util::future::join_all;
use http::Method;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::world::*;

/// An authorization server that registers clients, and whose token endpoint knows them.
struct Registrar {
    state: Mutex<State>,
}

struct State {
    registered: u64,
    /// The clients that live: identifier, secret.
    clients: BTreeMap<String, String>,
    /// Whether RFC 7592 is offered.
    managed: bool,
    /// Seconds that a secret lives; zero for ever.
    secret_lives: u64,
    /// How long a registration takes.
    delay: Duration,
    refuse_registration: Option<Answer>,
    refuse_tokens: Option<&'static str>,
    clock: Arc<TestClock>,
}

impl State {
    fn told(&self, client_id: &str) -> Value {
        let mut told = json!({ "client_id": client_id, "client_secret": self.clients[client_id] });
        let end = self.clock.now().as_secs() + self.secret_lives;
        told["client_secret_expires_at"] = if self.secret_lives == 0 { 0.into() } else { end.into() };
        if self.managed {
            told["registration_client_uri"] = format!("https://as.example/register/{client_id}").into();
            told["registration_access_token"] = format!("manage-{client_id}").into();
        }
        told
    }

    fn manage(&mut self, request: &SentRequest, client_id: &str) -> Answer {
        let bearer = format!("Bearer manage-{client_id}");
        let authorized = request.headers.get(AUTHORIZATION).is_some_and(|value| *value == bearer);
        if !self.managed || !authorized || !self.clients.contains_key(client_id) {
            return Answer::json(401, json!({ "error": "invalid_token" }));
        }
        if request.method == Method::DELETE {
            self.clients.remove(client_id);
            return Answer::json(204, "");
        }
        if request.method == Method::PUT {
            let sent: Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(sent["client_id"], client_id);
            assert_eq!(sent["client_secret"], *self.clients[client_id]);
            assert_eq!(sent["grant_types"], json!(["client_credentials"]));
            self.clients.insert(client_id.to_owned(), format!("renewed-{client_id}"));
        }
        Answer::json(200, self.told(client_id))
    }
}

impl Registrar {
    fn answer(&self, request: &SentRequest) -> Answer {
        let mut state = self.state.lock();
        match request.url.path() {
            "/register" => {
                if let Some(Answer { after, result }) = &state.refuse_registration {
                    let result = match result {
                        Ok(answer) => Ok(answer.clone()),
                        Err(error) => Err(error.clone()),
                    };
                    return Answer { after: *after, result };
                }
                state.registered += 1;
                let client_id = format!("client-{}", state.registered);
                state.clients.insert(client_id.clone(), format!("secret-of-{client_id}"));
                Answer::json(201, state.told(&client_id)).delayed(state.delay)
            }
            "/token" => {
                if let Some(code) = state.refuse_tokens {
                    return Answer::json(401, json!({ "error": code }));
                }
                let (client_id, secret) = (request.param("client_id"), request.param("client_secret"));
                if state.clients.get(client_id).is_none_or(|known| known != secret) {
                    return Answer::json(401, json!({ "error": "invalid_client" }));
                }
                let token = json!({ "access_token": format!("of-{client_id}"), "expires_in": 600 });
                Answer::json(200, token).delayed(Duration::from_millis(50))
            }
            path => match path.strip_prefix("/register/") {
                Some(client_id) => state.manage(request, client_id),
                None => Answer::json(404, "{}"),
            },
        }
    }
}

struct Scene {
    world: World,
    server: Arc<Registrar>,
}

fn robot(scopes: &str) -> Profile {
    let mut robot = registration("robot");
    robot.scopes = ScopeSet::parse(scopes).unwrap();
    robot.provider.endpoints.registration_endpoint = Some(url("https://as.example/register"));
    registering(robot, "client_credentials", "client_secret_post")
}

impl Scene {
    fn of(mut world: World) -> Self {
        let state = State {
            registered: 0,
            clients: BTreeMap::new(),
            managed: false,
            secret_lives: 0,
            delay: Duration::from_secs(1),
            refuse_registration: None,
            refuse_tokens: None,
            clock: world.clock.clone(),
        };
        let server = Arc::new(Registrar { state: Mutex::new(state) });
        let scripted = server.clone();
        world.transport = ScriptedTransport::new(move |request| scripted.answer(request));
        world.profiles = vec![robot("calendar")];
        Self { world, server }
    }

    fn new() -> Self {
        Self::of(World::new())
    }

    fn managed(self) -> Self {
        self.set(|state| state.managed = true);
        self
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.server.state.lock());
    }

    /// Requests of this method to this path.
    fn count(&self, method: Method, path: &str) -> usize {
        let sent = self.world.transport.sent();
        sent.iter().filter(|request| request.method == method && request.url.path() == path).count()
    }

    fn registrations(&self) -> usize {
        self.count(Method::POST, "/register")
    }
}

async fn token(gateway: &GatewayHandle, subject: &str) -> String {
    access_token(&call(gateway, &id("robot", subject)).await.unwrap()).to_owned()
}

#[test]
fn many_calls_at_once_register_once() {
    run(async {
        let scene = Scene::new();
        let gateway = scene.world.start().await;
        let robot = &scene.world.profiles[0].registration.profile;
        assert_eq!(gateway.client_id(robot).await, None, "nothing is registered before it is needed");
        assert_eq!(scene.world.transport.count(), 0);
        let subjects: Vec<String> = (0..40).map(|n| format!("s{n}")).collect();
        let tokens = join_all(subjects.iter().map(|subject| token(&gateway, subject))).await;
        assert!(tokens.iter().all(|token| token == "of-client-1"), "{tokens:?}");
        assert_eq!(scene.registrations(), 1);
        assert_eq!(gateway.client_id(robot).await.as_deref(), Some("client-1"));
    });
}

#[test]
fn what_is_registered_is_what_the_profile_says() {
    run(async {
        let scene = Scene::new();
        token(&scene.world.start().await, "a").await;
        let sent = scene.world.transport.sent().remove(0);
        assert_eq!(sent.headers[http::header::CONTENT_TYPE], "application/json");
        assert!(!sent.headers.contains_key(AUTHORIZATION));
        assert_eq!(
            serde_json::from_slice::<Value>(&sent.body).unwrap(),
            json!({
                "redirect_uris": [], "response_types": [], "grant_types": ["client_credentials"],
                "token_endpoint_auth_method": "client_secret_post", "scope": "calendar",
            })
        );
    });
}

#[test]
fn the_client_is_the_same_after_a_restart() {
    run(async {
        let scene = Scene::new();
        token(&scene.world.start().await, "a").await;
        let again = scene.world.start().await;
        let robot = &scene.world.profiles[0].registration.profile;
        assert_eq!(again.client_id(robot).await.as_deref(), Some("client-1"));
        assert_eq!(token(&again, "b").await, "of-client-1");
        assert_eq!(scene.registrations(), 1);
    });
}

#[test]
fn other_metadata_is_another_client_and_the_old_ones_are_the_old_one() {
    run(async {
        let mut scene = Scene::new();
        token(&scene.world.start().await, "a").await;
        scene.world.profiles = vec![robot("calendar mail")];
        assert_eq!(token(&scene.world.start().await, "b").await, "of-client-2");
        scene.world.profiles = vec![robot("calendar")];
        assert_eq!(token(&scene.world.start().await, "c").await, "of-client-1");
        assert_eq!(scene.registrations(), 2);
    });
}

#[test]
fn a_client_that_cannot_be_saved_is_not_used_and_not_registered_again() {
    run(async {
        let scene = Scene::new();
        let gateway = scene.world.start().await;
        // The intent of the token request is journalled first; then the client cannot be saved.
        scene.set(|state| state.delay = Duration::from_secs(2));
        let calling = gateway.clone();
        let first = actix_rt::spawn(async move { call(&calling, &id("robot", "a")).await });
        pass(1.0).await;
        scene.world.faults.fail_next_commits(1_000_000);
        let answer = first.await.unwrap();
        assert!(matches!(answer, Err(TokenError::StoreUnavailable { .. })), "{answer:?}");
        pass(120.0).await;
        assert!(call(&gateway, &id("robot", "a")).await.is_err());
        assert_eq!(scene.world.token_requests(), 0, "a grant would be lost with its client");
        scene.world.faults.fail_next_commits(0);
        pass(120.0).await;
        assert_eq!(token(&gateway, "a").await, "of-client-1");
        assert_eq!(scene.registrations(), 1);
    });
}

#[test]
fn a_crash_between_registration_and_save_costs_a_second_registration_and_nothing_else() {
    run(async {
        let scene = Scene::new();
        let gateway = scene.world.start().await;
        let calling = gateway.clone();
        let cut_off = actix_rt::spawn(async move { call(&calling, &id("robot", "a")).await });
        pass(0.5).await;
        scene.world.faults.fail_next_commits(1_000_000);
        assert!(cut_off.await.unwrap().is_err());
        assert_eq!(scene.registrations(), 1);
        // Whatever the process still had in memory is gone with it.
        scene.world.faults.fail_next_commits(0);
        let again = scene.world.start().await;
        assert_eq!(token(&again, "a").await, "of-client-2");
        assert_eq!(token(&again, "b").await, "of-client-2");
        assert_eq!(scene.registrations(), 2);
    });
}

#[test]
fn the_loser_of_a_race_uses_the_winners_client_and_has_its_own_deleted() {
    run(async {
        let scene = Scene::of(World::new().shared()).managed();
        let (one, two) = (scene.world.start().await, scene.world.start().await);
        let (first, second) = tokio::join!(token(&one, "a"), token(&two, "b"));
        assert_eq!(scene.registrations(), 2, "neither could know of the other");
        assert_eq!(first, second);
        let living: Vec<_> = scene.server.state.lock().clients.keys().cloned().collect();
        assert_eq!(living.len(), 1, "{living:?}");
        assert_eq!(first, format!("of-{}", living[0]));
        let deletions = scene.world.transport.sent();
        let deletions: Vec<_> = deletions.iter().filter(|it| it.method == Method::DELETE).collect();
        assert_eq!(deletions.len(), 1);
        assert_ne!(deletions[0].url.path(), format!("/register/{}", living[0]));
    });
}

#[test]
fn a_replica_that_comes_later_registers_nothing() {
    run(async {
        let scene = Scene::of(World::new().shared());
        let (one, two) = (scene.world.start().await, scene.world.start().await);
        assert_eq!(token(&one, "a").await, token(&two, "b").await);
        assert_eq!(scene.registrations(), 1);
    });
}

#[test]
fn a_secret_whose_end_was_put_off_is_used_on() {
    run(async {
        let scene = Scene::new().managed();
        scene.set(|state| state.secret_lives = 3600);
        let gateway = scene.world.start().await;
        token(&gateway, "a").await;
        pass(3590.0).await;
        // Whoever runs the provider lets it live on.
        scene.set(|state| state.secret_lives = 0);
        assert_eq!(token(&gateway, "b").await, "of-client-1");
        assert_eq!(scene.registrations(), 1);
        assert_eq!(token(&scene.world.start().await, "c").await, "of-client-1", "and that is durable");
    });
}

#[test]
fn a_secret_that_ended_is_asked_for_by_an_update_where_reading_brings_no_new_one() {
    run(async {
        let scene = Scene::new().managed();
        scene.set(|state| state.secret_lives = 3600);
        let gateway = scene.world.start().await;
        token(&gateway, "a").await;
        pass(3590.0).await;
        // What is read has ended as well; an update brings another.
        scene.set(|state| state.secret_lives = 0);
        let end = scene.world.clock.now().as_secs();
        let Scene { mut world, server } = scene;
        let inner = server.clone();
        world.transport = ScriptedTransport::new(move |request| {
            if request.method == Method::GET && request.url.path() == "/register/client-1" {
                let mut told = inner.state.lock().told("client-1");
                told["client_secret_expires_at"] = end.into();
                return Answer::json(200, told);
            }
            inner.answer(request)
        });
        let again = world.start().await;
        assert_eq!(access_token(&call(&again, &id("robot", "b")).await.unwrap()), "of-client-1");
        assert_eq!(server.state.lock().clients["client-1"], "renewed-client-1");
    });
}

#[test]
fn a_secret_that_ends_makes_a_new_client_where_nothing_else_helps() {
    run(async {
        let scene = Scene::new();
        scene.set(|state| state.secret_lives = 3600);
        let gateway = scene.world.start().await;
        assert_eq!(token(&gateway, "a").await, "of-client-1");
        pass(3590.0).await;
        assert_eq!(token(&gateway, "b").await, "of-client-2");
        assert_eq!(token(&scene.world.start().await, "c").await, "of-client-2");
        assert_eq!(scene.registrations(), 2);
    });
}

#[test]
fn a_client_that_the_provider_forgot_is_replaced_once_an_hour() {
    run(async {
        let scene = Scene::new().managed();
        let gateway = scene.world.start().await;
        token(&gateway, "a").await;
        scene.set(|state| state.clients.clear());
        assert_eq!(token(&gateway, "b").await, "of-client-2", "the call itself does not notice");
        scene.set(|state| state.clients.clear());
        for minute in 0..50 {
            let answer = call(&gateway, &id("robot", &format!("m{minute}"))).await;
            assert!(matches!(answer, Err(TokenError::ClientMisconfigured { .. })), "{answer:?}");
            pass(60.0).await;
        }
        assert_eq!(scene.registrations(), 2);
        let again = scene.world.start().await;
        assert!(call(&again, &id("robot", "c")).await.is_err());
        assert_eq!(scene.registrations(), 2, "nor after a restart");
        pass(3600.0).await;
        assert_eq!(token(&again, "d").await, "of-client-3");
    });
}

#[test]
fn calls_at_once_replace_a_forgotten_client_once() {
    run(async {
        let scene = Scene::new();
        let gateway = scene.world.start().await;
        token(&gateway, "a").await;
        scene.set(|state| state.clients.clear());
        let subjects: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
        let tokens = join_all(subjects.iter().map(|subject| token(&gateway, subject))).await;
        assert!(tokens.iter().all(|token| token == "of-client-2"), "{tokens:?}");
        assert_eq!(scene.registrations(), 2);
    });
}

#[test]
fn a_client_whose_secret_was_changed_at_the_provider_is_kept() {
    run(async {
        let scene = Scene::new().managed();
        let gateway = scene.world.start().await;
        token(&gateway, "a").await;
        scene.set(|state| drop(state.clients.insert("client-1".into(), "changed".into())));
        assert_eq!(token(&gateway, "b").await, "of-client-1");
        assert_eq!(scene.registrations(), 1);
    });
}

#[test]
fn a_client_that_the_provider_still_knows_is_not_replaced() {
    run(async {
        let scene = Scene::new().managed();
        let gateway = scene.world.start().await;
        token(&gateway, "a").await;
        scene.set(|state| state.refuse_tokens = Some("invalid_client"));
        for n in 0..10 {
            assert!(call(&gateway, &id("robot", &format!("s{n}"))).await.is_err());
        }
        assert_eq!(scene.registrations(), 1);
        assert!(scene.count(Method::GET, "/register/client-1") <= 2, "and it is not read by every call");
        scene.set(|state| state.refuse_tokens = None);
        assert_eq!(token(&gateway, "b").await, "of-client-1");
    });
}

#[test]
fn no_other_refusal_replaces_a_client() {
    run(async {
        let scene = Scene::new();
        let gateway = scene.world.start().await;
        token(&gateway, "a").await;
        for code in ["unauthorized_client", "invalid_scope", "invalid_grant"] {
            scene.set(|state| state.refuse_tokens = Some(code));
            assert!(call(&gateway, &id("robot", code)).await.is_err());
        }
        assert_eq!(scene.registrations(), 1);
    });
}

#[test]
fn a_refused_registration_says_why_and_what_to_do_and_is_not_repeated_by_every_call() {
    run(async {
        let scene = Scene::new();
        let refusal = json!({ "error": "invalid_redirect_uri", "error_description": "not on our list" });
        scene.set(|state| state.refuse_registration = Some(Answer::json(400, &refusal)));
        let gateway = scene.world.start().await;
        for n in 0..50 {
            let answer = call(&gateway, &id("robot", &format!("s{n}"))).await;
            let Err(TokenError::ClientMisconfigured { profile, detail, .. }) = &answer else {
                panic!("{answer:?}")
            };
            assert_eq!(profile.as_str(), "robot");
            for part in ["invalid_redirect_uri", "not on our list", "`registration`", "`client_id`"] {
                assert!(detail.contains(part), "{detail}");
            }
            pass(0.1).await;
        }
        let asked = scene.registrations();
        assert!(asked < 10, "{asked} registrations in five seconds");
        scene.set(|state| state.refuse_registration = None);
        pass(120.0).await;
        assert_eq!(token(&gateway, "b").await, "of-client-1");
    });
}

#[test]
fn a_registration_that_wants_a_token_says_so() {
    run(async {
        let scene = Scene::new();
        scene.set(|state| {
            state.refuse_registration = Some(Answer::json(401, json!({"error":"invalid_token"})))
        });
        let answer = call(&scene.world.start().await, &id("robot", "a")).await;
        let told = answer.unwrap_err().to_string();
        assert!(told.contains("`registration.initial_access_token`"), "{told}");
    });
}

#[test]
fn a_provider_that_is_down_is_no_misconfiguration() {
    run(async {
        let scene = Scene::new();
        let down = TransportError::Connect { authority: "as.example".into(), cause: "refused".into() };
        scene.set(|state| state.refuse_registration = Some(Answer::failed(down)));
        let answer = call(&scene.world.start().await, &id("robot", "a")).await;
        assert!(
            matches!(
                answer,
                Err(TokenError::ProviderUnavailable { reason: Reason::ProviderUnreachable, .. })
            ),
            "{answer:?}"
        );
    });
}

#[test]
fn without_an_endpoint_the_key_to_configure_is_named() {
    run(async {
        let mut scene = Scene::new();
        let mut profile = robot("calendar");
        profile.registration.provider.endpoints.registration_endpoint = None;
        scene.world.profiles = vec![profile];
        let told = call(&scene.world.start().await, &id("robot", "a")).await.unwrap_err().to_string();
        for part in ["robot", "registration_endpoint", "`registration`", "`client_id`"] {
            assert!(told.contains(part), "{told}");
        }
    });
}

#[test]
fn a_method_that_the_provider_decides_on_is_used() {
    run(async {
        let mut scene = Scene::new();
        let inner = scene.server.clone();
        scene.world.transport = ScriptedTransport::new(move |request| {
            if request.url.path() == "/register" {
                inner.answer(request);
                let mut told = inner.state.lock().told("client-1");
                told["token_endpoint_auth_method"] = "client_secret_basic".into();
                return Answer::json(201, told);
            }
            assert!(request.headers.contains_key(AUTHORIZATION), "HTTP Basic");
            Answer::json(200, json!({ "access_token": "by-basic", "expires_in": 600 }))
        });
        assert_eq!(token(&scene.world.start().await, "a").await, "by-basic");
    });
}

#[test]
fn a_secret_that_had_ended_when_it_came_is_not_asked_for_by_every_call() {
    run(async {
        let scene = Scene::new().managed();
        scene.set(|state| state.secret_lives = 1);
        let mut world = scene.world;
        let inner = scene.server.clone();
        world.transport =
            ScriptedTransport::new(move |request| inner.answer(request).delayed(Duration::from_secs(2)));
        let gateway = world.start().await;
        for n in 0..20 {
            assert!(call(&gateway, &id("robot", &format!("s{n}"))).await.is_err());
        }
        let registered = scene.server.state.lock().registered;
        assert!(registered < 8, "{registered} registrations");
        assert!(scene.server.state.lock().clients.is_empty(), "none is left behind");
    });
}

#[test]
fn a_replica_whose_initial_access_token_was_used_up_by_another_uses_its_client() {
    run(async {
        let mut scene = Scene::of(World::new().shared());
        let inner = scene.server.clone();
        scene.world.transport = ScriptedTransport::new(move |request| {
            let registered = inner.state.lock().registered;
            match request.url.path() {
                "/register" if registered > 0 => {
                    Answer::json(401, json!({ "error": "invalid_token" })).delayed(Duration::from_secs(3))
                }
                _ => inner.answer(request),
            }
        });
        let (one, two) = (scene.world.start().await, scene.world.start().await);
        let (first, second) = tokio::join!(token(&one, "a"), token(&two, "b"));
        assert_eq!((first.as_str(), second.as_str()), ("of-client-1", "of-client-1"));
    });
}
