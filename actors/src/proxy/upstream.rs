//! One worker's connections to upstreams, and the sending of requests on them.
//!
//! The pool belongs to one thread: no lock, no atomics. A connection goes back to it only after the
//! whole request was taken and the whole answer was read, so that nothing of one exchange can be
//! seen by another. hyper's client is used because it streams with back-pressure, knows interim
//! responses and notices bodies that break off.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout, timeout_at};

use super::body::{BodySource, RequestBody};
use super::connect::connect;
use super::error::UpstreamError;
use super::framing;
use super::headers::HeaderError;
use super::response::{Lease, UpstreamResponse};
use super::route::{TlsIdentity, UpstreamOrigin, UpstreamTls};

/// Bounds on connections to upstreams.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// TLS towards upstreams.
    pub tls: Arc<ClientConfig>,
    /// Time for name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// An idle connection is closed after this; shorter than the 60 seconds after which many servers
    /// close theirs, so that few requests meet a connection that is just being closed.
    pub idle_timeout: Duration,
    /// Idle connections kept for one origin by one worker.
    pub max_idle_per_origin: usize,
    /// A body in either direction that makes no progress for so long is broken off.
    pub body_idle_timeout: Duration,
}

impl UpstreamSettings {
    /// 5 s to connect, 50 s idle, 128 connections an origin and worker, 60 s without progress.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self {
            tls,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(50),
            max_idle_per_origin: 128,
            body_idle_timeout: Duration::from_secs(60),
        }
    }
}

struct Idle {
    sender: SendRequest<RequestBody>,
    /// Whom its TLS trusts and what it shows: never used for another.
    identity: TlsIdentity,
    since: Instant,
}

/// One worker's connections.
pub struct UpstreamPool {
    settings: Arc<UpstreamSettings>,
    idle: RefCell<BTreeMap<Arc<str>, Vec<Idle>>>,
    opened: Cell<u64>,
}

impl std::fmt::Debug for UpstreamPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamPool").field("idle", &self.idle_connections()).finish_non_exhaustive()
    }
}

/// What is sent, how often it may be tried, and how long the answer may take.
pub struct Exchange<'a> {
    /// Where to.
    pub origin: &'a Arc<UpstreamOrigin>,
    /// How TLS is spoken with it, if not as with all upstreams.
    pub tls: Option<&'a UpstreamTls>,
    /// The request's body.
    pub body: &'a BodySource,
    /// Whether the method may be repeated when it is not known what became of a request
    /// (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// Time to the head of the answer, counted from the last progress of the request's body.
    pub timeout: Duration,
    /// Time to open a connection, if not as the pool's settings say.
    pub connect_timeout: Option<Duration>,
    /// Makes the request; called again for each attempt.
    pub make: &'a dyn Fn(RequestBody) -> Result<Request<RequestBody>, HeaderError>,
}

impl Exchange<'_> {
    fn identity(&self) -> TlsIdentity {
        self.tls.map_or_else(TlsIdentity::default, |tls| tls.identity)
    }
}

enum Attempt {
    Answered(Response<Incoming>),
    /// The connection had ended before anything was written to it.
    NotSent(Request<RequestBody>),
    /// The connection ended before an answer; the request may have been seen.
    Lost(UpstreamError),
    Failed(UpstreamError),
}

impl UpstreamPool {
    /// An empty pool.
    pub fn new(settings: Arc<UpstreamSettings>) -> Rc<Self> {
        Rc::new(Self { settings, idle: RefCell::default(), opened: Cell::new(0) })
    }

    /// Sends a request and waits for the head of the answer.
    pub async fn send(self: &Rc<Self>, exchange: &Exchange<'_>) -> Result<UpstreamResponse, UpstreamError> {
        let mut request = (exchange.make)(exchange.body.attempt())?;
        // A connection from the pool may have ended while it lay idle. Once each of those is used
        // up, a new one is opened, on which a failure is final.
        while let Some(sender) = self.take_idle(exchange.origin, exchange.identity()) {
            match self.attempt(sender, request, exchange).await {
                (Attempt::Answered(response), sender) => return self.answered(response, sender, exchange),
                (Attempt::NotSent(unsent), _) => request = unsent,
                (Attempt::Lost(_), _) if exchange.idempotent && exchange.body.is_replayable() => {
                    request = (exchange.make)(exchange.body.attempt())?;
                    break;
                }
                (Attempt::Lost(error) | Attempt::Failed(error), _) => return Err(error),
            }
        }
        let sender = self.open(exchange.origin, exchange.tls, exchange.connect_timeout).await?;
        match self.attempt(sender, request, exchange).await {
            (Attempt::Answered(response), sender) => self.answered(response, sender, exchange),
            (Attempt::NotSent(_), _) => Err(UpstreamError::closed(exchange.origin)),
            (Attempt::Lost(error) | Attempt::Failed(error), _) => Err(error),
        }
    }

    async fn open(
        &self,
        origin: &UpstreamOrigin,
        tls: Option<&UpstreamTls>,
        within: Option<Duration>,
    ) -> Result<SendRequest<RequestBody>, UpstreamError> {
        let after = within.unwrap_or(self.settings.connect_timeout);
        let tls = tls.map_or(&self.settings.tls, |tls| &tls.config);
        match timeout(after, connect(origin, tls)).await {
            Ok(Ok(sender)) => {
                self.opened.set(self.opened.get() + 1);
                Ok(sender)
            }
            Ok(Err(error)) => Err(UpstreamError::connect(origin, &error)),
            Err(_) => Err(UpstreamError::ConnectTimeout { origin: origin.serialized.clone(), after }),
        }
    }

    async fn attempt(
        &self,
        mut sender: SendRequest<RequestBody>,
        request: Request<RequestBody>,
        exchange: &Exchange<'_>,
    ) -> (Attempt, SendRequest<RequestBody>) {
        let answer = sender.try_send_request(request);
        let outcome = match until_head(answer, exchange).await {
            None => Attempt::Failed(UpstreamError::HeadTimeout {
                origin: exchange.origin.serialized.clone(),
                after: exchange.timeout,
            }),
            Some(Ok(response)) => Attempt::Answered(response),
            Some(Err(mut failure)) => match failure.take_message() {
                Some(request) => Attempt::NotSent(request),
                None => {
                    let error = failure.into_error();
                    match exchange.body.fault() {
                        Some(fault) => Attempt::Failed(UpstreamError::RequestBody(fault)),
                        None if error.is_parse() => {
                            Attempt::Failed(UpstreamError::broken(exchange.origin, &error))
                        }
                        None => Attempt::Lost(UpstreamError::broken(exchange.origin, &error)),
                    }
                }
            },
        };
        if !matches!(outcome, Attempt::Answered(_)) {
            exchange.body.give_up(exchange.body.current_attempt());
        }
        (outcome, sender)
    }

    fn answered(
        self: &Rc<Self>,
        response: Response<Incoming>,
        sender: SendRequest<RequestBody>,
        exchange: &Exchange<'_>,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let origin = exchange.origin.clone();
        let lease = Lease::new(self.clone(), origin, exchange.identity(), sender, exchange.body.clone());
        // Nothing asked for another protocol; what would follow is not HTTP. Dropping the lease
        // closes the connection.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(UpstreamError::malformed(exchange.origin, "it switched protocols unasked"));
        }
        framing::check(response.headers()).map_err(|what| UpstreamError::malformed(exchange.origin, what))?;
        Ok(UpstreamResponse::new(response, lease, self.settings.body_idle_timeout))
    }

    /// The most recently used connection of this identity that is ready, so that the others can age.
    fn take_idle(&self, origin: &UpstreamOrigin, identity: TlsIdentity) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&origin.serialized)?;
        let oldest = self.settings.idle_timeout;
        // Nearly always the last: one upstream is seldom met in two ways.
        while let Some(last) = connections.iter().rposition(|idle| idle.identity == identity) {
            let Idle { sender, since, .. } = connections.remove(last);
            if sender.is_ready() && since.elapsed() < oldest {
                return Some(sender);
            }
            // Whatever else it is, it is not a connection to send a request on: close it.
        }
        None
    }

    /// Takes a connection back after a clean exchange.
    pub(super) fn put_idle(
        &self,
        origin: &UpstreamOrigin,
        identity: TlsIdentity,
        sender: SendRequest<RequestBody>,
    ) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let since = Instant::now();
        if let Some(connections) = idle.get_mut(&origin.serialized) {
            if connections.len() < self.settings.max_idle_per_origin {
                connections.push(Idle { sender, identity, since });
            }
        } else if self.settings.max_idle_per_origin > 0 {
            idle.insert(origin.serialized.clone(), vec![Idle { sender, identity, since }]);
        }
    }

    /// Closes what has been idle for too long or was closed by its upstream.
    pub fn sweep(&self) {
        let oldest = self.settings.idle_timeout;
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < oldest);
            !connections.is_empty()
        });
    }

    /// How many connections lie idle.
    pub fn idle_connections(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }

    /// How many connections were opened so far.
    pub fn opened_connections(&self) -> u64 {
        self.opened.get()
    }
}

/// Waits for the head of an answer; `None` if it did not come in time. While a request's body makes
/// progress, the time does not run.
async fn until_head<F: Future>(answer: F, exchange: &Exchange<'_>) -> Option<F::Output> {
    let mut answer = pin!(answer);
    let begun = Instant::now();
    let mut deadline = begun + exchange.timeout;
    loop {
        match timeout_at(deadline, answer.as_mut()).await {
            Ok(output) => return Some(output),
            Err(_) => {
                let extended = exchange.body.last_progress().unwrap_or(begun).max(begun) + exchange.timeout;
                if extended <= deadline {
                    return None;
                }
                deadline = extended;
            }
        }
    }
}

#[cfg(test)]
mod tests;
