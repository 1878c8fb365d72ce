//! How JSON comes and goes: limited in size, never echoing a value, never cached.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpResponse, web};
use claviger_actors::clock::SystemEntropy;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::listeners::problem::{Problem, ProblemCode};
use crate::listeners::request_id::new_request_id;

/// Largest request body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// A request body must arrive within this.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Longest part of a parser's message that is passed on; a key in it may be of any length.
const MAX_MESSAGE: usize = 300;

/// An answer with a JSON body.
pub fn answer(status: StatusCode, body: &impl Serialize) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .json(body)
}

/// Reads a whole request body, within [`MAX_BODY`] and [`BODY_DEADLINE`].
pub async fn read<T: DeserializeOwned>(body: web::Payload) -> Result<T, Box<Problem>> {
    let refuse = |code, detail: String| Problem::new(code, detail, new_request_id(&SystemEntropy));
    let slow = |_| {
        let detail = format!("the body did not arrive within {BODY_DEADLINE:?}");
        refuse(ProblemCode::BadRequest, detail).status(StatusCode::REQUEST_TIMEOUT)
    };
    let large = |_| refuse(ProblemCode::BodyTooLarge, format!("a body may have at most {MAX_BODY} bytes"));
    let broken = |_| refuse(ProblemCode::BadRequest, "the body could not be read".to_owned());
    let bytes = tokio::time::timeout(BODY_DEADLINE, body.to_bytes_limited(MAX_BODY)).await;
    let bytes = bytes.map_err(slow)?.map_err(large)?.map_err(broken)?;
    parse(&bytes)
}

/// Reads a body that is there.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Box<Problem>> {
    serde_json::from_slice(body).map_err(|error| {
        let id = new_request_id(&SystemEntropy);
        Problem::new(ProblemCode::BadRequest, describe(&error), id).into()
    })
}

/// What is wrong, without any value from the body: it may be a token.
fn describe(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let only_keys = ["unknown field", "missing field", "duplicate field"];
    if only_keys.iter().any(|start| message.starts_with(start)) {
        message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
    } else {
        let kind = if error.is_data() { "a value of the wrong type" } else { "not JSON" };
        format!("the body has {kind} at line {} column {}", error.line(), error.column())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[allow(dead_code)]
        count: u64,
    }

    fn detail(body: &'static str) -> String {
        parse::<Body>(body.as_bytes()).unwrap_err().detail
    }

    #[test]
    fn values_are_never_echoed_and_keys_are() {
        let wrong = detail(r#"{"count":"s3cret-token"}"#);
        assert!(!wrong.contains("s3cret"), "{wrong}");
        assert!(wrong.contains("line 1"), "{wrong}");
        assert!(detail(r#"{"cuont":1}"#).contains("cuont"));
        assert!(detail("{}").contains("count"));
        assert!(detail("{").contains("not JSON"));
        assert!(detail(r#"{"count":1,"count":2}"#).contains("duplicate"));
    }
}
