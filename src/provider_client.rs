//! The engine's [`Transport`]: token, metadata, key and revocation requests to authorization servers.
//!
//! Each request has a connection of its own: what one server sent can never be taken for the answer
//! to another request. Nothing is decoded or retried here, and nothing is followed but what
//! `redirects` allows. The connection is driven by the request's own future, so that nothing of it is
//! left once that has ended or was dropped.

use std::error::Error as _;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use claviger_actors::protocol::secret::wiped_bytes;
use claviger_actors::proxy::connect::{connect_tcp, connect_tls, speak_http, tunnel};
use claviger_actors::registration::outbound::Outbound;
use claviger_actors::transport::{IncomingResponse, OutgoingRequest, Transport, TransportError};
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use url::{Position, Url};
use zeroize::Zeroizing;

mod redirects;
#[cfg(test)]
mod tests;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("claviger/", env!("CARGO_PKG_VERSION")));
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Sends requests over HTTP/1.1, with rustls for `https`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ProviderClient {
    tls: Arc<ClientConfig>,
}

impl ProviderClient {
    /// Speaks TLS with `tls`, whose roots it trusts.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }
}

impl Transport for ProviderClient {
    fn send(
        &self,
        request: OutgoingRequest,
    ) -> LocalBoxFuture<'static, Result<IncomingResponse, TransportError>> {
        let tls = request.outbound.tls.clone().unwrap_or_else(|| self.tls.clone());
        async move {
            if redirects::may_follow(&request) {
                return redirects::follow(request, &tls).await;
            }
            Exchange::new(&request).run(request, &tls).await
        }
        .boxed_local()
    }
}

/// What bounds one request, and whom it goes to: for errors, never with a path or query, which may
/// hold secrets.
struct Exchange {
    authority: String,
    allowed: Duration,
    deadline: Instant,
    max_body: usize,
    outbound: Arc<Outbound>,
}

impl Exchange {
    fn new(request: &OutgoingRequest) -> Self {
        let host = request.url.host_str().unwrap_or_default();
        let authority = match request.url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Self {
            authority,
            allowed: request.deadline,
            deadline: Instant::now() + request.deadline,
            max_body: request.max_body,
            outbound: request.outbound.clone(),
        }
    }

    async fn run(
        &self,
        request: OutgoingRequest,
        tls: &Arc<ClientConfig>,
    ) -> Result<IncomingResponse, TransportError> {
        let url = request.url.clone();
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(self.connect("the URL names no host"));
        };
        let request = self.prepare(request)?;
        let wait = self.outbound.connect_timeout.min(self.allowed);
        let limit = Instant::now() + wait;
        let late = |_| self.connect(format!("no connection within {wait:?}"));
        let stream = timeout_at(limit, self.reach(&url, host, port)).await.map_err(late)??;
        let exchange = async {
            if url.scheme() != "https" {
                return self.on(stream, request).await;
            }
            let late = |_| self.tls(format!("the handshake did not end within {wait:?}"));
            let stream = timeout_at(limit, connect_tls(stream, host, tls)).await.map_err(late)?;
            self.on(stream.map_err(|error| self.handshake(&error))?, request).await
        };
        // Connecting has its own, earlier limit: only what was sent ends here.
        match timeout_at(self.deadline.max(limit), exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(TransportError::Timeout { authority: self.authority.clone(), after: self.allowed }),
        }
    }

    /// A stream to the server, or to the proxy that is sent plain HTTP for it.
    async fn reach(&self, url: &Url, host: &str, port: u16) -> Result<TcpStream, TransportError> {
        let Some(proxy) = &self.outbound.proxy else {
            return connect_tcp(host, port).await.map_err(|error| self.connect(error.to_string()));
        };
        let secure = url.scheme() == "https";
        // Plain http is for this machine alone, and with a proxy elsewhere it would leave it.
        if !secure && !proxy.is_loopback {
            return Err(self.connect("http is not sent through a proxy that is not on this machine"));
        }
        let named = |error: io::Error| self.connect(format!("proxy {}:{}: {error}", proxy.host, proxy.port));
        let stream = connect_tcp(&proxy.host, proxy.port).await.map_err(named)?;
        if !secure {
            return Ok(stream);
        }
        tunnel(stream, &self.authority, proxy.authorization.as_ref()).await.map_err(named)
    }

    /// The request as hyper takes it. Its body is handed over as it is.
    fn prepare(&self, request: OutgoingRequest) -> Result<Request<Full<Bytes>>, TransportError> {
        let OutgoingRequest { method, url, mut headers, body, .. } = request;
        let invalid = |_| self.connect("the URL has characters that cannot be sent");
        // A proxy that is sent plain HTTP needs the whole URL (RFC 9112 section 3.2.2).
        let through = self.outbound.proxy.as_ref().filter(|_| url.scheme() == "http");
        let begin = if through.is_some() { Position::BeforeScheme } else { Position::BeforePath };
        let target: Uri = url[begin..Position::AfterQuery].parse().map_err(invalid)?;
        if let Some(authorization) = through.and_then(|proxy| proxy.authorization.clone()) {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }
        let host = &url[Position::BeforeHost..Position::AfterPort];
        let host = HeaderValue::from_str(host).map_err(|_| self.connect("the host cannot be sent"))?;
        headers.insert(HOST, host);
        headers.insert(CONNECTION, CLOSE);
        headers.entry(USER_AGENT).or_insert(AGENT);
        // RFC 9110 section 8.6: an empty body has its length told where the method expects one.
        if body.is_empty() && method == Method::POST {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
        let mut prepared = Request::new(Full::new(body));
        *prepared.method_mut() = method;
        *prepared.uri_mut() = target;
        *prepared.headers_mut() = headers;
        Ok(prepared)
    }

    async fn on<T>(
        &self,
        stream: T,
        request: Request<Full<Bytes>>,
    ) -> Result<IncomingResponse, TransportError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) =
            speak_http(stream).await.map_err(|error| self.broken(causes(&error)))?;
        let answer = async move {
            let answer = sender.send_request(request).await;
            self.read(answer.map_err(|error| self.broken(causes(&error)))?).await
        };
        let (mut answer, mut connection) = (pin!(answer), pin!(connection));
        tokio::select! {
            biased;
            answer = answer.as_mut() => return answer,
            // Its fault, if any, comes with the answer.
            _ = connection.as_mut() => {}
        }
        answer.await
    }

    async fn read(&self, answer: Response<Incoming>) -> Result<IncomingResponse, TransportError> {
        let (head, mut incoming) = answer.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.broken("it switched protocols unasked"));
        }
        let stated = incoming.size_hint().exact();
        if stated.is_some_and(|length| length > self.max_body as u64) {
            return Err(self.too_large());
        }
        let room = stated.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut body = WipedBody::with_capacity(room);
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| self.broke_off(body.len(), stated, &error))?;
            // What is not data is a trailer, which nothing here reads.
            let Ok(chunk) = frame.into_data() else { continue };
            if chunk.len() > self.max_body.saturating_sub(body.len()) {
                return Err(self.too_large());
            }
            body.append(&chunk);
        }
        Ok(IncomingResponse { status: head.status, headers: head.headers, body: body.into_bytes() })
    }

    fn broke_off(&self, read: usize, stated: Option<u64>, error: &hyper::Error) -> TransportError {
        let of = stated.map(|length| format!(" of {length}")).unwrap_or_default();
        self.broken(format!("it broke off after {read}{of} bytes: {}", causes(error)))
    }

    fn handshake(&self, error: &io::Error) -> TransportError {
        // The operating system's own errors have a number; what the TLS stack says has none.
        match error.raw_os_error() {
            None => self.tls(error.to_string()),
            Some(_) => self.connect(error.to_string()),
        }
    }

    fn connect(&self, cause: impl Into<String>) -> TransportError {
        TransportError::Connect { authority: self.authority.clone(), cause: cause.into() }
    }

    fn tls(&self, cause: impl Into<String>) -> TransportError {
        TransportError::Tls { authority: self.authority.clone(), cause: cause.into() }
    }

    fn broken(&self, cause: impl Into<String>) -> TransportError {
        TransportError::Broken { authority: self.authority.clone(), cause: cause.into() }
    }

    fn too_large(&self) -> TransportError {
        TransportError::TooLarge { authority: self.authority.clone(), limit: self.max_body }
    }
}

/// An error of hyper's in full. None of them quotes what came.
fn causes(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A body as it grows, of which no copy is left behind unwiped.
struct WipedBody(Zeroizing<Vec<u8>>);

impl WipedBody {
    fn with_capacity(room: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(room)))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn append(&mut self, chunk: &[u8]) {
        let needed = self.0.len().saturating_add(chunk.len());
        if needed > self.0.capacity() {
            // A vector that grows by itself frees its old place as it is.
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.saturating_mul(2)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(chunk);
    }

    fn into_bytes(mut self) -> Bytes {
        wiped_bytes(std::mem::take(&mut *self.0))
    }
}
