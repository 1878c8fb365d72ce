//! What the provider says of a person (OpenID Connect Core 1.0 section 5.3).

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};

use super::actor::join;
use super::consent;
use super::context::{CurrentContext, ProviderContext};
use super::error::TokenError;
use super::messages::UserInfo;
use super::want::Want;
use crate::authorization_server::unknown;
use crate::connection::{BoundToken, Failure, FailureClass, Held, Reason};
use crate::protocol::dpop::{DPOP, htu, resource_wants_nonce};
use crate::protocol::identifiers::Subject;
use crate::protocol::metadata::is_allowed_endpoint;
use crate::protocol::strict_json;
use crate::protocol::token::TokenSet;
use crate::token_endpoint::{failure, failure_of_transport, get_json};
use crate::transport::IncomingResponse;

const DEADLINE: Duration = Duration::from_secs(10);
/// Largest answer, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Asks for the claims of the person whose connection it is, with an access token that is refreshed
/// first if it has ended. They are given only if they are about the subject of the ID token.
pub(super) async fn fetch(current: CurrentContext, subject: Subject) -> Result<UserInfo, TokenError> {
    let context = current.get();
    if consent::read(&context, &subject).await?.is_none() {
        return Ok(UserInfo::NoConnection);
    }
    join(&current, subject.clone(), Want::Other(None)).await?;
    let context = current.get();
    let id = context.id(&subject);
    let stored = context.records.load(&id).await.map_err(|error| context.store_error(&subject, &error))?;
    let Some(stored) = stored else { return Ok(UserInfo::NoConnection) };
    let record = &stored.record;
    let Held::Tokens(tokens) = &record.held else { return Ok(UserInfo::NoConnection) };
    if !context.issued(record) {
        return Ok(UserInfo::Unfit("its token is of another authorization server than the profile's"));
    }
    let Some(identity) = &tokens.identity else {
        return Ok(UserInfo::Unfit(
            "it has no ID token, which says whom it is about; ask for scope `openid`",
        ));
    };
    // With the nonces that the connection has met.
    let connection = context.present(&stored);
    ask(&context, tokens, connection.bound_token(), &identity.sub).await.map_err(|failure| {
        context.note_error(&failure.detail);
        context.failure_error(&subject, &failure, None)
    })
}

/// Asks with the token, and, if it is bound to a key, a proof of that; once more if only the nonce of the
/// proof was missing or old (RFC 9449 sections 7 and 9).
async fn ask(
    context: &ProviderContext,
    tokens: &TokenSet,
    bound: Option<&BoundToken>,
    sub: &str,
) -> Result<UserInfo, Failure> {
    let metadata = context.discovery.metadata().await?;
    let endpoint =
        metadata.endpoints.userinfo_endpoint.as_ref().ok_or_else(|| unknown("userinfo_endpoint"))?;
    if !is_allowed_endpoint(endpoint) {
        let detail = "no token is sent to the userinfo_endpoint: it is no https URL";
        return Err(failure(FailureClass::ClientMisconfigured, Reason::RequestRefused, detail));
    }
    let origin = endpoint.origin().ascii_serialization();
    let send = async || {
        let mut request = get_json(endpoint.clone(), DEADLINE, MAX_BODY);
        request.headers.insert(AUTHORIZATION, tokens.access_token.header(tokens.token_type.scheme()));
        if let Some(token) = bound {
            let proof =
                token.prove("GET", &origin, htu(endpoint), context.now(), context.entropy.as_ref()).map_err(
                    |fault| failure(FailureClass::Internal, Reason::InternalError, fault.to_string()),
                )?;
            request.headers.insert(DPOP, proof);
        }
        let answer = context.transport.send(request).await.map_err(|fault| failure_of_transport(&fault))?;
        if let Some(token) = bound {
            token.remember_nonce(&origin, &answer.headers);
        }
        Ok::<_, Failure>(answer)
    };
    let mut answer = send().await?;
    if bound.is_some() && resource_wants_nonce(answer.status, &answer.headers) {
        answer = send().await?;
    }
    read(&answer, sub)
}

/// Section 5.3.2: its `sub` must be that of the ID token, or nothing of it may be used.
fn read(answer: &IncomingResponse, sub: &str) -> Result<UserInfo, Failure> {
    if !answer.status.is_success() {
        let detail = format!("the userinfo_endpoint answers with status {}", answer.status.as_u16());
        return Err(failure(FailureClass::ProviderUnavailable, Reason::ProviderError, detail));
    }
    let malformed =
        |detail: String| failure(FailureClass::ProviderUnavailable, Reason::MalformedAnswer, detail);
    let media_type =
        answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media_type.trim_start().to_ascii_lowercase().starts_with("application/jwt") {
        return Err(malformed(
            "the userinfo_endpoint answers with a JWT; only plain JSON is read".to_owned(),
        ));
    }
    let claims = strict_json::object(&answer.body)
        .map_err(|fault| malformed(format!("the answer of the userinfo_endpoint {fault}")))?;
    if claims.get("sub").and_then(serde_json::Value::as_str) != Some(sub) {
        return Err(malformed(
            "the answer of the userinfo_endpoint is about another subject than the ID token".to_owned(),
        ));
    }
    Ok(UserInfo::Claims(claims))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    fn answer(status: u16, media_type: &'static str, body: &'static str) -> IncomingResponse {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        IncomingResponse { status: StatusCode::from_u16(status).unwrap(), headers, body: body.into() }
    }

    /// The example of OpenID Connect Core 1.0 section 5.3.2.
    #[test]
    fn claims_are_given_if_they_are_about_the_subject_of_the_id_token() {
        let body = r#"{"sub":"248289761001","name":"Jane Doe","email":"janedoe@example.com"}"#;
        let good = answer(200, "application/json; charset=utf-8", body);
        let UserInfo::Claims(claims) = read(&good, "248289761001").unwrap() else { panic!("claims") };
        assert_eq!((claims["name"].as_str(), claims.len()), (Some("Jane Doe"), 3));
        let other = read(&good, "248289761002").unwrap_err();
        assert!(
            other.detail.contains("another subject") && !other.detail.contains("Jane"),
            "{}",
            other.detail
        );
    }

    #[test]
    fn what_is_no_such_answer_is_refused() {
        for (status, media_type, body) in [
            (401, "application/json", r#"{"sub":"1"}"#),
            (302, "text/html", ""),
            (200, "application/jwt", "e30.e30.x"),
            (200, "text/html", "<html>"),
            (200, "application/json", "{}"),
            (200, "application/json", r#"{"sub":1}"#),
            (200, "application/json", r#"{"sub":"2","sub":"1"}"#),
        ] {
            assert!(read(&answer(status, media_type, body), "1").is_err(), "{status} {media_type} {body}");
        }
    }
}
