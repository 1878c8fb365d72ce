//! The listener for internal applications.
//!
//! One service takes every request; neither routing nor normalisation of a server library touches
//! it. What is asked is checked in this order, so that a caller without credentials learns nothing but
//! that its request is malformed:
//!
//! 0. whether there is room for one more call (`load`);
//! 1. method (`CONNECT` and `TRACE` are not served), path policy, `Host`, `Expect`;
//! 2. who calls;
//! 3. route, whether the caller may use it, with this method, for this subject;
//! 4. the size of the body, and how many calls its caller and its route may make;
//! 5. the token, and only then the upstream.
//!
//! Requests come in and answers go out by `http1` and `http2`; what is between is the same for both.
//!
//! Reading order: `gateway` (what is needed of the engine), `asked` (1), `call` (2 to 4; `gather` for
//! what a call brings along), `token` and `consent` (5), `forward` with `possession`, `answer`, and `tunnel` for what is
//! no HTTP any more.

mod answer;
mod asked;
mod call;
mod consent;
mod forward;
pub mod gateway;
mod gather;
mod http1;
mod http2;
pub mod load;
mod possession;
mod request_id;
mod token;
mod tunnel;

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_http::{Request, Response};
use actix_rt::Arbiter;
use actix_service::{Service, ServiceFactory, fn_service};
use actix_web::HttpResponse;
use arc_swap::ArcSwap;
use claviger_actors::gateway::GatewayHandle;
use claviger_actors::protocol::identifiers::{RouteId, Subject};
use claviger_actors::protocol::template::CallDigest;
use claviger_actors::proxy::actor::{ProxyActor, Worker};
use claviger_actors::proxy::body::Incoming;
use claviger_actors::proxy::route::Route;
use claviger_actors::proxy::upstream::UpstreamSettings;
use claviger_actors::supervision::ActorRef;
use url::Url;

use super::browser_cookie::BrowserCookie;
use super::problem::AnsweredWith;
use super::server::{Handlers, Http2Handler};
use crate::caller_auth::CallerDirectory;
use crate::counts::{CallCounter, CallCounts};
use answer::Passing;
use asked::{Arrival, Asked};
use gateway::ProxyGateway;
use load::Load;
use request_id::{RequestId, RequestIds};

pub use http1::Http1Body;

/// What the proxy listener's workers share.
#[derive(Clone, Debug)]
pub struct ProxyState<G = GatewayHandle> {
    gateway: G,
    callers: Arc<ArcSwap<CallerDirectory>>,
    public_url: Url,
    upstream: Arc<UpstreamSettings>,
    digest: CallDigest,
    counts: CallCounts,
    load: Load,
    workers: Arc<AtomicUsize>,
}

impl<G: ProxyGateway> ProxyState<G> {
    /// A listener for `callers`. `public_url` is where browsers reach the public listener; `upstream`
    /// bounds the connections to upstreams; `digest` tells calls apart in the names of
    /// their connections.
    pub fn new(
        gateway: G,
        callers: Arc<ArcSwap<CallerDirectory>>,
        public_url: Url,
        upstream: Arc<UpstreamSettings>,
        digest: CallDigest,
    ) -> Self {
        let (counts, load) = (CallCounts::default(), Load::default());
        Self { gateway, callers, public_url, upstream, digest, counts, load, workers: Arc::default() }
    }

    /// With these limits in the place of the usual ones.
    #[must_use]
    pub fn with_load(self, load: Load) -> Self {
        Self { load, ..self }
    }

    /// What all workers count.
    pub fn counts(&self) -> CallCounts {
        self.counts.clone()
    }

    /// What one worker answers with: call it on the worker's own thread, within an actix `System`. It
    /// starts the worker's `ProxyActor`, which ends when this is dropped.
    pub fn handlers(
        &self,
    ) -> Handlers<
        impl ServiceFactory<
            Request,
            Config = (),
            Response = Response<Http1Body>,
            Error = Infallible,
            InitError = (),
            Service: Service<Request, Future: 'static> + 'static,
            Future: 'static,
        >
        + 'static
        + use<G>,
    > {
        let number = self.workers.fetch_add(1, Ordering::Relaxed);
        let (worker, actor) = ProxyActor::start_worker(
            self.gateway.supervisor(),
            Arbiter::current(),
            &format!("worker-{number}"),
            self.upstream.clone(),
            self.gateway.tokens(),
        );
        let desk = Rc::new(Desk {
            gateway: self.gateway.clone(),
            callers: self.callers.clone(),
            cookie: BrowserCookie::new(&self.public_url),
            public_url: self.public_url.clone(),
            worker,
            actor,
            request_ids: RequestIds::new(&*self.gateway.entropy()),
            shared_subject: Subject::shared(),
            digest: self.digest.clone(),
            counter: self.counts.counter(),
            load: self.load.clone(),
        });
        let for_http1 = desk.clone();
        let http2: Http2Handler =
            Rc::new(move |request, connection| Box::pin(http2::serve(desk.clone(), request, connection)));
        Handlers {
            // Boxed: the server library moves it about.
            http1: fn_service(move |request: Request| Box::pin(http1::serve(for_http1.clone(), request))),
            http2: Some(http2),
        }
    }
}

/// What one worker needs to serve.
struct Desk<G: ProxyGateway> {
    gateway: G,
    callers: Arc<ArcSwap<CallerDirectory>>,
    cookie: BrowserCookie,
    public_url: Url,
    worker: Rc<Worker>,
    actor: ActorRef<ProxyActor>,
    request_ids: RequestIds,
    shared_subject: Subject,
    digest: CallDigest,
    counter: CallCounter,
    load: Load,
}

impl<G: ProxyGateway> Desk<G> {
    /// Counts an answer of the gateway's own.
    fn count_own(&self, route: Option<&RouteId>, response: &HttpResponse) {
        self.counter.answered(route, response.status().as_u16());
        if let Some(AnsweredWith(code)) = response.extensions().get() {
            self.counter.problem(code);
        }
    }
}

impl<G: ProxyGateway> Drop for Desk<G> {
    fn drop(&mut self) {
        self.gateway.supervisor().stop_child(&self.actor);
    }
}

/// What the upstream says, or what the gateway says itself, as `Err`; counted.
async fn answer<G: ProxyGateway>(
    desk: &Rc<Desk<G>>,
    arrival: &Arrival<'_>,
    body: impl FnOnce() -> Incoming,
    id: &RequestId,
) -> Result<Passing, HttpResponse> {
    let mut taken = None;
    let answered = answer_on(&mut taken, desk, arrival, body, id).await;
    let route = taken.as_deref().map(|route| &route.id);
    match &answered {
        Ok(passing) => desk.counter.answered(route, passing.upstream.parts.status.as_u16()),
        Err(own) => desk.count_own(route, own),
    }
    answered
}

/// As [`answer`]; the route that it took is left in `taken`.
async fn answer_on<G: ProxyGateway>(
    taken: &mut Option<Arc<Route>>,
    desk: &Rc<Desk<G>>,
    arrival: &Arrival<'_>,
    body: impl FnOnce() -> Incoming,
    id: &RequestId,
) -> Result<Passing, HttpResponse> {
    let occupied = desk.load.enter(arrival.head, id).map_err(|problem| problem.response())?;
    let now = desk.gateway.now();
    let asked = Asked::of(arrival).map_err(|refusal| refusal.problem(id).response())?;
    let mut on_route = None;
    let (call, connection) = loop {
        let callers = desk.callers.load();
        let caller = callers
            .authenticate_on(&arrival.connection.known, asked.presented(), now)
            .await
            .map_err(|error| asked.unauthenticated(error, callers.challenges(), id))?;
        let admitted = match callers.routes() {
            Some(routes) => call::admit(desk, &asked, &caller, routes, id),
            None => call::admit(desk, &asked, &caller, &desk.gateway.routes(), id),
        };
        let call = admitted.map_err(|problem| problem.response())?;
        *taken = Some(call.route.clone());
        // Once a call, though it may have to be led anew.
        if on_route.is_none() {
            let held = load::admit(&caller.caller, &call.route, id);
            on_route = Some(held.map_err(|problem| problem.response())?);
        }
        if let Some(connection) = token::at_hand(desk, &call, now) {
            break (call, connection);
        }
        // What is seldom needed is boxed, here and below: a call's future is moved, and large ones cost.
        match Box::pin(token::obtain(desk, &call, None)).await {
            Ok(connection) => break (call, connection),
            // It was asked for by routes that are no longer those of today.
            Err(_) if !Arc::ptr_eq(&callers, &desk.callers.load()) => {}
            Err(fault) => return Err(Box::pin(consent::refuse(desk, &asked, &call, fault, id)).await),
        }
    };
    forward::forward(desk, &asked, &call, connection, body, (occupied, on_route.flatten()), id).await
}
