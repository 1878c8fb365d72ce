//! Where an authorization server's endpoints are: given by hand, or discovered (OpenID Connect
//! Discovery 1.0, RFC 8414).

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use url::Url;

use crate::authorization_server::ResolvedMetadata;
use crate::clock::{Clock, Timestamp};
use crate::connection::{Failure, FailureClass, Reason};
use crate::protocol::jwk::find_algorithm;
use crate::protocol::metadata::{
    AuthorizationServerMetadata, MetadataError, MtlsEndpointAliases, well_known_urls,
};
use crate::protocol::token_error::TokenAnswerError;
use crate::registration::{Endpoints, ProviderDetails};
use crate::token_endpoint::{failure, failure_of_transport, get_json};
use crate::transport::Transport;

/// A document is believed for this long.
const KEPT: Duration = Duration::from_secs(3600);
/// A failure is repeated to everybody who asks within this time.
const FAILURE_KEPT: Duration = Duration::from_secs(2);
/// After a failure with an older document at hand, that one serves for this long.
const STALE_KEPT: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 256 * 1024;

fn misconfigured(detail: String) -> Failure {
    failure(FailureClass::ClientMisconfigured, Reason::RequestRefused, detail)
}

/// Metadata of one provider, fetched when needed and kept. One fetch is in flight at most.
pub struct Discovery {
    provider: ProviderDetails,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    cached: Mutex<Cached>,
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Cached {
    metadata: Option<Arc<ResolvedMetadata>>,
    /// From when to when `metadata` is given without a fetch.
    fresh: Option<(Timestamp, Timestamp)>,
    failure: Option<(Failure, Timestamp)>,
}

impl Cached {
    /// The answer at hand, if there is one. A clock set back ends what is kept.
    fn at(&self, now: Timestamp) -> Option<Result<Arc<ResolvedMetadata>, Failure>> {
        if let (Some(metadata), Some((from, until))) = (&self.metadata, self.fresh)
            && (from..until).contains(&now)
        {
            return Some(Ok(metadata.clone()));
        }
        match &self.failure {
            Some((failure, at)) if (*at..at.after(FAILURE_KEPT)).contains(&now) => Some(Err(failure.clone())),
            _ => None,
        }
    }
}

impl Discovery {
    /// Nothing is fetched before it is needed.
    pub fn new(provider: ProviderDetails, transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self { provider, transport, clock, cached: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// What is known of the provider. Endpoints given by hand win; without an issuer there are no
    /// others. While a document is fetched anew, the old one is given to everybody else, and if
    /// the fetch fails it goes on serving.
    pub async fn metadata(&self) -> Result<Arc<ResolvedMetadata>, Failure> {
        let Some(issuer) = self.provider.issuer.as_deref() else {
            return Ok(Arc::new(self.resolve(None)));
        };
        let old = {
            let cached = self.cached.lock();
            if let Some(answer) = cached.at(self.clock.now()) {
                return answer;
            }
            cached.metadata.clone()
        };
        let _turn = match (self.fetching.try_lock(), old) {
            (Ok(turn), _) => turn,
            (Err(_), Some(old)) => return Ok(old),
            (Err(_), None) => self.fetching.lock().await,
        };
        // Whoever had the turn before may have brought it.
        if let Some(answer) = self.cached.lock().at(self.clock.now()) {
            return answer;
        }
        let fetched = self.fetch(issuer).await;
        let now = self.clock.now();
        let mut cached = self.cached.lock();
        match (fetched, cached.metadata.clone()) {
            (Ok(document), _) => {
                let metadata = Arc::new(self.resolve(document));
                cached.metadata = Some(metadata.clone());
                cached.fresh = Some((now, now.after(KEPT)));
                cached.failure = None;
                Ok(metadata)
            }
            (Err(_), Some(old)) => {
                cached.fresh = Some((now, now.after(STALE_KEPT)));
                Ok(old)
            }
            (Err(failure), None) => {
                cached.failure = Some((failure.clone(), now));
                Err(failure)
            }
        }
    }

    fn resolve(&self, document: Option<AuthorizationServerMetadata>) -> ResolvedMetadata {
        let document = document.map(Arc::new);
        let given = &self.provider.endpoints;
        let or = |given: &Option<Url>, found: fn(&AuthorizationServerMetadata) -> &Option<Url>| {
            given.clone().or_else(|| document.as_deref().and_then(|document| found(document).clone()))
        };
        // A client that shows its certificate goes where one is asked for (RFC 8705 section 5).
        let aliases = document.as_deref().filter(|_| self.provider.outbound.shows_certificate);
        let aliases = aliases.map(|document| &document.mtls_endpoint_aliases);
        let or_alias = |given: &Option<Url>,
                        alias: fn(&MtlsEndpointAliases) -> &Option<Url>,
                        found: fn(&AuthorizationServerMetadata) -> &Option<Url>| {
            let alias = aliases.and_then(|aliases| alias(aliases).clone());
            given.clone().or(alias).or_else(|| or(&None, found))
        };
        let algs = document.as_ref().and_then(|d| d.id_token_signing_alg_values_supported.clone());
        ResolvedMetadata {
            issuer: self.provider.issuer.clone(),
            endpoints: Endpoints {
                authorization_endpoint: or(&given.authorization_endpoint, |d| &d.authorization_endpoint),
                token_endpoint: or_alias(&given.token_endpoint, |a| &a.token_endpoint, |d| &d.token_endpoint),
                refresh_endpoint: given.refresh_endpoint.clone(),
                revocation_endpoint: or_alias(
                    &given.revocation_endpoint,
                    |a| &a.revocation_endpoint,
                    |d| &d.revocation_endpoint,
                ),
                introspection_endpoint: or_alias(
                    &given.introspection_endpoint,
                    |a| &a.introspection_endpoint,
                    |d| &d.introspection_endpoint,
                ),
                pushed_authorization_request_endpoint: or_alias(
                    &given.pushed_authorization_request_endpoint,
                    |a| &a.pushed_authorization_request_endpoint,
                    |d| &d.pushed_authorization_request_endpoint,
                ),
                device_authorization_endpoint: or_alias(
                    &given.device_authorization_endpoint,
                    |a| &a.device_authorization_endpoint,
                    |d| &d.device_authorization_endpoint,
                ),
                registration_endpoint: or(&given.registration_endpoint, |d| &d.registration_endpoint),
                userinfo_endpoint: or_alias(
                    &given.userinfo_endpoint,
                    |a| &a.userinfo_endpoint,
                    |d| &d.userinfo_endpoint,
                ),
                jwks_uri: or(&given.jwks_uri, |d| &d.jwks_uri),
            },
            id_token_algs: match algs {
                Some(algs) => algs.into_iter().filter(|alg| find_algorithm(alg).is_some()).collect(),
                None => vec!["RS256".to_owned()],
            },
            iss_announced: document
                .as_ref()
                .is_some_and(|document| document.authorization_response_iss_parameter_supported),
            document,
        }
    }

    /// The document; `None` if there is none anywhere and the token endpoint is given by hand.
    async fn fetch(&self, issuer: &str) -> Result<Option<AuthorizationServerMetadata>, Failure> {
        for url in well_known_urls(issuer).map_err(|fault| misconfigured(fault.to_string()))? {
            let request = get_json(url, DEADLINE, MAX_BODY);
            let answer = self.transport.send(request).await.map_err(|fault| failure_of_transport(&fault))?;
            match answer.status {
                StatusCode::NOT_FOUND | StatusCode::GONE => {}
                StatusCode::OK => {
                    return AuthorizationServerMetadata::parse(&answer.body, issuer)
                        .map(Some)
                        .map_err(failure_of_metadata);
                }
                status => {
                    let now = self.clock.now();
                    return Err(
                        match TokenAnswerError::of_status(status.as_u16(), &answer.headers, &[], now) {
                            TokenAnswerError::Refused { .. } => misconfigured(format!(
                                "the metadata of {issuer} is refused with status {status}"
                            )),
                            other => other.into_failure(),
                        },
                    );
                }
            }
        }
        if self.provider.endpoints.token_endpoint.is_some() {
            return Ok(None);
        }
        Err(misconfigured(format!("the issuer {issuer} has no metadata document; configure token_endpoint")))
    }
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discovery").field("provider", &self.provider).finish_non_exhaustive()
    }
}

fn failure_of_metadata(fault: MetadataError) -> Failure {
    match fault {
        MetadataError::IssuerMismatch { .. } | MetadataError::Issuer(_) => misconfigured(fault.to_string()),
        _ => failure(FailureClass::ProviderUnavailable, Reason::MalformedAnswer, fault.to_string()),
    }
}

#[cfg(test)]
mod tests;
