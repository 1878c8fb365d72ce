//! One-for-one supervision from factories.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult};
use actix_rt::ArbiterHandle;
use futures_util::future;
use tokio::sync::watch;

use super::actor_ref::ActorRef;
use super::child::{Child, Managed};
use super::exit_guard::{self, ExitGuard, ExitReason};
use super::link::{Link, Order};
use super::observe::{ActorKind, ActorReport, Observe};
use super::restart_policy::{RestartDecision, RestartPolicy};
use super::vitals::{Standing, Vitals};
use crate::clock::{Clock, Timestamp};

/// An actor that can be supervised: it holds its [`ExitGuard`] and can be observed.
pub trait Supervised: Actor<Context = Context<Self>> + Handler<Observe> {
    /// Its kind.
    const KIND: ActorKind;
}

/// How a child is made, and made again.
pub struct ChildSpec<A: Supervised> {
    /// Which of its kind.
    pub id: String,
    /// When it is started again.
    pub policy: RestartPolicy,
    /// The thread it lives on.
    pub arbiter: ArbiterHandle,
    /// Makes a new actor, with no state of the one before. Runs on `arbiter`. A panic in it counts
    /// as a failed start and is tried again like any other end.
    pub factory: Box<dyn Fn(ExitGuard) -> A + Send + Sync>,
}

impl<A: Supervised> fmt::Debug for ChildSpec<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChildSpec({:?} {})", A::KIND, self.id)
    }
}

/// Names a child for its whole life, in the order of starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChildKey(u64);

struct Entry {
    child: Arc<dyn Child>,
    policy: RestartPolicy,
    /// Counts starts; what an older actor reports is past news.
    generation: u64,
    /// Restarts in a row, as [`RestartPolicy::decide`] counts them.
    streak: u32,
    launched_at: Timestamp,
    stopping: bool,
}

/// The supervising actor. Lives on the engine's thread.
pub struct Supervisor {
    clock: Arc<dyn Clock>,
    children: BTreeMap<ChildKey, Entry>,
    restarts: Arc<AtomicU64>,
    /// Dropped with the supervisor, which [`SupervisorHandle::ended`] notices.
    _alive: watch::Sender<()>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("children", &self.children.len()).finish()
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl Supervisor {
    /// Starts a supervisor on the current thread's arbiter.
    pub fn start(clock: Arc<dyn Clock>) -> SupervisorHandle {
        exit_guard::note_panic_locations();
        let restarts = Arc::new(AtomicU64::new(0));
        let (alive, ended) = watch::channel(());
        let supervisor = Self {
            clock: clock.clone(),
            children: BTreeMap::new(),
            restarts: restarts.clone(),
            _alive: alive,
        };
        let addr = Actor::start(supervisor);
        SupervisorHandle { addr, clock, restarts, next_key: Arc::new(AtomicU64::new(1)), ended }
    }

    fn launch(&mut self, key: ChildKey, ctx: &mut Context<Self>) {
        let Some(entry) = self.children.get_mut(&key).filter(|entry| !entry.stopping) else { return };
        entry.generation += 1;
        entry.launched_at = self.clock.now();
        entry.child.vitals().launched(entry.launched_at);
        let (generation, supervisor) = (entry.generation, ctx.address());
        if !entry.child.launch(key, generation, supervisor) {
            // Whatever its guard still reports is older than this generation.
            entry.generation += 1;
            entry.child.vitals().set_standing(Standing::Failed);
            entry.child.end();
            let vitals = entry.child.vitals();
            tracing::error!(kind = ?vitals.kind, id = %vitals.id, "actor failed: its thread has ended");
        }
    }

    fn exited(&mut self, exit: &ChildExited, ctx: &mut Context<Self>) {
        let Some(entry) = self.children.get_mut(&exit.key) else { return };
        if entry.generation != exit.generation {
            return;
        }
        let vitals = entry.child.vitals();
        if exit.reason != ExitReason::Stopped {
            vitals.exited(exit.reason.to_string());
        }
        if entry.stopping {
            self.forget(exit.key);
            return;
        }
        let ran_for = self.clock.now().since(entry.launched_at);
        let (decision, streak) = entry.policy.decide(&exit.reason, entry.streak, ran_for);
        entry.streak = streak;
        match decision {
            RestartDecision::Finished => self.forget(exit.key),
            RestartDecision::GiveUp => {
                tracing::error!(kind = ?vitals.kind, id = %vitals.id, reason = %exit.reason, "actor given up");
                self.forget(exit.key);
            }
            RestartDecision::Restart(delay) => {
                tracing::warn!(kind = ?vitals.kind, id = %vitals.id, reason = %exit.reason, ?delay, "actor restarts");
                vitals.restarted();
                self.restarts.fetch_add(1, Ordering::Relaxed);
                let key = exit.key;
                if delay.is_zero() {
                    self.launch(key, ctx);
                } else {
                    ctx.run_later(delay, move |this, ctx| this.launch(key, ctx));
                }
            }
        }
    }

    fn forget(&mut self, key: ChildKey) {
        if let Some(entry) = self.children.remove(&key) {
            entry.child.end();
        }
    }
}

/// A fact from an [`ExitGuard`].
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ChildExited {
    pub(super) key: ChildKey,
    pub(super) generation: u64,
    pub(super) reason: ExitReason,
}

impl Handler<ChildExited> for Supervisor {
    type Result = ();
    fn handle(&mut self, exit: ChildExited, ctx: &mut Self::Context) {
        self.exited(&exit, ctx);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct StartChild {
    key: ChildKey,
    child: Arc<dyn Child>,
    policy: RestartPolicy,
}

impl Handler<StartChild> for Supervisor {
    type Result = ();
    fn handle(&mut self, StartChild { key, child, policy }: StartChild, ctx: &mut Self::Context) {
        let launched_at = self.clock.now();
        let entry = Entry { child, policy, generation: 0, streak: 0, launched_at, stopping: false };
        self.children.insert(key, entry);
        self.launch(key, ctx);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct StopChild(ChildKey);

impl Handler<StopChild> for Supervisor {
    type Result = ();
    fn handle(&mut self, StopChild(key): StopChild, _: &mut Self::Context) {
        let Some(entry) = self.children.get_mut(&key) else { return };
        entry.stopping = true;
        entry.child.vitals().set_standing(Standing::Stopping);
        // Also heard by an actor that is only just being made on another thread.
        entry.child.order(Order::Stop);
        if !entry.child.is_up() {
            self.forget(key);
        }
    }
}

#[derive(Message)]
#[rtype(result = "Vec<Arc<dyn Child>>")]
pub(super) struct ListChildren;

impl Handler<ListChildren> for Supervisor {
    type Result = MessageResult<ListChildren>;
    fn handle(&mut self, _: ListChildren, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.children.values().map(|entry| entry.child.clone()).collect())
    }
}

/// How long an actor may take to say what it is doing.
const OBSERVE_DEADLINE: Duration = Duration::from_millis(250);

/// A handle on the [`Supervisor`], usable from any thread.
#[derive(Clone)]
pub struct SupervisorHandle {
    addr: Addr<Supervisor>,
    clock: Arc<dyn Clock>,
    restarts: Arc<AtomicU64>,
    next_key: Arc<AtomicU64>,
    ended: watch::Receiver<()>,
}

impl fmt::Debug for SupervisorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorHandle").field("restarts", &self.restarts_total()).finish()
    }
}

impl SupervisorHandle {
    /// Starts a supervised actor; asks sent before it is up wait for it.
    pub fn start_child<A: Supervised>(&self, spec: ChildSpec<A>) -> ActorRef<A> {
        let key = ChildKey(self.next_key.fetch_add(1, Ordering::Relaxed));
        let link = Arc::new(Link::new(Vitals::new(A::KIND, spec.id), key));
        let child = Arc::new(Managed::new(link.clone(), spec.arbiter, spec.factory));
        #[expect(clippy::disallowed_methods, reason = "as many as there are children; none may be dropped")]
        self.addr.do_send(StartChild { key, child, policy: spec.policy });
        ActorRef::new(link)
    }

    /// Ends a child for good, cleanly.
    pub fn stop_child<A: Supervised>(&self, child: &ActorRef<A>) {
        if let Some(key) = child.link().key() {
            #[expect(
                clippy::disallowed_methods,
                reason = "as many as there are children; none may be dropped"
            )]
            self.addr.do_send(StopChild(key));
        }
    }

    /// Observes every child at the same time, each within a short deadline. In the order of kind
    /// and id.
    pub async fn inspect(&self) -> Vec<ActorReport> {
        let children = self.children().await;
        let observing = children.iter().map(|child| async {
            let spoken = tokio::time::timeout(OBSERVE_DEADLINE, child.observe()).await;
            child.vitals().report(spoken.ok().flatten(), child.is_up(), self.clock.now())
        });
        let mut reports = future::join_all(observing).await;
        reports.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
        reports
    }

    /// Restarts of all children since the process began.
    pub fn restarts_total(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Returns when the supervisor itself has ended. Nothing is restarted from then on, so the
    /// process should end too.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    pub(super) async fn children(&self) -> Vec<Arc<dyn Child>> {
        let asked = tokio::time::timeout(OBSERVE_DEADLINE, self.addr.send(ListChildren)).await;
        asked.ok().and_then(Result::ok).unwrap_or_default()
    }
}
