//! How an authorization server is reached.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

/// Longest wait for name resolution, TCP, a proxy and TLS together, unless configured.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How the servers of one provider are reached. The default is straight, trusting whom the system
/// trusts.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// TLS with a private CA or a client certificate of our own (RFC 8705), if not the common one.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Whether `tls` shows a client certificate: then the endpoints for it are used (RFC 8705
    /// section 5).
    pub shows_certificate: bool,
    /// The proxy that all requests go through.
    pub proxy: Option<HttpProxy>,
    /// Whether a request for metadata or keys follows a redirect to the same origin. One with a
    /// secret in it never does.
    pub redirects: bool,
    /// Longest wait for name resolution, TCP, the proxy and TLS together.
    pub connect_timeout: Duration,
    /// Total time of one request, if not that of its kind.
    pub request_timeout: Option<Duration>,
    /// Which statuses are the server's passing trouble.
    pub retry_statuses: RetryStatuses,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            tls: None,
            shows_certificate: false,
            proxy: None,
            redirects: false,
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: None,
            retry_statuses: RetryStatuses::default(),
        }
    }
}

/// An HTTP proxy: `CONNECT` for https (RFC 9110 section 9.3.6), the whole URL as request target for
/// http (RFC 9112 section 3.2.2).
#[derive(Clone, Debug)]
pub struct HttpProxy {
    /// Its host name or address, as in a URL.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `Proxy-Authorization`, marked sensitive.
    pub authorization: Option<HeaderValue>,
    /// Whether it is on this machine, so that what is sent to it in clear stays here.
    pub is_loopback: bool,
}

/// Statuses of the token endpoint that are passing trouble: the same request may succeed later, and
/// nothing held is given up. Any other error status is a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryStatuses(pub Vec<RangeInclusive<u16>>);

impl Default for RetryStatuses {
    /// 408, 425 and 429, which are about haste, and every server error.
    fn default() -> Self {
        Self(vec![408..=408, 425..=425, 429..=429, 500..=999])
    }
}

impl RetryStatuses {
    /// Whether `status` is among them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}
