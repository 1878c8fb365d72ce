//! The listener for internal applications.
//!
//! One service takes every request; neither routing nor normalisation of the server library touches
//! it. What is asked is checked in this order, so that a caller without credentials learns nothing but
//! that its request is malformed:
//!
//! 1. method (`CONNECT` and `TRACE` are not served), path policy, `Host`, `Expect`;
//! 2. who calls;
//! 3. route, whether the caller may use it, with this method, for this subject;
//! 4. the size of the body;
//! 5. the token, and only then the upstream.
//!
//! Reading order: `gateway` (what is needed of the engine), `asked` (1), `call` (2 to 4; `gather` for
//! what a call brings along), `token` and `consent` (5), `forward` with `possession`, and `answer`.

mod answer;
mod asked;
mod call;
mod consent;
mod forward;
pub mod gateway;
mod gather;
mod possession;
mod request_id;
mod token;

use arc_swap::ArcSwap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_rt::Arbiter;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse, fn_service};
use actix_web::http::ConnectionType;
use actix_web::web::ServiceConfig;
use actix_web::{Error, HttpRequest, HttpResponse};
use claviger_actors::gateway::GatewayHandle;
use claviger_actors::protocol::identifiers::Subject;
use claviger_actors::protocol::template::CallDigest;
use claviger_actors::proxy::actor::{ProxyActor, Worker};
use claviger_actors::proxy::upstream::UpstreamSettings;
use claviger_actors::supervision::ActorRef;
use url::Url;

use super::browser_cookie::BrowserCookie;
use crate::caller_auth::CallerDirectory;
use asked::Asked;
use gateway::ProxyGateway;
use request_id::{RequestId, RequestIds};

/// What the proxy listener's workers share.
#[derive(Clone, Debug)]
pub struct ProxyState<G = GatewayHandle> {
    gateway: G,
    callers: Arc<ArcSwap<CallerDirectory>>,
    public_url: Url,
    upstream: Arc<UpstreamSettings>,
    digest: CallDigest,
    workers: Arc<AtomicUsize>,
}

impl<G: ProxyGateway> ProxyState<G> {
    /// A listener over plain HTTP. `public_url` is where browsers reach the public listener;
    /// `upstream` bounds the connections to upstreams; `digest` tells calls apart in the names of
    /// their connections.
    pub fn new(
        gateway: G,
        callers: Arc<ArcSwap<CallerDirectory>>,
        public_url: Url,
        upstream: Arc<UpstreamSettings>,
        digest: CallDigest,
    ) -> Self {
        Self { gateway, callers, public_url, upstream, digest, workers: Arc::default() }
    }

    /// Sets up one worker's application: call it in the factory given to `HttpServer`, which runs on
    /// the worker's own thread, within an actix `System`. It starts the worker's `ProxyActor` and ends
    /// it when the application is dropped.
    pub fn configure(&self, config: &mut ServiceConfig) {
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
        });
        config.default_service(fn_service(move |request: ServiceRequest| serve(desk.clone(), request)));
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
}

impl<G: ProxyGateway> Drop for Desk<G> {
    fn drop(&mut self) {
        self.gateway.supervisor().stop_child(&self.actor);
    }
}

async fn serve<G: ProxyGateway>(
    desk: Rc<Desk<G>>,
    request: ServiceRequest,
) -> Result<ServiceResponse, Error> {
    let (request, payload) = request.into_parts();
    let id = desk.request_ids.next();
    let mut response = match answer(&desk, &request, payload, &id).await {
        Ok(response) | Err(response) => response,
    };
    if asked::ends_connection(request.head()) {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(ServiceResponse::new(request, response))
}

/// The upstream's answer, or the gateway's own as `Err`.
async fn answer<G: ProxyGateway>(
    desk: &Rc<Desk<G>>,
    request: &HttpRequest,
    payload: Payload,
    id: &RequestId,
) -> Result<HttpResponse, HttpResponse> {
    let now = desk.gateway.now();
    let asked = Asked::of(request.head()).map_err(|refusal| refusal.problem(id).response())?;
    let callers = desk.callers.load();
    let caller = callers
        .authenticate(asked.headers(), now)
        .await
        .map_err(|error| asked.unauthenticated(error, callers.challenges(), id))?;
    let routes = desk.gateway.routes();
    let call = call::admit(desk, &asked, &caller, &routes, id).map_err(|problem| problem.response())?;
    let connection = match token::at_hand(desk, &call, now) {
        Some(connection) => connection,
        None => match token::obtain(desk, &call, None).await {
            Ok(connection) => connection,
            Err(fault) => return Err(consent::refuse(desk, &asked, &call, fault, id).await),
        },
    };
    forward::forward(desk, &asked, &call, connection, payload, id).await
}
