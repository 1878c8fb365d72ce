//! What a request asks for, checked before anybody asks who sent it.

use std::net::IpAddr;

use actix_web::HttpResponse;
use actix_web::dev::RequestHead;
use actix_web::http::header::{
    CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use actix_web::http::{ConnectionType, Method, StatusCode, Version};
use claviger_actors::proxy::headers::RequestLength;
use claviger_actors::proxy::path::{PathError, check_path, check_query};

use super::request_id::RequestId;
use crate::caller_auth::{CallerAuthError, Presented};
use crate::listeners::problem::{Problem, ProblemCode};
use crate::listeners::server::CallerConnection;

const CLAVIGER_SUBJECT: HeaderName = HeaderName::from_static("claviger-subject");
const CLAVIGER_ASSERTION: HeaderName = HeaderName::from_static("claviger-assertion");

/// A request as it comes in.
pub(super) struct Arrival<'a> {
    pub(super) head: &'a RequestHead,
    /// What it came on.
    pub(super) connection: &'a CallerConnection,
    pub(super) framing: Framing,
}

/// What tells how long a request's body is.
#[derive(Clone, Copy)]
pub(super) enum Framing {
    /// Its headers (HTTP/1.1).
    Headers,
    /// The end of its stream (HTTP/2), which may have come with the head.
    Stream { ended: bool },
}

/// A request whose form is in order.
pub(super) struct Asked<'a> {
    head: &'a RequestHead,
    connection: &'a CallerConnection,
    /// The path, byte for byte.
    pub(super) path: &'a str,
    /// The query, byte for byte.
    pub(super) query: Option<&'a str>,
    /// `Host`; empty if there is none.
    pub(super) host: &'a str,
    /// How long the body is.
    pub(super) length: RequestLength,
    /// Whether it is the opening handshake of a WebSocket (RFC 6455 section 4.1).
    pub(super) websocket: bool,
}

/// Why a request's form is not in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Path(PathError),
    Method,
    Host,
    Expect,
    Length,
    /// A name or value that no header can have.
    Header,
}

impl Refusal {
    pub(super) fn problem(&self, id: &RequestId) -> Problem {
        use ProblemCode as Code;
        match self {
            Self::Path(error) => Problem::new(Code::BadPath, error.to_string(), id),
            Self::Method => Problem::new(Code::MethodNotAllowed, "CONNECT and TRACE are not served", id),
            Self::Host => Problem::new(Code::BadRequest, "Host is not a host name and port", id),
            Self::Expect => Problem::new(Code::BadRequest, "only Expect: 100-continue can be met", id)
                .status(StatusCode::EXPECTATION_FAILED),
            Self::Length => Problem::new(Code::BadRequest, "Content-Length is not a number", id),
            Self::Header => Problem::new(Code::BadRequest, "a header cannot be read", id),
        }
    }
}

impl<'a> Asked<'a> {
    pub(super) fn of(arrival: &Arrival<'a>) -> Result<Self, Refusal> {
        let Arrival { head, connection, framing } = *arrival;
        // Either would hand out what it must not: a tunnel, or the token.
        let method = head.method.as_str();
        if ["CONNECT", "TRACE", "TRACK"].iter().any(|refused| method.eq_ignore_ascii_case(refused)) {
            return Err(Refusal::Method);
        }
        let (path, query) = (head.uri.path(), head.uri.query());
        check_path(path.as_bytes()).map_err(Refusal::Path)?;
        check_query(query.unwrap_or_default().as_bytes()).map_err(Refusal::Path)?;
        let host = match head.headers.get(HOST) {
            Some(value) => value.to_str().map_err(|_| Refusal::Host)?,
            None => "",
        };
        if !is_authority(host) {
            return Err(Refusal::Host);
        }
        // An absolute-form target must name the host that was called (RFC 9112 section 3.2.2).
        if head.uri.authority().is_some_and(|other| !other.as_str().eq_ignore_ascii_case(host)) {
            return Err(Refusal::Path(PathError::SecondAuthority));
        }
        let met = |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
        if head.headers.get_all(EXPECT).any(|value| !met(value.as_bytes())) {
            return Err(Refusal::Expect);
        }
        let length = length(head, framing)?;
        let websocket = length == RequestLength::Absent && is_websocket_handshake(head);
        Ok(Self { head, connection, path, query, host, length, websocket })
    }

    pub(super) fn headers(&self) -> &'a HeaderMap {
        &self.head.headers
    }

    pub(super) fn method(&self) -> &'a Method {
        &self.head.method
    }

    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.connection.peer.map(|address| address.ip())
    }

    /// The caller's address as a header says it.
    pub(super) fn forwarded_for(&self) -> Option<&'a http::HeaderValue> {
        self.connection.forwarded_for()
    }

    /// Whether the caller came over TLS.
    pub(super) fn is_https(&self) -> bool {
        self.connection.https
    }

    /// Whether the caller takes trailers, and has said so (RFC 9110 section 10.1.4).
    pub(super) fn takes_trailers(&self) -> bool {
        let named = |value: &HeaderValue| {
            let mut codings = value.as_bytes().split(|byte| *byte == b',');
            codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        };
        self.head.headers.get_all(TE).any(named)
    }

    /// What it shows of its caller.
    pub(super) fn presented(&self) -> Presented<'a> {
        Presented { headers: &self.head.headers, certificate: self.connection.certificate.as_ref() }
    }

    /// All values of `Claviger-Subject`.
    pub(super) fn subjects(&self) -> impl Iterator<Item = &'a [u8]> {
        self.head.headers.get_all(CLAVIGER_SUBJECT).map(|value| value.as_bytes())
    }

    /// All values of `Claviger-Assertion`.
    pub(super) fn assertions(&self) -> impl Iterator<Item = &'a [u8]> {
        self.head.headers.get_all(CLAVIGER_ASSERTION).map(|value| value.as_bytes())
    }

    pub(super) fn unauthenticated(
        &self,
        error: CallerAuthError,
        challenges: &[&'static str],
        id: &RequestId,
    ) -> HttpResponse {
        tracing::debug!(request_id = id.as_str(), peer = ?self.peer(), %error, "caller refused");
        Problem::from_caller_auth_error(error, challenges, id).response()
    }
}

/// Whether `host` can be a host name or address and a port: no user information, no path.
fn is_authority(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_~:[]%".contains(&byte))
}

/// Whether `head` asks for a WebSocket in the way that HTTP/1.1 has for it, and for nothing else.
fn is_websocket_handshake(head: &RequestHead) -> bool {
    let mut protocols = head.headers.get_all(UPGRADE);
    let (Some(protocol), None) = (protocols.next(), protocols.next()) else { return false };
    head.version == Version::HTTP_11
        && head.method == Method::GET
        && head.connection_type() == ConnectionType::Upgrade
        && names_websocket(protocol)
        && head.headers.contains_key(SEC_WEBSOCKET_KEY)
}

/// Whether a value of `Upgrade` names WebSockets, and nothing else.
pub(super) fn names_websocket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket")
}

/// How long a request's body is.
pub(super) fn length(head: &RequestHead, framing: Framing) -> Result<RequestLength, Refusal> {
    if head.headers.contains_key(TRANSFER_ENCODING) {
        // The server library refuses any coding but `chunked`, and one beside a length.
        return Ok(RequestLength::Chunked);
    }
    match head.headers.get(CONTENT_LENGTH) {
        Some(value) => {
            let length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
            length.map(RequestLength::Exact).ok_or(Refusal::Length)
        }
        None if matches!(framing, Framing::Stream { ended: false }) => Ok(RequestLength::Chunked),
        // Says that there is no body, where one is usual (RFC 9110 section 8.6).
        None if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => {
            Ok(RequestLength::Exact(0))
        }
        None => Ok(RequestLength::Absent),
    }
}
