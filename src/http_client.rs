//! The engine's [`Transport`] over awc, for the control plane: token, metadata, key and revocation
//! requests.
//!
//! Each request has a connection of its own: what one server sent can never be taken for the answer
//! to another request. Nothing is followed, decoded or retried here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use awc::error::{ConnectError, SendRequestError};
use awc::http::header as awc_header;
use awc::{Client, ClientResponse, Connector};
use bytes::Bytes;
use claviger_actors::protocol::secret::wiped_bytes;
use claviger_actors::transport::{IncomingResponse, OutgoingRequest, Transport, TransportError};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rustls::ClientConfig;
use url::Url;
use zeroize::Zeroizing;

#[cfg(test)]
mod tests;

/// Longest wait for a TCP connection, and again for a TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const AGENT: &str = concat!("claviger/", env!("CARGO_PKG_VERSION"));

/// Sends requests over HTTP/1.1, with rustls for `https`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpTransport {
    tls: Arc<ClientConfig>,
}

impl HttpTransport {
    /// Speaks TLS with `tls`.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }

    /// A client for one request: awc's is bound to its thread, and we keep no connections.
    fn client(&self) -> Client {
        let connector = Connector::new()
            .timeout(CONNECT_TIMEOUT)
            .handshake_timeout(CONNECT_TIMEOUT)
            .rustls_0_23(self.tls.clone());
        Client::builder().connector(connector).disable_timeout().disable_redirects().finish()
    }
}

impl Transport for HttpTransport {
    fn send(
        &self,
        request: OutgoingRequest,
    ) -> LocalBoxFuture<'static, Result<IncomingResponse, TransportError>> {
        let client = self.client();
        async move {
            let peer = Peer::of(&request.url);
            let deadline = request.deadline;
            match tokio::time::timeout(deadline, exchange(client, request, &peer)).await {
                Ok(result) => result,
                Err(_) => Err(TransportError::Timeout { authority: peer.authority, after: deadline }),
            }
        }
        .boxed_local()
    }
}

/// Whom we talk to, for errors: never a path or query, which may hold secrets.
struct Peer {
    authority: String,
    tls: bool,
}

impl Peer {
    fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        let authority = match url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Self { authority, tls: url.scheme() == "https" }
    }

    fn broken(&self, cause: impl Into<String>) -> TransportError {
        TransportError::Broken { authority: self.authority.clone(), cause: cause.into() }
    }

    fn connect(&self, cause: impl Into<String>) -> TransportError {
        TransportError::Connect { authority: self.authority.clone(), cause: cause.into() }
    }

    fn failed(&self, error: SendRequestError) -> TransportError {
        match error {
            // awc's word for a connection that closed before the response head.
            SendRequestError::Connect(ConnectError::Disconnected) => {
                self.broken("the connection was closed before an answer came")
            }
            SendRequestError::Connect(ConnectError::Io(error)) => self.failed_to_connect(&error),
            SendRequestError::Connect(ConnectError::Resolver(error)) => {
                self.connect(format!("the name cannot be resolved: {error}"))
            }
            SendRequestError::Connect(error) => self.connect(error.to_string()),
            SendRequestError::Url(error) => self.connect(error.to_string()),
            SendRequestError::Send(error) => self.broken(error.to_string()),
            SendRequestError::Response(error) => self.broken(format!("it is not HTTP/1.1: {error}")),
            error => self.broken(error.to_string()),
        }
    }

    fn failed_to_connect(&self, error: &io::Error) -> TransportError {
        // The operating system's own errors have a number; what the TLS stack says has none.
        if self.tls && error.raw_os_error().is_none() {
            let cause = error.to_string();
            return TransportError::Tls { authority: self.authority.clone(), cause };
        }
        self.connect(error.to_string())
    }
}

async fn exchange(
    client: Client,
    request: OutgoingRequest,
    peer: &Peer,
) -> Result<IncomingResponse, TransportError> {
    let OutgoingRequest { method, url, headers, body, max_body, .. } = request;
    let method = awc::http::Method::from_bytes(method.as_str().as_bytes())
        .map_err(|error| peer.connect(error.to_string()))?;
    let mut sent = client.request(method, url.as_str()).force_close().no_decompress();
    for (name, value) in &headers {
        let name = awc_header::HeaderName::from_bytes(name.as_str().as_bytes());
        let value = awc_header::HeaderValue::from_bytes(value.as_bytes());
        // Both came from the same types of a later version, so neither can fail.
        if let (Ok(name), Ok(value)) = (name, value) {
            sent.headers_mut().append(name, value);
        }
    }
    if !headers.contains_key(USER_AGENT) {
        sent = sent.insert_header((awc_header::USER_AGENT, AGENT));
    }
    let answer = if body.is_empty() && !matches!(*sent.get_method(), awc::http::Method::POST) {
        sent.send_body(actix_http::body::None::new()).await
    } else {
        sent.send_body(body).await
    };
    read(answer.map_err(|error| peer.failed(error))?, max_body, peer).await
}

async fn read(
    mut answer: ClientResponse,
    max_body: usize,
    peer: &Peer,
) -> Result<IncomingResponse, TransportError> {
    let status = StatusCode::from_u16(answer.status().as_u16()).map_err(|e| peer.broken(e.to_string()))?;
    if status.is_informational() {
        return Err(peer.broken(format!("it ended with the interim status {}", status.as_u16())));
    }
    let headers = headers_of(&answer);
    let too_large = || TransportError::TooLarge { authority: peer.authority.clone(), limit: max_body };

    // RFC 9112 section 6.3: these have no body, whatever their headers say.
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(IncomingResponse { status, headers, body: Bytes::new() });
    }
    let delimited = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    if status.is_success() && !delimited && answer.version() == awc::http::Version::HTTP_11 {
        // awc gives no body then, which is not to be taken for an empty one.
        return Err(peer.broken("it states no length and is not chunked"));
    }
    let stated = stated_length(&headers);
    if stated.is_some_and(|length| length > max_body as u64) {
        return Err(too_large());
    }
    // Room for all of it at once: growing would leave unwiped copies behind.
    let room = stated.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    while let Some(chunk) = answer.next().await {
        let chunk = chunk.map_err(|error| peer.broken(error.to_string()))?;
        if chunk.len() > max_body - body.len() {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    // awc ends a body that breaks off like a whole one, so its length is compared here. A chunked
    // one tells no length; what we ask for is JSON, which shows by itself whether it is whole.
    if let Some(stated) = stated.filter(|stated| *stated != body.len() as u64) {
        return Err(peer.broken(format!("it broke off after {} of {stated} bytes", body.len())));
    }
    Ok(IncomingResponse { status, headers, body: wiped_bytes(std::mem::take(&mut *body)) })
}

fn headers_of(answer: &ClientResponse) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// The `Content-Length`, where it tells the body's length (RFC 9112 section 6.3).
fn stated_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}
