//! What lives per worker thread, and the slow path of a call.
//!
//! Request tasks on the worker hold the [`Worker`] itself and use its pool without a mailbox. The
//! actor owns the pool's life: it makes a new one whenever it is started anew, closes what has been
//! idle for too long, and asks for tokens that are not at hand.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture};
use actix_rt::ArbiterHandle;
use futures_util::future::LocalBoxFuture;

use super::error::UpstreamError;
use super::route::RoutingTable;
use super::upstream::{UpstreamPool, UpstreamSettings};
use crate::connection::Connection;
use crate::protocol::identifiers::ConnectionId;
use crate::protocol::template::CallContext;
use crate::protocol::token::TokenFingerprint;
use crate::provider::error::TokenError;
use crate::supervision::{
    ActorKind, ActorRef, ChildSpec, ExitGuard, Observation, Observe, RestartPolicy, Supervised,
    SupervisorHandle,
};

/// How often idle connections are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Calls that may wait in the mailbox; what the slow path answers itself does not count.
const MAILBOX: usize = 256;

/// Where tokens come from when the published ones do not do.
pub trait TokenSource: Send + Sync {
    /// Obtains or awaits a usable token that may be sent to `origin` and is not the `rejected` one.
    fn access_token(
        &self,
        id: ConnectionId,
        origin: Arc<str>,
        rejected: Option<TokenFingerprint>,
        call: Arc<CallContext>,
        deadline: Duration,
    ) -> LocalBoxFuture<'static, Result<Arc<Connection>, TokenError>>;

    /// The routes that the tokens are for, to show how their upstreams are.
    fn routes(&self) -> Arc<RoutingTable> {
        Arc::default()
    }
}

/// Asks for a connection whose token can be sent now.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Arc<Connection>, TokenError>")]
pub struct PrepareForward {
    /// Whose token.
    pub id: ConnectionId,
    /// Where it will be sent.
    pub origin: Arc<str>,
    /// An access token that the upstream refused: anything but this one is wanted.
    pub rejected: Option<TokenFingerprint>,
    /// What the call brings along.
    pub call: Arc<CallContext>,
    /// How long the call can wait.
    pub deadline: Duration,
}

/// What one worker thread's requests share. It outlives the actor: requests in flight keep theirs
/// when the actor is started anew.
#[derive(Debug)]
pub struct Worker {
    key: u64,
    settings: Arc<UpstreamSettings>,
    pool: RefCell<Rc<UpstreamPool>>,
    in_flight: Cell<u64>,
    requests: Cell<u64>,
    failures: Cell<u64>,
    last_error: RefCell<Option<String>>,
}

impl Worker {
    fn new(key: u64, settings: Arc<UpstreamSettings>) -> Rc<Self> {
        Rc::new(Self {
            key,
            pool: RefCell::new(UpstreamPool::new(settings.clone())),
            settings,
            in_flight: Cell::new(0),
            requests: Cell::new(0),
            failures: Cell::new(0),
            last_error: RefCell::new(None),
        })
    }

    /// The pool to send on now.
    pub fn pool(&self) -> Rc<UpstreamPool> {
        self.pool.borrow().clone()
    }

    /// The bounds that this worker's connections have.
    pub fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Counts a request until the guard is dropped.
    pub fn begin(self: &Rc<Self>) -> InFlight {
        self.requests.set(self.requests.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(self.clone())
    }

    /// Counts a failure and keeps it for `/debug/actors`.
    pub fn note_failure(&self, error: &UpstreamError) {
        self.failures.set(self.failures.get() + 1);
        self.last_error.replace(Some(error.to_string()));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails only while the thread itself ends.
        let _ = WORKERS.try_with(|workers| workers.borrow_mut().remove(&self.key));
    }
}

/// One request in flight.
#[derive(Debug)]
pub struct InFlight(Rc<Worker>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

thread_local! {
    /// Where an actor that is started anew finds the worker of its thread: its factory has to be
    /// `Send`, which no `Rc` is.
    static WORKERS: RefCell<BTreeMap<u64, Weak<Worker>>> = const { RefCell::new(BTreeMap::new()) };
}

static NEXT_WORKER: AtomicU64 = AtomicU64::new(1);

/// One worker's pool and slow path.
#[derive(Debug)]
pub struct ProxyActor {
    name: Arc<str>,
    worker: Rc<Worker>,
    tokens: Tokens,
    _guard: ExitGuard,
}

#[derive(Clone)]
struct Tokens(Arc<dyn TokenSource>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenSource")
    }
}

impl ProxyActor {
    /// Starts a worker's actor on `arbiter`, which must be the current thread's, and gives what the
    /// worker's request tasks need.
    pub fn start_worker(
        supervisor: &SupervisorHandle,
        arbiter: ArbiterHandle,
        name: &str,
        settings: Arc<UpstreamSettings>,
        tokens: Arc<dyn TokenSource>,
    ) -> (Rc<Worker>, ActorRef<Self>) {
        let key = NEXT_WORKER.fetch_add(1, Ordering::Relaxed);
        let worker = Worker::new(key, settings.clone());
        WORKERS.with(|workers| workers.borrow_mut().insert(key, Rc::downgrade(&worker)));
        let name: Arc<str> = Arc::from(name);
        let actor = supervisor.start_child(ChildSpec {
            id: name.to_string(),
            policy: RestartPolicy::default(),
            arbiter,
            factory: Box::new(move |guard| {
                let worker = WORKERS.with(|workers| workers.borrow().get(&key).and_then(Weak::upgrade));
                // Without its worker, nobody is left to serve.
                let worker = worker.unwrap_or_else(|| Worker::new(key, settings.clone()));
                worker.pool.replace(UpstreamPool::new(settings.clone()));
                Self { name: name.clone(), worker, tokens: Tokens(tokens.clone()), _guard: guard }
            }),
        });
        (worker, actor)
    }
}

impl Actor for ProxyActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(SWEEP_INTERVAL, |this, _| this.worker.pool().sweep());
    }
}

impl Supervised for ProxyActor {
    const KIND: ActorKind = ActorKind::Proxy;
}

impl Handler<PrepareForward> for ProxyActor {
    type Result = ResponseFuture<Result<Arc<Connection>, TokenError>>;

    fn handle(&mut self, wanted: PrepareForward, _: &mut Self::Context) -> Self::Result {
        let PrepareForward { id, origin, rejected, call, deadline } = wanted;
        self.tokens.0.access_token(id, origin, rejected, call, deadline)
    }
}

impl Handler<Observe> for ProxyActor {
    type Result = actix::MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let (worker, pool) = (&self.worker, self.worker.pool());
        let in_flight = worker.in_flight.get();
        actix::MessageResult(Observation {
            state: if in_flight == 0 { "idle" } else { "forwarding" }.to_owned(),
            last_error: worker.last_error.borrow().clone(),
            detail: serde_json::json!({
                "worker": &*self.name,
                "idle_connections": pool.idle_connections(),
                "idle_connections_limit": worker.settings.max_idle_per_origin,
                "opened_connections": pool.opened_connections(),
                "in_flight": in_flight,
                "requests": worker.requests.get(),
                "failures": worker.failures.get(),
                "upstreams": upstreams(&self.tokens.0.routes()),
            }),
        })
    }
}

/// The upstreams that are looked after, as all workers see them.
fn upstreams(routes: &RoutingTable) -> Vec<serde_json::Value> {
    let looked_after =
        routes.iter().filter_map(|route| Some((&route.id, route.resilience.endpoints.as_ref()?)));
    let views =
        looked_after.flat_map(|(id, endpoints)| endpoints.views().into_iter().map(move |view| (id, view)));
    let shown = views.map(|(id, view)| {
        serde_json::json!({
            "route": id.as_str(),
            "origin": &*view.origin,
            "state": view.state,
            "failures": view.failures,
            "in_flight": view.in_flight,
            "retry_in_ms": view.retry_in.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        })
    });
    shown.collect()
}

#[cfg(test)]
mod tests;
