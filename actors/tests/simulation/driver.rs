//! Plays one seed: a few epochs of random actions, each ended by a crash, then a calm one in which
//! everything that was promised must hold.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use claviger_actors::clock::Clock;
use claviger_actors::flow::error::FlowError;
use claviger_actors::gateway::GatewayHandle;
use claviger_actors::protocol::authorization_response::AuthorizationResponse;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::provider::error::TokenError;
use claviger_actors::supervision::ActorKind;
use tokio::task::LocalSet;

use crate::world::{ORIGIN, World, connection_id};

const SUBJECTS: [&str; 3] = ["alice", "bob", "carol"];

/// What happened, in order, and what must not have.
#[derive(Debug, Default)]
pub struct Story {
    pub lines: Vec<String>,
    pub faults: Vec<String>,
    pub token_requests: u64,
    /// Subjects whose consent was acknowledged and neither revoked nor deleted since.
    connected: BTreeMap<&'static str, bool>,
}

type Shared = Rc<RefCell<Story>>;

/// Plays `seed`.
pub fn run(seed: u64) -> Story {
    let mut world = World::new(seed);
    let story = Shared::default();
    let epochs = 1 + world.rng.below(4);
    for epoch in 0..epochs {
        in_runtime(|| play_epoch(&mut world, &story, epoch));
        world.crashed();
    }
    world.provider.heal();
    in_runtime(|| epilogue(&world, &story));
    let mut story = Rc::try_unwrap(story).expect("all tasks ended with their runtime").into_inner();
    story.faults.extend(world.provider.violations());
    story.token_requests = world.provider.token_requests();
    story
}

/// One process's life: a runtime of its own with paused time; what runs in it dies with it.
fn in_runtime<F: Future<Output = ()>>(life: impl FnOnce() -> F) {
    let system = actix_rt::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    });
    let local = LocalSet::new();
    system.block_on(local.run_until(life()));
}

async fn play_epoch(world: &mut World, story: &Shared, epoch: u64) {
    let gateway = world.start_engine().await;
    note(world, story, format!("epoch {epoch}"));
    let actions = 20 + world.rng.below(40);
    for _ in 0..actions {
        act(world, story, &gateway);
        let pause = match world.rng.below(10) {
            0..6 => world.rng.below(300),
            6..9 => world.rng.below(10_000),
            _ => world.rng.below(120_000),
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    // Some epochs end in the middle of everything.
    if world.rng.below(3) == 0 {
        tokio::time::sleep(Duration::from_secs(120)).await;
    }
    world.clock.pause();
}

fn act(world: &mut World, story: &Shared, gateway: &GatewayHandle) {
    let subject = SUBJECTS[world.rng.below(3) as usize];
    match world.rng.below(100) {
        0..45 => {
            for _ in 0..=world.rng.below(4) {
                spawn_call(world, story, gateway, "person", subject);
            }
        }
        45..52 => spawn_call(world, story, gateway, "robot", "robot"),
        52..70 => spawn_consent(world, story, gateway, subject),
        70..75 => spawn_refresh(world, story, gateway, subject),
        75..78 => {
            note(world, story, format!("{subject} revokes at the provider"));
            world.provider.revoke(subject);
            story.borrow_mut().connected.remove(subject);
        }
        78..81 => spawn_delete(world, story, gateway, subject),
        81..89 => spawn_panic(world, story, gateway),
        89..93 => {
            let failing = 1 + world.rng.below(6) as u32;
            note(world, story, format!("{failing} commits will fail"));
            world.store_faults.fail_next_commits(failing);
        }
        93..95 => world.store_faults.lose_next_answers(1),
        95..97 => world.store_faults.delay_commits(Duration::from_millis(world.rng.below(500))),
        _ => {
            let step = world.rng.below(7_200_000) as i64 - 3_600_000;
            note(world, story, format!("the clock is set by {step} ms"));
            world.clock.step(step);
        }
    }
}

fn note(world: &World, story: &Shared, line: String) {
    story.borrow_mut().lines.push(format!("{} {line}", world.clock.now().as_millis()));
}

fn fault(story: &Shared, line: String) {
    story.borrow_mut().faults.push(line);
}

/// A way to write into the story from a task that may outlive the action.
fn teller(world: &World, story: &Shared) -> impl Fn(String) + 'static {
    let (clock, story) = (world.clock.clone(), story.clone());
    move |line| story.borrow_mut().lines.push(format!("{} {line}", clock.now().as_millis()))
}

fn spawn_call(
    world: &World,
    story: &Shared,
    gateway: &GatewayHandle,
    profile: &'static str,
    subject: &'static str,
) {
    let (gateway, tell, story) = (gateway.clone(), teller(world, story), story.clone());
    let (provider, clock) = (world.provider.clone(), world.clock.clone());
    tokio::task::spawn_local(async move {
        let id = connection_id(profile, subject);
        let answer = gateway.access_token(&id, Arc::from(ORIGIN), None, Duration::from_secs(40)).await;
        match answer {
            Ok(connection) => {
                let tokens = connection.state.tokens().expect("a usable connection holds tokens");
                let token = tokens.access_token.expose();
                if !token.starts_with(&format!("access.{subject}-")) {
                    fault(&story, format!("{subject} was given {token}"));
                }
                if connection.authorization(clock.now()).is_none() {
                    fault(&story, format!("{subject} was given a token that has ended"));
                }
                tell(format!("call {profile}/{subject}: {}", tokens.access_token.fingerprint()));
            }
            Err(error) => {
                // Consent is asked for again only when the grant is dead.
                let dropped = matches!(error, TokenError::AuthorizationRequired { .. })
                    && story.borrow().connected.contains_key(subject)
                    && provider.has_live_grant(subject);
                if dropped {
                    fault(&story, format!("{subject}'s live grant was dropped: {error:?}"));
                }
                tell(format!("call {profile}/{subject}: {error}"));
            }
        }
    });
}

fn spawn_refresh(world: &World, story: &Shared, gateway: &GatewayHandle, subject: &'static str) {
    let (gateway, tell) = (gateway.clone(), teller(world, story));
    tokio::task::spawn_local(async move {
        let answer = gateway.refresh_connection(&connection_id("person", subject)).await;
        tell(format!("refresh {subject}: {:?}", answer.map(|view| view.state)));
    });
}

fn spawn_delete(world: &World, story: &Shared, gateway: &GatewayHandle, subject: &'static str) {
    let (gateway, tell, story) = (gateway.clone(), teller(world, story), story.clone());
    story.borrow_mut().connected.remove(subject);
    tokio::task::spawn_local(async move {
        let answer = gateway.delete_connection(&connection_id("person", subject)).await;
        // A consent given meanwhile was deleted as well.
        story.borrow_mut().connected.remove(subject);
        tell(format!("delete {subject}: {answer:?}"));
    });
}

fn spawn_panic(world: &mut World, story: &Shared, gateway: &GatewayHandle) {
    let (kind, id) = match world.rng.below(4) {
        0 => (ActorKind::Provider, "person"),
        1 => (ActorKind::Provider, "robot"),
        2 => (ActorKind::TokenStore, "store"),
        _ => (ActorKind::Flow, "registrar"),
    };
    let (gateway, tell) = (gateway.clone(), teller(world, story));
    tokio::task::spawn_local(async move {
        let found = gateway.supervisor().inject_panic(kind, id).await;
        tell(format!("panic in {kind:?} {id}: {found}"));
    });
}

/// A person consents, and things go right or wrong on the way back.
fn spawn_consent(world: &mut World, story: &Shared, gateway: &GatewayHandle, subject: &'static str) {
    let (gateway, tell, story) = (gateway.clone(), teller(world, story), story.clone());
    let (provider, mut rng) = (world.provider.clone(), world.rng.fork());
    // Until it is known how this ends, nothing can be expected of this subject.
    story.borrow_mut().connected.remove(subject);
    tokio::task::spawn_local(async move {
        let begun = gateway.begin_authorization(connection_id("person", subject), None, None).await;
        let redirect = match begun {
            Ok(redirect) => redirect,
            Err(error) => return tell(format!("consent {subject}: not begun: {error}")),
        };
        let (code, state) = provider.consent(&redirect.url, subject);
        tokio::time::sleep(Duration::from_millis(rng.below(30_000))).await;
        let genuine = response(&state, &code, None);
        let wrong = rng.below(4);
        let refused = match wrong {
            0 => Some((genuine.clone(), Some(Secret::new("B".repeat(43))))),
            1 => Some((genuine.clone(), None)),
            2 => Some((response("no-such-state", &code, None), Some(redirect.browser.clone()))),
            _ => None,
        };
        if let Some((forged, browser)) = refused {
            let answer = gateway.accept_authorization_response(forged, browser).await;
            tell(format!(
                "forged callback {wrong} for {subject}: {:?}",
                answer.as_ref().err().map(ToString::to_string)
            ));
            if answer.is_ok() {
                fault(&story, format!("a forged callback was accepted for {subject}"));
            }
        }
        let browser = Some(redirect.browser.clone());
        let first = gateway.accept_authorization_response(genuine.clone(), browser.clone());
        let outcome = if rng.below(2) == 0 {
            let (first, second) =
                tokio::join!(first, gateway.accept_authorization_response(genuine.clone(), browser.clone()));
            if first.is_ok() && second.is_ok() {
                fault(&story, format!("one state of {subject} was used twice"));
            }
            if first.is_ok() { first } else { second }
        } else {
            first.await
        };
        tell(format!("consent {subject}: {:?}", outcome.as_ref().err().map(ToString::to_string)));
        if outcome.is_ok() && provider.has_live_grant(subject) {
            story.borrow_mut().connected.insert(subject, true);
        }
        let replay = gateway.accept_authorization_response(genuine, browser).await;
        let harmless =
            matches!(&replay, Err(FlowError::Invalid { .. } | FlowError::Store(_) | FlowError::Ask(_)));
        if outcome.is_ok() && !harmless {
            fault(&story, format!("a replayed callback of {subject} gave {replay:?}"));
        }
    });
}

fn response(state: &str, code: &str, iss: Option<&str>) -> AuthorizationResponse {
    AuthorizationResponse {
        state: Secret::new(state),
        iss: iss.map(str::to_owned),
        result: Ok(Secret::new(code)),
    }
}

/// The storm is over: whoever is connected gets a token.
async fn epilogue(world: &World, story: &Shared) {
    let gateway = world.start_engine().await;
    world.store_faults.fail_next_commits(0);
    world.store_faults.lose_next_answers(0);
    world.store_faults.delay_commits(Duration::ZERO);
    note(world, story, "calm".to_owned());
    let connected: Vec<&str> = story.borrow().connected.keys().copied().collect();
    let expected = connected.into_iter().map(|subject| ("person", subject)).chain([("robot", "robot")]);
    for (profile, subject) in expected {
        if profile == "person" && !world.provider.has_live_grant(subject) {
            continue;
        }
        let id = connection_id(profile, subject);
        let answer = gateway.access_token(&id, Arc::from(ORIGIN), None, Duration::from_secs(60)).await;
        note(world, story, format!("at last {profile}/{subject}: {:?}", answer.as_ref().err()));
        if let Err(error) = answer {
            fault(story, format!("{profile}/{subject} was connected and has no token: {error:?}"));
        }
    }
}
