//! The port through which requests to authorization servers leave.
//!
//! Implemented by the gateway's `provider_client.rs` and scripted in tests. An implementation follows
//! no redirect but those that [`Outbound`] allows, decodes no compression, reuses no connection, and
//! bounds size and time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, Method, StatusCode};
use thiserror::Error;
use url::Url;

use crate::registration::outbound::Outbound;

/// A request to an authorization server. Its body may hold secrets, so it has no `Debug`.
pub struct OutgoingRequest {
    /// `GET` for metadata and keys, `POST` for everything else.
    pub method: Method,
    /// The endpoint, exactly as metadata or configuration gave it.
    pub url: Url,
    /// Headers, `Authorization` among them (marked sensitive).
    pub headers: HeaderMap,
    /// The body; empty for `GET`. Wiped on drop by its maker (`Bytes::from_owner`).
    pub body: Bytes,
    /// Total time allowed, from connecting to the last byte of the answer.
    pub deadline: Duration,
    /// Largest body accepted, in bytes.
    pub max_body: usize,
    /// How the server is reached.
    pub outbound: Arc<Outbound>,
}

/// An authorization server's answer, whole.
pub struct IncomingResponse {
    /// Final status; a 3xx comes through as it is.
    pub status: StatusCode,
    /// Response headers.
    pub headers: HeaderMap,
    /// The body, at most `max_body` long. May hold tokens: never log it.
    pub body: Bytes,
}

/// Why no usable answer came. None of the variants carries a body.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection: the request was surely not processed. Check host, port, DNS and firewall.
    #[error("could not connect to {authority}: {cause}")]
    Connect {
        /// Host and port of the server.
        authority: String,
        /// The operating system's word.
        cause: String,
    },
    /// TLS refused: check the certificate, the host name and the configured CA.
    #[error("TLS with {authority} failed: {cause}")]
    Tls {
        /// Host and port of the server.
        authority: String,
        /// rustls's word.
        cause: String,
    },
    /// The deadline passed; the request may have been processed.
    #[error("{authority} did not answer within {after:?}")]
    Timeout {
        /// Host and port of the server.
        authority: String,
        /// The deadline that passed.
        after: Duration,
    },
    /// The answer broke off or was not HTTP; the request may have been processed.
    #[error("the answer of {authority} could not be read: {cause}")]
    Broken {
        /// Host and port of the server.
        authority: String,
        /// What was wrong with it.
        cause: String,
    },
    /// The answer was larger than allowed.
    #[error("the answer of {authority} is larger than {limit} bytes")]
    TooLarge {
        /// Host and port of the server.
        authority: String,
        /// The limit, in bytes.
        limit: usize,
    },
}

impl TransportError {
    /// Whether the server certainly never saw the request, so that sending it again is harmless.
    pub fn never_sent(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Tls { .. })
    }
}

/// Sends one request. Called on the engine's thread; the future need not be `Send`.
pub trait Transport: Send + Sync {
    /// Sends `request` and reads the whole answer.
    fn send(
        &self,
        request: OutgoingRequest,
    ) -> LocalBoxFuture<'static, Result<IncomingResponse, TransportError>>;
}

/// A [`Transport`] whose every request takes the way of one provider.
pub struct Via {
    inner: Arc<dyn Transport>,
    outbound: Arc<Outbound>,
}

impl Via {
    /// Sends through `inner`, the way of `outbound`.
    pub fn new(inner: Arc<dyn Transport>, outbound: Arc<Outbound>) -> Self {
        Self { inner, outbound }
    }
}

impl Transport for Via {
    fn send(
        &self,
        request: OutgoingRequest,
    ) -> LocalBoxFuture<'static, Result<IncomingResponse, TransportError>> {
        let deadline = self.outbound.request_timeout.unwrap_or(request.deadline);
        self.inner.send(OutgoingRequest { outbound: self.outbound.clone(), deadline, ..request })
    }
}
