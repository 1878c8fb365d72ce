//! One-time connect links.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use claviger_actors::protocol::identifiers::{ConnectionId, ProfileId, Subject};
use serde::Deserialize;
use serde_json::json;

use super::connections::known;
use super::{AdminState, json, logged};
use crate::listeners::problem::{Problem, ProblemCode};
use crate::listeners::public::connect_url;
use crate::listeners::return_to::check_return_to;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectSessionRequest {
    profile: String,
    subject: String,
    return_to: Option<String>,
}

impl ConnectSessionRequest {
    fn checked(self) -> Result<(ConnectionId, Option<String>), String> {
        let connection = ConnectionId {
            profile: ProfileId::new(&self.profile).map_err(|why| format!("profile {why}"))?,
            subject: Subject::new(&self.subject).map_err(|why| format!("subject {why}"))?,
        };
        let return_to = self.return_to.as_deref().map(check_return_to).transpose();
        Ok((connection, return_to.map_err(|why| why.to_string())?))
    }
}

/// `POST /api/connect-sessions {profile, subject, return_to?}` -> `{url, expires_in}`.
pub async fn create(state: web::Data<AdminState>, body: web::Payload) -> HttpResponse {
    match try_create(&state, body).await {
        Ok(response) => response,
        Err(problem) => logged(*problem),
    }
}

async fn try_create(state: &AdminState, body: web::Payload) -> Result<HttpResponse, Box<Problem>> {
    let (connection, return_to) = json::read::<ConnectSessionRequest>(body)
        .await?
        .checked()
        .map_err(|why| Problem::new(ProblemCode::BadRequest, why, state.request_id()))?;
    let connection = known(state, connection)?;
    let link = state
        .gateway
        .create_connect_link(connection, return_to)
        .await
        .map_err(|error| Problem::from_flow_error(&error, state.request_id()))?;
    let url = connect_url(&state.public_url, &link.token);
    Ok(json::answer(StatusCode::OK, &json!({ "url": url, "expires_in": link.expires_in })))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn request(body: &str) -> Result<(ConnectionId, Option<String>), String> {
        serde_json::from_str::<ConnectSessionRequest>(body).map_err(|e| e.to_string())?.checked()
    }

    #[test]
    fn return_to_is_checked_and_normalised() {
        let (id, return_to) =
            request(r#"{"profile":"calendar","subject":"alice","return_to":"https://App.example"}"#).unwrap();
        assert_eq!(id.to_string(), "calendar/alice");
        assert_eq!(return_to.as_deref(), Some("https://app.example/"));
        for bad in ["/x", "javascript:alert(1)", "https://a@b/", "//evil.example"] {
            let body = format!(r#"{{"profile":"calendar","subject":"alice","return_to":"{bad}"}}"#);
            assert!(request(&body).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_misspelt_or_empty_is_refused() {
        assert!(request(r#"{"profile":"calendar","subject":""}"#).unwrap_err().starts_with("subject"));
        assert!(request(r#"{"profile":"calendar","subjekt":"alice"}"#).unwrap_err().contains("subjekt"));
        assert!(request(r#"{"profile":"calendar"}"#).is_err());
    }
}
