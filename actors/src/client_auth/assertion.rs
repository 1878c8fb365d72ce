//! What both JWT methods assert: that we are the client (RFC 7523 section 3, OpenID Connect Core
//! section 9).

use std::time::Duration;

use serde_json::{Map, Value};
use url::Url;

use super::{ClientAuthContext, ClientAuthError};
use crate::protocol::jws::{Jwt, Signer, numeric_date, unique_id};
use crate::protocol::token_request::TokenRequest;
use crate::registration::quirks::AssertionAudience;
use crate::registration::settings::{Settings, SettingsError};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Short, as servers limit it: an assertion is made anew for every request.
const LIFETIME: Duration = Duration::from_secs(60);

/// How a client assertion is made.
#[derive(Debug)]
pub(super) struct ClientAssertion {
    method: &'static str,
    /// The profile's own wish; otherwise the provider's.
    audience: Option<AssertionAudience>,
    not_before: bool,
}

impl ClientAssertion {
    /// Takes `client_assertion_audience` and `client_assertion_not_before`.
    pub(super) fn take(settings: &mut Settings, method: &'static str) -> Result<Self, SettingsError> {
        let audience = settings.take_text("client_assertion_audience")?;
        let audience = audience.as_deref().map(audience_of).transpose()?;
        let not_before = settings.take_flag("client_assertion_not_before")?.unwrap_or(false);
        Ok(Self { method, audience, not_before })
    }

    /// Adds the assertion, signed by `signer`, to `request`.
    pub(super) fn add(
        &self,
        context: &ClientAuthContext<'_>,
        signer: Signer<'_>,
        request: &mut TokenRequest,
    ) -> Result<(), ClientAuthError> {
        let assertion = Jwt::new(self.claims(context)?)
            .sign(signer)
            .map_err(|fault| self.error(format!("signing {fault}")))?;
        // Named as well, for servers that look there first; it must be the same (RFC 7521 section 4.2).
        request.param("client_id", context.client_id);
        request.param("client_assertion_type", ASSERTION_TYPE);
        request.param("client_assertion", assertion);
        Ok(())
    }

    fn claims(&self, context: &ClientAuthContext<'_>) -> Result<Map<String, Value>, ClientAuthError> {
        let mut claims: Map<String, Value> = Map::new();
        claims.insert("iss".into(), context.client_id.into());
        claims.insert("sub".into(), context.client_id.into());
        claims.insert("aud".into(), self.audience(context)?.into());
        claims.insert("iat".into(), numeric_date(context.now));
        claims.insert("exp".into(), numeric_date(context.now.after(LIFETIME)));
        claims.insert("jti".into(), unique_id(context.entropy).into());
        if self.not_before {
            claims.insert("nbf".into(), numeric_date(context.now));
        }
        Ok(claims)
    }

    /// One audience, and a text: a list would let one server use the assertion at another
    /// (draft-ietf-oauth-rfc7523bis).
    fn audience(&self, context: &ClientAuthContext<'_>) -> Result<String, ClientAuthError> {
        let wish = self.audience.as_ref().unwrap_or(&context.quirks.client_assertion_audience);
        let endpoint = || context.token_endpoint.map(Url::as_str);
        let audience = match wish {
            AssertionAudience::Issuer => context.issuer.or_else(endpoint),
            AssertionAudience::TokenEndpoint => endpoint(),
            AssertionAudience::Fixed(audience) => Some(audience.as_str()),
        };
        audience.map(str::to_owned).ok_or_else(|| {
            self.error("neither issuer nor token endpoint is known; set `client_assertion_audience`".into())
        })
    }

    fn error(&self, problem: String) -> ClientAuthError {
        ClientAuthError { method: self.method, problem }
    }
}

fn audience_of(text: &str) -> Result<AssertionAudience, SettingsError> {
    match text {
        "issuer" => Ok(AssertionAudience::Issuer),
        "token_endpoint" => Ok(AssertionAudience::TokenEndpoint),
        _ if text.contains(':') => Ok(AssertionAudience::Fixed(text.to_owned())),
        _ => Err(SettingsError {
            key: "client_assertion_audience".into(),
            problem: "must be \"issuer\", \"token_endpoint\" or a URI".into(),
        }),
    }
}
