//! What all assertions that we issue have in common (RFC 7521 section 4.1).

use super::{GrantContext, GrantError};
use crate::protocol::secret::Secret;
use crate::protocol::template::Template;

/// Whom an assertion is for.
#[derive(Clone, Debug)]
pub(super) enum Audience {
    /// The authorization server's issuer identifier.
    Issuer,
    /// Its token endpoint.
    TokenEndpoint,
    /// This one.
    Fixed(String),
}

impl From<String> for Audience {
    fn from(text: String) -> Self {
        match text.as_str() {
            "issuer" => Self::Issuer,
            "token_endpoint" => Self::TokenEndpoint,
            _ => Self::Fixed(text),
        }
    }
}

impl Audience {
    /// Its name, for an assertion of `grant`.
    pub(super) fn of<'a>(
        &'a self,
        grant: &'static str,
        context: &GrantContext<'a>,
    ) -> Result<&'a str, GrantError> {
        match self {
            Self::Issuer => {
                let missing = GrantError::Missing { grant, what: "the provider's issuer for `audience`" };
                context.issuer.ok_or(missing)
            }
            Self::TokenEndpoint => Ok(context.token_endpoint.as_str()),
            Self::Fixed(text) => Ok(text),
        }
    }

    /// The provider's own, else its token endpoint.
    pub(super) fn usual<'a>(context: &GrantContext<'a>) -> &'a str {
        let provider = context.registration.provider.quirks.assertion_audience.as_deref();
        provider.unwrap_or(context.token_endpoint.as_str())
    }
}

/// Fills in `template`, which the key `what` of the profile holds.
pub(super) fn render(
    what: &'static str,
    template: &Template,
    context: &GrantContext<'_>,
) -> Result<Secret, GrantError> {
    template.render(context.subject, context.call).map_err(|source| GrantError::Call { what, source })
}
