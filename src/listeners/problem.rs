//! The only place where the gateway's own errors become HTTP (RFC 9457).

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use claviger_actors::flow::error::FlowError;
use claviger_actors::protocol::identifiers::RouteId;
use claviger_actors::provider::error::TokenError;
use claviger_actors::proxy::body::BodyFault;
use claviger_actors::proxy::error::UpstreamError;
use claviger_actors::proxy::headers::HeaderError;
use claviger_actors::proxy::rate_limit::OverRate;
use claviger_actors::store::StoreError;
use claviger_actors::supervision::AskError;
use serde::Serialize;

use crate::caller_auth::CallerAuthError;

/// Which problem an answer is: in its extensions, for whoever counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredWith(pub &'static str);

/// A problem that the gateway itself answers with.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// A URI reference that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words.
    pub title: &'static str,
    /// The HTTP status, again.
    pub status: u16,
    /// What was wrong with this request, and what to do.
    pub detail: String,
    /// Stable code for programs.
    pub code: &'static str,
    /// Finds the request in the log.
    pub request_id: String,
    /// A one-time connect link, with `authorization_required`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_url: Option<String>,
    #[serde(skip)]
    retry_after: Option<u64>,
    #[serde(skip)]
    rate_limit: Option<[(&'static str, String); 2]>,
    #[serde(skip)]
    challenges: Vec<&'static str>,
}

impl Problem {
    /// A problem with the status and title of its `code`.
    pub fn new(code: ProblemCode, detail: impl Into<String>, request_id: impl Into<String>) -> Self {
        let (name, status, title) = code.facts();
        Self {
            kind: format!("urn:claviger:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            code: name,
            request_id: request_id.into(),
            authorization_url: None,
            retry_after: None,
            rate_limit: None,
            challenges: Vec::new(),
        }
    }

    /// Says when to try again, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds.max(1));
        self
    }

    /// Replaces the status of the code (`token_unavailable` is 502, and 503 while we hold back).
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status.as_u16();
        self
    }

    /// Adds the connect link.
    #[must_use]
    pub fn authorization_url(mut self, url: String) -> Self {
        self.authorization_url = Some(url);
        self
    }

    /// Adds a `WWW-Authenticate` challenge.
    #[must_use]
    pub fn challenge(mut self, challenge: &'static str) -> Self {
        self.challenges.push(challenge);
        self
    }

    /// Why there is no token, as an answer to whoever wanted one. The proxy listener adds the connect
    /// link to `authorization_required`.
    pub fn from_token_error(error: &TokenError, request_id: impl Into<String>) -> Self {
        use ProblemCode as Code;
        let detail = error.to_string();
        match error {
            TokenError::AuthorizationRequired { .. } => {
                Self::new(Code::AuthorizationRequired, detail, request_id)
            }
            TokenError::ProviderUnavailable { retry_after: None, .. } => {
                Self::new(Code::TokenUnavailable, detail, request_id)
            }
            TokenError::ProviderUnavailable { retry_after: Some(wait), .. } => {
                Self::new(Code::TokenUnavailable, detail, request_id)
                    .status(StatusCode::SERVICE_UNAVAILABLE)
                    .retry_after(whole_seconds(*wait))
            }
            TokenError::ClientMisconfigured { retry_after, .. } => {
                let problem = Self::new(Code::ClientMisconfigured, detail, request_id);
                match retry_after {
                    Some(wait) => problem.retry_after(whole_seconds(*wait)),
                    None => problem,
                }
            }
            TokenError::ScopesRefused { .. } => Self::new(Code::TokenUnavailable, detail, request_id),
            TokenError::StoreUnavailable { .. } => {
                Self::new(Code::StoreUnavailable, detail, request_id).retry_after(1)
            }
            TokenError::Aborted { .. } => Self::new(Code::TokenUnavailable, detail, request_id)
                .status(StatusCode::SERVICE_UNAVAILABLE)
                .retry_after(1),
            TokenError::CallIncomplete { .. } => Self::new(Code::SubjectRequired, detail, request_id),
            TokenError::Ask { source, .. } => Self::from_ask_error(*source, detail, request_id),
            _ => Self::new(Code::Internal, detail, request_id),
        }
    }

    /// Why an upstream gave no answer that can be passed on.
    pub fn from_upstream_error(
        route: &RouteId,
        error: &UpstreamError,
        request_id: impl Into<String>,
    ) -> Self {
        use ProblemCode as Code;
        let detail = format!("route {route}: {error}");
        match error {
            UpstreamError::RequestBody(BodyFault::TooLarge { .. }) => {
                Self::new(Code::BodyTooLarge, detail, request_id)
            }
            UpstreamError::RequestBody(BodyFault::Stalled { .. }) => {
                Self::new(Code::BadRequest, detail, request_id).status(StatusCode::REQUEST_TIMEOUT)
            }
            UpstreamError::RequestHead(HeaderError::Unproven) => {
                Self::new(Code::Internal, detail, request_id)
            }
            UpstreamError::RequestBody(_) | UpstreamError::RequestHead(_) => {
                Self::new(Code::BadRequest, detail, request_id)
            }
            UpstreamError::TokenEnded => Self::new(Code::TokenUnavailable, detail, request_id).retry_after(1),
            UpstreamError::Unresolved(_) => Self::new(Code::TokenUnavailable, detail, request_id),
            UpstreamError::HeldBack { retry_after, .. } => {
                Self::new(Code::RateLimited, detail, request_id).retry_after(whole_seconds(*retry_after))
            }
            UpstreamError::CircuitOpen { retry_after, .. } => {
                Self::new(Code::UpstreamUnreachable, detail, request_id)
                    .retry_after(whole_seconds(*retry_after))
            }
            timeout if timeout.is_timeout() => Self::new(Code::UpstreamTimeout, detail, request_id),
            _ => Self::new(Code::UpstreamUnreachable, detail, request_id),
        }
    }

    /// A caller or a route (`of`) called `name` has had more calls than it may. The headers are those of
    /// draft-ietf-httpapi-ratelimit-headers-10: what is allowed, and when there is more of it.
    pub fn over_rate(of: &'static str, name: &str, over: OverRate, request_id: impl Into<String>) -> Self {
        let OverRate { rate, retry_after } = over;
        let (wait, window) = (whole_seconds(retry_after).max(1), rate.per.as_secs());
        let detail =
            format!("{of} {name} may have {} calls in {window}s; try again in {wait}s", rate.requests);
        let mut problem = Self::new(ProblemCode::RateLimited, detail, request_id).retry_after(wait);
        problem.rate_limit = Some([
            ("ratelimit-policy", format!("\"{of}\";q={};w={window}", rate.requests)),
            ("ratelimit", format!("\"{of}\";r=0;t={wait}")),
        ]);
        problem
    }

    /// Why a caller is not let in, with the challenges of the methods it might use.
    pub fn from_caller_auth_error(
        error: CallerAuthError,
        challenges: &[&'static str],
        request_id: impl Into<String>,
    ) -> Self {
        use ProblemCode as Code;
        let detail = error.to_string();
        match error {
            CallerAuthError::Ambiguous => Self::new(Code::BadRequest, detail, request_id),
            CallerAuthError::Overloaded | CallerAuthError::KeysUnavailable => {
                Self::new(Code::Overloaded, detail, request_id).retry_after(1)
            }
            CallerAuthError::Absent | CallerAuthError::Refused | CallerAuthError::Conflicting => {
                let problem = Self::new(Code::CallerUnauthenticated, detail, request_id);
                challenges.iter().fold(problem, |problem, challenge| problem.challenge(challenge))
            }
        }
    }

    /// An actor of the gateway did not answer.
    pub fn from_ask_error(error: AskError, detail: String, request_id: impl Into<String>) -> Self {
        match error {
            AskError::Full => Self::new(ProblemCode::Overloaded, detail, request_id).retry_after(1),
            _ => Self::new(ProblemCode::TokenUnavailable, detail, request_id)
                .status(StatusCode::SERVICE_UNAVAILABLE)
                .retry_after(1),
        }
    }

    /// Why no flow was started or ended well, as an answer to a program. Browsers get pages.
    pub fn from_flow_error(error: &FlowError, request_id: impl Into<String>) -> Self {
        use ProblemCode as Code;
        let detail = error.to_string();
        match error {
            FlowError::Invalid { .. }
            | FlowError::NoConsentNeeded(_)
            | FlowError::OtherConsent(_)
            | FlowError::Call { .. } => Self::new(Code::BadRequest, detail, request_id),
            FlowError::Refused { .. } => Self::new(Code::AuthorizationRequired, detail, request_id),
            FlowError::UnknownProfile(_) => Self::new(Code::NotFound, detail, request_id),
            FlowError::TooMany => Self::new(Code::Overloaded, detail, request_id).retry_after(60),
            FlowError::Token { source, .. } | FlowError::Provider(source) => {
                Self::from_token_error(source, request_id)
            }
            FlowError::Store(source) => Self::from_store_error(source, request_id),
            FlowError::Ask(source) => Self::from_ask_error(*source, detail, request_id),
            _ => Self::new(Code::Internal, detail, request_id),
        }
    }

    /// What is wrong with the store. A damaged record is not mended by waiting, hence no
    /// `Retry-After`.
    pub fn from_store_error(error: &StoreError, request_id: impl Into<String>) -> Self {
        let problem = Self::new(ProblemCode::StoreUnavailable, error.to_string(), request_id);
        match error {
            StoreError::Unavailable(_) | StoreError::Conflict { .. } => problem.retry_after(1),
            _ => problem,
        }
    }

    /// The response.
    pub fn response(&self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut builder = HttpResponse::build(status);
        builder.content_type("application/problem+json").insert_header((CACHE_CONTROL, "no-store"));
        if let Some(seconds) = self.retry_after {
            builder.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        for header in self.rate_limit.iter().flatten() {
            builder.insert_header((header.0, header.1.as_str()));
        }
        for challenge in &self.challenges {
            builder.append_header((WWW_AUTHENTICATE, *challenge));
        }
        let mut response = builder.body(serde_json::to_string(self).unwrap_or_default());
        response.extensions_mut().insert(AnsweredWith(self.code));
        response
    }
}

/// Rounded up, so that nobody comes back too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

/// Every code that the gateway answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemCode {
    /// The caller sent no valid credential.
    CallerUnauthenticated,
    /// The caller may not use this route, method or subject.
    RouteForbidden,
    /// No route has this path.
    RouteNotFound,
    /// A person must consent.
    AuthorizationRequired,
    /// The call does not say whose token it is for, or lacks what the token is asked for with.
    SubjectRequired,
    /// The provider gave no token.
    TokenUnavailable,
    /// The token store is down.
    StoreUnavailable,
    /// The path is refused by policy.
    BadPath,
    /// Too many requests.
    RateLimited,
    /// The gateway sheds load.
    Overloaded,
    /// No connection to the upstream, or it broke off.
    UpstreamUnreachable,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The request body is too large.
    BodyTooLarge,
    /// The request itself is not well-formed.
    BadRequest,
    /// The method is not served here.
    MethodNotAllowed,
    /// The admin API's token is missing or wrong, or the page asking is not ours.
    AdminUnauthenticated,
    /// A page on another origin tried to drive the admin API.
    OriginForbidden,
    /// There is no such thing.
    NotFound,
    /// The provider refuses the client.
    ClientMisconfigured,
    /// A fault of our own.
    Internal,
}

impl ProblemCode {
    fn facts(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::CallerUnauthenticated => {
                ("caller_unauthenticated", S::UNAUTHORIZED, "Caller not authenticated")
            }
            Self::RouteForbidden => ("route_forbidden", S::FORBIDDEN, "Route not allowed for this caller"),
            Self::RouteNotFound => ("route_not_found", S::NOT_FOUND, "No such route"),
            Self::AuthorizationRequired => {
                ("authorization_required", S::FORBIDDEN, "A person must consent first")
            }
            Self::SubjectRequired => ("subject_required", S::BAD_REQUEST, "The call says too little"),
            Self::TokenUnavailable => ("token_unavailable", S::BAD_GATEWAY, "No token from the provider"),
            Self::StoreUnavailable => {
                ("store_unavailable", S::SERVICE_UNAVAILABLE, "Token store unavailable")
            }
            Self::BadPath => ("bad_path", S::BAD_REQUEST, "Path refused"),
            Self::RateLimited => ("rate_limited", S::TOO_MANY_REQUESTS, "Too many requests"),
            Self::Overloaded => ("overloaded", S::SERVICE_UNAVAILABLE, "Gateway overloaded"),
            Self::UpstreamUnreachable => ("upstream_unreachable", S::BAD_GATEWAY, "Upstream unreachable"),
            Self::UpstreamTimeout => ("upstream_timeout", S::GATEWAY_TIMEOUT, "Upstream timed out"),
            Self::BodyTooLarge => ("body_too_large", S::PAYLOAD_TOO_LARGE, "Request body too large"),
            Self::BadRequest => ("bad_request", S::BAD_REQUEST, "Malformed request"),
            Self::MethodNotAllowed => ("method_not_allowed", S::METHOD_NOT_ALLOWED, "Method not served"),
            Self::AdminUnauthenticated => ("admin_unauthenticated", S::UNAUTHORIZED, "Admin token required"),
            Self::OriginForbidden => ("origin_forbidden", S::FORBIDDEN, "Cross-origin request refused"),
            Self::NotFound => ("not_found", S::NOT_FOUND, "Not found"),
            Self::ClientMisconfigured => {
                ("token_unavailable", S::BAD_GATEWAY, "Provider refuses this client")
            }
            Self::Internal => ("internal_error", S::INTERNAL_SERVER_ERROR, "Internal error"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use claviger_actors::connection::Reason;
    use claviger_actors::protocol::identifiers::{ConnectionId, ProfileId, Subject};
    use claviger_actors::proxy::rate_limit::Rate;

    use super::*;

    fn profile() -> ProfileId {
        ProfileId::new("calendar").unwrap()
    }

    fn connection() -> ConnectionId {
        ConnectionId { profile: profile(), subject: Subject::new("alice").unwrap() }
    }

    fn facts(problem: &Problem) -> (&'static str, u16, Option<String>) {
        let response = problem.response();
        let retry = response.headers().get(RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(response.status().as_u16(), problem.status);
        (problem.code, problem.status, retry)
    }

    #[test]
    fn who_calls_too_much_is_told_what_is_allowed_and_when_to_come_back() {
        let requests = std::num::NonZeroU32::new(100).unwrap();
        let rate = Rate { requests, per: Duration::from_secs(10), burst: requests };
        let over = OverRate { rate, retry_after: Duration::from_millis(100) };
        let problem = Problem::over_rate("caller", "billing", over, "r1");
        assert_eq!(facts(&problem), ("rate_limited", 429, Some("1".into())));
        let headers = problem.response().headers().clone();
        assert_eq!(headers.get("ratelimit-policy").unwrap(), "\"caller\";q=100;w=10");
        assert_eq!(headers.get("ratelimit").unwrap(), "\"caller\";r=0;t=1");
    }

    #[test]
    fn an_upstream_that_is_left_alone_is_502_if_it_fails_and_429_if_it_asked_for_it() {
        let (origin, retry_after) = (std::sync::Arc::from("https://a"), Duration::from_millis(2100));
        let route = RouteId::new("calendar").unwrap();
        let open = UpstreamError::CircuitOpen { origin, retry_after };
        let problem = Problem::from_upstream_error(&route, &open, "r1");
        assert_eq!(facts(&problem), ("upstream_unreachable", 502, Some("3".into())));
        let held = UpstreamError::HeldBack { origin: "https://a".into(), retry_after };
        let problem = Problem::from_upstream_error(&route, &held, "r1");
        assert_eq!(facts(&problem), ("rate_limited", 429, Some("3".into())));
        let over = UpstreamError::TotalTimeout { origin: "https://a".into(), after: retry_after };
        let problem = Problem::from_upstream_error(&route, &over, "r1");
        assert_eq!(facts(&problem), ("upstream_timeout", 504, None));
    }

    #[test]
    fn a_provider_that_failed_is_502_and_one_held_back_from_is_503() {
        let failed = |retry_after| TokenError::ProviderUnavailable {
            profile: profile(),
            reason: Reason::ProviderError,
            detail: "it answered 500".into(),
            retry_after,
        };
        let problem = Problem::from_token_error(&failed(None), "r1");
        assert_eq!(facts(&problem), ("token_unavailable", 502, None));
        let problem = Problem::from_token_error(&failed(Some(Duration::from_millis(1200))), "r1");
        assert_eq!(facts(&problem), ("token_unavailable", 503, Some("2".into())));
    }

    #[test]
    fn every_token_error_has_its_code() {
        let consent = TokenError::AuthorizationRequired { id: connection(), reason: Reason::NeverConnected };
        assert_eq!(facts(&Problem::from_token_error(&consent, "r")).0, "authorization_required");
        let store = TokenError::StoreUnavailable { id: connection(), detail: "disk full".into() };
        assert_eq!(
            facts(&Problem::from_token_error(&store, "r")),
            ("store_unavailable", 503, Some("1".into()))
        );
        let full = TokenError::Ask { profile: profile(), source: AskError::Full };
        assert_eq!(facts(&Problem::from_token_error(&full, "r")).0, "overloaded");
        let restarting = TokenError::Ask { profile: profile(), source: AskError::Restarting };
        assert_eq!(
            facts(&Problem::from_token_error(&restarting, "r")),
            ("token_unavailable", 503, Some("1".into()))
        );
    }

    #[test]
    fn a_flow_error_says_no_more_than_it_may() {
        let invalid = FlowError::Invalid { why: "state used before", connection: Some(connection()) };
        let problem = Problem::from_flow_error(&invalid, "r");
        assert_eq!(facts(&problem), ("bad_request", 400, None));
        assert!(!problem.detail.contains("state"));
        assert!(!problem.detail.contains("alice"));
        let unknown = FlowError::UnknownProfile("x".into());
        assert_eq!(facts(&Problem::from_flow_error(&unknown, "r")).1, 404);
        let damaged = FlowError::Store(StoreError::Keys("k1 is wrong".into()));
        assert_eq!(facts(&Problem::from_flow_error(&damaged, "r")), ("store_unavailable", 503, None));
    }
}
