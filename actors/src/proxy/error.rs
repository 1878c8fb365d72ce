//! Why an upstream gave no whole answer.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::body::BodyFault;
use super::headers::HeaderError;
use super::route::UpstreamOrigin;
use super::templated::TemplateUrlError;

/// Why an upstream gave no whole answer. Origins are from the configuration; nothing of a request or
/// an answer is in any of them.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// No connection: check host, port, DNS, firewall, and the certificate if it is TLS.
    #[error("could not connect to {origin}: {cause}")]
    Connect {
        /// The upstream.
        origin: Arc<str>,
        /// The operating system's or rustls's word.
        cause: String,
    },
    /// No connection in time.
    #[error("could not connect to {origin} within {after:?}")]
    ConnectTimeout {
        /// The upstream.
        origin: Arc<str>,
        /// How long was waited.
        after: Duration,
    },
    /// No answer in time; raise the route's `timeout` if the upstream may take longer.
    #[error("{origin} did not answer within {after:?}")]
    HeadTimeout {
        /// The upstream.
        origin: Arc<str>,
        /// How long was waited.
        after: Duration,
    },
    /// The connection ended or what came was not HTTP.
    #[error("the answer of {origin} broke off or is not HTTP: {cause}")]
    Broken {
        /// The upstream.
        origin: Arc<str>,
        /// What was wrong, in words.
        cause: String,
    },
    /// The answer must not be passed on.
    #[error("the answer of {origin} is refused: {what}")]
    Malformed {
        /// The upstream.
        origin: Arc<str>,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The answer's body made no progress.
    #[error("the body of {origin}'s answer made no progress for {after:?}")]
    BodyStalled {
        /// The upstream.
        origin: Arc<str>,
        /// How long was waited.
        after: Duration,
    },
    /// The exchange took too long as a whole; raise the route's `total_timeout` if it may.
    #[error("the exchange with {origin} was not over within {after:?}")]
    TotalTimeout {
        /// The upstream.
        origin: Arc<str>,
        /// How long was waited.
        after: Duration,
    },
    /// It has failed time and again and is left alone for a while.
    #[error("{origin} fails and is left alone for now; try again in {}s", retry_after.as_secs().max(1))]
    CircuitOpen {
        /// The upstream.
        origin: Arc<str>,
        /// Time until it is tried again.
        retry_after: Duration,
    },
    /// It has said with `Retry-After` that it wants no calls for a while.
    #[error("{origin} asked for no more calls for now; try again in {}s", retry_after.as_secs().max(1))]
    HeldBack {
        /// The upstream.
        origin: Arc<str>,
        /// What is left of that time.
        retry_after: Duration,
    },
    /// The request's own body failed: the caller's fault.
    #[error(transparent)]
    RequestBody(#[from] BodyFault),
    /// The request's headers cannot be forwarded: the caller's fault.
    #[error(transparent)]
    RequestHead(#[from] HeaderError),
    /// The token ended between being looked up and being sent; the next call gets a new one.
    #[error("the access token ended before the request was sent; try again")]
    TokenEnded,
    /// The token answer does not say where to, or names a host that the route does not allow.
    #[error(transparent)]
    Unresolved(#[from] TemplateUrlError),
    /// The connection failed after the whole body had been read.
    #[error("the upstream connection failed after the answer")]
    AfterEnd,
}

impl UpstreamError {
    pub(super) fn connect(origin: &UpstreamOrigin, error: &io::Error) -> Self {
        Self::Connect { origin: origin.serialized.clone(), cause: error.to_string() }
    }

    pub(super) fn closed(origin: &UpstreamOrigin) -> Self {
        Self::Broken { origin: origin.serialized.clone(), cause: "the connection was closed at once".into() }
    }

    pub(super) fn cut_short(origin: &UpstreamOrigin) -> Self {
        let cause = "the stream was reset before its end".into();
        Self::Broken { origin: origin.serialized.clone(), cause }
    }

    pub(super) fn broken(origin: &UpstreamOrigin, error: &hyper::Error) -> Self {
        let cause = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        Self::Broken { origin: origin.serialized.clone(), cause }
    }

    pub(super) fn malformed(origin: &UpstreamOrigin, what: &'static str) -> Self {
        Self::Malformed { origin: origin.serialized.clone(), what }
    }

    /// Whether it is a matter of time: 504 rather than 502.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout { .. }
                | Self::HeadTimeout { .. }
                | Self::BodyStalled { .. }
                | Self::TotalTimeout { .. }
        )
    }

    /// Whether nothing of the request was sent, so that sending it again repeats nothing.
    pub fn is_before_sending(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::ConnectTimeout { .. })
    }

    /// Whether the upstream failed, rather than the call itself.
    pub fn is_upstreams(&self) -> bool {
        self.is_before_sending()
            || matches!(
                self,
                Self::HeadTimeout { .. }
                    | Self::Broken { .. }
                    | Self::Malformed { .. }
                    | Self::BodyStalled { .. }
                    | Self::TotalTimeout { .. }
            )
    }
}
