//! One strategy a grant: how to turn what we hold into a token request (RFC 6749 section 1.3).
//!
//! To add a grant: one new file here, one `mod` line and one row in [`GRANTS`].

mod assertion;
pub mod authorization_code;
pub mod client_credentials;
pub mod device_code;
pub mod jwt_bearer;
pub mod password;
pub mod refresh_token;
pub mod saml2_bearer;
pub mod token_exchange;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use url::Url;

use crate::clock::{Entropy, Timestamp};
use crate::protocol::dpop::DpopKey;
use crate::protocol::identifiers::Subject;
use crate::protocol::pkce::CodeVerifier;
use crate::protocol::saml::SamlError;
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::protocol::signing_key::KeyError;
use crate::protocol::template::{CallContext, Placeholder, TemplateError};
use crate::protocol::token_request::TokenRequest;
use crate::registration::ClientRegistration;
use crate::registration::settings::{Settings, SettingsError};
use crate::registration::signing_keys::SigningKeys;

/// What a grant may draw on.
pub struct GrantContext<'a> {
    /// The profile.
    pub registration: &'a ClientRegistration,
    /// RFC 6749 section 2.2.
    pub client_id: &'a str,
    /// Whose token is wanted.
    pub subject: &'a Subject,
    /// What is asked for: the profile's scopes and the route's.
    pub scopes: &'a ScopeSet,
    /// What the call brings along.
    pub call: &'a CallContext,
    /// What a person's consent brought, when redeeming a code.
    pub redemption: Option<&'a Redemption>,
    /// Where the request goes: the usual audience of assertions (RFC 7523 section 3).
    pub token_endpoint: &'a Url,
    /// The authorization server's issuer identifier, if known.
    pub issuer: Option<&'a str>,
    /// Now.
    pub now: Timestamp,
    /// Randomness, for `jti`.
    pub entropy: &'a dyn Entropy,
}

/// What a person's consent brought, and what its flow remembered (RFC 6749 section 4.1.3, RFC 8628
/// section 3.4).
#[derive(Clone, Debug)]
pub struct Redemption {
    /// The authorization code, sent at most once, or the device code.
    pub code: Secret,
    /// The verifier of the challenge that was sent (RFC 7636 section 4.5).
    pub code_verifier: Option<CodeVerifier>,
    /// Byte for byte the one of the authorization request; there is none on a device.
    pub redirect_uri: Option<Url>,
    /// The key whose thumbprint was sent as `dpop_jkt` (RFC 9449 section 10).
    pub dpop_key: Option<DpopKey>,
    /// What was asked for.
    pub scopes: ScopeSet,
    /// When it was asked for: no login may lie further back than `max_age` before that.
    pub begun_at: Timestamp,
    /// Members of the authorization response to keep with the token set.
    pub kept: BTreeMap<String, String>,
}

/// Why a grant cannot make a token request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GrantError {
    /// A person must consent first.
    #[error("a person must consent first")]
    ConsentNeeded,
    /// The call does not bring along what the profile needs of it.
    #[error("{what}: {source}")]
    Call {
        /// What needs it: a key of the profile.
        what: &'static str,
        /// What is missing.
        source: TemplateError,
    },
    /// The call brings no JWT of the caller's.
    #[error("the call has no JWT of the caller's, which is what its token is exchanged for")]
    NoCallerToken,
    /// The call brings no assertion.
    #[error("the call has no assertion; send it as Claviger-Assertion")]
    NoAssertion,
    /// The assertion that the call brings cannot be used.
    #[error("the call's assertion, Claviger-Assertion, {0}")]
    CallAssertion(SamlError),
    /// A SAML assertion cannot be built or used.
    #[error("the SAML assertion {0}")]
    Saml(#[from] SamlError),
    /// Something the grant needs is not there.
    #[error("the {grant} grant lacks {what}")]
    Missing {
        /// The grant.
        grant: &'static str,
        /// What it lacks.
        what: &'static str,
    },
    /// An assertion could not be signed.
    #[error("the {grant} grant cannot sign: {source}")]
    Signing {
        /// The grant.
        grant: &'static str,
        /// Why not.
        source: KeyError,
    },
}

/// A way to turn what we hold into a token request.
pub trait Grant: Send + Sync + fmt::Debug {
    /// Whether a person consents in a browser before the first token request.
    fn needs_person(&self) -> bool;

    /// Whether that person consents on another device (RFC 8628), and no browser comes back.
    fn uses_device(&self) -> bool {
        false
    }

    /// Whether it names the client by its identifier, whatever the client authentication.
    fn needs_client_id(&self) -> bool {
        true
    }

    /// What the grant needs to know of a call, beyond its subject.
    fn placeholders(&self) -> Vec<Placeholder> {
        Vec::new()
    }

    /// Those of them that say whose token is asked for, instead of the connection's subject. What a
    /// caller writes there at will is for callers that may name subjects.
    fn subject_placeholders(&self) -> Vec<Placeholder> {
        Vec::new()
    }

    /// Whether it needs the caller's own JWT.
    fn needs_caller_token(&self) -> bool {
        false
    }

    /// Whether it needs an assertion that the caller hands over ([`CallContext::assertion`]). Its token is
    /// then of whoever that assertion names: only calls with the same assertion may share it.
    fn needs_assertion(&self) -> bool {
        false
    }

    /// The keys it signs with: their public halves are published.
    fn signing_keys(&self) -> Option<&SigningKeys> {
        None
    }

    /// Builds the request, or says what is missing, such as a person's consent.
    fn token_request(&self, context: &GrantContext<'_>) -> Result<TokenRequest, GrantError>;
}

/// A row of [`GRANTS`].
pub struct GrantRow {
    /// The value of `grant` in a profile.
    pub name: &'static str,
    /// Builds the strategy from the profile's settings, taking those that are its own.
    pub build: fn(&mut Settings) -> Result<Arc<dyn Grant>, SettingsError>,
}

/// Every grant that a profile may name. A refresh is not among them: it follows from what is held.
pub static GRANTS: &[GrantRow] = &[
    GrantRow { name: "authorization_code", build: authorization_code::build },
    GrantRow { name: "client_credentials", build: client_credentials::build },
    GrantRow { name: device_code::NAME, build: device_code::build },
    GrantRow { name: jwt_bearer::NAME, build: jwt_bearer::build },
    GrantRow { name: password::NAME, build: password::build },
    GrantRow { name: saml2_bearer::NAME, build: saml2_bearer::build },
    GrantRow { name: "token_exchange", build: token_exchange::build },
];

/// The row of the grant `name`.
pub fn find(name: &str) -> Option<&'static GrantRow> {
    GRANTS.iter().find(|row| row.name == name)
}

#[cfg(test)]
mod tests;
