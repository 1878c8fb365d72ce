//! One-time connect links.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use claviger_actors::protocol::identifiers::{ConnectionId, ProfileId, Subject};
use claviger_actors::protocol::scope::ScopeSet;
use serde::Deserialize;
use serde_json::json;

use super::connections::known;
use super::{AdminState, json, logged};
use crate::listeners::problem::{Problem, ProblemCode};
use crate::listeners::public::connect_url;
use crate::listeners::return_to::{check_return_to, with_entries};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectSessionRequest {
    profile: String,
    subject: String,
    return_to: Option<String>,
    /// Scopes to ask for beyond the profile's.
    #[serde(default)]
    scopes: Vec<String>,
    /// What comes back in the query of `return_to`. The provider never sees it.
    #[serde(default)]
    state: BTreeMap<String, String>,
}

/// What was asked for, checked.
#[derive(Debug)]
struct Wanted {
    connection: ConnectionId,
    return_to: Option<String>,
    scopes: ScopeSet,
}

/// Most that `state` may hold, names and values together, in bytes.
const MAX_STATE: usize = 2048;

/// What the gateway itself adds to `return_to`.
const OWN_ENTRIES: [&str; 1] = ["error"];

impl ConnectSessionRequest {
    fn checked(self) -> Result<Wanted, String> {
        let connection = ConnectionId {
            profile: ProfileId::new(&self.profile).map_err(|why| format!("profile {why}"))?,
            subject: Subject::new(&self.subject).map_err(|why| format!("subject {why}"))?,
        };
        let return_to = self.return_to.as_deref().map(check_return_to).transpose();
        let return_to = return_to.map_err(|why| why.to_string())?;
        let scopes = ScopeSet::from_tokens(self.scopes).map_err(|why| why.to_string())?;
        let return_to = match return_to {
            Some(return_to) => Some(with_entries(&return_to, check_state(&self.state)?)),
            None if self.state.is_empty() => None,
            None => return Err("state comes back in the query of return_to, which is missing".to_owned()),
        };
        Ok(Wanted { connection, return_to, scopes })
    }
}

fn check_state(state: &BTreeMap<String, String>) -> Result<&BTreeMap<String, String>, String> {
    let size: usize = state.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MAX_STATE {
        return Err(format!("state is larger than {MAX_STATE} bytes"));
    }
    match state.keys().find(|name| name.is_empty() || OWN_ENTRIES.contains(&name.as_str())) {
        Some(name) => Err(format!("state must not have an entry {name:?}")),
        None => Ok(state),
    }
}

/// `POST /api/connect-sessions {profile, subject, return_to?, scopes?, state?}` -> `{url, expires_in, device?}`.
pub async fn create(state: web::Data<AdminState>, body: web::Payload) -> HttpResponse {
    match try_create(&state, body).await {
        Ok(response) => response,
        Err(problem) => logged(*problem),
    }
}

async fn try_create(state: &AdminState, body: web::Payload) -> Result<HttpResponse, Box<Problem>> {
    let Wanted { connection, return_to, scopes } = json::read::<ConnectSessionRequest>(body)
        .await?
        .checked()
        .map_err(|why| Problem::new(ProblemCode::BadRequest, why, state.request_id()))?;
    let connection = known(state, connection)?;
    if state.gateway.uses_device(&connection.profile) {
        return begin_on_device(state, Wanted { connection, return_to, scopes }).await;
    }
    let link = state
        .gateway
        .create_connect_link(connection, return_to, scopes)
        .await
        .map_err(|error| Problem::from_flow_error(&error, state.request_id()))?;
    let url = connect_url(&state.public_url, &link.token);
    Ok(json::answer(StatusCode::OK, &json!({ "url": url, "expires_in": link.expires_in })))
}

/// Where people consent on another device, the flow starts at once, and what they have to enter is in
/// the answer; `url` is the page that shows it.
async fn begin_on_device(state: &AdminState, wanted: Wanted) -> Result<HttpResponse, Box<Problem>> {
    let Wanted { connection, return_to, scopes } = wanted;
    let (page, view) = state
        .gateway
        .begin_device_authorization(connection, return_to, scopes)
        .await
        .map_err(|error| Problem::from_flow_error(&error, state.request_id()))?;
    let mut device = json!({
        "user_code": view.user_code,
        "verification_uri": view.verification_uri,
        "expires_in": view.expires_in,
        "interval": view.interval,
    });
    if let Some(complete) = view.verification_uri_complete {
        device["verification_uri_complete"] = complete.into();
    }
    let url = connect_url(&state.public_url, &page);
    let answer = json!({ "url": url, "expires_in": view.expires_in, "device": device });
    Ok(json::answer(StatusCode::OK, &answer))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn request(body: &str) -> Result<Wanted, String> {
        serde_json::from_str::<ConnectSessionRequest>(body).map_err(|e| e.to_string())?.checked()
    }

    #[test]
    fn return_to_is_checked_and_normalised() {
        let Wanted { connection: id, return_to, .. } =
            request(r#"{"profile":"calendar","subject":"alice","return_to":"https://App.example"}"#).unwrap();
        assert_eq!(id.to_string(), "calendar/alice");
        assert_eq!(return_to.as_deref(), Some("https://app.example/"));
        for bad in ["/x", "javascript:alert(1)", "https://a@b/", "//evil.example"] {
            let body = format!(r#"{{"profile":"calendar","subject":"alice","return_to":"{bad}"}}"#);
            assert!(request(&body).is_err(), "{bad}");
        }
    }

    #[test]
    fn state_comes_back_in_the_query_of_return_to() {
        let body = |rest: &str| format!(r#"{{"profile":"calendar","subject":"alice"{rest}}}"#);
        let wanted = request(&body(
            r#","return_to":"https://app.example/x?a=b#c","state":{"cart":"1&2=3","é":"\n"},"scopes":["mail"]"#,
        ));
        let wanted = wanted.unwrap();
        let back = "https://app.example/x?a=b&cart=1%262%3D3&%C3%A9=%0A#c";
        assert_eq!(wanted.return_to.as_deref(), Some(back));
        assert_eq!(wanted.scopes.to_string(), "mail");

        assert!(request(&body(r#","state":{"a":"b"}"#)).unwrap_err().contains("return_to"));
        let to = r#","return_to":"https://app.example/""#;
        for bad in [r#"{"error":"x"}"#, r#"{"":"x"}"#, r#"{"a":1}"#, r#"{"a":{"b":"c"}}"#, "[]"] {
            assert!(request(&body(&format!(r#"{to},"state":{bad}"#))).is_err(), "{bad}");
        }
        let long = "x".repeat(MAX_STATE);
        assert!(request(&body(&format!(r#"{to},"state":{{"a":"{long}"}}"#))).is_err());
        assert!(request(&body(&format!(r#"{to},"state":{{"a":"{}"}}"#, &long[1..]))).is_ok());
        assert!(request(&body(r#","scopes":["a b"]"#)).is_err());
    }

    #[test]
    fn what_is_misspelt_or_empty_is_refused() {
        assert!(request(r#"{"profile":"calendar","subject":""}"#).unwrap_err().starts_with("subject"));
        assert!(request(r#"{"profile":"calendar","subjekt":"alice"}"#).unwrap_err().contains("subjekt"));
        assert!(request(r#"{"profile":"calendar"}"#).is_err());
    }
}
