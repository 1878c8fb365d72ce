//! Requests to the admin API of a running gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use awc::error::PayloadError;
use awc::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use awc::http::{Method, StatusCode};
use bytes::Bytes;
use claviger_actors::protocol::secret::{Secret, wiped_bytes};
use rustls::ClientConfig;
use url::Url;

use super::admin_tls;
use crate::config::AdminEndpoint;

/// Largest answer read, in bytes.
const MAX_ANSWER: usize = 16 << 20;
/// A refresh waits for the provider, so the gateway may take a while.
const DEADLINE: Duration = Duration::from_secs(60);

/// What is asked of the gateway. Its body may be a token set, so it has no `Debug`.
pub(super) struct AdminRequest {
    pub(super) method: Method,
    pub(super) url: Url,
    /// JSON, or nothing.
    pub(super) body: Bytes,
}

/// What the gateway said.
pub(super) struct AdminAnswer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Where an admin listener is reached: one on every address is also on loopback.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// The way to the admin listener of a gateway.
pub(super) struct AdminClient {
    address: SocketAddr,
    token: Option<Secret>,
    tls: Option<Arc<ClientConfig>>,
}

impl AdminClient {
    /// To the listener that a configuration describes.
    pub(super) fn new(endpoint: AdminEndpoint) -> Result<Self, String> {
        let address = reachable(endpoint.bind);
        let tls = endpoint.certificate.map(|expected| admin_tls::client_config(expected, address));
        Ok(Self { address, token: endpoint.token, tls: tls.transpose()? })
    }

    /// The URL of this path.
    pub(super) fn url(&self, path: &str) -> Result<Url, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Url::parse(&format!("{scheme}://{}{path}", self.address)).map_err(|error| error.to_string())
    }

    /// Sends `request` and waits for the whole answer. An error says what to look at.
    pub(super) fn send(&self, request: AdminRequest) -> Result<AdminAnswer, String> {
        let credential = self.token.as_ref().map(bearer).transpose()?;
        actix_rt::System::new()
            .block_on(async {
                tokio::time::timeout(DEADLINE, exchange(request, credential, self.tls.clone()))
                    .await
                    .unwrap_or_else(|_| Err(format!("it did not answer within {DEADLINE:?}")))
            })
            .map_err(|cause| {
                let address = self.address;
                format!("the gateway's admin listener at {address} cannot be asked: {cause}; is the gateway running with this configuration?")
            })
    }
}

fn bearer(token: &Secret) -> Result<HeaderValue, String> {
    let bytes = wiped_bytes([b"Bearer ", token.expose().as_bytes()].concat());
    let mut value = HeaderValue::from_maybe_shared(bytes)
        .map_err(|_| "the admin token cannot be sent in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

async fn exchange(
    request: AdminRequest,
    credential: Option<HeaderValue>,
    tls: Option<Arc<ClientConfig>>,
) -> Result<AdminAnswer, String> {
    let client = awc::Client::builder().disable_timeout().disable_redirects();
    let client = match tls {
        Some(tls) => client.connector(awc::Connector::new().rustls_0_23(tls)).finish(),
        None => client.finish(),
    };
    let mut sent = client
        .request(request.method, request.url.as_str())
        .force_close()
        .no_decompress()
        .insert_header((ACCEPT, "application/json"));
    if !request.body.is_empty() {
        sent = sent.insert_header((CONTENT_TYPE, "application/json"));
    }
    if let Some(credential) = credential {
        sent = sent.insert_header((AUTHORIZATION, credential));
    }
    let mut answer = sent.send_body(request.body).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = match answer.body().limit(MAX_ANSWER).await {
        Ok(body) => body,
        Err(PayloadError::Overflow) => return Err(format!("its answer is larger than {MAX_ANSWER} bytes")),
        Err(error) => return Err(format!("its answer broke off: {error}")),
    };
    Ok(AdminAnswer { status, body })
}
