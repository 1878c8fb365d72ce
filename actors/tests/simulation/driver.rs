//! Plays one seed: a few epochs of random actions, each ended by a crash, then a calm one in which
//! everything that was promised must hold.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use claviger_actors::clock::Clock;
use claviger_actors::gateway::GatewayHandle;
use claviger_actors::protocol::template::CallContext;
use claviger_actors::protocol::token::{AccessToken, Expiry, RefreshToken, TokenSet, TokenType};
use claviger_actors::provider::error::TokenError;
use claviger_actors::supervision::{ActorKind, AskError};
use tokio::task::LocalSet;

use crate::people::spawn_consent;
use crate::world::{ORIGIN, World, connection_id};

/// Profile and subject.
pub type Who = (&'static str, &'static str);

const PEOPLE: [Who; 4] = [("person", "alice"), ("person", "bob"), ("person", "carol"), ("other", "alice")];
const ROBOT: Who = ("robot", "robot");

/// What the provider calls them.
pub fn name(who: Who) -> String {
    format!("{}.{}", who.0, who.1)
}

/// What happened, in order, and what must not have.
#[derive(Debug, Default)]
pub struct Story {
    pub lines: Vec<String>,
    pub faults: Vec<String>,
    pub token_requests: u64,
    /// Whose consent was acknowledged and neither revoked nor deleted since.
    connected: BTreeSet<Who>,
    /// How often it became doubtful whether they are connected.
    doubts: BTreeMap<Who, u64>,
}

impl Story {
    /// From now on nothing is expected of `who`, until whoever raised the doubt settles it.
    pub fn doubt(&mut self, who: Who) -> u64 {
        self.connected.remove(&who);
        let doubts = self.doubts.entry(who).or_default();
        *doubts += 1;
        *doubts
    }

    /// `who` is connected, unless something else began since `doubt`.
    pub fn trust(&mut self, who: Who, doubt: u64) {
        if self.doubts.get(&who) == Some(&doubt) {
            self.connected.insert(who);
        }
    }
}

pub type Shared = Rc<RefCell<Story>>;

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
    world.clock.resume();
    let engines = world.start_engines().await;
    note(world, story, format!("epoch {epoch}, engines: {}", engines.len()));
    let actions = 20 + world.rng.below(40);
    for _ in 0..actions {
        let gateway = &engines[world.rng.below(engines.len() as u64) as usize];
        act(world, story, gateway);
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
    let who = PEOPLE[world.rng.below(PEOPLE.len() as u64) as usize];
    match world.rng.below(100) {
        0..36 => {
            for _ in 0..=world.rng.below(4) {
                spawn_call(world, story, gateway, who);
            }
        }
        36..43 => spawn_call(world, story, gateway, ROBOT),
        43..58 => spawn_consent(world, story, gateway, who),
        58..63 => spawn_refresh(world, story, gateway, who),
        63..68 => gateway.refresh_ahead(&connection_id(who), &CallContext::none()),
        68..71 => {
            note(world, story, format!("{who:?} revokes at the provider"));
            world.provider.revoke(&name(who));
            story.borrow_mut().doubt(who);
        }
        71..74 => spawn_delete(world, story, gateway, who),
        74..77 => spawn_import(world, story, gateway, who),
        77..86 => spawn_panic(world, story, gateway),
        86..90 => {
            let failing = 1 + world.rng.below(6) as u32;
            note(world, story, format!("{failing} commits will fail"));
            world.store_faults.fail_next_commits(failing);
        }
        90..91 => world.store_faults.fail_next_reads(1),
        91..94 => world.store_faults.lose_next_answers(1),
        94..96 => world.store_faults.delay_commits(Duration::from_millis(world.rng.below(500))),
        _ => {
            let step = world.rng.below(7_200_000) as i64 - 3_600_000;
            // Replicas agree on marks by the clock that they share.
            if world.engines == 1 {
                note(world, story, format!("the clock is set by {step} ms"));
                world.clock.step(step);
            }
        }
    }
}

fn note(world: &World, story: &Shared, line: String) {
    story.borrow_mut().lines.push(format!("{} {line}", world.clock.now().as_millis()));
}

pub fn fault(story: &Shared, line: String) {
    story.borrow_mut().faults.push(line);
}

/// A way to write into the story from a task that may outlive the action.
pub fn teller(world: &World, story: &Shared) -> impl Fn(String) + 'static {
    let (clock, story) = (world.clock.clone(), story.clone());
    move |line| story.borrow_mut().lines.push(format!("{} {line}", clock.now().as_millis()))
}

/// A call; sometimes the upstream refuses the token, and the call is made again.
fn spawn_call(world: &mut World, story: &Shared, gateway: &GatewayHandle, who: Who) {
    let (gateway, tell, story) = (gateway.clone(), teller(world, story), story.clone());
    let (provider, clock) = (world.provider.clone(), world.clock.clone());
    // A replica that was killed leaves a mark that the others wait for.
    let deadline = Duration::from_secs(if world.engines == 1 { 45 } else { 120 });
    let refusals = if world.rng.below(5) == 0 { 1 } else { 0 };
    tokio::task::spawn_local(async move {
        let id = connection_id(who);
        let mut rejected = None;
        for _ in 0..=refusals {
            let answer =
                gateway.access_token(&id, Arc::from(ORIGIN), rejected, CallContext::none(), deadline).await;
            match answer {
                Ok(connection) => {
                    let tokens = connection.state.tokens().expect("a usable connection holds tokens");
                    let token = tokens.access_token.expose();
                    if !token.starts_with(&format!("access.{}-", name(who))) {
                        fault(&story, format!("{who:?} was given {token}"));
                    }
                    if connection.authorization(clock.now()).is_none() {
                        fault(&story, format!("{who:?} was given a token that has ended"));
                    }
                    let print = tokens.access_token.fingerprint();
                    if rejected == Some(print) && !connection.is_doubtful() {
                        fault(&story, format!("{who:?} was given the token that had been refused"));
                    }
                    tell(format!("call {who:?}: {print}"));
                    rejected = Some(print);
                }
                Err(error) => {
                    // Consent is asked for again only when the grant is dead.
                    let dropped = matches!(error, TokenError::AuthorizationRequired { .. })
                        && story.borrow().connected.contains(&who)
                        && provider.has_live_grant(&name(who));
                    if dropped {
                        fault(&story, format!("{who:?}'s live grant was dropped: {error:?}"));
                    }
                    if matches!(error, TokenError::Ask { source: AskError::TimedOut, .. }) {
                        fault(&story, format!("a call of {who:?} was left hanging"));
                    }
                    return tell(format!("call {who:?}: {error}"));
                }
            }
        }
    });
}

fn spawn_refresh(world: &World, story: &Shared, gateway: &GatewayHandle, who: Who) {
    let (gateway, tell) = (gateway.clone(), teller(world, story));
    tokio::task::spawn_local(async move {
        let answer = gateway.refresh_connection(&connection_id(who)).await;
        tell(format!("refresh {who:?}: {:?}", answer.map(|view| view.state)));
    });
}

fn spawn_delete(world: &World, story: &Shared, gateway: &GatewayHandle, who: Who) {
    let (gateway, tell, story) = (gateway.clone(), teller(world, story), story.clone());
    story.borrow_mut().doubt(who);
    tokio::task::spawn_local(async move {
        let answer = gateway.delete_connection(&connection_id(who)).await;
        // A consent given meanwhile was deleted as well.
        story.borrow_mut().doubt(who);
        tell(format!("delete {who:?}: {answer:?}"));
    });
}

/// A token set from elsewhere takes the place of what is there.
fn spawn_import(world: &World, story: &Shared, gateway: &GatewayHandle, who: Who) {
    let (gateway, tell, story) = (gateway.clone(), teller(world, story), story.clone());
    let doubt = story.borrow_mut().doubt(who);
    let provider = world.provider.clone();
    let (access, refresh) = provider.grant_elsewhere(&name(who));
    let now = world.clock.now();
    let tokens = TokenSet {
        access_token: AccessToken::new(access).unwrap(),
        dpop_key: None,
        token_type: TokenType::Bearer,
        obtained_at: now,
        expiry: Expiry::Stated { at: now.after(Duration::from_secs(60)) },
        refresh_token: Some(RefreshToken::new(refresh).unwrap()),
        refresh_token_obtained_at: None,
        requested_scope: None,
        scope: None,
        identity: None,
        extra: BTreeMap::new(),
    };
    tokio::task::spawn_local(async move {
        let answer = gateway.import_connection(&connection_id(who), tokens).await;
        if answer.is_ok() && provider.has_live_grant(&name(who)) {
            story.borrow_mut().trust(who, doubt);
        }
        tell(format!("import {who:?}: {:?}", answer.map(|view| view.state)));
    });
}

fn spawn_panic(world: &mut World, story: &Shared, gateway: &GatewayHandle) {
    let (kind, id) = match world.rng.below(6) {
        0 => (ActorKind::Provider, Some("person")),
        1 => (ActorKind::Provider, Some("robot")),
        2 => (ActorKind::TokenStore, Some("store")),
        3 => (ActorKind::Flow, Some("registrar")),
        _ => (ActorKind::Flow, None),
    };
    let (gateway, tell, drawn) = (gateway.clone(), teller(world, story), world.rng.next());
    tokio::task::spawn_local(async move {
        let id = match id {
            Some(id) => id.to_owned(),
            None => {
                let mut flows: Vec<_> = gateway.inspect().await;
                flows.retain(|report| report.kind == ActorKind::Flow && report.id != "registrar");
                if flows.is_empty() {
                    return;
                }
                flows.swap_remove(drawn as usize % flows.len()).id
            }
        };
        let found = gateway.supervisor().inject_panic(kind, &id).await;
        tell(format!("panic in {kind:?} {id}: {found}"));
    });
}

/// The storm is over: whoever is connected gets a token.
async fn epilogue(world: &World, story: &Shared) {
    world.clock.resume();
    let engines = world.start_engines().await;
    world.store_faults.fail_next_commits(0);
    world.store_faults.lose_next_answers(0);
    world.store_faults.delay_commits(Duration::ZERO);
    note(world, story, "calm".to_owned());
    let connected: Vec<Who> = story.borrow().connected.iter().copied().collect();
    for gateway in &engines {
        for who in connected.iter().copied().chain([ROBOT]) {
            if who != ROBOT && !world.provider.has_live_grant(&name(who)) {
                continue;
            }
            let id = connection_id(who);
            let answer = gateway
                .access_token(&id, Arc::from(ORIGIN), None, CallContext::none(), Duration::from_secs(60))
                .await;
            note(world, story, format!("at last {who:?}: {:?}", answer.as_ref().err()));
            if let Err(error) = answer {
                fault(story, format!("{who:?} was connected and has no token: {error:?}"));
            }
        }
    }
}
