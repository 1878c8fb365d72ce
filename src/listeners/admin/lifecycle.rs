//! What an operator asks a provider about a token, and how a whole profile is revoked.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use claviger_actors::protocol::identifiers::ProfileId;
use serde::Deserialize;

use super::connections::{known_connection, never_made, token_problem};
use super::{AdminState, json, logged};
use crate::listeners::problem::{Problem, ProblemCode};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeQuery {
    profile: String,
}

/// The one profile that a query names.
fn named_profile(query: &str) -> Result<ProfileId, String> {
    let query = web::Query::<RevokeQuery>::from_query(query)
        .map_err(|_| "the query must be profile=NAME, once: all of its connections are revoked")?;
    ProfileId::new(&query.profile).map_err(|why| format!("profile {why}"))
}

/// `DELETE /api/connections?profile=NAME`: revokes all of a profile's connections at the provider,
/// and forgets them.
pub async fn revoke_all(state: web::Data<AdminState>, request: HttpRequest) -> HttpResponse {
    let profile = match named_profile(request.query_string()) {
        Ok(profile) => profile,
        Err(detail) => return state.problem(ProblemCode::BadRequest, detail),
    };
    if state.gateway.profile(&profile).is_none() {
        return state.problem(ProblemCode::NotFound, format!("there is no profile {profile}"));
    }
    match state.gateway.revoke_all(&profile).await {
        Ok(counts) => json::answer(StatusCode::OK, &counts),
        Err(error) => logged(Problem::from_store_error(&error, state.request_id())),
    }
}

/// `POST /api/connections/{profile}/{subject}/introspect`: what the provider says of the access token
/// (RFC 7662), without the token.
pub async fn introspect(state: web::Data<AdminState>, request: HttpRequest) -> HttpResponse {
    let id = match known_connection(&state, &request) {
        Ok(id) => id,
        Err(problem) => return logged(*problem),
    };
    match state.gateway.introspect_connection(&id).await {
        Ok(Some(said)) => json::answer(StatusCode::OK, &said),
        Ok(None) => never_made(&state, &id),
        Err(error) => token_problem(&state, &error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn exactly_one_profile_is_revoked() {
        assert_eq!(named_profile("profile=my%20calendar").unwrap().as_str(), "my calendar");
        for query in
            ["", "profile=", "profile=a&profile=b", "profile=a&subject=b", "subject=b", "profile=a%00"]
        {
            assert!(named_profile(query).is_err(), "{query}");
        }
    }
}
