//! Who a connection is about, and under which name it is kept.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use claviger_actors::gateway::people::{Moved, NewSubject, UserInfo};
use claviger_actors::protocol::identifiers::{ConnectionId, Subject};
use serde::Deserialize;

use super::connections::{known_connection, never_made, token_problem};
use super::{AdminState, json, logged};
use crate::listeners::problem::{Problem, ProblemCode};

/// `GET /api/connections/{profile}/{subject}/userinfo`: the provider's claims (OpenID Connect Core
/// section 5.3).
pub async fn userinfo(state: web::Data<AdminState>, request: HttpRequest) -> HttpResponse {
    let id = match known_connection(&state, &request) {
        Ok(id) => id,
        Err(problem) => return logged(*problem),
    };
    match state.gateway.userinfo(&id).await {
        Ok(UserInfo::Claims(claims)) => json::answer(StatusCode::OK, &claims),
        Ok(UserInfo::NoConnection) => never_made(&state, &id),
        Ok(UserInfo::Unfit(why)) => conflict(&state, format!("{id}: {why}")),
        Err(error) => token_problem(&state, &error),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RekeyRequest {
    subject: Option<String>,
    to: Option<To>,
    #[serde(default)]
    replace: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum To {
    IdTokenSub,
}

impl RekeyRequest {
    fn checked(self) -> Result<(NewSubject, bool), String> {
        let to = match (self.subject, self.to) {
            (Some(subject), None) => {
                NewSubject::Named(Subject::new(&subject).map_err(|why| format!("subject {why}"))?)
            }
            (None, Some(To::IdTokenSub)) => NewSubject::IdTokenSub,
            _ => return Err("give either subject or `\"to\": \"id_token_sub\"`".to_owned()),
        };
        Ok((to, self.replace))
    }
}

/// `POST /api/connections/{profile}/{subject}/rekey {subject, replace?}` or `{to: "id_token_sub",
/// replace?}`.
pub async fn rekey(state: web::Data<AdminState>, request: HttpRequest, body: web::Payload) -> HttpResponse {
    match try_rekey(&state, &request, body).await {
        Ok(response) => response,
        Err(problem) => logged(*problem),
    }
}

async fn try_rekey(
    state: &AdminState,
    request: &HttpRequest,
    body: web::Payload,
) -> Result<HttpResponse, Box<Problem>> {
    let id = known_connection(state, request)?;
    let (to, replace) = json::read::<RekeyRequest>(body)
        .await?
        .checked()
        .map_err(|why| Problem::new(ProblemCode::BadRequest, why, state.request_id()))?;
    Ok(match state.gateway.rekey_connection(&id, to, replace).await {
        Ok(Moved::Done(view)) => json::answer(StatusCode::OK, &view),
        Ok(Moved::NoConnection) => never_made(state, &id),
        Ok(Moved::Taken(there)) => conflict(state, taken(&there)),
        Ok(Moved::Unfit(why)) => conflict(state, format!("{id}: {why}")),
        Err(error) => token_problem(state, &error),
    })
}

fn taken(there: &ConnectionId) -> String {
    format!("there is a connection {there} already; delete it first, or say `\"replace\": true`")
}

/// The operator is allowed; the connection is in no state for it.
fn conflict(state: &AdminState, detail: String) -> HttpResponse {
    let problem = Problem::new(ProblemCode::BadRequest, detail, state.request_id());
    logged(problem.status(StatusCode::CONFLICT))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn request(body: &str) -> Result<(NewSubject, bool), String> {
        serde_json::from_str::<RekeyRequest>(body).map_err(|error| error.to_string())?.checked()
    }

    #[test]
    fn the_new_subject_is_named_in_one_way() {
        let alice = NewSubject::Named(Subject::new("alice").unwrap());
        assert_eq!(request(r#"{"subject":"alice"}"#), Ok((alice.clone(), false)));
        assert_eq!(request(r#"{"subject":"alice","replace":true}"#), Ok((alice, true)));
        assert_eq!(request(r#"{"to":"id_token_sub"}"#), Ok((NewSubject::IdTokenSub, false)));
        for bad in [
            "{}",
            r#"{"subject":"alice","to":"id_token_sub"}"#,
            r#"{"to":"email"}"#,
            r#"{"subject":""}"#,
            r#"{"subject":"alice","force":true}"#,
        ] {
            assert!(request(bad).is_err(), "{bad}");
        }
    }
}
