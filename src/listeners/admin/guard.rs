//! Who may use the admin API: whoever has its token or a client certificate, and no web page of another
//! origin.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, ORIGIN, TRANSFER_ENCODING,
};
use actix_web::http::uri::Authority;
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use claviger_actors::clock::{Clock as _, SystemClock, SystemEntropy};
use claviger_actors::protocol::secret::Secret;
use thiserror::Error;

use super::logged;
use crate::listeners::problem::{Problem, ProblemCode};
use crate::listeners::request_id::new_request_id;
use crate::listeners::server::CallerConnection;

/// What the guard compares requests with.
#[derive(Clone, Debug)]
pub struct GuardRules {
    /// The bearer token; `None` is allowed on loopback only, or with client certificates.
    pub token: Option<Secret>,
    /// Whether client certificates are taken: one does instead of the token.
    pub certificates: bool,
    /// The address that the listener is bound to, with its real port.
    pub bind: SocketAddr,
}

/// How a request came in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Channel {
    /// Over TLS.
    pub https: bool,
    /// From a client with a certificate that is valid now, and that the listener's authority vouches for.
    pub certified: bool,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No bearer token, or a wrong one.
    #[error("send the admin token as `Authorization: Bearer`")]
    Token,
    /// The client certificate has ended since the connection was opened.
    #[error("show a client certificate that is valid now")]
    Certificate,
    /// A name that leads here by DNS rebinding, or a forwarded port.
    #[error(
        "without an admin token, Host must be the loopback address and port that the listener is bound to; \
         configure listeners.admin.token to reach it by another name"
    )]
    Host,
    /// A page of another origin sent it.
    #[error("a web page of another origin may not use the admin API")]
    Origin,
    /// A form can send any body that is not JSON.
    #[error("send the body as Content-Type: application/json")]
    ContentType,
}

impl GuardRules {
    /// Decides on one request from its head.
    pub fn check(
        &self,
        method: &Method,
        target: Option<&str>,
        headers: &HeaderMap,
        channel: Channel,
    ) -> Result<(), Refusal> {
        let host = self.host(target, headers)?;
        same_origin(host, headers, channel)?;
        self.authenticate(headers, channel)?;
        json_body(method, headers)
    }

    /// The one `Host` of the request. `target` is the authority of an absolute request target.
    fn host<'a>(&self, target: Option<&str>, headers: &'a HeaderMap) -> Result<&'a str, Refusal> {
        let mut hosts = headers.get_all(HOST);
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refusal::Host) };
        let host = host.to_str().map_err(|_| Refusal::Host)?;
        if target.is_some_and(|target| !target.eq_ignore_ascii_case(host)) {
            return Err(Refusal::Host);
        }
        // No browser shows a certificate to a server that has not proven to have this name.
        if self.token.is_none() && !self.certificates && !self.is_our_loopback_name(host) {
            return Err(Refusal::Host);
        }
        Ok(host)
    }

    fn is_our_loopback_name(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        // A browser names the port that it was led to; without one it is a program that was careless.
        let port_fits = match authority.port_u16() {
            Some(port) => port == self.bind.port(),
            None => authority.host() == host,
        };
        if host.contains('@') || !port_fits {
            return false;
        }
        let name = authority.host();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        name.eq_ignore_ascii_case("localhost")
            || address.is_ok_and(|ip| ip.is_loopback() || ip == self.bind.ip())
    }

    fn authenticate(&self, headers: &HeaderMap, channel: Channel) -> Result<(), Refusal> {
        if self.certificates && channel.certified {
            return Ok(());
        }
        let Some(token) = &self.token else {
            if self.certificates {
                return Err(Refusal::Certificate);
            }
            // The configuration demands a token for every other address; this is the second lock.
            return if self.bind.ip().is_loopback() { Ok(()) } else { Err(Refusal::Token) };
        };
        let mut values = headers.get_all(AUTHORIZATION);
        let (Some(value), None) = (values.next(), values.next()) else { return Err(Refusal::Token) };
        let value = value.to_str().map_err(|_| Refusal::Token)?;
        let (scheme, credential) = value.split_once(' ').ok_or(Refusal::Token)?;
        let sent = Secret::new(credential.trim_matches(' '));
        if scheme.eq_ignore_ascii_case("bearer") && sent == *token { Ok(()) } else { Err(Refusal::Token) }
    }
}

/// Browsers name the page's origin (RFC 6454) and its relation to us (Fetch Metadata); programs
/// send neither.
fn same_origin(host: &str, headers: &HeaderMap, channel: Channel) -> Result<(), Refusal> {
    let scheme = if channel.https { "https://" } else { "http://" };
    for origin in headers.get_all(ORIGIN) {
        let own = origin.to_str().ok().and_then(|text| text.strip_prefix(scheme));
        if !own.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
            return Err(Refusal::Origin);
        }
    }
    for site in headers.get_all("sec-fetch-site") {
        if site != "same-origin" && site != "none" {
            return Err(Refusal::Origin);
        }
    }
    Ok(())
}

fn json_body(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let empty = match headers.get(CONTENT_LENGTH) {
        Some(length) => length == "0",
        None => !headers.contains_key(TRANSFER_ENCODING),
    };
    if empty || matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let essence = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        Ok(())
    } else {
        Err(Refusal::ContentType)
    }
}

fn problem(refusal: Refusal) -> Problem {
    let (code, status) = match refusal {
        Refusal::Token | Refusal::Certificate => (ProblemCode::AdminUnauthenticated, None),
        Refusal::Host => (ProblemCode::OriginForbidden, Some(StatusCode::MISDIRECTED_REQUEST)),
        Refusal::Origin => (ProblemCode::OriginForbidden, None),
        Refusal::ContentType => (ProblemCode::BadRequest, Some(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
    };
    let mut problem = Problem::new(code, refusal.to_string(), new_request_id(&SystemEntropy));
    if let Some(status) = status {
        problem = problem.status(status);
    }
    if refusal == Refusal::Token { problem.challenge("Bearer realm=\"claviger admin\"") } else { problem }
}

/// The guard as middleware. Needs `web::Data<GuardRules>`.
pub async fn guard<B: MessageBody + 'static>(
    rules: web::Data<GuardRules>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let target = request.uri().authority().map(Authority::as_str);
    let channel = request.conn_data::<Rc<CallerConnection>>().map_or_else(Channel::default, |connection| {
        let certificate = connection.certificate.as_ref();
        let certified = certificate.is_some_and(|certificate| certificate.is_valid(SystemClock.now()));
        Channel { https: connection.https, certified }
    });
    match rules.check(request.method(), target, request.headers(), channel) {
        Ok(()) => Ok(next.call(request).await?.map_into_boxed_body()),
        Err(refusal) => Ok(request.into_response(logged(problem(refusal)))),
    }
}

#[cfg(test)]
mod tests;
