//! Redirects, for requests without secrets.
//!
//! Only a `GET` for metadata or keys may follow one, and only within the origin that was asked: the
//! issuer's own server is what makes its metadata believable (RFC 8414 section 6.2), and a redirect
//! elsewhere would put another in its place. A request with a body or credentials follows none: it
//! would carry them to wherever the answer points.

use std::sync::Arc;

use claviger_actors::transport::{IncomingResponse, OutgoingRequest, TransportError};
use http::header::{AUTHORIZATION, LOCATION};
use http::{Method, StatusCode};
use rustls::ClientConfig;
use tokio::time::Instant;
use url::Url;

use super::Exchange;

/// Redirects followed for one request.
const MOST: u32 = 3;

/// Whether `request` may follow redirects at all.
pub(super) fn may_follow(request: &OutgoingRequest) -> bool {
    let bare = request.body.is_empty() && !request.headers.contains_key(AUTHORIZATION);
    request.outbound.redirects && request.method == Method::GET && bare
}

/// Sends `request` and follows redirects within its origin and its deadline.
pub(super) async fn follow(
    request: OutgoingRequest,
    tls: &Arc<ClientConfig>,
) -> Result<IncomingResponse, TransportError> {
    let end = Instant::now() + request.deadline;
    let mut url = request.url;
    for _ in 0..=MOST {
        let hop = OutgoingRequest {
            method: Method::GET,
            url: url.clone(),
            headers: request.headers.clone(),
            body: request.body.clone(),
            deadline: end.saturating_duration_since(Instant::now()),
            max_body: request.max_body,
            outbound: request.outbound.clone(),
        };
        let exchange = Exchange::new(&hop);
        let answer = exchange.run(hop, tls).await?;
        let Some(next) = target(&answer, &url) else { return Ok(answer) };
        if next.origin() != url.origin() {
            let elsewhere = next.origin().ascii_serialization();
            return Err(exchange.broken(format!(
                "it redirects to another origin, {elsewhere}, which is not followed: it could speak for \
                 anybody there; configure the URL of that server itself if it is right"
            )));
        }
        url = next;
    }
    let request = Exchange::new(&OutgoingRequest { url, ..request });
    Err(request.broken(format!("it redirects more than {MOST} times")))
}

/// Where the answer points, if it is a redirect.
fn target(answer: &IncomingResponse, asked: &Url) -> Option<Url> {
    use StatusCode as S;
    const REDIRECTS: [StatusCode; 5] =
        [S::MOVED_PERMANENTLY, S::FOUND, S::SEE_OTHER, S::TEMPORARY_REDIRECT, S::PERMANENT_REDIRECT];
    let location = answer.headers.get(LOCATION).filter(|_| REDIRECTS.contains(&answer.status))?;
    asked.join(location.to_str().ok()?).ok()
}
