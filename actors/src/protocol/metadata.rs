//! Authorization server metadata (RFC 8414, OpenID Connect Discovery 1.0).

use std::net::IpAddr;

use serde_json::{Map, Value};
use thiserror::Error;
use url::{Host, Url};

use super::printable::printable;
use super::strict_json::{self, StrictJsonError};

const MAX_LIST: usize = 64;

/// What an authorization server says of itself. Members that we do not use are not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationServerMetadata {
    /// Identical to the issuer that was asked for.
    pub issuer: String,
    /// RFC 6749 section 3.1.
    pub authorization_endpoint: Option<Url>,
    /// RFC 6749 section 3.2.
    pub token_endpoint: Option<Url>,
    /// RFC 7009.
    pub revocation_endpoint: Option<Url>,
    /// RFC 7662.
    pub introspection_endpoint: Option<Url>,
    /// RFC 9126.
    pub pushed_authorization_request_endpoint: Option<Url>,
    /// RFC 8628.
    pub device_authorization_endpoint: Option<Url>,
    /// RFC 7591.
    pub registration_endpoint: Option<Url>,
    /// OpenID Connect Core section 5.3.
    pub userinfo_endpoint: Option<Url>,
    /// RFC 7517.
    pub jwks_uri: Option<Url>,
    /// Algorithms that may sign ID tokens; `None` if it does not say.
    pub id_token_signing_alg_values_supported: Option<Vec<String>>,
    /// Client authentication methods; `None` means `client_secret_basic` (RFC 8414 section 2).
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// PKCE methods; `None` if it does not say.
    pub code_challenge_methods_supported: Option<Vec<String>>,
    /// Grants; `None` if it does not say.
    pub grant_types_supported: Option<Vec<String>>,
    /// Algorithms that may sign client assertions; `None` if it does not say.
    pub token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    /// Algorithms that may sign request objects (RFC 9101); `None` if it does not say.
    pub request_object_signing_alg_values_supported: Option<Vec<String>>,
    /// Algorithms that may sign DPoP proofs (RFC 9449 section 5.1); `None` if it does not say.
    pub dpop_signing_alg_values_supported: Option<Vec<String>>,
    /// Whether authorization requests must be pushed (RFC 9126 section 5).
    pub require_pushed_authorization_requests: bool,
    /// Whether request objects must be signed (RFC 9101 section 10.5).
    pub require_signed_request_object: bool,
    /// Where a client certificate is asked for (RFC 8705 section 5).
    pub mtls_endpoint_aliases: MtlsEndpointAliases,
    /// Whether authorization responses carry `iss` (RFC 9207 section 3).
    pub authorization_response_iss_parameter_supported: bool,
}

/// Endpoints for clients that show a certificate (RFC 8705 section 5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MtlsEndpointAliases {
    /// Instead of `token_endpoint`.
    pub token_endpoint: Option<Url>,
    /// Instead of `revocation_endpoint`.
    pub revocation_endpoint: Option<Url>,
    /// Instead of `introspection_endpoint`.
    pub introspection_endpoint: Option<Url>,
    /// Instead of `pushed_authorization_request_endpoint`.
    pub pushed_authorization_request_endpoint: Option<Url>,
    /// Instead of `device_authorization_endpoint`.
    pub device_authorization_endpoint: Option<Url>,
    /// Instead of `userinfo_endpoint`.
    pub userinfo_endpoint: Option<Url>,
}

/// Why a metadata document, or an issuer, is not used. Nothing of a refused document is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The document cannot be read.
    #[error("the metadata document {0}")]
    Document(#[from] StrictJsonError),
    /// A member has the wrong type.
    #[error("the metadata document's {0} is missing or not of the right type")]
    Member(&'static str),
    /// RFC 8414 section 3.3: whoever wrote it speaks for another issuer. Mend `issuer` if the one
    /// found is right, character by character.
    #[error(
        "the metadata document is for the issuer {found:?}, not for {expected:?}; set the provider's `issuer` to the \
             one that is right, character by character"
    )]
    IssuerMismatch {
        /// The configured issuer.
        expected: String,
        /// The one in the document.
        found: String,
    },
    /// An endpoint to which no secret may be sent.
    #[error("the metadata document's {0} is no https URL (http is allowed on loopback only)")]
    Endpoint(&'static str),
    /// The issuer identifier itself is none (RFC 8414 section 2).
    #[error("the issuer {0:?} is no https URL without query and fragment (http is allowed on loopback only)")]
    Issuer(String),
}

impl AuthorizationServerMetadata {
    /// Reads a document and checks that it speaks for `expected_issuer`, by plain string equality
    /// (RFC 8414 section 3.3), and that every endpoint is [allowed](is_allowed_endpoint).
    pub fn parse(body: &[u8], expected_issuer: &str) -> Result<Self, MetadataError> {
        let members = strict_json::object(body)?;
        let issuer = members.get("issuer").and_then(Value::as_str).ok_or(MetadataError::Member("issuer"))?;
        if issuer != expected_issuer {
            return Err(MetadataError::IssuerMismatch {
                expected: printable(expected_issuer, 300),
                found: printable(issuer, 300),
            });
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            authorization_endpoint: endpoint(&members, "authorization_endpoint")?,
            token_endpoint: endpoint(&members, "token_endpoint")?,
            revocation_endpoint: endpoint(&members, "revocation_endpoint")?,
            introspection_endpoint: optional_endpoint(&members, "introspection_endpoint"),
            pushed_authorization_request_endpoint: optional_endpoint(
                &members,
                "pushed_authorization_request_endpoint",
            ),
            device_authorization_endpoint: optional_endpoint(&members, "device_authorization_endpoint"),
            registration_endpoint: optional_endpoint(&members, "registration_endpoint"),
            userinfo_endpoint: optional_endpoint(&members, "userinfo_endpoint"),
            jwks_uri: endpoint(&members, "jwks_uri")?,
            id_token_signing_alg_values_supported: list(&members, "id_token_signing_alg_values_supported")?,
            token_endpoint_auth_methods_supported: list(&members, "token_endpoint_auth_methods_supported")?,
            code_challenge_methods_supported: list(&members, "code_challenge_methods_supported")?,
            grant_types_supported: list(&members, "grant_types_supported")?,
            token_endpoint_auth_signing_alg_values_supported: list(
                &members,
                "token_endpoint_auth_signing_alg_values_supported",
            )?,
            request_object_signing_alg_values_supported: list(
                &members,
                "request_object_signing_alg_values_supported",
            )?,
            dpop_signing_alg_values_supported: list(&members, "dpop_signing_alg_values_supported")?,
            require_pushed_authorization_requests: flag(&members, "require_pushed_authorization_requests"),
            require_signed_request_object: flag(&members, "require_signed_request_object"),
            mtls_endpoint_aliases: aliases(&members)?,
            authorization_response_iss_parameter_supported: flag(
                &members,
                "authorization_response_iss_parameter_supported",
            ),
        })
    }
}

/// Where `issuer`'s metadata may be, in the order to try: OpenID Connect Discovery section 4, which
/// appends to the issuer, then RFC 8414 section 3.1, which goes between host and path.
pub fn well_known_urls(issuer: &str) -> Result<Vec<Url>, MetadataError> {
    let refused = || MetadataError::Issuer(printable(issuer, 300));
    let parsed = Url::parse(issuer).map_err(|_| refused())?;
    if !is_allowed_endpoint(&parsed) || parsed.query().is_some() {
        return Err(refused());
    }
    let path = parsed.path().trim_end_matches('/').to_owned();
    let with_path = |path: String| {
        let mut url = parsed.clone();
        url.set_path(&path);
        url
    };
    Ok(vec![
        with_path(format!("{path}/.well-known/openid-configuration")),
        with_path(format!("/.well-known/oauth-authorization-server{path}")),
    ])
}

/// Whether secrets may be sent to `url`: https, or http that never leaves this machine; no user
/// name or password in it, no fragment.
pub fn is_allowed_endpoint(url: &Url) -> bool {
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let scheme = match url.scheme() {
        "https" => url.host().is_some(),
        "http" => match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        },
        _ => false,
    };
    plain && scheme
}

fn flag(members: &Map<String, Value>, name: &str) -> bool {
    members.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn aliases(members: &Map<String, Value>) -> Result<MtlsEndpointAliases, MetadataError> {
    let aliases = match members.get("mtls_endpoint_aliases") {
        None | Some(Value::Null) => return Ok(MtlsEndpointAliases::default()),
        Some(Value::Object(aliases)) => aliases,
        Some(_) => return Err(MetadataError::Member("mtls_endpoint_aliases")),
    };
    Ok(MtlsEndpointAliases {
        token_endpoint: endpoint(aliases, "token_endpoint")?,
        revocation_endpoint: endpoint(aliases, "revocation_endpoint")?,
        introspection_endpoint: endpoint(aliases, "introspection_endpoint")?,
        pushed_authorization_request_endpoint: endpoint(aliases, "pushed_authorization_request_endpoint")?,
        device_authorization_endpoint: endpoint(aliases, "device_authorization_endpoint")?,
        userinfo_endpoint: endpoint(aliases, "userinfo_endpoint")?,
    })
}

fn endpoint(members: &Map<String, Value>, name: &'static str) -> Result<Option<Url>, MetadataError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            let url = Url::parse(text).map_err(|_| MetadataError::Endpoint(name))?;
            if is_allowed_endpoint(&url) { Ok(Some(url)) } else { Err(MetadataError::Endpoint(name)) }
        }
        Some(_) => Err(MetadataError::Member(name)),
    }
}

/// An endpoint that few profiles need: one to which no secret may be sent is taken as not there.
fn optional_endpoint(members: &Map<String, Value>, name: &'static str) -> Option<Url> {
    endpoint(members, name).ok().flatten()
}

fn list(members: &Map<String, Value>, name: &'static str) -> Result<Option<Vec<String>>, MetadataError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => {
            let text = |item: &Value| item.as_str().map(|text| printable(text, 64));
            let texts = items.iter().take(MAX_LIST).map(text).collect::<Option<Vec<_>>>();
            texts.map(Some).ok_or(MetadataError::Member(name))
        }
        Some(_) => Err(MetadataError::Member(name)),
    }
}

#[cfg(test)]
mod tests;
