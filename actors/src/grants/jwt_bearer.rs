//! JWT assertions as authorization grants (RFC 7521 section 4.1, RFC 7523 section 2.1): we vouch for a
//! subject, or for ourselves, with a signature. Each token request has an assertion of its own.

mod claims;
mod service_account;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::assertion::Audience;
use super::{Grant, GrantContext, GrantError};
use crate::protocol::jws::{Jwt, MacAlgorithm, Signer};
use crate::protocol::secret::Secret;
use crate::protocol::signing_key::SigningKey;
use crate::protocol::template::{Placeholder, Template};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};
use crate::registration::signing_keys::SigningKeys;
use claims::{Claim, Claims};
use service_account::ServiceAccount;

pub(super) const NAME: &str = "jwt_bearer";
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

/// What the assertion is signed with.
#[derive(Debug)]
enum Credential {
    /// Keys of ours, whose public halves are published.
    Keys(SigningKeys),
    /// A key that the provider made, and knows.
    ServiceAccount(SigningKey),
    /// The client's secret.
    Secret(MacAlgorithm, Secret),
}

#[derive(Debug)]
struct JwtBearer {
    credential: Credential,
    claims: Claims,
    /// Its type, if not `JWT`.
    typ: Option<String>,
    /// Whether the scope is a parameter of the request.
    send_scope: bool,
}

pub(super) fn build(settings: &mut Settings) -> Result<Arc<dyn Grant>, SettingsError> {
    let mut others = settings.clone();
    let table = settings.take_table("assertion", |table| read(table, &mut others))?;
    let grant = table.ok_or_else(|| {
        SettingsError::missing("assertion", "grant = \"jwt_bearer\" signs one, so at least its `signing_key`")
    })?;
    if let Credential::Secret(..) = grant.credential {
        // The client authentication may need it as well.
        settings.share(|settings| settings.take_secrets("client_secret"))?;
    }
    Ok(Arc::new(grant))
}

/// Reads the table `assertion`. `profile` is what is beside it.
fn read(settings: &mut Settings, profile: &mut Settings) -> Result<JwtBearer, SettingsError> {
    let account =
        settings.take_secret("service_account")?.map(|file| ServiceAccount::read(&file)).transpose()?;
    let issuer = settings.take_text("issuer")?;
    let subject = settings.take_text("subject")?;
    let audience = settings.take_texts("audience")?;
    let lifetime = settings.take_duration("lifetime")?.unwrap_or(DEFAULT_LIFETIME);
    let not_before = settings.take_flag("not_before")?.unwrap_or(false);
    let scope_claim = settings.take_flag("scope_claim")?.unwrap_or(account.is_some());
    let send_scope = settings.take_flag("send_scope")?.unwrap_or(account.is_none());
    let typ = settings.take_text("typ")?;
    let further = claims::further(settings.take_value("claims")?)?;
    let sign_with = settings.take_text("sign_with")?;

    // A service account acts as itself unless it is told to act as somebody (domain-wide delegation).
    let subject = match (subject, &account) {
        (Some(text), _) => Some(text),
        (None, Some(_)) => None,
        (None, None) => Some(Placeholder::Subject.to_string()),
    };
    let subject = subject.map(|text| template("subject", &text)).transpose()?;
    let issuer = issuer.or_else(|| account.as_ref().map(|account| account.client_email.clone()));
    let audience = match (audience.is_empty(), &account) {
        (true, Some(account)) => vec![Audience::Fixed(account.token_uri.clone())],
        _ => audience.into_iter().map(Audience::from).collect(),
    };
    let credential = credential(settings, sign_with.as_deref(), account, profile)?;
    let claims = Claims { issuer, subject, audience, lifetime, not_before, scope_claim, further };
    Ok(JwtBearer { credential, claims, typ, send_scope })
}

fn credential(
    settings: &mut Settings,
    sign_with: Option<&str>,
    account: Option<ServiceAccount>,
    profile: &mut Settings,
) -> Result<Credential, SettingsError> {
    match (sign_with, account) {
        (None, Some(account)) => Ok(Credential::ServiceAccount(account.key)),
        (Some(_), Some(_)) => {
            Err(error("sign_with", "cannot stand beside `service_account`, which has a key; remove one"))
        }
        (None | Some("signing_key"), None) => {
            SigningKeys::require(settings, "the assertion").map(Credential::Keys)
        }
        (Some("client_secret"), None) => {
            let algorithm = match settings.take_text("signing_alg")? {
                None => MacAlgorithm::default(),
                Some(name) => {
                    name.parse().map_err(|fault| error("signing_alg", format!("{name:?} {fault}")))?
                }
            };
            let needed = "sign_with = \"client_secret\" needs the profile's `client_secret`";
            let secret = profile.take_secrets("client_secret").ok().and_then(|all| all.into_iter().next());
            let secret = secret.ok_or_else(|| error("sign_with", needed))?;
            Ok(Credential::Secret(algorithm, secret))
        }
        (Some(_), None) => Err(error("sign_with", "must be \"signing_key\" (default) or \"client_secret\"")),
    }
}

fn template(key: &str, text: &str) -> Result<Template, SettingsError> {
    Template::parse(text).map_err(|fault| error(key, fault.to_string()))
}

fn error(key: &str, problem: impl Into<String>) -> SettingsError {
    SettingsError { key: key.to_owned(), problem: problem.into() }
}

impl Grant for JwtBearer {
    fn needs_person(&self) -> bool {
        false
    }

    fn needs_client_id(&self) -> bool {
        self.claims.issuer.is_none() && !matches!(self.claims.further.get("iss"), Some(Claim::Value(_)))
    }

    fn placeholders(&self) -> Vec<Placeholder> {
        self.claims.placeholders()
    }

    fn subject_placeholders(&self) -> Vec<Placeholder> {
        self.claims.subject_placeholders()
    }

    fn signing_keys(&self) -> Option<&SigningKeys> {
        match &self.credential {
            Credential::Keys(keys) => Some(keys),
            Credential::ServiceAccount(_) | Credential::Secret(..) => None,
        }
    }

    fn token_request(&self, context: &GrantContext<'_>) -> Result<TokenRequest, GrantError> {
        let mut jwt = Jwt::new(self.claims.of(context)?);
        if let Some(typ) = &self.typ {
            jwt = jwt.typ(typ);
        }
        let current;
        let signer = match &self.credential {
            Credential::Keys(keys) => {
                current = keys.current();
                Signer::Key(&current)
            }
            Credential::ServiceAccount(key) => Signer::Key(key),
            Credential::Secret(algorithm, secret) => Signer::Secret(*algorithm, secret),
        };
        let assertion = jwt.sign(signer).map_err(|source| GrantError::Signing { grant: NAME, source })?;
        let mut request = TokenRequest::new(GRANT_TYPE);
        request.param("assertion", assertion);
        if self.send_scope {
            request.param("scope", context.scopes.to_string());
        }
        Ok(request)
    }
}
