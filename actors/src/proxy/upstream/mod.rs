//! One worker's connections to upstreams, and the sending of requests on them.
//!
//! The pool belongs to one thread: no lock, no atomics. An HTTP/1.1 connection goes back to it only
//! after the whole request was taken and the whole answer was read, so that nothing of one exchange can
//! be seen by another; an HTTP/2 connection carries many at once, each in a stream of its own. hyper's
//! client is used because it streams with back-pressure, knows interim responses and notices bodies
//! that break off.
//!
//! `place` is what is known of one upstream met in one way, `http1` and `http2` are what differs.

mod http1;
mod http2;
mod place;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::header::{HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout, timeout_at};

use self::http2::Multiplexed;
use self::place::{Next, Opened, Opening, Place};
use super::body::{BodySource, RequestBody};
use super::connect::{Wanted, connect};
use super::error::UpstreamError;
use super::framing;
use super::headers::HeaderError;
use super::response::{Hold, Lease, UpstreamResponse};
use super::route::{TlsIdentity, UpstreamOrigin, UpstreamProtocol, UpstreamTls};

pub(super) use self::http1::Sender;
pub use self::http1::Upgraded;
pub(super) use self::http2::Slot;

/// How often a request is sent again that the upstream says it has not looked at.
const MOST_REFUSALS: u32 = 3;

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
    /// Idle connections kept for one origin and TLS identity by one worker.
    pub max_idle_per_origin: usize,
    /// A body in either direction that makes no progress for so long is broken off.
    pub body_idle_timeout: Duration,
    /// An HTTP/2 connection on which requests wait, and nothing came for so long, is asked whether it is
    /// still there (RFC 9113 section 6.7). gRPC servers close a connection that asks more often than
    /// every five minutes.
    pub ping_interval: Duration,
    /// How long the answer to that may take.
    pub ping_timeout: Duration,
}

impl UpstreamSettings {
    /// 5 s to connect, 50 s idle, 128 connections an origin and worker, 60 s without progress, a ping
    /// after 310 s and 20 s for its answer.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self {
            tls,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(50),
            max_idle_per_origin: 128,
            body_idle_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(310),
            ping_timeout: Duration::from_secs(20),
        }
    }
}

/// One worker's connections.
pub struct UpstreamPool {
    settings: Arc<UpstreamSettings>,
    places: RefCell<BTreeMap<Arc<str>, Vec<Place>>>,
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
    /// Which HTTP is spoken with it.
    pub protocol: UpstreamProtocol,
    /// The request's body.
    pub body: &'a BodySource,
    /// The header that carries the token: no trailer may be called so.
    pub token_header: &'a HeaderName,
    /// Whether the caller takes trailers and has said so, which an HTTP/2 upstream is told, too
    /// (`TE: trailers`, RFC 9110 section 10.1.4). Trailers come in either case.
    pub takes_trailers: bool,
    /// The protocol to switch to, as `Upgrade` names it (RFC 9110 section 7.8). Such a request is sent
    /// over an HTTP/1.1 connection of its own, with `Connection` and `Upgrade`.
    pub upgrade: Option<&'a HeaderValue>,
    /// Whether the method may be repeated when it is not known what became of a request
    /// (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// Time to the head of the answer, counted from the last progress of the request's body.
    pub timeout: Duration,
    /// Time to open a connection, if not as the pool's settings say.
    pub connect_timeout: Option<Duration>,
    /// How long the answer's body may make no progress, if not as the pool's settings say.
    pub idle_timeout: Option<Duration>,
    /// Makes the request, as for HTTP/1.1; called again for each attempt.
    pub make: &'a dyn Fn(RequestBody) -> Result<Request<RequestBody>, HeaderError>,
}

impl Exchange<'_> {
    fn identity(&self) -> TlsIdentity {
        self.tls.map_or_else(TlsIdentity::default, |tls| tls.identity)
    }

    fn request(&self) -> Result<Request<RequestBody>, UpstreamError> {
        Ok((self.make)(self.body.attempt(self.token_header))?)
    }

    /// What a failure comes to that has no better explanation than the request's own body.
    fn failed(&self, otherwise: impl FnOnce(UpstreamError) -> Attempt, error: &hyper::Error) -> Attempt {
        match self.body.fault() {
            Some(fault) => Attempt::Failed(UpstreamError::RequestBody(fault)),
            None => otherwise(UpstreamError::broken(self.origin, error)),
        }
    }
}

/// What became of one attempt.
enum Attempt {
    Answered(Response<Incoming>, Hold),
    /// The connection had ended before anything was written to it.
    NotSent(Option<Request<RequestBody>>),
    /// The upstream says that it has not looked at the request.
    Refused(UpstreamError),
    /// The connection ended before an answer; the request may have been seen.
    Lost(UpstreamError),
    Failed(UpstreamError),
}

/// A connection to send one request on.
enum Way {
    Http1 { sender: Sender, fresh: bool },
    Http2(Slot),
}

impl UpstreamPool {
    /// An empty pool.
    pub fn new(settings: Arc<UpstreamSettings>) -> Rc<Self> {
        Rc::new(Self { settings, places: RefCell::default(), opened: Cell::new(0) })
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`UpstreamError`]. What is large is boxed: it is handed on many times.
    pub async fn send(
        self: &Rc<Self>,
        exchange: &Exchange<'_>,
    ) -> Result<Box<UpstreamResponse>, UpstreamError> {
        let begun = self.opened.get();
        let mut unsent = Some(exchange.request()?);
        // Once set, only connections opened after so many others do.
        let mut newer_than = None;
        let mut refusals = 0;
        loop {
            let way = self.way(exchange, newer_than).await?;
            let request = unsent.take().map_or_else(|| exchange.request(), Ok)?;
            let (attempt, fresh) = match way {
                Way::Http1 { sender, fresh } => {
                    (http1::attempt(self, sender, request, exchange).await, fresh)
                }
                Way::Http2(slot) => {
                    let fresh = slot.serial() > begun;
                    (http2::attempt(slot, request, exchange).await, fresh)
                }
            };
            if !matches!(attempt, Attempt::Answered(..)) {
                exchange.body.give_up(exchange.body.current_attempt());
            }
            match attempt {
                Attempt::Answered(response, hold) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Box::pin(self.switched(response, hold, exchange)).await;
                }
                Attempt::Answered(response, hold) => return self.answered(response, hold, exchange),
                // A connection from the pool may have ended while it lay idle. On a new one, a failure
                // is final.
                Attempt::NotSent(request) if !fresh => unsent = request,
                // Of HTTP/2 a new one, too, may have been told meanwhile to take no more.
                Attempt::NotSent(None) if refusals < MOST_REFUSALS => refusals += 1,
                Attempt::NotSent(_) => return Err(UpstreamError::closed(exchange.origin)),
                Attempt::Refused(_) if refusals < MOST_REFUSALS && exchange.body.is_replayable() => {
                    refusals += 1;
                }
                Attempt::Lost(_)
                    if !fresh
                        && newer_than.is_none()
                        && exchange.idempotent
                        && exchange.body.is_replayable() =>
                {
                    newer_than = Some(self.opened.get());
                }
                Attempt::Refused(error) | Attempt::Lost(error) | Attempt::Failed(error) => return Err(error),
            }
        }
    }

    /// A connection that lies idle or has room, or else a new one.
    async fn way(
        self: &Rc<Self>,
        exchange: &Exchange<'_>,
        newer_than: Option<u64>,
    ) -> Result<Way, UpstreamError> {
        if exchange.upgrade.is_some() {
            return Box::pin(self.way_to_switch(exchange)).await;
        }
        loop {
            let oldest = self.settings.idle_timeout;
            let next = self.at(exchange, |place| place.next(exchange, newer_than, oldest));
            let opened = match next {
                Next::Http1(sender) => return Ok(Way::Http1 { sender, fresh: false }),
                Next::Http2(slot) => return Ok(Way::Http2(slot)),
                // Seldom, and large.
                Next::Open(wanted) => {
                    let opening = self.open(exchange.origin, exchange.tls, wanted, exchange.connect_timeout);
                    Box::pin(opening).await?
                }
                Next::Await(opening) => opening.await?,
                Next::Begin(wanted) => {
                    let opening = self.begin(exchange, wanted);
                    self.at(exchange, |place| place.began(&opening));
                    opening.await?
                }
            };
            match opened {
                Opened::Http2(connection) => return Ok(Way::Http2(Slot::of(connection))),
                Opened::Http1(sender) => {
                    if let Some(sender) = sender.take() {
                        return Ok(Way::Http1 { sender, fresh: true });
                    }
                    // Another who waited has it; now it is known that everybody needs one.
                }
            }
        }
    }

    /// A connection of its own, on which protocols may be switched.
    async fn way_to_switch(&self, exchange: &Exchange<'_>) -> Result<Way, UpstreamError> {
        let connecting = self.connect(exchange.origin, exchange.tls, Wanted::Http1, exchange.connect_timeout);
        let (way, _) = connecting.await?;
        let started = http1::start(way, true).await;
        let sender = started.map_err(|error| UpstreamError::connect(exchange.origin, &error))?;
        Ok(Way::Http1 { sender, fresh: true })
    }

    /// Opens a connection for all who will wait for it; it is opened while one of them does.
    fn begin(self: &Rc<Self>, exchange: &Exchange<'_>, wanted: Wanted) -> Opening {
        let (pool, origin, tls) = (self.clone(), exchange.origin.clone(), exchange.tls.cloned());
        let within = exchange.connect_timeout;
        async move { pool.open(&origin, tls.as_ref(), wanted, within).await }.boxed_local().shared()
    }

    async fn open(
        &self,
        origin: &Arc<UpstreamOrigin>,
        tls: Option<&UpstreamTls>,
        wanted: Wanted,
        within: Option<Duration>,
    ) -> Result<Opened, UpstreamError> {
        let failed = |error: io::Error| UpstreamError::connect(origin, &error);
        let (way, is_http2) = self.connect(origin, tls, wanted, within).await?;
        let serial = self.opened.get();
        let identity = tls.map_or_else(TlsIdentity::default, |tls| tls.identity);
        if !is_http2 {
            let sender = http1::start(way, false).await.map_err(failed)?;
            self.at_origin(origin, identity, |place| place.opened_http1(wanted));
            return Ok(Opened::Http1(Rc::new(Cell::new(Some(sender)))));
        }
        let streams = self.at_origin(origin, identity, |place| place.streams());
        let connection = Multiplexed::start(way, origin, &self.settings, streams, serial).await;
        let connection = Rc::new(connection.map_err(failed)?);
        self.at_origin(origin, identity, |place| place.opened_http2(connection.clone()));
        Ok(Opened::Http2(connection))
    }

    async fn connect(
        &self,
        origin: &UpstreamOrigin,
        tls: Option<&UpstreamTls>,
        wanted: Wanted,
        within: Option<Duration>,
    ) -> Result<(super::connect::Way, bool), UpstreamError> {
        let after = within.unwrap_or(self.settings.connect_timeout);
        let tls = tls.map_or(&self.settings.tls, |tls| &tls.config);
        match timeout(after, connect(origin, tls, wanted)).await {
            Ok(Ok(way)) => {
                self.opened.set(self.opened.get() + 1);
                Ok(way)
            }
            Ok(Err(error)) => Err(UpstreamError::connect(origin, &error)),
            Err(_) => Err(UpstreamError::ConnectTimeout { origin: origin.serialized.clone(), after }),
        }
    }

    fn answered(
        &self,
        response: Response<Incoming>,
        hold: Hold,
        exchange: &Exchange<'_>,
    ) -> Result<Box<UpstreamResponse>, UpstreamError> {
        let lease = Lease::new(exchange.origin.clone(), hold, exchange.body.clone());
        let malformed = |what| UpstreamError::malformed(exchange.origin, what);
        framing::check(response.headers()).map_err(malformed)?;
        Ok(Box::new(UpstreamResponse::new(response, None, lease, self.idle_timeout(exchange))))
    }

    /// An answer with status 101.
    async fn switched(
        &self,
        mut response: Response<Incoming>,
        hold: Hold,
        exchange: &Exchange<'_>,
    ) -> Result<Box<UpstreamResponse>, UpstreamError> {
        let lease = Lease::new(exchange.origin.clone(), hold, exchange.body.clone());
        let malformed = |what| UpstreamError::malformed(exchange.origin, what);
        // If it was not asked for, what would follow is not HTTP. Dropping the lease closes the
        // connection.
        let asked = exchange.upgrade.ok_or_else(|| malformed("it switched protocols unasked"))?;
        http1::check_upgrade(&response, asked).map_err(malformed)?;
        let upgraded = http1::upgraded(&mut response, exchange).await?;
        Ok(Box::new(UpstreamResponse::new(response, Some(upgraded), lease, self.idle_timeout(exchange))))
    }

    fn idle_timeout(&self, exchange: &Exchange<'_>) -> Duration {
        exchange.idle_timeout.unwrap_or(self.settings.body_idle_timeout)
    }

    /// Takes an HTTP/1.1 connection back after a clean exchange.
    pub(super) fn put_idle(&self, origin: &Arc<UpstreamOrigin>, identity: TlsIdentity, sender: Sender) {
        if !sender.is_closed() {
            let most = self.settings.max_idle_per_origin;
            self.at_origin(origin, identity, |place| place.put_idle(sender, most));
        }
    }

    fn at<T>(&self, exchange: &Exchange<'_>, act: impl FnOnce(&mut Place) -> T) -> T {
        self.at_origin(exchange.origin, exchange.identity(), act)
    }

    fn at_origin<T>(
        &self,
        origin: &UpstreamOrigin,
        identity: TlsIdentity,
        act: impl FnOnce(&mut Place) -> T,
    ) -> T {
        let mut places = self.places.borrow_mut();
        let Some(ways) = places.get_mut(&origin.serialized) else {
            let mut place = Place::new(identity);
            let done = act(&mut place);
            places.insert(origin.serialized.clone(), vec![place]);
            return done;
        };
        // Nearly always the first: one upstream is seldom met in two ways.
        if let Some(place) = ways.iter_mut().find(|place| place.identity == identity) {
            return act(place);
        }
        let mut place = Place::new(identity);
        let done = act(&mut place);
        ways.push(place);
        done
    }

    /// Closes what has been idle for too long or was closed by its upstream.
    pub fn sweep(&self) {
        let oldest = self.settings.idle_timeout;
        self.places.borrow_mut().retain(|_, ways| {
            ways.retain_mut(|place| place.sweep(oldest));
            !ways.is_empty()
        });
    }

    /// How many connections lie idle.
    pub fn idle_connections(&self) -> usize {
        self.places.borrow().values().flatten().map(Place::idle_connections).sum()
    }

    /// How many connections were opened so far.
    pub fn opened_connections(&self) -> u64 {
        self.opened.get()
    }
}

/// Waits for the head of an answer. While a request's body makes progress, the time does not run.
async fn until_head<F: Future>(
    mut answer: Pin<&mut F>,
    exchange: &Exchange<'_>,
) -> Result<F::Output, UpstreamError> {
    let begun = Instant::now();
    let mut deadline = begun + exchange.timeout;
    loop {
        match timeout_at(deadline, answer.as_mut()).await {
            Ok(output) => return Ok(output),
            Err(_) => {
                let extended = exchange.body.last_progress().unwrap_or(begun).max(begun) + exchange.timeout;
                if extended <= deadline {
                    let origin = exchange.origin.serialized.clone();
                    return Err(UpstreamError::HeadTimeout { origin, after: exchange.timeout });
                }
                deadline = extended;
            }
        }
    }
}

#[cfg(test)]
mod tests;
