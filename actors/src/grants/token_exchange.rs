//! Token exchange (RFC 8693): the caller's own JWT, or a fixed token, for one that the API takes.

use std::sync::Arc;

use url::Url;

use super::{Grant, GrantContext, GrantError};
use crate::protocol::secret::Secret;
use crate::protocol::template::{Placeholder, Template};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:";

/// What RFC 8693 section 3 registers, by the last part of its name.
const TOKEN_TYPES: [&str; 6] = ["jwt", "access_token", "refresh_token", "id_token", "saml1", "saml2"];

/// No person consents here: whoever issued the subject token vouches for them. A refresh token in the
/// answer is not relied upon.
#[derive(Debug)]
pub struct TokenExchange {
    /// Fixed; `None` for the caller's own JWT.
    subject_token: Option<Secret>,
    subject_token_type: String,
    actor_token: Option<(Secret, String)>,
    requested_token_type: Option<String>,
    audience: Option<Template>,
}

pub(super) fn build(settings: &mut Settings) -> Result<Arc<dyn Grant>, SettingsError> {
    let subject_token = settings.take_secret("subject_token")?;
    let subject_token_type = token_type(settings, "subject_token_type")?;
    let actor_token = settings.take_secret("actor_token")?;
    let actor_token_type = token_type(settings, "actor_token_type")?;
    if actor_token.is_none() && actor_token_type.is_some() {
        // RFC 8693 section 2.1.
        return Err(error("actor_token_type", "stands without actor_token; add that, or remove this"));
    }
    let default = || format!("{TOKEN_TYPE}jwt");
    Ok(Arc::new(TokenExchange {
        subject_token,
        subject_token_type: subject_token_type.unwrap_or_else(default),
        actor_token: actor_token.map(|token| (token, actor_token_type.unwrap_or_else(default))),
        requested_token_type: token_type(settings, "requested_token_type")?,
        audience: template(settings, "audience")?,
    }))
}

/// A short name of [`TOKEN_TYPES`], or a URI as it is.
fn token_type(settings: &mut Settings, key: &str) -> Result<Option<String>, SettingsError> {
    let Some(text) = settings.take_text(key)? else { return Ok(None) };
    if TOKEN_TYPES.contains(&text.as_str()) {
        return Ok(Some(format!("{TOKEN_TYPE}{text}")));
    }
    if Url::parse(&text).is_ok() {
        return Ok(Some(text));
    }
    Err(error(key, &format!("must be a URI, or one of {}", TOKEN_TYPES.join(", "))))
}

fn template(settings: &mut Settings, key: &str) -> Result<Option<Template>, SettingsError> {
    let text = settings.take_text(key)?;
    text.map(|text| Template::parse(&text)).transpose().map_err(|fault| error(key, &fault.to_string()))
}

fn error(key: &str, problem: &str) -> SettingsError {
    SettingsError { key: key.to_owned(), problem: problem.to_owned() }
}

impl Grant for TokenExchange {
    fn needs_person(&self) -> bool {
        false
    }

    fn placeholders(&self) -> Vec<Placeholder> {
        self.audience.iter().flat_map(Template::placeholders).cloned().collect()
    }

    fn needs_caller_token(&self) -> bool {
        self.subject_token.is_none()
    }

    fn token_request(&self, context: &GrantContext<'_>) -> Result<TokenRequest, GrantError> {
        let subject_token = self.subject_token.as_ref().or(context.call.caller_token.as_ref());
        let mut request = TokenRequest::new(GRANT_TYPE);
        request.param("subject_token", subject_token.ok_or(GrantError::NoCallerToken)?);
        request.param("subject_token_type", self.subject_token_type.as_str());
        if let Some((token, kind)) = &self.actor_token {
            request.param("actor_token", token);
            request.param("actor_token_type", kind.as_str());
        }
        if let Some(kind) = &self.requested_token_type {
            request.param("requested_token_type", kind.as_str());
        }
        if let Some(audience) = &self.audience {
            let value = audience.render(context.subject, context.call);
            let value = value.map_err(|source| GrantError::Call { what: "audience", source })?;
            request.param("audience", value);
        }
        request.param("scope", context.scopes.to_string());
        Ok(request)
    }
}
