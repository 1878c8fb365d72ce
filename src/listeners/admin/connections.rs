//! What is held for whom: list, show, refresh, delete. Tokens are named by fingerprint only.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use claviger_actors::connection::Reason;
use claviger_actors::protocol::identifiers::{ConnectionId, ProfileId, Subject};
use claviger_actors::provider::error::TokenError;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;

use super::{AdminState, cursor, json, logged};
use crate::listeners::problem::{Problem, ProblemCode};

const PREFIX: &str = "/api/connections/";
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    profile: Option<String>,
    subject: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// What is asked of a list, checked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listing {
    profile: Option<ProfileId>,
    subject: Option<Subject>,
    after: Option<ConnectionId>,
    limit: usize,
}

impl Listing {
    fn parse(query: &str) -> Result<Self, String> {
        let query = web::Query::<ListQuery>::from_query(query)
            .map_err(|_| "the query takes profile, subject, limit and cursor, each at most once")?;
        let profile = query.profile.as_deref().map(ProfileId::new).transpose();
        let subject = query.subject.as_deref().map(Subject::new).transpose();
        let limit = match query.limit.as_deref().map(str::parse) {
            None => DEFAULT_LIMIT,
            Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => limit,
            Some(_) => return Err(format!("limit must be a number from 1 to {MAX_LIMIT}")),
        };
        Ok(Self {
            profile: profile.map_err(|why| format!("profile {why}"))?,
            subject: subject.map_err(|why| format!("subject {why}"))?,
            after: query.cursor.as_deref().map(cursor::decode).transpose().map_err(|e| e.to_string())?,
            limit,
        })
    }
}

/// `GET /api/connections`.
pub async fn list(state: web::Data<AdminState>, request: HttpRequest) -> HttpResponse {
    let listing = match Listing::parse(request.query_string()) {
        Ok(listing) => listing,
        Err(detail) => return state.problem(ProblemCode::BadRequest, detail),
    };
    let Listing { profile, subject, after, limit } = listing;
    match state.gateway.list_connections(profile, subject, after, limit).await {
        Ok(page) => {
            let next_cursor = page.next.as_ref().map(cursor::encode);
            let body = json!({ "connections": page.connections, "next_cursor": next_cursor });
            json::answer(StatusCode::OK, &body)
        }
        Err(error) => logged(Problem::from_store_error(&error, state.request_id())),
    }
}

/// `GET /api/connections/{profile}/{subject}`.
pub async fn show(state: web::Data<AdminState>, request: HttpRequest) -> HttpResponse {
    let id = match known_connection(&state, &request) {
        Ok(id) => id,
        Err(problem) => return logged(*problem),
    };
    match state.gateway.connection(&id).await {
        Ok(Some(view)) => json::answer(StatusCode::OK, &view),
        Ok(None) => never_made(&state, &id),
        Err(error) => token_problem(&state, &error),
    }
}

/// `DELETE /api/connections/{profile}/{subject}`: revokes at the provider first.
pub async fn delete(state: web::Data<AdminState>, request: HttpRequest) -> HttpResponse {
    let id = match known_connection(&state, &request) {
        Ok(id) => id,
        Err(problem) => return logged(*problem),
    };
    match state.gateway.delete_connection(&id).await {
        Ok(true) => {
            tracing::info!(connection = %id, "connection deleted by an operator");
            HttpResponse::NoContent().insert_header(("cache-control", "no-store")).finish()
        }
        Ok(false) => never_made(&state, &id),
        Err(error) => token_problem(&state, &error),
    }
}

/// `POST /api/connections/{profile}/{subject}/refresh`.
pub async fn refresh(state: web::Data<AdminState>, request: HttpRequest) -> HttpResponse {
    let id = match known_connection(&state, &request) {
        Ok(id) => id,
        Err(problem) => return logged(*problem),
    };
    match state.gateway.refresh_connection(&id).await {
        Ok(view) => json::answer(StatusCode::OK, &view),
        Err(TokenError::AuthorizationRequired { reason: Reason::NeverConnected, .. }) => {
            never_made(&state, &id)
        }
        Err(error) => token_problem(&state, &error),
    }
}

/// The connection that the path names, if its profile exists.
pub(super) fn known_connection(
    state: &AdminState,
    request: &HttpRequest,
) -> Result<ConnectionId, Box<Problem>> {
    let id = named_connection(request.uri().path())
        .map_err(|why| Problem::new(ProblemCode::BadRequest, why, state.request_id()))?;
    known(state, id)
}

/// `id`, if its profile exists.
pub(super) fn known(state: &AdminState, id: ConnectionId) -> Result<ConnectionId, Box<Problem>> {
    if state.gateway.profile(&id.profile).is_some() {
        return Ok(id);
    }
    let detail = format!("there is no profile {}", id.profile);
    Err(Problem::new(ProblemCode::NotFound, detail, state.request_id()).into())
}

/// Reads profile and subject from the path as it was sent, so that each is decoded just once: a
/// subject may have a slash or a percent sign.
fn named_connection(path: &str) -> Result<ConnectionId, String> {
    let mut segments = path.strip_prefix(PREFIX).unwrap_or_default().split('/');
    let mut decoded = |what: &str| {
        percent_decode_str(segments.next().unwrap_or_default())
            .decode_utf8()
            .map_err(|_| format!("{what} is not UTF-8 once decoded"))
    };
    let (profile, subject) = (decoded("profile")?, decoded("subject")?);
    Ok(ConnectionId {
        profile: ProfileId::new(&profile).map_err(|why| format!("profile {why}"))?,
        subject: Subject::new(&subject).map_err(|why| format!("subject {why}"))?,
    })
}

/// Why an operator's wish about a connection was not granted.
pub(super) fn token_problem(state: &AdminState, error: &TokenError) -> HttpResponse {
    let mut problem = Problem::from_token_error(error, state.request_id());
    // The operator is allowed; the connection is in no state for it.
    if let TokenError::AuthorizationRequired { .. } | TokenError::CallIncomplete { .. } = error {
        problem = problem.status(StatusCode::CONFLICT);
    }
    if let TokenError::CallIncomplete { .. } = error {
        problem
            .detail
            .push_str("; only a call brings it along, and the next one that does has it obtained anew");
    }
    logged(problem)
}

pub(super) fn never_made(state: &AdminState, id: &ConnectionId) -> HttpResponse {
    state.problem(ProblemCode::NotFound, format!("there is no connection {id}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn names_in_the_path_are_decoded_once() {
        for (path, profile, subject) in [
            ("calendar/alice", "calendar", "alice"),
            ("calendar/alice/refresh", "calendar", "alice"),
            ("calendar/a%2Fb", "calendar", "a/b"),
            ("calendar/100%2525", "calendar", "100%25"),
            ("calendar/a+b%40c.example", "calendar", "a+b@c.example"),
            ("my%20profile/%C3%BC", "my profile", "ü"),
            ("calendar/..", "calendar", ".."),
        ] {
            let id = named_connection(&format!("{PREFIX}{path}")).unwrap();
            assert_eq!((id.profile.as_str(), id.subject.as_str()), (profile, subject), "{path}");
        }
        for path in ["calendar/%FF", "calendar/%00", "calendar/a%0Ab", "calendar/", "/alice", "calendar"] {
            assert!(named_connection(&format!("{PREFIX}{path}")).is_err(), "{path}");
        }
    }

    #[test]
    fn a_list_has_a_limit_from_1_to_1000() {
        assert_eq!(Listing::parse("").unwrap().limit, 100);
        assert_eq!(Listing::parse("limit=1").unwrap().limit, 1);
        assert_eq!(Listing::parse("limit=1000").unwrap().limit, 1000);
        for query in ["limit=0", "limit=1001", "limit=-1", "limit=ten", "limit=", "limit=1.5"] {
            assert!(Listing::parse(query).unwrap_err().contains("limit"), "{query}");
        }
    }

    #[test]
    fn a_list_refuses_what_it_does_not_know() {
        for query in ["page=2", "limit=1&limit=2", "cursor=%21", "subject=", "profile=a%00b"] {
            assert!(Listing::parse(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_list_goes_on_after_its_cursor() {
        let id = ConnectionId {
            profile: ProfileId::new("calendar").unwrap(),
            subject: Subject::new("alice").unwrap(),
        };
        let query = format!("profile=calendar&subject=alice&cursor={}", cursor::encode(&id));
        let listing = Listing::parse(&query).unwrap();
        assert_eq!(listing.profile, Some(id.profile.clone()));
        assert_eq!(listing.subject, Some(id.subject.clone()));
        assert_eq!(listing.after, Some(id));
    }
}
