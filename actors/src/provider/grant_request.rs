//! Sends one token request and reads its answer: the only way from a profile to its token endpoint.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::capabilities;
use super::context::ProviderContext;
use super::expiry::expiry_of;
use crate::authorization_server::ResolvedMetadata;
use crate::clock::Timestamp;
use crate::connection::{Failure, FailureClass, Reason};
use crate::grants::refresh_token::refresh_request;
use crate::grants::{GrantContext, GrantError, Redemption};
use crate::jwk_set::VerifyError;
use crate::profile::{Client, Profile};
use crate::protocol::dpop::DpopKey;
use crate::protocol::id_token::{self, IdTokenChecks, IdTokenClaims};
use crate::protocol::identifiers::Subject;
use crate::protocol::printable::printable;
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::protocol::template::CallContext;
use crate::protocol::token::{AccessToken, IdentityClaims, RefreshToken, TokenSet};
use crate::protocol::token_request::TokenRequest;
use crate::protocol::token_response::{TokenResponse, carried_over};
use crate::registration::ClientRegistration;
use crate::registration::authorization::FAPI_ALGORITHMS;
use crate::token_endpoint::{Addressee, failure};

/// Clocks may differ by this much.
const SKEW: Duration = Duration::from_secs(60);

/// A token response and when it was asked for.
pub(super) struct Granted {
    pub(super) response: TokenResponse,
    /// Taken as the beginning of the token's life: the provider counts from a later moment.
    pub(super) requested_at: Timestamp,
    /// What the tokens are bound to.
    pub(super) dpop_key: Option<DpopKey>,
    /// The scopes asked for; a refresh asks for none.
    pub(super) requested: Option<ScopeSet>,
}

impl Granted {
    /// The token set to keep; what the answer left out is carried over from `before`.
    pub(super) fn into_token_set(
        self,
        registration: &ClientRegistration,
        before: Option<&TokenSet>,
        learned_lifetime: Option<u64>,
    ) -> TokenSet {
        let response = self.response;
        // Some servers repeat the one that they gave before.
        let stays =
            |old: &TokenSet| response.refresh_token.is_none() || response.refresh_token == old.refresh_token;
        let kept = before.filter(|old| old.refresh_token.is_some() && stays(old));
        let refresh_token_obtained_at = kept.map(TokenSet::refresh_token_since);
        let expiry = expiry_of(
            &response.access_token,
            response.expires_in,
            registration.default_token_lifetime,
            learned_lifetime.map(Duration::from_millis),
            self.requested_at,
        );
        TokenSet {
            expiry,
            token_type: response.token_type,
            obtained_at: self.requested_at,
            refresh_token: response
                .refresh_token
                .or_else(|| before.and_then(|old| old.refresh_token.clone())),
            refresh_token_obtained_at,
            scope: response
                .scope
                .or_else(|| self.requested.clone())
                .or_else(|| before.and_then(|old| old.scope.clone())),
            requested_scope: self.requested.or_else(|| before.and_then(|old| old.requested_scope.clone())),
            identity: before.and_then(|old| old.identity.clone()),
            access_token: response.access_token,
            dpop_key: self.dpop_key,
            extra: match before {
                // A refresh does not repeat what was said once, such as the host of the API.
                Some(old) => carried_over(&old.extra, response.extra),
                None => response.extra,
            },
        }
    }
}

/// What is asked of the token endpoint.
#[derive(Clone, Copy)]
pub(super) enum Ask<'a> {
    /// A new access token for this subject and call (RFC 6749 section 6).
    Refresh(&'a RefreshToken, &'a Subject, &'a CallContext),
    /// A token by the profile's own grant, without a person.
    Obtain {
        /// For whom.
        subject: &'a Subject,
        /// For what call.
        call: &'a CallContext,
        /// What is asked for.
        scopes: &'a ScopeSet,
    },
    /// A token for an authorization code (RFC 6749 section 4.1.3): sent at most once.
    Redeem(&'a Subject, &'a Redemption),
}

/// Sends one token request, proven with `dpop_key` if there is one, and reads its answer.
pub(super) async fn send(
    context: &ProviderContext,
    ask: Ask<'_>,
    dpop_key: Option<&DpopKey>,
) -> Result<Granted, Failure> {
    let answer = attempt(context, ask, dpop_key).await;
    if let Err(failure) = &answer
        && failure.class != FailureClass::Call
    {
        context.counters.failures.fetch_add(1, Ordering::Relaxed);
        context.note_error(&failure.detail);
        tracing::warn!(
            profile = %context.profile.registration.profile,
            class = ?failure.class,
            reason = ?failure.reason,
            detail = failure.detail,
            "token request failed"
        );
    }
    match &answer {
        Err(failure) if failure.class == FailureClass::ProviderUnavailable => {
            let retry = &context.profile.registration.retry;
            context.breaker.failed(context.now(), retry, failure.retry_after, context.jitter());
        }
        Ok(_) => {
            context.count(&context.counters.granted);
            context.breaker.succeeded();
        }
        // Nothing was asked of the provider, so nothing is known of it.
        Err(failure) if matches!(failure.class, FailureClass::Internal | FailureClass::Call) => {}
        _ => context.breaker.succeeded(),
    }
    answer
}

/// What the next tokens are bound to: what the ones `before` them are, since a refresh token goes with
/// its key (RFC 9449 section 5), or a new key, if the profile wants one.
pub(super) fn dpop_key(
    context: &ProviderContext,
    before: Option<&DpopKey>,
) -> Result<Option<DpopKey>, Failure> {
    let generate = |algorithm| {
        DpopKey::generate(algorithm)
            .map_err(|error| failure(FailureClass::Internal, Reason::InternalError, error.to_string()))
    };
    match (before, context.profile.registration.dpop) {
        (Some(key), _) => Ok(Some(key.clone())),
        (None, Some(algorithm)) => generate(algorithm).map(Some),
        (None, None) => Ok(None),
    }
}

async fn attempt(
    context: &ProviderContext,
    ask: Ask<'_>,
    dpop_key: Option<&DpopKey>,
) -> Result<Granted, Failure> {
    let metadata = context.discovery.metadata().await?;
    if let Ask::Obtain { .. } = ask {
        capabilities::check(&context.profile, &metadata)?;
    }
    if let Some(key) = dpop_key {
        metadata.check_dpop(key.algorithm())?;
    }
    let client = context.client().await?;
    let answer = attempt_as(context, &client, &metadata, ask, dpop_key).await;
    if answer.is_err() && client.is_refused()
        && let Ok(other) = context.client().await
        && !Arc::ptr_eq(&client, &other)
        // A code is the client's that asked for it: another one would only use it up.
        && (other.client_id == client.client_id || !matches!(ask, Ask::Redeem(..)))
    {
        return attempt_as(context, &other, &metadata, ask, dpop_key).await;
    }
    answer
}

async fn attempt_as(
    context: &ProviderContext,
    client: &Client,
    metadata: &ResolvedMetadata,
    ask: Ask<'_>,
    dpop_key: Option<&DpopKey>,
) -> Result<Granted, Failure> {
    let token_endpoint = metadata.token_endpoint()?;
    let registration = &context.profile.registration;
    let further = |refresh, subject, call| {
        registration.render_params(refresh, subject, call).map_err(|error| incomplete(&error))
    };
    let mut requested = None;
    let (mut request, further, endpoint) = match ask {
        Ask::Refresh(token, subject, call) => {
            let endpoint = metadata.endpoints.refresh_endpoint.as_ref().unwrap_or(token_endpoint);
            (refresh_request(token), further(true, subject, call)?, endpoint)
        }
        Ask::Obtain { subject, call, scopes } => {
            requested = Some(scopes.clone());
            let mut request =
                grant(context, client, metadata, GrantAsk { subject, call, scopes, redemption: None })?;
            add_details(context, subject, call, &mut request)?;
            (request, further(false, subject, call)?, token_endpoint)
        }
        Ask::Redeem(subject, redemption) => {
            let (call, scopes) = (&CallContext::default(), &redemption.scopes);
            requested = Some(scopes.clone());
            let ask = GrantAsk { subject, call, scopes, redemption: Some(redemption) };
            (grant(context, client, metadata, ask)?, further(false, subject, call)?, token_endpoint)
        }
    };
    request.dpop_key = dpop_key.cloned();
    let requested_at = context.now();
    context.count(&context.counters.token_requests);
    let to = Addressee { profile: &context.profile, client, metadata, endpoint };
    let response = context.token_endpoint.request(to, request, &further).await?;
    let requested = requested.filter(|scopes| !scopes.is_empty());
    Ok(Granted { response, requested_at, dpop_key: dpop_key.cloned(), requested })
}

/// What the profile's own grant is to bring.
pub(super) struct GrantAsk<'a> {
    pub(super) subject: &'a Subject,
    pub(super) call: &'a CallContext,
    pub(super) scopes: &'a ScopeSet,
    pub(super) redemption: Option<&'a Redemption>,
}

/// Where no person is asked, the token request itself has the details (RFC 9396 section 6).
fn add_details(
    context: &ProviderContext,
    subject: &Subject,
    call: &CallContext,
    request: &mut TokenRequest,
) -> Result<(), Failure> {
    let details = context.profile.registration.authorization.details(subject, call);
    let details = details.map_err(|error| incomplete(&error))?;
    request.param("authorization_details", details.unwrap_or_default());
    Ok(())
}

/// The profile's own grant as a request.
pub(super) fn grant(
    context: &ProviderContext,
    client: &Client,
    metadata: &ResolvedMetadata,
    GrantAsk { subject, call, scopes, redemption }: GrantAsk<'_>,
) -> Result<TokenRequest, Failure> {
    let registration = &context.profile.registration;
    let grant_context = GrantContext {
        registration,
        client_id: &client.client_id,
        subject,
        scopes,
        call,
        redemption,
        token_endpoint: metadata.token_endpoint()?,
        issuer: metadata.issuer.as_deref(),
        now: context.now(),
        entropy: context.entropy.as_ref(),
    };
    context.profile.grant.token_request(&grant_context).map_err(|error| match error {
        GrantError::ConsentNeeded => {
            failure(FailureClass::GrantDead, Reason::NeverConnected, error.to_string())
        }
        GrantError::Call { .. }
        | GrantError::NoCallerToken
        | GrantError::NoAssertion
        | GrantError::CallAssertion(_) => incomplete(&error),
        other => failure(FailureClass::Internal, Reason::InternalError, other.to_string()),
    })
}

/// Looks whether `call` brings along what a request will need, before anything is written or sent.
pub(super) fn check_call(
    context: &ProviderContext,
    refresh: bool,
    call: &CallContext,
) -> Result<(), Failure> {
    let Profile { registration, grant, .. } = &*context.profile;
    let mut placeholders: Vec<_> = registration
        .further_params(refresh)
        .iter()
        .flat_map(|(_, template)| template.placeholders())
        .collect();
    let mut of_grant = if refresh { Vec::new() } else { grant.placeholders() };
    if !refresh && !grant.needs_person() {
        of_grant.extend(registration.authorization.placeholders());
    }
    placeholders.extend(&of_grant);
    for placeholder in placeholders {
        call.has(placeholder).map_err(|error| incomplete(&error))?;
    }
    if !refresh && grant.needs_caller_token() && call.caller_token.is_none() {
        return Err(incomplete(&GrantError::NoCallerToken));
    }
    if !refresh && grant.needs_assertion() && call.assertion.is_none() {
        return Err(incomplete(&GrantError::NoAssertion));
    }
    Ok(())
}

pub(super) fn incomplete(error: &dyn fmt::Display) -> Failure {
    failure(FailureClass::Call, Reason::RequestRefused, error.to_string())
}

/// Checks the ID token of a refresh and says whom it names. `at` is when the answer came.
pub(super) async fn identity(
    context: &ProviderContext,
    id_token: &Secret,
    access_token: &AccessToken,
    at: Timestamp,
) -> Result<IdentityClaims, Failure> {
    checked(context, id_token, access_token, None, at).await.map(|claims| claims.identity())
}

/// Checks the ID token of a flow and says whom it names. `nonce` is the one sent, if any. A person
/// who logged in too long before the flow began, or not as strongly as is essential, is refused: the
/// server was told `max_age` and `acr` (OpenID Connect Core sections 3.1.3.7 and 5.5.1.1).
pub(super) async fn identity_of_flow(
    context: &ProviderContext,
    subject: &Subject,
    granted: &Granted,
    nonce: Option<&Secret>,
    begun_at: Timestamp,
) -> Result<IdentityClaims, Failure> {
    let Some(id_token) = &granted.response.id_token else {
        return Err(bad_id_token("the answer has no ID token although `openid` was asked for".to_owned()));
    };
    let claims = checked(context, id_token, &granted.response.access_token, nonce, context.now()).await?;
    let options = &context.profile.registration.authorization;
    if let Some(wanted) = options.essential_acr(subject)
        && !claims.acr.as_ref().is_some_and(|acr| wanted.is_empty() || wanted.contains(acr))
    {
        let found = claims.acr.as_deref().map_or("no acr".to_owned(), |acr| printable(acr, 100));
        let wanted = if wanted.is_empty() { "one".to_owned() } else { wanted.join(", ") };
        return Err(bad_id_token(format!("the ID token has {found}, and `claims` makes {wanted} essential")));
    }
    if let Some(max_age) = options.max_age {
        let logged_in = claims.auth_time.ok_or_else(|| {
            bad_id_token("the ID token has no auth_time although `max_age` was asked for".to_owned())
        })?;
        if logged_in.after(max_age).after(SKEW) < begun_at {
            return Err(bad_id_token(format!(
                "the person logged in more than {} s before, and `max_age` was asked for",
                max_age.as_secs()
            )));
        }
    }
    Ok(claims.identity())
}

/// Checks an ID token (OpenID Connect Core section 3.1.3.7).
async fn checked(
    context: &ProviderContext,
    id_token: &Secret,
    access_token: &AccessToken,
    nonce: Option<&Secret>,
    at: Timestamp,
) -> Result<IdTokenClaims, Failure> {
    let registration = &context.profile.registration;
    let metadata = context.discovery.metadata().await?;
    let Some(issuer) = metadata.issuer.as_deref() else {
        let detail =
            "the provider's issuer is unknown, so its ID token cannot be checked; configure `issuer`";
        return Err(failure(FailureClass::ClientMisconfigured, Reason::RequestRefused, detail.to_owned()));
    };
    let pinned = registration.id_token_signing_alg.as_ref().map(std::slice::from_ref);
    let strong: Vec<String>;
    let announced = match registration.authorization.fapi_algorithms_only {
        true => {
            let allowed = |name: &&String| FAPI_ALGORITHMS.contains(&name.as_str());
            strong = metadata.id_token_algs.iter().filter(allowed).cloned().collect();
            &strong
        }
        false => &metadata.id_token_algs,
    };
    let checks = IdTokenChecks {
        issuer,
        client_id: &context.client().await?.client_id,
        nonce,
        allowed_algs: pinned.unwrap_or(announced),
        access_token: Some(access_token),
        now: at,
    };
    let verify = |keys: &_| id_token::verify(id_token, keys, &checks);
    let verified = context.keys.verify(&context.transport, metadata.jwks_uri()?, at, verify).await;
    match verified {
        Ok(claims) => Ok(claims),
        Err(VerifyError::Keys(failure)) => Err(failure),
        Err(VerifyError::Token(error)) => Err(bad_id_token(error.to_string())),
    }
}

/// What a refusal means while no grant is at stake yet.
pub(super) fn before_any_grant(failure: Failure) -> Failure {
    match failure.class {
        FailureClass::GrantDead => {
            Failure { class: FailureClass::ClientMisconfigured, reason: Reason::RequestRefused, ..failure }
        }
        _ => failure,
    }
}

fn bad_id_token(detail: String) -> Failure {
    failure(FailureClass::ProviderUnavailable, Reason::MalformedAnswer, detail)
}
